"""The bell of every page, a board whose comments ring it, and ``notify`` for all applications."""

__all__ = ["notify"]


def notify(audience, kind, text, url=""):
    """Tell everyone in ``audience`` (users) something, now or when they come back.

    Each of them gets one notification, kept in the database with the transaction in which this is
    called; after the commit every open page of theirs rings. After a rollback nothing has happened.

    ``kind`` says what it is about, in the reader's language: an application names its kinds in its
    AppConfig, ``notification_kinds = {"comment": _("New comment")}``. ``text`` is what there is
    to say, cut where it is long; ``url`` is the path on this site to which it leads.

    An ordinary function, for synchronous code. In a coroutine:
    ``await database_sync_to_async(notify)([user], "price", "ACME 120.50", "/quotes/")``.
    """
    from notifications.models import Notification  # not before Django has loaded its applications

    return Notification.objects.notify(audience, kind, text, url)
