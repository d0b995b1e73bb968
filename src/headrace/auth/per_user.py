"""How many WebSockets one user may have open at once.

Rules of this file:

- A place belongs to the task that runs the application for its connection: it is given back at
  the end of that task, whatever ended it.
- A user without a place any more is forgotten. Each process keeps an account of its own.
"""

import asyncio
from collections.abc import Callable, Hashable
from typing import Any

from ..exceptions import ConfigurationError
from ..instruments import process
from ..middleware import ASGIApplication, BaseMiddleware, Handover, Receive, Scope, Send
from ..server.buckets import Places

__all__ = ["ConnectionsPerUser", "TooManyConnectionsError", "user_key"]

_refused = process.counters(
    "headrace_middleware_refusals_total", "Connections refused by a middleware.", "by"
)["connections_per_user"]


class TooManyConnectionsError(Exception):
    """A user has as many WebSockets as one may; Headrace's server answers with 429."""

    status = 429


def user_key(scope: Scope) -> Hashable:
    """Return what tells the scope's user from others; None for a user who is not logged in."""
    try:
        user: Any = scope["user"]
    except KeyError:
        raise ConfigurationError(
            "no user in the scope: put AuthMiddlewareStack or BearerTokenMiddleware in front of "
            "ConnectionsPerUser, or give it key="
        ) from None
    if not getattr(user, "is_authenticated", True):
        return None
    key: Hashable = getattr(user, "pk", user)
    return key


class ConnectionsPerUser(BaseMiddleware):
    """Lets each user have so many WebSockets at once, and refuses one more with 429.

    It needs the user in the scope, so it stands behind what finds that out.

    Args:
        inner: The application behind it.
        limit: WebSockets that one user may have.
        key: What tells one user from another, given the scope; None: this one has no limit.
    """

    def __init__(
        self,
        inner: ASGIApplication,
        limit: int = 20,
        *,
        key: Callable[[Scope], Hashable] = user_key,
    ) -> None:
        super().__init__(inner)
        if limit < 1:
            raise ConfigurationError(f"a user must have at least 1 connection, not {limit}")
        self._limit = limit
        self._key = key
        self._places = Places(limit)

    def enter(self, scope: Scope, receive: Receive, send: Send) -> Handover:
        """Take a place, and hand on."""
        if scope["type"] == "websocket" and (key := self._key(scope)) is not None:
            task = asyncio.current_task()
            assert task is not None
            if not self._places.enter(key):
                _refused.value += 1
                raise TooManyConnectionsError(
                    f"there are {self._limit} WebSockets of this user already: close one of them"
                )
            task.add_done_callback(lambda _: self._places.leave(key))
        return self.inner, scope, receive, send
