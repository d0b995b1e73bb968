from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _

from millpond.apps import Showcase


class ChatConfig(AppConfig):
    name = "chat"
    verbose_name = _("Chat")
    showcase = Showcase(
        order=10,
        title=_("Chat"),
        summary=_("Rooms, people, who is typing, what is unread. Pull the plug: nothing is lost."),
        url_name="rooms",
        icon="M4 5.5h16v11H10l-4.5 3.5v-3.5H4z",
        sources=(
            "chat/consumers.py",
            "chat/routing.py",
            "chat/groups.py",
            "chat/actions.py",
            "chat/models.py",
            "chat/presence.py",
            "chat/images.py",
            "chat/views.py",
            "chat/admin.py",
            "chat/static/chat/js/log.js",
            "chat/static/chat/js/room.js",
            "live/consumers.py",
        ),
    )
