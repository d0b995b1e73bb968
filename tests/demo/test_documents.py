"""The documents over real WebSockets, with pycrdt as the peer in the place of a browser's Yjs."""

import asyncio
import contextlib
import json
import random
import re
import shutil
import signal
import sqlite3
import sys

import pytest
import pytest_asyncio
from pycrdt import Doc, Text, create_update_message, write_message, write_var_uint
from websockets.exceptions import ConnectionClosed

from .site import DEMO, PATIENCE_S, Site, Tab, manage

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
async def test_what_is_written_within_a_tenth_of_a_second_is_kept_at_once(site):
    loop = asyncio.get_running_loop()
    async with two(site) as (one, other):
        began = loop.time()
        await one.write(0, "a")
        await other.says("a")
        await asyncio.gather(one.write(1, "b"), other.write(1, "c"))
        await one.until(lambda: len(str(one.text)) == 3)
        await other.says(str(one.text))
        assert loop.time() - began > 0.09  # a timer's milliseconds are rounded


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
async def test_what_overtakes_what_it_builds_on_is_no_fault(site):
    """A page that comes back sends what is typed just then before what was typed offline."""
    async with two(site) as (one, other):
        await one.write(0, "Together. ")
        await other.says("Together. ")
        await other.socket.close()
        away = Peer(other.visitor, other.number)
        away.doc.apply_update(other.doc.get_update())
        away._outbox.clear()
        for letter in "Offline. ":
            await away.write(len(away.text), letter)
        await one.write(0, "Meanwhile. ")
        async with away.visitor.websocket(f"/ws/documents/{away.number}") as socket:
            away._outbox.clear()
            for letter in "Just now.":
                away.text.insert(len(away.text), letter)
            for update in away._outbox:
                await socket.send(update)
            away.socket = socket
            listening = asyncio.create_task(away._listen(socket))
            await one.says("Meanwhile. Together. Offline. Just now.")
            listening.cancel()


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
        await one.write(0, ".")  # told after what was before it is folded
        await other.until(lambda: len(other.text) == 415)
        assert str(one.text) == str(other.text)
        last, rows = kept(site, one.number)
        assert last == 277
        assert rows < 200
        async with Peer(one.visitor, one.number).online() as later:
            await later.says(str(one.text))


# --- Who is there ---


@served
async def test_a_cursor_bears_the_name_of_the_login(site):
    async with two(site) as (one, other):
        await other.point(PLACE, user={"name": "Edith Novák", "color": "red"}, evil="<b>")
        await one.until(lambda: (one.people.get(other.client) or {}).get("cursor"))
        state = one.people[other.client]
        assert state["user"]["name"] == "Jonas Lindqvist"
        assert state["user"]["color"] == "#a24420"
        assert "evil" not in state


@served
async def test_nobody_speaks_for_another_s_client(site):
    async with two(site) as (one, other):
        await one.point(PLACE)
        await other.until(lambda: (other.people.get(one.client) or {}).get("cursor"))
        # As y-websocket does by itself (it passes on what it has heard), and as a forger might.
        forged = {"user": {"name": "Nobody"}, "cursor": None}
        for state in (forged, None):
            await other.socket.send(wire.awareness([(one.client, 1000, state)]))
        await other.point(PLACE)
        await one.until(lambda: (one.people.get(other.client) or {}).get("cursor"))
        await one.point(BEHIND)
        await other.until(lambda: other.people[one.client]["cursor"]["anchor"] == BEHIND)
        assert one.people[one.client]["user"]["name"] == "Maya Okafor"


@served
@pytest.mark.parametrize("how", ["close", "abort"])
async def test_who_leaves_is_gone(site, how):
    async with two(site) as (one, other):
        await one.until(lambda: one.people.get(other.client))
        if how == "close":
            await other.socket.close()
        else:
            other.socket.transport.abort()
        await one.until(lambda: one.people[other.client] is None)


