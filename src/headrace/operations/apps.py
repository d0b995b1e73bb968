"""The app ``headrace.operations``."""

from typing import Any

from django.apps import AppConfig, apps
from django.core.checks import CheckMessage, Error, register
from django.utils.translation import gettext_lazy as _

__all__ = ["OperationsConfig"]


class OperationsConfig(AppConfig):
    """The operations page in the admin; write ``"headrace.operations"`` in ``INSTALLED_APPS``."""

    name = "headrace.operations"
    label = "headrace_operations"
    verbose_name = _("Headrace")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the check of what the page needs."""
        register(_check_needs)


def _check_needs(**_: Any) -> list[CheckMessage]:
    missing = [
        name
        for name in ("django.contrib.admin", "django.contrib.auth", "django.contrib.sessions")
        if not apps.is_installed(name)
    ]
    if not missing:
        return []
    return [
        Error(
            f"headrace.operations is a page of Django's admin, which needs {', '.join(missing)}",
            hint="add what is missing to INSTALLED_APPS, or take headrace.operations out",
            id="headrace.operations.E001",
        )
    ]
