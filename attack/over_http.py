"""Attacks by HTTP/1.1: slowness, sizes, smuggling, injection, floods."""

import asyncio
from typing import ClassVar
from urllib.parse import quote

from .enemy import END, HELD, RESET, Attack, Enemy, Field, handshake, request

__all__ = [
    "BigRequests",
    "ChunkFlood",
    "Injection",
    "NeverReadsResponses",
    "Pipeline",
    "RunserverTraversal",
    "SlowBodies",
    "SlowHandshakes",
    "SlowHeads",
    "Smuggling",
    "Traversal",
]

QUICK = ("--head-timeout", "1")


class SlowHeads(Attack):
    """Requests whose head comes byte by byte."""

    key = "slow-head"
    serve = QUICK
    deserves = frozenset({"408", "429", "503", END, RESET})
    least_s = 2.5
    head: ClassVar[bytes] = request("GET / HTTP/1.1", *(f"X-{n}: slow" for n in range(90)))

    async def assail(self, field: Field) -> None:
        async def one(enemy: Enemy) -> str:
            field.blows += 1
            drip = enemy.drip((bytes([byte]) for byte in self.head), 0.05)
            return await enemy.while_sending(drip, enemy.status())

        await field.crowd(300, one)


class SlowHandshakes(SlowHeads):
    """Half a WebSocket's handshake, and then hardly anything."""

    key = "slow-handshake"
    head = (
        request("GET /echo HTTP/1.1", "Upgrade: websocket", "Connection: Upgrade")[:-2]
        + b"X-Slow: "
        + b"x" * 400
    )


class SlowBodies(Attack):
    """Uploads of a byte every now and then."""

    key = "slow-body"
    serve = ("--body-idle-timeout", "0.5")
    deserves = frozenset({"408"})
    least_s = 2.0

    async def assail(self, field: Field) -> None:
        async def one(enemy: Enemy) -> str:
            field.blows += 1
            await enemy.send(request("POST / HTTP/1.1", "Content-Length: 1000000"))
            return await enemy.while_sending(enemy.drip([b"x"] * 10_000, 0.8), enemy.status())

        await field.crowd(200, one)


class NeverReadsResponses(Attack):
    """Clients that ask for a response without end and read nothing of it."""

    key = "response-never-read"
    serve = ("--write-timeout", "1")
    deserves = frozenset({RESET, END})
    least_s = 4.0
    memory_bytes = 64 * 2**20

    async def assail(self, field: Field) -> None:
        async def one() -> None:
            while not field.over:
                async with await field.connect(receive_buffer=4096) as enemy:
                    field.blows += 1
                    await enemy.send(request("GET /big HTTP/1.1"))
                    field.outcomes[await enemy.outcome_of(_until_cut_off(enemy), field.left_s)] += 1

        await asyncio.gather(*(one() for _ in range(100)))


async def _until_cut_off(enemy: Enemy) -> str:
    """Read nothing, and look now and then whether the connection is there."""
    while True:
        await asyncio.sleep(0.2)
        await enemy.send(b"\r")  # what comes after a request isn't read before its response


class BigRequests(Attack):
    """Targets, headers and bodies beyond every size and number."""

    key = "oversized-http"
    serve = ("--max-body-bytes", "1000000")
    deserves = frozenset({"400", "413", "414", "431", RESET})

    async def assail(self, field: Field) -> None:
        shapes = [
            (request(f"GET /{'x' * 100_000} HTTP/1.1"), {"414"}),
            (request("GET / HTTP/1.1", f"X-Long: {'x' * 60_000}"), {"431"}),
            (request("GET / HTTP/1.1", f"{'x' * 60_000}: long"), {"431", "400"}),
            (request("GET / HTTP/1.1", *["X-Many: x"] * 10_000), {"431"}),
            (request("GET / HTTP/1.1", *(f"X-{n}: {'x' * 9000}" for n in range(60))), {"431"}),
            (request("POST / HTTP/1.1", "Content-Length: 1000001"), {"413"}),
            (request("POST / HTTP/1.1", f"Content-Length: {'9' * 400}"), {"413", "400"}),
            (_chunked(b"f4241\r\n" + b"x" * 1_000_001), {"413"}),
            (_chunked(b"5;" + b"x" * 100_000 + b"\r\nhello"), {"400", "413", "431"}),
            (_chunked(b"0" * 100_000 + b"5\r\nhello"), {"400", "413"}),
            (_chunked(b"0\r\n" + b"X-Trailer: x\r\n" * 10_000 + b"\r\n"), {"431", "400"}),
        ]

        async def one(enemy: Enemy) -> str:
            data, statuses = field.chance.choice(shapes)
            field.blows += 1
            status = await enemy.while_sending(enemy.send(data), enemy.status())
            if status not in {*statuses, END}:
                field.wrong(f"{data[:40]!r}... was answered by {status}")
            return RESET if status == END else status

        await field.crowd(20, one)


def _chunked(body: bytes) -> bytes:
    return request("POST / HTTP/1.1", "Transfer-Encoding: chunked", body=body)


SMUGGLED = request("GET /smuggled HTTP/1.1")


