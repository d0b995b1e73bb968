"""What was said to the film, at which of its moments, and which words may not be.

Comments are kept by the batch, for a thousand a second are a thousand transactions otherwise.
"""

from collections.abc import Iterable, Sequence

from django.conf import settings
from django.db import models
from django.db.models import F, Window
from django.db.models.functions import RowNumber
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from danmaku.moderation import first_word_of

__all__ = ["Comment", "ForbiddenWord"]

OWN_REPLAYED = 100


class CommentQuerySet(models.QuerySet):
    def keep(self, comments: "Sequence[Comment]") -> list[str | None]:
        """Keep those without a forbidden word; return for each the word in it, or None.

        What is sent again after a lost connection has the same ``client_id`` and is kept once.
        """
        words = list(ForbiddenWord.objects.values_list("word", flat=True))
        found = [first_word_of(words, comment.text) for comment in comments]
        self.bulk_create(
            (comment for comment, word in zip(comments, found, strict=True) if word is None),
            ignore_conflicts=True,
        )
        return found

    def replay(self, user) -> "list[Comment]":
        """Return what a page gets that comes later, oldest first.

        Of each second of the film the latest few, and the user's own.
        """
        rank = Window(RowNumber(), partition_by=F("second"), order_by=F("pk").desc())
        latest = self.annotate(rank=rank).filter(rank__lte=settings.DANMAKU_REPLAYED)
        own = self.filter(author=user).order_by("-pk")[:OWN_REPLAYED]
        found: Iterable[Comment] = (
            *latest.select_related("author"),
            *own.select_related("author"),
        )
        return sorted({comment.pk: comment for comment in found}.values(), key=lambda each: each.pk)


class Comment(models.Model):
    """Something said to the film."""

    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    client_id = models.UUIDField(editable=False)
    text = models.CharField(max_length=200)
    at_ms = models.PositiveIntegerField(_("milliseconds into the film"))
    second = models.GeneratedField(
        expression=F("at_ms") / 1000,
        output_field=models.PositiveSmallIntegerField(_("second of the film")),
        db_persist=True,
    )
    sent_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = CommentQuerySet.as_manager()

    class Meta:
        ordering = ("-pk",)
        verbose_name = _("comment")
        verbose_name_plural = _("comments")
        indexes = (models.Index(fields=("second", "-id"), name="latest_of_a_second"),)
        constraints = (
            models.UniqueConstraint(fields=("author", "client_id"), name="comment_kept_once"),
        )

    def __str__(self):
        return self.text

    def public(self) -> dict:
        """Return the comment as browsers get it, ready for JSON."""
        author = self.author
        return {
            "client_id": str(self.client_id),
            "author": {"id": author.pk, "name": author.name},
            "text": self.text,
            "at_ms": self.at_ms,
        }


class ForbiddenWord(models.Model):
    """A word that no comment may have; staff keep the list, and it holds from the next moment."""

    word = models.CharField(_("word"), max_length=60, unique=True)

    class Meta:
        ordering = ("word",)
        verbose_name = _("forbidden word")
        verbose_name_plural = _("forbidden words")

    def __str__(self):
        return self.word
