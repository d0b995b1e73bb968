"""The Django application: put ``"headrace"`` into ``INSTALLED_APPS``."""

from django.apps import AppConfig

__all__ = ["HeadraceConfig"]


class HeadraceConfig(AppConfig):
    """Registers Headrace's commands and checks with Django."""

    name = "headrace"
    verbose_name = "Headrace"
