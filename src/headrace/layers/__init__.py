"""Channel layers: one event, many consumers.

``get_channel_layer()`` gives the layer that ``CHANNEL_LAYERS`` in Django's settings
configures. Without that setting it is the in-memory layer, or, where the environment variable
``HEADRACE_DEFAULT_LAYER`` is ``local``, the layer of all processes of this host.
"""

import inspect
import os
import threading
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from .. import DEFAULT_CHANNEL_LAYER
from ..exceptions import ChannelFull, InvalidChannelLayerError
from ..instruments import process
from ..telemetry import when_installed
from .accounts import Accounts
from .base import BaseChannelLayer, Overflow, Sink
from .memory import InMemoryChannelLayer

if TYPE_CHECKING:
    from .local import LocalChannelLayer
    from .redis import RedisChannelLayer as RedisChannelLayer

__all__ = [
    "DEFAULT_CHANNEL_LAYER",
    "BaseChannelLayer",
    "ChannelFull",
    "ChannelLayerManager",
    "InMemoryChannelLayer",
    "InvalidChannelLayerError",
    "LocalChannelLayer",
    "Overflow",
    "Sink",
    "channel_layers",
    "get_channel_layer",
]

#: What stands for an unset ``CHANNEL_LAYERS``: a server of several processes sets the variable
#: for them.
_DEFAULT_LAYER = "HEADRACE_DEFAULT_LAYER"
_DEFAULT_CONFIGS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    kind: {DEFAULT_CHANNEL_LAYER: {"BACKEND": f"headrace.layers.{name}"}}
    for kind, name in (("memory", "InMemoryChannelLayer"), ("local", "LocalChannelLayer"))
}

#: Imported when they are asked for: what they need, not every project has. ``import *`` does
#: not ask for the Redis layer.
_ELSEWHERE = {"LocalChannelLayer": ".local", "RedisChannelLayer": ".redis"}


def __getattr__(name: str) -> Any:
    if name not in _ELSEWHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_ELSEWHERE[name], __name__), name)


class _UnknownLayerError(InvalidChannelLayerError, KeyError):
    """A KeyError as well, for that is what ``channel_layers["unknown"]`` is."""

    __str__ = Exception.__str__


class ChannelLayerManager:
    """The channel layers of ``CHANNEL_LAYERS``, each built when it is first asked for."""

    def __init__(self) -> None:
        self.backends: dict[str, BaseChannelLayer] = {}
        self._building = threading.Lock()
        setting_changed.connect(self._reset_backends)

    @property
    def configs(self) -> Mapping[str, Mapping[str, Any]]:
        """``CHANNEL_LAYERS``; where it is unset, an in-memory or local layer as the default."""
        configs: Mapping[str, Mapping[str, Any]] | None = getattr(settings, "CHANNEL_LAYERS", None)
        return _default_configs() if configs is None else configs

    def make_backend(self, name: str) -> BaseChannelLayer:
        """Build the layer from its ``CONFIG``."""
        return self._make_backend(name, self._config(name).get("CONFIG", {}))

    def make_test_backend(self, name: str) -> BaseChannelLayer:
        """Build the layer from its ``TEST_CONFIG``; InvalidChannelLayerError without one."""
        config = self._config(name).get("TEST_CONFIG")
        if config is None:
            raise InvalidChannelLayerError(
                f"CHANNEL_LAYERS[{name!r}] has no TEST_CONFIG: add one, or use CONFIG"
            )
        return self._make_backend(name, config)

    def set(self, key: str, layer: BaseChannelLayer | None) -> BaseChannelLayer | None:
        """Put another layer under the alias (None: build it anew); return the old one."""
        old = self.backends.pop(key, None)
        if layer is not None:
            self.backends[key] = layer
        return old

    def __getitem__(self, key: str) -> BaseChannelLayer:
        layer = self.backends.get(key)
        if layer is None:
            # Two threads must not each build one: what is sent to one is not heard in the other.
            with self._building:
                layer = self.backends.get(key)
                if layer is None:
                    layer = self.backends[key] = self.make_backend(key)
        return layer

    def __contains__(self, key: object) -> bool:
        return key in self.configs

    def _config(self, name: str) -> Mapping[str, Any]:
        try:
            return self.configs[name]
        except KeyError:
            raise _UnknownLayerError(
                f"CHANNEL_LAYERS has no layer {name!r}: it has {sorted(self.configs) or 'none'}"
            ) from None

    def _make_backend(self, name: str, config: Mapping[str, Any]) -> BaseChannelLayer:
        path = self._config(name).get("BACKEND")
        if path is None:
            raise InvalidChannelLayerError(
                f"CHANNEL_LAYERS[{name!r}] has no BACKEND: name the layer's class, "
                "for instance 'headrace.layers.InMemoryChannelLayer'"
            )
        try:
            backend_class = import_string(path)
        except ImportError as error:
            raise InvalidChannelLayerError(
                f"CHANNEL_LAYERS[{name!r}]: BACKEND {path!r} can't be imported: {error}"
            ) from error
        try:
            backend: BaseChannelLayer = backend_class(**config)
        except TypeError as error:
            raise InvalidChannelLayerError(
                f"CHANNEL_LAYERS[{name!r}]: CONFIG does not fit {path}: {error}"
                f"{_known_keys(backend_class)}"
            ) from error
        except InvalidChannelLayerError as error:
            raise InvalidChannelLayerError(f"CHANNEL_LAYERS[{name!r}]: {error}") from error
        return backend

    def _reset_backends(self, setting: str, **_: object) -> None:
        if setting == "CHANNEL_LAYERS":
            self.backends = {}


def _default_configs() -> Mapping[str, Mapping[str, Any]]:
    kind = os.environ.get(_DEFAULT_LAYER) or "memory"
    if kind not in _DEFAULT_CONFIGS:
        raise InvalidChannelLayerError(
            f"the environment variable {_DEFAULT_LAYER} is one of "
            f"{', '.join(_DEFAULT_CONFIGS)}, not {kind!r}"
        )
    return _DEFAULT_CONFIGS[kind]


def _known_keys(backend_class: Any) -> str:
    try:
        parameters = inspect.signature(backend_class).parameters
    except (TypeError, ValueError):
        return ""
    return f"; it takes {', '.join(parameters) or 'no keys'}"


def get_channel_layer(alias: str = DEFAULT_CHANNEL_LAYER) -> BaseChannelLayer | None:
    """Return the channel layer of this alias, or None if it is not configured."""
    try:
        return channel_layers[alias]
    except _UnknownLayerError:
        return None


channel_layers = ChannelLayerManager()
process.source(Accounts(lambda: channel_layers.backends))
when_installed(lambda telemetry: telemetry.layers(channel_layers))
