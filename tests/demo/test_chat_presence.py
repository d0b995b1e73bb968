"""Who is there, whichever process has them, and whatever becomes of it."""

import contextlib
import os
import shutil
import signal
import sqlite3

import pytest

from tests.layers.redis.servers import RedisServer

from .site import Site
from .test_arena import worker_of

#: The close code for a page that is to come again and ask for what it has missed.
COME_BACK = 4000

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]


def names(tab):
    return {person["name"] for person in tab.welcome["people"]}


@contextlib.asynccontextmanager
async def two_workers(seeded, tmp_path, layer, monkeypatch):
    monkeypatch.setenv("DEMO_LAYER", layer)
    site = Site(shutil.copytree(seeded, tmp_path / "data"), "--workers", "2")
    await site.start()
    try:
        yield site
    finally:
        await site.stop()


async def enter_elsewhere(stack, visitor, room, home):
    """Open the room in another worker than the process ``home``."""
    for _ in range(60):
        async with contextlib.AsyncExitStack() as opened:
            tab = await opened.enter_async_context(visitor.tab(room))
            if worker_of(tab.socket) != home:
                stack.push_async_exit(opened.pop_all())
                return tab
    return pytest.fail("all connections went to one worker")


@pytest.fixture(params=["local", "redis"])
def layer(request):
    """Return what ``DEMO_LAYER`` says."""
    if request.param == "local":
        yield "local"
    else:
        with RedisServer() as server:
            yield server.url


async def test_workers_know_each_other_s_people_and_outlive_each_other(
    seeded, tmp_path, monkeypatch, layer
):
    async with two_workers(seeded, tmp_path, layer, monkeypatch) as site:
        maya = await site.visitor().log_in("maya")
        jonas = await site.visitor().log_in("jonas")
        async with contextlib.AsyncExitStack() as stack:
            one = await stack.enter_async_context(maya.tab("mill-pond"))
            her = one.welcome["you"]
            other = await enter_elsewhere(stack, jonas, "mill-pond", worker_of(one.socket))
            him = other.welcome["you"]
            assert names(other) == {"Maya Okafor", "Jonas Lindqvist"}
            await one.wait_for("presence", user=him, here=True)

            # Her second tab, in the other process, is no other person.
            second = await enter_elsewhere(stack, maya, "mill-pond", worker_of(one.socket))
            assert names(second) == {"Maya Okafor", "Jonas Lindqvist"}
            heard = [each for each in await other.quiet() if each["type"] == "presence"]
            assert [each for each in heard if each["user"] == her] == []

            await one.quiet()
            # Its process dies, and with it Jonas's. She is still here by the first.
            os.kill(worker_of(other.socket), signal.SIGKILL)
            gone = await one.wait_for("presence", here=False)
            assert gone["user"] == him
            async with maya.tab("mill-pond") as late:
                assert names(late) == {"Maya Okafor"}
                await late.quiet()
            told = [each for each in one.heard if each["type"] == "presence"]
            assert [each for each in told if each["user"] == her and not each["here"]] == []
            revisions = [each["revision"] for each in told]
            assert revisions == sorted(set(revisions))


async def test_a_process_that_was_taken_for_dead_puts_its_people_back(own_site):
    maya = await own_site.visitor().log_in("maya")
    async with maya.tab("mill-pond") as one:
        with contextlib.closing(
            sqlite3.connect(own_site.data / "db.sqlite3", timeout=10)
        ) as database:
            with database:
                database.execute("DELETE FROM chat_visit")
                database.execute("DELETE FROM chat_process")
            one.heard.clear()
            await one.wait_for("presence", user=one.welcome["you"], here=True)
            rows = "SELECT room_id, user_id FROM chat_visit JOIN chat_process ON process_id = key"
            assert len(database.execute(rows).fetchall()) == 1


async def test_the_table_is_as_long_as_there_are_connections(own_site):
    maya = await own_site.visitor().log_in("maya")

    def rows():
        with contextlib.closing(
            sqlite3.connect(own_site.data / "db.sqlite3", timeout=10)
        ) as database:
            return database.execute("SELECT count(*) FROM chat_visit").fetchone()[0]

    jonas = await own_site.visitor().log_in("jonas")
    async with maya.tab("mill-pond") as one, maya.tab("workshop"):
        async with jonas.tab("mill-pond"):
            assert rows() == 3
        await one.wait_for("presence", here=False)
        assert rows() == 2
        await own_site.stop()
    assert rows() == 0


async def test_what_the_channel_layer_may_have_lost_is_told_again(seeded, tmp_path, monkeypatch):
    with RedisServer() as server:
        monkeypatch.setenv("DEMO_LAYER", server.url)
        site = Site(shutil.copytree(seeded, tmp_path / "data"))
        await site.start()
        try:
            maya = await site.visitor().log_in("maya")
            async with maya.lobby() as lobby, maya.tab("mill-pond") as room:
                assert (await room.say("Before."))["message"]["text"] == "Before."
                first = next(each for each in lobby.heard if each["type"] == "rooms")
                server.drop_connections()
                again = await lobby.wait_for("rooms")
                assert {each["slug"] for each in again["rooms"]} == {
                    each["slug"] for each in first["rooms"]
                }
                # A room has a history, which the page asks for when it comes again.
                assert await room.closed() == COME_BACK
            async with maya.tab("mill-pond", seen=0) as room:
                assert room.welcome["messages"][-1]["text"] == "Before."
        finally:
            await site.stop()
