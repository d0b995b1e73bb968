"""The page with the film. What was said to it comes over the WebSocket."""

from django.conf import settings
from django.shortcuts import render

__all__ = ["film"]


def film(request):
    """Show the film."""
    rules = {
        "film_ms": settings.DANMAKU_FILM_MS,
        "length": settings.DANMAKU_LENGTH,
        "shown": settings.DANMAKU_SHOWN,
        "replayed": settings.DANMAKU_REPLAYED,
    }
    return render(request, "danmaku/film.html", rules)
