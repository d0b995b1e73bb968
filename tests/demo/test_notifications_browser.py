"""The bell in real browsers: what rings where, what is read, and what a browser may say."""

import json
import re
import uuid

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import expect

from .browser import PHONE, SHOWN_AS, Cable, connected

pytestmark = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(120),
]

# The browser's own notifications can't be looked at from outside: note them as they are made.
NOTED = """
window.noted = [];
window.Notification = class extends Notification {
    constructor(title, options) {
        super(title, options);
        noted.push({ title, ...options });
    }
};
"""


async def ready(page):
    """Wait until the bell was told how things stand."""
    await expect(page.locator("#bell-panel")).to_have_attribute("data-state", "open")


async def tab(person, path="/notifications/"):
    page = await person.tab(path)
    await ready(page)
    return page


def count(page):
    return page.locator("[data-bell-unread]")


def bell(page):
    return page.get_by_role("button", name="Notifications")


def told(page):
    return page.locator("#bell-panel .notification")


async def write_post(page, title):
    await page.get_by_label("Title").fill(title)
    await page.get_by_role("textbox", name="Text").fill("What do you think?")
    await page.get_by_role("button", name="Publish").click()
    await expect(page.get_by_role("heading", name=title, level=1)).to_be_visible()
    await connected(page)
    return page.url.partition("/notifications/")[2]


async def comment(page, text, button="Comment"):
    await page.get_by_label("Your comment").fill(text)
    await page.get_by_role("button", name=button, exact=True).click()


@pytest.fixture
def title():
    return f"Question {uuid.uuid4().hex[:6]}"


@pytest.mark.main_path
async def test_a_comment_rings_on_whatever_page_its_audience_is(site, person, title):
    maya = await person(site, "maya")
    board = await tab(maya)
    post = await write_post(board, title)
    chat, start = await tab(maya, "/chat/"), await tab(maya, "/")
    await chat.get_by_role("button", name="Notifications").click()
    if await chat.locator("[data-read-all]").is_visible():
        await chat.locator("[data-read-all]").click()
    for page in (board, chat, start):
        await expect(page.locator("[data-bell-badge]")).to_be_hidden()

    jonas = await tab(await person(site, "jonas"), f"/notifications/{post}")
    await comment(jonas, "Never.", "Save, then roll back")
    await expect(jonas.get_by_text("Saved, and rolled back: nobody was told.")).to_be_visible()
    await comment(jonas, "Yes, <b>please</b>.")
    await expect(jonas).to_have_url(re.compile("#comment-"))
    for page in (board, chat, start):
        await expect(count(page)).to_have_text("1")
        await expect(page.locator("[data-bell-badge]")).to_be_visible()
    await expect(told(chat).first).to_contain_text(
        f"Jonas Lindqvist · {title} · Yes, <b>please</b>."
    )
    await expect(told(chat).first).to_contain_text("New comment")
    # The page of the post shows it without being loaded again, and what was rolled back nowhere.
    await expect(board.locator(".comment .said")).to_have_text(["Yes, <b>please</b>."])
    assert "Never." not in await chat.locator("#bell-panel").inner_text()

    # Read in one tab, read in all; the link leads to the comment.
    await told(chat).first.get_by_role("button", name="Mark as read").click()
    for page in (board, chat, start):
        await expect(page.locator("[data-bell-badge]")).to_be_hidden()
        await expect(told(page).first).to_have_class("notification read")
    await told(chat).first.get_by_role("link").click()
    await expect(chat.locator(".comment:target .said")).to_have_text("Yes, <b>please</b>.")


async def test_who_was_away_finds_it_and_reads_all(site, person, title):
    priya = await person(site, "priya")
    cable = await Cable().lay(priya.context)
    page = await tab(priya)
    post = await write_post(page, title)
    await ready(page)
    before = int(await count(page).text_content())
    await cable.pull()
    await expect(page.locator("#bell-panel")).not_to_have_attribute("data-state", "open")
    wen = await tab(await person(site, "wen"), f"/notifications/{post}")
    for number in range(3):
        await comment(wen, f"Number {number}.")
        await expect(wen.locator(".comment")).to_have_count(number + 1)
    await bell(page).click()
    await expect(count(page)).to_have_text(str(before))
    cable.out = False
    await page.evaluate("dispatchEvent(new Event('online'))")
    await expect(count(page)).to_have_text(str(before + 3))
    await expect(page.locator(".comment .said")).to_have_text(
        [f"Number {number}." for number in range(3)]
    )
    inbox = await tab(priya, "/notifications/inbox/")
    await expect(inbox.locator(".all .notification:not(.read)").first).to_be_visible()
    await bell(inbox).click()
    await inbox.locator("#bell-panel").get_by_role("button", name="Mark all as read").click()
    for each in (page, inbox):
        await expect(each.locator("[data-bell-badge]")).to_be_hidden()
        await expect(each.locator(".notification:not(.read)")).to_have_count(0)
    # And what comes while one looks at the list appears in it.
    await comment(wen, "One more.")
    await expect(inbox.locator(".all .notification").first).to_contain_text("One more.")


