"""What there is to know about a user, whoever found out who it is.

Rules of this file:

- Nothing here imports a model when it is imported: an asgi.py is read before there are any.
- A user need not be a model, nor have what Django's have; what is missing says nothing.
"""

from typing import Any

__all__ = ["anonymous", "auth_hash", "is_welcome"]


def anonymous() -> Any:
    """Return a user who is nobody."""
    from django.contrib.auth.models import AnonymousUser

    return AnonymousUser()


def auth_hash(user: Any) -> str:
    """Return what changes with the user's password; the empty string where nothing does."""
    return user.get_session_auth_hash() if hasattr(user, "get_session_auth_hash") else ""


def is_welcome(user: Any) -> bool:
    """Tell whether this is somebody, and not deactivated."""
    if user is None:
        return False
    return bool(getattr(user, "is_authenticated", True) and getattr(user, "is_active", True))
