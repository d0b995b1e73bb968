"""Conversations, changes, images and moderation of the chat in real browsers, with two people."""

import asyncio
import json
import re

import pytest
from playwright.async_api import expect

from .browser import DESKTOP, PHONE, Cable, connected, try_now, violations
from .test_browser import box, complaint, say, texts
from .test_chat_changes import change
from .test_chat_images import picture

pytestmark = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(120),
]


async def open_menu(message):
    await message.hover()
    await message.locator("summary").click()


async def do(message, what):
    await open_menu(message)
    await message.get_by_role("button", name=what, exact=True).click()


def message(page, number):
    return page.locator(f".messages .message[data-number='{number}']")


# --- Between two ---


async def test_two_talk_privately_and_the_count_is_the_same_in_every_tab(site, room, person):
    tomas = await person(site, "tomas")
    here, elsewhere = await tomas.enter(room), await tomas.tab("/chat/")
    await connected(elsewhere)
    wen = await (await person(site, "wen")).enter(room)
    panel = wen.get_by_role("complementary", name="In the room")
    him = panel.get_by_role("listitem").filter(has_text="Tomás Rivera")
    await him.get_by_role("button", name="Write privately").click()
    await connected(wen)
    await expect(wen.get_by_role("heading", name="Tomás Rivera", level=1)).to_be_visible()
    await expect(wen.get_by_text("Only you two can read this")).to_be_visible()
    await say(wen, "Psst.")
    await say(wen, "Soup again.")

    links = [
        page.locator(".sidebar").get_by_role("link", name="Wen Li") for page in (here, elsewhere)
    ]
    for link in links:
        await expect(link).to_contain_text("2 unread")
    card = elsewhere.get_by_role("main").get_by_role("link", name="Wen Li")
    await expect(card).to_contain_text("Soup again.")
    await card.click()
    await connected(elsewhere)
    await expect(texts(elsewhere)).to_have_text(["Psst.", "Soup again."])
    # Read in the one tab, it is read in the other.
    await expect(links[0].locator(".badge")).to_be_hidden()
    await say(elsewhere, "Again?!")
    await expect(texts(wen).last).to_have_text("Again?!")
    await expect(links[0].locator(".badge")).to_be_hidden()


# --- Changes ---


async def test_an_edit_and_a_deletion_are_seen_by_the_other(site, room, person):
    maya = await (await person(site, "maya")).enter(room)
    jonas = await (await person(site, "jonas")).enter(room)
    await say(maya, "Helo.")
    await say(maya, "Forget this.")
    await expect(texts(jonas)).to_have_count(2)
    await expect(jonas.locator(".menu")).to_have_count(0)

    await do(message(maya, 1), "Edit")
    new = maya.get_by_role("textbox", name="New text of the message")
    await expect(new).to_be_focused()
    await expect(new).to_have_value("Helo.")
    await new.fill(" ")
    await new.press("Enter")
    await expect(maya.get_by_text("Write something first.")).to_be_visible()
    await new.fill("Hello.")
    await new.press("Enter")
    for page in (maya, jonas):
        await expect(message(page, 1).locator(".text")).to_have_text("Hello.")
        await expect(message(page, 1).locator(".edited")).to_be_visible()
    await expect(new).to_have_count(0)

    await do(message(maya, 2), "Delete")
    dialog = maya.get_by_role("dialog", name="Delete this message?")
    await dialog.get_by_role("button", name="Keep it").click()
    await expect(message(maya, 2).locator("summary")).to_be_focused()
    await do(message(maya, 2), "Delete")
    await dialog.get_by_role("button", name="Delete").click()
    for page in (maya, jonas):
        await expect(message(page, 2)).to_contain_text("Message deleted")
        await expect(message(page, 2).locator(".text")).to_be_hidden()
    await expect(message(maya, 2).locator(".menu")).to_have_count(0)
    await jonas.reload()
    await expect(message(jonas, 1)).to_contain_text("edited")
    await expect(message(jonas, 2)).to_contain_text("Message deleted")


