"""TCP and Unix sockets without TLS, watched by an epoll of their own: Linux, and compiled, only.

Rules of this file:

- To its protocol a ``Transport`` is one of asyncio's, and where this module is not there, asyncio's
  or uvloop's serve. No call here waits.
- All sockets that are ready have their turn in one callback of the loop: one descriptor, that of the
  epoll, is all that the loop watches. uvloop takes the interpreter's lock anew for each socket,
  and has an object or two for what it will do to it.
- What is written leaves at once if nothing waits before it. The rest waits here as it was given.
- ``connection_lost`` comes when whoever has ended the connection has returned, never within.
- An event may be that of a socket which has gone since, within the same turn. What it asks for is
  tried then with its successor, which has nothing to say and loses nothing by it.
"""

import logging
import socket
import sys
from asyncio.trsock import TransportSocket
from collections import deque

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, errno
from libc.stdint cimport uint16_t, uint32_t
from libc.string cimport strerror

from headrace.server.listening import PAUSE_S

__all__ = ["Listener", "Reactor", "Transport"]

logger = logging.getLogger("headrace.server")

cdef extern from "<sys/socket.h>" nogil:
    struct sockaddr:
        pass
    struct sockaddr_storage:
        pass
    ctypedef unsigned int socklen_t
    int accept4(int, sockaddr *, socklen_t *, int)
    ssize_t recv(int, void *, size_t, int)
    ssize_t send(int, const void *, size_t, int)
    int shutdown(int, int)
    const int AF_INET, AF_UNIX, MSG_NOSIGNAL, SHUT_WR, SOCK_CLOEXEC, SOCK_NONBLOCK

cdef extern from "<arpa/inet.h>" nogil:
    struct in_addr:
        pass
    struct sockaddr_in:
        uint16_t sin_port
        in_addr sin_addr
    const int INET_ADDRSTRLEN
    uint16_t ntohs(uint16_t)
    const char *inet_ntop(int, const void *, char *, socklen_t)

cdef extern from "<sys/epoll.h>" nogil:
    union epoll_data_t:
        int fd
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int)
    int epoll_ctl(int, int, int, epoll_event *)
    int epoll_wait(int, epoll_event *, int, int)
    const int EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD
    const uint32_t EPOLLIN, EPOLLOUT

cdef extern from "<unistd.h>" nogil:
    int close(int)

cdef enum:
    #: Sockets that have their turn in one turn of the loop, and connections accepted in it.
    EVENTS = 256
    ACCEPTS = 16
    #: What is read from a socket, and written to it again, in one turn.
    READ_BYTES = 256 * 1024
    WRITE_BYTES = 256 * 1024
    #: When a protocol is told to write no more, and to go on, if it says nothing else: asyncio's.
    HIGH_WATER_BYTES = 64 * 1024

#: Where what is read arrives, of all reactors: nothing else runs between that and the copy of it.
cdef char _arrived[READ_BYTES]


cdef object _os_error(int number):
    return OSError(number, strerror(number).decode())


cdef class _Watched:
    """A descriptor that a reactor watches."""

    cdef Reactor _reactor
    cdef int _fd
    #: What epoll tells of it; 0: epoll doesn't know it.
    cdef uint32_t _armed

    cdef uint32_t _wanted(self):
        raise NotImplementedError

    cdef _ready(self, uint32_t events):
        raise NotImplementedError

    cdef _arm(self):
        """Have epoll tell what is wanted now, and nothing else."""
        cdef epoll_event event
        cdef int what
        cdef uint32_t wanted = self._wanted()
        if wanted == self._armed:
            return
        what = EPOLL_CTL_DEL if not wanted else EPOLL_CTL_MOD if self._armed else EPOLL_CTL_ADD
        event.events = wanted
        event.data.fd = self._fd
        if epoll_ctl(self._reactor._epoll, what, self._fd, &event) < 0:
            raise _os_error(errno)
        self._armed = wanted


