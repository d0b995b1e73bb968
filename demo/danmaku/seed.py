"""The first comments, and the first words that aren't wanted."""

from uuid import NAMESPACE_URL, uuid5

from django.contrib.auth.models import Permission

from danmaku.models import Comment, ForbiddenWord

__all__ = ["seed"]

STAFF = "edith"
WORDS = ("spoiler", "buy now", "剧透")
COMMENTS = (
    # (who, milliseconds into the film, text)
    ("maya", 600, "Good morning, pond"),
    ("wen", 1_300, "早上好"),
    ("jonas", 2_500, "The ducks are early today"),
    ("tomas", 3_400, "That wheel never stops, does it"),
    ("priya", 4_200, "Perfect noon light ☀️"),
    ("edith", 5_600, "Who put the kettle on in there?"),
    ("wen", 6_800, "炊烟升起来了"),
    ("maya", 7_900, "Here comes the evening"),
    ("jonas", 8_700, "Best sunset on the whole site"),
    ("priya", 10_100, "The lights are on!"),
    ("tomas", 11_300, "Good night, sun"),
    ("wen", 12_000, "月亮在水里"),
    ("edith", 13_200, "Watch the moon in the water"),
    ("maya", 14_600, "And around we go again"),
)


def seed(people):
    """Keep what isn't there; what is there stays as it is."""
    Comment.objects.bulk_create(
        (
            Comment(
                author=people[username],
                client_id=uuid5(NAMESPACE_URL, f"danmaku/{at_ms}"),
                text=text,
                at_ms=at_ms,
            )
            for username, at_ms, text in COMMENTS
        ),
        ignore_conflicts=True,
    )
    ForbiddenWord.objects.bulk_create(
        (ForbiddenWord(word=word) for word in WORDS), ignore_conflicts=True
    )
    people[STAFF].user_permissions.add(
        *Permission.objects.filter(content_type__app_label="danmaku")
    )
    return f"{Comment.objects.count()} comments over the film"
