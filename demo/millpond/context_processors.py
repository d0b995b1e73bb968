"""What every template may use."""

from millpond.apps import showcases

__all__ = ["applications", "theme"]


def theme(request):
    """Give the theme that the reader chose, so that the page is drawn in it from the first moment.

    It is a cookie and no local storage: those are read after the page was drawn, or by a script
    that holds it up.
    """
    chosen = request.COOKIES.get("theme")
    return {"theme": chosen if chosen in {"light", "dark"} else None}


def applications(request):
    """Give the applications of the site, and which of them this page belongs to."""
    found = showcases()
    match = request.resolver_match
    here = match.func.__module__.partition(".")[0] if match else ""
    current = next((each for each in found if here and each.label == here), None)
    return {"showcases": found, "current_showcase": current}
