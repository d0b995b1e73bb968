"""Somewhere to go, and something to read there."""

from datetime import timedelta
from uuid import NAMESPACE_URL, uuid5

from django.contrib.auth.models import Permission
from django.utils import timezone

from chat.models import Message, ReadMark, Room

__all__ = ["seed"]

STAFF = "edith"
ROOMS = (
    (
        "Mill Pond",
        "Anything and everything. Start here.",
        # (who, minutes after the message before, text)
        ("maya", 0, "Good morning! The kettle is on, who is around today?"),
        ("jonas", 4, "Here. Coffee first, then words."),
        ("priya", 2, "Working from the train until noon. If I vanish, it's a tunnel."),
        ("priya", 0, "Nothing gets lost though: the page catches up as soon as I'm out again."),
        ("tomas", 11, "That used to be the moment when I copied my message before pressing Send."),
        ("maya", 1, "Old habits 😄"),
        ("wen", 32, "Lunch at one, by the big window? There is soup."),
        ("jonas", 1, "What kind?"),
        ("wen", 1, "Lentil with lemon. And there is bread from the new place on the corner."),
        ("tomas", 0, "I'm in."),
        ("priya", 190, "Back on the ground. Did anyone water the ficus?"),
        ("maya", 3, "Twice, I'm afraid. It looks happy and slightly alarmed."),
    ),
    (
        "Workshop",
        "What we are building, and what broke.",
        ("tomas", 0, "The new export is up on staging, please try to break it."),
        ("wen", 18, "Exported an empty project. It says “0 of 0 done, 0 remaining”. Poetic."),
        ("tomas", 2, "I'll give it a proper sentence."),
        ("jonas", 47, "Bigger one: dates before 1970 come out as tomorrow."),
        (
            "jonas",
            1,
            "How to see it:\n1. make an entry for 12 March 1968\n2. export\n3. meet the future",
        ),
        ("priya", 6, "That's a sign somewhere, isn't it? Minus one day, turned into plus one."),
        ("tomas", 21, "It was. Fixed, with a test that goes back to 1900."),
        ("maya", 4, "Lovely. Let's ship it on Thursday then, not on Friday."),
        ("wen", 12, "Thursday is the day of the good cake, so I support this."),
        ("edith", 1, "Best argument in this room so far."),
    ),
    (
        "Reading Room",
        "Books, essays, long afternoons.",
        ("wen", 0, "Finished the lighthouse book in two evenings. The ending is all weather."),
        ("maya", 55, "Say no more, it's next on my pile."),
        ("priya", 9, "May I have it after you, Maya?"),
        ("maya", 2, "Only if you return the one about bridges."),
        ("priya", 1, "…touché."),
    ),
)

# What two say to each other: nobody else can read it, and staff neither.
CONVERSATIONS = (
    (
        ("maya", "jonas"),
        ("maya", 0, "Did you hide the good biscuits again?"),
        ("jonas", 3, "I would never. Third shelf, behind the oats."),
        ("jonas", 1, "Don't tell Wen."),
    ),
)

# How far some have read, so that there is something new to find: (user name, room, unread).
BEHIND = (
    ("maya", "Workshop", 2),
    ("maya", "Reading Room", 1),
    ("jonas", "Mill Pond", 2),
    ("tomas", "Workshop", 3),
    ("wen", "Reading Room", 4),
    ("edith", "Mill Pond", 5),
    ("maya", "", 1),  # in her conversation
)


def seed(people):
    """Open the rooms that aren't there; those that are stay as they are."""
    opened = [
        room
        for name, topic, *conversation in ROOMS
        if (room := open_room(conversation, people, name=name, defaults={"topic": topic}))
    ]
    for (one, two), *conversation in CONVERSATIONS:
        first, second = sorted((people[one], people[two]), key=lambda person: person.pk)
        open_room(conversation, people, one=first, two=second)
    moderate = Permission.objects.filter(
        content_type__app_label="chat",
        codename__in=("moderate_room", "view_room", "view_message", "view_mute"),
    )
    people[STAFF].user_permissions.add(*moderate)
    rooms = Room.objects.public().count()
    return f"{rooms} rooms ({len(opened)} new), {Message.objects.count()} messages"


def open_room(conversation, people, **room):
    room, created = Room.objects.get_or_create(**room)
    if not created:
        return None
    sent_at = timezone.now() - timedelta(
        hours=1, minutes=sum(minutes for _, minutes, _ in conversation)
    )
    for number, (username, minutes, text) in enumerate(conversation, 1):
        sent_at += timedelta(minutes=minutes, seconds=7 * number % 60)
        Message.objects.create(
            room=room,
            number=number,
            change=number,
            author=people[username],
            client_id=uuid5(NAMESPACE_URL, f"{room.slug}/{number}"),
            text=text,
            sent_at=sent_at,
        )
    room.last_number = room.last_change = len(conversation)
    room.save()
    unread = {username: count for username, where, count in BEHIND if where == room.name}
    ReadMark.objects.bulk_create(
        ReadMark(room=room, user=person, number=room.last_number - unread.get(person.username, 0))
        for person in people.values()
        if not room.is_private or person in (room.one, room.two)
    )
    return room
