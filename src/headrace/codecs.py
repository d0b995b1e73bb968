"""JSON for clients, MessagePack for events between processes: value <-> text or bytes.

In JSON, beside the types that it has, datetimes, dates, times, UUIDs, Decimals, enums, sets and
dataclasses are written as text, lists or objects of their own standard forms (msgspec's), and
bytes as base64. A subclass of a type of JSON (Django's ``SafeString``) is written as what it is;
one of ``dict``, by what its ``items()`` gives (``QueryDict``: the last value of each key).

In MessagePack such values are extensions of its own, and come back as what they were; enums as
their values, dataclasses as dicts.
"""

import dataclasses
import datetime
import decimal
import enum
import json
import re
import uuid
from collections.abc import Callable
from typing import Any

import msgspec

__all__ = ["decode_event", "decode_json", "encode_event", "encode_json"]


def _as_plain(value: Any) -> Any:
    """Return what JSON has for a value that msgspec doesn't know by its exact type."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    raise TypeError(f"there is no standard form for a {type(value).__name__}")


_LEAVES = frozenset({str, int, float, bool, type(None)})
_TEXT = frozenset({str})
#: Keys that ``json.dumps`` writes in a way of its own.
_KEYWORDS: dict[Any, str] = {None: "null", True: "true", False: "false"}


def _is_plain(value: Any) -> bool:
    """Tell whether there is no dict in the value that msgspec would write otherwise than json."""
    kind = type(value)
    if kind is dict:
        if not _TEXT.issuperset(map(type, value)):
            return False
        value = value.values()
    elif kind is not list and kind is not tuple:
        return not isinstance(value, dict)
    return _LEAVES.issuperset(map(type, value)) or all(map(_is_plain, value))


def _plain(value: Any) -> Any:
    """Return the value with plain dicts in the place of all others."""
    if isinstance(value, dict):
        return {
            _KEYWORDS[key] if key is None or type(key) is bool else key: _plain(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


_encoder = msgspec.json.Encoder(enc_hook=_as_plain)
_decoder = msgspec.json.Decoder()


def encode_json(value: Any) -> str:
    """Return the value as JSON text.

    Raises TypeError, naming the path of what has no JSON form (``$.user.avatar``).
    """
    try:
        if not _is_plain(value):
            value = _plain(value)
        return _encoder.encode(value).decode()
    except (TypeError, ValueError, RecursionError) as error:
        path, culprit = _culprit(_encoder.encode, value, "$", depth=0)
        raise TypeError(
            f"no JSON for {type(culprit).__name__} at {path}: {error}; "
            "convert it first, or override encode_json()"
        ) from error


def decode_json(text: str | bytes) -> Any:
    """Return the value that the JSON text stands for.

    Raises ``json.JSONDecodeError`` (a ValueError) that says where the text is malformed, and
    for text that is nested too deeply. Of two members with one name, the last counts.
    """
    try:
        return _decoder.decode(text)
    except RecursionError:
        raise _decode_error("JSON is nested too deeply", text) from None
    except (ValueError, UnicodeError) as error:
        raise _decode_error(str(error), text) from None


def _decode_error(reason: str, text: str | bytes) -> json.JSONDecodeError:
    data = text if isinstance(text, bytes) else text.encode(errors="surrogatepass")
    found = re.search(r" \(byte (\d+)\)", reason)
    before = data[: int(found[1])] if found else data
    if found:
        reason = reason.replace(found[0], "")
    return json.JSONDecodeError(
        reason, data.decode(errors="replace"), len(before.decode(errors="replace"))
    )


def _culprit(encode: Callable[[Any], bytes], value: Any, path: str, depth: int) -> tuple[str, Any]:
    """Find the innermost value that can't be encoded by itself."""
    items: list[tuple[str, Any]] = []
    if depth < 100 and isinstance(value, dict):
        items = [(f"{path}.{key}", item) for key, item in value.items()]
    elif depth < 100 and isinstance(value, list | tuple):
        items = [(f"{path}[{index}]", item) for index, item in enumerate(value)]
    for item_path, item in items:
        try:
            encode(item)
        except (TypeError, ValueError, RecursionError):
            return _culprit(encode, item, item_path, depth + 1)
    return path, value


