"""The start page, and the sources of the applications for who wants to read them."""

from pathlib import Path

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.utils.cache import patch_cache_control

from millpond.apps import showcases

__all__ = ["source", "start"]


@login_not_required
def start(request):
    """Show what there is to try."""
    return render(request, "millpond/start.html")


@login_not_required
def source(request, path):
    """Show one of the files that an application points out, as it is."""
    if not any(path in each.sources for each in showcases()):
        raise Http404
    text = Path(settings.BASE_DIR, path).read_text(encoding="utf-8")
    response = HttpResponse(text, content_type="text/plain; charset=utf-8")
    response.headers["X-Content-Type-Options"] = "nosniff"
    patch_cache_control(response, no_cache=True)
    return response
