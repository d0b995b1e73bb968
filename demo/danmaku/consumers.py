"""The film: what its viewers may say, and what they are told.

From the browser, beside what ``live.consumers`` says:

- ``comment``: ``client_id`` (a UUID of the browser's making), ``text``, ``at_ms`` (the moment of
  the film). Once it is kept, the answer is ``kept`` with the comment, or else an ``error`` with the
  same ``client_id``. Sent again with that, it is answered and not kept twice.
- ``crowd``: ``at_ms``; a thousand comments a second for a few seconds, which aren't kept

To the browser: ``welcome`` (what to replay, and at which moment the film is for everyone),
``comments`` (a batch, and how many were ``left_out`` of it), ``gone`` (one that staff took away),
``kept``, ``error``, ``pong``. A batch may overtake the welcome and may have what is in that too: a
page knows a comment by its author and ``client_id``.
"""

import time

from django.conf import settings

from danmaku.crowd import Crowd
from danmaku.groups import FILM, own_group
from danmaku.models import Comment
from danmaku.stream import Stream
from headrace.db import database_sync_to_async
from live.consumers import LiveConsumer
from live.limits import Allowance, Refused, number_of, text_of, uuid_of

__all__ = ["FilmConsumer"]

# Of this process; what must be known to all is in the database.
stream = Stream()
crowd = Crowd(stream)


class FilmConsumer(LiveConsumer):
    """One page that shows the film."""

    commands = {"comment": "comment", "crowd": "call_crowd"}

    async def enter(self):
        self.posting = Allowance(
            burst=settings.DANMAKU_BURST, per_second=settings.DANMAKU_PER_SECOND
        )
        # First the groups, then what was said until now: nothing can fall in between.
        await self.channel_layer.group_add(FILM, self.channel_name)
        await self.channel_layer.group_add(own_group(self.user.pk), self.channel_name)
        comments = await database_sync_to_async(Comment.objects.replay)(self.user)
        await self.send_json(
            {
                "type": "welcome",
                "you": self.user.pk,
                "comments": [comment.public() for comment in comments],
                # The clock is the same in every process: who comes sees what the others see.
                "at_ms": int(time.time() * 1000) % settings.DANMAKU_FILM_MS,
            }
        )

    async def comment(self, content):
        text = text_of(content.get("text"), length=settings.DANMAKU_LENGTH, what="A comment")
        comment = Comment(
            author=self.user,
            client_id=uuid_of(content.get("client_id")),
            text=" ".join(text.split()),
            at_ms=self.moment_of(content),
        )
        if wait := self.posting.take(time.monotonic()):
            raise Refused("rate", "You write faster than anyone can read.", retry_after_s=wait)
        await stream.post(comment)
        await self.send_json({"type": "kept", "comment": comment.public()})

    async def call_crowd(self, content):
        crowd.come(self.moment_of(content))

    @staticmethod
    def moment_of(content):
        return number_of(content.get("at_ms"), "at_ms", most=settings.DANMAKU_FILM_MS - 1)
