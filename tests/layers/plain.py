"""A channel layer as a third party writes one: what Channels asks for, and no more."""

import asyncio
import contextlib
import copy
import fnmatch
import random
import re
import string
import time

from headrace.exceptions import ChannelFull
from headrace.layers import BaseChannelLayer

NAME = re.compile(r"[a-zA-Z0-9._-]+(![a-zA-Z0-9._-]*)?", re.ASCII)


class PlainLayer:
    """Queues and dictionaries; it derives from nothing, and knows no ``attach``."""

    extensions = ("groups", "flush")

    def __init__(self, expiry=60, group_expiry=86400, capacity=100, channel_capacity=None):
        self.expiry = expiry
        self.group_expiry = group_expiry
        self.capacity = capacity
        self.channel_capacity = channel_capacity or {}
        self.queues = {}
        self.groups = {}

    def valid_channel_name(self, name):
        if not isinstance(name, str) or len(name) > 99 or not NAME.fullmatch(name):
            raise TypeError(f"not the name of a channel: {name!r}")
        return True

    def valid_group_name(self, name):
        if self.valid_channel_name(name) and "!" in name:
            raise TypeError(f"not the name of a group: {name!r}")

    def get_capacity(self, channel):
        for pattern, capacity in self.channel_capacity.items():
            if isinstance(pattern, str):
                pattern = re.compile(fnmatch.translate(pattern))
            if pattern.match(channel):
                return capacity
        return self.capacity

    async def new_channel(self, prefix="specific"):
        return f"{prefix}.plain!{''.join(random.choices(string.ascii_letters, k=16))}"

    async def send(self, channel, message):
        self.valid_channel_name(channel)
        if not isinstance(message, dict):
            raise TypeError("not a message")
        queue = self.queues.setdefault(channel, asyncio.Queue())
        for item in [queue.get_nowait() for _ in range(queue.qsize())]:
            if item[0] > time.monotonic():
                queue.put_nowait(item)
        if queue.qsize() >= self.get_capacity(channel):
            raise ChannelFull(channel)
        queue.put_nowait((time.monotonic() + self.expiry, copy.deepcopy(message)))

    async def receive(self, channel):
        self.valid_channel_name(channel)
        queue = self.queues.setdefault(channel, asyncio.Queue())
        while True:
            until, message = await queue.get()
            if until > time.monotonic():
                return message

    async def group_add(self, group, channel):
        self.valid_group_name(group)
        self.valid_channel_name(channel)
        self.groups.setdefault(group, {})[channel] = time.monotonic() + self.group_expiry

    async def group_discard(self, group, channel):
        self.valid_group_name(group)
        self.valid_channel_name(channel)
        self.groups.get(group, {}).pop(channel, None)

    async def group_send(self, group, message):
        self.valid_group_name(group)
        if not isinstance(message, dict):
            raise TypeError("not a message")
        for channel, until in list(self.groups.get(group, {}).items()):
            if until > time.monotonic():
                with contextlib.suppress(ChannelFull):
                    await self.send(channel, message)

    async def flush(self):
        for queue in self.queues.values():
            while not queue.empty():
                queue.get_nowait()
        self.groups.clear()

    async def close(self):
        pass


class GeneralLayer(PlainLayer, BaseChannelLayer):
    """The same, with what the base of a layer has for it."""

    async def group_send(self, group, message):
        await super().group_send(group, message)
        return 3
