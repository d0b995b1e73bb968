"""Consumers: an application that is a class, with a method for each type of event.

Rules of this file:

- A consumer handles one event at a time, in the order in which they came, from the client
  or the channel layer; a handler that is ``@concurrent`` runs beside the others.
- However the consumer ends, its channel and its memberships end with it.
- What a handler raises goes to ``on_error``, once. What that does not settle ends the consumer.
- That the client is gone is no error of the application: a handler which fails because its
  ``send`` met that is given up, and what else had arrived is handled, the disconnect last.
- The classes of applications are made below these, with private names of their own: ours begin
  with ``_hr_``, here and in ``generic``.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Mapping
from enum import Enum, auto
from functools import lru_cache, update_wrapper
from inspect import iscoroutinefunction, isfunction
from typing import Any, ClassVar, ParamSpec, TypeVar

from asgiref.sync import ThreadSensitiveContext, async_to_sync, markcoroutinefunction

from ._concurrent import Beside, concurrent, limits_of
from ._lane import DISCONNECTS, HandledSink, Lane, OwnInbox, Receive, Send, lane_of
from ._timing import QUICK_S, Times, failed, perf_counter
from .db import (
    aclose_old_connections,
    cleanup_due,
    track_database_use,
)
from .exceptions import CloseCode, StopConsumer
from .layers import DEFAULT_CHANNEL_LAYER, BaseChannelLayer, get_channel_layer
from .layers.accounts import waits
from .layers.base import Bounds, Event, Overflow, is_client_event
from .middleware import MEMBERSHIP
from .telemetry import when_installed
from .threads import run_in_connection_thread, thread_context

__all__ = ["AsyncConsumer", "Overflow", "SyncConsumer", "concurrent", "get_handler_name"]

P = ParamSpec("P")
R = TypeVar("R")

logger = logging.getLogger("headrace.consumer")

#: For a channel layer that does not say.
_DEFAULT_CAPACITY = 100
#: Stands for the message while there is none: the consumer has begun, and waits.
_BETWEEN_EVENTS: Event = {}


@lru_cache(maxsize=1024)
def _handler_name(type_: str) -> str:
    name = type_.replace(".", "_")
    if name.startswith("_"):
        # The words before the colon are those of Channels, which people search for.
        raise ValueError(
            f"Malformed type in message (leading underscore): {type_!r} would call a private method"
        )
    return name


def get_handler_name(message: Event) -> str:
    """Return the name of the method that handles this message: dots become underscores.

    Raises ValueError for a message without a type, or with one that begins with an underscore.
    """
    try:
        type_ = message["type"]
    except KeyError:
        raise ValueError("a message needs a 'type' that names its handler") from None
    return _handler_name(type_)


@lru_cache(maxsize=256)
def _bounds(capacity: int, overflow: str, consumer: str, hears_gaps: bool = False) -> Bounds:
    """Return the bounds of a consumer's class: one object for all its connections."""
    try:
        return Bounds(capacity, Overflow(overflow), consumer, hears_gaps)
    except ValueError:
        raise ValueError(
            f"{consumer}.overflow is one of {', '.join(map(repr, map(str, Overflow)))}, "
            f"not {overflow!r}"
        ) from None


def _check_capacity(capacity: object, consumer: str) -> None:
    if not isinstance(capacity, int) or isinstance(capacity, bool) or capacity < 1:
        raise ValueError(
            f"{consumer}.capacity is a number of events from 1, or None, not {capacity!r}"
        )


class _Verdict(Enum):
    """What is known of an error that was met once already."""

    #: ``send`` met that the client is gone.
    CLIENT_GONE = auto()
    #: It ends the consumer: ``on_error`` has let it pass.
    FATAL = auto()


class _Over(StopConsumer):
    """The disconnect was handled, and its handler did not end the consumer."""