@served
async def test_who_comes_is_told_who_is_there(site):
    async with two(site) as (one, other):
        await one.point(PLACE)
        await other.until(lambda: (other.people.get(one.client) or {}).get("cursor"))
        async with Peer(one.visitor, one.number).online() as later:
            await later.until(lambda: {one.client, other.client} <= later.people.keys())
            later.people.clear()
            await later.socket.send(b"\3")
            await later.until(lambda: {one.client, other.client} <= later.people.keys())


@served
async def test_a_page_comes_back_as_who_it_was(site):
    async with two(site) as (one, other):
        again = Peer(other.visitor, other.number)
        again.client, again.clock = other.client, 5
        async with again.online():
            await one.until(lambda: one.people.get(other.client))
            await again.point(PLACE)
            await one.until(lambda: (one.people.get(other.client) or {}).get("cursor"))
            await other.socket.close()  # the one that was given up: it takes nobody along
            async with Peer(one.visitor, one.number).online() as later:
                await later.until(lambda: later.people.get(again.client))


# --- Who may do what ---


@served
async def test_who_may_only_read_is_refused_and_told(site):
    async with two(site, "viewer") as (one, other):
        await one.write(0, "Mine.")
        await other.says("Mine.")
        for n in range(1, 11):
            await other.write(0, "Theirs. ")
            await other.until(lambda n=n: len(other.denied) == n)
        assert other.denied[2] == "You may read this document, not change it: 3 refused."
        assert await other.closed() == (READ_ONLY, other.denied[-1])
        assert other.asked == 0
        assert str(one.text) == "Mine."
    async with one.online():
        await one.says("Mine.")
    assert kept(site, one.number)[0] == 1


@served
async def test_a_viewer_has_a_cursor_all_the_same(site):
    async with two(site, "viewer") as (one, other):
        await other.point(PLACE)
        await one.until(lambda: (one.people.get(other.client) or {}).get("cursor"))
        assert one.people[other.client]["user"]["reads"] is True
        assert one.people[one.client]["user"]["reads"] is False


@served
async def test_a_stranger_and_a_wrong_number_are_told_the_same(site):
    maya = await site.visitor().log_in("maya")
    jonas = await site.visitor().log_in("jonas")
    number = await new_document(maya)
    for document in (number, 10**6, 10**30):
        async with jonas.websocket(f"/ws/documents/{document}") as socket:
            await socket.wait_closed()
            assert socket.close_code == GONE
            assert socket.close_reason.startswith("There is no such document")
        assert (await jonas.get(f"/documents/{document}/")).status == 404
    async with site.visitor().websocket(f"/ws/documents/{number}") as socket:
        await socket.wait_closed()
        assert socket.close_code == LOGGED_OUT


@served
async def test_rights_end_and_change_while_the_page_is_open(site):
    async with two(site) as (one, other):
        await share(one.visitor, one.number, "jonas", "viewer")
        assert (await other.closed())[0] == ACCESS_CHANGED
        async with other.online():
            await other.synced.wait()
            path = f"/documents/{one.number}/"
            jonas = re.search(r"/unshare/(\d+)/", (await one.visitor.get(path)).text)[1]
            await one.visitor.post(f"{path}unshare/{jonas}/", on=path)
            assert (await other.closed())[0] == GONE
        await one.visitor.post(f"{path}everyone/", on=path, everyone="editor")
        async with other.online():
            await other.synced.wait()
            await other.write(0, "Back.")
            await one.says("Back.")
            await one.visitor.post(f"{path}delete/", on=path)
            assert (await other.closed())[0] == (await one.closed())[0] == GONE


@served
async def test_only_the_owner_shares(site):
    maya = await site.visitor().log_in("maya")
    jonas = await site.visitor().log_in("jonas")
    number = await new_document(maya, jonas="editor")
    path = f"/documents/{number}/"
    for what in ("share/", "unshare/1/", "everyone/", "delete/"):
        page = await jonas.post(
            path + what, on=path, username="wen", role="editor", everyone="viewer"
        )
        assert page.status == 404, what
    page = await share(maya, number, "maya", "viewer")
    assert "It is their own document." in page.text
    page = await jonas.get("/documents/")
    assert f'href="{path}"' in page.text
    assert (
        f'href="{path}"' not in (await (await site.visitor().log_in("wen")).get("/documents/")).text
    )


