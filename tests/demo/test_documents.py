"""The documents over real WebSockets, with pycrdt as the peer in the place of a browser's Yjs."""

import asyncio
import contextlib
import random
import re
import sqlite3
import sys

import pytest
from pycrdt import Doc, Text, create_update_message, write_message, write_var_uint
from websockets.exceptions import ConnectionClosed

from .site import DEMO, PATIENCE_S

sys.path.insert(0, str(DEMO))
from documents import presence, wire

sys.path.remove(str(DEMO))

served = pytest.mark.asyncio(loop_scope="session")

MALFORMED, LOGGED_OUT, READ_ONLY, GONE, ACCESS_CHANGED, TOO_LARGE, TOO_MANY = (
    *(4400, 4401, 4403, 4404, 4410, 4413, 4429),
)


class Peer:
    """A Yjs document with a connection, or without one: it goes on writing, as a page does."""

    def __init__(self, visitor, number):
        self.visitor = visitor
        self.number = number
        self.doc = Doc()
        self.text = self.doc.get("content", type=Text)
        self.client = random.randrange(2**32)
        self.clock = 0
        self.people = {}
        self.denied = []
        self.asked = 0
        self.synced = asyncio.Event()
        self.changed = asyncio.Event()
        self.socket = None
        self._outbox = []
        self._applying = False
        self.doc.observe(self._on_change)

    def _on_change(self, event):
        if not self._applying:
            self._outbox.append(create_update_message(event.update))

    @contextlib.asynccontextmanager
    async def online(self, site=None):
        """Connect as y-websocket does: say what is here, and who; and answer."""
        self.visitor.site = site or self.visitor.site
        self.synced.clear()
        async with self.visitor.websocket(f"/ws/documents/{self.number}") as socket:
            self.socket = socket
            self._outbox.clear()  # what is new is in the answer to the server's question
            listening = asyncio.create_task(self._listen(socket))
            await socket.send(wire.ask(self.doc.get_state()))
            await self.point(None)
            try:
                yield self
            finally:
                self.socket = None
                listening.cancel()

    async def _listen(self, socket):
        with contextlib.suppress(ConnectionClosed):
            async for message in socket:
                if message[:2] == b"\2\0":
                    self.denied.append(message[3:].decode())
                else:
                    await self._take(*wire.read(message), socket)
                self.changed.set()
        self.changed.set()

    async def _take(self, kind, data, socket):
        match kind:
            case wire.Kind.STATE_VECTOR:
                self.asked += 1
                await socket.send(wire.missing(self.doc.get_update(data)))
            case wire.Kind.MISSING | wire.Kind.UPDATE:
                self._applying = True
                self.doc.apply_update(data)
                self._applying = False
                if kind is wire.Kind.MISSING:
                    self.synced.set()
            case wire.Kind.AWARENESS:
                for client, _, state in wire.read_awareness(data):
                    self.people[client] = state

    async def send(self):
        """Send what was written; without a connection it stays here."""
        while self._outbox and self.socket:
            await self.socket.send(self._outbox.pop(0))

    async def write(self, at, text):
        self.text.insert(at, text)
        await self.send()

    async def point(self, at, **state):
        """Tell where the cursor is, and who one is."""
        self.clock += 1
        cursor = at and {"anchor": at, "head": at}
        message = wire.awareness([(self.client, self.clock, {"cursor": cursor, **state})])
        await self.socket.send(message)

    async def until(self, is_it):
        async with asyncio.timeout(PATIENCE_S):
            while not is_it():
                self.changed.clear()
                await self.changed.wait()

    async def says(self, text):
        await self.until(lambda: str(self.text) == text)

    async def closed(self):
        socket = self.socket
        async with asyncio.timeout(PATIENCE_S):
            await socket.wait_closed()
        return socket.close_code, socket.close_reason


async def new_document(visitor, **shares):
    """Make a document, share it by user name, and return its number."""
    page = await visitor.post("/documents/", title="A document of a test")
    number = int(re.fullmatch(r"/documents/(\d+)/", page.path)[1])
    for username, role in shares.items():
        await share(visitor, number, username, role)
    return number


