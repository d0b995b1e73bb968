"""One visitor: cookies, pages, WebSockets, and what every page of the site does by itself.

Rules of this file:

- A WebSocket that ends while its page is open is a failure, and the run says so.
- Files are asked for again with each page, as browsers do that are told to ask (``no-cache``).
  Only those that a page names are; what one script imports is not looked for.
"""

import asyncio
import contextlib
import json
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from .ledger import Delays

__all__ = ["PATIENCE_S", "Run", "Visitor"]

#: How long an answer may take on a machine that does other things too.
PATIENCE_S = 20.0
#: After so much silence a page asks whether anyone is there: see live.js.
ASK_AFTER_S = 20.0
#: So many kinds of failures are kept in words; all are counted.
DESCRIBED = 20
_FILES = re.compile(r'(?:href|src)="(/static/[^"]+\.(?:css|js|svg)|/words/[^"]+\.js)"')
_MAX_AGE = re.compile(r"\bmax-age=(\d+)")
#: Of so many looks at a page one is with a browser that has kept nothing, as somebody new has.
LOOKS_OF_A_BROWSER = 10
_TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')


class Run:
    """What all visitors of a run share."""

    def __init__(self, address: tuple[str, int], *, seed: str, pace: float) -> None:
        self.host = f"{address[0]}:{address[1]}"
        self.seed = seed
        self.pace = pace
        self.tls = ssl.create_default_context()  # made once: httpx wants one for each visitor
        #: Set when nobody begins anything more, and when all go home.
        self.last_orders = asyncio.Event()
        self.closing = asyncio.Event()
        self.pages = Delays()
        self.files = Delays()
        self.looks = 0
        self.failures = 0
        self.problems: list[str] = []

    def fail(self, problem: str) -> None:
        self.failures += 1
        if len(self.problems) < DESCRIBED:
            self.problems.append(problem)


@dataclass(frozen=True, slots=True)
class Kept:
    """A file in a browser's cache (RFC 9111): until when it is asked for no more."""

    good_until: float
    #: The cookies with which it was asked for, where the answer depends on them.
    cookies: dict[str, str] | None
    version: str

    @classmethod
    def of(cls, response: httpx.Response, now: float, cookies: dict[str, str]) -> "Kept":
        control = response.headers.get("Cache-Control", "")
        age = None if "no-cache" in control else _MAX_AGE.search(control)
        return cls(
            now + int(age[1]) if age else now,
            cookies if "cookie" in response.headers.get("Vary", "").lower() else None,
            response.headers.get("Last-Modified", ""),
        )

    def is_good(self, now: float, cookies: dict[str, str]) -> bool:
        return now < self.good_until and self.cookies in (None, cookies)