# Events between processes


def encode_event(event: Any) -> bytes:
    """Return the event, or any value in one, as MessagePack.

    Raises TypeError, naming the path of what can't travel (``$.user.avatar``).
    """
    try:
        return _pack(event)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        path, culprit = _culprit(_pack, event, "$", depth=0)
        raise TypeError(
            f"a {type(culprit).__name__} at {path} can't travel between processes: {error}; "
            "send plain values"
        ) from error


def decode_event(data: bytes) -> Any:
    """Return the value that ``encode_event`` wrote; ValueError for bytes that it did not write."""
    try:
        return _unpacker.decode(data)
    except (ValueError, TypeError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"no event: {error}") from error


def _pack(value: Any) -> bytes:
    return _packer.encode(value if _travels_as_it_is(value) else _packed(value))


_PLAIN = _LEAVES - {int} | {bytes}


def _is_small(value: int) -> bool:
    """Tell whether MessagePack has the integer."""
    return -(2**63) <= value < 2**64


def _travels_as_it_is(value: Any) -> bool:
    kind = type(value)
    if kind is dict:
        if not _TEXT.issuperset(map(type, value)):
            return False
        value = value.values()
    elif kind is not list:
        return kind in _PLAIN or (kind is int and _is_small(value))
    return _PLAIN.issuperset(map(type, value)) or all(map(_travels_as_it_is, value))


def _packed(value: Any) -> Any:
    """Return the value with MessagePack's own types, and extensions for all others."""
    if isinstance(value, enum.Enum):
        return _packed(value.value)
    if isinstance(value, dict):
        if not all(map(_travels_as_it_is, value)):
            return _extension(_ODD_KEYS, [list(pair) for pair in value.items()])
        return {key: _packed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_packed(item) for item in value]
    if isinstance(value, bool | bytes) or value is None:
        return value
    if isinstance(value, str | float):
        return _as_plain(value)
    if isinstance(value, int):
        return int.__int__(value) if _is_small(value) else _extension(_BIG_INTEGER, str(value))
    for kind, code, write in _WRITERS:
        if isinstance(value, kind):
            return _extension(code, write(value))
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: _packed(getattr(value, field.name)) for field in fields}
    raise TypeError("it is no plain value")


def _extension(code: int, content: Any) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(code, _pack(content))


def _read_extension(code: int, data: memoryview) -> Any:
    read = _READERS.get(code)
    if read is None:
        raise ValueError(f"unknown extension {code}")
    return read(_unpacker.decode(data))


_BIG_INTEGER, _ODD_KEYS = 1, 11
#: Type, code, and what stands for the value. A datetime is a date as well: it comes first.
_WRITERS: tuple[tuple[type, int, Callable[[Any], Any]], ...] = (
    (datetime.datetime, 2, datetime.datetime.isoformat),
    (datetime.date, 3, datetime.date.isoformat),
    (datetime.time, 4, datetime.time.isoformat),
    (datetime.timedelta, 5, lambda value: [value.days, value.seconds, value.microseconds]),
    (decimal.Decimal, 6, str),
    (uuid.UUID, 7, lambda value: value.bytes),
    (tuple, 8, list),
    (set, 9, list),
    (frozenset, 10, list),
)
_READERS: dict[int, Callable[[Any], Any]] = {
    _BIG_INTEGER: int,
    _ODD_KEYS: dict,
    2: datetime.datetime.fromisoformat,
    3: datetime.date.fromisoformat,
    4: datetime.time.fromisoformat,
    5: lambda parts: datetime.timedelta(*parts),
    6: decimal.Decimal,
    7: lambda data: uuid.UUID(bytes=data),
    8: tuple,
    9: set,
    10: frozenset,
}
_packer = msgspec.msgpack.Encoder()
_unpacker = msgspec.msgpack.Decoder(ext_hook=_read_extension)
