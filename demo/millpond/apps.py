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

    @property
    def label(self) -> str:
        """The application's folder in ``demo/``."""
        return self.sources[0].partition("/")[0] if self.sources else ""

    @property
    def miniatures(self) -> tuple[str, str]:
        """The templates of its picture on the start page: the first that there is."""
        return f"millpond/miniatures/{self.label}.html", "millpond/miniatures/other.html"


def showcases() -> list[Showcase]:
    """Return those of all installed applications, in their order."""
    found = (getattr(config, "showcase", None) for config in apps.get_app_configs())
    return sorted(filter(None, found), key=lambda showcase: showcase.order)
