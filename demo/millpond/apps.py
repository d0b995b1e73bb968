"""The project as an application: its templates, its look, its start page."""

from dataclasses import dataclass

from django.apps import AppConfig, apps
from django.utils.functional import Promise

__all__ = ["MillpondConfig", "Showcase", "showcases"]


class MillpondConfig(AppConfig):
    name = "millpond"


@dataclass(frozen=True, kw_only=True)
class Showcase:
    """An application of the site, as the start page and the bar of every page show it.

    An application has one as the attribute ``showcase`` of its AppConfig.
    """

    #: Where among the others.
    order: int
    title: str | Promise
    #: One sentence that makes one want to try it.
    summary: str | Promise
    #: The name of its first page's URL.
    url_name: str
    #: The path data of its icon, in a square of 24, drawn as a line.
    icon: str
    #: Files of the application that its page points out, by their paths in ``demo/``.
    sources: tuple[str, ...] = ()


def showcases() -> list[Showcase]:
    """Return those of all installed applications, in their order."""
    found = (getattr(config, "showcase", None) for config in apps.get_app_configs())
    return sorted(filter(None, found), key=lambda showcase: showcase.order)
