"""The page's socket: sends what there is to see, and closes the connections that staff name.

Rules of this file:

- Who is there is asked at the handshake, every few seconds after it, and once more before
  anything is closed: by the session as it is then, and by the page's own admin.
- A client that may not be here any longer is closed with 4401 where its login has ended, with
  4403 where its right has.
- Whoever closes a connection is written down: in the log, and in the admin's.
"""

import asyncio
import contextlib
import logging
import time
from typing import Any, NamedTuple

from django.contrib import admin
from django.contrib.admin.models import DELETION, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.contrib.sessions.backends.base import SessionBase
from django.http import HttpRequest

from ..auth import get_user
from ..codecs import encode_json
from ..db import database_sync_to_async
from ..exceptions import CloseCode, ControlError
from ..generic.websocket import AsyncWebsocketConsumer
from .admin import admin_of
from .feed import Feed, feed, server_path
from .listing import Close, Table, page_of, parse
from .models import Operations

__all__ = ["FORBIDDEN", "OperationsConsumer"]

logger = logging.getLogger("headrace.operations")

#: The close code of who may not see the page any more, and shall not come again.
FORBIDDEN = 4403
#: Between two looks at who is there.
RECHECK_S = 5.0
#: Between two looks at all connections.
LIST_S = 3.0


class Rights(NamedTuple):
    """What somebody may do."""

    user: Any
    see: bool
    close: bool


class OperationsConsumer(AsyncWebsocketConsumer):
    """One page that is open in a browser."""

    site: admin.AdminSite = admin.site
    recheck_s = RECHECK_S
    list_s = LIST_S

    _living: asyncio.Task[None] | None = None
    _wanted = Table()

    async def connect(self) -> None:
        """Let staff in."""
        rights = await self._rights()
        if not rights.see:
            await self.deny(403, "this socket is for the staff, who log in on the admin's pages")
            return
        await self.accept()
        self._living = asyncio.create_task(self._live(rights), name="headrace operations page")

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Do what the page asks for."""
        del bytes_data
        try:
            if text_data is None:
                raise ValueError("this page's socket takes JSON in text messages, not bytes")
            wanted = parse(text_data)
        except ValueError as error:
            await self._tell({"type": "error", "text": str(error)})
            return
        if isinstance(wanted, Table):
            self._wanted = wanted
            await self._show_connections(feed())
        else:
            await self._close_connection(wanted)

    async def disconnect(self, code: int) -> None:
        """Look no more."""
        del code
        if self._living is not None:
            self._living.cancel()
            await asyncio.wait([self._living])

    # What is shown

    async def _live(self, rights: Rights) -> None:
        """Show what there is for as long as somebody may see it."""
        try:
            async with feed().watch() as watched, asyncio.TaskGroup() as group:
                path = server_path()
                await self._tell(
                    {
                        "type": "hello",
                        "mode": "process" if path is None else "server",
                        "may_close": rights.close,
                        "history": watched.history,
                    }
                )
                group.create_task(self._tell_news(watched))
                group.create_task(self._keep_asking())
                if path is not None:
                    group.create_task(self._keep_listing(watched))
        except* OSError:
            pass  # the client is gone
        except* Exception:
            logger.exception("an operations page has failed")
            with contextlib.suppress(OSError):
                await self.close(CloseCode.INTERNAL_ERROR)

    async def _tell_news(self, watched: Feed) -> None:
        number = 0
        while True:
            news = await watched.news(number)
            number = news.number
            await self.send(text_data=news.text)

    async def _keep_listing(self, watched: Feed) -> None:
        while True:
            await asyncio.sleep(self.list_s)
            await self._show_connections(watched)

    async def _show_connections(self, watched: Feed, *, max_age_s: float = 1.0) -> None:
        """Send the page of the table that is wanted."""
        if server_path() is None:
            return  # the page says so already
        wanted = self._wanted
        try:
            listed = await watched.connections(
                order=wanted.order, search=wanted.search, max_age_s=max_age_s
            )
        except ControlError:
            return  # the news say that there are none
        await self._tell(page_of(listed.rows, wanted, total=listed.total, now=time.time()))

    async def _tell(self, message: dict[str, Any]) -> None:
        await self.send(text_data=encode_json(message))

    # Who is there

    async def _keep_asking(self) -> None:
        while True:
            await asyncio.sleep(self.recheck_s)
            await self._check(await self._rights())

    async def _check(self, rights: Rights) -> bool:
        """Close where the page may not be seen any longer; tell whether it may."""
        if not rights.see:
            ended = not getattr(rights.user, "is_authenticated", False)
            code = int(CloseCode.LOGGED_OUT) if ended else FORBIDDEN
            await self.close(code, "your login has ended" if ended else "this is for the staff")
        return rights.see

    async def _rights(self) -> Rights:
        """Find out what the client may do, by its session as it is now."""
        session: SessionBase = self.scope["session"]
        # The scope's own has read what it holds long ago.
        fresh = type(session)(session.session_key)
        user = await get_user({"session": fresh})
        return await self._rights_of(user, fresh)

    @database_sync_to_async
    def _rights_of(self, user: Any, session: SessionBase) -> Rights:
        decides = admin_of(self.site)
        request = HttpRequest()
        request.user = user
        request.session = session
        request.META = _meta(self.scope)
        # A site may ask for more than that somebody is of the staff: a second factor, say.
        see = (
            decides is not None
            and self.site.has_permission(request)
            and decides.has_view_permission(request)
        )
        return Rights(
            user, see, see and decides is not None and decides.has_close_permission(request)
        )

    # What is done

    async def _close_connection(self, wanted: Close) -> None:
        rights = await self._rights()
        if not await self._check(rights):
            return
        answer: dict[str, Any] = {
            "type": "closed",
            "connection": wanted.connection,
            "code": wanted.code,
        }
        if not rights.close:
            answer["error"] = "you may not close connections: that takes a permission of its own"
            logger.warning(
                "%s may not close the connection %.100r",
                rights.user.get_username(),
                wanted.connection,
            )
        else:
            try:
                await feed().ask(
                    "close",
                    connection=wanted.connection,
                    code=wanted.code,
                    reason=wanted.reason,
                )
            except ControlError as error:
                answer["error"] = str(error)
            else:
                logger.warning(
                    "%s has closed the connection %s with %d %r",
                    rights.user.get_username(),
                    wanted.connection,
                    wanted.code,
                    wanted.reason,
                )
                await _write_down(rights.user, wanted)
        await self._tell(answer)
        if "error" not in answer:
            await self._show_connections(feed(), max_age_s=0)


@database_sync_to_async
def _write_down(user: Any, wanted: Close) -> None:
    """Add what was done to the admin's history."""
    LogEntry.objects.create(
        user_id=user.pk,
        content_type_id=ContentType.objects.get_for_model(Operations).pk,
        object_id=wanted.connection,
        object_repr=f"connection {wanted.connection}",
        # It leaves nothing that a link in the history could lead to.
        action_flag=DELETION,
        change_message=f"closed with {wanted.code} {wanted.reason}".rstrip(),
    )


def _meta(scope: dict[str, Any]) -> dict[str, Any]:
    """Return what Django would know of the request, for whoever decides by it."""
    meta = {}
    for name, value in scope.get("headers", ()):
        if b"_" not in name:
            key = f"HTTP_{name.decode('latin-1').upper().replace('-', '_')}"
            meta[key] = value.decode("latin-1")
    if client := scope.get("client"):
        meta["REMOTE_ADDR"] = client[0]
    return meta
