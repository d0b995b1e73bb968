"""``{% bell %}``: the bell, for the bar of every page."""

from django import template

from notifications.apps import kinds
from notifications.models import Inbox

__all__ = ["bell"]

register = template.Library()


@register.inclusion_tag("notifications/_bell.html", takes_context=True)
def bell(context):
    """Show how much is unread to who is logged in, and nothing to others."""
    user = context.get("user")
    if user is None or not user.is_authenticated:
        return {}
    return {"inbox": Inbox.of(user), "kinds": kinds()}
