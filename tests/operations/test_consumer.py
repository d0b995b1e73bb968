"""The page's socket: who may open it, what it tells, and what it does."""

import asyncio
import logging

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from websockets.exceptions import InvalidStatus

from headrace.exceptions import CloseCode, ControlError
from headrace.instruments import process
from headrace.operations import feed
from headrace.operations.admin import OperationsAdmin, admin_of
from headrace.operations.consumer import FORBIDDEN, OperationsConsumer
from headrace.operations.models import Operations
from headrace.server.control import ENVIRONMENT
from tests.operations.double import connection, snapshot

# Who may open it


@pytest.mark.parametrize("name", ["guest", None])
async def test_nobody_but_the_staff_is_let_in(door, name):
    with pytest.raises(InvalidStatus) as refused:
        async with door.page(name):
            pass
    assert refused.value.response.status_code == 403


async def test_a_page_of_another_site_is_not_let_in(door, settings):
    settings.ALLOWED_HOSTS = ["*"]
    with pytest.raises(InvalidStatus) as refused:
        async with door.page("root", origin="http://evil.example"):
            pass
    assert refused.value.response.status_code == 403


async def test_a_session_that_ends_closes_the_socket(door):
    async with door.page("staff") as page:
        await page.hear("hello")
        await Session.objects.all().adelete()
        assert await page.closed() == CloseCode.LOGGED_OUT


async def test_an_account_that_is_deactivated_closes_the_socket(door):
    async with door.page("staff") as page:
        await page.hear("hello")
        await User.objects.filter(username="staff").aupdate(is_active=False)
        assert await page.closed() == CloseCode.LOGGED_OUT


async def test_who_is_no_longer_of_the_staff_is_closed(door):
    async with door.page("staff") as page:
        await page.hear("hello")
        await User.objects.filter(username="staff").aupdate(is_staff=False)
        assert await page.closed() == FORBIDDEN


async def test_a_site_that_asks_for_more_is_asked(serve, double):
    class Strict(admin.AdminSite):
        def has_permission(self, request):
            return super().has_permission(request) and request.META["HTTP_X_FACTOR"] == "second"

    site = Strict()
    site.register(Operations, OperationsAdmin)
    seen = []

    class Seen(OperationsAdmin):
        def has_view_permission(self, request, obj=None):
            seen.append((request.META["REMOTE_ADDR"], request.session.session_key))
            return False

    async with serve(site=site) as door:
        with pytest.raises(InvalidStatus):
            async with door.page("root"):
                pass
    other = admin.AdminSite()
    other.register(Operations, Seen)
    async with serve(site=other) as door:
        with pytest.raises(InvalidStatus):
            async with door.page("root"):
                pass
    ((address, key),) = seen
    assert address == "127.0.0.1"
    assert key


async def test_a_site_without_the_page_lets_nobody_in(serve, double):
    assert admin_of(admin.AdminSite()) is None
    async with serve(site=admin.AdminSite()) as door:
        with pytest.raises(InvalidStatus):
            async with door.page("root"):
                pass


# What it tells


async def test_the_page_is_told_what_it_may_do(door):
    async with door.page("root") as page:
        assert (await page.hear("hello"))["may_close"]
    async with door.page("closer") as page:
        assert (await page.hear("hello"))["may_close"]
    async with door.page("staff") as page:
        hello = await page.hear("hello")
        assert (hello["may_close"], hello["mode"]) == (False, "server")


async def test_the_figures_move(door, double):
    async with door.page("staff") as page:
        double.answer = {"workers": [snapshot(sockets=2)]}
        first = await page.hear(
            "figures", lambda message: message["figures"]["now"]["websockets"] == 2
        )
        double.answer = {"workers": [snapshot(sockets=3, messages_sent=10)]}
        moved = await page.hear(
            "figures", lambda message: message["figures"]["now"]["websockets"] == 3
        )
        assert moved["figures"]["now"]["messages_out"] > 0
        assert moved["figures"]["at"] > first["figures"]["at"]


async def test_who_comes_later_finds_what_there_was(door):
    async with door.page("staff") as first:
        await first.hear("figures")
        await first.hear("figures")
        async with door.page("root") as second:
            history = (await second.hear("hello"))["history"]
            assert len(history) >= 2
            assert {"at", "now"} == set(history[0])


async def test_one_reader_serves_all_pages_and_none_reads_while_nobody_watches(door, double):
    async with door.page("staff") as one, door.page("root") as other:
        await one.hear("figures")
        await other.hear("figures")
        assert double.links == 1
    async with asyncio.timeout(5):
        while double.links:  # noqa: ASYNC110 - the link's end is an event of the other side
            await asyncio.sleep(0)
    asked = double.count("snapshot")
    await asyncio.sleep(0.1)
    assert double.count("snapshot") == asked


async def test_a_server_that_says_nothing_is_news(door, double):
    async with door.page("staff") as page:
        await page.hear("figures")
        double.refuses = ControlError("too busy to say")
        assert (await page.hear("trouble"))["text"] == "too busy to say"
        await page.tell(type="table")
        double.refuses = None
        await page.hear("figures")


