"""How events are written for the way: MessagePack or JSON.

Rules of this file:

- Each is read, whichever is written: processes may be changed from one to the other in turn.
- A writer raises TypeError for what would not come back, a reader ValueError for what is neither.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from ...codecs import decode_event, encode_event
from ...exceptions import InvalidChannelLayerError

__all__ = ["decode", "encoder"]


def _encode_json(value: Any) -> bytes:
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(
            f"{error}: with serializer_format 'json' an event has what JSON has, "
            "with 'msgpack' more"
        ) from error


_ENCODERS: Mapping[str, Callable[[Any], bytes]] = {"msgpack": encode_event, "json": _encode_json}

#: MessagePack begins so with a small number or a short text, which no frame or event is.
_JSON_BEGINS = (b"[", b"{")


def encoder(name: object) -> Callable[[Any], bytes]:
    """Return what writes this ``serializer_format``."""
    encode = _ENCODERS.get(name) if isinstance(name, str) else None
    if encode is None:
        raise InvalidChannelLayerError(
            "serializer_format in the CONFIG of CHANNEL_LAYERS: it is "
            f"{' or '.join(map(repr, _ENCODERS))}, not {name!r:.50}"
        )
    return encode


def decode(data: bytes) -> Any:
    """Return what was written in either format; ValueError for what is in none."""
    if data.startswith(_JSON_BEGINS):
        try:
            return json.loads(data)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
    return decode_event(data)
