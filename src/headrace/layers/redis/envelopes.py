"""What a frame travels in: who sent it and which of his it is, sealed where there are keys.

Rules of this file:

- An envelope tells the process that sent it in plain, so that a process passes over its own
  without opening them.
- The number of an envelope is one more than that of the sender's last: a receiver that has seen
  it, or a later one, has seen a repetition.
- With keys everything else is encrypted and authenticated (Fernet), the sender and the number as
  well. What is not sealed, or with an unknown key, or too old, is a ValueError, as is all that
  is no envelope.
"""

import base64
import hashlib
import struct
from typing import Any, NamedTuple

from ...exceptions import InvalidChannelLayerError

__all__ = ["Envelope", "Envelopes"]

_PLAIN, _SEALED = b"\x01", b"\x02"
_PROCESS_BYTES = 8
#: A sender, of which a process has several, and the number of the envelope.
_NUMBER = struct.Struct(">IQ")


class Envelope(NamedTuple):
    """One that was opened."""

    #: The process and which of its senders: whose numbers grow.
    sender: bytes
    number: int
    frame: bytes


class Envelopes:
    """The envelopes of one process.

    Args:
        process: Its id, 16 hexadecimal digits.
        keys: The first one seals, each one opens.
        lifetime_s: What is sealed is refused after so long.
    """

    def __init__(self, process: str, keys: tuple[bytes, ...] = (), lifetime_s: float = 60) -> None:
        self._process = bytes.fromhex(process)
        self._lifetime_s = max(1, int(lifetime_s))
        self._crypter: Any = None
        self._invalid: tuple[type[Exception], ...] = ()
        if keys:
            self._crypter, self._invalid = _crypter(keys)
        self._head = (_SEALED if keys else _PLAIN) + self._process

    def is_own(self, data: bytes) -> bool:
        """Tell whether this process has sent it."""
        return data.startswith(self._process, 1)

    def put(self, sender: int, number: int, frame: bytes) -> bytes:
        """Return the frame in an envelope."""
        content = _NUMBER.pack(sender, number) + frame
        if self._crypter is not None:
            content = self._crypter.encrypt(self._process + content)
        return self._head + content

    def open(self, data: bytes) -> Envelope:
        """Return what is in an envelope; ValueError for what is none that can be opened."""
        end = 1 + _PROCESS_BYTES
        content = data[end:]
        if self._crypter is not None:
            process, content = data[1:end], self._unseal(data[:1], content)
            if not content.startswith(process):
                raise ValueError("an envelope with another's content")
            content = content[_PROCESS_BYTES:]
        elif data[:1] != _PLAIN:
            raise ValueError(self._unknown(data[:1]))
        if len(content) < _NUMBER.size:
            raise ValueError("an envelope that is cut off")
        _, number = _NUMBER.unpack_from(content)
        return Envelope(data[1:end] + content[:4], number, content[_NUMBER.size :])

    def put_item(self, channel: str, data: bytes) -> bytes:
        """Return the data of a queue, sealed for that queue where there are keys."""
        if self._crypter is None:
            return _PLAIN + data
        content: bytes = self._crypter.encrypt(channel.encode() + b"\0" + data)
        return _SEALED + content

    def open_item(self, channel: str, item: bytes) -> bytes:
        """Return the data of an item; ValueError for what is none of that queue."""
        if self._crypter is None:
            if item[:1] != _PLAIN:
                raise ValueError(self._unknown(item[:1]))
            return item[1:]
        name, _, data = self._unseal(item[:1], item[1:]).partition(b"\0")
        if name != channel.encode():
            raise ValueError("an item of another queue")
        return data

    def _unseal(self, kind: bytes, content: bytes) -> bytes:
        if kind != _SEALED:
            raise ValueError("not encrypted, and there are symmetric_encryption_keys here")
        try:
            unsealed: bytes = self._crypter.decrypt(content, ttl=self._lifetime_s)
        except self._invalid:
            raise ValueError("encrypted with an unknown key, or too old") from None
        return unsealed

    @staticmethod
    def _unknown(kind: bytes) -> str:
        if kind == _SEALED:
            return "encrypted, and there are no symmetric_encryption_keys here"
        return f"an envelope of an unknown kind, {kind!r}"


def _crypter(keys: tuple[bytes, ...]) -> tuple[Any, tuple[type[Exception], ...]]:
    try:
        from cryptography.fernet import Fernet, InvalidToken, MultiFernet
    except ImportError:
        raise InvalidChannelLayerError(
            "symmetric_encryption_keys in the CONFIG of CHANNEL_LAYERS need cryptography: "
            "pip install 'headrace[redis]'"
        ) from None
    # Any text is a key: what Fernet takes is made of its hash.
    derived = (base64.urlsafe_b64encode(hashlib.sha256(key).digest()) for key in keys)
    return MultiFernet([Fernet(key) for key in derived]), (InvalidToken, TypeError)