cdef class Reactor:
    """The plain sockets of one server, and the turn that they have in its loop.

    Args:
        loop: Runs here.

    Raises:
        OSError: There is no descriptor left for an epoll.
    """

    cdef object _loop
    cdef int _epoll
    #: By descriptor.
    cdef list _watched
    cdef Py_ssize_t _count
    #: Transports that end when this turn does.
    cdef object _ending
    cdef bint _in_turn
    cdef bint _closed

    def __cinit__(self):
        self._epoll = -1

    def __init__(self, loop):
        self._loop = loop
        self._watched = []
        self._ending = deque()
        self._epoll = epoll_create1(EPOLL_CLOEXEC)
        if self._epoll < 0:
            raise _os_error(errno)
        loop.add_reader(self._epoll, self._turn)

    def __dealloc__(self):
        if self._epoll >= 0:
            close(self._epoll)

    def listen(self, sock, factory):
        """Accept connections.

        Args:
            sock: Listens; it is the listener's from now on.
            factory: Returns a protocol, as for ``loop.create_server``.
        """
        return Listener(self, sock, factory)

    def close(self):
        """Let go of the loop when the last listener has closed, and the last connection ended."""
        self._closed = True
        self._leave_if_idle()

    cdef _watch(self, _Watched watched):
        cdef int fd = watched._fd
        while len(self._watched) <= fd:
            self._watched.append(None)
        self._watched[fd] = watched
        self._count += 1

    cdef _forget(self, _Watched watched):
        """Watch it no more; whoever forgets it closes it."""
        cdef epoll_event event
        if watched._armed:
            # To close it is not enough where a child process has it, too.
            epoll_ctl(self._epoll, EPOLL_CTL_DEL, watched._fd, &event)
            watched._armed = 0
        self._watched[watched._fd] = None
        self._count -= 1

    cdef _leave_if_idle(self):
        if self._closed and not self._count and self._epoll >= 0:
            if not self._loop.is_closed():
                self._loop.remove_reader(self._epoll)
            close(self._epoll)
            self._epoll = -1

    def _turn(self):
        """Give every socket that is ready its turn."""
        cdef epoll_event events[EVENTS]
        cdef _Watched watched
        cdef int number, count = epoll_wait(self._epoll, events, EVENTS, 0)
        self._in_turn = True
        try:
            for number in range(count):
                watched = self._watched[events[number].data.fd]
                if watched is not None:
                    watched._ready(events[number].events)
        finally:
            # What raises here is no Exception, and the sockets behind it are still ready.
            self._in_turn = False
            self._end_all()

    cdef _end(self, Transport transport):
        """Have a transport end as soon as nothing of it, nor of its protocol, is under way."""
        self._ending.append(transport)
        if not self._in_turn and len(self._ending) == 1:
            self._loop.call_soon(self._end_all)

    cpdef _end_all(self):
        cdef Transport transport
        while self._ending:
            transport = self._ending.popleft()
            transport._lose()
        self._leave_if_idle()


cdef class Listener(_Watched):
    """A socket that listens, until it is closed."""

    cdef object _sock
    cdef object _factory
    cdef object _pause
    cdef int _family
    #: The address of all that are accepted; None: each has to be asked for its own.
    cdef object _name

    def __init__(self, Reactor reactor, sock, factory):
        self._reactor = reactor
        self._sock = sock
        self._factory = factory
        self._family = sock.family
        self._fd = sock.fileno()
        sock.setblocking(False)
        if self._family != AF_UNIX:
            # Who is accepted inherits it.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        self._name = sock.getsockname()
        if self._family != AF_UNIX and self._name[0] in ("0.0.0.0", "::"):
            self._name = None
        reactor._watch(self)
        self._arm()

    @property
    def sockets(self):
        """The listening socket, until it is closed."""
        return () if self._sock is None else (self._sock,)

    def close(self):
        """Accept nobody any more."""
        if self._pause is not None:
            self._pause.cancel()
        if self._sock is not None:
            self._reactor._forget(self)
            self._sock.close()
            self._sock = None
            self._reactor._leave_if_idle()

    cdef uint32_t _wanted(self):
        return EPOLLIN if self._pause is None else 0

    cdef _ready(self, uint32_t events):
        cdef sockaddr_storage address
        cdef socklen_t size
        cdef int fd, number, turn
        for turn in range(ACCEPTS):
            size = sizeof(address)
            fd = accept4(
                self._fd, <sockaddr *>&address, &size, SOCK_CLOEXEC | SOCK_NONBLOCK
            )
            if fd < 0:
                number = errno
                # Whatever else it may be is the end of that one connection (accept(2)).
                if number in (EMFILE, ENFILE, ENOBUFS, ENOMEM):
                    self._rest(number)
                return
            Transport._accepted(self, fd, <sockaddr_in *>&address)
            if self._sock is None:
                return

    cdef _rest(self, int number):
        # No descriptor, or no memory: nobody could be accepted by trying on.
        logger.error("cannot accept: %s; trying again in %g s", _os_error(number), PAUSE_S)
        self._pause = self._reactor._loop.call_later(PAUSE_S, self._go_on)
        self._arm()

    def _go_on(self):
        self._pause = None
        self._arm()


