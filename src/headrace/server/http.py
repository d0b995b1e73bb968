"""One HTTP request and its response: engine <-> ASGI.

Rules of this file:

- The body of the request waits in the inbox, bounded: reading pauses while it is full.
- ``send`` waits while the socket takes no more.
- An application that raises, or returns without a whole response, is answered for at once.
- After the end of the response, or of the connection, ``receive`` gives ``http.disconnect``,
  as often as it is asked.
"""

import asyncio
import logging
import time
from collections.abc import Iterable
from typing import Any, Protocol

from ..exceptions import LocalProtocolError
from ..protocols.http1 import RequestReceived
from .asgi import (
    ClientDisconnected,
    comes_of_disconnect,
    message_type,
    outgoing_headers,
    printable,
    refusal_level,
    refusal_status,
    unexpected,
)
from .identity import Peer, peer_of
from .inbox import Inbox
from .runtime import Address, Message, Runtime, Scope
from .traffic import RequestTraffic

__all__ = ["Exchange", "RequestLine", "log_access", "log_refusal"]

Field = tuple[bytes, bytes]

logger = logging.getLogger("headrace.server")
access_logger = logging.getLogger("headrace.access")

#: Bytes of a request's body that wait for the application before reading pauses.
BODY_BYTES = 64 * 1024


class Carrier(Protocol):
    """The connection that an exchange happens on."""

    @property
    def number(self) -> int:
        """With that of the worker, its id."""
        ...

    def go_on(self) -> None:
        """Read what was left unread."""
        ...

    def account(self) -> RequestTraffic | None:
        """Begin to count for the request at hand; None: it can't be told from others."""
        ...

    def finished(self) -> None:
        """Go on after a response that is complete, or that never will be."""
        ...


class Answering(Protocol):
    """The engine's side of one request: that of a connection, or a stream."""

    @property
    def has_unread(self) -> bool:
        """Whether there is more of the body than the application was given room for."""
        ...

    def send_continue(self, now: float) -> None: ...

    def send_informational(self, status: int, headers: Iterable[Field] = ()) -> None: ...

    def send_response(
        self, status: int, headers: Iterable[Field] = (), *, trailers: bool = False
    ) -> None: ...

    def send_body(self, data: bytes, *, more: bool = False) -> None: ...

    def send_trailers(self, headers: Iterable[Field] = ()) -> None: ...

    def refuse(self, status: int, reason: str, headers: Iterable[Field] = ()) -> None: ...

    def data_to_send(self) -> bytes: ...


class Way(Protocol):
    """The bytes on their way to the client."""

    @property
    def full(self) -> bool:
        """Whether a sender should wait."""
        ...

    def write(self, data: bytes) -> None: ...

    async def drained(self) -> None: ...


