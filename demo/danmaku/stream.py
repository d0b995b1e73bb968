"""The comments of one process on their way to everyone, a batch at a time.

Rules of this file:

- Whatever comes within a tenth of a second is kept in one transaction, and then told in one event,
  however much it is: what a thousand comments a second cost a viewer is ten messages.
- A batch has at most ``DANMAKU_SHOWN`` comments, spread evenly over those that came. Who looks on
  can't read more; the event says how many were left out.
- Nobody's own comment is left out for themselves: it goes to all their pages by a group of theirs.
"""

import asyncio
import itertools
import logging
from collections import defaultdict
from collections.abc import Iterable

from django.conf import settings

from danmaku.groups import FILM, own_group
from danmaku.models import Comment
from danmaku.rule import thinned
from headrace.db import database_sync_to_async
from headrace.layers import get_channel_layer
from live.events import for_browsers
from live.limits import Refused

__all__ = ["Stream"]

logger = logging.getLogger(__name__)


class Stream:
    """What waits for the next batch, and the task that sees to it while there is something."""

    def __init__(self) -> None:
        self._posted: list[tuple[Comment, asyncio.Future[None]]] = []
        self._passing: list[dict] = []
        self._task: asyncio.Task[None] | None = None
        #: When the next batch may go out, on the loop's clock: whoever writes alone waits for none.
        self._next_at = 0.0

    async def post(self, comment: Comment) -> None:
        """Keep a comment and tell everyone, or raise :class:`Refused`."""
        if len(self._posted) >= settings.DANMAKU_WAITING:
            raise Refused("busy", "Too many are writing just now.", retry_after_s=1.0)
        answer = asyncio.get_running_loop().create_future()
        self._posted.append((comment, answer))
        self._see_to_it()
        await answer

    def pass_on(self, comments: Iterable[dict]) -> None:
        """Tell everyone comments that aren't kept, as far as there is room for them."""
        room = settings.DANMAKU_WAITING - len(self._passing)
        self._passing.extend(itertools.islice(comments, room))
        self._see_to_it()

    def _see_to_it(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._posted or self._passing:
            await asyncio.sleep(max(0.0, self._next_at - loop.time()))
            self._next_at = loop.time() + settings.DANMAKU_BATCH_S
            posted, self._posted = self._posted, []
            passing, self._passing = self._passing, []
            kept = await self._keep(posted) if posted else []
            try:
                await self._tell([*(comment.public() for comment in kept), *passing])
            except Exception:  # the next batch has its own luck, and people who wait for it
                logger.exception("%d comments were kept but not told", len(kept))

    async def _keep(self, posted: list[tuple[Comment, asyncio.Future[None]]]) -> list[Comment]:
        """Return what was kept; who posted something else is told why not."""
        comments = [comment for comment, _ in posted]
        try:
            words = await database_sync_to_async(Comment.objects.keep)(comments)
        except Exception as error:  # it belongs to those who wait, and they handle it
            for _, answer in posted:
                if not answer.done():
                    answer.set_exception(error)
            return []
        for (_, answer), word in zip(posted, words, strict=True):
            if answer.done():  # the connection has ended meanwhile
                continue
            if word is None:
                answer.set_result(None)
            else:
                answer.set_exception(
                    Refused("forbidden_word", f"“{word}” is not wanted here.", word=word)
                )
        return [comment for comment, word in zip(comments, words, strict=True) if word is None]

    async def _tell(self, comments: list[dict]) -> None:
        if not comments:
            return
        shown = thinned(comments, settings.DANMAKU_SHOWN)
        layer = get_channel_layer()
        left_out = len(comments) - len(shown)
        await layer.group_send(
            FILM, for_browsers({"type": "comments", "comments": shown, "left_out": left_out})
        )
        if not left_out:
            return
        told = {id(comment) for comment in shown}
        own = defaultdict(list)
        for comment in comments:
            if id(comment) not in told and not comment.get("passing"):
                own[comment["author"]["id"]].append(comment)
        for user_id, theirs in own.items():
            await layer.group_send(
                own_group(user_id),
                for_browsers({"type": "comments", "comments": theirs, "left_out": 0}),
            )
