"""The extension of docs/extensions.md: messages compressed by Zstandard.

Every block of code on that page stands in this file, word for word.
"""

import sys
from dataclasses import dataclass

from headrace.exceptions import CloseCode, RemoteProtocolError
from headrace.protocols.extensions import RSV1, Parameters

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

WINDOW_LOG_MAX = 20  # refuse frames that need more than 1 MB to decode


@dataclass(frozen=True, slots=True, kw_only=True)
class ZstdFactory:
    """The settings of permessage-zstd, which stand once in the configuration."""

    level: int = 3
    threshold_bytes: int = 256

    @property
    def name(self) -> str:
        return "permessage-zstd"

    def negotiate(self, parameters: Parameters) -> "Zstd | None":
        if parameters:
            return None  # this extension knows none, so the offer can't be met
        return Zstd(self)


class Zstd:
    """permessage-zstd as agreed with one client: each message is a Zstandard frame."""

    __slots__ = ("_decompressor", "_settings")

    name = "permessage-zstd"
    parameters: Parameters = ()
    rsv = RSV1

    def __init__(self, settings: ZstdFactory) -> None:
        self._settings = settings
        self._decompressor: zstd.ZstdDecompressor | None = None

    @property
    def wire(self) -> str:
        return f"{self._settings.level}/{self._settings.threshold_bytes}"

    def encode(self, payload: bytes) -> bytes | None:
        if len(payload) < self._settings.threshold_bytes:
            return None
        return zstd.compress(payload, level=self._settings.level)

    def decode(self, data: bytes, *, limit_bytes: int, final: bool) -> bytes:
        if self._decompressor is None:
            limits = {zstd.DecompressionParameter.window_log_max: WINDOW_LOG_MAX}
            self._decompressor = zstd.ZstdDecompressor(options=limits)
        decompressor = self._decompressor
        try:
            plain = decompressor.decompress(data, limit_bytes + 1) if data else b""
        except (zstd.ZstdError, EOFError):
            raise RemoteProtocolError(
                "message is not one Zstandard frame", code=CloseCode.INVALID_PAYLOAD
            ) from None
        if len(plain) > limit_bytes:
            raise RemoteProtocolError(
                f"message is longer than {limit_bytes} bytes", code=CloseCode.MESSAGE_TOO_BIG
            )
        if final:
            if not decompressor.eof or decompressor.unused_data:
                raise RemoteProtocolError(
                    "message is not one Zstandard frame", code=CloseCode.INVALID_PAYLOAD
                )
            self._decompressor = None
        return plain
