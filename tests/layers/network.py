"""A layer whose processes are objects of one process: what spans them, without any transport."""

import asyncio
import time
from collections import Counter, deque

from headrace.exceptions import ChannelFull
from headrace.layers.spanning import SpanningChannelLayer


class Network:
    """What is between the processes."""

    def __init__(self):
        self.processes = {}
        self.queues = {}
        self.named = {}
        self.frames = Counter()
        #: Processes that take no frames.
        self.stopped = set()

    def carry(self, process, frame):
        layer = self.processes.get(process)
        if layer is None:
            return False
        if process in self.stopped:
            return True
        self.frames[process] += 1
        asyncio.get_running_loop().call_soon(layer.received, frame)
        return True


class NetworkedLayer(SpanningChannelLayer):
    """One of the processes."""

    def __init__(self, network, **options):
        self.interests = []
        self.interested = set()
        super().__init__(**options)
        self.network = network
        network.processes[self.process] = self

    async def close(self):
        await super().close()
        self.network.processes.pop(self.process, None)

    async def _listening(self):
        pass

    def _interest_changed(self, group, here):
        self.interests.append((group, here))
        (self.interested.add if here else self.interested.discard)(group)

    async def _interest_settled(self, group):
        assert group in self.interested

    async def _publish(self, group, frame):
        return self._publish_sync(group, frame)

    def _publish_sync(self, group, frame):
        now = time.monotonic()
        for channel, until in self.network.named.get(group, {}).items():
            if until <= now:
                continue
            try:
                self._enqueue_sync(channel, self.message_in(frame))
            except ChannelFull:
                self._count("queue_full")
        return sum(
            self.network.carry(process, frame)
            for process, layer in list(self.network.processes.items())
            if layer is not self and group in layer.interested
        )

    async def _post(self, process, frame):
        return self._post_sync(process, frame)

    def _post_sync(self, process, frame):
        return self.network.carry(process, frame)

    async def _broadcast(self, frame):
        for process in list(self.network.processes):
            if process != self.process:
                self.network.carry(process, frame)

    async def _enqueue(self, channel, data):
        self._enqueue_sync(channel, data)

    def _enqueue_sync(self, channel, data):
        waiting, readers = self.network.queues.setdefault(channel, (deque(), deque()))
        now = asyncio.get_running_loop().time()
        while waiting and waiting[0][0] <= now:
            waiting.popleft()
        if len(waiting) >= self.get_capacity(channel):
            raise self._full(channel)
        waiting.append((now + self.expiry, data))
        self._wake(readers)

    @staticmethod
    def _wake(readers):
        while readers:
            if not (reader := readers.popleft()).done():
                reader.set_result(None)
                return

    async def _fetch(self, channel):
        waiting, readers = self.network.queues.setdefault(channel, (deque(), deque()))
        loop = asyncio.get_running_loop()
        while True:
            while waiting:
                until, data = waiting.popleft()
                if until > loop.time():
                    return data
            reader = loop.create_future()
            readers.append(reader)
            try:
                await reader
            except asyncio.CancelledError:
                if waiting and reader.done() and not reader.cancelled():
                    self._wake(readers)
                raise

    async def _join_named(self, group, channel):
        until = time.monotonic() + self.group_expiry
        self.network.named.setdefault(group, {})[channel] = until

    async def _leave_named(self, group, channel):
        self.network.named.get(group, {}).pop(channel, None)

    async def _clear(self):
        self.network.named.clear()
        for waiting, _ in self.network.queues.values():
            waiting.clear()
