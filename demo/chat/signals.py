"""What happens elsewhere and concerns the conversation."""

from asgiref.sync import async_to_sync
from django.contrib.auth.signals import user_logged_out
from django.dispatch import receiver

from chat.consumers import LOGGED_OUT
from chat.groups import session_group
from headrace.layers import get_channel_layer


@receiver(user_logged_out)
def close_websockets(sender, request, **kwargs):
    """Log out in one tab, and every tab of that log-in is logged out.

    A WebSocket is asked who it is when it opens, and never again: this is what ends it.
    """
    if request.session.session_key:
        async_to_sync(get_channel_layer().group_send)(
            session_group(request.session.session_key),
            {"type": "websocket.close", "code": LOGGED_OUT},
        )
