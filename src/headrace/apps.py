"""The Django application: put ``"headrace"`` into ``INSTALLED_APPS``."""

from django.apps import AppConfig

__all__ = ["HeadraceConfig"]


class HeadraceConfig(AppConfig):
    """Registers Headrace's commands and checks with Django."""

    name = "headrace"
    verbose_name = "Headrace"

    def ready(self) -> None:
        """Register the checks, and watch database connections from the first one on."""
        from . import db  # noqa: F401 - its import connects the signal
        from .checks import register_checks

        register_checks()
