"""JSON: value <-> text.

Beside the types that JSON has, datetimes, dates, times, UUIDs, Decimals, enums and
dataclasses are written as text or objects of their own standard forms (msgspec's).
"""

from typing import Any

import msgspec

__all__ = ["decode_json", "encode_json"]

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()


def encode_json(value: Any) -> str:
    """Return the value as JSON text.

    Raises TypeError, naming the path of what has no JSON form (``$.user.avatar``).
    """
    try:
        return _encoder.encode(value).decode()
    except (TypeError, ValueError, RecursionError) as error:
        path, culprit = _culprit(value, "$", depth=0)
        raise TypeError(
            f"no JSON for {type(culprit).__name__} at {path}: {error}; "
            "convert it first, or override encode_json()"
        ) from error


def decode_json(text: str | bytes) -> Any:
    """Return the value that the JSON text stands for; ValueError says where it is malformed."""
    try:
        return _decoder.decode(text)
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None


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
