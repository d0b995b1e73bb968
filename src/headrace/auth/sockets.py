"""The open WebSockets of a user, and what closes them: a login that has ended.

Rules of this file:

- With ``HEADRACE["CLOSE_ON_LOGOUT"]`` off, nothing here runs, and no signal is heard.
- A WebSocket whose user is known is in a group for the user, and in one for the session that
  the user came with. What closes it is an event for the client, so that no handler is asked
  and none can hold it up; its consumer's ``disconnect`` runs as for any other end.
- The login is gone for every new connection before the open ones are closed: a client that
  comes back at once must not get in. Who was being let in at that moment is looked at again.
- That sockets can't be closed is logged, and never fails a logout.
"""

import asyncio
import hashlib
import logging
from typing import Any

from asgiref.sync import async_to_sync
from django.apps import apps
from django.contrib.auth import SESSION_KEY, get_user_model
from django.contrib.auth.signals import user_logged_out
from django.contrib.sessions.backends.base import SessionBase
from django.core.signals import setting_changed
from django.db import models
from django.db.models.signals import post_delete, post_save, pre_save
from django.utils.functional import LazyObject, empty

from .. import conf
from ..db import database_sync_to_async, group_send_on_commit
from ..exceptions import CloseCode, ConfigurationError, InvalidChannelLayerError
from ..layers import BaseChannelLayer, channel_layers
from ..layers.base import Event, running_loop
from ..middleware import MEMBERSHIP, Scope
from ._identity import auth_hash

__all__ = [
    "aclose_user_sockets",
    "close_user_sockets",
    "follow_setting",
    "move",
    "register",
]

logger = logging.getLogger("headrace.auth")

#: Noted on a user between the two signals of being saved.
_ENDED = "_headrace_login_ended"


async def aclose_user_sockets(
    user: Any,
    *,
    code: int = CloseCode.LOGGED_OUT,
    reason: str = "",
    session_key: str | None = None,
) -> None:
    """Close the WebSockets that a user has open, on every process that the layer reaches.

    With ``session_key``, only those that came with this session; with the other arguments
    the client is told why. Returns when the channel layers have the news. Whatever lets the
    user in has to be gone by then: a client may come back at once.

    Raises ConfigurationError unless ``HEADRACE["CLOSE_ON_LOGOUT"]`` is on, for nobody keeps
    track of sockets otherwise, and ValueError for a code that may not be sent.
    """
    if not conf.settings().close_on_logout:
        raise ConfigurationError(
            "nobody knows whose sockets are open: set HEADRACE['CLOSE_ON_LOGOUT'] to True"
        )
    group = _user_group(user) if session_key is None else _session_group(session_key)
    await _close(group, code, reason)


def close_user_sockets(
    user: Any,
    *,
    code: int = CloseCode.LOGGED_OUT,
    reason: str = "",
    session_key: str | None = None,
) -> None:
    """Close the WebSockets of a user, as ``aclose_user_sockets`` does, from ordinary code.

    In a transaction, let it wait: ``transaction.on_commit(partial(close_user_sockets, user))``.
    """
    async_to_sync(aclose_user_sockets)(user, code=code, reason=reason, session_key=session_key)


async def _close(group: str, code: int, reason: str = "") -> None:
    event = _closing_event(code, reason)
    for alias in _layers():
        await channel_layers[alias].group_send(group, event)


def _layers() -> list[str]:
    """Return the aliases of the layers with groups: a consumer names its layer itself."""
    return [a for a in channel_layers.configs if "groups" in channel_layers[a].extensions]


def _closing_event(code: int, reason: str = "") -> Event:
    return {"type": "websocket.close", "code": int(code), "reason": reason}


# The side of the WebSocket


def register(scope: Scope) -> None:
    """Let the consumer behind join the groups by which its WebSocket can be closed."""
    if scope.get("type") == "websocket" and conf.settings().close_on_logout:
        scope[MEMBERSHIP] = _Membership()


async def move(scope: Scope) -> None:
    """Join the groups of the scope's present user instead of those of the last one."""
    membership = scope.get(MEMBERSHIP)
    if membership is not None:
        await membership.move(scope)


class _Membership:
    """The groups of one WebSocket, for the user and for the session that it has now."""

    __slots__ = ("_channel", "_groups", "_layer")

    def __init__(self) -> None:
        self._layer: BaseChannelLayer | None = None
        self._channel = ""
        self._groups: tuple[str, ...] = ()

    async def join(self, consumer: Any, /) -> None:
        """See ``Membership``."""
        layer = consumer.channel_layer
        if layer is None or "groups" not in layer.extensions:
            raise InvalidChannelLayerError(
                f"HEADRACE['CLOSE_ON_LOGOUT'] needs a channel layer with groups: CHANNEL_LAYERS "
                f"has none under the alias {consumer.channel_layer_alias!r}"
            )
        self._layer, self._channel = layer, consumer.channel_name
        await self.move(consumer.scope)

    async def move(self, scope: Scope) -> None:
        """Join the groups of the user whom the scope has now, instead of the last one's."""
        await self.leave()
        layer, user, session = self._layer, _known_user(scope), scope.get("session")
        if layer is None or user is None:
            return
        groups = [_user_group(user)]
        if key := getattr(session, "session_key", None):
            groups.append(_session_group(key))
        self._groups = tuple(groups)
        for group in groups:
            await layer.group_add(group, self._channel)
        if not await _is_current(user, session):
            # It ended after it was looked up, and before anybody could find us.
            await layer.send(self._channel, _closing_event(CloseCode.LOGGED_OUT))

    async def leave(self) -> None:
        """See ``Membership``."""
        groups, self._groups = self._groups, ()
        for group in groups:
            assert self._layer is not None
            try:
                await self._layer.group_discard(group, self._channel)
            except Exception:
                logger.exception("a WebSocket could not leave the group %s", group)