class Smuggling(Attack):
    """Requests that two parsers could read in two ways, each with another one behind."""

    key = "smuggling"
    deserves = frozenset({"400", "405", "411", "413", "414", "417", "431", "501", "505"})
    least_s = 4.0

    async def assail(self, field: Field) -> None:
        from tests.protocols.test_http1_refused import VECTORS

        vectors = list(VECTORS)
        field.chance.shuffle(vectors)
        left = iter(vectors * 1000)

        async def one(enemy: Enemy) -> str | None:
            vector = next(left)
            field.blows += 1
            await enemy.send(vector.raw + SMUGGLED)
            answers = await enemy.read_to_end()
            found = [line for line in answers.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
            status = found[0].split()[1].decode() if found else END
            if len(found) > 1 or b"smuggled" in answers:
                field.wrong(f"{vector.rule}: a request behind it was answered")
            if status != str(vector.status):
                field.wrong(f"{vector.rule}: {status} instead of {vector.status}")
            return status

        await field.crowd(10, one)
        if field.blows < len(vectors):
            field.wrong(f"only {field.blows} of {len(vectors)} vectors were tried")


class Injection(Attack):
    """Line breaks in what an application puts into a handshake's answer, or a redirect."""

    key = "header-injection"
    deserves = frozenset({"500"})
    breaks = ("\r\n", "\n", "\r", "\x00", "\x0b", "\x0c", "\x85", "\u2028")

    async def assail(self, field: Field) -> None:
        async def one(enemy: Enemy) -> str | None:
            broken = field.chance.choice(self.breaks)
            value = quote(f"a{broken}X-Injected: yes{broken}{broken}<b>", safe="")
            shape = field.chance.choice(["/naive?header=", "/naive?subprotocol=", "/redirect?to="])
            field.blows += 1
            if shape.startswith("/naive"):
                offer = "Sec-WebSocket-Protocol: a, X-Injected"
                await enemy.send(handshake(shape + value, offer))
            else:
                await enemy.send(request(f"GET {shape}{value} HTTP/1.1", "Connection: close"))
            try:
                head = await enemy.read_until(b"\r\n\r\n")
            except EOFError:
                return END
            if any(line.lower().startswith(b"x-injected") for line in head.splitlines()[1:]):
                field.wrong(f"{shape}: {broken!r} broke out of its header")
            status = head.split(b" ", 2)[1].decode()
            if status in {"101", "302"} and broken in "\x85\u2028":
                return None  # as bytes they are obs-text, which ends no line
            return status

        await field.crowd(10, one)


class ChunkFlood(Attack):
    """Bodies in chunks of one byte, each with an extension, without end."""

    key = "chunk-flood"
    deserves = frozenset({"400", "413", "431", HELD})

    async def assail(self, field: Field) -> None:
        plain, extended = b"1\r\nx\r\n" * 10_000, b"1;a=b\r\nx\r\n" * 10_000

        async def one(enemy: Enemy) -> str:
            piece = field.chance.choice([plain, extended])
            await enemy.send(_chunked(b""))

            async def flood() -> None:
                while True:
                    await enemy.send(piece)
                    field.blows += 10_000

            return await enemy.while_sending(flood(), enemy.status())

        await field.crowd(8, one)


class Pipeline(Attack):
    """Thousands of requests in one go, whose answers nobody reads."""

    key = "pipeline"
    deserves = frozenset({HELD, RESET, END, "429"})

    async def assail(self, field: Field) -> None:
        piece = request("GET / HTTP/1.1") * 1000

        async def one(enemy: Enemy) -> str:
            while True:
                await enemy.send(piece)
                field.blows += 1000

        await field.crowd(20, one)


class Traversal(Attack):
    """Paths that climb out of the folder of the static files."""

    key = "traversal"
    paths = ("-", "/static/chat/chat.css")
    command = (
        *("-m", "headrace", "serve", "millpond.asgi:application", "--app-dir", "demo"),
        *("--port", "PORT", "--no-access-log"),
    )
    deserves = frozenset({"400", "403", "404"})
    memory_bytes = 64 * 2**20
    names = ("manage.py", "millpond/settings.py", "etc/passwd")
    steps = ("../", "%2e%2e/", "..%2f", "%2e%2e%2f", "..\\", "..%5c", "%c0%ae%c0%ae/", "....//",
             ".%00./", "..;/", "%252e%252e/", "//", "./../", "%uff0e%uff0e/")  # fmt: skip
    secrets = (b"root:x:", b"SECRET_KEY", b"execute_from_command_line", b"DJANGO_SETTINGS_MODULE")

    async def assail(self, field: Field) -> None:
        async def one(enemy: Enemy) -> str | None:
            step, name = field.chance.choice(self.steps), field.chance.choice(self.names)
            target = f"/static/{step * field.chance.randrange(1, 9)}{name}"
            if field.chance.random() < 0.3:
                target = f"/static/chat/{target.removeprefix('/static/')}"
            field.blows += 1
            await enemy.send(request(f"GET {target} HTTP/1.1", "Connection: close"))
            answer = await enemy.read_to_end()
            if any(secret in answer for secret in self.secrets):
                field.wrong(f"{target} was served")
            return answer.split(b" ", 2)[1].decode() if answer else END

        await field.crowd(5, one)


class RunserverTraversal(Traversal):
    """The same where ``runserver`` serves the static files."""

    key = "runserver-traversal"
    # Django's own handler of static files raises for what climbs out; nothing is served.
    deserves = Traversal.deserves | {"500"}
    command = ("demo/manage.py", "runserver", "--noreload", "--insecure", "127.0.0.1:PORT")
