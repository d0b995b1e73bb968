"""The page of the pond. What happens on it comes over the WebSocket."""

from django.shortcuts import render

__all__ = ["arena"]


def arena(request):
    """Show the pond."""
    return render(request, "arena/arena.html")