class AsyncConsumer:
    """An ASGI application, one instance per connection, with a method per type of event.

    An event ``{"type": "chat.message", ...}`` is handled by ``async def chat_message(event)``.
    A handler ends the consumer by raising ``StopConsumer``.

    A channel-layer event whose type is an ASGI event for the client (``websocket.send``,
    ``websocket.close``) needs no handler and goes to the client; a consumer that defines
    such a handler gets the event instead.
    """

    channel_layer_alias = DEFAULT_CHANNEL_LAYER

    #: What happens to an event for a handler when ``capacity`` of them wait already.
    overflow: Overflow | str = Overflow.DROP_NEWEST
    #: Events for handlers that may wait. None: what the channel layer says for the channel.
    capacity: int | None = None

    scope: dict[str, Any]
    base_send: Send
    channel_layer: BaseChannelLayer | None = None
    channel_name: str
    channel_receive: Receive

    # For ``@concurrent``: the methods that handlers call, each with its handler; and, decided
    # when the class is made, the limits.
    _hr_handled_by: ClassVar[Mapping[str, str]] = {}
    _hr_limits: ClassVar[Mapping[str, int]] = {}

    # A class attribute unless it is needed: thousands of idle consumers pay for each one.
    _hr_beside: Beside | None = None

    # How long its handlers take, in all connections of the class.
    _hr_times: ClassVar[Times]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._hr_times = Times(cls)
        cls._hr_limits = limits_of(cls, cls._hr_handled_by)
        if isinstance(cls.overflow, str):
            _bounds(1, cls.overflow, cls.__name__)
        if isinstance(cls.capacity, int):
            _check_capacity(cls.capacity, cls.__name__)

    def __init__(self, *args: Any, **initkwargs: Any) -> None:
        # Positional arguments are what a subclass passes on of its own. ``as_asgi(name=value)``:
        # an argument stands for the class attribute of its name.
        del args
        for name, value in initkwargs.items():
            setattr(self, name, value)

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Run until a handler raises, ``StopConsumer`` or anything else."""
        self.scope = scope
        inbox = await self._hr_open(receive, send)
        lane = self._hr_lane
        beside = self._hr_beside
        track_database_use()
        # What a handler is at work on. An idle consumer keeps no event alive.
        message: Event | None = None
        began = 0.0
        try:
            if MEMBERSHIP in scope:
                await scope[MEMBERSHIP].join(self)
            while True:
                try:
                    while True:
                        began = 0.0
                        message = await lane
                        if message is waits.event:
                            waits.begun()
                        if cleanup_due():
                            await aclose_old_connections()
                        if beside is None or not await beside.take(message):
                            began = perf_counter()
                            await self.dispatch(message)
                            # Written out, for this is every message's way; and with one name for
                            # both times, for an idle consumer keeps what the names stand for.
                            began = perf_counter() - began
                            times = self._hr_times[message.get("type", "other")]
                            if began < QUICK_S:
                                times.counts[0] += 1
                                times.sum += began
                            else:
                                times.observe(began)
                            began = 0.0
                        message = _BETWEEN_EVENTS
                        if cleanup_due():
                            await aclose_old_connections()
                except StopConsumer:
                    if began:
                        self._hr_times.note(message, began)
                    raise
                except Exception as error:
                    if began:
                        self._hr_times.note(message, began)
                    if not await self._hr_survives(error, message):
                        raise
                    if _is_disconnect(message):
                        raise StopConsumer from None
                    message = _BETWEEN_EVENTS
        except _Over:
            await self._hr_wind_up(inbox, None, CloseCode.NORMAL_CLOSURE)
        except StopConsumer:
            if beside is not None and message is _BETWEEN_EVENTS:
                # A worker's, which has no more messages: what has begun goes on to its end.
                await beside.finish()
            await self._hr_wind_up(inbox, message, CloseCode.NORMAL_CLOSURE)
            if beside is not None:
                beside.raise_failure()
        except asyncio.CancelledError:
            await self._hr_wind_up(inbox, message, CloseCode.GOING_AWAY)
            raise
        except Exception:
            try:
                await self._hr_wind_up(inbox, message, CloseCode.INTERNAL_ERROR)
            except asyncio.CancelledError:
                pass  # whoever cancels what ends is told why it ends
            except Exception:
                logger.exception("%s: its end failed too, after the error", type(self).__name__)
            raise
        finally:
            # Nothing here awaits: it has to work where the loop is gone as well.
            self._hr_leave(inbox)

    async def dispatch(self, message: Event) -> None:
        """Call the handler of this message; ValueError if there is none."""
        type_ = message.get("type")
        name = get_handler_name(message) if type_ is None else _handler_name(type_)
        handler = getattr(self, name, None)
        if handler is not None:
            await handler(message)
        elif is_client_event(message):
            await AsyncConsumer.send(self, message)
        else:
            raise self._hr_no_handler(message)

    async def _hr_dispatch(self, message: Event) -> None:
        """Call the handler, and time it, where that is not done in ``__call__``."""
        began = perf_counter()
        try:
            await self.dispatch(message)
        finally:
            self._hr_times.note(message, began)

    async def send(self, message: Event) -> None:
        """Send an ASGI event to the server; an OSError when the client is gone."""
        try:
            await self.base_send(message)
        except OSError as error:
            _judge(error, self, _Verdict.CLIENT_GONE)
            raise

    async def on_error(self, error: Exception, message: Event) -> None:
        """Settle what the handler of this message raised, or raise: by default, the error.

        When it returns, the connection goes on with its next message. What it raises ends the
        consumer: ``disconnect`` runs, the groups are left, and the client is closed with 1011.
        Two errors end it all the same: that of a ``connect`` or a ``handle`` after which
        the client still has no answer, and that of ``disconnect``, after which there is no
        connection. ``StopConsumer``, a cancellation, and that the client is gone are no errors.
        """
        del message
        raise error

    @classmethod
    def as_asgi(cls, **initkwargs: Any) -> Callable[..., Coroutine[Any, Any, Any]]:
        """Return an ASGI application that makes an instance for each connection."""

        # Not a coroutine function, but marked as one: each open connection would keep its
        # coroutine, 200 bytes that only forward.
        def app(scope: dict[str, Any], receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
            return cls(**initkwargs)(scope, receive, send)

        app.consumer_class = cls  # type: ignore[attr-defined]
        app.consumer_initkwargs = initkwargs  # type: ignore[attr-defined]
        update_wrapper(app, cls, updated=())
        return markcoroutinefunction(app)

    async def _hr_finish(self, code: int) -> None:
        """End as a disconnect would, where none will come; a class with a connection overrides."""

    async def _hr_open(self, receive: Receive, send: Send) -> OwnInbox | None:
        """Open the channel, and find out where events come from."""
        layer = self.channel_layer = get_channel_layer(self.channel_layer_alias)
        capacity = _DEFAULT_CAPACITY
        # Another's layer need not be a subclass of ours: it has what Channels asks for.
        pushes = getattr(layer, "pushes", False) is True
        if layer is not None:
            self.channel_name = await layer.new_channel()
            if isinstance(layer, BaseChannelLayer):
                capacity = layer.get_capacity(self.channel_name)
        if self.capacity is not None:
            capacity = self.capacity
            _check_capacity(capacity, type(self).__name__)
        hears_gaps = hasattr(self, "layer_gap")
        bounds = _bounds(capacity, self.overflow, type(self).__name__, hears_gaps)
        handled = hasattr(self, "websocket_send") or hasattr(self, "websocket_close")
        inbox: OwnInbox | None = None
        lane = lane_of(self.scope, receive, send)
        if lane is None or (layer is not None and not pushes):
            lane = inbox = OwnInbox(self.scope, receive, send, bounds, bypass=not handled)
            receive, send = inbox.receive, inbox.send
        else:
            lane.bounds = bounds
        self.channel_receive = receive
        self.base_send = send
        if self._hr_limits:
            self._hr_beside = Beside(
                self._hr_limits, self._hr_dispatch, self._hr_survives, lane, type(self).__name__
            )
        if layer is not None:
            if pushes:
                layer.attach(self.channel_name, HandledSink(lane) if handled else lane)
            elif inbox is not None:
                inbox.pull(layer.receive, self.channel_name)
        return inbox

    @property
    def _hr_lane(self) -> Lane:
        """The connection, which its ``receive`` keeps: an idle consumer pays for each attribute."""
        lane: Lane = self.channel_receive.__self__  # type: ignore[attr-defined]
        return lane

    def _hr_leave(self, inbox: OwnInbox | None) -> None:
        """Give up the channel and everything that reads for it."""
        layer = self.channel_layer
        if layer is not None and getattr(layer, "pushes", False) is True:
            layer.detach(self.channel_name)
        if self._hr_beside is not None:
            self._hr_beside.abandon()
            del self._hr_beside  # it leads back here
        if inbox is not None:
            inbox.stop()

    def _hr_excuses(self, error: Exception) -> bool:
        """Tell whether the error says no more than that the client is gone."""
        if _verdict_on(error, self) is not _Verdict.CLIENT_GONE:
            return False
        logger.debug("%s: the client is gone: %s", type(self).__name__, error)
        return True

    async def _hr_survives(self, error: Exception, message: Event | None) -> bool:
        """Tell whether the consumer goes on after this error; where it is open, ask ``on_error``.

        Raises what that raises beside the error itself.
        """
        if self._hr_excuses(error):
            return True
        if _verdict_on(error, self) is _Verdict.FATAL:
            return False
        if message is None or message is _BETWEEN_EVENTS:
            # Not a handler's: there was no message.
            if isinstance(error, OSError) and self._hr_lane.told:
                raise _Over from None
            return False
        failed(self._hr_times, message)
        traceback = error.__traceback__
        try:
            await self._hr_ask(error, message)
            if self._hr_goes_on_after(message):
                return True
        except StopConsumer:
            raise
        except Exception as another:
            if another is not error and _verdict_on(another, self) is None:
                _judge(another, self, _Verdict.FATAL)
                raise
        # As if the question had not been asked.
        error.__traceback__ = traceback
        _judge(error, self, _Verdict.FATAL)
        return False

    async def _hr_ask(self, error: Exception, message: Event) -> None:
        await self.on_error(error, message)

    def _hr_goes_on_after(self, message: Event) -> bool:
        """Tell whether there is a connection to go on with, after a settled error."""
        return message.get("type") != "websocket.connect" or not self._hr_lane.connecting

    async def _hr_wind_up(self, inbox: OwnInbox | None, message: Event | None, code: int) -> None:
        """End what has begun, unless it was the disconnect that ended it."""
        beside = self._hr_beside
        try:
            try:
                if beside is not None:
                    await beside.stop()
            finally:
                interrupted = beside is not None and beside.interrupted
                if message is not None and (interrupted or not _is_disconnect(message)):
                    await self._hr_finish(code)
        except Exception as error:
            end = {"type": f"{self.scope['type']}.disconnect", "code": code}
            with contextlib.suppress(StopConsumer):
                if not await self._hr_survives(error, end):
                    raise
        finally:
            if MEMBERSHIP in self.scope:
                await self.scope[MEMBERSHIP].leave()
            if cleanup_due():
                await aclose_old_connections()
            if inbox is not None:
                await inbox.end(code)

    def _hr_no_handler(self, message: Event) -> ValueError:
        name = get_handler_name(message)
        return ValueError(
            f"{type(self).__name__} has no handler for messages of type {message['type']!r}: "
            f"define a method {name}(self, event)"
        )


AsyncConsumer._hr_times = Times(AsyncConsumer)  # noqa: SLF001 - ours


class SyncConsumer(AsyncConsumer):
    """A consumer whose handlers are ordinary functions; each call runs in a thread."""

    base_send: "_SendFromThread"  # type: ignore[assignment]

    # Made for the first handler. What else runs for this connection runs in the same context.
    _hr_thread_context: ThreadSensitiveContext | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls._hr_limits:
            raise TypeError(
                f"{cls.__name__} is a synchronous consumer, whose handlers run one at a time: "
                "@concurrent needs an asynchronous one"
            )
        for name, method in vars(cls).items():
            inherited = getattr(super(cls, cls), name, None)
            if (
                iscoroutinefunction(method)
                and isfunction(inherited)
                and not iscoroutinefunction(inherited)
            ):
                # No error: an application that has one of them does start elsewhere.
                logger.warning(
                    "%s.%s is an async def in a synchronous consumer, where nothing awaits it: "
                    "write def, or use an asynchronous consumer",
                    cls.__name__,
                    name,
                )

    async def dispatch(self, message: Event) -> None:
        """Call the handler of this message in a thread; ValueError if there is none."""
        handler = getattr(self, get_handler_name(message), None)
        if handler is not None:
            await self._hr_call_in_thread(handler, message)
        elif is_client_event(message):
            await self.base_send.awaitable(message)
        else:
            raise self._hr_no_handler(message)

    def send(self, message: Event) -> None:  # type: ignore[override]
        """Send an ASGI event to the server, from the handler's thread.

        Raises an OSError when the client is gone.
        """
        try:
            self.base_send(message)
        except OSError as error:
            _judge(error, self, _Verdict.CLIENT_GONE)
            raise

    def on_error(self, error: Exception, message: Event) -> None:  # type: ignore[override]
        """Settle what the handler of this message raised, or raise: by default, the error.

        See ``AsyncConsumer.on_error``. It runs in a thread, as the handlers do.
        """
        del message
        raise error

    async def _hr_open(self, receive: Receive, send: Send) -> OwnInbox | None:
        inbox = await super()._hr_open(receive, send)
        self.base_send = _SendFromThread(self.base_send)  # type: ignore[arg-type]
        return inbox

    async def _hr_ask(self, error: Exception, message: Event) -> None:
        await self._hr_call_in_thread(self.on_error, error, message)

    async def _hr_call_in_thread(
        self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        if self._hr_thread_context is None:
            self._hr_thread_context = thread_context()
        return await run_in_connection_thread(self._hr_thread_context, function, *args, **kwargs)


when_installed(lambda telemetry: telemetry.handlers(AsyncConsumer, SyncConsumer))


class _SendFromThread:
    """The server's ``send``, to be called from the thread of a handler."""

    __slots__ = ("awaitable",)

    def __init__(self, awaitable: Send) -> None:
        self.awaitable = awaitable

    def __call__(self, message: Event) -> None:
        async_to_sync(self.awaitable)(message)


def _is_disconnect(message: Event | None) -> bool:
    return message is not None and message.get("type") in DISCONNECTS


def _judge(error: Exception, consumer: AsyncConsumer, verdict: _Verdict) -> None:
    # The error itself remembers: several may be under way, and one may pass several places.
    error.__dict__["_headrace_verdict"] = consumer, verdict


def _verdict_on(error: Exception, consumer: AsyncConsumer) -> _Verdict | None:
    by, verdict = error.__dict__.get("_headrace_verdict", (None, None))
    return verdict if by is consumer else None
