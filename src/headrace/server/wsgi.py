"""A WSGI application under the server, and the ASGI one that takes its WebSockets.

Rules of this file:

- A thread works for one request at a time, and only while there is work: the body of a request
  has arrived as a whole before one is asked for, so that slow clients hold none.
- A block of a response is with the client's socket, or the thread waits (PEP 3333, "Buffering
  and Streaming"). ``close()`` of the response is called, whatever happens.
- What the client sends reaches the environment in one way only: a header with an underscore
  could pass for another, and is left out.
"""

import asyncio
import contextvars
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from types import TracebackType
from typing import IO, Any, TypeAlias
from urllib.parse import unquote_to_bytes

from .asgi import ClientDisconnected, printable
from .runtime import ASGIApplication, Message, Receive, Scope, Send

__all__ = ["DEFAULT_THREADS", "WsgiApplication"]

logger = logging.getLogger("headrace.server")

WSGIApplication: TypeAlias = Callable[[dict[str, Any], Any], Iterable[bytes]]
_ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None]

#: Requests mostly wait for a database: more threads than cores, and few enough for its connections.
DEFAULT_THREADS = min(32, (os.cpu_count() or 1) + 4)
#: A body longer than this goes into a temporary file.
MEMORY_BYTES = 1024 * 1024
#: What is read of a file at once, and then sent.
BLOCK_BYTES = 64 * 1024


