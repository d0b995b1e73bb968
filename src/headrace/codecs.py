"""JSON: value <-> text.

Beside the types that JSON has, datetimes, dates, times, UUIDs, Decimals, enums, sets and
dataclasses are written as text, lists or objects of their own standard forms (msgspec's), and
bytes as base64. A subclass of a type of JSON (Django's ``SafeString``) is written as what it is;
one of ``dict``, by what its ``items()`` gives (``QueryDict``: the last value of each key).
"""

import json
import re
from typing import Any

import msgspec

__all__ = ["decode_json", "encode_json"]


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
        path, culprit = _culprit(value, "$", depth=0)
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


def _culprit(value: Any, path: str, depth: int) -> tuple[str, Any]:
    """Find the innermost value that can't be encoded by itself."""
    items: list[tuple[str, Any]] = []
    if depth < 100 and isinstance(value, dict):
        items = [(f"{path}.{key}", item) for key, item in value.items()]
    elif depth < 100 and isinstance(value, list | tuple):
        items = [(f"{path}[{index}]", item) for index, item in enumerate(value)]
    for item_path, item in items:
        try:
            _encoder.encode(item)
        except (TypeError, ValueError, RecursionError):
            return _culprit(item, item_path, depth + 1)
    return path, value
