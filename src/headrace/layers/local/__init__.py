"""The channel layer of all processes of one host: Unix sockets and shared memory, no server."""

from .layer import LocalChannelLayer

__all__ = ["LocalChannelLayer"]
