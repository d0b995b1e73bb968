"""What hostile clients do: the rows of docs/security.md that no other room's tests answer."""

import ast
import asyncio
from pathlib import Path
from typing import ClassVar

import pytest
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model

import headrace
from headrace.auth import get_user
from headrace.layers import InMemoryChannelLayer
from headrace.layers.local import LocalChannelLayer
from headrace.protocols.http2 import PREFACE, Http2Engine, Http2Limits
from tests.server.clients import connected, handshake, hello, serving

SOURCE = Path(headrace.__file__).parent
CONTROLS = [bytes([byte]) for byte in (*range(0x09), 0x0B, 0x0C, *range(0x0E, 0x20), 0x7F)]


@pytest.mark.parametrize("byte", CONTROLS, ids=lambda byte: byte.hex())
async def test_every_control_character_in_a_header_gets_400(byte):
    async with serving(hello) as server:
        for request in (
            b"GET / HTTP/1.1\r\nHost: here\r\nX-Odd: a" + byte + b"X-B: b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: here\r\nX-O" + byte + b"dd: a\r\n\r\n",
            handshake("/", "X-Odd: a" + byte.decode() + "b"),
        ):
            async with connected(server) as client:
                assert (await client.request(request)).status == 400


class Watched(str):
    """A secret that notices how it is compared."""

    __slots__ = ()
    compared: ClassVar[list[str]] = []

    def __eq__(self, other):
        self.compared.append("==")
        return str.__eq__(self, other)

    __hash__ = str.__hash__


@pytest.mark.django_db(transaction=True)
async def test_secrets_are_not_compared_by_their_first_difference(monkeypatch):
    model = get_user_model()
    ada = await model.objects.acreate_user("ada", password="a secret")
    known = ada.get_session_auth_hash()
    monkeypatch.setattr(model, "get_session_auth_hash", lambda self: Watched(known))
    Watched.compared.clear()
    for given, who in ((known, ada), ("x" + known[1:], None)):
        session = {
            SESSION_KEY: str(ada.pk),
            BACKEND_SESSION_KEY: "django.contrib.auth.backends.ModelBackend",
            HASH_SESSION_KEY: Watched(given),
        }
        user = await get_user({"type": "websocket", "session": _Session(session)})
        assert (user == ada) == (who is not None)
    assert Watched.compared == []


class _Session(dict):
    """As much of a session as is asked for."""

    def flush(self):
        self.clear()

    async def aflush(self):
        self.clear()


def imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_nothing_that_comes_from_elsewhere_is_unpickled_or_evaluated():
    """What may not be used can't be misused: only tests' own child processes speak pickle."""
    for path in SOURCE.rglob("*.py"):
        if path.relative_to(SOURCE).parts[0] == "testing":
            continue
        tree = ast.parse(path.read_text())
        assert not {"pickle", "marshal", "shelve", "dill", "yaml"} & set(imports(tree)), path
        called = {
            node.func.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert not {"eval", "exec", "compile", "__import__"} & called, path


@pytest.mark.parametrize("kind", ["memory", "local"])
async def test_two_hundred_clients_of_one_process_have_a_capacity_each(kind, tmp_path):
    layer = (
        InMemoryChannelLayer(capacity=1)
        if kind == "memory"
        else LocalChannelLayer(capacity=1, directory=str(tmp_path / "run"))
    )
    try:
        channels = [await layer.new_channel() for _ in range(200)]
        for number, channel in enumerate(channels):
            await layer.send(channel, {"type": "one", "number": number})
        got = [await asyncio.wait_for(layer.receive(channel), 5) for channel in channels]
        assert [event["number"] for event in got] == list(range(200))
    finally:
        await layer.close()


def test_a_block_of_hundreds_of_fields_has_a_call_of_its_own():
    def frame(kind, flags, stream, payload=b""):
        return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload

    engine = Http2Engine(Http2Limits(), now=0.0)
    engine.receive(PREFACE + frame(4, 0, 0), 0.0)
    crumbs = b"\x82\x86\x41\x04here\x84" + b"\x00\x21%b\x01b" % (b"a" * 33) * 390
    bombs = b"".join(frame(1, 0x5, stream, crumbs) for stream in range(1, 21, 2))
    events = engine.receive(bombs, 0.0)
    calls = 1
    while engine.has_unread:
        assert len(events) <= 2
        events = engine.receive(b"", 0.0)
        calls += 1
    assert calls >= 4
