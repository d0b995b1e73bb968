"""What may be done in a room, and who is told of it.

Each function is one transaction: it locks the room's row, so that numbers are given one by one,
keeps the rules, and tells the browsers after its commit. Consumers, views, the admin and
management commands call the same ones; so the rules hold, and pages move, whoever it was.

What can't be done raises :class:`live.limits.Refused`, and ``Room.DoesNotExist`` if there is no
room (any more). All of them are synchronous: ``await database_sync_to_async(post)(…)``.
"""

from datetime import timedelta

from django.contrib.auth import get_user_model
from django.core.files.base import ContentFile
from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.crypto import get_random_string

from chat.groups import LOBBY, list_groups, room_group
from chat.models import Message, Mute, ReadMark, Room
from headrace.db import group_send_on_commit
from live.events import for_browsers, user_group
from live.limits import Refused

__all__ = [
    "close",
    "converse",
    "delete",
    "edit",
    "may_moderate",
    "mute",
    "open_room",
    "post",
    "require_voice",
]


def open_room(room, user) -> Room:
    """Keep a new public room, and put it into every list."""
    with transaction.atomic():
        room.created_by = user
        room.save()
        # Not before the commit: who is told may ask for the room at once.
        tell_lists(room, lambda reader: {"type": "room", "room": room.public(reader)})
    return room


def converse(user, other) -> Room:
    """Return the conversation of two, which begins now if it hasn't."""
    one, two = sorted((user, other), key=lambda person: person.pk)
    with transaction.atomic():
        room, is_new = Room.objects.get_or_create(one=one, two=two, defaults={"created_by": user})
        if is_new:
            tell_lists(room, lambda reader: {"type": "room", "room": room.public(reader)})
    return room


def post(room, author, *, client_id, text, image=None) -> tuple[Message, bool]:
    """Keep a message, and return it with whether it is new.

    ``client_id`` is the browser's own name for the message: sent again after a lost connection,
    it finds what was kept the first time. ``image`` is a :class:`chat.images.Picture`.
    """
    same = Message.objects.filter(room=room, author=author, client_id=client_id)
    same = same.select_related("author", "room")
    if kept := same.first():
        return kept, False
    message = Message(author=author, client_id=client_id, text=text)
    try:
        with transaction.atomic():
            message.room = room = locked(room)
            require_voice(room, author)
            room.last_number += 1
            message.number = room.last_number
            message.change = next_change(room)
            if image is not None:
                message.image_width, message.image_height = image.width, image.height
                message.image.save(
                    f"{get_random_string(32)}.webp", ContentFile(image.content), save=False
                )
            message.save()
            ReadMark.objects.reach(room=room, user=author, number=message.number)
            tell_room(room, {"type": "message", "message": message.public()})
            tell_activity(message)
    except BaseException as error:
        # A file takes no part in the transaction.
        if message.image:
            message.image.delete(save=False)
        if not isinstance(error, IntegrityError):
            raise
        # The same message came over another connection at the same time, and was first. (Any
        # other breach of integrity finds nothing here, and goes on as DoesNotExist.)
        return same.get(), False
    return message, True


def edit(room, user, *, number, text) -> tuple[Message, bool]:
    """Change the text of one's own message; return it with whether that changed anything."""
    with transaction.atomic():
        message = own_message(room, user, number)
        if not text and not message.image:
            raise Refused("empty", "Write something first.")
        if message.text == text:
            return message, False
        message.text = text
        message.edited_at = timezone.now()
        keep_change(message)
        return message, True


def delete(room, user, *, number) -> tuple[Message, bool]:
    """Take away what a message says: one's own, or as staff anybody's. Its place stays.

    Return it with whether that changed anything.
    """
    with transaction.atomic():
        room = locked(room)
        message = message_of(room, number)
        # A room that is closed, or in which one is muted, is no reason to be held to a mistake.
        if message.author_id != user.pk and not may_moderate(user, room):
            raise Refused("not_yours", "Only who wrote a message may delete it, and staff.")
        if message.deleted_at is not None:
            return message, False
        if name := message.image.name:
            storage = message.image.storage
            transaction.on_commit(lambda: storage.delete(name))
        message.text = message.image = ""
        message.deleted_at = timezone.now()
        message.deleted_by = user
        keep_change(message)
        return message, True


