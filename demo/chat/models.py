"""Rooms, what is written in them, and how far everyone has read.

Messages are numbered per room, without a gap and in the order of their commits. Everything that
must not lose a message rests on this: a browser that has seen 41 and gets 43 knows what to ask
for, and what a reader has not seen is a subtraction.
"""

from datetime import UTC

from django.conf import settings
from django.db import IntegrityError, models, transaction
from django.db.models import F
from django.urls import reverse
from django.utils import timezone
from django.utils.crypto import get_random_string
from django.utils.text import slugify

__all__ = ["Message", "ReadMark", "Room"]


class RoomQuerySet(models.QuerySet):
    def with_unread(self, user):
        """Add ``read`` (the last number that ``user`` has read) and ``unread`` to each room.

        Who was never in a room owes it nothing.
        """
        mark = ReadMark.objects.filter(room=models.OuterRef("pk"), user=user).values("number")
        return self.annotate(
            read=models.functions.Coalesce(models.Subquery(mark), F("last_number")),
            unread=F("last_number") - F("read"),
        )

    def find(self, slug) -> "Room | None":
        return self.filter(slug=slug).first()


class Room(models.Model):
    """A place to talk, open to every account."""

    name = models.CharField(max_length=40, unique=True)
    slug = models.SlugField(max_length=50, unique=True, editable=False)
    topic = models.CharField(max_length=120, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, editable=False, related_name="+"
    )
    last_number = models.PositiveBigIntegerField(default=0, editable=False)

    objects = RoomQuerySet.as_manager()

    class Meta:
        ordering = ("name",)

    def __str__(self):
        return self.name

    def save(self, *args, **kwargs):
        if not self.slug:
            self.slug = slugify(self.name)
            # Nothing left of a name in another script, or two names that differ by accents only.
            if not self.slug or Room.objects.filter(slug=self.slug).exists():
                ending = get_random_string(6, "abcdefghjkmnpqrstuvwxyz23456789")
                self.slug = f"{self.slug or 'room'}-{ending}"
        super().save(*args, **kwargs)

    def get_absolute_url(self):
        return reverse("room", args=(self.slug,))

    def public(self) -> dict:
        """Return what a list of rooms shows, ready for JSON."""
        return {
            "slug": self.slug,
            "name": self.name,
            "topic": self.topic,
            "url": self.get_absolute_url(),
            "number": self.last_number,
        }


class MessageQuerySet(models.QuerySet):
    def post(self, *, room, author, client_id, text) -> "tuple[Message, bool]":
        """Keep a message, and return it with whether it is new.

        ``client_id`` is the browser's own name for the message: sent again after a lost
        connection, it finds what was kept the first time.
        """
        same = self.filter(room=room, author=author, client_id=client_id).select_related("author")
        if kept := same.first():
            return kept, False
        try:
            with transaction.atomic():
                # The update locks the room's row first, so that numbers are given one by one.
                Room.objects.filter(pk=room.pk).update(last_number=F("last_number") + 1)
                number = Room.objects.values_list("last_number", flat=True).get(pk=room.pk)
                message = self.create(
                    room=room, author=author, client_id=client_id, text=text, number=number
                )
        except IntegrityError:
            # The same message came over another connection at the same time, and was first. (Any
            # other breach of integrity finds nothing here, and goes on as DoesNotExist.)
            return same.get(), False
        ReadMark.objects.advance(room=room, user=author, number=number)
        return message, True

    def page(self, *, room, before=None, after=None) -> "list[Message]":
        """Return a page, oldest first: the last one, or the one before or after a number."""
        messages = self.filter(room=room).select_related("author")
        if after is not None:
            return list(
                messages.filter(number__gt=after).order_by("number")[: settings.CHAT_PAGE_SIZE]
            )
        if before is not None:
            messages = messages.filter(number__lt=before)
        return list(messages.order_by("-number")[: settings.CHAT_PAGE_SIZE])[::-1]

    def missed(self, *, room, seen) -> "tuple[list[Message], bool]":
        """Return what came after ``seen``, and whether a page has to start afresh with it.

        Who was away for more than a page gets the last page, rather than everything; and so does
        who has seen more than there is.
        """
        messages = self.page(room=room, after=seen)
        last_number = Room.objects.values_list("last_number", flat=True).get(pk=room.pk)
        if (messages[-1].number if messages else seen) == last_number:
            return messages, False
        return self.page(room=room), True


class Message(models.Model):
    """Something said in a room."""

    room = models.ForeignKey(Room, models.CASCADE, related_name="messages")
    number = models.PositiveBigIntegerField()
    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="messages")
    client_id = models.UUIDField()
    text = models.TextField()
    sent_at = models.DateTimeField(default=timezone.now)

    objects = MessageQuerySet.as_manager()

    class Meta:
        ordering = ("room", "number")
        constraints = (
            models.UniqueConstraint(fields=("room", "number"), name="message_number_in_room"),
            models.UniqueConstraint(
                fields=("room", "author", "client_id"), name="message_kept_once"
            ),
        )

    def __str__(self):
        return f"{self.room}/{self.number}"

    def public(self) -> dict:
        """Return the message as browsers get it, ready for JSON."""
        return {
            "number": self.number,
            "client_id": str(self.client_id),
            "author": self.author.public(),
            "text": self.text,
            "sent_at": self.sent_at.astimezone(UTC).isoformat(timespec="seconds"),
        }


class ReadMarkQuerySet(models.QuerySet):
    def advance(self, *, room, user, number) -> int | None:
        """Note that ``user`` has read up to ``number``; return the mark, or None if it stood there.

        A mark goes neither back, nor beyond what there is to read.
        """
        number = min(number, Room.objects.values_list("last_number", flat=True).get(pk=room.pk))
        mark = self.filter(room=room, user=user)
        if mark.filter(number__lt=number).update(number=number):
            return number
        _, created = self.get_or_create(room=room, user=user, defaults={"number": number})
        return number if created else None


class ReadMark(models.Model):
    """How far someone has read in a room."""

    room = models.ForeignKey(Room, models.CASCADE, related_name="+")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    number = models.PositiveBigIntegerField()

    objects = ReadMarkQuerySet.as_manager()

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=("room", "user"), name="one_mark_per_reader"),
        )

    def __str__(self):
        return f"{self.user} read {self.room} up to {self.number}"