async def test_who_was_away_catches_up_with_changes(site, room, person):
    somebody = await person(site, "jonas")
    cable = await Cable().lay(somebody.context)
    jonas = await somebody.enter(room)
    maya = await (await person(site, "maya")).enter(room)
    for text in ("One.", "Two.", "Three."):
        await say(maya, text)
    await expect(texts(jonas)).to_have_text(["One.", "Two.", "Three."])
    await cable.pull()
    await do(message(maya, 1), "Edit")
    await maya.keyboard.type(" Edited.")
    await maya.keyboard.press("Enter")
    await expect(message(maya, 1).locator(".edited")).to_be_visible()
    await do(message(maya, 2), "Delete")
    await maya.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await say(maya, "Four.")
    await expect(maya.locator(".pending")).to_have_count(0)
    await expect(message(jonas, 1).locator(".text")).to_have_text("One.")
    cable.out = False
    await try_now(jonas)
    await expect(message(jonas, 4).locator(".text")).to_have_text("Four.")
    await expect(message(jonas, 1).locator(".text")).to_have_text("One. Edited.")
    await expect(message(jonas, 2)).to_contain_text("Message deleted")
    await expect(texts(jonas).and_(jonas.locator(":visible"))).to_have_count(3)


async def test_the_keyboard_is_enough_to_edit(site, room, person):
    page = await (await person(site, "maya")).enter(room)
    await say(page, "By hnd.")
    await expect(page.locator(".pending")).to_have_count(0)
    await page.keyboard.press("Shift+Tab")
    await expect(message(page, 1).locator("summary")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(message(page, 1).get_by_role("button", name="Edit")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(message(page, 1).locator("summary")).to_be_focused()
    await expect(message(page, 1).get_by_role("button", name="Edit")).to_be_hidden()
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    new = page.get_by_role("textbox", name="New text of the message")
    await expect(new).to_be_focused()
    await page.keyboard.press("ControlOrMeta+A")
    await page.keyboard.type("By hand.")
    await page.keyboard.press("Enter")
    await expect(message(page, 1).locator(".text")).to_have_text("By hand.")
    await expect(message(page, 1).locator("summary")).to_be_focused()
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await page.keyboard.type("!")
    await page.keyboard.press("Escape")
    await expect(new).to_have_count(0)
    await expect(message(page, 1).locator(".text")).to_have_text("By hand.")


# --- Images ---


async def test_an_image_is_sent_with_its_words_and_seen_by_the_other(site, room, person):
    somebody = await person(site, "maya")
    maya = await somebody.enter(room)
    jonas = await (await person(site, "jonas")).enter(room)
    chosen = maya.get_by_label("Add an image")
    await chosen.set_input_files({"name": "a.txt", "mimeType": "text/plain", "buffer": b"x"})
    await expect(complaint(maya)).to_contain_text("This is no image")
    await chosen.set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": b"x"})
    await expect(maya.get_by_text("a.png · 1 kB")).to_be_visible()
    await box(maya).press("Enter")
    await expect(complaint(maya)).to_contain_text("This is no image")
    await maya.get_by_role("button", name="Remove the image").click()
    await expect(maya.locator(".attachment")).to_be_hidden()

    image = {"name": "pond.jpg", "mimeType": "image/jpeg", "buffer": picture("JPEG", (800, 600))}
    await chosen.set_input_files(image)
    await expect(maya.get_by_text("pond.jpg")).to_be_visible()
    await say(maya, "The pond")
    await expect(maya.locator(".attachment")).to_be_hidden()
    for page in (maya, jonas):
        shown = page.get_by_role("img", name="Image from Maya Okafor")
        await expect(shown).to_be_visible()
        await expect(texts(page)).to_have_text(["The pond"])
        await expect(shown).to_have_js_property("naturalWidth", 800)
        assert (await shown.bounding_box())["width"] == 380
    await do(message(maya, 1), "Delete")
    await maya.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await expect(jonas.get_by_role("img", name="Image from")).to_have_count(0)
    # The browser itself speaks of the answer to what is no image.
    somebody.problems = [each for each in somebody.problems if "status of 400" not in each]


# --- Upwards ---


async def test_older_messages_come_by_scrolling_and_nothing_jumps(site, room, person):
    visitors = [await site.visitor().log_in(name) for name in ("wen", "priya", "tomas", "edith")]
    for number in range(1, 97):
        if number % 8 == 1:
            tab = visitors[(number // 8) % 4].tab(room)
            writer = await tab.__aenter__()
        await writer.say(f"Line {number}")
        if number % 8 == 0:
            await tab.__aexit__(None, None, None)
    somebody = await person(site, "maya")
    has_come, go_on = asyncio.Event(), asyncio.Event()

    async def hold_the_answer(route):
        server = route.connect_to_server()

        async def from_server(message):
            if json.loads(message)["type"] == "history":
                has_come.set()
                await go_on.wait()
            route.send(message)

        server.on_message(from_server)

    await somebody.context.route_web_socket(re.compile("/ws/rooms/"), hold_the_answer)
    maya = await somebody.enter(room)
    await expect(texts(maya)).to_have_count(40)
    await expect(texts(maya).last).to_be_in_viewport()
    before = await maya.evaluate(
        """() => {
            const log = document.querySelector(".log");
            log.scrollTop = 60;
            return document.querySelector("[data-number='57']").getBoundingClientRect().top;
        }"""
    )
    # What is told of a message before it comes itself is newer than that.
    async with asyncio.timeout(15):
        await has_come.wait()
    async with visitors[2].tab(room) as tab:
        await change(tab, type="edit", number=20, text="Line 20, edited")
        await tab.say("Line 97")
    await expect(texts(maya).last).to_have_text("Line 97")
    go_on.set()
    await expect(texts(maya)).to_have_count(81)
    after = (await message(maya, 57).bounding_box())["y"]
    assert abs(after - before) < 2
    older = maya.get_by_role("button", name="Show older messages")
    await older.evaluate("button => button.click()")
    lines = [f"Line {number}" for number in range(1, 98)]
    lines[19] += ", edited"
    await expect(texts(maya)).to_have_text(lines)
    await expect(older).to_be_hidden()
    await expect(maya.locator(".beginning")).to_be_visible()


# --- Moderation ---


async def test_staff_delete_mute_and_close_and_the_other_sees_it(site, room, person):
    maya = await (await person(site, "maya")).enter(room)
    edith = await (await person(site, "edith")).enter(room)
    await say(maya, "Buy now!")
    await do(message(edith, 1), "Delete")
    await edith.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await expect(message(maya, 1)).to_contain_text("Deleted by staff")

    await say(maya, "And again!")
    await do(message(edith, 2), "Mute the author")
    dialog = edith.get_by_role("dialog", name="Mute Maya Okafor")
    await dialog.get_by_label("For how long?").select_option("An hour")
    await dialog.get_by_role("button", name="Mute", exact=True).click()
    silence = maya.locator(".silence")
    await expect(silence).to_have_text(re.compile("^You are muted here until "))
    await expect(box(maya)).not_to_be_editable()
    await expect(edith.locator(".person", has_text="Maya Okafor")).to_contain_text("muted")
    await maya.reload()
    await expect(silence).to_be_visible()
    await do(message(edith, 2), "Mute the author")
    await dialog.get_by_label("For how long?").select_option("0")
    await dialog.get_by_role("button", name="Mute", exact=True).click()
    await expect(silence).to_be_hidden()
    await say(maya, "Sorry.")
    await expect(texts(edith).last).to_have_text("Sorry.")

    await edith.get_by_role("button", name="Close the room").click()
    await expect(silence).to_have_text("This room is closed. What was said stays.")
    link = maya.locator(f".sidebar [data-room={room}]")
    await expect(link).to_contain_text("closed")
    await edith.get_by_role("button", name="Open it again").click()
    await expect(silence).to_be_hidden()
    await expect(link.locator(".closed-mark")).to_be_hidden()
    await say(maya, "Open.")
    await expect(texts(edith).last).to_have_text("Open.")
    await expect(maya.get_by_role("button", name="Close the room")).to_have_count(0)


# --- For everyone ---


@pytest.mark.parametrize(
    ("scheme", "device"), [("light", DESKTOP), ("dark", PHONE)], ids=["desktop", "phone"]
)
async def test_axe_finds_nothing_in_what_staff_see(site, room, person, scheme, device):
    somebody = await person(site, "edith", color_scheme=scheme, reduced_motion="reduce", **device)
    page = await somebody.tab("/chat/new-conversation/")
    found = {"new conversation": await violations(page)}
    await page.goto(f"{site.url}/chat/rooms/{room}/")
    await connected(page)
    for text in ("One.", "Two.", "Three."):
        await say(page, text)
    await expect(page.locator(".pending")).to_have_count(0)
    image = {"name": "pond.png", "mimeType": "image/png", "buffer": picture()}
    await page.get_by_label("Add an image").set_input_files(image)
    await do(message(page, 1), "Delete")
    found["dialog"] = await violations(page)
    await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await expect(message(page, 1)).to_contain_text("Message deleted")
    await do(message(page, 2), "Edit")
    await open_menu(message(page, 3))
    found["editing"] = await violations(page)
    width = await page.evaluate("document.documentElement.scrollWidth")
    assert width <= device["viewport"]["width"]
    await page.get_by_role("button", name="Close the room").click()
    await expect(page.locator(".silence")).to_be_visible()
    found["closed"] = await violations(page)
    assert {path: each for path, each in found.items() if each} == {}
