"""``manage.py comment``: comment on a post, from outside of the server."""

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from accounts.models import User
from notifications.models import Comment, Post


class Command(BaseCommand):
    """Save a comment, which notifies the followers of the post.

    This is a process of its own. With a channel layer that reaches other processes
    (``DEMO_LAYER``) the bells of open pages ring at once; with the one in memory they find it
    when they next connect.
    """

    help = "Comment on a post; its followers are notified after the commit."

    def add_arguments(self, parser):
        parser.add_argument("post", type=int, help="the number of the post")
        parser.add_argument("author", help="a user name")
        parser.add_argument("text")
        parser.add_argument("--roll-back", action="store_true", help="save it, and undo that")

    def handle(self, *args, post, author, text, roll_back, **options):
        try:
            comment = Comment(
                post=Post.objects.get(pk=post), author=User.objects.get(username=author), text=text
            )
        except (Post.DoesNotExist, User.DoesNotExist) as error:
            raise CommandError(str(error)) from None
        with transaction.atomic():
            comment.save()
            transaction.set_rollback(roll_back)
        self.stdout.write("rolled back" if roll_back else f"comment {comment.pk}")
