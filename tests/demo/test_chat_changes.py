"""Messages that are edited and deleted: live, and for who comes back."""

import json
import re

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def change(tab, **command):
    """Ask for a change of a message; return the message, or the error."""
    await tab.send(**command)
    number = command["number"]

    def is_answer(event):
        if event["type"] == "changed":
            return event["message"]["number"] == number
        return event["type"] == "error" and event.get("number") == number

    answer = await tab.wait_until(is_answer)
    return answer.get("message", answer)


async def test_an_edit_is_seen_by_everyone_and_marked(site, room):
    maya = await site.visitor().log_in("maya")
    jonas = await site.visitor().log_in("jonas")
    async with maya.tab(room) as one, jonas.tab(room) as two, jonas.lobby() as lobby:
        said = (await one.say("Helo."))["message"]
        assert (said["edited"], said["deleted"], said["change"]) == (False, None, 1)
        edited = await change(one, type="edit", number=1, text=" Hello. ")
        assert edited == said | {"text": "Hello.", "edited": True, "change": 2}
        assert (await two.wait_for("changed"))["message"] == edited
        assert (await lobby.wait_for("activity", change=2))["text"] == "Hello."
        # To say the same again is answered, and tells nobody.
        assert await change(one, type="edit", number=1, text="Hello.") == edited
        assert [event["type"] for event in await two.quiet()].count("changed") == 1
        assert [event["type"] for event in await one.quiet()].count("changed") == 2
    page = await jonas.get(f"/chat/rooms/{room}/")
    row = page.text.split('<li class="message"')[1].split("</li>")[0]
    assert ">Hello.<" in row
    assert '<p class="edited">' in row


async def test_a_deleted_message_leaves_its_place_and_nothing_it_said(site, room):
    maya = await site.visitor().log_in("maya")
    jonas = await site.visitor().log_in("jonas")
    async with maya.tab(room) as one, jonas.tab(room) as two, jonas.lobby() as lobby:
        await one.say("First.")
        await one.say("A secret.")
        gone = await change(one, type="delete", number=2)
        assert (gone["text"], gone["deleted"], gone["change"]) == ("", "author", 3)
        assert (await two.wait_for("changed"))["message"] == gone
        activity = await lobby.wait_for("activity", change=3)
        assert (activity["text"], activity["deleted"], activity["number"]) == ("", True, 2)
        assert await change(one, type="delete", number=2) == gone
        assert (await change(one, type="edit", number=2, text="x"))["code"] == "deleted"
        # What is not the last stands in no list.
        await change(one, type="delete", number=1)
        assert not [each for each in await lobby.quiet() if each.get("change") == 4]
        assert (await two.say("Next."))["message"]["number"] == 3
    for path in (f"/chat/rooms/{room}/", "/chat/"):
        assert "A secret." not in (await jonas.get(path)).text
    assert "Message deleted" in (await jonas.get(f"/chat/rooms/{room}/")).text


async def test_only_the_author_changes_a_message(site, room):
    maya = await site.visitor().log_in("maya")
    jonas = await site.visitor().log_in("jonas")
    async with maya.tab(room) as one, jonas.tab(room) as two:
        said = (await one.say("Mine."))["message"]
        assert (await change(two, type="edit", number=1, text="His."))["code"] == "not_yours"
        assert (await change(two, type="delete", number=1))["code"] == "not_yours"
        for text, code in (("", "empty"), (" \n", "empty"), ("x" * 2001, "too_long")):
            assert (await change(one, type="edit", number=1, text=text))["code"] == code
        assert (await change(one, type="edit", number=1, text=None))["code"] == "bad_message"
    async with jonas.tab(room, seen=0) as two:
        assert two.welcome["messages"] == [said]


async def test_who_was_away_hears_of_everything_that_changed(site, room):
    maya = await site.visitor().log_in("maya")
    jonas = await site.visitor().log_in("jonas")
    async with maya.tab(room) as one:
        for text in ("One.", "Two.", "Three."):
            await one.say(text)
        async with jonas.tab(room) as two:
            seen = two.welcome["change"]
        assert seen == 3
        await change(one, type="edit", number=1, text="One, edited.")
        await change(one, type="delete", number=2)
        await one.say("Four.")
        await change(one, type="edit", number=4, text="Four, edited.")
    async with jonas.tab(room, seen=seen) as two:
        assert (two.welcome["change"], two.welcome["afresh"]) == (7, False)
        missed = two.welcome["messages"]
        assert [(each["number"], each["text"]) for each in missed] == [
            (1, "One, edited."),
            (2, ""),
            (4, "Four, edited."),
        ]
        assert [each["change"] for each in missed] == [4, 5, 7]
        # Whoever finds a number missing asks for it.
        await two.send(type="changes", after=5)
        changes = await two.wait_for("changes", after=5)
        assert [each["number"] for each in changes["messages"]] == [4]
        assert changes["change"] == 7
        await two.send(type="history", before=3)
        page = await two.wait_for("history", before=3)
        assert [(each["text"], each["deleted"]) for each in page["messages"]] == [
            ("One, edited.", None),
            ("", "author"),
        ]


async def test_many_changes_of_one_message_are_one(site, room):
    maya = await site.visitor().log_in("maya")
    async with maya.tab(room) as one:
        await one.say("0")
        for number in range(1, 6):
            await change(one, type="edit", number=1, text=f"{number}")
    async with maya.tab(room, seen=1) as one:
        assert [each["text"] for each in one.welcome["messages"]] == ["5"]
        assert one.welcome["change"] == 6


async def test_edits_count_as_writing(site, room):
    maya = await site.visitor().log_in("maya")
    async with maya.tab(room) as one:
        await one.say("0")
        answers = [
            await change(one, type="edit", number=1, text=f"{number}") for number in range(1, 11)
        ]
        assert answers[-1]["code"] == "rate"
        assert 0 < answers[-1]["retry_after_s"] <= 1


async def test_every_list_is_told_the_same_of_what_is_unread(site, room):
    maya = await site.visitor().log_in("maya")
    jonas = await site.visitor().log_in("jonas")
    async with maya.tab(room) as one, jonas.tab("workshop") as elsewhere, jonas.lobby() as lobby:
        for text in ("One.", "Two.", "Three."):
            await one.say(text)
        for tab in (elsewhere, lobby):
            await tab.wait_for("activity", room=room, number=3)
        await one.send(type="delete", number=2)
        page = await jonas.get("/chat/new-room/")
        unread = page.text.split(f'data-room="{room}"')[1]
        assert re.search(r'data-slot="unread">(\d+)<', unread)[1] == "3"
        async with jonas.tab(room) as two:
            await two.send(type="read", number=2)
            for tab in (elsewhere, lobby):
                assert (await tab.wait_for("read", room=room))["number"] == 2
            # Who writes has read.
            await two.say("Four.")
            for tab in (elsewhere, lobby):
                activity = await tab.wait_for("activity", room=room, number=4)
                assert activity["author"] == two.welcome["you"]
    async with jonas.websocket("/ws/lobby/") as socket:
        rooms = {each["slug"]: each for each in json.loads(await socket.recv())["rooms"]}
        assert (rooms[room]["read"], rooms[room]["number"]) == (4, 4)
    async with jonas.tab("workshop") as elsewhere:
        rooms = {each["slug"]: each for each in elsewhere.welcome["rooms"]}
        assert (rooms[room]["read"], rooms[room]["number"]) == (4, 4)
