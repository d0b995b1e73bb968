# What reactor.pyx offers, for type checkers.

import asyncio
import socket
from collections.abc import Callable
from typing import final

@final
class Reactor:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None: ...
    def listen(
        self, sock: socket.socket, factory: Callable[[], asyncio.BaseProtocol]
    ) -> Listener: ...
    def close(self) -> None: ...

@final
class Listener:
    @property
    def sockets(self) -> tuple[socket.socket, ...]: ...
    def close(self) -> None: ...

@final
class Transport(asyncio.Transport): ...