@served
async def test_who_a_document_is_shared_with_is_notified(site):
    maya = await site.visitor().log_in("maya")
    priya = await site.visitor().log_in("priya")
    async with priya.websocket("/ws/bell/") as socket:
        bell = Tab(socket)
        await bell.wait_for("welcome")
        number = await new_document(maya, priya="viewer")
        await share(maya, number, "priya", "editor")  # which is no news
        told = (await bell.wait_for("notification"))["notification"]
        assert (told["kind"], told["text"]) == ("document", "Maya Okafor · A document of a test")
        assert not [
            each
            for each in await bell.quiet()
            if each is not bell.heard[-2]
            and each["type"] == "notification"
            and each["notification"] != told
        ]


# --- Nonsense ---


@served
@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\0",
        b"\0\2\2ab",
        b"\0\2" + write_message(b"\1\1\xff\xff\xff\xff\x0f\0"),
        b"\0\0" + write_message(b"\xff"),
        b"\1\1\xff",
        b"\2\0\0",
        b"\7",
        "text",
    ],
)
async def test_what_is_no_message_ends_the_connection_and_no_other(site, message):
    async with two(site) as (one, other):
        await one.write(0, "Sense.")
        await other.says("Sense.")
        await other.socket.send(message)
        code, reason = await other.closed()
        assert code == MALFORMED
        assert reason.startswith("Not understood: ")
        await one.write(6, " More of it.")
        async with other.online():
            await other.says("Sense. More of it.")


@served
async def test_updates_at_random_break_nothing(site):
    chance = random.Random(5)
    maya = await site.visitor().log_in("maya")
    number = await new_document(maya)
    async with Peer(maya, number).online() as one:
        await one.synced.wait()
        for word in ("Sense ", "and ", "order."):
            await one.write(len(one.text), word)
        whole = one.doc.get_update()
        for _ in range(60):
            broken = bytearray(whole)
            for _ in range(chance.randint(1, 4)):
                broken[chance.randrange(len(broken))] = chance.randrange(256)
            async with maya.websocket(f"/ws/documents/{number}") as socket:
                await socket.send(wire.missing(b"\0\0"))
                await socket.send(create_update_message(bytes(broken)))
                await socket.send(b"\3")
                with contextlib.suppress(ConnectionClosed):
                    async for message in socket:
                        if message[0] == 1:
                            break
        # Whatever of it made sense is kept, and can be read by who comes.
        await one.write(0, "> ")
        async with Peer(maya, number).online() as later:
            await later.until(lambda: str(later.text).startswith("> "))
            await later.says(str(one.text))


@served
async def test_an_update_that_builds_on_nothing_is_asked_for_again(site):
    async with two(site) as (one, other):
        other.text.insert(0, "One ")
        other.text.insert(4, "two ")
        other.text.insert(8, "three.")
        *_, last = other._outbox
        other._outbox.clear()
        asked = other.asked
        await other.socket.send(last)
        await other.until(lambda: other.asked == asked + 1)
        await one.says("One two three.")
        again = Doc()
        text = again.get("content", type=Text)
        updates = []
        again.observe(lambda event: updates.append(event.update))
        text.insert(0, "a")
        text.insert(1, "b")
        for _ in range(2):
            asked = other.asked
            await other.socket.send(create_update_message(updates[1]))
            await other.until(lambda asked=asked: other.asked > asked or other.socket.close_code)
        assert (await other.closed())[0] == MALFORMED


@served
async def test_what_is_too_large_is_refused_with_a_code(site):
    async with two(site) as (one, other):
        await other.write(0, "x" * 300_000)
        code, reason = await other.closed()
        assert (code, reason) == (TOO_LARGE, "Too large: this document has no room for it.")
        # In all, too; what is taken away makes room.
        for _ in range(2):
            await one.write(0, "y" * 250_000)
        await one.write(0, "z" * 50_000)
        assert (await one.closed())[0] == TOO_LARGE
        shorter = Peer(one.visitor, one.number)
        async with shorter.online():
            await shorter.says("y" * 500_000)
            del shorter.text[1:]
            await shorter.send()
            await shorter.write(1, "z" * 50_000)
            async with Peer(one.visitor, one.number).online() as later:
                await later.says("y" + "z" * 50_000)


