"""A server that says over the control link what a test wants it to say."""

import asyncio
import itertools
import os
import time

from headrace.exceptions import ControlError
from headrace.instruments import Reading
from headrace.server.control import ControlServer


def snapshot(worker=1, pid=1000, *, started=None, sockets=0, http=0, cpu_s=1.0, **counters):
    """Return the snapshot of a worker; counters are named without their ends."""
    reading = Reading()
    for name in ("messages_received", "messages_sent", "bytes_received", "bytes_sent"):
        counters.setdefault(name, 0)
    for name in ("requests", "websockets"):
        counters.setdefault(name, 0)
    for name, value in counters.items():
        labels = {}
        if isinstance(value, dict):
            ((label, by_value),) = value.items()
            for text, number in by_value.items():
                reading.counter(f"headrace_{name}_total", "", number, **{label: text})
            continue
        reading.counter(f"headrace_{name}_total", "", value, **labels)
    reading.gauge("headrace_connections_open", "", sockets, protocol="websocket")
    reading.gauge("headrace_connections_open", "", http, protocol="http/1.1")
    return {
        "worker": worker,
        "pid": pid,
        "started": time.time() - 60 if started is None else started,
        "cpu_s": cpu_s,
        "rss_bytes": 50 * 1024 * 1024,
        "descriptors": 20,
        "tasks": 3,
        "threads": 4,
        "loop_lag_s": 0.002,
        "draining": False,
        **reading.as_dict(),
    }


def connection(number, *, worker=1, **values):
    return {
        "id": f"{worker}-{number}",
        "worker": worker,
        "protocol": "websocket",
        "peer": f"127.0.0.1:{40000 + number}",
        "path": f"/ws/rooms/{number}/",
        "user": f"user{number}",
        "since": time.time() - 100 + number,
        "received": number,
        "sent": 2 * number,
        "inbox": 0,
        "outbox_bytes": 0,
        "consumer": "chat.RoomConsumer",
        **values,
    }


class Double:
    """The server; ``answer`` is what ``snapshot`` gets, and may be a ControlError."""

    def __init__(self, path):
        self.answer = {"server": {"pid": os.getpid()}, "workers": [snapshot()], "ended": {}}
        self.connections = [connection(number) for number in range(3)]
        self.asked = []
        self.closed = []
        self.refuses = None
        self.server = ControlServer(str(path) if path else None, self._handle)
        self.path = self.server.path

    @property
    def links(self):
        return len(self.server._links)

    def count(self, do):
        return sum(each == do for each in self.asked)

    async def _handle(self, do, arguments):
        self.asked.append(do)
        if isinstance(self.refuses, Exception):
            raise self.refuses
        if do == "snapshot":
            return self.answer
        if do == "connections":
            rows = itertools.islice(self.connections, arguments["limit"])
            return {"connections": list(rows)}
        if do == "close":
            known = [each for each in self.connections if each["id"] == arguments["connection"]]
            if not known:
                raise ControlError(f"there is no connection {arguments['connection']}")
            self.connections.remove(known[0])
            self.closed.append((arguments["connection"], arguments["code"], arguments["reason"]))
            return {}
        raise ControlError(f"nobody here does {do}")

    async def __aenter__(self):
        await self.server.start()
        return self

    async def __aexit__(self, *error):
        # Who only looked whether somebody listens may still be on the way in: nothing tells.
        await asyncio.sleep(0.02)
        self.server.close()
        await asyncio.sleep(0.02)
