"""A channel layer for one test."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

from asgiref.sync import async_to_sync

from ..layers import DEFAULT_CHANNEL_LAYER, BaseChannelLayer, channel_layers
from ..layers.memory import Mailbox

__all__ = ["LeftOpenWarning", "fresh_channel_layer"]


class LeftOpenWarning(ResourceWarning):
    """A test has ended, and a consumer that it began has not."""


@contextlib.contextmanager
def fresh_channel_layer(alias: str = DEFAULT_CHANNEL_LAYER) -> Iterator[BaseChannelLayer]:
    """Put a new channel layer under the alias for a while, for consumers as for everyone.

    It is made from ``TEST_CONFIG`` if there is one. In the end it is flushed and closed;
    consumers that are still attached to it are a ``LeftOpenWarning``.
    """
    has_test_config = channel_layers.configs.get(alias, {}).get("TEST_CONFIG") is not None
    layer = (
        channel_layers.make_test_backend(alias)
        if has_test_config
        else channel_layers.make_backend(alias)
    )
    old = channel_layers.set(alias, layer)
    try:
        yield layer
    finally:
        channel_layers.set(alias, old)
        attached = _attached(layer)
        async_to_sync(_end)(layer)
        if attached:
            warnings.warn(
                f"{attached} consumers are still attached to the channel layer: disconnect "
                "their communicators",
                LeftOpenWarning,
                stacklevel=3,
            )


def _attached(layer: Any) -> int:
    channels = getattr(layer, "channels", {})
    return sum(not isinstance(sink, Mailbox) for sink in channels.values())


async def _end(layer: Any) -> None:
    if "flush" in layer.extensions:
        await layer.flush()
    # Another's layer need not have one.
    close = getattr(layer, "close", None)
    if close is not None:
        await close()
