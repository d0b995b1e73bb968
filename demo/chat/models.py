"""Rooms, what is said in them, how far everyone has read, and who is there.

Messages are numbered per room, without a gap and in the order of their commits: what a reader has
not seen is a subtraction. Beside that each room counts its changes: a message that is written,
edited or deleted, somebody muted, a room closed, each takes the next number of them, and a message
bears that of its own last one. Everything that must not get lost rests on this: a browser that
has every change up to 41 and is told the 43rd knows what to ask for.

What may be done, and who is told of it, is in ``actions.py``.
"""

from collections import defaultdict
from datetime import UTC, timedelta

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import models, transaction
from django.db.models import F, Q
from django.db.models.functions import Coalesce
from django.urls import reverse
from django.utils import timezone
from django.utils.crypto import get_random_string
from django.utils.text import Truncator, slugify

from headrace.db import group_send_on_commit
from live.events import for_browsers, user_group

__all__ = ["Message", "Mute", "Process", "ReadMark", "Room", "Visit"]

# What an image may take of a page, in CSS pixels.
PLACE = (380, 300)


class RoomQuerySet(models.QuerySet):
    def public(self):
        """Leave the rooms that are open to every account."""
        return self.filter(one=None)

    def readable_by(self, user):
        """Leave what ``user`` may read: the public rooms, and their own conversations.

        Pages, WebSockets and images find their room through this, and in no other way.
        """
        return self.filter(Q(one=None) | Q(one=user) | Q(two=user)).select_related("one", "two")

    def with_read(self, user):
        """Leave what ``user`` may read, with ``read``, the last number that they have read.

        Who was never in a room owes it nothing of what was said before they had an account.
        """
        mark = ReadMark.objects.filter(room=models.OuterRef("pk"), user=user).values("number")
        before = Message.objects.filter(room=models.OuterRef("pk"), sent_at__lt=user.date_joined)
        before = before.order_by("-number").values("number")[:1]
        return self.readable_by(user).annotate(
            read=Coalesce(models.Subquery(mark), models.Subquery(before), 0)
        )

    def find(self, slug) -> "Room | None":
        return self.filter(slug=slug).first()

    def list_for(self, user) -> "list[Room]":
        """Return every room that ``user`` may read, with its ``title``."""
        rooms = list(self.with_read(user))
        for room in rooms:
            room.title = room.title_for(user)
        return sorted(rooms, key=lambda room: room.title.casefold())

    def list_with_latest(self, user) -> "list[Room]":
        """Return every room that ``user`` may read, with its ``latest`` message, too."""
        rooms = self.list_for(user)
        newest = Message.objects.filter(room__in=rooms, number=F("room__last_number"))
        latest = {message.room_id: message for message in newest.select_related("author")}
        for room in rooms:
            room.latest = latest.get(room.pk)
        return rooms


class Room(models.Model):
    """A place to talk, open to every account; or a conversation of two, open to nobody else.

    A conversation has no name: each of the two sees that of the other.
    """

    name = models.CharField(max_length=40, blank=True)
    slug = models.SlugField(max_length=50, unique=True, editable=False)
    topic = models.CharField(max_length=120, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, editable=False, related_name="+"
    )
    # The two of a conversation, the lower number first.
    one = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.CASCADE, null=True, editable=False, related_name="+"
    )
    two = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.CASCADE, null=True, editable=False, related_name="+"
    )
    closed_at = models.DateTimeField(null=True, editable=False)
    last_number = models.PositiveBigIntegerField(default=0, editable=False)
    last_change = models.PositiveBigIntegerField(default=0, editable=False)
    # Counts the comings and goings of people, which are no changes: nobody asks for them later.
    presence_revision = models.PositiveBigIntegerField(default=0, editable=False)

    objects = RoomQuerySet.as_manager()

    class Meta:
        ordering = ("name",)
        permissions = (("moderate_room", "Can delete, mute and close in public rooms"),)
        constraints = (
            models.UniqueConstraint(
                fields=("name",), condition=Q(one=None), name="one_public_room_of_a_name"
            ),
            models.UniqueConstraint(fields=("one", "two"), name="one_conversation_of_two"),
            models.CheckConstraint(
                condition=Q(one=None, two=None) | Q(one__isnull=False, one__lt=F("two")),
                name="two_or_everybody",
            ),
        )

    def __str__(self):
        return self.name or f"conversation {self.pk}"

    def save(self, *args, **kwargs):
        if not self.slug:
            self.slug = slugify(self.name)
            # Nothing left of a name in another script, or two names that differ by accents only.
            if not self.slug or Room.objects.filter(slug=self.slug).exists():
                ending = get_random_string(6, "abcdefghjkmnpqrstuvwxyz23456789")
                kind = "two" if self.is_private else "room"
                self.slug = f"{self.slug or kind}-{ending}"
        super().save(*args, **kwargs)

    def get_absolute_url(self):
        return reverse("room", args=(self.slug,))

    @property
    def unread(self) -> int:
        """How many messages there are for whom :meth:`RoomQuerySet.with_read` asked."""
        return self.last_number - self.read

    @property
    def is_private(self) -> bool:
        return self.one_id is not None

    @property
    def is_closed(self) -> bool:
        return self.closed_at is not None

    def other_than(self, user):
        """Return whom ``user`` talks to in this conversation."""
        return self.two if self.one_id == user.pk else self.one

    def title_for(self, user) -> str:
        return self.other_than(user).name if self.is_private else self.name

    def public(self, reader) -> dict:
        """Return what a list of rooms shows to ``reader``, ready for JSON."""
        return {
            "slug": self.slug,
            "name": self.title_for(reader),
            "topic": self.topic,
            "url": self.get_absolute_url(),
            "private": self.is_private,
            "closed": self.is_closed,
            "number": self.last_number,
            "change": self.last_change,
        }


