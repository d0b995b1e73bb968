"""What staff may do in a room, on its page and in the admin; and nobody else."""

import re

import pytest

from .site import manage
from .test_chat_changes import change
from .test_chat_images import picture, send_image

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_staff_delete_what_others_wrote(site, room):
    maya = await site.visitor().log_in("maya")
    edith = await site.visitor().log_in("edith")
    async with maya.tab(room) as one, edith.tab(room) as two:
        assert (one.welcome["moderator"], two.welcome["moderator"]) == (False, True)
        await one.say("Buy now!")
        assert (await change(two, type="edit", number=1, text="x"))["code"] == "not_yours"
        gone = await change(two, type="delete", number=1)
        assert (gone["text"], gone["deleted"]) == ("", "staff")
        assert (await one.wait_for("changed"))["message"] == gone


async def test_who_is_muted_reads_on_and_writes_no_more(site, room):
    maya = await site.visitor().log_in("maya")
    edith = await site.visitor().log_in("edith")
    async with maya.tab(room) as one, edith.tab(room) as two, maya.tab("workshop") as elsewhere:
        her = one.welcome["you"]
        await one.say("Before.")
        await two.send(type="mute", user=her["id"], minutes=5)
        muted = await one.wait_for("muted")
        assert muted == {"type": "muted", "change": 2, "user": her, "seconds": 300}
        refused = await one.say("Hm?")
        assert (refused["type"], refused["code"]) == ("error", "muted")
        assert 0 < refused["seconds"] <= 300
        assert "retry_after_s" not in refused
        assert (await change(one, type="edit", number=1, text="After."))["code"] == "muted"
        await one.send(type="typing", typing=True)
        assert (await one.wait_for("error"))["code"] == "muted"
        answer = await send_image(maya, room, picture())
        assert (answer.status, answer.json["code"]) == (403, "muted")
        # In other rooms she writes on, here she reads on, and may take back what she wrote.
        assert (await elsewhere.say("Here."))["type"] == "message"
        await two.say("To all.")
        await one.wait_for("message")
        assert (await change(one, type="delete", number=1))["deleted"] == "author"
        async with maya.tab(room) as again:
            (mute,) = again.welcome["mutes"]
            assert mute["user"] == her["id"]
            assert 0 < mute["seconds"] <= 300
        await two.send(type="mute", user=her["id"], minutes=0)
        assert (await one.wait_for("muted"))["seconds"] == 0
        assert (await one.say("Back."))["type"] == "message"


async def test_a_mute_ends_by_itself(own_site):
    maya = await own_site.visitor().log_in("maya")
    edith = await own_site.visitor().log_in("edith")
    async with maya.tab("mill-pond") as one, edith.tab("mill-pond") as two:
        await two.send(type="mute", user=one.welcome["you"]["id"], minutes=1)
        await one.wait_for("muted")
        assert (await one.say("Hm?"))["code"] == "muted"
        manage(
            own_site.data,
            "shell",
            "-c",
            "from datetime import timedelta\n"
            "from django.db.models import F\n"
            "from chat.models import Mute\n"
            "Mute.objects.update(until=F('until') - timedelta(minutes=1))",
        )
        assert (await one.say("Back."))["type"] == "message"
    async with maya.tab("mill-pond") as one:
        assert one.welcome["mutes"] == []


async def test_a_closed_room_is_read_on(site, room):
    maya = await site.visitor().log_in("maya")
    edith = await site.visitor().log_in("edith")
    async with maya.tab(room) as one, edith.tab(room) as two, maya.lobby() as lobby:
        await one.say("Before.")
        await two.send(type="close", closed=True)
        assert await one.wait_for("closed") == {"type": "closed", "change": 2, "closed": True}
        assert (await lobby.wait_for("room"))["room"]["closed"] is True
        for tab in (one, two):  # staff open it first
            assert (await tab.say("Hm?"))["code"] == "closed"
        answer = await send_image(maya, room, picture())
        assert (answer.status, answer.json["code"]) == (403, "closed")
        async with maya.tab(room) as again:
            assert again.welcome["closed"] is True
        # Once more is not told again.
        await two.send(type="close", closed=True)
        assert [event["type"] for event in await two.quiet()].count("closed") == 1
        await two.send(type="close", closed=False)
        assert (await one.wait_for("closed"))["closed"] is False
        assert (await one.say("After."))["type"] == "message"


