"""A few posts to talk about, and something that was said meanwhile."""

from datetime import timedelta

from django.contrib.auth.models import Permission
from django.utils import timezone

from notifications.models import Comment, Notification, Post

__all__ = ["seed"]

POSTS = (
    # (author, title, text, ((who, comment), ...))
    (
        "wen",
        "Soup of the week",
        "The big pot is free again. What shall it be from Monday on?",
        (
            ("jonas", "Pea, please. With mint, if the balcony still has some."),
            ("maya", "The balcony has nothing but mint."),
        ),
    ),
    (
        "maya",
        "Who takes the ficus in August?",
        "It is easy: water on Mondays, light from the left, and no jokes about its leaves.",
        (
            ("priya", "I can, if it may come along by train."),
            ("tomas", "It has been on a train before. It likes the window seat."),
        ),
    ),
    (
        "tomas",
        "A name for the export",
        "“Export 2” has served us well. Ideas that can be said on the phone?",
        (("edith", "Call it Ferry: it takes things across, and comes back empty."),),
    ),
)


def seed(people):
    """Write the posts if there are none; let staff write in the admin."""
    people["edith"].user_permissions.add(
        *Permission.objects.filter(
            content_type__app_label="notifications",
            codename__in=("view_post", "add_comment", "change_comment", "view_comment"),
        )
    )
    if Post.objects.exists():
        return f"{Post.objects.count()} posts"
    written_at = timezone.now() - timedelta(hours=5)
    for author, title, text, comments in POSTS:
        post = Post.objects.create(
            author=people[author], title=title, text=text, created_at=written_at
        )
        for who, said in comments:
            written_at += timedelta(minutes=11)
            Comment.objects.create(post=post, author=people[who], text=said, created_at=written_at)
    return f"{Post.objects.count()} posts, {Notification.objects.count()} notifications"
