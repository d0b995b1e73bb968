"""A bearer token in a WebSocket's first message: accepted early, shown to nobody before.

Rules of this file:

- The handshake is answered at once, for a client sends nothing before. The application does
  not run until the token has been verified; then it sees a connection that asks to be
  accepted, as any other does, with the user in its scope.
- A client that has not said who it is may cost one message, bounded in size, and a bounded
  time.
- What the application answers its ``websocket.connect`` with comes after the handshake: its
  accept is not sent again, its refusal is a close code.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, NoReturn

from ..codecs import decode_json
from ..exceptions import CloseCode, ConfigurationError
from ..middleware import Event, Receive, Scope, Send

__all__ = ["FirstMessage", "Refused", "open_with_first_message", "token_in_message"]

logger = logging.getLogger("headrace.auth")


def token_in_message(text: str) -> str | None:
    """Return the token of a first message: the text itself, or of a JSON object its ``token``.

    ValueError for a text that begins like an object, and is none.
    """
    text = text.strip()
    if not text.startswith("{"):
        return text
    token: str | None = decode_json(text).get("token")
    return token


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstMessage:
    """The first text message of a WebSocket, for clients that can send a token no other way.

    The application behind gets a ``receive`` and a ``send`` that are not the server's own, so
    events of the channel layer go through its consumer, not over the fast lane.

    Args:
        timeout_s: How long the client has to send it.
        limit_bytes: How long it may be.
        subprotocols: Those that the application speaks, its favourite first. One that the
            client offers is agreed upon, before the application can be asked.
        token_of: Returns the token of such a message, or None; it may raise ValueError,
            LookupError, TypeError or AttributeError over what it can't read.
    """

    timeout_s: float = 10
    limit_bytes: int = 8192
    subprotocols: Sequence[str] = ()
    token_of: Callable[[str], str | None] = token_in_message


class Refused(Exception):
    """The WebSocket was closed, or left, before anybody was found behind it."""


async def open_with_first_message(
    source: FirstMessage,
    user_of: Callable[[str], Awaitable[Any]],
    scope: Scope,
    receive: Receive,
    send: Send,
) -> tuple[Any, Receive, Send]:
    """Accept the WebSocket and find out who it is; return the user, and what to call on with.

    Changes the scope to what an application can still do. Raises Refused where the
    connection is over.
    """
    connect = await receive()
    if connect["type"] != "websocket.connect":
        raise Refused("the client left")
    offered = scope.get("subprotocols") or ()
    subprotocol = next((name for name in source.subprotocols if name in offered), None)
    await send({"type": "websocket.accept", "subprotocol": subprotocol})
    try:
        async with asyncio.timeout(source.timeout_s):
            event = await receive()
    except TimeoutError:
        await _refuse(send, CloseCode.TIMEOUT, "no token in time")
    if event["type"] != "websocket.receive":
        raise Refused("the client left without a token")
    token = _token_of(source, event)
    user = None if token is None else await user_of(token)
    if user is None:
        await _refuse(send, CloseCode.UNAUTHORIZED, "invalid_token")
    extensions: dict[str, Any] = scope.get("extensions") or {}
    scope["extensions"] = {
        name: value for name, value in extensions.items() if name != "websocket.http.response"
    }
    accepted = _Accepted(connect, subprotocol, receive, send)
    return user, accepted.receive, accepted.send


async def _refuse(send: Send, code: CloseCode, why: str) -> NoReturn:
    await send({"type": "websocket.close", "code": int(code), "reason": why})
    raise Refused(why)


def _token_of(source: FirstMessage, event: Event) -> str | None:
    text = event.get("text")
    if text is None or len(text.encode(errors="replace")) > source.limit_bytes:
        return None
    try:
        token = source.token_of(text)
    except (ValueError, LookupError, TypeError, AttributeError):
        # What a client made up is not as the function expected it.
        return None
    return token if isinstance(token, str) else None


class _Phase(Enum):
    """How far the WebSocket has come, as its application sees it."""

    #: It has not heard of the connection yet.
    NEW = auto()
    CONNECTING = auto()
    OPEN = auto()
    #: It has refused: there is nothing more to say.
    REFUSED = auto()


class _Accepted:
    """An open WebSocket, shown to its application as one that asks to be accepted."""

    __slots__ = ("_connect", "_phase", "_receive", "_send", "_subprotocol")

    def __init__(
        self, connect: Event, subprotocol: str | None, receive: Receive, send: Send
    ) -> None:
        self._connect = connect
        self._subprotocol = subprotocol
        self._receive = receive
        self._send = send
        self._phase = _Phase.NEW

    # Neither is a coroutine function: of each message that passes, nothing waits here.

    def receive(self) -> Awaitable[Event]:
        """Return the connection's events, beginning with its ``websocket.connect``."""
        if self._phase is _Phase.NEW:
            self._phase = _Phase.CONNECTING
            return _value(self._connect)
        return self._receive()

    def send(self, event: Event) -> Awaitable[None]:
        """Send on what belongs to an open WebSocket."""
        if self._phase is _Phase.OPEN:
            return self._send(event)
        return self._answer(event)

    async def _answer(self, event: Event) -> None:
        type_ = event["type"]
        if type_ == "websocket.accept":
            self._check_accept(event)
            self._phase = _Phase.OPEN
        elif type_ == "websocket.close":
            # Before an accept, "normal" is what nobody has thought about.
            code = event.get("code") or CloseCode.NORMAL_CLOSURE
            code = CloseCode.FORBIDDEN if code == CloseCode.NORMAL_CLOSURE else code
            await self._refuse(code, event.get("reason"))
        elif type_ == "websocket.http.response.start":
            # 4404 for a 404, as is the custom.
            await self._refuse(4000 + event["status"], None)
        elif self._phase is not _Phase.REFUSED:
            raise RuntimeError(f"cannot send {type_!r} before the WebSocket is accepted")

    async def _refuse(self, code: int, reason: str | None) -> None:
        self._phase = _Phase.REFUSED
        await self._send({"type": "websocket.close", "code": int(code), "reason": reason or ""})

    def _check_accept(self, event: Event) -> None:
        subprotocol = event.get("subprotocol")
        if subprotocol not in (None, self._subprotocol):
            raise ConfigurationError(
                f"cannot accept the subprotocol {subprotocol!r} after the first message: name "
                f"it in FirstMessage(subprotocols=...), which agreed on {self._subprotocol!r}"
            )
        if event.get("headers"):
            logger.warning(
                "the headers of an accept are lost: the handshake was over before the "
                "WebSocket's first message, which FirstMessage waits for"
            )


async def _value(event: Event) -> Event:
    return event
