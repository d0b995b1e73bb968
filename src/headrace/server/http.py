"""One HTTP request and its response: engine <-> ASGI.

Rules of this file:

- The body of the request waits in the inbox, bounded: reading pauses while it is full.
- ``send`` waits while the socket takes no more.
- An application that raises, or returns without a whole response, is answered for at once.
"""

import logging
import time
from typing import TYPE_CHECKING

from ..exceptions import LocalProtocolError
from ..protocols.http1 import Http1Engine, RequestReceived, State
from .asgi import ClientDisconnected, message_type, outgoing_headers, unexpected
from .inbox import Inbox
from .outbox import Outbox
from .runtime import Message, Runtime, Scope

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["Exchange"]

logger = logging.getLogger("headrace.server")
access_logger = logging.getLogger("headrace.access")

#: Bytes of a request's body that wait for the application before reading pauses.
BODY_BYTES = 64 * 1024


class Exchange(Inbox):
    """A request between its connection and the application's task."""

    __slots__ = (
        "_answered",
        "_began",
        "_body_complete",
        "_connection",
        "_engine",
        "_gone",
        "_outbox",
        "_request",
        "_runtime",
        "_started",
        "_status",
        "_waiting_bytes",
    )

    def __init__(
        self,
        runtime: Runtime,
        connection: "Connection",
        engine: Http1Engine,
        outbox: Outbox,
        request: RequestReceived,
    ) -> None:
        super().__init__(runtime.turn)
        self._runtime = runtime
        self._connection = connection
        self._engine = engine
        self._outbox = outbox
        self._request = request
        self._waiting_bytes = 0
        self._body_complete = False
        self._started = False  # the head of the response was sent
        self._answered = False  # the response is complete
        self._gone = False  # nobody waits for the response any more
        self._status = 0
        self._began = time.monotonic() if runtime.config.access_log else 0.0

    @property
    def full(self) -> bool:
        """Whether as much of the body waits as may."""
        return self._waiting_bytes >= BODY_BYTES

    def start(self, scope: Scope) -> None:
        """Run the application."""
        runtime = self._runtime
        task = runtime.loop.create_task(self._run(scope))
        runtime.tasks.add(task)
        task.add_done_callback(runtime.tasks.discard)

    # From the connection

    def body(self, data: bytes, *, more: bool) -> None:
        """Take a part of the request's body."""
        if self._gone or self._answered or self._body_complete:
            return
        self._body_complete = not more
        self._waiting_bytes += len(data)
        events = self._events
        if events:
            # The application has not fetched the last part: one event for both.
            last = events[-1]
            last["body"] += data
            last["more_body"] = more
        else:
            events.append({"type": "http.request", "body": data, "more_body": more})
        if self._wake is not None:
            self.resume()

    def disconnect(self) -> None:
        """Tell the application, once, that nobody waits any more."""
        if not self._gone:
            self._gone = True
            if not self._answered:
                self._log(499)
            self._events.append({"type": "http.disconnect"})
            self.note()

    # To and from the application

    async def receive(self) -> Message:
        """Return the next part of the body, then ``http.disconnect`` (the ASGI ``receive``)."""
        if not self._body_complete and not self._events:
            self._engine.send_continue(self._runtime.loop.time())
            self._outbox.write(self._engine.data_to_send())
        message = await super().receive()
        if message["type"] == "http.disconnect":
            # It stays: whoever asks again hears the same.
            self._events.append(message)
        else:
            was_full = self.full
            self._waiting_bytes = 0
            if was_full or self._engine.has_unread:
                self._runtime.loop.call_soon(self._connection.go_on)
        return message

    async def send(self, message: Message) -> None:
        """Do what the application asks (the ASGI ``send``).

        Waits while the socket takes no more. Raises LocalProtocolError for what the state or
        the message's form forbids, ClientDisconnected (an OSError) when the client is gone.
        """
        type_ = message_type(message)
        if self._gone:
            raise ClientDisconnected(f"cannot send {type_!r}: the client is gone")
        if self._answered:
            raise unexpected(message, state="COMPLETE", expected="nothing more")
        if self._engine.state is State.CLOSED:
            raise ClientDisconnected(f"cannot send {type_!r}: the connection is closing")
        match type_, self._started:
            case "http.response.start", False:
                self._start_response(message)
            case "http.response.body", True:
                self._engine.send_body(_body(message), more=bool(message.get("more_body", False)))
                self._outbox.write(self._engine.data_to_send())
                if not message.get("more_body", False):
                    self._complete()
                elif self._outbox.paused or self._outbox.waiting_bytes:
                    await self._outbox.drained()
            case "http.response.early_hint", False:
                links = [(b"link", link) for link in message.get("links", ())]
                self._engine.send_informational(103, links)
                self._outbox.write(self._engine.data_to_send())
            case _, False:
                raise unexpected(message, state="WAITING", expected="http.response.start")
            case _:
                raise unexpected(message, state="STARTED", expected="http.response.body")

    def _start_response(self, message: Message) -> None:
        status = message.get("status")
        if not isinstance(status, int):
            raise LocalProtocolError(f"a response has an int as its status, not {status!r:.50}")
        self._engine.send_response(int(status), outgoing_headers(message))
        self._status = int(status)
        self._started = True

    def _complete(self) -> None:
        self._answered = True
        self._log(self._status)
        self._events.clear()
        self._waiting_bytes = 0
        self._gone = True
        self._events.append({"type": "http.disconnect"})
        self.note()
        self._connection.finished(self)

    async def _run(self, scope: Scope) -> None:
        try:
            await self._runtime.app(scope, self.receive, self.send)
        except ClientDisconnected:
            logger.debug(
                "%s: the application sent to a client that was gone", self._connection.peer
            )
        except Exception as error:
            status = getattr(error, "status", None)
            if not self._started and isinstance(status, int) and 400 <= status < 500:
                # The application says by its exception that this is the client's mistake.
                logger.info("%s: refused with %d: %s", self._connection.peer, status, error)
                self._fail(status, str(error))
                return
            self._runtime.counters.application_errors += 1
            logger.exception(
                "%s: the application raised %s on %s %.200s",
                self._connection.peer,
                type(error).__name__,
                self._request.method,
                self._request.path,
            )
            self._fail(500, "the application could not answer")
        else:
            if not self._answered and not self._gone:
                self._runtime.counters.application_errors += 1
                logger.error(
                    "%s: the application returned without a complete response to %s %.200s",
                    self._connection.peer,
                    self._request.method,
                    self._request.path,
                )
                self._fail(500, "the application could not answer")

    def _fail(self, status: int, reason: str) -> None:
        if self._answered or self._gone:
            return
        self._log(status)
        self._answered = self._gone = True
        self._engine.refuse(status, reason)
        self._connection.finished(self)

    def _log(self, status: int) -> None:
        if self._began:
            access_logger.info(
                '%s "%s %s HTTP/%s" %d %.1f ms',
                self._connection.peer,
                self._request.method,
                self._request.target.decode("latin-1"),
                self._request.http_version,
                status,
                (time.monotonic() - self._began) * 1000,
            )


def _body(message: Message) -> bytes:
    body = message.get("body", b"")
    if isinstance(body, bytes):
        return body
    if isinstance(body, bytearray | memoryview):
        return bytes(body)
    raise LocalProtocolError(f"a body is bytes, not {type(body).__name__}")
