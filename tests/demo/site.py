"""The demo site as a process of its own, and the visitors who come to it."""

import asyncio
import contextlib
import http.cookiejar
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
import uuid
from pathlib import Path
from types import SimpleNamespace

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

DEMO = Path(__file__).resolve().parents[2] / "demo"
HEADRACE = Path(sys.executable).with_name("headrace")
PATIENCE_S = 30


def manage(data: Path, *arguments: str) -> str:
    """Run ``manage.py`` on the database in ``data``, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "manage.py", *arguments],
        cwd=DEMO,
        env=environment(data),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def environment(data: Path, layer: str | None = None) -> dict[str, str]:
    """Return the variables of the site's processes; the layer is that of this process, if None."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("DJANGO_")}
    chosen = {} if layer is None else {"DEMO_LAYER": layer}
    return kept | {"DEMO_DATA_DIR": str(data)} | chosen


class Site:
    """``headrace serve`` with the demo on a port that stays the same from one start to the next."""

    def __init__(self, data: Path, *options: str, layer: str | None = None) -> None:
        self.data = data
        self.options = options
        self.layer = layer
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = data / "server.log"
        self.rooms = 0
        self.known_complaints = 0
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                HEADRACE,
                *("serve", "millpond.asgi:application"),
                *("--bind", "127.0.0.1", "--port", str(self.port), *self.options),
                cwd=DEMO,
                env=environment(self.data, self.layer),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        async with asyncio.timeout(PATIENCE_S):
            while True:
                assert self.process.returncode is None, self.log.read_text()
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    return
                await asyncio.sleep(0.02)

    async def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is None:
            return
        self.process.send_signal(how)
        async with asyncio.timeout(PATIENCE_S):
            code = await self.process.wait()
        self.process = None
        assert code == (0 if how == signal.SIGTERM else -how), self.log.read_text()

    def new_complaints(self) -> list[str]:
        """Return what the server had to complain of since this was asked last."""
        complaints = re.findall(
            "^.*(?:WARNING|ERROR|CRITICAL|Traceback).*$", self.log.read_text(), re.MULTILINE
        )
        self.known_complaints, known = len(complaints), self.known_complaints
        return complaints[known:]

    def visitor(self) -> "Visitor":
        return Visitor(self)


class Visitor:
    """A browser without a screen: it keeps cookies, sends forms, opens WebSockets."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.cookies = http.cookiejar.CookieJar()
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(self.cookies)
        )

    async def get(self, path: str, **headers: str) -> SimpleNamespace:
        return await asyncio.to_thread(self._open, path, None, headers)

    async def post(self, path: str, on: str | None = None, **fields: str) -> SimpleNamespace:
        """Send the form at ``path`` as it stands on the page ``on``."""
        page = await self.get(on or path)
        token = re.search('name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
        assert token, page.text
        fields["csrfmiddlewaretoken"] = token[1]
        return await asyncio.to_thread(self._open, path, urllib.parse.urlencode(fields), {})

    def _open(self, path: str, body: str | None, headers: dict[str, str]) -> SimpleNamespace:
        request = urllib.request.Request(
            self.site.url + path, data=body and body.encode(), headers=headers
        )
        try:
            response = self._opener.open(request, timeout=PATIENCE_S)
        except urllib.error.HTTPError as error:
            response = error
        with response:
            return SimpleNamespace(
                status=response.status,
                headers=response.headers,
                path=response.url.removeprefix(self.site.url),
                text=response.read().decode(),
            )

    async def log_in(self, username: str) -> "Visitor":
        page = await self.post(f"/login/as/{username}/", on="/login/")
        assert page.path == "/"
        return self

    def websocket(self, path: str, *, origin: str | None = None) -> connect:
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in self.cookies)
        return connect(
            self.site.url.replace("http", "ws") + path,
            origin=origin or self.site.url,
            additional_headers={"Cookie": cookies} if cookies else {},
            proxy=None,
            max_queue=None,  # or a close would wait for someone to read what came before it
        )

    @contextlib.asynccontextmanager
    async def tab(self, room: str, *, seen: int | None = None):
        """Open a room as a page does, and come back with its welcome."""
        query = "" if seen is None else f"?seen={seen}"
        async with self.websocket(f"/ws/rooms/{room}/{query}") as socket:
            tab = Tab(socket)
            tab.welcome = await tab.wait_for("welcome")
            yield tab

    @contextlib.asynccontextmanager
    async def lobby(self):
        async with self.websocket("/ws/lobby/") as socket:
            tab = Tab(socket)
            await tab.send(type="ping")  # answered once the consumer has entered its groups
            await tab.wait_for("pong")
            yield tab


class Tab:
    """One WebSocket of a visitor."""

    def __init__(self, socket) -> None:
        self.socket = socket
        self.heard: list[dict] = []
        self.welcome: dict = {}

    async def send(self, **command: object) -> None:
        await self.socket.send(json.dumps(command))

    async def say(self, text: str, client_id: str | None = None) -> dict:
        """Send a message, and return the server's answer to it."""
        client_id = client_id or str(uuid.uuid4())
        await self.send(type="message", client_id=client_id, text=text)
        you = self.welcome["you"]

        def is_answer(event: dict) -> bool:
            message = event.get("message", {})
            mine = message.get("client_id") == client_id and message["author"] == you
            return mine or (event["type"] == "error" and event.get("client_id") == client_id)

        return await self.wait_until(is_answer)

    async def wait_for(self, kind: str, **values: object) -> dict:
        return await self.wait_until(
            lambda event: (
                event["type"] == kind
                and all(event.get(name) == value for name, value in values.items())
            )
        )

    async def wait_until(self, is_it) -> dict:
        """Return the next event that is the one; what came before stays in ``heard``."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                event = json.loads(await self.socket.recv())
                self.heard.append(event)
                if is_it(event):
                    return event

    async def quiet(self) -> list[dict]:
        """Return what was heard until now: everything that was told before a ping's answer."""
        await self.send(type="ping")
        await self.wait_for("pong")
        return self.heard

    async def closed(self) -> int:
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(ConnectionClosed):
                while True:
                    self.heard.append(json.loads(await self.socket.recv()))
        return self.socket.close_code
