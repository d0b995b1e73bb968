"""Messages and names: what arrives as it went, and what is refused."""

import asyncio
import datetime
import decimal
import math
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from ...layers.base import Event
from ._suite import LayerSuite, check, layer_test, refused

__all__ = ["KINDS", "Messages", "alike"]

_OFFSET = datetime.timezone(datetime.timedelta(hours=-9, minutes=-30))

_JSON: Mapping[str, list[Any]] = {
    "str": ["", "text", "naïve ☃ 🦦", "nul \0, \u2028 and \x7f", "x" * 1000],
    "int": [0, -1, 127, 128, 255, 256, 65535, 65536, 2**53, 2**63 - 1, -(2**63)],
    "float": [0.5, -0.5, 0.1, 1e300, 5e-324],
    "bool": [True, False],
    "None": [None],
    "list": [[], [[]], [1, "two", [3, [None]]], list(range(1000))],
    "dict": [{}, {"a": {"b": [{"c": [[], {}]}]}}, {"ключ": 1, "": 2, "a b": 3}],
}
_MSGPACK: Mapping[str, list[Any]] = {
    "bytes": [b"", b"\x00\xff" * 500, b"text"],
    "big unsigned int": [2**63, 2**64 - 1],
    "special float": [math.inf, -math.inf, math.nan, -0.0],
    "dict with other keys": [{1: "one", -2: "two"}, {b"key": 1}, {True: 1, None: 2}],
    "datetime": [
        datetime.datetime(2026, 2, 3, 4, 5, 6, 789, tzinfo=datetime.UTC),
        datetime.datetime(1969, 12, 31, 23, 59, 59, tzinfo=_OFFSET),
    ],
}
_PYTHON: Mapping[str, list[Any]] = {
    "naive datetime": [datetime.datetime(2026, 2, 3, 4, 5, 6, 789), datetime.datetime.min],
    "date": [datetime.date(2026, 2, 3)],
    "time": [datetime.time(4, 5, 6, 789), datetime.time(4, 5, tzinfo=_OFFSET)],
    "timedelta": [datetime.timedelta(days=-1, microseconds=1), datetime.timedelta(0)],
    "Decimal": [decimal.Decimal("1.10"), decimal.Decimal("-1e100")],
    "UUID": [uuid.UUID(int=1), uuid.UUID(int=2**128 - 1)],
    "tuple": [(), (1, ("two",))],
    "set": [set(), {1, "two"}],
    "frozenset": [frozenset({1})],
    "huge int": [2**64, -(2**63) - 1, 10**50],
}
#: The kinds of values that the suite sends, by the names that ``arrives_as`` knows them by.
KINDS: Mapping[str, list[Any]] = {**_JSON, **_MSGPACK, **_PYTHON}


def alike(value: Any, other: Any) -> bool:
    """Tell whether the two are equal, and of the same types all through."""
    if type(value) is not type(other):
        return False
    if isinstance(value, dict):
        items = zip(value.items(), other.items(), strict=False)
        return len(value) == len(other) and all(map(_pair_alike, items))
    if isinstance(value, list | tuple):
        return len(value) == len(other) and all(map(alike, value, other))
    if isinstance(value, float):
        return repr(value) == repr(other)  # NaN, and the sign of 0
    if isinstance(value, datetime.datetime | datetime.time):
        return bool(value == other and value.utcoffset() == other.utcoffset())
    return bool(value == other)


def _pair_alike(pair: tuple[Any, Any]) -> bool:
    return alike(list(pair[0]), list(pair[1]))


class _Odd:
    pass


def _odd_values() -> Iterator[tuple[str, Any]]:
    endless: list[Any] = []
    endless.append(endless)
    yield "an object", _Odd()
    yield "a class", _Odd
    yield "a function", _odd_values
    yield "a generator", (number for number in range(3))
    yield "half a surrogate pair", "\ud800"
    yield "a list in itself", endless


