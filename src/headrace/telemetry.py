"""OpenTelemetry: spans for requests, for handlers and for what is sent to a channel layer.

Rules of this file:

- Off, nothing of it is there: no check, no wrapper, no import of OpenTelemetry. ``install()`` puts
  the wrappers in place.
- It is set up by the variables ``OTEL_*`` of the environment, as everything of OpenTelemetry is. An
  application that has set a provider up itself keeps it.
- A WebSocket has a span for its handshake, the handler of ``websocket.connect``, whose parent is in
  the request's headers; each later handler has a trace of its own, linked to the handshake: a
  trace that lasts for a day is of no use to anybody.
- Events are what applications sent. Only where it is asked for (``events=True``) do they carry
  the trace to their handler, which does not see it.
"""

import functools
import importlib.metadata
import os
from collections.abc import Awaitable, Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from .exceptions import ConfigurationError, StopConsumer
from .instruments import connection_id

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

__all__ = ["Telemetry", "install", "installed", "uninstall", "when_installed"]

Event = dict[str, Any]
Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Where an event carries the trace that it belongs to.
CARRIER = "headrace.trace"


class Telemetry:
    """The spans of this process.

    Args:
        tracer: Makes them.
        events: Whether channel-layer events carry the trace to their handlers.
    """

    def __init__(self, tracer: "Tracer", *, events: bool) -> None:
        self._tracer = tracer
        self._events = events
        self._undo: list[Callable[[], None]] = []

    def uninstall(self) -> None:
        """Take every wrapper away again."""
        while self._undo:
            self._undo.pop()()

    # Requests

    def traced(self, app: Application) -> Application:
        """Return the application with a span for each HTTP request."""

        # No coroutine function: anything else but HTTP passes without a frame, and with the very
        # callables of the server.
        def application(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            if scope["type"] != "http":
                return app(scope, receive, send)
            return self._serve(app, scope, receive, send)

        application.__wrapped__ = app  # type: ignore[attr-defined]
        return application

    async def _serve(self, app: Application, scope: Scope, receive: Receive, send: Send) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode

        method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
        with self._tracer.start_as_current_span(
            "HTTP" if method == "_OTHER" else method,
            context=_parent_of(scope),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": method, **_attributes(scope)},
        ) as span:

            async def send_and_note(message: Event) -> None:
                if message.get("type") == "http.response.start":
                    status = int(message["status"])
                    span.set_attribute("http.response.status_code", status)
                    if status >= 500:
                        span.set_attribute("error.type", str(status))
                        span.set_status(Status(StatusCode.ERROR))
                await send(message)

            await app(scope, receive, send_and_note)

    # Handlers

    def handlers(self, *classes: type) -> None:
        """Give each handler of these classes of consumers a span."""
        for cls in classes:
            dispatch = vars(cls)["dispatch"]
            self._replace(cls, "dispatch", self._dispatching(dispatch))

    def _dispatching(self, dispatch: Callable[..., Awaitable[None]]) -> Callable[..., Any]:
        from opentelemetry import propagate
        from opentelemetry.trace import Link, SpanKind

        @functools.wraps(dispatch)
        async def traced(consumer: Any, message: Event) -> None:
            type_ = str(message.get("type"))
            carried = message.pop(CARRIER, None)
            scope = consumer.scope
            links, attributes = [], {}
            context: Context | None = None
            kind = SpanKind.CONSUMER
            if type_ in ("websocket.connect", "http.request"):
                # Inside the span of the request, where there is one.
                context = _parent_of(scope) if type_ == "websocket.connect" else None
                attributes = _attributes(scope)
                kind = SpanKind.SERVER if type_ == "websocket.connect" else SpanKind.INTERNAL
            else:
                handshake = vars(consumer).get("_hr_handshake")
                if handshake is not None:
                    links.append(Link(handshake))
                context = propagate.extract(carried or {}, context=_nothing())
            name = f"{type(consumer).__name__}.{type_.replace('.', '_')}"
            with self._tracer.start_as_current_span(
                name,
                context=context,
                kind=kind,
                links=links,
                attributes=attributes,
                record_exception=False,
                set_status_on_exception=False,
            ) as span:
                span.set_attribute("code.function.name", name)
                span.set_attribute("messaging.message.type", type_)
                if type_ == "websocket.connect":
                    consumer._hr_handshake = span.get_span_context()  # noqa: SLF001
                try:
                    await dispatch(consumer, message)
                except Exception as error:
                    _note_error(span, error)
                    raise

        return traced

    # Channel layers

    def layers(self, manager: Any) -> None:
        """Give each send to a layer of this manager a span, and where asked for to its event."""
        for layer in manager.backends.values():
            self._layer(layer)
        make = manager.make_backend

        def make_backend(name: str) -> Any:
            layer = make(name)
            self._layer(layer)
            return layer

        self._replace(manager, "make_backend", make_backend)

    def _layer(self, layer: Any) -> None:
        for name, kind in (("send", "channel"), ("group_send", "group")):
            for method in (name, f"{name}_sync"):
                if (send := getattr(layer, method, None)) is not None:
                    wrap = self._sending_sync if method.endswith("_sync") else self._sending
                    self._replace(layer, method, wrap(send, kind))

    def _sending(self, send: Callable[..., Awaitable[None]], kind: str) -> Callable[..., Any]:
        @functools.wraps(send)
        async def traced(to: str, message: Event) -> None:
            with self._send_span(kind, to, message):
                await send(to, self._carrying(message))

        return traced

    def _sending_sync(self, send: Callable[..., None], kind: str) -> Callable[..., Any]:
        @functools.wraps(send)
        def traced(to: str, message: Event) -> None:
            with self._send_span(kind, to, message):
                send(to, self._carrying(message))

        return traced

    def _send_span(self, kind: str, to: str, message: Event) -> Any:
        from opentelemetry.trace import SpanKind

        type_ = str(message.get("type")) if isinstance(message, dict) else "None"
        return self._tracer.start_as_current_span(
            f"send {type_}",
            kind=SpanKind.PRODUCER,
            attributes={
                "messaging.system": "headrace",
                "messaging.operation.type": "send",
                f"headrace.{kind}": to,
                "messaging.message.type": type_,
            },
        )

    def _carrying(self, message: Event) -> Event:
        from opentelemetry import propagate

        if not (self._events and isinstance(message, dict)):
            return message
        if str(message.get("type")).startswith("websocket."):
            return message  # it goes to a client, which is told nothing of it
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        return {**message, CARRIER: carrier}

    def _replace(self, owner: Any, name: str, new: Any) -> None:
        held = vars(owner).get(name)
        setattr(owner, name, new)

        def undo() -> None:
            if held is None:
                delattr(owner, name)
            else:
                setattr(owner, name, held)

        self._undo.append(undo)


_METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"}
)


