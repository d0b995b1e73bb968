"""What an application's tests are made of: communicators, a live server, conformance suites.

``headrace.testing.layers`` holds the suite that every channel layer passes, and
``headrace.testing.plugin`` the fixtures for pytest.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .application import ApplicationCommunicator
from .http import HttpCommunicator
from .websocket import WebsocketCommunicator

if TYPE_CHECKING:
    from .channel_layers import LeftOpenWarning, fresh_channel_layer
    from .live import ChannelsLiveServerTestCase, LiveServer

__all__ = [
    "ApplicationCommunicator",
    "ChannelsLiveServerTestCase",
    "HttpCommunicator",
    "LeftOpenWarning",
    "LiveServer",
    "WebsocketCommunicator",
    "fresh_channel_layer",
]

# Whoever has communicators only needs neither Django's settings nor the server.
_WHERE = {
    "ChannelsLiveServerTestCase": "live",
    "LeftOpenWarning": "channel_layers",
    "LiveServer": "live",
    "fresh_channel_layer": "channel_layers",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_WHERE[name]}", __name__), name)