class Exchange(Inbox):
    """A request between its connection and the application's task."""

    __slots__ = (
        "_answered",
        "_began",
        "_begun",
        "_body_complete",
        "_client",
        "_connection",
        "_engine",
        "_goes_on",
        "_gone",
        "_outbox",
        "_request",
        "_runtime",
        "_started",
        "_status",
        "_task",
        "_traffic",
        "_trailers",
        "active",
        "waiting_bytes",
    )

    def __init__(
        self,
        runtime: Runtime,
        connection: Carrier,
        engine: Answering,
        outbox: Way,
        request: RequestReceived,
        *,
        client: Address | None,
    ) -> None:
        super().__init__(runtime.turn)
        self._runtime = runtime
        self._client = client
        self._task: asyncio.Task[None] | None = None
        self._connection = connection
        self._engine = engine
        self._outbox = outbox
        self._request = request
        #: Of the request's body, for the application to take.
        self.waiting_bytes = 0
        self._body_complete = False
        self._started = False  # the application has given the head of its response
        self._begun = False  # and it was sent, with a first part of the body
        self._answered = False  # the response is complete
        #: Those that were given so far; None: there will be none.
        self._trailers: list[Field] | None = None
        self._traffic: RequestTraffic | None = None  # for who asks
        self._goes_on = False  # what was left unread will be read in the next turn
        self._gone = False  # nobody waits for the response any more
        #: Something was sent; the connection takes note and sets it back.
        self.active = False
        self._status = 0
        self._began = time.monotonic()

    @property
    def full(self) -> bool:
        """Whether as much of the body waits as may."""
        return self.waiting_bytes >= BODY_BYTES

    @property
    def peer(self) -> Peer:
        """The client, as the log names it: behind a proxy, each request has its own."""
        return peer_of(self._client, self._runtime.worker, self._connection.number)

    @property
    def task(self) -> "asyncio.Task[None] | None":
        """The application's."""
        return self._task

    @property
    def draining(self) -> bool:
        """Whether the server waits for this response, to stop."""
        return self._runtime.draining

    @property
    def traffic(self) -> RequestTraffic | None:
        """The account of this request; None where there can be none."""
        if self._traffic is None and not (self._answered or self._gone):
            self._traffic = self._connection.account()
        return self._traffic

    def start(self, scope: Scope) -> asyncio.Task[None]:
        """Run the application."""
        task = self._task = self._runtime.run(self._run(scope), number=self._connection.number)
        return task

    # From the connection

    def body(self, data: bytes, *, more: bool) -> None:
        """Take a part of the request's body."""
        self._body_complete = not more
        if not more and self._runtime.config.http_timeout_s:
            self._limit_time()
        self.waiting_bytes += len(data)
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

    def disconnect(self, status: int) -> None:
        """Tell the application that nobody waits any more; the log names this status."""
        self._gone = True
        if self._traffic is not None:
            self._traffic.settle()
        self._log(status)
        self._events.append({"type": "http.disconnect"})
        self.note()
        assert self._task is not None
        self._runtime.end_in_time(self._task, self.peer)

    def _limit_time(self) -> None:
        """See to it that there is an answer in time."""
        task, runtime = self._task, self._runtime
        assert task is not None
        timer = runtime.loop.call_later(runtime.config.http_timeout_s, self._take_no_longer)
        task.add_done_callback(lambda _: timer.cancel())

    def _take_no_longer(self) -> None:
        if self._answered or self._gone:
            return
        logger.error(
            "%s: the application has not answered %s in %g s",
            self.peer,
            _named(self._request),
            self._runtime.config.http_timeout_s,
        )
        self._fail(503, "the application took too long to answer")
        assert self._task is not None
        self._runtime.end_in_time(self._task, self.peer)

    # To and from the application

    async def receive(self) -> Message:
        """Return the next part of the body, then ``http.disconnect`` (the ASGI ``receive``)."""
        if not self._body_complete and not self._events:
            self._engine.send_continue(self._runtime.loop.time())
            self._outbox.write(self._engine.data_to_send())
        message = await self
        if message["type"] == "http.disconnect":
            # It stays: whoever asks again hears the same.
            self._events.append(message)
        else:
            was_full = self.full
            self.waiting_bytes = 0
            if (was_full or self._engine.has_unread) and not self._goes_on:
                # Once a turn, however often the application asks: each time would ask as often.
                self._goes_on = True
                self._runtime.turn.later(self._go_on)
        return message

    def _go_on(self) -> None:
        self._goes_on = False
        self._connection.go_on()

    async def send(self, message: Message) -> None:
        """Do what the application asks (the ASGI ``send``).

        Waits while the socket takes no more. Raises LocalProtocolError for what the state or
        the message's form forbids, ClientDisconnected (an OSError) when the client is gone.
        """
        type_ = message.get("type") if type(message) is dict else None
        if type(type_) is not str:
            type_ = message_type(message)
        if self._answered:
            raise unexpected(message, state="COMPLETE", expected="nothing more")
        if self._gone:
            raise ClientDisconnected(f"cannot send {type_!r}: the client is gone")
        self.active = True
        started = self._started
        if type_ == "http.response.body" and started:
            self._continue_response(message)
            if not self._answered and self._outbox.full:
                await self._outbox.drained()
                if self._gone:
                    raise ClientDisconnected("the client is gone")
        elif type_ == "http.response.start" and not started:
            self._start_response(message)
        elif type_ == "http.response.trailers" and self._trailers is not None:
            self._end_with_trailers(message)
        elif type_ == "http.response.early_hint":
            self._hint(message)
        elif not started:
            raise unexpected(message, state="WAITING", expected="http.response.start")
        else:
            raise unexpected(message, state="STARTED", expected="http.response.body")

    def _start_response(self, message: Message) -> None:
        status = message.get("status")
        if not isinstance(status, int):
            raise LocalProtocolError(f"a response has an int as its status, not {status!r:.50}")
        trailers = bool(message.get("trailers", False))
        self._status = int(status)
        self._engine.send_response(self._status, outgoing_headers(message), trailers=trailers)
        if trailers:
            self._trailers = []
        self._started = True

    def _continue_response(self, message: Message) -> None:
        more = bool(message.get("more_body", False))
        self._engine.send_body(_body(message), more=more)
        self._begun = True
        self._outbox.write(self._engine.data_to_send())
        if not more and self._trailers is None:
            self._complete(self._status)

    def _end_with_trailers(self, message: Message) -> None:
        """Take trailers (ASGI, "HTTP Trailers"); the last message of them ends the response."""
        assert self._trailers is not None
        self._trailers += outgoing_headers(message)
        if not message.get("more_trailers", False):
            self._engine.send_trailers(self._trailers)
            self._outbox.write(self._engine.data_to_send())
            self._complete(self._status)

    def _hint(self, message: Message) -> None:
        # ASGI, "Early Hints": from the start of the response to its last part. Once a part has
        # left, there is no place for a hint any more, and nothing to be hinted at.
        if not self._begun:
            links = [(b"link", link) for link in message.get("links", ())]
            self._engine.send_informational(103, links)
            self._outbox.write(self._engine.data_to_send())

    def _complete(self, status: int) -> None:
        """Turn to the next request; the application hears that this one is over."""
        self._answered = True
        if self._traffic is not None:
            self._traffic.settle()
        self._log(status)
        self.waiting_bytes = 0
        self._events[:] = [{"type": "http.disconnect"}]
        self.note()
        self._connection.finished()

    async def _run(self, scope: Scope) -> None:
        try:
            await self._runtime.app(scope, self.receive, self.send)
        except asyncio.CancelledError:
            if not self._gone and not self._answered:
                # Not by the server, which sees to the connection first.
                logger.error(
                    "%s: the application was cancelled, on %s",
                    self.peer,
                    _named(self._request),
                )
            self._fail(500, "the application could not answer")
            raise
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # sys.exit() in a view ends no server
            if self._gone and comes_of_disconnect(error):
                logger.debug("%s: the application ended with %r", self.peer, error)
                return
            status = refusal_status(error)
            if status is not None and not self._started:
                log_refusal(self._runtime, self.peer, status, error)
                self._fail(status, printable(str(error)))
                return
            self._runtime.counters.application_errors += 1
            logger.exception(
                "%s: the application raised %s on %s",
                self.peer,
                type(error).__name__,
                _named(self._request),
            )
            self._fail(500, "the application could not answer")
        else:
            if not self._answered and not self._gone:
                self._runtime.counters.application_errors += 1
                logger.error(
                    "%s: the application returned without a complete response to %s",
                    self.peer,
                    _named(self._request),
                )
                self._fail(500, "the application could not answer")
        finally:
            if self._task is not None:
                self._runtime.ended(self._task)

    def _fail(self, status: int, reason: str) -> None:
        if not self._answered and not self._gone:
            self._engine.refuse(status, reason)
            self._outbox.write(self._engine.data_to_send())
            self._complete(self._status if self._begun else status)

    def _log(self, status: int) -> None:
        runtime, request = self._runtime, self._request
        duration_s = time.monotonic() - self._began
        counters = runtime.counters
        counters.statuses[status // 100] += 1
        counters.durations.observe(duration_s)
        if runtime.config.access_log and access_logger.isEnabledFor(logging.INFO):
            log_access(runtime, self.peer, request, status, duration_s)
        if (watcher := runtime.config.watcher) is not None:
            watcher.request(self.peer, request, status, duration_s)


class RequestLine:
    """What was asked for, as a line of the log has it; in a structured log, in its parts."""

    __slots__ = ("duration_s", "request", "status")

    def __init__(
        self, request: RequestReceived, status: int, duration_s: float | None = None
    ) -> None:
        self.request = request
        self.status = status
        self.duration_s = duration_s

    def __str__(self) -> str:
        """Return the request line."""
        return f"{_named(self.request)} HTTP/{self.request.http_version}"

    def parts(self) -> dict[str, Any]:
        """Return what a structured log says of it."""
        request = self.request
        parts: dict[str, Any] = {
            "method": request.method,
            "path": printable(request.target.decode("latin-1")),
            "http_version": request.http_version,
            "status": self.status,
        }
        if self.duration_s is not None:
            parts["duration_ms"] = round(self.duration_s * 1000, 3)
        return parts


def log_refusal(runtime: Runtime, peer: str, status: int, error: BaseException) -> None:
    """Tell the log that the application has refused a client."""
    level, what = refusal_level(error), "%s: refused with %d: %s"
    runtime.log(f"application_{status}", what, peer, status, str(error), level=level)


def log_access(
    runtime: Runtime,
    peer: str,
    request: RequestReceived,
    status: int,
    duration_s: float | None = None,
) -> None:
    """Write the access log's line for one request."""
    if not (runtime.config.access_log and access_logger.isEnabledFor(logging.INFO)):
        return
    line = RequestLine(request, status, duration_s)
    if duration_s is None:
        access_logger.info('%s "%s" %d', peer, line, status)
    else:
        access_logger.info('%s "%s" %d %.1f ms', peer, line, status, duration_s * 1000)


def _named(request: RequestReceived) -> str:
    """Return method and target as a log may have them; the path is decoded, the target isn't."""
    return f"{request.method} {printable(request.target.decode('latin-1'))}"


def _body(message: Message) -> bytes:
    body = message.get("body", b"")
    if isinstance(body, bytes):
        return body
    if isinstance(body, bytearray | memoryview):
        return bytes(body)
    raise LocalProtocolError(f"a body is bytes, not {type(body).__name__}")
