"""Ask an ASGI application for an HTTP response, from a test."""

# ruff: noqa: ASYNC109 - the timeouts are arguments, as in Channels

from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote, urlsplit

from .application import Application, ApplicationCommunicator

__all__ = ["HttpCommunicator"]


class HttpCommunicator(ApplicationCommunicator):
    """One HTTP request to an application.

    Args:
        application: An ASGI application.
        method: ``GET``, ``POST`` …
        path: With its query string.
        body: The whole body.
        headers: Pairs of bytes, names in lower case.
    """

    def __init__(
        self,
        application: Application,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Iterable[tuple[bytes, bytes]] | None = None,
    ) -> None:
        if not isinstance(body, bytes):
            raise TypeError(f"a body is bytes, not {type(body).__name__}")
        url = urlsplit(path)
        super().__init__(
            application,
            {
                "type": "http",
                "asgi": {"version": "3.0", "spec_version": "2.5"},
                "http_version": "1.1",
                "method": method.upper(),
                "scheme": "http",
                "path": unquote(url.path),
                "raw_path": url.path.encode(),
                "query_string": url.query.encode(),
                "root_path": "",
                "headers": list(headers or ()),
            },
        )
        self.body = body
        self.sent_request = False

    async def get_response(self, timeout: float = 1) -> dict[str, Any]:
        """Return the response: its ``status``, ``headers`` and whole ``body``.

        ``timeout`` is for each part of it. Sends the request first unless that is done.
        """
        if not self.sent_request:
            self.sent_request = True
            await self.send_input({"type": "http.request", "body": self.body})
        start = await self.receive_output(timeout)
        assert start["type"] == "http.response.start", f"not the start of a response: {start!r}"
        parts: list[bytes] = []
        more = True
        while more:
            part = await self.receive_output(timeout)
            assert part["type"] == "http.response.body", f"not a part of a body: {part!r}"
            data = part.get("body", b"")
            assert isinstance(data, bytes), f"a body is bytes, not {type(data).__name__}"
            parts.append(data)
            more = part.get("more_body", False)
        return {
            "status": start["status"],
            "headers": start.get("headers", []),
            "body": b"".join(parts),
        }