def _known_user(scope: Scope) -> Any:
    """Return the user, if it is known, and one of those in the database."""
    user = scope.get("user")
    if isinstance(user, LazyObject) and user._wrapped is empty:  # noqa: SLF001 - Django's API
        return None
    return user if isinstance(user, models.Model) else None


@database_sync_to_async
def _is_current(user: Any, session: SessionBase | None) -> bool:
    """Tell whether nothing has happened to the login since it was looked up."""
    if session is not None and session.session_key and not session.modified:
        held = session.get(SESSION_KEY)
        if held is not None and session.__class__(session.session_key).get(SESSION_KEY) != held:
            return False
    # Not type(user): a lazy object stands in for its own.
    users = user.__class__._base_manager.using(user._state.db)  # noqa: SLF001 - Django's API
    now = users.filter(pk=user.pk).first()
    return now is not None and not _has_ended(user, now)


def _has_ended(old: Any, new: Any) -> bool:
    """Tell whether a change of the user ends the logins that there were."""
    deactivated = getattr(old, "is_active", True) and not getattr(new, "is_active", True)
    return bool(deactivated or auth_hash(old) != auth_hash(new))


def _user_group(user: Any) -> str:
    model = get_user_model()
    if isinstance(user, models.Model):
        if not isinstance(user, model):
            # Of a table with keys of its own.
            model = user._meta.concrete_model  # type: ignore[assignment]  # noqa: SLF001 - Django's API
        key = user.pk
    else:
        key = model._meta.pk.to_python(user)  # noqa: SLF001 - Django's API
    return f"headrace.user.{_digest(f'{model._meta.label_lower}:{key}')}"  # noqa: SLF001


def _session_group(key: str) -> str:
    return f"headrace.session.{_digest(key)}"


def _digest(text: str) -> str:
    # Of any length and alphabet before, legal in a name after; and a session's key, which
    # opens doors, is not written into channel layers and logs.
    return hashlib.sha256(text.encode()).hexdigest()[:40]


# The side of what ends a login


def follow_setting() -> None:
    """Hear the signals that end logins while ``HEADRACE["CLOSE_ON_LOGOUT"]`` is on."""
    setting_changed.connect(_on_setting_changed, dispatch_uid="headrace.auth.sockets")
    _connect_or_disconnect()


def _on_setting_changed(*, setting: str, **_: Any) -> None:
    if setting in ("HEADRACE", "AUTH_USER_MODEL"):
        _connect_or_disconnect()


def _connect_or_disconnect() -> None:
    # What is wrong with the setting, others say.
    on = not conf.problems() and conf.settings().close_on_logout
    receivers = (
        (pre_save, _before_save),
        (post_save, _after_save),
        (post_delete, _after_delete),
    )
    while _models_heard:
        model = _models_heard.pop()
        for signal, receiver in receivers:
            signal.disconnect(receiver, sender=model)
    if on:
        # The proxies of the user model, and the models that inherit from it, send their own.
        _models_heard.extend(m for m in apps.get_models() if issubclass(m, get_user_model()))
        user_logged_out.connect(_on_logout)
    else:
        user_logged_out.disconnect(_on_logout)
    for model in _models_heard:
        for signal, receiver in receivers:
            signal.connect(receiver, sender=model)


_models_heard: list[type[models.Model]] = []


def _on_logout(*, request: Any, user: Any, **_: Any) -> None:
    del user  # it is the session that ends, and a request may not know whose it is
    session = getattr(request, "session", None)
    key = getattr(session, "session_key", None)
    if session is None or not key:
        return
    try:
        # Django sends the signal first, and deletes the session then. A client that is closed
        # comes back between the two. What the session holds in memory stays for the others
        # who hear the signal.
        if session.exists(key):
            session.delete(key)
    except Exception:
        logger.exception("the session of a logout could not be deleted before its sockets close")
    _close_when_committed(_session_group(key), None)


def _before_save(
    *,
    sender: type[models.Model],
    instance: Any,
    raw: bool,
    using: str,
    update_fields: Any,
    **_: Any,
) -> None:
    # Each login writes when it was, and nothing else.
    at_login = update_fields is not None and set(update_fields) == {"last_login"}
    if raw or at_login or instance.pk is None:
        return
    users = sender._base_manager.using(using)  # noqa: SLF001 - Django's API
    before = users.filter(pk=instance.pk).first()
    vars(instance)[_ENDED] = before is not None and _has_ended(before, instance)


def _after_save(*, instance: Any, using: str, **_: Any) -> None:
    if vars(instance).pop(_ENDED, False):
        _close_when_committed(_user_group(instance), using)


def _after_delete(*, instance: Any, using: str, **_: Any) -> None:
    _close_when_committed(_user_group(instance), using)


def _close_when_committed(group: str, using: str | None) -> None:
    if (loop := running_loop()) is not None:
        # The loop's own thread is in no transaction: Django sees to that.
        task = loop.create_task(_close_or_log(group), name="headrace close sockets")
        _closing.add(task)
        task.add_done_callback(_closing.discard)
        return
    try:
        # Until then every other connection to the database finds the login as it was.
        for alias in _layers():
            event = _closing_event(CloseCode.LOGGED_OUT)
            group_send_on_commit(group, event, using=using, layer=alias)
    except Exception:
        logger.exception(_NOT_CLOSED)


#: Held here, for a loop holds its tasks weakly.
_closing: set[asyncio.Task[None]] = set()
_NOT_CLOSED = "the sockets of a login that has ended could not be closed"


async def _close_or_log(group: str) -> None:
    try:
        await _close(group, CloseCode.LOGGED_OUT)
    except Exception:
        logger.exception(_NOT_CLOSED)
