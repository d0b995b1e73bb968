"""What an application's tests are made of: communicators, a live server, conformance suites.

``headrace.testing.layers`` holds the suite that every channel layer passes, and
``headrace.testing.plugin`` the fixtures for pytest.
"""

from typing import TYPE_CHECKING, Any

from .application import ApplicationCommunicator
from .http import HttpCommunicator
from .websocket import WebsocketCommunicator

if TYPE_CHECKING:
    from .live import ChannelsLiveServerTestCase

__all__ = [
    "ApplicationCommunicator",
    "ChannelsLiveServerTestCase",
    "HttpCommunicator",
    "WebsocketCommunicator",
]


def __getattr__(name: str) -> Any:
    # Whoever has communicators only needs neither Django's settings nor the server.
    if name == "ChannelsLiveServerTestCase":
        from .live import ChannelsLiveServerTestCase

        return ChannelsLiveServerTestCase
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
