"""The page."""

from django.conf import settings
from django.shortcuts import render
from django.views.decorators.http import require_safe

from polling.feed import RATES

__all__ = ["page"]

INTERVALS_MS = (100, 200, 500, 1000, 2000, 5000)


@require_safe
def page(request):
    """Show the four ways, none of them begun."""
    choices = {"rates": RATES, "intervals": INTERVALS_MS, "waits_s": settings.POLLING_WAIT_S}
    return render(request, "polling/polling.html", choices)