class Visitor:
    """Somebody with a browser, who has logged in."""

    def __init__(self, run: Run, number: int, name: str) -> None:
        self.run = run
        self.number = number
        self.name = name
        self.chance = Random(f"{run.seed}/{number}")
        self._client = httpx.AsyncClient(
            base_url=f"http://{run.host}",
            # As browsers have it for one site; and let go before the server does, which is a race.
            limits=httpx.Limits(max_connections=6, keepalive_expiry=1.0),
            timeout=PATIENCE_S,
            trust_env=False,
            verify=run.tls,
        )
        self._kept: dict[str, Kept] = {}
        #: The page that was opened last, and how many WebSockets there are.
        self.page = "/"
        self.sockets = 0

    async def log_in(self) -> None:
        await self.post(f"/login/as/{self.name}/", await self.open("/"))

    async def leave(self) -> None:
        await self._client.aclose()

    async def open(self, path: str) -> str:
        """Get a page and the files that it names, and return its text."""
        self.page = path
        began = time.perf_counter()
        response = await self._get(path)
        self.run.pages.add(time.perf_counter() - began)
        self._expect(response, 200)
        self.run.looks += 1
        if self.run.looks % LOOKS_OF_A_BROWSER == 0:
            self._kept.clear()
        for file in dict.fromkeys(_FILES.findall(response.text)):
            await self._file(file)
        return response.text

    async def _get(self, path: str, **headers: str) -> httpx.Response:
        try:
            return await self._client.get(path, headers=headers)
        except (httpx.ReadError, httpx.RemoteProtocolError):
            # The server let go of a connection that waited, just now: browsers ask again, too.
            return await self._client.get(path, headers=headers)

    async def _file(self, path: str) -> None:
        kept = self._kept.get(path)
        cookies = dict(self._client.cookies)
        if kept is not None and kept.is_good(time.monotonic(), cookies):
            return
        version = kept.version if kept is not None else ""
        began = time.perf_counter()
        response = await self._get(path, **({"If-Modified-Since": version} if version else {}))
        self.run.files.add(time.perf_counter() - began)
        if response.status_code != 304:
            self._expect(response, 200)
        self._kept[path] = Kept.of(response, time.monotonic(), cookies)

    async def ask(self, path: str) -> Any:
        """Get what a page's script asks for, and return the JSON."""
        response = await self._get(path)
        self._expect(response, 200)
        return response.json()

    async def hear(self, path: str, told: Callable[[Any], None]) -> None:
        """Get server-sent events, as an EventSource does, and hand on what their data says."""
        async with self._client.stream("GET", path) as response:
            self._expect(response, 200)
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    told(json.loads(line.removeprefix("data: ")))
        raise ValueError(f"{path} has ended")

    async def post(self, path: str, page: str, **fields: str) -> None:
        """Send a form of a page, whose text is ``page``, to ``path``."""
        found = _TOKEN.search(page)
        if found is None:
            raise ValueError(f"no form for {path}")
        fields["csrfmiddlewaretoken"] = found[1]
        self._expect(await self._client.post(path, data=fields), 302)

    @staticmethod
    def _expect(response: httpx.Response, status: int) -> None:
        if response.status_code != status:
            raise ValueError(f"{response.url.path} was answered with {response.status_code}")

    @contextlib.asynccontextmanager
    async def live(
        self,
        path: str,
        told: Callable[[Any], None],
        bytes_told: Callable[[bytes], None] = bytes,
        *,
        asks: bool = True,
    ) -> AsyncIterator[ClientConnection]:
        """Open a WebSocket, as live.js does, and hand on what comes until it is left.

        ``asks``: after a silence, whether anyone is there. Pages that don't use live.js don't.
        """
        cookies = "; ".join(f"{name}={value}" for name, value in self._client.cookies.items())
        async with connect(
            f"ws://{self.run.host}{path}",
            origin=f"http://{self.run.host}",
            additional_headers={"Cookie": cookies},
            open_timeout=PATIENCE_S,
            close_timeout=PATIENCE_S,
            ping_interval=None,
            max_queue=None,
            proxy=None,
        ) as socket:
            listening = asyncio.create_task(self._listen(socket, path, told, bytes_told, asks))
            self.sockets += 1
            try:
                yield socket
            finally:
                self.sockets -= 1
                listening.cancel()
                await asyncio.wait([listening])

    async def _listen(
        self,
        socket: ClientConnection,
        path: str,
        told: Callable[[Any], None],
        bytes_told: Callable[[bytes], None],
        asks: bool,
    ) -> None:
        try:
            while True:
                try:
                    async with asyncio.timeout(ASK_AFTER_S if asks else None):
                        message = await socket.recv()
                except TimeoutError:
                    await socket.send('{"type": "ping"}')
                    continue
                if isinstance(message, bytes):
                    bytes_told(message)
                    continue
                event = json.loads(message)
                if event.get("type") == "error":
                    self.run.fail(f"{path} said {event['code']}: {event['text']}")
                told(event)
        except ConnectionClosed as error:
            code = error.rcvd.code if error.rcvd else 1006
            self.run.fail(f"{path} ended with {code}")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            self.run.fail(f"{path} told what was not understood: {error!r}")

    async def pause(self, mean_s: float) -> bool:
        """Do nothing for a while, by chance; return False if nothing more is to be begun."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.chance.expovariate(self.run.pace / mean_s)):
                await self.run.last_orders.wait()
        return not self.run.last_orders.is_set()
