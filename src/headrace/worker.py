"""The worker: an application that handles what arrives on named channels of a channel layer.

Rules of this file:

- A message is fetched when the application asks for one, never ahead of that: what waits,
  waits in the channel layer, where another worker may take it.
- Each channel has one instance of the application at a time. It begins with a message and stays
  for those that follow; where it ends or fails, the next message begins another.
- What was fetched is handled, whatever becomes of the instance that it was meant for. Only a
  message whose own handling fails is gone, and the log says so.
- A stop ends the fetching first. An instance hears of its end when it asks for a message:
  ``receive()`` raises StopConsumer.
"""

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from asgiref.compatibility import guarantee_single_callable

from .exceptions import ConfigurationError, StopConsumer
from .layers import BaseChannelLayer
from .layers.base import Event
from .middleware import ASGIApplication, Scope
from .server.running import new_event_loop

__all__ = ["Worker"]

logger = logging.getLogger("headrace.worker")

#: How long an application may take to end once it was cancelled.
_CANCELLED_S = 2.0
#: The pause after an error of the layer: at first, at most, and after how long without an error
#: it is as at first.
_PAUSE_S, _LONGEST_PAUSE_S, _CALM_S = 0.5, 30.0, 3.0


class Worker:
    """Runs an application for the messages of named channels.

    The application is called with the scope ``{"type": "channel", "channel": name}``: a
    ``ProtocolTypeRouter`` whose key ``"channel"`` leads to a ``ChannelNameRouter``. A consumer
    behind it handles each message by the method that its type names.

    Args:
        application: An ASGI application.
        channels: The names to listen on.
        channel_layer: The layer that has them; of another's, ``receive()`` is all it needs.
        max_applications: Beyond so many instances, idle ones are ended, those first that have
            been idle for longest.
        shutdown_timeout_s: How long a stop waits for what is being handled.
    """

    def __init__(
        self,
        application: ASGIApplication,
        channels: Iterable[str],
        channel_layer: BaseChannelLayer | None,
        max_applications: int = 1000,
        *,
        shutdown_timeout_s: float = 30.0,
    ) -> None:
        if channel_layer is None:
            raise ConfigurationError("Channel layer is not valid: configure one in CHANNEL_LAYERS")
        self.application = application
        self.channels = list(channels)
        self.channel_layer = channel_layer
        self.max_applications = max_applications
        self.shutdown_timeout_s = shutdown_timeout_s
        #: By channel, the one that was used least recently first.
        self._inputs: dict[str, _Input] = {}
        self._fetches: set[asyncio.Future[Event]] = set()
        self._may_fetch = True
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._stop_asked = False

    # Its life

    def run(self) -> None:
        """Work until SIGTERM, SIGINT or ``stop()``; a second signal ends it at once.

        It has an event loop of its own; where one is running already, ``await arun()``.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            raise RuntimeError("an event loop is running here: await arun() instead of run()")
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(self._run_for_signals())

    async def arun(self) -> None:
        """Work until ``stop()``. Cancelled, it cancels what is being handled.

        When the channel layer has failed it begins again, after a pause. Raises TypeError for
        a name that no channel of the layer can have.
        """
        layer: Any = self.channel_layer
        check_name: Any = getattr(layer, "require_valid_channel_name", None)
        if check_name is None:
            check_name = getattr(layer, "valid_channel_name", None)
        for channel in self.channels if check_name is not None else ():
            check_name(channel)
        pause_s = _PAUSE_S
        with self._reachable() as loop:
            while not self._stopping.is_set():
                began = loop.time()
                try:
                    return await self.handle()
                except Exception:
                    if loop.time() - began > _CALM_S:
                        pause_s = _PAUSE_S
                    logger.exception("the worker has failed: it begins again in %g s", pause_s)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        return None

    def stop(self) -> None:
        """End when what was fetched has been handled; from any thread, before ``run()`` too."""
        self._stop_asked = True
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # it is closed: the worker has ended
                loop.call_soon_threadsafe(self._stopping.set)

    async def handle(self) -> None:
        """Listen on all channels until ``stop()``, or until a listener fails: that error is raised.

        Either way, what has been fetched is handled first. Cancelled, it cancels that.
        """
        with self._reachable():
            self._may_fetch = True
            stopping = asyncio.create_task(self._stopping.wait())
            # Each channel once: its instance handles one message at a time.
            listeners = {
                asyncio.create_task(self.listener(channel), name=f"headrace worker {channel}")
                for channel in dict.fromkeys(self.channels)
            }
            try:
                listening, ended = set(listeners), set[asyncio.Task[Any]]()
                while listening and not stopping.done() and not _failed(ended):
                    ended, _ = await asyncio.wait(
                        {stopping, *listening}, return_when=asyncio.FIRST_COMPLETED
                    )
                    listening -= ended
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.shutdown_timeout_s):
                        await self._wind_up(listeners)
                for listener in _failed(listeners):
                    listener.result()
            finally:
                await self._cut_off({stopping, *listeners})

    @contextlib.contextmanager
    def _reachable(self) -> Iterator[asyncio.AbstractEventLoop]:
        """Let ``stop()`` reach the event loop that is running here."""
        if self._loop is not None:
            yield self._loop
            return
        loop = self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        if self._stop_asked:
            self._stopping.set()
        try:
            yield loop
        finally:
            self._loop = None
            self._stop_asked = False

    async def _run_for_signals(self) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(self.arun())

        def signalled(number: int) -> None:
            name = signal.Signals(number).name
            if self._stop_asked:
                logger.warning("%s again: ending at once", name)
                task.cancel()
            else:
                logger.info("%s: stopping; once more ends it at once", name)
                self.stop()

        in_main_thread = threading.current_thread() is threading.main_thread()
        signals = (signal.SIGTERM, signal.SIGINT) if in_main_thread else ()
        for number in signals:
            loop.add_signal_handler(number, signalled, number)
        try:
            await asyncio.wait({task})
        finally:
            for number in signals:
                loop.remove_signal_handler(number)
        if not task.cancelled():
            task.result()

    async def _wind_up(self, listeners: set[asyncio.Task[None]]) -> None:
        """Fetch nothing more, and wait until all that was fetched is handled."""
        self._may_fetch = False
        for fetch in self._fetches:
            fetch.cancel()
        if listeners:
            await asyncio.wait(listeners)
        instances = self._instances()
        for instance in instances:
            instance.end()
        if instances:
            await asyncio.wait({instance.task for instance in instances})

    async def _cut_off(self, tasks: set[asyncio.Task[Any]]) -> None:
        """End what has not ended by itself."""
        for instance in self._instances():
            if not instance.idle:
                logger.warning("%s: the application is cancelled at work", instance.name)
            instance.ending = True
            tasks.add(instance.task)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=_CANCELLED_S)
        self._inputs.clear()

    # Messages

    async def listener(self, channel: str) -> None:
        """Fetch one channel's messages, and have each one handled before the next is fetched.

        Raises what the channel layer raises, and ValueError for a message without a type.
        """
        while (message := await self._fetch(channel)) is not None:
            if not message.get("type"):
                raise ValueError(f"Worker received message with no type. Its channel: {channel}")
            scope = {"type": "channel", "channel": channel}
            await self.get_or_create_application_instance(channel, scope).put(message)

    async def _fetch(self, channel: str) -> Event | None:
        """Return the next message; None when no more are fetched."""
        while self._may_fetch:
            # A task of its own: a stop cancels the waiting, never a message that has come.
            fetch = asyncio.ensure_future(self.channel_layer.receive(channel))
            self._fetches.add(fetch)
            try:
                await asyncio.wait({fetch})
            finally:
                self._fetches.discard(fetch)
                fetch.cancel()
            if not fetch.cancelled():
                return fetch.result()
        return None

    # Instances

    def get_or_create_application_instance(self, scope_id: str, scope: Scope) -> "_Input":
        """Return what takes the messages for this scope: ``await put(message)``.

        It waits until the message was handled, by an instance of the application that there is
        or by a new one.
        """
        found = self._inputs.pop(scope_id, None) or _Input(self, scope_id, scope)
        self._inputs[scope_id] = found
        return found

    async def application_send(self, scope: Scope, message: Event) -> None:
        """Take what an application sends; there is no client, so that it is a mistake."""
        raise NotImplementedError(
            f"channel {scope.get('channel')}: cannot send {message.get('type')!r}: a worker has no "
            "client; send to a channel or group of the channel layer"
        )

    async def application_exception(
        self, exception: Exception, application_details: dict[str, Any]
    ) -> None:
        """Log what an application has raised; ``application_details`` has its ``scope``."""
        logger.error(
            "channel %s: the application raised %s",
            application_details["scope"].get("channel"),
            type(exception).__name__,
            exc_info=exception,
        )

    def _instances(self) -> "list[_Instance]":
        return [found.instance for found in self._inputs.values() if found.instance is not None]

    def make_room(self) -> None:
        """End idle instances that are too many when another one begins."""
        present = [instance for instance in self._instances() if not instance.ending]
        surplus = len(present) + 1 - self.max_applications
        for instance in [instance for instance in present if instance.idle][: max(surplus, 0)]:
            instance.end()


def _failed(tasks: Iterable[asyncio.Task[Any]]) -> list[asyncio.Task[Any]]:
    return [
        task
        for task in tasks
        if task.done() and not task.cancelled() and task.exception() is not None
    ]


class _Input:
    """What takes the messages of one channel to the instance of the time."""

    def __init__(self, worker: Worker, name: str, scope: Scope) -> None:
        self._worker = worker
        self._name = f"channel {name}"
        self._scope = scope
        self.instance: _Instance | None = None

    async def put(self, message: Event) -> None:
        """Wait until the message has been handled."""
        while True:
            instance = self.instance
            if instance is None:
                self._worker.make_room()
                instance = self.instance = _Instance(self._worker, self._name, self._scope)
                instance.task.add_done_callback(self._ended)
            elif instance.ending:
                await asyncio.wait({instance.task})
                continue
            if await instance.handle(message):
                return
            # It ended over something else. Who took earlier messages could have taken this one.
            if not instance.has_begun:
                logger.error("%s: a message is lost: nothing has taken it", self._name)
                return

    def _ended(self, task: asyncio.Task[None]) -> None:
        instance, self.instance = self.instance, None
        assert instance is not None
        if task.cancelled() and not instance.ending:
            logger.error("%s: the application was cancelled", self._name)
        instance.ready.set()


class _Instance:
    """One run of the application."""

    def __init__(self, worker: Worker, name: str, scope: Scope) -> None:
        self.name = name
        #: At most one message; then None, for the end.
        self._messages: asyncio.Queue[Event | None] = asyncio.Queue()
        #: Set when the application waits for a message, or has ended.
        self.ready = asyncio.Event()
        #: Whether it has taken a message.
        self.has_begun = False
        #: Whether it gets no more messages.
        self.ending = False
        self.task = asyncio.create_task(self._run(worker, scope), name=f"headrace {name}")

    @property
    def idle(self) -> bool:
        """Whether the application waits for a message."""
        return self.ready.is_set() and self._messages.empty()

    async def handle(self, message: Event) -> bool:
        """Wait until the application has handled the message; False if it never took it."""
        self.ready.clear()
        self._messages.put_nowait(message)
        await self.ready.wait()
        return self._messages.empty()

    def end(self) -> None:
        """Tell the application, when it asks for a message, that there is no more."""
        if not self.ending:
            self.ending = True
            self._messages.put_nowait(None)

    async def _run(self, worker: Worker, scope: Scope) -> None:
        async def send(message: Event) -> None:
            await worker.application_send(scope, message)

        application = guarantee_single_callable(worker.application)  # type: ignore[no-untyped-call]
        try:
            await application(scope, self._receive, send)
        except StopConsumer:
            pass
        except Exception as error:
            await worker.application_exception(error, {"scope": scope})

    async def _receive(self) -> Event:
        messages = self._messages
        if messages.empty():
            self.ready.set()
        message = await messages.get()
        if message is None:
            messages.put_nowait(None)
            raise StopConsumer
        self.has_begun = True
        return message
