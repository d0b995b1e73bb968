"""The groups of the channel layer.

=================  =====================================================
``bell.<id>``      the bell of every page that one account has open
``post.<id>``      every page that shows the post
=================  =====================================================
"""

__all__ = ["bell_group", "post_group"]


def bell_group(user_id: int) -> str:
    return f"bell.{user_id}"


def post_group(post_id: int) -> str:
    return f"post.{post_id}"
