"""Who takes a comment away takes it from every page: from the admin, or wherever it was done."""

from django.db.models.signals import post_delete
from django.dispatch import receiver

from danmaku.groups import FILM
from danmaku.models import Comment
from headrace.db import group_send_on_commit
from live.events import for_browsers

__all__ = ["tell_that_it_is_gone"]


@receiver(post_delete, sender=Comment)
def tell_that_it_is_gone(instance, using, **kwargs):
    gone = {"author": instance.author_id, "client_id": str(instance.client_id)}
    group_send_on_commit(FILM, for_browsers({"type": "gone", **gone}), using=using)
