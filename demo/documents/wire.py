"""The messages of the y-protocols, bytes to values and back: what y-websocket speaks.

A message is a type and what belongs to it, and fills a WebSocket message. Numbers are lib0's
variable-length integers: seven bits a byte, the lowest first. Texts and byte strings are preceded
by their length. Messages are read strictly, as they come from anyone: what is short, long or
left over is :class:`Malformed`. Whether an update is one, pycrdt says: see ``replica.py``.

=====  ======================================================================
``0``  sync: ``0`` and a state vector (I have this: what do I lack?), ``1`` and an update (this
       you lack), ``2`` and an update (this is new)
``1``  awareness: clients, each with a clock and a JSON text: where its cursor is, or null
``2``  auth: ``0`` and a reason (permission denied); from the server only
``3``  a question for everybody's awareness
=====  ======================================================================
"""

import json
from enum import Enum, auto

from pycrdt import create_awareness_message, write_message, write_var_uint

__all__ = [
    "Kind",
    "Malformed",
    "ask",
    "awareness",
    "denied",
    "missing",
    "read",
    "read_awareness",
    "read_deletions",
    "read_state",
]

# What JavaScript can count to: lib0 goes no further.
GREATEST = 2**53 - 1
STATE_BYTES = 4096
CLIENTS = 1000


class Malformed(Exception):
    """Bytes that are no message; the text says why."""


class Kind(Enum):
    """What a message is, by its leading numbers."""

    STATE_VECTOR = auto()
    MISSING = auto()
    UPDATE = auto()
    AWARENESS = auto()
    QUERY = auto()


SYNC = {0: Kind.STATE_VECTOR, 1: Kind.MISSING, 2: Kind.UPDATE}


class Reader:
    """Bytes, from the first to the last."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self) -> int:
        value = shift = 0
        while True:
            if self._at == len(self._data):
                raise Malformed("a number has no end")
            byte = self._data[self._at]
            self._at += 1
            value |= (byte & 127) << shift
            if value > GREATEST:
                raise Malformed("a number is too great")
            if byte < 128:
                return value
            shift += 7
            if shift > 56:
                raise Malformed("a number is too long")

    def bytes(self) -> bytes:
        length = self.number()
        end = self._at + length
        if end > len(self._data):
            raise Malformed(f"{length} bytes are announced, {len(self._data) - self._at} are there")
        data, self._at = self._data[self._at : end], end
        return data

    def end(self) -> None:
        if self._at != len(self._data):
            raise Malformed(f"{len(self._data) - self._at} bytes are left over")


def read(message: bytes) -> tuple[Kind, bytes]:
    """Return what a message is and what it carries, or raise :class:`Malformed`."""
    reader = Reader(message)
    match reader.number():
        case 0:
            number = reader.number()
            if number not in SYNC:
                raise Malformed(f"there is no message 0 {number}")
            kind, data = SYNC[number], reader.bytes()
        case 1:
            kind, data = Kind.AWARENESS, reader.bytes()
        case 3:
            kind, data = Kind.QUERY, b""
        case number:
            raise Malformed(f"there is no message {number}")
    reader.end()
    return kind, data


def read_awareness(data: bytes, *, only: int | None = None) -> list[tuple[int, int, dict | None]]:
    """Return clients with their clocks and states, or raise :class:`Malformed`.

    If ``only`` names a client, what is said of others is passed over.
    """
    reader = Reader(data)
    count = reader.number()
    if count > CLIENTS:
        raise Malformed(f"there are at most {CLIENTS} clients in a message, not {count}")
    entries = []
    for _ in range(count):
        client, clock, text = reader.number(), reader.number(), reader.bytes()
        if len(text) > STATE_BYTES:
            raise Malformed(f"a state has at most {STATE_BYTES} bytes, not {len(text)}")
        if only is not None and client != only:
            continue
        try:
            state = json.loads(text)
        except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
            raise Malformed("a state is JSON") from None
        if state is not None and not isinstance(state, dict):
            raise Malformed("a state is a JSON object or null")
        entries.append((client, clock, state))
    reader.end()
    return entries


def awareness(entries: list[tuple[int, int, dict | None]]) -> bytes:
    """Return the message that tells of these clients, with their clocks and states."""
    told = [write_var_uint(len(entries))]
    for client, clock, state in entries:
        text = json.dumps(state, ensure_ascii=False).encode()
        told += [write_var_uint(client), write_var_uint(clock), write_message(text)]
    return create_awareness_message(b"".join(told))


def ask(state: bytes) -> bytes:
    """Return the message that asks for what is not in this state."""
    return bytes((0, 0)) + write_message(state)


def missing(update: bytes) -> bytes:
    """Return the answer to such a message."""
    return bytes((0, 1)) + write_message(update)


def denied(reason: str) -> bytes:
    """Return the message that says what may not be, and why."""
    return bytes((2, 0)) + write_message(reason.encode())


def read_state(vector: bytes) -> dict[int, int]:
    """Return a state vector: how many steps of each client it knows."""
    reader = Reader(vector)
    state = {}
    for _ in range(reader.number()):
        client = reader.number()
        state[client] = reader.number()
    reader.end()
    return state


def read_deletions(update: bytes) -> list[tuple[int, int]] | None:
    """Return the clients whose steps an update deletes, each with where that ends.

    None if the update holds more than deletions.
    """
    reader = Reader(update)
    if reader.number():
        return None
    deletions = []
    for _ in range(reader.number()):
        client = reader.number()
        for _ in range(reader.number()):
            begin, length = reader.number(), reader.number()
            deletions.append((client, begin + length))
    reader.end()
    return deletions