async def test_an_answer_that_makes_no_sense_is_news_and_in_the_log(door, double, caplog):
    async with door.page("staff") as page:
        double.answer = {"workers": [{"counters": 3}]}
        assert "see the log" in (await page.hear("trouble"))["text"]
        double.answer = {"workers": []}
        await page.hear("figures")
    assert "snapshot could not be read" in caplog.text


async def test_the_server_is_found_again(door, double):
    async with door.page("staff") as page:
        await page.hear("figures")
        for link in list(double.server._links):
            link.close()
        await page.hear("figures")
        await page.hear("figures")


async def test_without_a_server_of_ours_this_process_tells_of_itself(serve, monkeypatch):
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    process.counter("headrace_test_operations_total", "Of this test.").value += 1
    async with serve() as door, door.page("root") as page:
        assert (await page.hear("hello"))["mode"] == "process"
        figures = (await page.hear("figures"))["figures"]
        assert figures["now"]["connections"] is None
        assert figures["workers"][0]["rss_bytes"] > 0
        assert "headrace_test_operations_total" in {each["name"] for each in figures["counters"]}
        await page.tell(type="table")
        await page.tell(type="close", connection="1-1")
        assert "headrace serve" in (await page.hear("closed"))["error"]


# The table


async def test_the_table_is_searched_and_sorted_by_the_server(door, double):
    double.connections = [connection(number) for number in range(40)]
    async with door.page("staff") as page:
        await page.tell(type="table", search="user1", sort="user", descending=False, page=1)
        table = await page.hear("connections", lambda message: message["search"])
        assert [row["user"] for row in table["rows"]][:3] == ["user1", "user10", "user11"]
        assert table["matching"] == 11


async def test_the_table_is_kept_up_to_date(door, double):
    async with door.page("staff") as page:
        await page.hear("connections")
        double.connections.append(connection(7))
        await page.hear("connections", lambda message: len(message["rows"]) == 4)


async def test_what_can_not_be_read_is_said_and_harms_nothing(door):
    async with door.page("staff") as page:
        await page.socket.send("{")
        assert "can't read" in (await page.hear("error"))["text"]
        await page.socket.send(b"\x00")
        assert "not bytes" in (await page.hear("error"))["text"]
        await page.tell(type="table")
        await page.hear("connections")


# Closing


async def test_staff_close_a_connection_and_it_is_written_down(door, double, caplog):
    caplog.set_level(logging.INFO, "headrace.operations")
    async with door.page("closer") as page:
        await page.tell(type="close", connection="1-1", code=4000, reason="enough")
        done = await page.hear("closed")
        assert done == {"type": "closed", "connection": "1-1", "code": 4000}
        assert double.closed == [("1-1", 4000, "enough")]
        table = await page.hear("connections")
        assert [row["id"] for row in table["rows"]] == ["1-2", "1-0"]
    entry = await LogEntry.objects.select_related("user", "content_type").aget()
    assert (entry.user.username, entry.object_id) == ("closer", "1-1")
    assert entry.change_message == "closed with 4000 enough"
    assert entry.content_type.model_class() is Operations
    assert entry.get_admin_url() is None
    assert "closer has closed the connection 1-1 with 4000 'enough'" in caplog.text


async def test_who_may_look_may_not_close(door, double):
    async with door.page("staff") as page:
        await page.tell(type="close", connection="1-1")
        assert "permission" in (await page.hear("closed"))["error"]
    assert not double.closed
    assert not await LogEntry.objects.aexists()


async def test_a_right_that_has_ended_closes_nothing(door, double, monkeypatch):
    monkeypatch.setattr(OperationsConsumer, "recheck_s", 60)
    async with door.page("closer") as page:
        await page.hear("hello")
        await User.objects.filter(username="closer").aupdate(is_staff=False)
        await page.tell(type="close", connection="1-1")
        assert await page.closed() == FORBIDDEN
    assert not double.closed


async def test_what_is_not_there_can_not_be_closed(door, double):
    async with door.page("root") as page:
        await page.tell(type="close", connection="9-9")
        assert "no connection 9-9" in (await page.hear("closed"))["error"]
    assert not await LogEntry.objects.aexists()


# When something fails


async def test_a_failure_ends_the_page_which_comes_again(door, monkeypatch, caplog):
    async with door.page("staff") as page:
        await page.hear("hello")

        async def fail(self):
            raise RuntimeError("the database is gone")

        monkeypatch.setattr(OperationsConsumer, "_rights", fail)
        assert await page.closed() == CloseCode.INTERNAL_ERROR
    assert "an operations page has failed" in caplog.text


async def test_each_loop_has_one_feed():
    assert feed.feed() is feed.feed()
    assert await asyncio.to_thread(lambda: asyncio.run(_feed())) is not feed.feed()


async def _feed():
    return feed.feed()
