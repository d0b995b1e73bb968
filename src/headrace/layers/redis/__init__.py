"""The channel layer over Redis and Valkey: ``RedisChannelLayer``.

It needs redis-py: ``pip install 'headrace[redis]'``.
"""

from .layer import RedisChannelLayer

__all__ = ["RedisChannelLayer"]
