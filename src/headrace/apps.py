"""The Django application: put ``"headrace"`` into ``INSTALLED_APPS``."""

from django.apps import AppConfig

__all__ = ["HeadraceConfig"]


class HeadraceConfig(AppConfig):
    """Registers Headrace's commands and checks with Django."""

    name = "headrace"
    verbose_name = "Headrace"

    def ready(self) -> None:
        """Register the checks; hear of database connections, and of logins that end."""
        from . import db  # noqa: F401 - its import connects the signal
        from .auth import sockets
        from .checks import register_checks

        sockets.follow_setting()
        register_checks()