class MessageQuerySet(models.QuerySet):
    def page(self, *, room, before=None) -> "list[Message]":
        """Return a page, oldest first: the last one, or the one before a number."""
        messages = self.filter(room=room).select_related("author")
        if before is not None:
            messages = messages.filter(number__lt=before)
        return in_room(room, messages.order_by("-number")[: settings.CHAT_PAGE_SIZE])[::-1]

    def last_of(self, room) -> list[tuple]:
        """Return what decides how the last page looks: key, number, change, author of each."""
        columns = ("pk", "number", "change", *get_user_model().shown_by("author"))
        newest = self.filter(room=room).order_by("-number").values_list(*columns)
        return list(newest[: settings.CHAT_PAGE_SIZE])[::-1]

    def changed(self, *, room, after) -> "tuple[int, list[Message], bool]":
        """Return the number of the room's last change, and the messages that changed since.

        Third, whether a page has to start afresh with them.
        Who missed more than a page gets the last page, rather than everything; and so does
        who has seen more changes than there are.
        """
        # The number first: what changes in between is told as well, and is in the list besides.
        last_change = Room.objects.values_list("last_change", flat=True).get(pk=room.pk)
        changed = self.filter(room=room, change__gt=after).select_related("author")
        messages = in_room(room, changed.order_by("change")[: settings.CHAT_PAGE_SIZE + 1])
        if after > last_change or len(messages) > settings.CHAT_PAGE_SIZE:
            return last_change, self.page(room=room), True
        return last_change, sorted(messages, key=lambda message: message.number), False


def in_room(room, messages) -> "list[Message]":
    """Return messages of a room that is known: the query need not bring it with each of them."""
    found = list(messages)
    for message in found:
        message.room = room
    return found


class Message(models.Model):
    """Something said in a room. Deleted, it stays in its place without its words."""

    room = models.ForeignKey(Room, models.CASCADE, related_name="messages")
    number = models.PositiveBigIntegerField()
    change = models.PositiveBigIntegerField()
    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="messages")
    client_id = models.UUIDField()
    text = models.TextField(blank=True)
    image = models.FileField(upload_to="chat", blank=True)
    image_width = models.PositiveIntegerField(default=0)
    image_height = models.PositiveIntegerField(default=0)
    sent_at = models.DateTimeField(default=timezone.now)
    edited_at = models.DateTimeField(null=True)
    deleted_at = models.DateTimeField(null=True)
    deleted_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+"
    )

    objects = MessageQuerySet.as_manager()

    class Meta:
        ordering = ("room", "number")
        constraints = (
            models.UniqueConstraint(fields=("room", "number"), name="message_number_in_room"),
            models.UniqueConstraint(fields=("room", "change"), name="message_change_in_room"),
            models.UniqueConstraint(
                fields=("room", "author", "client_id"), name="message_kept_once"
            ),
        )

    def __str__(self):
        return f"{self.room} {self.number}"

    @property
    def summary(self) -> str:
        """What a list of rooms shows of it; what is no text, the page has words for."""
        return Truncator(self.text).chars(120)

    @property
    def deleted(self) -> str | None:
        """Return who deleted it, ``"author"`` or ``"staff"``; None if nobody did."""
        if self.deleted_at is None:
            return None
        return "author" if self.deleted_by_id == self.author_id else "staff"

    @property
    def place(self) -> dict:
        """Return what a page needs of the image: its address and its place, in CSS pixels."""
        scale = min(1, PLACE[0] / self.image_width, PLACE[1] / self.image_height)
        return {
            "url": reverse("image", args=(self.room.slug, self.number)),
            "width": max(1, round(self.image_width * scale)),
            "height": max(1, round(self.image_height * scale)),
        }

    def public(self) -> dict:
        """Return what everyone in the room may know, ready for JSON."""
        return {
            "number": self.number,
            "change": self.change,
            "client_id": str(self.client_id),
            "author": self.author.public(),
            "text": self.text,
            "image": self.place if self.image else None,
            "sent_at": self.sent_at.astimezone(UTC).isoformat(timespec="seconds"),
            "edited": self.edited_at is not None,
            "deleted": self.deleted,
        }


