"""Channel layers that break one promise each, for the suite to find out."""

import asyncio
import contextlib
import copy

from headrace.exceptions import ChannelFull
from headrace.layers import InMemoryChannelLayer, LocalChannelLayer

from .plain import PlainLayer

# In one process


class Losing(InMemoryChannelLayer):
    async def group_send(self, group, message):
        if message.get("number") != 3:
            await super().group_send(group, message)


class Repeating(InMemoryChannelLayer):
    async def send(self, channel, message):
        await super().send(channel, message)
        if message.get("number") == 3:
            await super().send(channel, message)


class Reordering(PlainLayer):
    """The last comes first."""

    async def receive(self, channel):
        queue = self.queues.setdefault(channel, asyncio.Queue())
        if queue.qsize() > 1:
            return queue._queue.pop()[1]
        return await super().receive(channel)


class Everlasting(PlainLayer):
    def __init__(self, expiry=60, **options):
        super().__init__(expiry=1e9, **options)


class Faithful(PlainLayer):
    """Nobody ever leaves a group by time."""

    def __init__(self, group_expiry=60, **options):
        super().__init__(group_expiry=1e9, **options)


class Leaking(PlainLayer):
    """Nobody ever leaves a group."""

    async def group_discard(self, group, channel):
        self.valid_group_name(group)
        self.valid_channel_name(channel)


class Counting(PlainLayer):
    """Who joins twice hears twice."""

    async def group_add(self, group, channel):
        twice = channel in self.groups.get(group, {})
        await super().group_add(group, channel)
        if twice:
            self.twice = {*getattr(self, "twice", ()), (group, channel)}

    async def group_send(self, group, message):
        await super().group_send(group, message)
        for once_more, channel in getattr(self, "twice", ()):
            if once_more == group and channel in self.groups.get(group, {}):
                await self.send(channel, message)


class Boundless(PlainLayer):
    def get_capacity(self, channel):
        return 10**9


class Silent(PlainLayer):
    """What has no room is dropped without a word."""

    async def send(self, channel, message):
        with contextlib.suppress(ChannelFull):
            await super().send(channel, message)


class Uniform(PlainLayer):
    """No channel has a capacity of its own."""

    def get_capacity(self, channel):
        return self.capacity


class Raising(PlainLayer):
    """A full member ends a group send."""

    async def group_send(self, group, message):
        await super().group_send(group, message)
        for channel in self.groups.get(group, {}):
            if self.queues[channel].qsize() >= self.get_capacity(channel):
                raise ChannelFull(channel)


class Unchecked(PlainLayer):
    def valid_group_name(self, name):
        return True


class Narrow(PlainLayer):
    """Names are shorter than they may be."""

    def valid_channel_name(self, name):
        super().valid_channel_name(name)
        if len(name) > 50:
            raise TypeError(f"too long: {name}")
        return True


class Taking(PlainLayer):
    """A reader that is cancelled takes a message with it."""

    async def receive(self, channel):
        message = await super().receive(channel)
        await asyncio.sleep(0)
        return message


class Forgetting(PlainLayer):
    """So does one that is cancelled when it has just been woken."""

    async def receive(self, channel):
        self.valid_channel_name(channel)
        queue = self.queues.setdefault(channel, asyncio.Queue())
        if not queue.empty():
            return await super().receive(channel)
        _, message = await asyncio.shield(asyncio.ensure_future(queue.get()))
        return message


class Sharing(PlainLayer):
    """All members get one and the same message."""

    async def group_send(self, group, message):
        before = {channel: queue.qsize() for channel, queue in self.queues.items()}
        await super().group_send(group, message)
        message = copy.deepcopy(message)
        for channel, queue in self.queues.items():
            if queue.qsize() > before.get(channel, 0):
                until, _ = queue._queue.pop()
                queue._queue.append((until, message))


class Crossing(PlainLayer):
    """Groups whose names begin alike are one."""

    async def group_send(self, group, message):
        for one in [name for name in self.groups if name[:1] == group[:1]] or [group]:
            await super().group_send(one, message)


class Repetitive(PlainLayer):
    async def new_channel(self, prefix="specific"):
        return f"{prefix}.mine!always"


class Keeping(PlainLayer):
    async def flush(self):
        pass


class Ending(PlainLayer):
    """A flush leaves those who wait behind."""

    async def flush(self):
        self.queues.clear()
        self.groups.clear()