async def share(visitor, number, username, role):
    return await visitor.post(
        f"/documents/{number}/share/", on=f"/documents/{number}/", username=username, role=role
    )


@contextlib.asynccontextmanager
async def two(site, role="editor"):
    """Open a new document as its owner and as somebody else."""
    maya = await site.visitor().log_in("maya")
    jonas = await site.visitor().log_in("jonas")
    number = await new_document(maya, jonas=role)
    async with Peer(maya, number).online() as one, Peer(jonas, number).online() as other:
        await one.synced.wait()
        await other.synced.wait()
        yield one, other


# --- Bytes ---


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"", "no end"),
        (b"\x80", "no end"),
        (b"\xff" * 9, "too"),
        (b"\0", "no end"),
        (b"\0\7\0", "no message 0 7"),
        (b"\0\0\5ab", "5 bytes are announced, 2 are there"),
        (b"\0\2\0x", "1 bytes are left over"),
        (b"\2\0\0", "no message 2"),
        (b"\x63", "no message 99"),
        (b"\3\3", "left over"),
    ],
)
def test_bytes_that_are_no_message_are_malformed(message, why):
    with pytest.raises(wire.Malformed, match=why):
        wire.read(message)


def test_messages_are_read_as_they_are_written():
    assert wire.read(wire.ask(b"\0")) == (wire.Kind.STATE_VECTOR, b"\0")
    assert wire.read(wire.missing(b"ab")) == (wire.Kind.MISSING, b"ab")
    assert wire.read(create_update_message(b"ab" * 200)) == (wire.Kind.UPDATE, b"ab" * 200)
    assert wire.read(b"\3") == (wire.Kind.QUERY, b"")
    entries = [(2**40, 7, {"name": "Tomás"}), (1, 0, None)]
    kind, data = wire.read(wire.awareness(entries))
    assert (kind, wire.read_awareness(data)) == (wire.Kind.AWARENESS, entries)


@pytest.mark.parametrize(
    "state", [b"", b"[]", b"7", b'"a"', b"{", b"\xff", b"[" * 4000, b" " * 5000 + b"{}"]
)
def test_states_that_are_none_are_malformed(state):
    data = write_var_uint(1) * 3 + write_message(state)
    with pytest.raises(wire.Malformed, match="state"):
        wire.read_awareness(data)


# --- Who is there, by itself ---


PERSON = {"id": 5, "name": "Maya", "color": "teal"}
PLACE = {"type": None, "tname": "content", "item": None, "assoc": 0}
BEHIND = {"type": None, "tname": None, "item": {"client": 1, "clock": 2}, "assoc": -1}


@pytest.mark.parametrize("place", [PLACE, BEHIND])
def test_a_cursor_is_passed_on(place):
    cursor = {"anchor": place, "head": {**place, "more": 1}}
    shown = presence.shown({"cursor": cursor, "user": {"name": "Edith"}}, PERSON, reads=True)
    assert shown["cursor"] == {"anchor": place, "head": place}
    assert (shown["user"]["name"], shown["user"]["color"]) == ("Maya", "#0a6f6a")


@pytest.mark.parametrize(
    "place",
    [
        None,
        7,
        {},
        {**PLACE, "tname": "other"},
        {**PLACE, "assoc": 2},
        {**PLACE, "assoc": True},
        {**BEHIND, "item": {"client": -1, "clock": 2}},
        {**BEHIND, "item": {"client": 1.5, "clock": 2}},
        {**BEHIND, "item": {"client": 2**53, "clock": 2}},
        {**BEHIND, "item": []},
    ],
)
def test_what_is_no_cursor_is_not_passed_on(place):
    for cursor in (place, {"anchor": place, "head": PLACE}, {"anchor": PLACE, "head": place}):
        assert presence.shown({"cursor": cursor}, PERSON, reads=False)["cursor"] is None


