"""The pages: the list of rooms, one room, a new room.

A room's page arrives complete, with its last messages; the scripts then keep it up to date.
"""

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.shortcuts import get_object_or_404, redirect, render

from chat.forms import RoomForm
from chat.groups import LOBBY
from chat.models import Message, Room
from headrace.db import group_send_on_commit
from live.events import for_browsers

__all__ = ["new_room", "room", "rooms"]


def rooms(request):
    """Show every room, and how much is unread in each."""
    all_rooms = list(Room.objects.with_unread(request.user))
    newest = Message.objects.filter(number=F("room__last_number")).select_related("author")
    latest = {message.room_id: message for message in newest}
    for each in all_rooms:
        each.latest = latest.get(each.pk)
    return render(request, "chat/rooms.html", {"rooms": all_rooms})


def room(request, slug):
    """Show a room with its last messages."""
    all_rooms = Room.objects.with_unread(request.user)
    here = get_object_or_404(all_rooms, slug=slug)
    messages = Message.objects.page(room=here)
    return render(
        request,
        "chat/room.html",
        {
            "room": here,
            "rooms": all_rooms,
            "page": messages,
            "has_older": bool(messages) and messages[0].number > 1,
            "limit": settings.CHAT_MESSAGE_LENGTH,
        },
    )


def new_room(request):
    """Open a room, and tell every list of rooms."""
    form = RoomForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        with transaction.atomic():
            form.instance.created_by = request.user
            opened = form.save()
            # Not before the commit: who is told may ask for the room at once.
            group_send_on_commit(LOBBY, for_browsers({"type": "room", "room": opened.public()}))
        return redirect(opened)
    return render(
        request,
        "chat/new_room.html",
        {"form": form, "rooms": Room.objects.with_unread(request.user)},
    )