class WsgiApplication:
    """A WSGI application as an ASGI one.

    Args:
        app: The WSGI application.
        threads: Requests that it may work on at once; more of them wait.
        websockets: The ASGI application that takes WebSockets, and the lifespan.
    """

    def __init__(
        self,
        app: WSGIApplication,
        *,
        threads: int = DEFAULT_THREADS,
        websockets: ASGIApplication | None = None,
    ) -> None:
        self.app = app
        self.websockets = websockets
        self._multithread = threads > 1
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="headrace wsgi")
        self._warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection (ASGI 3)."""
        if scope["type"] == "http":
            await self._request(scope, receive, send)
        elif self.websockets is not None:
            await self.websockets(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._refuse(scope, send)
        else:
            raise ValueError(f"a WSGI application has no use for {scope['type']!r}")

    def close(self) -> None:
        """Let the threads go; one that is at work goes when it has finished."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _refuse(self, scope: Scope, send: Send) -> None:
        # Once as a warning: a browser whose page asks for a WebSocket asks again and again.
        level, self._warned = (logging.INFO if self._warned else logging.WARNING), True
        logger.log(
            level,
            "a WebSocket for %s is refused, for a WSGI application has none: name the ASGI "
            "application that takes them, with --websockets MODULE:APP",
            printable(scope["path"]),
        )
        headers = [(b"content-type", b"text/plain; charset=utf-8")]
        await send({"type": "websocket.http.response.start", "status": 501, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": b"no WebSockets here\n"})

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _read_body(receive)
        if body is None:
            return  # the client left
        with body:
            length = body.tell()
            body.seek(0)
            environ = _environ(scope, body, length)
            environ["wsgi.multithread"] = self._multithread
            response = _Response(self.app, environ, send)
            work = self._pool.submit(contextvars.copy_context().run, response.run)
            done = asyncio.wrap_future(work)
            # When the client leaves, a request that waits for a thread needs none any more.
            watch = asyncio.ensure_future(receive())
            watch.add_done_callback(lambda _: work.cancel())
            try:
                await asyncio.wait({done})
            finally:
                response.abandoned = True
                work.cancel()
                watch.cancel()
                await asyncio.wait({watch})
            if not done.cancelled():
                await response.finish(done.result())


class _Response:
    """One run of the application, in a thread, and its response."""

    def __init__(self, app: WSGIApplication, environ: dict[str, Any], send: Send) -> None:
        #: Nobody waits for it any more.
        self.abandoned = False
        self._app = app
        self._environ = environ
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._start: Message | None = None
        self._started = False
        #: Bytes that are still to come, where the application has said so.
        self._left: int | None = None
        self._last: Future[None] | None = None

    async def finish(self, error: BaseException | None) -> None:
        """See the end of the response, or of the application."""
        if self._last is not None:
            await asyncio.wrap_future(self._last)
        if error is not None:
            raise error

    # In the thread

    def run(self) -> BaseException | None:
        """Run the application; return what it raised."""
        try:
            self._run()
        except ClientDisconnected:
            return None
        except BaseException as error:
            # As a value: a future takes no StopIteration, and sys.exit() would end the thread.
            return None if self.abandoned else _presentable(error)
        return None

    def _run(self) -> None:
        blocks = self._app(self._environ, self.start_response)
        try:
            alone = isinstance(blocks, Sequence) and len(blocks) == 1
            for block in blocks:
                if block:
                    self._block(block, last=alone)
                if self._last is not None:
                    break
            if self._last is None:
                self._block(b"", last=True)
        finally:
            close = getattr(blocks, "close", None)
            if close is not None:
                close()

    def start_response(
        self,
        status: str,
        headers: Sequence[tuple[str, str]],
        exc_info: _ExcInfo | None = None,
    ) -> Callable[[bytes], None]:
        """Take status and headers (PEP 3333); return the function that writes a block."""
        if exc_info is not None:
            try:
                if self._started:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # the cycle that a traceback makes
        elif self._start is not None:
            raise RuntimeError("start_response() was called before: pass exc_info to replace it")
        code = status[:3]
        if not (code.isascii() and code.isdecimal() and len(code) == 3):
            raise ValueError(f"a status begins with three digits, as '200 OK', not {status!r:.50}")
        self._left = None
        encoded = []
        for name, value in headers:
            encoded.append((name.lower().encode("latin-1"), value.encode("latin-1")))
            if name.lower() == "content-length":
                self._left = int(value)
        self._start = {"type": "http.response.start", "status": int(code), "headers": encoded}
        return self._write

    def _write(self, data: bytes) -> None:
        """Send a block at once: what ``start_response()`` returns, for old applications."""
        if data:
            self._block(data, last=False)

    def _block(self, block: bytes, *, last: bool) -> None:
        if self._start is None:
            raise RuntimeError("the application has not called start_response()")
        if self._left is not None and self._environ["REQUEST_METHOD"] != "HEAD":
            # PEP 3333, "Handling the Content-Length Header": no more than was announced.
            block = block[: self._left]
            self._left -= len(block)
            last = last or self._left == 0
        messages = [] if self._started else [self._start]
        messages.append({"type": "http.response.body", "body": block, "more_body": not last})
        self._started = True
        if self.abandoned:
            raise ClientDisconnected("nobody waits for the response any more")
        sent = asyncio.run_coroutine_threadsafe(self._send_all(messages), self._loop)
        if last:
            self._last = sent  # and on to close(), which may have work of its own to do
        else:
            sent.result()

    async def _send_all(self, messages: list[Message]) -> None:
        for message in messages:
            await self._send(message)


class _FileWrapper:
    """``wsgi.file_wrapper``: a file as the blocks of a response."""

    def __init__(self, file: Any, block_bytes: int = BLOCK_BYTES) -> None:
        self._file = file
        self._block_bytes = max(block_bytes, BLOCK_BYTES)
        if hasattr(file, "close"):
            self.close = file.close

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self._file.read(self._block_bytes), b"")


def _presentable(error: BaseException) -> BaseException:
    if not isinstance(error, StopIteration):
        return error
    wrapped = RuntimeError("the application raised StopIteration")
    wrapped.__cause__ = error
    return wrapped


async def _read_body(receive: Receive) -> IO[bytes] | None:
    """Return the body of the request, written to the end; None if the client left before."""
    body: IO[bytes] = BytesIO()
    waiting: list[bytes] = []
    waiting_bytes = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            body.close()
            return None
        data = message.get("body", b"")
        waiting.append(data)
        waiting_bytes += len(data)
        if not message.get("more_body"):
            break
        if waiting_bytes >= MEMORY_BYTES:
            if isinstance(body, BytesIO):
                body = await asyncio.to_thread(tempfile.TemporaryFile)
            await asyncio.to_thread(body.writelines, waiting)
            waiting.clear()
            waiting_bytes = 0
    if isinstance(body, BytesIO):
        body.writelines(waiting)
    else:
        await asyncio.to_thread(body.writelines, waiting)
    return body


def _environ(scope: Scope, body: IO[bytes], length: int) -> dict[str, Any]:
    """Return the environment of a request (PEP 3333, "environ Variables")."""
    root = scope["root_path"].encode()
    path = unquote_to_bytes(scope["raw_path"])
    if root and path.startswith(root):
        path = path[len(root) :]
    scheme = scope["scheme"]
    client, server = scope["client"], scope["server"]
    if server is None or server[1] is None:
        server = ("localhost", 443 if scheme == "https" else 80)  # a Unix socket
    environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": root.decode("latin-1"),
        "PATH_INFO": path.decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": client[0] if client and client[1] is not None else "",
        "REMOTE_PORT": str(client[1]) if client and client[1] is not None else "",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.input": body,
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": _FileWrapper,
    }
    if scheme == "https":
        environ["HTTPS"] = "on"
    for name, value in scope["headers"]:
        if b"_" in name or name in (b"content-length", b"transfer-encoding"):
            continue
        key = name.decode("latin-1").upper().replace("-", "_")
        if key != "CONTENT_TYPE":
            key = f"HTTP_{key}"
        text = value.decode("latin-1")
        if key in environ:
            # RFC 9110 §5.3; RFC 6265 §5.4 for cookies.
            text = f"{environ[key]}{'; ' if key == 'HTTP_COOKIE' else ','}{text}"
        environ[key] = text
    if length or any(name == b"content-length" for name, _ in scope["headers"]):
        # That of what is there, also where it came in chunks.
        environ["CONTENT_LENGTH"] = str(length)
    return environ
