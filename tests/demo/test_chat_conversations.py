"""Conversations of two: nobody else reads them, opens them, or hears that there are any."""

import json
import re

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="session")

NO_SUCH_ROOM = 4404
SECRET = "correct horse battery"


async def person_of_number(site, username):
    visitor = await site.visitor().log_in(username)
    async with visitor.tab("mill-pond") as tab:
        return visitor, tab.welcome["you"]


async def converse(visitor, other):
    page = await visitor.post(f"/chat/with/{other['id']}/", on="/chat/new-conversation/")
    assert page.status == 200
    return page.path.split("/")[3]


async def newcomer(site):
    """Return somebody with whom nobody has talked yet."""
    site.newcomers = getattr(site, "newcomers", 0) + 1
    visitor = site.visitor()
    fields = {"username": f"newcomer{site.newcomers}", "password1": SECRET, "password2": SECRET}
    assert (await visitor.post("/signup/", **fields)).path == "/"
    async with visitor.tab("mill-pond") as tab:
        return visitor, tab.welcome["you"]


def rooms(lobby_or_welcome):
    return {room["slug"]: room for room in lobby_or_welcome["rooms"]}


async def test_two_have_one_conversation_whoever_begins(site):
    priya, her = await newcomer(site)
    tomas, him = await person_of_number(site, "tomas")
    async with tomas.lobby() as lobby, priya.lobby() as own:
        slug = await converse(priya, him)
        told = (await lobby.wait_for("room"))["room"]
        assert (told["name"], told["private"], told["slug"]) == (her["name"], True, slug)
        assert (await own.wait_for("room"))["room"]["name"] == him["name"]
        assert await converse(tomas, her) == slug
        assert await converse(priya, him) == slug
        assert [event for event in await lobby.quiet() if event["type"] == "room"] == [
            {"type": "room", "room": told}
        ]
    page = await priya.get(f"/chat/rooms/{slug}/")
    assert f"<title>{him['name']} · Millpond" in page.text
    assert "Only you two can read this" in page.text


async def test_nobody_else_reads_it_and_nobody_else_is_told(site):
    wen, her = await newcomer(site)
    tomas, him = await person_of_number(site, "tomas")
    slug = await converse(wen, him)
    for name in ("jonas", "edith"):  # and staff neither
        other = await site.visitor().log_in(name)
        assert (await other.get(f"/chat/rooms/{slug}/")).status == 404
        async with other.websocket(f"/ws/rooms/{slug}/") as socket:
            assert json.loads(await socket.recv())["code"] == "unknown_room"
            await socket.wait_closed()
            assert socket.close_code == NO_SUCH_ROOM
    jonas = await site.visitor().log_in("jonas")
    edith = await site.visitor().log_in("edith")
    async with (
        jonas.lobby() as lobby,
        edith.tab("workshop") as elsewhere,
        wen.tab(slug) as one,
        tomas.tab(slug) as two,
        tomas.lobby() as own,
    ):
        await one.send(type="typing", typing=True)
        await two.wait_for("typing")
        await one.say("Unter uns.")
        await one.send(type="edit", number=1, text="Unter uns beiden.")
        await one.wait_for("changed")
        activity = await own.wait_for("activity", change=2)
        assert (activity["room"], activity["text"]) == (slug, "Unter uns beiden.")
        await one.send(type="close", closed=True)
        assert (await one.wait_for("error"))["code"] == "not_staff"
        for tab in (lobby, elsewhere):
            heard = json.dumps(await tab.quiet())
            assert slug not in heard
            assert "Unter" not in heard
            assert her["name"] not in heard
    for path in ("/chat/", "/chat/new-room/", "/chat/rooms/workshop/"):
        page = await jonas.get(path)
        assert slug not in page.text
        assert "Unter" not in page.text


async def test_staff_do_not_moderate_what_two_say_to_each_other(site):
    edith, staff = await person_of_number(site, "edith")
    priya, her = await newcomer(site)
    slug = await converse(priya, staff)
    async with priya.tab(slug) as one, edith.tab(slug) as two:
        assert two.welcome["moderator"] is False
        await one.say("Mine.")
        for command in (
            {"type": "delete", "number": 1},
            {"type": "mute", "user": her["id"], "minutes": 5},
            {"type": "close", "closed": True},
        ):
            await two.send(**command)
            assert (await two.wait_for("error"))["code"] in {"not_staff", "not_yours"}
        assert (await one.say("Still mine."))["message"]["number"] == 2
    page = await edith.get("/admin/chat/message/")
    assert page.status == 200
    assert "Still mine" not in page.text
    assert slug not in (await edith.get("/admin/chat/room/")).text


async def test_what_is_unread_is_counted_for_who_was_never_there(site):
    priya, her = await newcomer(site)
    maya, _ = await person_of_number(site, "maya")
    async with priya.lobby() as lobby:
        slug = await converse(maya, her)
        async with maya.tab(slug) as one:
            await one.say("One.")
            await one.say("Two.")
            await lobby.wait_for("activity", number=2)
        page = await priya.get("/chat/")
        row = page.text.split(f'data-room="{slug}"')[1]
        assert re.search(r'data-slot="unread">(\d+)<', row)[1] == "2"
        async with priya.tab(slug) as two:
            assert rooms(two.welcome)[slug]["read"] == 0
            await two.send(type="read", number=2)
            assert (await lobby.wait_for("read"))["room"] == slug
    async with priya.websocket("/ws/lobby/") as socket:
        told = rooms(json.loads(await socket.recv()))
        assert (told[slug]["read"], told[slug]["number"]) == (2, 2)
        assert told[slug]["latest"]["text"] == "Two."


async def test_with_whom_one_can_not_talk(site):
    maya, her = await person_of_number(site, "maya")
    for number in (her["id"], 0, 10**15):
        page = await maya.post(f"/chat/with/{number}/", on="/chat/new-conversation/")
        assert page.status == 404, number
    assert (await maya.get(f"/chat/with/{her['id'] + 1}/")).status == 405
    page = await site.visitor().get("/chat/new-conversation/")
    assert page.path.startswith("/login/")


async def test_somebody_is_found_by_a_part_of_the_name(site):
    maya = await site.visitor().log_in("maya")
    page = await maya.get("/chat/new-conversation/?q=lind")
    assert "Jonas Lindqvist" in page.text
    assert "Wen Li" not in page.text.split("faces")[1]
    page = await maya.get("/chat/new-conversation/?q=%00zzz")
    assert "There is nobody of that name." in page.text