def _nothing() -> "Context":
    from opentelemetry.context import Context

    return Context()


def _parent_of(scope: Scope) -> "Context":
    """Return the trace that a request's headers name; that of a handler is nobody's."""
    from opentelemetry import propagate

    names = {name.lower() for name in propagate.get_global_textmap().fields}
    carrier: dict[str, list[str] | str] = {}
    for name, value in scope.get("headers", ()):
        text = name.decode("latin-1")
        if text in names:
            carrier[text] = value.decode("latin-1")
    return propagate.extract(carrier, context=_nothing())


def _attributes(scope: Scope) -> dict[str, Any]:
    """Return what the semantic conventions have to say of a request."""
    attributes: dict[str, Any] = {
        "url.path": scope.get("path", ""),
        "url.scheme": scope.get("scheme", "http"),
        "network.protocol.version": scope.get("http_version", ""),
    }
    if scope.get("type") == "websocket":
        attributes["network.protocol.name"] = "websocket"
    for name, key in (("client", "client"), ("server", "server")):
        if address := scope.get(name):
            attributes[f"{key}.address"] = address[0]
            if address[1] is not None:
                attributes[f"{key}.port"] = address[1]
    for name, value in scope.get("headers", ()):
        if name == b"user-agent":
            attributes["user_agent.original"] = value.decode("latin-1")
    if (connection := connection_id()) is not None:
        attributes["headrace.connection"] = connection
    return attributes


def _note_error(span: "Span", error: Exception) -> None:
    from opentelemetry.trace import Status, StatusCode

    if isinstance(error, StopConsumer):
        return
    span.record_exception(error)
    span.set_attribute("error.type", type(error).__qualname__)
    span.set_status(Status(StatusCode.ERROR, str(error)))


# Switching it on

_installed: Telemetry | None = None
_waiting: list[Callable[[Telemetry], object]] = []


def when_installed(wrap: Callable[[Telemetry], object]) -> None:
    """Let this function put its wrappers in place as soon as there are spans, or now."""
    _waiting.append(wrap)
    if _installed is not None:
        wrap(_installed)


def installed() -> Telemetry | None:
    """Return what makes spans in this process; None: nothing does."""
    return _installed


def install(tracer: "Tracer | None" = None, *, events: bool = False) -> Telemetry:
    """Make spans from now on; a second call takes the place of the first.

    Raises ConfigurationError, with what to do, where OpenTelemetry is not installed, or is told to
    export to where nothing that is installed can.

    Args:
        tracer: Makes them. Otherwise one of the application's provider does; where it has none,
            one is set up as the environment says.
        events: Whether events of the channel layer carry the trace to their handlers. The
            processes that share a layer should all say the same.
    """
    global _installed
    uninstall()
    if tracer is None:
        if find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None:
            raise ConfigurationError(
                "spans need OpenTelemetry: pip install 'headrace[otel]', or leave out --otel"
            )
        from opentelemetry import trace

        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            trace.set_tracer_provider(_provider(os.environ))
        tracer = trace.get_tracer("headrace")
    _installed = Telemetry(tracer, events=events)
    for wrap in _waiting:
        wrap(_installed)
    return _installed


def uninstall() -> None:
    """Make no more spans."""
    global _installed
    if _installed is not None:
        _installed.uninstall()
        _installed = None


def _provider(environ: Mapping[str, str]) -> Any:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()  # OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER and their kind it reads
    for name in environ.get("OTEL_TRACES_EXPORTER", "otlp").split(","):
        if (name := name.strip()) != "none":
            provider.add_span_processor(BatchSpanProcessor(_exporter(name, environ)))
    return provider


def _exporter(name: str, environ: Mapping[str, str]) -> Any:
    if name == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter()
    if name == "otlp":
        protocol = environ.get(
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
            environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        )
        name = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}.get(protocol, name)
    found = importlib.metadata.entry_points(group="opentelemetry_traces_exporter", name=name)
    for entry in found:
        return entry.load()()
    raise ConfigurationError(
        f"OTEL_TRACES_EXPORTER: nothing that is installed exports to {name!r}; there are "
        "otlp (pip install 'headrace[otel]'), console and none"
    )
