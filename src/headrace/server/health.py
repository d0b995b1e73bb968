"""Whether a server lives, and whether it is ready: for whoever sends clients to it.

Rules of this file:

- *Live*: the event loop answers. *Ready*: the application has started, what it needs is there
  (``headrace.instruments.conditions``), and no stop is under way.
- Who is not ready says why, in one sentence, with a 503.
"""

from collections.abc import Awaitable, Callable

from ..instruments import conditions
from .runtime import ASGIApplication, Receive, Runtime, Scope, Send

__all__ = ["Unready", "answer_health", "respond", "respond_text", "unready", "with_health_path"]

#: Returns why a server is not ready; None: it is.
Unready = Callable[[], Awaitable[str | None]]

STARTING = "the application has not started yet"


def unready(runtime: Runtime | None) -> str | None:
    """Return why this server is not ready to take clients; None: it is."""
    if runtime is None or not runtime.serving:
        return STARTING
    if runtime.draining:
        return "the server is stopping"
    return conditions.unmet()


async def answer_health(kind: str, why: Unready, send: Send) -> None:
    """Answer ``live`` or ``ready``."""
    reason = None if kind == "live" else await why()
    if reason is None:
        await respond_text(send, 200, "live" if kind == "live" else "ready")
    else:
        await respond_text(send, 503, reason)


async def respond_text(send: Send, status: int, text: str) -> None:
    """Send a whole response that nobody keeps."""
    await respond(send, status, b"text/plain; charset=utf-8", f"{text}\n".encode())


async def respond(send: Send, status: int, content_type: bytes, body: bytes) -> None:
    """Send a whole response that nobody keeps."""
    headers = [
        (b"content-type", content_type),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def with_health_path(app: ASGIApplication, path: str, why: Unready) -> ASGIApplication:
    """Return the application with two more answers: at ``path``, and at ``path`` + ``/live``."""
    live = path.rstrip("/") + "/live"

    # No coroutine function: a request for anything else costs no frame.
    def answering(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http" and scope["path"] in (path, live):
            kind = "live" if scope["path"] == live else "ready"
            return answer_health(kind, why, send)
        return app(scope, receive, send)

    return answering
