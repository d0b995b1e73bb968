"""The page: all instruments, without a price. Prices come over the WebSocket."""

from django.shortcuts import render

from quotes.consumers import RATES
from quotes.models import Instrument

__all__ = ["quotes"]


def quotes(request):
    """Show what is traded."""
    return render(
        request, "quotes/quotes.html", {"instruments": Instrument.objects.all(), "rates": RATES}
    )
