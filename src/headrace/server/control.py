"""The control link: what a server is asked while it runs, and by whom.

Rules of this file:

- A frame is four bytes of length, big-endian, and a map in MessagePack. A request is
  ``{"id": n, "do": name, ...arguments}``; its answer ``{"id": n, "ok": {...}}`` or
  ``{"id": n, "error": sentence}``. A frame without an id is a notice, and has no answer.
- One link serves a supervisor and its worker (over a socket pair) as it serves a server and
  ``headrace top`` (over a Unix socket). Either end may ask.
- Only processes of the same user get in: the directory is theirs alone, and the kernel says who
  is at the other end. Nothing that arrives is evaluated, and no frame is larger than the limit.
- Whoever waits for an answer hears of the end of the link as a ControlError.
"""

import asyncio
import contextlib
import errno
import itertools
import logging
import os
import socket
import stat
import struct
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import msgspec

from .. import private
from ..exceptions import ConfigurationError, ControlError

__all__ = [
    "ENVIRONMENT",
    "BlockingClient",
    "ControlServer",
    "Frames",
    "Link",
    "connect",
    "encode",
    "find",
    "runtime_directory",
    "servers",
]

logger = logging.getLogger("headrace.server")

#: Where the application of a server finds the path of its server's control socket.
ENVIRONMENT = "HEADRACE_CONTROL"

#: The largest frame. A list of all of 100,000 connections has room in it.
FRAME_BYTES = 64 * 1024 * 1024
#: How long an answer may take, unless whoever asks knows better.
TIMEOUT_S = 10.0

_LENGTH = struct.Struct("!I")
_decode = msgspec.msgpack.Decoder(dict[str, Any]).decode

Message = dict[str, Any]
#: Answers a request: its name, its arguments. A ControlError becomes the answer's error.
Handler = Callable[[str, Message], Awaitable[Mapping[str, Any]]]
#: Hears a notice.
Notice = Callable[[Message], object]


def encode(message: Mapping[str, Any]) -> bytes:
    """Return the frame of a message."""
    body = msgspec.msgpack.encode(message)
    return _LENGTH.pack(len(body)) + body


class Frames:
    """Cuts a stream of bytes into messages.

    Raises ControlError for what is none; the link is of no use then.
    """

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """Take bytes; return the messages that they complete."""
        buffer = self._data
        buffer += data
        messages, at = [], 0
        while len(buffer) - at >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer, at)
            if length > FRAME_BYTES:
                raise ControlError(f"a frame of {length} bytes: {FRAME_BYTES} are the most")
            end = at + _LENGTH.size + length
            if len(buffer) < end:
                break
            try:
                messages.append(_decode(bytes(buffer[at + _LENGTH.size : end])))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise ControlError(f"a frame is no map in MessagePack: {error}") from None
            at = end
        del buffer[:at]
        return messages