async def test_staff_are_not_muted_and_nobody_is_by_a_stroller(site, room):
    maya = await site.visitor().log_in("maya")
    edith = await site.visitor().log_in("edith")
    async with maya.tab(room) as one, edith.tab(room) as two:
        for tab, user, code in (
            (two, two.welcome["you"]["id"], "staff"),
            (two, 10**15, "no_such_user"),
            (one, two.welcome["you"]["id"], "not_staff"),
        ):
            await tab.send(type="mute", user=user, minutes=5)
            assert (await tab.wait_for("error"))["code"] == code


async def test_who_is_staff_no_longer_moderates_no_longer(own_site):
    maya = await own_site.visitor().log_in("maya")
    edith = await own_site.visitor().log_in("edith")
    async with maya.tab("mill-pond") as one, edith.tab("mill-pond") as two:
        said = await one.say("Mine.")
        manage(
            own_site.data,
            "shell",
            "-c",
            "from accounts.models import User\n"
            "User.objects.filter(username='edith').update(is_staff=False)",
        )
        number = said["message"]["number"]
        assert (await change(two, type="delete", number=number))["code"] == "not_yours"
        await two.send(type="close", closed=True)
        assert (await two.wait_for("error"))["code"] == "not_staff"


# --- In the admin ---


async def act(visitor, page, action, *rows):
    """Do an action of a list in the admin with some of its rows, and confirm it."""
    fields = {"action": action, "_selected_action": rows[0]}
    return await visitor.post(page, **fields, post="yes")


def row_of(page, text):
    """Return the number of the row of a list in the admin that holds a text."""
    rows = re.findall(r"<tr>.*?</tr>", page.text, re.DOTALL)
    (row,) = [each for each in rows if text in each and "_selected_action" in each]
    return re.search(r'name="_selected_action" value="(\d+)"', row)[1]


async def test_the_admin_moves_the_pages_too(site, room):
    maya = await site.visitor().log_in("maya")
    edith = await site.visitor().log_in("edith")
    async with maya.tab(room) as one, edith.tab(room) as two:
        said = (await one.say(f"Buy now in {room}!"))["message"]
        page = await edith.get("/admin/chat/message/")
        number = row_of(page, said["text"])
        await act(edith, "/admin/chat/message/", "delete_selected", number)
        gone = (await one.wait_for("changed"))["message"]
        assert (gone["number"], gone["text"], gone["deleted"]) == (1, "", "staff")

        name = room.replace("-", " ").capitalize()
        page = await edith.get(f"/admin/chat/room/?q={name.replace(' ', '+')}")
        number = re.search(
            rf'value="(\d+)"[^>]*aria-label="Select this object for an action - {name}"', page.text
        )[1]
        await act(edith, "/admin/chat/room/", "close_rooms", number)
        assert (await one.wait_for("closed"))["closed"] is True
        await act(edith, "/admin/chat/room/", "open_rooms", number)
        assert (await one.wait_for("closed"))["closed"] is False

        await two.send(type="mute", user=one.welcome["you"]["id"], minutes=5)
        await one.wait_for("muted")
        page = await edith.get("/admin/chat/mute/")
        await act(edith, "/admin/chat/mute/", "delete_selected", row_of(page, name))
        assert (await one.wait_for("muted"))["seconds"] == 0


async def test_the_admin_is_for_staff(site):
    maya = await site.visitor().log_in("maya")
    for path in ("/admin/chat/message/", "/admin/chat/room/", "/admin/chat/mute/"):
        assert (await maya.get(path)).path.startswith("/admin/login/")
    edith = await site.visitor().log_in("edith")
    assert (await edith.get("/admin/chat/room/add/")).status == 403
    assert "django.po" not in (await edith.get("/admin/chat/")).text
