"""The page in the admin, and who may see it and do what on it.

Rules of this file:

- The page holds no number: all of them come over its socket, to which the same rights apply.
- A project that wants other rights overrides ``has_view_permission`` or
  ``has_close_permission`` and registers its own class: page and socket follow it both.
"""

from collections.abc import Mapping
from typing import Any

from django.contrib import admin
from django.contrib.admin.exceptions import NotRegistered
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, get_script_prefix, path
from django.utils.translation import gettext as _

from .models import Operations
from .words import words

__all__ = ["SOCKET_PATH", "OperationsAdmin", "admin_of"]

#: Where the page looks for its socket, and where ``routing`` puts it.
SOCKET_PATH = "ws/headrace/operations/"


@admin.register(Operations)
class OperationsAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """The operations page."""

    #: Where the page finds its WebSocket, below the place that the site is mounted at.
    socket_path = SOCKET_PATH

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Let the staff see the page."""
        del obj
        user = request.user
        return bool(user.is_active and getattr(user, "is_staff", False))

    def has_close_permission(self, request: HttpRequest) -> bool:
        """Let superusers, and staff with the permission ``close_connection``, close connections."""
        user = request.user
        return self.has_view_permission(request) and user.has_perm(
            "headrace_operations.close_connection"
        )

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Show the page in the index to whom it is for."""
        return self.has_view_permission(request)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """There is nothing to add."""
        del request, obj
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """There is nothing to change."""
        del request, obj
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """There is nothing to delete."""
        del request, obj
        return False

    def get_urls(self) -> list[URLPattern]:
        """Return the one page, in the place of a list of rows."""
        options = self.opts
        name = f"{options.app_label}_{options.model_name}_changelist"
        return [path("", self.admin_site.admin_view(self.page), name=name)]

    def page(self, request: HttpRequest) -> HttpResponse:
        """Return the page."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        request.current_app = self.admin_site.name
        context: Mapping[str, Any] = {
            **self.admin_site.each_context(request),
            "title": _("Operations"),
            "opts": self.opts,
            "socket_path": get_script_prefix() + self.socket_path.removeprefix("/"),
            "may_close": self.has_close_permission(request),
            "words": words(),
        }
        return TemplateResponse(request, "headrace/operations/page.html", dict(context))


def admin_of(site: admin.AdminSite) -> OperationsAdmin | None:
    """Return what decides on this site; None where the page is not in it."""
    try:
        found = site.get_model_admin(Operations)
    except NotRegistered:
        return None
    return found if isinstance(found, OperationsAdmin) else None
