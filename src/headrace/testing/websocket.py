"""Be the client of an ASGI application's WebSocket, from a test."""

# ruff: noqa: ASYNC109 - the timeouts are arguments, as in Channels

import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote, urlsplit

from .application import Application, ApplicationCommunicator

__all__ = ["WebsocketCommunicator"]

Headers = Iterable[tuple[bytes, bytes]]


class WebsocketCommunicator(ApplicationCommunicator):
    """One WebSocket to an application.

    Args:
        application: An ASGI application.
        path: With its query string.
        headers: Pairs of bytes, names in lower case.
        subprotocols: What the client offers.
        spec_version: Of ASGI, put into the scope.
    """

    def __init__(
        self,
        application: Application,
        path: str,
        headers: Headers | None = None,
        subprotocols: Iterable[str] | None = None,
        spec_version: str | None = None,
    ) -> None:
        if not isinstance(path, str):
            raise TypeError(f"a path is a str, not {type(path).__name__}")
        url = urlsplit(path)
        super().__init__(
            application,
            {
                "type": "websocket",
                "asgi": {"version": "3.0", "spec_version": spec_version or "2.5"},
                "http_version": "1.1",
                "scheme": "ws",
                "path": unquote(url.path),
                "raw_path": url.path.encode(),
                "query_string": url.query.encode(),
                "root_path": "",
                "headers": list(headers or ()),
                "subprotocols": list(subprotocols or ()),
            },
        )
        if spec_version:
            self.scope["spec_version"] = spec_version
        #: What the application gave with its accept.
        self.response_headers: list[tuple[bytes, bytes]] | None = None

    async def connect(self, timeout: float = 1) -> tuple[bool, Any]:
        """Open the WebSocket.

        Returns (True, the subprotocol or None) when the application accepts it, and
        (False, the close code) when it refuses; for a response of its own, (False, the status).
        """
        await self.send_input({"type": "websocket.connect"})
        answer = await self.receive_output(timeout)
        if answer["type"] == "websocket.close":
            return False, answer.get("code", 1000)
        if answer["type"] == "websocket.http.response.start":
            return False, answer["status"]
        assert answer["type"] == "websocket.accept", f"not an answer to a handshake: {answer!r}"
        self.response_headers = list(answer.get("headers") or ())
        return True, answer.get("subprotocol")

    async def send_to(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Send a message to the application: exactly one of the two, which may be empty."""
        assert (text_data is None) != (bytes_data is None), "give either text_data or bytes_data"
        if text_data is not None:
            assert isinstance(text_data, str), f"text_data is a str, not {text_data!r:.80}"
            await self.send_input({"type": "websocket.receive", "text": text_data})
        else:
            assert isinstance(bytes_data, bytes), f"bytes_data is bytes, not {bytes_data!r:.80}"
            await self.send_input({"type": "websocket.receive", "bytes": bytes_data})

    async def send_json_to(self, data: Any) -> None:
        """Send a value as JSON."""
        await self.send_to(text_data=json.dumps(data))

    async def receive_from(self, timeout: float = 1) -> Any:
        """Return the next message of the application: a str or bytes.

        Raises AssertionError when the application closes instead.
        """
        answer = await self.receive_output(timeout)
        assert answer["type"] == "websocket.send", (
            f"Expected type 'websocket.send', but was {answer['type']!r}: {answer!r:.200}"
        )
        text, data = answer.get("text"), answer.get("bytes")
        assert (text is None) != (data is None), f"either 'text' or 'bytes', not {answer!r:.200}"
        if text is not None:
            assert isinstance(text, str), f"'text' is a str, not {text!r:.80}"
            return text
        assert isinstance(data, bytes), f"'bytes' is bytes, not {data!r:.80}"
        return data

    async def receive_json_from(self, timeout: float = 1) -> Any:
        """Return the value that the application's next message, a text, stands for."""
        payload = await self.receive_from(timeout)
        assert isinstance(payload, str), "JSON comes in text messages, not in bytes"
        return json.loads(payload)

    async def disconnect(self, code: int = 1000, timeout: float = 1) -> None:
        """Leave, and wait for the application to end; raise what it failed with."""
        await self.send_input({"type": "websocket.disconnect", "code": code})
        await self.wait(timeout)
