"""The bell of a page, and the page of a post.

Both are told what happens by the fast lane: no consumer wakes for a notification. Every message is
a JSON object with a ``type``.

From the bell to the server:

- ``read``: ``number`` of a notification
- ``read_all``: ``up_to`` the number of the newest that the reader could see
- ``list``: the bell has missed something, and wants ``welcome`` again

From the server to the bell: ``welcome`` (how many are unread, and the newest), ``notification``,
``read``; each with the ``revision`` of the inbox, by which the bell knows what is old and what it
has missed. To the page of a post: ``welcome``, ``comment``.
"""

import re
from urllib.parse import parse_qs

from headrace.db import database_sync_to_async
from live.consumers import GONE, LiveConsumer
from live.limits import number_of
from notifications.groups import bell_group, post_group
from notifications.models import Comment, Inbox, Notification, Post

__all__ = ["BellConsumer", "PostConsumer"]

LATEST = 10
MOST_COMMENTS = 100


class BellConsumer(LiveConsumer):
    """The bell of one page. There is one for each open page, so it is small."""

    commands = {"read": "mark_read", "read_all": "mark_all_read", "list": "welcome"}
    user_group = staticmethod(bell_group)

    async def enter(self):
        # The group is entered already: what comes from now on is told, whatever this reads.
        await self.welcome()

    async def layer_gap(self, event):
        """Read again: the channel layer may have lost something for this page."""
        await self.welcome()

    async def welcome(self, content=None):
        await self.send_json(await database_sync_to_async(self.state)())

    def state(self):
        # The count first: what comes in between is in the list, and told again.
        inbox = Inbox.of(self.user)
        latest = Notification.objects.filter(user=self.user)[:LATEST]
        return {
            "type": "welcome",
            "you": self.user.pk,
            "unread": inbox.unread,
            "revision": inbox.revision,
            "latest": [each.public() for each in latest],
        }

    async def mark_read(self, content):
        number = number_of(content.get("number"), "number")
        await database_sync_to_async(Notification.objects.mark_read)(self.user, number)

    async def mark_all_read(self, content):
        up_to = number_of(content.get("up_to"), "up_to")
        await database_sync_to_async(Notification.objects.mark_all_read)(self.user, up_to)


class PostConsumer(LiveConsumer):
    """One page that shows a post: it is told of new comments."""

    async def enter(self):
        number = self.scope["url_route"]["kwargs"]["number"]
        await self.channel_layer.group_add(post_group(number), self.channel_name)
        comments = await database_sync_to_async(self.missed)(number)
        if comments is None:
            await self.refuse(GONE, "unknown_post", "There is no such post (any more).")
            return
        await self.send_json({"type": "welcome", "comments": comments})

    def missed(self, number):
        """Return what came after the comment that the page names in ``?seen=``."""
        query = parse_qs(self.scope["query_string"].decode("latin-1"))
        digits = query.get("seen", ["0"])[0]
        seen = int(digits) if re.fullmatch("[0-9]{1,15}", digits) else 0
        if not Post.objects.filter(pk=number).exists():
            return None
        comments = Comment.objects.filter(post=number, pk__gt=seen).select_related("author")
        return [each.public() for each in comments.order_by("-pk")[:MOST_COMMENTS]][::-1]