class Untidy(PlainLayer):
    """A task outlives the layer."""

    async def send(self, channel, message):
        await super().send(channel, message)
        if not hasattr(self, "task"):
            self.task = asyncio.ensure_future(asyncio.Event().wait())


class Fragile(PlainLayer):
    closed = False

    async def close(self):
        assert not self.closed
        self.closed = True


class Stringent(PlainLayer):
    """What JSON doesn't have becomes text."""

    async def send(self, channel, message):
        await super().send(channel, _texts(message))


def _texts(value):
    if isinstance(value, dict):
        return {key: _texts(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_texts(item) for item in value]
    return value if isinstance(value, str | int | float | None) else str(value)


class Small(PlainLayer):
    async def send(self, channel, message):
        if len(str(message)) > 100_000:
            raise ValueError("too big")
        await super().send(channel, message)


class Swallowing(InMemoryChannelLayer):
    """An unknown error at the sender is nobody's."""

    async def send(self, channel, message):
        with contextlib.suppress(TypeError):
            await super().send(channel, message)


# Pushing


class LateAttaching(InMemoryChannelLayer):
    """What waited comes after what came later, or never."""

    def attach(self, channel, sink):
        self._hub.attach(channel, sink)


class Encoding(InMemoryChannelLayer):
    """Each member has frames of its own."""

    async def group_send(self, group, message):
        if message == {"type": "websocket.send", "text": "hello"}:
            for channel in self.groups[group]:
                await self.send(channel, message)
        else:
            await super().group_send(group, message)


class Staying(InMemoryChannelLayer):
    """Memberships outlive their channel."""

    def detach(self, channel):
        pass


class Uncounted(InMemoryChannelLayer):
    @property
    def overflows(self):
        return dict.fromkeys(super().overflows, 0)


# From synchronous code, on several loops


class Careless(InMemoryChannelLayer):
    """On the thread of a loop it does what it is asked."""

    def _require_no_loop(self, method):
        pass


class Deferring(InMemoryChannelLayer):
    """The copy is made later."""

    def prepared(self, message):
        return message


class Mute(InMemoryChannelLayer):
    def group_send_sync(self, group, message):
        self._require_no_loop("group_send")
        self.require_valid_group_name(group)
        self.prepared(message)


class OneLoop(InMemoryChannelLayer):
    async def group_send(self, group, message):
        loop = asyncio.get_running_loop()
        if self.__dict__.setdefault("loop", loop) is not loop:
            raise RuntimeError("another loop")
        return await super().group_send(group, message)


# In two processes


class Alone(InMemoryChannelLayer):
    """It says that it spans processes."""


class LosingFrames(LocalChannelLayer):
    frames = 0

    def received(self, frame):
        self.frames += 1
        if self.frames % 10:
            super().received(frame)


class RepeatingFrames(LocalChannelLayer):
    def received(self, frame):
        super().received(frame)
        super().received(frame)


class ReorderingFrames(LocalChannelLayer):
    held = None

    def received(self, frame):
        if self.held is None and b"number" in frame:
            self.held = frame
            asyncio.get_running_loop().call_later(0.02, self.let_go)
        else:
            super().received(frame)

    def let_go(self):
        frame, self.held = self.held, None
        super().received(frame)


class LeakingAcross(LocalChannelLayer):
    async def group_discard(self, group, channel):
        pass


class Hasty(LocalChannelLayer):
    """Who has joined is a member soon."""

    async def group_add(self, group, channel):
        if group != "room.0":
            await super().group_add(group, channel)
        else:
            joining = super().group_add(group, channel)
            loop = asyncio.get_running_loop()
            loop.call_later(0.1, lambda: asyncio.ensure_future(joining))


class Apart(LocalChannelLayer):
    """Each process has named channels of its own."""

    async def send(self, channel, message):
        await (super() if "!" in channel else self._here).send(channel, message)

    async def receive(self, channel):
        return await (super() if "!" in channel else self._here).receive(channel)


class Boasting(LocalChannelLayer):
    async def group_send(self, group, message):
        await super().group_send(group, message)
        return 2


class Waiting(LocalChannelLayer):
    """It waits for the dead."""

    async def send(self, channel, message):
        await super().send(channel, message)
        if self.stats["unreachable"]:
            await asyncio.Event().wait()
