"""The Django setting ``HEADRACE``: its keys, their defaults, and what each may be.

Rules of this file:

- A key is a field of ``Settings``: ``HEADRACE["SYNC_THREADS"]`` is ``settings().sync_threads``.
- Nothing wrong is passed over: an unknown key and a bad value are errors that name the key.
- Nothing is read at import, and a test may override the setting at any time.
"""

import dataclasses
import difflib
import os
from collections.abc import Callable, Mapping
from typing import Any

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

__all__ = ["Settings", "problems", "settings"]

_SETTING = "HEADRACE"


def _key(default: Callable[[], Any], accepts: Callable[[Any], bool], wanted: str) -> Any:
    """Describe a key: its default, the values that it accepts, and those in words."""
    return dataclasses.field(
        default_factory=default, metadata={"accepts": accepts, "wanted": wanted}
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _default_threads() -> int:
    # Handlers mostly wait for a database: more threads than cores, and few enough for its
    # connections, of which each thread opens one.
    return min(32, (os.cpu_count() or 1) + 4)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What ``HEADRACE`` says, defaults filled in."""

    #: Whether the WebSockets of a login are closed when it ends (headrace.auth).
    close_on_logout: bool = _key(bool, _is_bool, "True or False")
    #: Threads for synchronous handlers; 0: the one that all of asgiref's callers share.
    sync_threads: int = _key(_default_threads, _is_count, "a number of threads, or 0 for no pool")


_FIELDS = {field.name.upper(): field for field in dataclasses.fields(Settings)}

#: The setting as it was last read; None until then, and after a change.
_current: Settings | None = None


def settings() -> Settings:
    """Return what ``HEADRACE`` says; ImproperlyConfigured for what it may not say."""
    global _current
    if _current is None:
        if found := problems():
            raise ImproperlyConfigured("; ".join(found))
        given = _given()
        _current = Settings(**{name.lower(): value for name, value in given.items()})
    return _current


def problems() -> list[str]:
    """Return what is wrong with ``HEADRACE``, a sentence each, for a system check to tell."""
    given = _given()
    if not isinstance(given, Mapping):
        return [f"{_SETTING} must be a dictionary, not {given!r}"]
    return [problem for name, value in given.items() if (problem := _problem(name, value))]


def _given() -> Any:
    return getattr(django_settings, _SETTING, {})


def _problem(name: Any, value: Any) -> str | None:
    field = _FIELDS.get(name)
    if field is None:
        close = difflib.get_close_matches(str(name).upper(), _FIELDS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"{_SETTING} has no key {name!r}: {hint}its keys are {', '.join(sorted(_FIELDS))}"
    if not field.metadata["accepts"](value):
        return f"{_SETTING}[{name!r}] must be {field.metadata['wanted']}, not {value!r}"
    return None


def _forget(*, setting: str, **_: Any) -> None:
    global _current
    if setting == _SETTING:
        _current = None


setting_changed.connect(_forget, dispatch_uid="headrace.conf")
