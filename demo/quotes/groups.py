"""The groups of the channel layer.

=====================  ======================================================
``quotes.ticks``       every process that shows quotes, once
``quotes.floor``       the one process that makes them
``quotes.user.<id>``   the quotes pages of one account
=====================  ======================================================
"""

__all__ = ["FLOOR", "TICKS", "watcher_group"]

TICKS = "quotes.ticks"
FLOOR = "quotes.floor"


def watcher_group(user_id: int) -> str:
    return f"quotes.user.{user_id}"
