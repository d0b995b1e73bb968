"""The tutorial: somebody follows it to the letter, and others come and talk."""

import contextlib
import json

import pytest
import pytest_asyncio
from playwright.async_api import async_playwright, expect
from websockets.exceptions import InvalidStatus

from tests.chromium import chromium
from tests.demo.site import Visitor
from tests.docs.pages import ROOT, Project, blocks
from tests.docs.served import served

PAGE = ROOT / "docs" / "tutorial.md"
PASSWORD = "a wheel turns in the race"
SERVE = "headrace serve "


def serving(block):
    return block.language == "console" and block.text.startswith(SERVE)


STAGES = [block.place for block in blocks(PAGE) if serving(block)]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=STAGES)
async def site(request, tmp_path_factory):
    """The site as it is where the page says for the first, or the second, time to serve it."""
    project = Project(tmp_path_factory.mktemp("chatsite"))
    for block in blocks(PAGE):
        if serving(block):
            if block.place == request.param:
                break
        else:
            project.follow(block)
    async with served(project, block.text) as server:
        yield server


async def sign_up(site, name):
    """Become a user, and log in."""
    visitor = Visitor(site)
    page = await visitor.post("/sign-up/", username=name, password1=PASSWORD, password2=PASSWORD)
    assert page.path == "/log-in/", page.text
    page = await visitor.post("/log-in/", username=name, password=PASSWORD)
    assert page.path == "/rooms/lobby/", page.text
    return visitor


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def users(site):
    return await sign_up(site, "edith"), await sign_up(site, "ada")


async def hear(socket):
    return json.loads(await socket.recv())


async def say(socket, content):
    await socket.send(json.dumps(content))


def test_the_page_has_both_stages():
    assert len(STAGES) == 2


@pytest.mark.parametrize("command", ["check --fail-level INFO", "makemigrations --check"])
@pytest.mark.asyncio(loop_scope="module")
async def test_the_project_is_sound(site, command):
    site.project.run(f"python manage.py {command}")


@pytest.mark.asyncio(loop_scope="module")
async def test_the_websockets_are_not_open_to_strangers_pages(site):
    said = site.project.run("python manage.py check --deploy --tag headrace --fail-level INFO")
    assert "no issues" in said


@pytest.mark.asyncio(loop_scope="module")
async def test_two_users_talk(users):
    edith, ada = users
    async with (
        edith.websocket("/ws/rooms/garden/") as hers,
        ada.websocket("/ws/rooms/garden/") as other,
        ada.websocket("/ws/rooms/kitchen/") as elsewhere,
    ):
        await say(hers, {"text": " Is anybody there? "})
        heard = await hear(hers)
        assert heard == {"number": heard["number"], "author": "edith", "text": "Is anybody there?"}
        assert await hear(other) == heard
        await say(other, {"text": "<b>Yes</b>"})
        assert await hear(hers) == await hear(other)
        await say(elsewhere, {"text": "Nobody."})
        assert (await hear(elsewhere))["text"] == "Nobody."  # and nothing of what was said before
    async with edith.websocket("/ws/rooms/garden/") as again:
        assert [(await hear(again))["text"] for _ in range(2)] == [
            "Is anybody there?",
            "<b>Yes</b>",
        ]


@pytest.mark.asyncio(loop_scope="module")
async def test_bad_input_is_answered_and_ends_nothing(users):
    edith, _ = users
    async with edith.websocket("/ws/rooms/refused/") as socket:
        for text in ("", "  ", 501 * "x", 1, None):
            await say(socket, {"text": text})
            assert await hear(socket) == {"error": "Write from 1 to 500 characters."}
        for content in ({}, [], None, "text"):
            await say(socket, content)
            assert "error" in await hear(socket)
        await say(socket, {"text": 500 * "x"})
        assert (await hear(socket))["text"] == 500 * "x"


@pytest.mark.asyncio(loop_scope="module")
async def test_only_users_come_in(site, users):
    edith, _ = users
    stranger = Visitor(site)
    too_long = f"rooms/{51 * 'x'}/"
    for visitor, path in [(stranger, "/ws/rooms/garden/"), (edith, f"/ws/{too_long}")]:
        with pytest.raises(InvalidStatus, match="403"):
            await visitor.websocket(path)
    assert (await stranger.get("/rooms/garden/")).path == "/log-in/?next=/rooms/garden/"
    assert (await edith.get("/rooms/garden/")).status == 200
    assert (await edith.get(f"/{too_long}")).status == 404


@contextlib.asynccontextmanager
async def opened():
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium(),
            chromium_sandbox=False,  # a package of its own; it visits nothing but our own pages
        )
        yield browser
        await browser.close()


async def join(browser, site, name):
    """Sign up and log in, in a browser's own window without anybody else's cookies."""
    page = await (await browser.new_context()).new_page()
    page.set_default_timeout(15_000)
    page.on("pageerror", lambda error: pytest.fail(str(error)))
    await page.goto(site.url)
    await page.get_by_role("link", name="Sign up").click()
    await page.get_by_label("Username").fill(name)
    await page.get_by_label("Password:", exact=True).fill(PASSWORD)
    await page.get_by_label("Password confirmation").fill(PASSWORD)
    await page.get_by_role("button", name="Sign up").click()
    await page.get_by_label("Username").fill(name)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_role("status")).to_have_text("connected")
    return page


async def write(page, text):
    await page.get_by_label("Message", exact=True).fill(text)
    await page.keyboard.press("Enter")


@pytest.mark.browser
@pytest.mark.asyncio(loop_scope="module")
async def test_two_browsers_talk_and_come_back_after_a_restart(site):
    async with opened() as browser:
        mary = await join(browser, site, "mary")
        emmy = await join(browser, site, "emmy")
        await write(mary, "Good morning")
        await write(emmy, "<b>Good</b> morning, Mary")
        conversation = ["mary: Good morning", "emmy: <b>Good</b> morning, Mary"]
        for page in (mary, emmy):
            await expect(page.get_by_role("listitem")).to_have_text(conversation)
        await write(mary, "   ")
        await expect(mary.get_by_role("status")).to_have_text("Write from 1 to 500 characters.")

        await site.stop()
        for page in (mary, emmy):
            await expect(page.get_by_role("status")).to_have_text("not connected, trying again")
        await write(emmy, "I wait")  # and nothing of it is lost
        await expect(emmy.get_by_label("Message", exact=True)).to_have_value("I wait")
        await site.start()
        for page in (mary, emmy):
            await expect(page.get_by_role("status")).to_have_text("connected")
            await expect(page.get_by_role("listitem")).to_have_text(conversation)
        await emmy.keyboard.press("Enter")
        for page in (mary, emmy):
            await expect(page.get_by_role("listitem")).to_have_text([*conversation, "emmy: I wait"])
        await mary.get_by_role("button", name="Log out").click()
        await expect(mary.get_by_role("heading")).to_have_text("Log in")
