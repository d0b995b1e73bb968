"""The groups of the channel layer.

=======================  ==========================================================
``polling.feed``         every process that has somebody who wants the feed, once
``polling.page.<run>``  the page itself, which is told what its four ways cost
=======================  ==========================================================
"""

from uuid import UUID

__all__ = ["FEED", "page_group"]

FEED = "polling.feed"


def page_group(run: UUID) -> str:
    return f"polling.page.{run.hex}"
