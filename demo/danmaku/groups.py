"""The groups of the channel layer.

====================  ========================================================
``danmaku``           every page that shows the film
``danmaku.<user>``    those of one user, who see their own comments in any case
====================  ========================================================
"""

__all__ = ["FILM", "own_group"]

FILM = "danmaku"


def own_group(user_id: int) -> str:
    return f"danmaku.{user_id}"
