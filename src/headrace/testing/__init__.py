"""What an application's tests are made of: communicators, and conformance suites.

``headrace.testing.layers`` holds the suite that every channel layer passes.
"""

from .application import ApplicationCommunicator
from .http import HttpCommunicator
from .websocket import WebsocketCommunicator

__all__ = ["ApplicationCommunicator", "HttpCommunicator", "WebsocketCommunicator"]