def mute(room, staff, *, user_id, minutes) -> None:
    """Let somebody write no more for so many minutes; 0 lets them write again."""
    with transaction.atomic():
        room = locked(room)
        require_moderator(staff, room)
        user = get_user_model().objects.filter(pk=user_id).first()
        if user is None:
            raise Refused("no_such_user", "There is no such user.")
        if minutes and (user == staff or may_moderate(user, room)):
            raise Refused("staff", "Staff can't be muted.")
        if minutes:
            until = timezone.now() + timedelta(minutes=minutes)
            Mute.objects.update_or_create(
                room=room, user=user, defaults={"until": until, "by": staff}
            )
        elif not Mute.objects.filter(room=room, user=user).delete()[0]:
            return
        change = next_change(room)
        tell_room(
            room,
            {"type": "muted", "change": change, "user": user.public(), "seconds": minutes * 60},
        )


def close(room, staff, *, closed) -> None:
    """Close a public room: what was said stays, and nothing is added until it is opened again."""
    with transaction.atomic():
        room = locked(room)
        require_moderator(staff, room)
        if room.is_closed == closed:
            return
        room.closed_at = timezone.now() if closed else None
        change = next_change(room)
        tell_room(room, {"type": "closed", "change": change, "closed": closed})
        tell_lists(room, lambda reader: {"type": "room", "room": room.public(reader)})


def may_moderate(user, room) -> bool:
    """Say whether ``user`` is staff for a room, as the database has it now.

    What two say to each other is nobody's business but theirs.
    """
    if room.is_private:
        return False
    person = get_user_model().objects.filter(pk=user.pk, is_active=True, is_staff=True).first()
    return person is not None and person.has_perm("chat.moderate_room")


def require_moderator(user, room):
    if not may_moderate(user, room):
        raise Refused("not_staff", "Only staff may do this, and in public rooms only.")


def require_voice(room, user) -> None:
    """Raise :class:`Refused` if ``user`` may not write in the room just now."""
    if room.is_closed:
        raise Refused("closed", "This room is closed.")
    if mute := Mute.objects.in_force().filter(room=room, user=user).first():
        raise Refused("muted", "You are muted here for a while.", seconds=mute.seconds)


def locked(room) -> Room:
    """Return the room as it is now; nobody else changes it until the commit."""
    return Room.objects.select_for_update().get(pk=room.pk)


def next_change(room) -> int:
    """Return the number of a change of the room, and keep the room."""
    room.last_change += 1
    room.save(update_fields=["last_number", "last_change", "closed_at"])
    return room.last_change


def message_of(room, number) -> Message:
    message = room.messages.select_related("author", "room").filter(number=number).first()
    if message is None:
        raise Refused("no_such_message", "There is no such message.")
    message.room = room
    return message


def own_message(room, user, number) -> Message:
    room = locked(room)
    message = message_of(room, number)
    if message.author_id != user.pk:
        raise Refused("not_yours", "Only who wrote a message may change it.")
    if message.deleted_at is not None:
        raise Refused("deleted", "This message was deleted.")
    require_voice(room, user)
    return message


def keep_change(message):
    """Keep what changed of a message, and tell everyone."""
    message.change = next_change(message.room)
    message.save()
    tell_room(message.room, {"type": "changed", "message": message.public()})
    # The last one stands in the lists, too.
    if message.number == message.room.last_number:
        tell_activity(message)


def tell_room(room, payload):
    group_send_on_commit(room_group(room.pk), for_browsers(payload))


def tell_lists(room, payload_for):
    """Tell everyone who has the room in a list, in a conversation each of the two by name."""
    if room.is_private:
        for reader in (room.one, room.two):
            group_send_on_commit(user_group(reader.pk), for_browsers(payload_for(reader)))
    else:
        group_send_on_commit(LOBBY, for_browsers(payload_for(None)))


def tell_activity(message):
    activity = {"type": "activity", "room": message.room.slug, **latest_of(message)}
    for group in list_groups(message.room):
        group_send_on_commit(group, for_browsers(activity))


def latest_of(message) -> dict:
    """Return what the lists show of a room's last message."""
    return {
        "number": message.number,
        "change": message.change,
        "author": message.author.public(),
        "text": message.summary,
        "image": bool(message.image),
        "deleted": message.deleted is not None,
    }