def test_a_client_is_of_one_user_until_it_leaves_or_falls_silent():
    here = presence.Presence()
    here.note(1, 4, {}, user=5, channel="a", now=100.0)
    assert here.may_be(1, 5, 100.0)  # the same user, come back
    assert not here.may_be(1, 6, 100.0)
    assert here.may_be(1, 6, 131.0)
    assert here.left("b") == []
    assert here.left("a") == [(1, 4, None)]
    here.note(1, 4, None, user=5, channel="a", now=101.0)
    assert here.left("a") == []
    assert here.may_be(1, 6, 101.0)


def test_who_has_fallen_silent_is_not_told_of():
    here = presence.Presence()
    here.note(1, 1, {}, user=5, channel="a", now=100.0)
    here.note(2, 1, {}, user=6, channel="b", now=120.0)
    assert [client for client, _ in here.here(121.0)] == [1, 2]
    assert [client for client, _ in here.here(121.0, {"a"})] == [1]
    assert [client for client, _ in here.here(131.0)] == [2]


# --- Writing together ---


@served
async def test_two_write_and_have_the_same_text(site):
    async with two(site) as (one, other):
        await one.write(0, "Hello")
        await other.says("Hello")
        await asyncio.gather(one.write(5, " one."), other.write(0, "Two: "))
        await one.says("Two: Hello one.")
        await other.says("Two: Hello one.")
        del other.text[0:5]
        await other.send()
        await one.says("Hello one.")


@served
async def test_what_was_written_is_there_for_who_comes_later(site):
    maya = await site.visitor().log_in("maya")
    number = await new_document(maya)
    async with Peer(maya, number).online() as one:
        await one.synced.wait()
        await one.write(0, "😄 Kept.")
        async with Peer(maya, number).online() as echo:
            await echo.says("😄 Kept.")
    async with Peer(maya, number).online() as later:
        await later.says("😄 Kept.")


@served
async def test_what_was_written_offline_merges(site):
    async with two(site) as (one, other):
        await one.write(0, "The middle.")
        await other.says("The middle.")
        away = Peer(other.visitor, other.number)
        async with away.online():
            await away.says("The middle.")
        await away.write(11, " The end.")
        await one.write(0, "The beginning. ")
        await other.says("The beginning. The middle.")
        async with away.online():
            for peer in (one, other, away):
                await peer.says("The beginning. The middle. The end.")


@served
async def test_a_process_has_a_document_once(site):
    """Sixty updates over twenty connections are kept once each."""
    maya = await site.visitor().log_in("maya")
    number = await new_document(maya)
    async with contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(Peer(maya, number).online()) for _ in range(20)]
        for peer in peers:
            await peer.synced.wait()

        async def write(peer):
            for _ in range(3):
                await peer.write(0, "x")

        await asyncio.gather(*map(write, peers))
        for peer in peers:
            await peer.says("x" * 60)
    assert kept(site, number) == (60, 60)


def kept(site, number):
    """Return how many updates there were, and how many of them are rows of their own."""
    with contextlib.closing(sqlite3.connect(site.data / "db.sqlite3")) as database:
        (last,) = database.execute(
            "select last_number from documents_document where id = ?", (number,)
        ).fetchone()
        (rows,) = database.execute(
            "select count(*) from documents_update where document_id = ?", (number,)
        ).fetchone()
    return last, rows


@served
async def test_who_comes_back_with_nothing_new_adds_nothing(site):
    async with two(site) as (one, other):
        await one.write(0, "Some text.")
        del one.text[0:5]
        await one.send()
        await other.says("text.")
        before = kept(site, one.number)
    for _ in range(2):
        async with one.online():
            await one.until(lambda: one.asked)
            await one.write(0, "")
            one.asked = 0
    assert kept(site, one.number) == before


@served
async def test_updates_are_folded_and_nothing_is_lost(site):
    async with two(site) as (one, other):
        for n in range(230):
            await (one, other)[n % 2].write(0, "ab")
            if n % 5 == 4:
                del one.text[0:1]
                await one.send()
        await one.until(lambda: len(one.text) == 414)
        await other.says(str(one.text))
        last, rows = kept(site, one.number)
        assert last == 276
        assert rows < 200
        async with Peer(one.visitor, one.number).online() as later:
            await later.says(str(one.text))