class Link(asyncio.Protocol):
    """One end of a control link, on the running loop.

    Args:
        handler: Answers what the other end asks; None: nothing can be asked here.
        on_notice: Called with each notice.
        on_lost: Called once, when the link has ended.
    """

    def __init__(
        self,
        handler: Handler | None = None,
        *,
        on_notice: Notice | None = None,
        on_lost: Callable[[], object] | None = None,
    ) -> None:
        self._handler = handler
        self._on_notice = on_notice
        self._on_lost = on_lost
        self._frames = Frames()
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def over(
        cls,
        sock: socket.socket,
        handler: Handler | None = None,
        *,
        on_notice: Notice | None = None,
        on_lost: Callable[[], object] | None = None,
    ) -> Self:
        """Return a link over one socket of a pair, which is the link's from now on."""
        sock.setblocking(False)
        link = cls(handler, on_notice=on_notice, on_lost=on_lost)
        await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=sock)
        return link

    @property
    def is_open(self) -> bool:
        """Whether the other end can still be reached."""
        return self._transport is not None and not self._transport.is_closing()

    async def ask(self, do: str, *, timeout_s: float = TIMEOUT_S, **arguments: Any) -> Message:
        """Send a request; return what its answer holds.

        Raises ControlError where the other end says no, does not answer in time, or is gone.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            raise ControlError(f"{do}: the server is gone")
        number = next(self._ids)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        transport.write(encode({**arguments, "id": number, "do": do}))
        try:
            async with asyncio.timeout(timeout_s):
                result: Message = await answer
                return result
        except TimeoutError:
            raise ControlError(f"{do}: no answer in {timeout_s:g} s") from None
        finally:
            del self._waiting[number]

    def tell(self, **notice: Any) -> None:
        """Send a notice; nothing is sent where the link has ended."""
        if self.is_open:
            assert self._transport is not None
            self._transport.write(encode(notice))

    def close(self) -> None:
        """End the link when what was written has left."""
        if self._transport is not None:
            self._transport.close()

    # From the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take bytes from the other end."""
        try:
            messages = self._frames.feed(data)
        except ControlError as error:
            logger.warning("the control link is closed: %s", error)
            assert self._transport is not None
            self._transport.abort()
            return
        for message in messages:
            self._take(message)

    def connection_lost(self, error: Exception | None) -> None:
        """Learn that the link has ended."""
        del error
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(ControlError("the server has ended before it answered"))
        for task in self._tasks:
            task.cancel()
        if self._on_lost is not None:
            self._on_lost()

    def _take(self, message: Message) -> None:
        number = message.get("id")
        if number is None:
            if self._on_notice is not None:
                self._on_notice(message)
        elif "do" in message:
            task = asyncio.get_running_loop().create_task(self._answer(message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            answer = self._waiting.get(number)
            if answer is None or answer.done():
                return  # whoever asked has given up
            if "error" in message:
                answer.set_exception(ControlError(str(message["error"])))
            else:
                answer.set_result(message.get("ok") or {})

    async def _answer(self, message: Message) -> None:
        number, do = message.pop("id"), message.pop("do")
        answer: Message
        try:
            if self._handler is None or not isinstance(do, str):
                raise ControlError(f"nobody here does {do!r:.50}")
            answer = {"id": number, "ok": await self._handler(do, message)}
            data = encode(answer)
        except ControlError as error:
            data = encode({"id": number, "error": str(error)})
        except Exception as error:
            logger.exception("the control request %r has failed", do)
            text = f"{do} has failed: {type(error).__name__}: {error}"
            data = encode({"id": number, "error": text})
        if self.is_open:
            assert self._transport is not None
            self._transport.write(data)


class ControlServer:
    """The Unix socket on which a server answers.

    The file is its owner's alone. One that a killed server has left behind is replaced, one at
    which a server still answers is not: that raises ConfigurationError, as does a path that
    can't be had.

    Args:
        path: Where; None: a file in ``runtime_directory()`` that is named after this process.
        handler: Answers the requests.
    """

    def __init__(self, path: str | None, handler: Handler) -> None:
        self._handler = handler
        self._links: set[Link] = set()
        self._server: asyncio.Server | None = None
        in_directory = path is None
        if path is None:
            path = str(runtime_directory() / f"{os.getpid()}.sock")
        #: Where clients find it.
        self.path = os.path.abspath(path)
        if in_directory:
            _remove_stale(Path(self.path).parent)
        self._socket, self._inode = _bind(self.path)
        logger.debug("the control socket is %s", self.path)

    @classmethod
    def open(cls, path: str | None, handler: Handler) -> "ControlServer | None":
        """Return one; None, and a line of the log, where nobody asked for it and it can't be."""
        try:
            return cls(path, handler)
        except ConfigurationError as error:
            if path is not None:
                raise
            logger.warning("%s; until then nobody can ask this server what it does", error)
            return None

    async def start(self) -> None:
        """Answer from now on."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(self._connected, sock=self._socket)

    def close(self) -> None:
        """Answer no more, and remove the file if it is still ours."""
        if self._server is not None:
            self._server.close()
        self._socket.close()
        for link in list(self._links):
            link.close()
        with contextlib.suppress(FileNotFoundError):
            if os.stat(self.path).st_ino == self._inode:
                os.unlink(self.path)

    def _connected(self) -> "_Visitor":
        return _Visitor(self._handler, self._links)


class _Visitor(Link):
    """The server's end of a link that somebody has opened."""

    def __init__(self, handler: Handler, links: set[Link]) -> None:
        super().__init__(handler)
        self._links = links

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        try:
            # Root may ask everybody.
            private.require_same_user(transport.get_extra_info("socket"), also=(0,))
        except PermissionError as error:
            logger.warning("the control socket let nobody in: %s", error)
            cast("asyncio.Transport", transport).abort()
            return
        self._links.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._links.discard(self)
        super().connection_lost(error)


async def connect(path: str | None = None) -> Link:
    """Return a link to a server: the one at this path, else the one that ``find`` finds.

    Raises ControlError where nobody answers there.
    """
    path = find() if path is None else path
    try:
        link = Link()
        await asyncio.get_running_loop().create_unix_connection(lambda: link, path)
    except OSError as error:
        raise _nobody(path, error) from None
    return link


class BlockingClient:
    """Asks a server from a program without an event loop; one request at a time.

    ::

        with BlockingClient() as server:
            print(server.ask("snapshot"))

    Raises ControlError where nobody answers.
    """

    def __init__(self, path: str | None = None, *, timeout_s: float = TIMEOUT_S) -> None:
        #: The server's control socket.
        self.path = find() if path is None else path
        self._frames = Frames()
        self._ids = itertools.count(1)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(self.path)
        except OSError as error:
            self._socket.close()
            raise _nobody(self.path, error) from None

    def ask(self, do: str, **arguments: Any) -> Message:
        """Send a request; return what its answer holds."""
        number = next(self._ids)
        try:
            self._socket.sendall(encode({**arguments, "id": number, "do": do}))
            while data := self._socket.recv(1 << 16):
                for message in self._frames.feed(data):
                    if message.get("id") != number:
                        continue  # the late answer to a question that was given up
                    if "error" in message:
                        raise ControlError(str(message["error"]))
                    answer: Message = message.get("ok") or {}
                    return answer
        except TimeoutError:
            raise ControlError(f"{do}: no answer in {self._socket.gettimeout():g} s") from None
        except OSError as error:
            raise ControlError(f"{do}: the server is gone: {error}") from None
        raise ControlError(f"{do}: the server has ended before it answered")

    def close(self) -> None:
        """Let go of it."""
        self._socket.close()

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()


# Where servers are


def runtime_directory() -> Path:
    """Return the private directory with the control sockets of this user's servers; make it.

    Raises ConfigurationError where what is there under its name is not private.
    """
    path = private.user_folder() / "servers"
    for each in (path.parent, path):
        try:
            private.make(each)
        except (OSError, private.NotPrivate) as error:
            reason = str(error)
            if isinstance(error, OSError):
                reason = f"can't be made: {(error.strerror or reason).lower()}"
            raise ConfigurationError(
                f"directory {each} {reason}: control sockets need one of their own, with mode "
                "0700; remove it, or name a path elsewhere with --control-socket"
            ) from None
    return path


def servers() -> list[str]:
    """Return the control sockets of this user's servers that answer."""
    return sorted(
        str(path) for path in runtime_directory().glob("*.sock") if _answers(str(path)) is True
    )


def find() -> str:
    """Return the control socket of the server that is meant where nobody says which.

    That is the server whose application this is, else the only one of this user. Raises
    ControlError, with what to do, where there is none or more than one.
    """
    if path := os.environ.get(ENVIRONMENT):
        return path
    found = servers()
    if len(found) == 1:
        return found[0]
    if found:
        raise ControlError(
            f"several servers run, name one with --control-socket: {', '.join(found)}"
        )
    raise ControlError(
        "no server of this user runs here; one with a control socket of its own is named by "
        "--control-socket PATH"
    )


def _bind(path: str) -> tuple[socket.socket, int]:
    """Return a listening socket at this path, and the inode of its file."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # It has its name when it answers: until then another server, which starts as well, would take
    # it for one that was left behind, and remove it.
    unready = f"{path}~"
    try:
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISSOCK(os.stat(path).st_mode):
                raise OSError(errno.EADDRINUSE, "there is a file that is no socket")
            if _answers(path) is not False:
                raise OSError(errno.EADDRINUSE, "a server answers there")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(unready)
        # The rights are those of the file from its first moment on.
        umask = os.umask(0o177)
        try:
            sock.bind(unready)
        finally:
            os.umask(umask)
        sock.listen(16)
        inode = os.stat(unready).st_ino
        os.rename(unready, path)
    except OSError as error:
        sock.close()
        raise ConfigurationError(
            f"cannot have the control socket {path}: {(error.strerror or str(error)).lower()}; "
            "choose another path with --control-socket"
        ) from None
    return sock, inode


def _remove_stale(directory: Path) -> None:
    for path in directory.glob("*.sock"):
        if _answers(str(path)) is False:
            with contextlib.suppress(OSError):
                path.unlink()


def _answers(path: str) -> bool | None:
    """Say whether somebody listens at this path; None: it can't be told."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return None  # it is busy, say
        return True


def _nobody(path: str, error: OSError) -> ControlError:
    reason = (error.strerror or str(error)).lower()
    return ControlError(f"no server answers at {path}: {reason}")
