"""The application, and what kinds of notifications there are."""

from django.apps import AppConfig, apps
from django.utils.translation import gettext_lazy as _

from millpond.apps import Showcase

__all__ = ["NotificationsConfig", "kinds"]


class NotificationsConfig(AppConfig):
    name = "notifications"
    notification_kinds = {"comment": _("New comment")}
    showcase = Showcase(
        order=20,
        title=_("Notifications"),
        summary=_("A bell on every page. It rings when it is true, and waits for who was away."),
        url_name="board",
        icon="M6 17V11a6 6 0 0 1 12 0v6l1.5 2h-15zM10 21.5h4",
        sources=(
            "notifications/__init__.py",
            "notifications/models.py",
            "notifications/consumers.py",
            "notifications/groups.py",
            "notifications/views.py",
            "notifications/management/commands/comment.py",
            "notifications/static/notifications/js/bell.js",
        ),
    )


def kinds() -> dict[str, str]:
    """Return the kinds of all installed applications, in the language of who reads."""
    return {
        kind: str(title)
        for config in apps.get_app_configs()
        for kind, title in getattr(config, "notification_kinds", {}).items()
    }