@served
async def test_who_sends_too_much_is_told_and_comes_back_with_it(site):
    async with two(site) as (one, other):
        for n in range(700):
            other.text.insert(n, "x")
        messages, other._outbox = other._outbox, []
        with contextlib.suppress(ConnectionClosed):
            for message in messages:
                await other.socket.send(message)
        assert (await other.closed())[0] == TOO_MANY
        async with other.online():
            await one.says("x" * 700)


# --- Several processes ---


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def pair(seeded, tmp_path_factory):
    """Two processes over one database and the local layer."""
    data = shutil.copytree(seeded, tmp_path_factory.mktemp("pair") / "data")
    sites = Site(data, layer="local"), Site(data, layer="local")
    for site in sites:
        await site.start()
    yield sites
    for site in sites:
        await site.stop()
    assert sites[0].new_complaints() == []  # they have one log


@served
async def test_two_processes_show_one_document(pair):
    """They write at once, fold its updates both, and say the same."""
    here, there = pair
    maya = await here.visitor().log_in("maya")
    jonas = await there.visitor().log_in("jonas")
    number = await new_document(maya, jonas="editor")
    async with Peer(maya, number).online() as one, Peer(jonas, number).online() as other:
        await one.until(lambda: one.people.get(other.client))
        await other.until(lambda: other.people.get(one.client))
        await asyncio.gather(one.synced.wait(), other.synced.wait())

        async def write(peer, letter):
            for _ in range(210):
                await peer.write(len(peer.text) // 2, letter)

        await asyncio.gather(write(one, "a"), write(other, "b"))
        await one.until(lambda: len(one.text) == 420)
        await one.write(0, ".")  # told after what was before it is folded
        await other.until(lambda: len(other.text) == 421)
        assert str(one.text) == str(other.text)
        last, rows = kept(here, number)
        assert last == 421
        assert rows < 220
        async with Peer(maya, number).online(there) as later:
            await later.says(str(one.text))


@served
async def test_what_a_killed_process_had_kept_is_there(pair):
    here, there = pair
    maya = await here.visitor().log_in("maya")
    jonas = await there.visitor().log_in("jonas")
    number = await new_document(maya, jonas="editor")
    async with Peer(jonas, number).online() as other:
        one = Peer(maya, number)
        async with one.online():
            await one.synced.wait()
            await one.write(0, "Before. ")
            await other.says("Before. ")
            await here.stop(signal.SIGKILL)
        await one.write(8, "Meanwhile. ")
        async with one.online(there):
            await other.says("Before. Meanwhile. ")
    await here.start()
    async with one.online(here):
        await one.says("Before. Meanwhile. ")


@served
async def test_what_was_kept_and_never_told_is_found_by_its_number(pair):
    """As if the process that kept it had died in between."""
    here, there = pair
    maya = await here.visitor().log_in("maya")
    jonas = await there.visitor().log_in("jonas")
    number = await new_document(maya, jonas="editor")
    async with Peer(maya, number).online() as one, Peer(jonas, number).online() as other:
        await asyncio.gather(one.synced.wait(), other.synced.wait())
        silent = Doc({"content": Text("Never told. ")})
        with contextlib.closing(sqlite3.connect(here.data / "db.sqlite3", timeout=10)) as database:
            database.execute(
                "insert into documents_update (document_id, number, data) values (?, 1, ?)",
                (number, silent.get_update()),
            )
            database.execute(
                "update documents_document set last_number = 1 where id = ?", (number,)
            )
            database.commit()
        await one.write(0, "Told. ")
        for peer in (one, other):
            await peer.until(lambda peer=peer: "Never told. " in str(peer.text))
            await peer.until(
                lambda peer=peer: "Told. " in str(peer.text).replace("Never told. ", "")
            )
        await other.says(str(one.text))


@served
async def test_a_database_that_fails_loses_nothing(own_site):
    maya = await own_site.visitor().log_in("maya")
    number = await new_document(maya)
    async with Peer(maya, number).online() as one:
        await one.synced.wait()
        with contextlib.closing(sqlite3.connect(own_site.data / "db.sqlite3")) as database:
            database.execute("alter table documents_update rename to elsewhere")
            await one.write(0, "Not lost.")
            assert (await one.closed())[0] == 1013
            database.execute("alter table elsewhere rename to documents_update")
    async with one.online():
        await one.until(lambda: one.asked)
        async with Peer(maya, number).online() as later:
            await later.says("Not lost.")
    assert own_site.new_complaints() != []
    assert f"document {number} can't be written" in own_site.log.read_text()


# --- Inside of one process ---

INSIDE = """
import asyncio
from django.contrib.auth import get_user_model
from documents import wire
from documents.groups import document_group
from documents.replica import replicas
from documents.routing import websocket_urlpatterns
from headrace.layers import get_channel_layer
from headrace.routing import URLRouter
from headrace.testing import WebsocketCommunicator
from pycrdt import Doc, Text, create_update_message

async def page(user):
    page = WebsocketCommunicator(URLRouter(websocket_urlpatterns), "/ws/documents/1")
    page.scope["user"] = user
    await page.connect()
    await page.send_to(bytes_data=wire.missing(b"\\0\\0"))  # it has nothing of its own
    await page.send_to(bytes_data=wire.ask(b"\\0"))
    return page, await told(page, wire.Kind.MISSING)

async def told(page, kind):
    while True:
        found, data = wire.read(await page.receive_from(timeout=10))
        if found is kind:
            return data

async def main():
    user = await get_user_model().objects.aget(username="maya")
    one, whole = await page(user)
    (replica,) = replicas._open.values()
    (first,) = replica.channels
    two, again = await page(user)
    assert again == whole
    assert list(replicas._open.values()) == [replica], "one for both"
    (second,) = replica.channels - {first}

    # As if the channel layer had lost what it was to bring to the second page.
    layer = get_channel_layer()
    await layer.group_discard(document_group(1), second)
    update = Doc({"content": Text("Lost, and found.")}).get_update()
    await one.send_to(bytes_data=create_update_message(update))
    assert await told(one, wire.Kind.UPDATE) == update
    await layer.send(second, {"type": "layer.gap", "reason": "a test", "groups": []})
    healed = Doc({"content": Text()})
    kind = wire.Kind.AWARENESS
    while kind is wire.Kind.AWARENESS:
        kind, data = wire.read(await two.receive_from(timeout=10))
    assert kind is wire.Kind.MISSING, "it was not told of the update"
    healed.apply_update(data)
    assert "Lost, and found." in str(healed["content"])
    assert "The summer fair" in str(healed["content"])

    await one.disconnect()
    assert len(replicas) == 1
    await two.disconnect()
    assert len(replicas) == 0
    print("done")

asyncio.run(main())
"""


def test_a_process_has_one_replica_and_a_gap_heals(seeded, tmp_path):
    data = shutil.copytree(seeded, tmp_path / "data")
    assert manage(data, "shell", "-c", INSIDE).endswith("done\n")


# --- What the page has of others ---


def test_the_bundle_is_of_the_versions_that_are_locked():
    application = DEMO / "documents"
    lock = (application / "frontend/package-lock.json").read_text()
    assert '"resolved"' not in lock
    locked = {
        path.removeprefix("node_modules/"): package["version"]
        for path, package in json.loads(lock)["packages"].items()
        if path
    }
    licences = (application / "static/documents/vendor/LICENSES.txt").read_text()
    bundled = re.findall(r"^(\S+) (\d[\d.]*) \(MIT\)$", licences, re.MULTILINE)
    assert {"yjs", "y-websocket", "y-codemirror.next", "@codemirror/view"} <= dict(bundled).keys()
    assert [locked[name] for name, _ in bundled] == [version for _, version in bundled]
