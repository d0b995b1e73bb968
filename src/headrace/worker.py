"""The worker: an application that handles what arrives on named channels of a channel layer.

Rules of this file:

- A message is fetched when the application asks for one, never ahead of that: what waits,
  waits in the channel layer, where another worker may take it.
- Each channel has one instance of the application. It begins with a message and stays for those
  that follow; where it fails, the next message begins another.
- What was fetched is handled, whatever becomes of the instance that it was meant for. Only a
  message whose own handling fails is gone, and the log says so.
- A stop ends the reading first. An instance hears of its end when it asks for a message:
  ``receive()`` raises StopConsumer.
"""

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import Iterable
from functools import partial
from typing import Any

from asgiref.compatibility import guarantee_single_callable

from .exceptions import ConfigurationError, LocalProtocolError, StopConsumer
from .layers import BaseChannelLayer
from .layers.base import Event
from .middleware import ASGIApplication
from .server.running import new_event_loop

__all__ = ["Worker"]

logger = logging.getLogger("headrace.worker")

#: How long an application may take to end once it was cancelled.
_CANCELLED_S = 2.0
#: How long the reader of a channel waits after an error of the layer: at first, and at most.
_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0


class Worker:
    """Runs an application for the messages of named channels.

    The application is called with the scope ``{"type": "channel", "channel": name}``: a
    ``ProtocolTypeRouter`` whose key ``"channel"`` leads to a ``ChannelNameRouter``. A consumer
    behind it handles each message by the method that its type names.

    Args:
        application: An ASGI application.
        channels: The names to listen on.
        channel_layer: The layer that has them.
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
            raise ConfigurationError(
                "a worker needs a channel layer: configure one in CHANNEL_LAYERS"
            )
        self.application = application
        self.channels = list(dict.fromkeys(channels))
        self.channel_layer = channel_layer
        self.max_applications = max_applications
        self.shutdown_timeout_s = shutdown_timeout_s
        #: By channel, the one that was used least recently first.
        self._instances: dict[str, _Instance] = {}
        self._fetches: set[asyncio.Future[Event]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._stop_asked = False

    def run(self) -> None:
        """Work until SIGTERM, SIGINT or ``stop()``; a second signal ends it at once."""
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(self._run_for_signals())

    async def arun(self) -> None:
        """Work until ``stop()``. Cancelled, it cancels what is being handled.

        Raises TypeError for the name of a channel that the layer does not take.
        """
        check_name = getattr(self.channel_layer, "valid_channel_name", None)
        if check_name is not None:
            for channel in self.channels:
                check_name(channel)
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        if self._stop_asked:
            self._stopping.set()
        readers = {
            asyncio.create_task(self._read(channel), name=f"headrace worker {channel}")
            for channel in self.channels
        }
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            done, _ = await asyncio.wait({stopping, *readers}, return_when=asyncio.FIRST_COMPLETED)
            for reader in done & readers:
                reader.result()
            await asyncio.wait(readers, timeout=self.shutdown_timeout_s)
        finally:
            self._loop = None
            self._stop_asked = False
            await self._cut_off({stopping, *readers})

    def stop(self) -> None:
        """End when what was fetched has been handled; from any thread, before ``run()`` too."""
        self._stop_asked = True
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # it is closed: the worker has ended
                loop.call_soon_threadsafe(self._begin_stop)

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
            task.cancel()
        if not task.cancelled():
            task.result()

    def _begin_stop(self) -> None:
        self._stopping.set()
        for fetch in self._fetches:
            fetch.cancel()

    async def _cut_off(self, tasks: set[asyncio.Task[Any]]) -> None:
        """End what has not ended by itself."""
        for channel, instance in self._instances.items():
            if not instance.idle:
                logger.warning("channel %s: the application is cancelled at work", channel)
            instance.ending = True
        tasks |= {instance.task for instance in self._instances.values()}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=_CANCELLED_S)

    # One channel

    async def _read(self, channel: str) -> None:
        """Fetch the channel's messages, and have each one handled by the instance of the time."""
        message: Event | None = None
        while message is not None or (message := await self._fetch(channel)) is not None:
            instance = self._instances.get(channel)
            if instance is not None and instance.ending:
                await asyncio.wait({instance.task})
                instance = None
            if instance is None:
                instance = self._begin(channel)
            self._instances[channel] = self._instances.pop(channel)
            if await instance.handle(message):
                message = None
            elif instance.has_begun:
                pass  # It ended over something else: the message goes to another one.
            else:
                logger.error("channel %s: a message is lost: nothing has taken it", channel)
                message = None
        if (last := self._instances.get(channel)) is not None:
            last.end()
            await asyncio.wait({last.task})

    async def _fetch(self, channel: str) -> Event | None:
        """Return the next message; None when the worker stops."""
        pause_s = _PAUSE_S
        while not self._stopping.is_set():
            # A task of its own: a stop cancels the waiting, never a message that has come.
            fetch = asyncio.ensure_future(self.channel_layer.receive(channel))
            self._fetches.add(fetch)
            try:
                await asyncio.wait({fetch})
            finally:
                self._fetches.discard(fetch)
                fetch.cancel()
            if fetch.cancelled():
                continue
            error = fetch.exception()
            if error is None:
                message = fetch.result()
                if isinstance(message.get("type"), str):
                    return message
                logger.error("channel %s: dropped a message without a type", channel)
                continue
            logger.error(
                "channel %s: the channel layer can't be read; again in %g s",
                channel,
                pause_s,
                exc_info=error,
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        return None

    def _begin(self, channel: str) -> "_Instance":
        """Begin an instance for this channel, and end idle ones that are too many now."""
        present = [instance for instance in self._instances.values() if not instance.ending]
        surplus = len(present) + 1 - self.max_applications
        idle = [instance for instance in present if instance.idle]
        for instance in idle[: max(surplus, 0)]:
            instance.end()
        instance = self._instances[channel] = _Instance(self.application, channel)
        instance.task.add_done_callback(partial(self._ended, channel, instance))
        return instance

    def _ended(self, channel: str, instance: "_Instance", task: asyncio.Task[None]) -> None:
        del self._instances[channel]
        instance.ready.set()
        if task.cancelled():
            if not instance.ending:
                logger.error("channel %s: the application was cancelled", channel)
        elif (error := task.exception()) is not None and not isinstance(error, StopConsumer):
            logger.error(
                "channel %s: the application raised %s",
                channel,
                type(error).__name__,
                exc_info=error,
            )


class _Instance:
    """One run of the application, for one channel."""

    def __init__(self, application: ASGIApplication, channel: str) -> None:
        self._channel = channel
        #: At most one message; then None, for the end.
        self._messages: asyncio.Queue[Event | None] = asyncio.Queue()
        #: Set when the application waits for a message, or has ended.
        self.ready = asyncio.Event()
        #: Whether it has taken a message.
        self.has_begun = False
        #: Whether it gets no more messages.
        self.ending = False
        self.task = asyncio.create_task(self._run(application), name=f"headrace {channel}")

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

    async def _run(self, application: ASGIApplication) -> None:
        scope = {"type": "channel", "channel": self._channel}
        await guarantee_single_callable(application)(scope, self._receive, self._send)  # type: ignore[no-untyped-call]

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

    async def _send(self, message: Event) -> None:
        raise LocalProtocolError(
            f"cannot send {message.get('type')!r}: a worker has no client; "
            "send to a channel or group of the channel layer"
        )
