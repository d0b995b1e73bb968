"""Where staff see the public rooms, take messages away, mute and close.

It does what a page does, through the same actions: whoever has the room open sees it at once.
Conversations of two are not shown here, whoever asks.
"""

from django.contrib import admin, messages
from django.utils.translation import gettext_lazy as _

from chat import actions
from chat.models import Message, Mute, Room
from live.limits import Refused

__all__ = ["MessageAdmin", "MuteAdmin", "RoomAdmin"]


class ModeratedAdmin(admin.ModelAdmin):
    """Rows that change by actions only."""

    def has_change_permission(self, request, obj=None):
        return False

    def has_add_permission(self, request):
        return False


@admin.register(Room)
class RoomAdmin(ModeratedAdmin):
    list_display = ("name", "topic", "is_closed", "last_number")
    search_fields = ("name", "topic")
    fields = ("name", "topic", "created_at", "created_by", "closed_at", "last_number")
    actions = ("close_rooms", "open_rooms")

    def get_queryset(self, request):
        return super().get_queryset(request).public()

    def has_delete_permission(self, request, obj=None):
        return False

    def has_moderate_permission(self, request):
        return request.user.has_perm("chat.moderate_room")

    @admin.display(boolean=True, description=_("closed"))
    def is_closed(self, room):
        return room.is_closed

    @admin.action(permissions=["moderate"], description=_("Close the rooms"))
    def close_rooms(self, request, rooms):
        for room in rooms:
            actions.close(room, request.user, closed=True)

    @admin.action(permissions=["moderate"], description=_("Open the rooms again"))
    def open_rooms(self, request, rooms):
        for room in rooms:
            actions.close(room, request.user, closed=False)


@admin.register(Message)
class MessageAdmin(ModeratedAdmin):
    """Deleted here as on a page: its place stays, and says that staff did it."""

    list_display = ("room", "number", "author", "summary", "sent_at", "deleted")
    list_select_related = ("room", "author")
    list_filter = ("sent_at",)
    search_fields = ("text", "author__username", "room__name")
    exclude = ("client_id", "change", "image_width", "image_height", "image")
    ordering = ("-sent_at",)

    def get_queryset(self, request):
        return super().get_queryset(request).filter(room__one=None)

    def has_delete_permission(self, request, obj=None):
        return request.user.has_perm("chat.moderate_room")

    def delete_model(self, request, message):
        actions.delete(message.room, request.user, number=message.number)

    def delete_queryset(self, request, chosen):
        for message in chosen.select_related("room"):
            self.delete_model(request, message)


@admin.register(Mute)
class MuteAdmin(ModeratedAdmin):
    """Deleted, it lets them write again."""

    list_display = ("user", "room", "until", "by")
    list_select_related = ("user", "room", "by")

    def has_delete_permission(self, request, obj=None):
        return request.user.has_perm("chat.moderate_room")

    def delete_model(self, request, mute):
        try:
            actions.mute(mute.room, request.user, user_id=mute.user_id, minutes=0)
        except Refused as refused:
            messages.error(request, str(refused))

    def delete_queryset(self, request, chosen):
        for mute in chosen.select_related("room"):
            self.delete_model(request, mute)