class Messages(LayerSuite):
    """Messages and names."""

    @layer_test
    async def test_what_json_knows_arrives_as_it_went(self) -> None:
        await self._all_arrive(_JSON)

    @layer_test
    async def test_what_msgpack_knows_arrives_as_it_went(self) -> None:
        await self._all_arrive(_MSGPACK)

    @layer_test
    async def test_what_python_has_beside_that_arrives_as_it_went(self) -> None:
        await self._all_arrive(_PYTHON)

    async def _all_arrive(self, kinds: Mapping[str, list[Any]]) -> None:
        layer = await self.layer()
        [channel] = await self.members(layer, 1, "room")
        wrong: list[str] = []
        for kind, values in kinds.items():
            expect = self.arrives_as.get(kind, lambda value: value)
            for value in values:
                message: Event = {"type": "value", "value": value, "in": {"a": [value]}}
                if expect is None:
                    with refused((TypeError, ValueError), f"{kind}: {value!r:.80}"):
                        await layer.send(channel, message)
                    continue
                for send, to in ((layer.send, channel), (layer.group_send, "room")):
                    await send(to, message)
                    arrived = await self.next(layer, channel)
                    wrong += [
                        f"{kind} {value!r:.80} came by {send.__name__} as {one!r:.80}"
                        for one in (arrived["value"], arrived["in"]["a"][0])
                        if not alike(one, expect(value))
                    ]
        check(not wrong, "; ".join(wrong) + " (what may change is in arrives_as)")
        await self.nothing(layer, channel)

    @layer_test
    async def test_what_cannot_travel_is_told_to_the_sender_and_harms_nobody(self) -> None:
        layer = await self.layer()
        [channel] = await self.members(layer, 1, "room")
        for what, value in _odd_values():
            for send, to in ((layer.send, channel), (layer.group_send, "room")):
                try:
                    await send(to, {"type": "odd", "value": value})
                except Exception as error:
                    check(
                        isinstance(error, TypeError | ValueError | RecursionError),
                        f"{what} is a TypeError or ValueError where it can't be sent, "
                        f"not {error!r:.200}",
                    )
                else:
                    message = await self.next(layer, channel)
                    check(message["type"] == "odd", f"{what}, where it can be sent, arrives")
            await self.nothing(layer, channel)

    @layer_test
    async def test_a_big_message_passes(self) -> None:
        layer = await self.layer()
        [channel] = await self.members(layer, 1, "room")
        big = {"type": "big", "text": "x" * self.big_message}
        await layer.send(channel, big)
        await layer.group_send("room", big)
        await layer.send("named", big)
        for name in (channel, channel, "named"):
            message = await self.next(layer, name)
            check(message == big, "a big message arrives whole")

    @layer_test
    async def test_a_message_is_a_dictionary(self) -> None:
        layer = await self.layer()
        [channel] = await self.members(layer, 1, "room")
        for wrong in (None, "text", ["type", "x"], 3):
            for send, name in ((layer.send, channel), (layer.group_send, "room")):
                with refused(Exception, f"{wrong!r} as a message"):
                    await send(name, wrong)  # type: ignore[arg-type]
        await self.nothing(layer, channel)

    @layer_test
    async def test_every_reader_has_a_message_of_its_own(self) -> None:
        self.needs("isolates_messages")
        layer = await self.layer()
        members = await self.members(layer, 3, "room")
        sent = {"type": "news", "items": [{"n": 1}]}
        await layer.group_send("room", sent)
        sent["items"][0]["n"] = 0  # type: ignore[index]
        for member in members:
            message = await self.next(layer, member)
            check(
                message == {"type": "news", "items": [{"n": 1}]},
                f"what the sender or another reader changes is not seen: {message}",
            )
            message["items"].append({"n": 2})
            message["items"][0]["n"] = 3
            del message["type"]

    # Names

    @layer_test
    async def test_illegal_names_are_refused_by_whoever_takes_them(self) -> None:
        layer = await self.layer()
        good = await layer.new_channel()
        wrong: list[Any] = ["", "a b", "naïve", "канал", "٣", "a/b", "a:b", "x" * 100, "a\n"]
        for name in [*wrong, None, b"a"]:
            message = {"type": "x"}
            calls: list[tuple[Callable[..., Awaitable[Any]], *tuple[Any, ...]]] = [
                (layer.send, name, message),
                (layer.receive, name),
                (layer.group_add, name, good),
                (layer.group_add, "room", name),
                (layer.group_discard, name, good),
                (layer.group_discard, "room", name),
                (layer.group_send, name, message),
            ]
            for call, *arguments in calls:
                with refused(TypeError, f"{name!r} as a name in {call.__name__}"):
                    async with asyncio.timeout(self.patience_s):
                        await call(*arguments)
        for name in ("group!local", "a!b"):
            with refused(TypeError, f"{name!r} as the name of a group"):
                await layer.group_send(name, {"type": "x"})

    @layer_test
    async def test_the_longest_and_oddest_names_are_taken(self) -> None:
        layer = await self.layer()
        for name in ("x" * 99, "A-z_0.9", "-", "...", "prefix.x!y-1"):
            await layer.send(name, {"type": "x", "to": name})
            await self.is_next(layer, name, {"type": "x", "to": name})
        for name in ("g" * 99, "A-z_0.9", "-", "..."):
            [channel] = await self.members(layer, 1, name)
            await layer.group_send(name, {"type": "x", "to": name})
            await self.is_next(layer, channel, {"type": "x", "to": name})
