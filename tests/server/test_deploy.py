"""A deploy under load: every worker is replaced, and no client loses anything."""

import asyncio
import contextlib
import os
import signal
import time

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from .clients import until
from .supervised import service

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])

RATE = 40
WEBSOCKETS = 40


class Load:
    """Clients of all kinds, and what happened to them."""

    def __init__(self, address):
        self.address = address
        self.failures = []
        self.answered = {}
        self.closed = []
        self.open = 0
        self.refused = 0
        self._over = False
        self._tasks = []
        self._sockets = set()

    async def start(self):
        clients = [self._keeping_alive(path) for path in ["/"] * 4 + ["/slow"] * 2]
        clients += [self._one_by_one() for _ in range(3)]
        clients += [self._websocket() for _ in range(WEBSOCKETS)]
        self._tasks = [asyncio.create_task(client) for client in clients]
        await until(lambda: self.open == WEBSOCKETS and sum(self.answered.values()) > 20)

    async def stop(self):
        self._over = True
        for socket in list(self._sockets):
            await socket.close()
        async with asyncio.timeout(10):
            await asyncio.gather(*self._tasks)

    async def _keeping_alive(self, path):
        while not self._over:
            async with self._connected() as streams:
                if streams is None:
                    return
                last = False
                while not self._over and not last:
                    last = await self._ask(*streams, path)
                    await asyncio.sleep(0.005)

    async def _one_by_one(self):
        while not self._over:
            async with self._connected() as streams:
                if streams is None:
                    return
                await self._ask(*streams, "/", "Connection: close\r\n")
            await asyncio.sleep(0.005)

    @contextlib.asynccontextmanager
    async def _connected(self):
        try:
            reader, writer = await asyncio.open_connection(*self.address)
        except ConnectionRefusedError:
            self.refused += 1
            yield None
            return
        try:
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _ask(self, reader, writer, path, headers=""):
        """Send a request that must not be sent twice; say whether its answer is the last."""
        head = f"POST {path} HTTP/1.1\r\nHost: here\r\n{headers}Content-Length: 4\r\n\r\nbody"
        writer.write(head.encode())
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
            pid = int(await reader.readexactly(length))
            assert head.startswith(b"http/1.1 200 ")
        except Exception as error:
            self.failures.append(f"{path} {headers}: {error!r}")
            return True
        self.answered[pid] = self.answered.get(pid, 0) + 1
        return b"\r\nconnection: close" in head

    async def _websocket(self):
        host, port = self.address
        while not self._over:
            try:
                socket = await connect(f"ws://{host}:{port}/ws", compression=None)
            except ConnectionRefusedError:
                self.refused += 1
                return
            except Exception as error:
                self.failures.append(f"handshake: {error!r}")
                return
            async with socket:
                self._sockets.add(socket)
                try:
                    pid = int(await socket.recv())
                except ConnectionClosed as error:
                    # It came to a worker that was about to stop: it is told so, and comes again.
                    if error.rcvd is None:
                        self.failures.append(f"no close frame: {error!r}")
                    self._sockets.discard(socket)
                    continue
                self.open += 1
                try:
                    while True:
                        await socket.send("hello")
                        assert await socket.recv() == "hello"
                        await asyncio.sleep(0.02)
                except ConnectionClosed as error:
                    told = error.rcvd
                    self.closed.append((time.monotonic(), pid, told and (told.code, told.reason)))
                self.open -= 1
                self._sockets.discard(socket)


def most_at_once(times, window_s):
    return max(sum(start <= time <= start + window_s for time in times) for start in times)


async def test_all_workers_are_replaced_under_load(tmp_path):
    async with service(tmp_path, "--workers", "2", "--close-rate", str(RATE)) as running:
        old = set((await running.workers()).values())
        load = Load(await running.address())
        await load.start()
        begun = time.monotonic()
        running.process.send_signal(signal.SIGHUP)
        await running.logged("reloaded: 2 new workers serve")
        await until(lambda: running.count("is done") == 2)
        took_s = time.monotonic() - begun
        await until(lambda: load.open == WEBSOCKETS)
        by_server = list(load.closed)
        await load.stop()

        assert load.failures == []
        assert load.refused == 0
        # Every WebSocket of an old worker was told to come again, and found a new one.
        assert {pid for _, pid, _ in by_server} <= old
        assert len(by_server) == WEBSOCKETS
        assert {told for _, _, told in by_server} == {(1012, "the server restarts")}
        # At the rate that was asked for, and not all in one instant.
        times = [moment for moment, _, _ in by_server]
        assert max(times) - min(times) > 0.6 * WEBSOCKETS / RATE
        assert most_at_once(times, 0.25) <= 0.25 * RATE * 2 + 4
        new = set(load.answered) - old
        assert len(new) == 2
        assert set(load.answered) >= old
        assert took_s < 15
        running.process.terminate()
        assert await running.end() == 0


async def test_a_worker_that_is_told_to_stop_by_somebody_else_is_replaced(tmp_path):
    async with service(tmp_path, "--workers", "2", "--close-rate", "0") as running:
        load = Load(await running.address())
        await load.start()
        for number, pid in (await running.workers()).items():
            os.kill(pid, signal.SIGTERM)
            await running.logged(f"worker {number} (process {pid}) is done")
            await until(lambda number=number, pid=pid: running._serving()[number] != pid)
        await until(lambda: load.open == WEBSOCKETS)
        by_server = list(load.closed)
        await load.stop()
        assert load.failures == []
        assert load.refused == 0
        assert {told for _, _, told in by_server} == {(1012, "the server restarts")}
        assert (await running.ask("snapshot"))["server"]["restarts"] == {"left": 2}


@pytest.mark.parametrize("options", [["--workers", "2"], []])
async def test_a_stop_finishes_what_is_under_way(tmp_path, options):
    async with service(tmp_path, *options, "--close-rate", str(RATE)) as running:
        load = Load(await running.address())
        await load.start()
        running.process.terminate()
        assert await running.end() == 0
        await until(lambda: load.open == 0)
        by_server = list(load.closed)
        await load.stop()
        assert load.failures == []
        assert load.refused > 0
        assert len(by_server) == WEBSOCKETS
        assert {told for _, _, told in by_server} == {(1012, "the server restarts")}
        times = [moment for moment, _, _ in by_server]
        assert max(times) - min(times) > 0.6 * WEBSOCKETS / RATE


async def test_too_many_websockets_for_the_rate_are_closed_in_time(tmp_path):
    options = ["--close-rate", "1", "--shutdown-timeout", "2"]
    async with service(tmp_path, *options) as running:
        load = Load(await running.address())
        await load.start()
        running.process.terminate()
        await running.logged("40 WebSockets are closed faster than 1 a second")
        assert await running.end() == 0
        await until(lambda: load.open == 0)
        by_server = list(load.closed)
        await load.stop()
        assert {told for _, _, told in by_server} == {(1012, "the server restarts")}
        assert len(by_server) == WEBSOCKETS
