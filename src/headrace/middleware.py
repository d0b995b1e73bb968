"""What stands in front of an application and is gone once it has let a connection through.

Rules of this file:

- A *stage* decides or prepares, then hands the connection on: it says which application is
  next, and with what scope, receive and send. It does not await that application.
- However many stages follow one another, they are walked in one loop by the first of them:
  one coroutine frame waits for the application's end instead of one for each stage, and the
  scope is copied once. A connection may be idle for days; its frames are paid for all along.
- A stage changes its scope in place: the loop has made a copy of what the server, or a
  foreign middleware, passed in.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeAlias

__all__ = [
    "MEMBERSHIP",
    "ASGIApplication",
    "BaseMiddleware",
    "Event",
    "Handover",
    "Membership",
    "Receive",
    "Scope",
    "Send",
    "Stage",
    "refuse_consumer_class",
]

Scope: TypeAlias = dict[str, Any]
Event: TypeAlias = dict[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Any]]
Send: TypeAlias = Callable[[Any], Awaitable[None]]
#: An ASGI 3 application. Its result is passed on; only tests look at it.
ASGIApplication: TypeAlias = Callable[[Any, Any, Any], Awaitable[Any]]
#: The next application, and what it is called with.
Handover: TypeAlias = tuple[ASGIApplication, Scope, Receive, Send]

#: The key of a scope under which a middleware may leave a ``Membership``.
MEMBERSHIP = "headrace.membership"


class Membership(Protocol):
    """The groups of which a middleware wants the consumer behind it to be a member.

    Only the consumer has a channel, and only once its connection has arrived there.
    """

    async def join(self, consumer: Any, /) -> None:
        """Join, before the consumer handles its first event.

        ``consumer`` has a ``scope``, a ``channel_layer`` and, unless that is None, a
        ``channel_name``.
        """
        ...

    async def leave(self) -> None:
        """Leave at the consumer's end; nothing is raised."""
        ...


_Enter: TypeAlias = Callable[[Any, Scope, Receive, Send], Handover | Awaitable[Handover]]

# The ``__call__`` of a stage -> its ``enter``. A class that overrides ``__call__`` is not in
# here, and is called like any application.
_enters: dict[Any, _Enter] = {}


class Stage:
    """An ASGI application that only leads to another one.

    A subclass defines ``enter``; its ``__call__`` is made from that, and stays a real
    coroutine function, which is what foreign servers recognise an ASGI 3 application by.
    """

    def enter(self, scope: Scope, receive: Receive, send: Send) -> Handover | Awaitable[Handover]:
        """Return the next application and what to call it with, or an awaitable of that.

        ``scope`` may be changed in place.
        """
        raise NotImplementedError

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Run the application that this stage, and those behind it, lead to."""
        raise NotImplementedError  # replaced in each subclass that defines ``enter``

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "enter" in vars(cls) and "__call__" not in vars(cls):
            cls.__call__ = _walk_from(cls.enter)  # type: ignore[method-assign]


def _walk_from(enter: _Enter) -> Any:
    async def __call__(  # noqa: N807 - it becomes the method of that name
        self: Stage, scope: Scope, receive: Receive, send: Send
    ) -> Any:
        step: _Enter | None = enter
        app: ASGIApplication = self
        scope = dict(scope)
        while step is not None:
            handover = step(app, scope, receive, send)
            if not isinstance(handover, tuple):
                handover = await handover
            app, scope, receive, send = handover
            step = _enters.get(type(app).__call__)
        # What this frame refers to, it keeps in memory until the connection ends.
        del handover
        return await app(scope, receive, send)

    _enters[__call__] = enter
    return __call__


def refuse_consumer_class(application: object, leading_there: object) -> None:
    """Raise ImproperlyConfigured for a consumer's class, which stands for no application.

    ``leading_there``, as text, is what the error begins with.
    """
    if isinstance(application, type) and hasattr(application, "as_asgi"):
        # Imported here, for communicators are used without Django, too.
        from django.core.exceptions import ImproperlyConfigured

        raise ImproperlyConfigured(
            f"{leading_there} leads to a class: write {application.__name__}.as_asgi()"
        )


class BaseMiddleware(Stage):
    """A middleware that gives the application behind it a scope of its own to change.

    Override ``__call__``, as in any ASGI middleware, and end it with
    ``return await super().__call__(scope, receive, send)``.
    """

    def __init__(self, inner: ASGIApplication) -> None:
        refuse_consumer_class(inner, type(self).__name__)
        self.inner = inner

    def enter(self, scope: Scope, receive: Receive, send: Send) -> Handover | Awaitable[Handover]:
        """Hand on to ``inner``."""
        return self.inner, scope, receive, send
