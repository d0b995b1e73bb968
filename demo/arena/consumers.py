"""A player's page: what it may say, and what it is told.

Binary messages are the game itself, inputs one way and frames the other: see ``wire.py``. Text is
JSON with a ``type``: to the page ``welcome`` (once), ``scores`` (who is there, whenever that
changed), ``pong`` and ``error``; from the page ``ping``.

A page says only which way it wants to swim. Whose duck that is, the login says; how far it gets,
the server reckons. So there is no speed and no name to lie about: more inputs than there are ticks
are not taken, and who sends too many of them, or bytes that are none, is closed with a code.
"""

import time

from arena.groups import PLAYERS
from arena.keeper import Keeper
from arena.wire import BadFrame, read_input
from arena.world import TICK_HZ, rules
from live.consumers import LiveConsumer
from live.limits import Allowance

__all__ = ["BAD_FRAMES", "TOO_MANY", "ArenaConsumer"]

#: Close codes after which coming back is of no use.
BAD_FRAMES = 4400
TOO_MANY = 4429

# So many mistakes are borne.
BAD_FRAMES_BORNE = 3
EXCESS_BORNE = 200

keeper = Keeper()


class ArenaConsumer(LiveConsumer):
    """One page that shows the pond."""

    playing = False

    async def enter(self):
        # A page makes TICK_HZ inputs a second; what was held up on the way comes at once.
        self.inputs = Allowance(burst=2 * TICK_HZ, per_second=1.1 * TICK_HZ)
        self.bad_frames = self.excess = 0
        self.since = time.time()
        await self.send_json({"type": "welcome", "you": self.user.pk, "rules": rules()})
        await self.channel_layer.group_add(PLAYERS, self.channel_name)
        self.playing = True
        await keeper.keeping.enter()
        await self.join()

    async def join(self):
        person = {"id": self.user.pk, "name": self.user.name, "color": self.user.color}
        await self.tell("arena.join", person=person, since=self.since)

    async def tell(self, kind, **details):
        event = {"type": kind, "user": self.user.pk, "channel": self.channel_name, **details}
        await keeper.tell(event)

    async def arena_call(self, event):
        """Answer the one who runs the pond, and may have begun just now."""
        await self.join()

    async def receive(self, text_data=None, bytes_data=None, **kwargs):
        if bytes_data is None:
            await super().receive(text_data=text_data, **kwargs)
            return
        if self.inputs.take(time.monotonic()):
            self.excess += 1
            if self.excess == EXCESS_BORNE:
                await self.refuse(TOO_MANY, "rate", "Too many inputs: one for each tick will do.")
            return
        try:
            number, dx, dy = read_input(bytes_data)
        except BadFrame as bad:
            self.bad_frames += 1
            if self.bad_frames == BAD_FRAMES_BORNE:
                await self.refuse(BAD_FRAMES, "bad_frame", f"Not understood again: {bad}.")
            else:
                await self.say_error({}, "bad_frame", f"Not understood: {bad}.")
            return
        await self.tell("arena.input", number=number, dx=dx, dy=dy)

    async def disconnect(self, code):
        if self.playing:
            self.playing = False
            try:
                await self.tell("arena.leave")
            finally:  # whatever the layer meets: the count is right
                await keeper.keeping.leave()
