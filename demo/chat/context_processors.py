"""What every template may use."""

__all__ = ["theme"]


def theme(request):
    """Give the theme that the reader chose, so that the page is drawn in it from the first moment.

    It is a cookie and no local storage: those are read after the page was drawn, or by a script
    that holds it up.
    """
    chosen = request.COOKIES.get("theme")
    return {"theme": chosen if chosen in {"light", "dark"} else None}
