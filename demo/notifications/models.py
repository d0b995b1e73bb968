"""What people were told, what of it is unread, and a board whose comments tell something.

Everything is kept before anybody hears of it: rows are written in a transaction, and the browsers
are told after its commit. So a bell that was away finds what it missed, and none rings for
what was rolled back.
"""

from datetime import UTC

from django.conf import settings
from django.db import models, transaction
from django.db.models import F
from django.urls import reverse
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.text import Truncator

from headrace.db import group_send_on_commit
from live.events import for_browsers
from notifications import notify
from notifications.apps import kinds
from notifications.groups import bell_group, post_group

__all__ = ["Comment", "Inbox", "Notification", "Post"]

TEXT_LENGTH = 200


class InboxQuerySet(models.QuerySet):
    def locked(self, user_ids) -> "list[Inbox]":
        """Return the inboxes of these users, which nobody else changes until the commit."""
        self.bulk_create([Inbox(user_id=each) for each in user_ids], ignore_conflicts=True)
        # In one order everywhere, so that two transactions don't wait for each other.
        return list(self.select_for_update().filter(pk__in=user_ids).order_by("pk"))


class Inbox(models.Model):
    """How much somebody has not read, and how often that has changed.

    All changes of one inbox happen one after another, for its row is locked first. A browser that
    is told revision 8 after 6 knows that it missed something; told 6 after 8, that it is late.
    """

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, models.CASCADE, primary_key=True, related_name="+"
    )
    unread = models.PositiveIntegerField(default=0)
    revision = models.PositiveBigIntegerField(default=0)

    objects = InboxQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "inboxes"

    def __str__(self):
        return f"{self.user}: {self.unread} unread"

    @classmethod
    def of(cls, user) -> "Inbox":
        """Return the inbox of a user, which need not be in the database yet."""
        return cls.objects.filter(pk=user.pk).first() or cls(user=user)

    def change(self, *, unread: int) -> None:
        self.unread += unread
        self.revision += 1

    def tell_on_commit(self, kind: str, **event) -> None:
        """Tell every open page of the owner, once this is true."""
        group_send_on_commit(
            bell_group(self.pk),
            for_browsers({"type": kind, "unread": self.unread, "revision": self.revision, **event}),
        )


class NotificationQuerySet(models.QuerySet):
    def notify(self, audience, kind, text, url="") -> "list[Notification]":
        """Keep one for each user of ``audience``: see :func:`notifications.notify`."""
        if kind not in (known := kinds()):
            raise ValueError(
                f"unknown kind of notification: {kind!r}; known are {', '.join(sorted(known))}. "
                "Add it to notification_kinds of your AppConfig"
            )
        if url and not (url.startswith("/") and url_has_allowed_host_and_scheme(url, None)):
            raise ValueError(f"a notification leads to a path of this site, not to {url!r}")
        text = Truncator(text).chars(TEXT_LENGTH)
        with transaction.atomic():
            inboxes = Inbox.objects.locked({user.pk for user in audience})
            kept = self.bulk_create(
                Notification(user_id=inbox.pk, kind=kind, text=text, url=url) for inbox in inboxes
            )
            for inbox in inboxes:
                inbox.change(unread=1)
            # All alike, and nobody else changes them: bulk_update() would say so row by row.
            these = Inbox.objects.filter(pk__in=[inbox.pk for inbox in inboxes])
            these.update(unread=F("unread") + 1, revision=F("revision") + 1)
            for inbox, notification in zip(inboxes, kept, strict=True):
                inbox.tell_on_commit("notification", notification=notification.public())
        return kept

    def mark_read(self, user, number) -> None:
        """Mark one of the user's own as read."""
        self._mark_read(user, {"pk": number}, number=number)

    def mark_all_read(self, user, up_to) -> None:
        """Mark as read what the user could see: not what came after ``up_to``."""
        self._mark_read(user, {"pk__lte": up_to}, up_to=up_to)

    def _mark_read(self, user, which, **event):
        with transaction.atomic():
            (inbox,) = Inbox.objects.locked([user.pk])
            marked = self.filter(user=user, is_read=False, **which).update(is_read=True)
            if marked:
                inbox.change(unread=-marked)
                inbox.save()
                inbox.tell_on_commit("read", **event)


class Notification(models.Model):
    """Something that one user is told."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="notifications")
    kind = models.CharField(max_length=40)
    text = models.CharField(max_length=TEXT_LENGTH)
    url = models.CharField(max_length=300, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    is_read = models.BooleanField(default=False)

    objects = NotificationQuerySet.as_manager()

    class Meta:
        ordering = ("-pk",)
        indexes = (models.Index(fields=("user", "-id"), name="notifications_newest_first"),)

    def __str__(self):
        return f"{self.kind} for {self.user}"

    def get_absolute_url(self):
        return reverse("notification", args=(self.pk,))

    @property
    def title(self) -> str:
        return kinds().get(self.kind, self.kind)

    def public(self) -> dict:
        """Return what the owner's browsers show, ready for JSON.

        The words for its kind are left to the page, which knows its reader's language.
        """
        return {
            "number": self.pk,
            "kind": self.kind,
            "text": self.text,
            "url": self.get_absolute_url(),
            "created_at": self.created_at.astimezone(UTC).isoformat(timespec="seconds"),
            "is_read": self.is_read,
        }


class Post(models.Model):
    """Something to talk about."""

    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="posts")
    title = models.CharField(max_length=80)
    text = models.TextField(max_length=2000)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    followers = models.ManyToManyField(
        settings.AUTH_USER_MODEL, related_name="followed_posts", editable=False
    )

    class Meta:
        ordering = ("-pk",)

    def __str__(self):
        return self.title

    def save(self, *args, **kwargs):
        is_new = self._state.adding
        with transaction.atomic():
            super().save(*args, **kwargs)
            if is_new:
                self.followers.add(self.author)

    def get_absolute_url(self):
        return reverse("board_post", args=(self.pk,))


class Comment(models.Model):
    """What somebody says to a post: its followers are told, and who wrote it is one from now on.

    The model says so itself, and not the view: a comment notifies alike whether it was saved by a
    view, the admin or a management command.
    """

    post = models.ForeignKey(Post, models.CASCADE, related_name="comments")
    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="comments")
    text = models.TextField(max_length=1000)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ("pk",)

    def __str__(self):
        return Truncator(self.text).chars(60)

    def save(self, *args, **kwargs):
        is_new = self._state.adding
        with transaction.atomic():
            super().save(*args, **kwargs)
            if is_new:
                self._tell()

    def get_absolute_url(self):
        return f"{self.post.get_absolute_url()}#comment-{self.pk}"

    def _tell(self):
        notify(
            self.post.followers.exclude(pk=self.author_id),
            "comment",
            f"{self.author.name} · {self.post.title} · {self.text}",
            self.get_absolute_url(),
        )
        self.post.followers.add(self.author)
        group_send_on_commit(
            post_group(self.post_id), for_browsers({"type": "comment", "comment": self.public()})
        )

    def public(self) -> dict:
        """Return what the post's page shows, ready for JSON."""
        return {
            "number": self.pk,
            "author": self.author.public(),
            "text": self.text,
            "created_at": self.created_at.astimezone(UTC).isoformat(timespec="seconds"),
        }