async def test_a_bell_that_missed_something_notices_and_asks(site, person, title):
    tomas = await person(site, "tomas")
    lost = []

    async def lossy(route):
        server = route.connect_to_server()

        def pass_on(message):
            if not lost and json.loads(message)["type"] == "notification":
                lost.append(message)
            else:
                route.send(message)

        server.on_message(pass_on)

    await tomas.context.route_web_socket(re.compile("/ws/bell/"), lossy)
    page = await tab(tomas)
    post = await write_post(page, title)
    await ready(page)
    wen = await tab(await person(site, "wen"), f"/notifications/{post}")
    await comment(wen, "This one gets lost.")
    await expect(page.locator(".comment .said")).to_have_text(["This one gets lost."])
    await expect(told(page).filter(has_text=title)).to_have_count(0)
    await comment(wen, "This one arrives.")
    await expect(told(page).nth(0)).to_contain_text("This one arrives.")
    await expect(told(page).nth(1)).to_contain_text("This one gets lost.")
    assert len(lost) == 1


async def test_the_browser_tells_it_by_consent_and_to_who_looks_away(
    site,
    notifying_browser,
    person,
    title,
):
    maya = await person(site, "maya", using=notifying_browser, permissions=["notifications"])
    await maya.context.add_init_script(NOTED)
    page = await tab(maya)
    post = await write_post(page, title)
    await ready(page)
    await bell(page).click()
    button = page.get_by_role("button", name="Tell me outside this page too")
    await expect(button).to_have_attribute("aria-pressed", "false")
    jonas = await tab(await person(site, "jonas"), f"/notifications/{post}")

    async def say(text):
        await comment(jonas, text)
        await expect(told(page).first).to_contain_text(text)
        return await page.evaluate("noted")

    await page.evaluate(SHOWN_AS, "hidden")
    assert await say("Not asked for.") == []
    await button.click()
    await expect(button).to_have_attribute("aria-pressed", "true")
    (noted,) = await say("By consent.")
    assert noted["title"] == "New comment"
    assert noted["body"] == f"Jonas Lindqvist · {title} · By consent."
    await page.evaluate(SHOWN_AS, "visible")
    assert len(await say("Seen anyway.")) == 1
    await button.click()
    await page.evaluate(SHOWN_AS, "hidden")
    assert len(await say("No longer.")) == 1


async def test_a_browser_that_refuses_is_believed(site, person):
    maya = await person(site, "maya")
    await maya.context.add_init_script(
        "Notification.requestPermission = async () => 'denied';"
        "Object.defineProperty(Notification, 'permission', { value: 'denied' });"
    )
    page = await tab(maya)
    await bell(page).click()
    button = page.get_by_role("button", name="Tell me outside this page too")
    await button.click()
    await expect(page.get_by_text("Your browser does not allow it")).to_be_visible()
    await expect(button).to_have_attribute("aria-pressed", "false")


@pytest.mark.parametrize("options", [{}, {**PHONE, "color_scheme": "dark"}], ids=["light", "phone"])
async def test_the_pages_are_accessible(site, person, options):
    wen = await person(site, "wen", **options)
    for path in ("/notifications/", "/notifications/posts/1/", "/notifications/inbox/"):
        page = await tab(wen, path)
        await bell(page).focus()
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("region", name="Notifications")).to_be_visible()
        violations = (await Axe().run(page)).response["violations"]
        assert [(each["id"], each["nodes"]) for each in violations] == [], path
        wide = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, path
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("region", name="Notifications")).to_be_hidden()
        await expect(bell(page)).to_be_focused()