cdef class Transport(_Watched):
    """One connection: see ``asyncio.Transport`` for what its methods do."""

    cdef object _protocol
    cdef object _peername
    cdef object _sockname
    #: Python's own view of it, once it was asked for.
    cdef object _view
    cdef int _family
    #: What the socket has not taken yet, and how much of the first piece it has.
    cdef object _unsent
    cdef Py_ssize_t _offset
    cdef Py_ssize_t _unsent_bytes
    cdef Py_ssize_t _low
    cdef Py_ssize_t _high
    #: The protocol was told to write no more.
    cdef bint _full
    cdef bint _reading
    #: The peer has ended its side, we ours.
    cdef bint _heard_all
    cdef bint _said_all
    cdef bint _closing
    #: Its end is noted, and why it has come.
    cdef bint _ended
    cdef object _error

    def __cinit__(self):
        self._fd = -1

    def __init__(self):
        raise TypeError("a Listener makes them")

    def __dealloc__(self):
        if self._fd >= 0 and self._view is None:
            close(self._fd)

    @staticmethod
    cdef _accepted(Listener listener, int fd, sockaddr_in *address):
        """Begin a connection that was accepted."""
        cdef char host[INET_ADDRSTRLEN]
        cdef Transport self = Transport.__new__(Transport)
        self._fd = fd
        self._family = listener._family
        self._reactor = listener._reactor
        self._sockname = listener._name
        self._low = HIGH_WATER_BYTES // 4
        self._high = HIGH_WATER_BYTES
        self._reading = True
        if self._family == AF_INET:
            inet_ntop(AF_INET, &address.sin_addr, host, INET_ADDRSTRLEN)
            self._peername = (sys.intern(host.decode()), ntohs(address.sin_port))
        self._protocol = listener._factory()
        self._reactor._watch(self)
        try:
            self._protocol.connection_made(self)
            self._arm()
        except Exception as error:
            self._fail(error, "connection_made")

    def __repr__(self):
        state = "closing" if self._closing else "reading" if self._reading else "paused"
        return f"<headrace Transport of descriptor {self._fd}, {state}, {self._unsent_bytes} unsent>"

    cdef uint32_t _wanted(self):
        return (EPOLLIN if self._reading else 0) | (EPOLLOUT if self._unsent_bytes else 0)

    cdef _ready(self, uint32_t events):
        # An error, or a hang-up, is told by whatever is tried, and asks for nothing else.
        if self._unsent_bytes and events != EPOLLIN:
            self._write_on()
        if self._reading and events != EPOLLOUT:
            self._read()
        if not self._ended and self._armed != self._wanted():
            self._arm()

    # Reading

    cdef _read(self):
        cdef int number
        cdef ssize_t size = recv(self._fd, _arrived, READ_BYTES, 0)
        if size > 0:
            data = PyBytes_FromStringAndSize(_arrived, size)
            try:
                self._protocol.data_received(data)
            except Exception as error:
                self._fail(error, "data_received")
        elif size == 0:
            self._reading = False
            self._heard_all = True
            try:
                stays = self._protocol.eof_received()
            except Exception as error:
                self._fail(error, "eof_received")
                return
            if not stays:
                self.close()
        else:
            number = errno
            if number != EAGAIN and number != EINTR:
                self._abort(_os_error(number))

    def is_reading(self):
        return self._reading

    def pause_reading(self):
        # Epoll is told when it has something to tell: by then it may be wanted again.
        self._reading = False

    def resume_reading(self):
        if not self._closing and not self._heard_all:
            self._reading = True
            if not self._armed & EPOLLIN:
                self._arm()

    # Writing

    cpdef write(self, data):
        cdef Py_ssize_t size, sent = 0
        cdef int number
        if self._said_all:
            raise RuntimeError("nothing can be written after write_eof()")
        if type(data) is not bytes:
            data = bytes(data)
        size = PyBytes_GET_SIZE(data)
        if self._closing or not size:
            return
        if not self._unsent_bytes:
            sent = send(self._fd, PyBytes_AS_STRING(data), size, MSG_NOSIGNAL)
            if sent == size:
                return
            if sent < 0:
                number = errno
                if number != EAGAIN and number != EINTR:
                    self._abort(_os_error(number))
                    return
                sent = 0
            self._offset = sent
            self._unsent = deque()
        self._unsent.append(data)
        self._unsent_bytes += size - sent
        if not self._armed & EPOLLOUT:
            self._arm()
        if self._unsent_bytes > self._high and not self._full:
            self._full = True
            self._tell("pause_writing")

    def writelines(self, pieces):
        self.write(b"".join(pieces))

    cdef _write_on(self):
        """Send more of what waits."""
        cdef Py_ssize_t size, budget = WRITE_BYTES
        cdef ssize_t sent
        cdef int number
        while self._unsent_bytes and budget > 0:
            data = self._unsent[0]
            size = PyBytes_GET_SIZE(data) - self._offset
            sent = send(
                self._fd, PyBytes_AS_STRING(data) + self._offset, size, MSG_NOSIGNAL
            )
            if sent < 0:
                number = errno
                if number != EAGAIN and number != EINTR:
                    self._abort(_os_error(number))
                    return
                break
            budget -= sent
            self._unsent_bytes -= sent
            self._offset += sent
            if sent == size:
                self._unsent.popleft()
                self._offset = 0
        if self._full and self._unsent_bytes <= self._low:
            self._full = False
            self._tell("resume_writing")
        if not self._unsent_bytes:
            self._unsent = None
            if self._closing:
                self._end(None)
            elif self._said_all:
                shutdown(self._fd, SHUT_WR)

    def can_write_eof(self):
        return True

    def write_eof(self):
        if not self._said_all and not self._closing:
            self._said_all = True
            if not self._unsent_bytes:
                shutdown(self._fd, SHUT_WR)

    def get_write_buffer_size(self):
        return self._unsent_bytes

    def get_write_buffer_limits(self):
        return self._low, self._high

    def set_write_buffer_limits(self, high=None, low=None):
        if high is None:
            high = HIGH_WATER_BYTES if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be at least low ({low!r}), and that 0")
        self._high, self._low = high, low
        if self._unsent_bytes > self._high and not self._full:
            self._full = True
            self._tell("pause_writing")

    # The end

    def is_closing(self):
        return self._closing

    def close(self):
        self._reading = False
        if not self._closing:
            self._closing = True
            if not self._unsent_bytes:
                self._end(None)

    def abort(self):
        self._abort(None)

    cdef _abort(self, error):
        self._reading = False
        self._closing = True
        self._unsent = None
        self._unsent_bytes = 0
        self._end(error)

    cdef _end(self, error):
        if not self._ended:
            self._ended = True
            self._error = error
            self._reactor._end(self)

    cdef _lose(self):
        """Tell the protocol that it was that, and close the socket."""
        try:
            self._protocol.connection_lost(self._error)
        except Exception as error:
            self._report(error, "connection_lost")
        finally:
            self._reactor._forget(self)
            if self._view is not None:
                self._view.detach()
            close(self._fd)
            self._fd = -1
            self._protocol = self._error = None

    cdef _tell(self, what):
        try:
            getattr(self._protocol, what)()
        except Exception as error:
            self._report(error, what)

    cdef _fail(self, error, what):
        self._report(error, what)
        self._abort(error)

    cdef _report(self, error, what):
        self._reactor._loop.call_exception_handler(
            {
                "message": f"{what}() of a protocol has failed",
                "exception": error,
                "transport": self,
                "protocol": self._protocol,
            }
        )

    # Who it is

    def get_protocol(self):
        return self._protocol

    def set_protocol(self, protocol):
        self._protocol = protocol

    def get_extra_info(self, name, default=None):
        if name == "peername":
            if self._peername is None and self._fd >= 0:
                self._peername = self._ask("getpeername")
            return self._peername
        if name == "sockname":
            if self._sockname is None and self._fd >= 0:
                self._sockname = self._ask("getsockname")
            return self._sockname
        if name == "socket":
            if self._view is None and self._fd >= 0:
                self._view = socket.socket(self._family, socket.SOCK_STREAM, 0, self._fd)
            return None if self._view is None else TransportSocket(self._view)
        return default

    cdef _ask(self, what):
        sock = socket.socket(self._family, socket.SOCK_STREAM, 0, self._fd)
        try:
            return getattr(sock, what)()
        except OSError:
            return None  # the peer is gone
        finally:
            sock.detach()
