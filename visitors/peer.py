"""A page with a document: y-websocket's part and the editor's, with pycrdt in the place of Yjs.

What y-websocket does there, this does: it says first what it has and where its cursor is, answers
what it is asked, and sends each keystroke by itself.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from pycrdt import (
    Assoc,
    Awareness,
    Decoder,
    Doc,
    StickyIndex,
    Text,
    YMessageType,
    YSyncMessageType,
    create_awareness_message,
    create_sync_message,
    create_update_message,
    handle_sync_message,
    read_message,
)
from websockets.asyncio.client import ClientConnection

__all__ = ["Peer"]


class Peer:
    """One page's document. ``applied(client, step)`` is told of each step that came from others.

    A character that is typed is a step of its client; they are numbered from 1. All of the text is
    ASCII: pycrdt counts bytes.
    """

    def __init__(self, applied: Callable[[int, int], None]) -> None:
        self._applied = applied
        self._doc: Doc[Any] = Doc()
        self._text = self._doc.get("content", type=Text)
        self._awareness = Awareness(self._doc)
        self._cursor: StickyIndex | None = None
        self._steps: Counter[int] = Counter()
        self._outbox: asyncio.Queue[bytes] = asyncio.Queue()
        self._is_told = False
        #: Set once everything is here that was there before.
        self.synced = asyncio.Event()
        self._doc.observe(self._changed)
        self._awareness.observe(self._moved)

    @property
    def text(self) -> str:
        return str(self._text)

    @property
    def client(self) -> int:
        return self._doc.client_id

    @property
    def steps(self) -> int:
        """How many steps have been taken here."""
        return self._steps[self.client]

    # The connection

    async def speak(self, socket: ClientConnection) -> None:
        """Say what there is to say, until this is cancelled."""
        await socket.send(create_sync_message(self._doc))
        async with asyncio.TaskGroup() as group:
            group.create_task(self._awareness.start())  # renews what was said, every 15 s
            self._awareness.set_local_state(self._awareness.get_local_state())
            while True:
                await socket.send(await self._outbox.get())

    def hear(self, message: bytes) -> None:
        """Take a message of the server's."""
        match message[0]:
            case YMessageType.SYNC:
                self._is_told = True
                answer = handle_sync_message(message[1:], self._doc)
                self._is_told = False
                if answer is not None:
                    self._outbox.put_nowait(answer)
                self._note_steps()
                if message[1] == YSyncMessageType.SYNC_STEP2:
                    self.synced.set()
            case YMessageType.AWARENESS:
                self._awareness.apply_awareness_update(read_message(message[1:]), "server")
            case other:
                raise ValueError(f"a message {other}: {message[:80]!r}")

    def _changed(self, event: Any) -> None:
        if not self._is_told:
            self._outbox.put_nowait(create_update_message(event.update))

    def _moved(self, topic: str, news: tuple[dict[str, list[int]], Any]) -> None:
        if topic == "update":
            clients = [client for kind in news[0].values() for client in kind]
            if self.client in clients:  # the page's provider.js tells of nobody else
                update = self._awareness.encode_awareness_update([self.client])
                self._outbox.put_nowait(create_awareness_message(update))

    def _note_steps(self) -> None:
        state = Decoder(self._doc.get_state())
        for _ in range(state.read_var_uint()):
            client, steps = state.read_var_uint(), state.read_var_uint()
            for step in range(self._steps[client] + 1, steps + 1):
                self._applied(client, step)
            self._steps[client] = steps

    # The editor

    def point(self, share: float) -> None:
        """Put the cursor somewhere; ``share`` of the text is before it."""
        self._point(round(share * len(self._text)))

    def type(self, character: str) -> None:
        """Write a character where the cursor is."""
        at = self._at
        self._steps[self.client] += 1
        self._text.insert(at, character)
        self._point(at + 1)

    def erase(self) -> None:
        """Take away the character before the cursor."""
        at = self._at
        if at:
            del self._text[at - 1]
            self._point(at - 1)

    @property
    def _at(self) -> int:
        return self._cursor.get_index() if self._cursor else 0

    def _point(self, at: int) -> None:
        # At the very beginning there is nothing to stick to.
        self._cursor = self._text.sticky_index(at, Assoc.BEFORE) if at else None
        place = self._cursor and {"type": None, "tname": None, **self._cursor.to_json()}
        here = place or {"type": None, "tname": "content", "item": None, "assoc": 0}
        self._awareness.set_local_state_field("cursor", {"anchor": here, "head": here})
