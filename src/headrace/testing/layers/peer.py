"""A second process for the suite: it has a layer, and does with it what it is asked.

Rules of this file:

- Requests and answers are pickled pairs on the pipes of the child's standard input and output.
  Both ends are one test run: nobody else can write there.
- The child ends when its input does, so that none is left behind whatever became of its parent.
- A child that ends fails what is asked of it, at once.
"""

import asyncio
import atexit
import concurrent.futures
import contextlib
import inspect
import itertools
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from ...layers.base import Event
from .sink import RecordingSink

__all__ = ["OtherLayer", "OtherProcess", "main", "serve"]

_CODE = f"from {__name__} import main; main()"


class OtherProcess:
    """The child, as its parent sees it. Any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, concurrent.futures.Future[Any]] = {}
        self._child = subprocess.Popen(  # noqa: S603 - this Python, and code of ours
            [sys.executable, "-c", _CODE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # What this process can import the other can.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._requests: Any = self._child.stdin
        self._reading = threading.Thread(target=self._read, args=(self._child.stdout,), daemon=True)
        self._reading.start()
        atexit.register(self.stop)

    @property
    def ended(self) -> bool:
        """Whether there is no such process any more."""
        return self._child.poll() is not None

    def ask(self, *request: Any) -> "concurrent.futures.Future[Any]":
        """Send a request; the answer comes to the future."""
        number = next(self._numbers)
        answer: concurrent.futures.Future[Any] = concurrent.futures.Future()
        # Twice, so that what can't be read there has a number to be answered with.
        data = pickle.dumps((number, pickle.dumps(request)))
        with self._lock:
            self._waiting[number] = answer
            try:
                self._requests.write(data)
                self._requests.flush()
            except (OSError, ValueError):  # it has ended, or is stopped
                del self._waiting[number]
                answer.set_exception(ProcessLookupError("the other process has ended"))
        return answer

    def kill(self) -> None:
        """End it by SIGKILL, and wait until it is gone."""
        self._child.kill()
        self.stop()

    def stop(self) -> None:
        """Let it end, and wait until it has."""
        atexit.unregister(self.stop)
        with contextlib.suppress(OSError):  # something was left to write, and nobody reads it
            self._requests.close()
        try:
            self._child.wait(5)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._reading.join()
        assert self._child.stdout is not None
        self._child.stdout.close()

    def _read(self, answers: BinaryIO) -> None:
        try:
            while True:
                number, error, value = pickle.load(answers)  # noqa: S301 - our own child
                with self._lock:
                    answer = self._waiting.pop(number)
                # Whoever waited may have given up.
                if answer.set_running_or_notify_cancel():
                    if error is None:
                        answer.set_result(value)
                    else:
                        answer.set_exception(error)
        except (EOFError, pickle.UnpicklingError, OSError):
            pass
        with self._lock:
            waiting = list(self._waiting.values())
            self._waiting.clear()
        for answer in waiting:
            if answer.set_running_or_notify_cancel():
                answer.set_exception(ProcessLookupError("the other process has ended"))


class OtherLayer:
    """The layer of another process: each call is made there, and answered here."""

    def __init__(self, process: OtherProcess, patience_s: float, *, stops: bool = False) -> None:
        self.process = process
        self._patience_s = patience_s
        self._stops = stops  # the process has no other use

    async def begin(self, make: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
        """Make the layer there. A process that has just started takes its time."""
        await self._ask("begin", make, dict(arguments), more_s=30)

    async def end(self) -> None:
        """Close the layer, if the process is still there."""
        if not self.process.ended:
            await self._ask("end")
        if self._stops:
            self.process.stop()

    async def call(self, method: str, *arguments: Any) -> Any:
        """Await this method of the layer."""
        return await self._ask("call", method, *arguments)

    def start(self, method: str, *arguments: Any) -> "asyncio.Future[Any]":
        """Do the same, and wait for the answer later, however long it takes."""
        return asyncio.wrap_future(self.process.ask("call", method, *arguments))

    async def call_sync(self, method: str, *arguments: Any) -> Any:
        """Call this method of the layer, on a thread without an event loop."""
        return await self._ask("call_sync", method, *arguments)

    async def send_many(self, method: str, name: str, type_: str, count: int) -> None:
        """Send messages with the numbers from 0 there, one after the other."""
        await self._ask("send_many", method, name, type_, count)

    async def attach(self, channel: str) -> None:
        """Attach a ``RecordingSink`` there."""
        await self._ask("attach", channel)

    async def heard(self, channel: str, events: int, transmitted: int = 0) -> tuple[Any, Any]:
        """Wait until the sink has got so many; return its events, and those for the client."""
        heard: tuple[Any, Any] = await self._ask(
            "heard", channel, events, transmitted, self._patience_s, more_s=1
        )
        return heard

    async def _ask(self, *request: Any, more_s: float = 0) -> Any:
        async with asyncio.timeout(self._patience_s + more_s):
            return await asyncio.wrap_future(self.process.ask(*request))


class _Peer:
    """What the child does."""

    def __init__(self) -> None:
        self.layer: Any = None
        self.sinks: dict[str, RecordingSink] = {}

    async def begin(self, make: Callable[..., Any], arguments: dict[str, Any]) -> None:
        layer = make(**arguments)
        self.layer = await layer if inspect.isawaitable(layer) else layer

    async def end(self) -> None:
        layer, self.layer = self.layer, None
        self.sinks.clear()
        if layer is not None:
            await layer.close()

    async def call(self, method: str, *arguments: Any) -> Any:
        return await getattr(self.layer, method)(*arguments)

    async def call_sync(self, method: str, *arguments: Any) -> Any:
        return await asyncio.to_thread(getattr(self.layer, method), *arguments)

    async def send_many(self, method: str, name: str, type_: str, count: int) -> None:
        for number in range(count):
            await getattr(self.layer, method)(name, {"type": type_, "number": number})

    async def attach(self, channel: str) -> None:
        sink = self.sinks[channel] = RecordingSink()
        self.layer.attach(channel, sink)

    async def heard(
        self, channel: str, events: int, transmitted: int, patience_s: float
    ) -> tuple[list[Event], list[Event]]:
        sink = self.sinks[channel]
        with contextlib.suppress(TimeoutError):  # what is missing the test will find
            await sink.until(
                lambda: len(sink.events) >= events and len(sink.transmitted) >= transmitted,
                patience_s=patience_s,
            )
        return sink.events, [event for event, _ in sink.transmitted]


async def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Do what is asked, each request as a task, until there will be no more."""
    peer = _Peer()
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    tasks: set[asyncio.Task[None]] = set()

    async def answer(number: int, request: bytes) -> None:
        error: Exception | None = None
        value = None
        try:
            name, *arguments = pickle.loads(request)  # noqa: S301 - from our parent
            value = await getattr(peer, name)(*arguments)
        except Exception as raised:
            error = raised
        answers.write(_pickled(number, error, value))
        answers.flush()

    def start(number: int, request: bytes) -> None:
        task = loop.create_task(answer(number, request))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def read() -> None:
        try:
            while True:
                number, request = pickle.load(requests)  # noqa: S301 - as above
                loop.call_soon_threadsafe(start, number, request)
        except EOFError:
            loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=read, daemon=True).start()
    await ended.wait()
    for task in tasks:
        task.cancel()
    await peer.end()


def _pickled(number: int, error: Exception | None, value: Any) -> bytes:
    try:
        data = pickle.dumps((number, error, value))
        pickle.loads(data)  # noqa: S301 - there are errors that come apart only then
    except Exception:
        return pickle.dumps((number, RuntimeError(f"{error!r} {value!r:.200}"), None))
    return data


def main() -> None:
    """Be the other process."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # What else is printed is for those who read the log of the tests.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    asyncio.run(serve(sys.stdin.buffer, answers))