class ReadMarkQuerySet(models.QuerySet):
    def reach(self, *, room, user, number) -> None:
        """Note that one user has read up to a number that there is; tell nobody."""
        mark = self.filter(room=room, user=user)
        if not mark.filter(number__lt=number).update(number=number):
            self.get_or_create(room=room, user=user, defaults={"number": number})

    def advance(self, marks: "dict[tuple[int, int], int]") -> None:
        """Note how far many have read: the number of the last message, by room and user.

        A mark goes neither back, nor beyond what there is to read. Where one moves, the user's
        browsers are told after the commit.
        """
        with transaction.atomic():
            rooms = Room.objects.only("slug", "last_number").in_bulk({key[0] for key in marks})
            wanted = {
                key: min(number, rooms[key[0]].last_number)
                for key, number in marks.items()
                if key[0] in rooms
            }
            these = Q(room__in=rooms, user__in={key[1] for key in wanted})
            self._begin(wanted.keys() - set(self.filter(these).values_list("room", "user")))
            moved = []
            to_number = defaultdict(list)
            # In one order everywhere, so that two transactions don't wait for each other.
            for mark in self.select_for_update().filter(these).order_by("pk"):
                number = wanted.get((mark.room_id, mark.user_id), 0)
                if number > mark.number:
                    mark.number = number
                    moved.append(mark)
                    to_number[number].append(mark.pk)
            # Who reads the same room has read up to the same message, mostly.
            for number, which in to_number.items():
                self.filter(pk__in=which).update(number=number)
            for mark in moved:
                # The same user's other tabs and devices clear their marks too.
                event = {"type": "read", "room": rooms[mark.room_id].slug, "number": mark.number}
                group_send_on_commit(user_group(mark.user_id), for_browsers(event))

    def _begin(self, keys):
        if keys:
            users = get_user_model().objects.filter(pk__in={key[1] for key in keys})
            there = set(users.values_list("pk", flat=True))
            self.bulk_create(
                [
                    ReadMark(room_id=key[0], user_id=key[1], number=0)
                    for key in keys
                    if key[1] in there
                ],
                ignore_conflicts=True,
            )


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


class MuteQuerySet(models.QuerySet):
    def in_force(self):
        return self.filter(until__gt=timezone.now())


class Mute(models.Model):
    """Somebody who may not write in a room for a while."""

    room = models.ForeignKey(Room, models.CASCADE, related_name="mutes")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    until = models.DateTimeField()
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, editable=False, related_name="+"
    )

    objects = MuteQuerySet.as_manager()

    class Meta:
        constraints = (models.UniqueConstraint(fields=("room", "user"), name="muted_once"),)

    def __str__(self):
        return f"{self.user} in {self.room}"

    @property
    def seconds(self) -> int:
        """Return how long it lasts yet: clocks of browsers differ, and durations don't."""
        return max(0, round((self.until - timezone.now()).total_seconds()))


class ProcessQuerySet(models.QuerySet):
    def alive(self):
        return self.filter(until__gt=timezone.now())

    def next_until(self):
        return timezone.now() + timedelta(seconds=settings.CHAT_LEASE_S)


class Process(models.Model):
    """A process with connections to rooms. Its word holds until its lease ends: ``presence.py``."""

    key = models.CharField(max_length=32, primary_key=True)
    until = models.DateTimeField()

    objects = ProcessQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "processes"

    def __str__(self):
        return self.key


class VisitQuerySet(models.QuerySet):
    def people(self, room) -> list[dict]:
        """Return who is in the room, in the order in which they came, ready for JSON."""
        visits = self.filter(room=room, process__in=Process.objects.alive()).order_by("pk")
        people = {visit.user_id: visit.user.public() for visit in visits.select_related("user")}
        return list(people.values())

    def of(self, room_id, user_id):
        """Leave the connections of one user to one room, in processes that live."""
        alive = Process.objects.alive()
        return self.filter(room_id=room_id, user_id=user_id, process__in=alive)


class Visit(models.Model):
    """One connection to a room, by the process that has it."""

    process = models.ForeignKey(Process, models.CASCADE, related_name="visits")
    room = models.ForeignKey(Room, models.CASCADE, related_name="visits")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    channel = models.CharField(max_length=150, unique=True)

    objects = VisitQuerySet.as_manager()

    def __str__(self):
        return f"{self.user} in {self.room}"
