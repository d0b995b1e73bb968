"""The demo site in real browsers: what people see, and what they can rely on."""

import re
import uuid

import pytest
from playwright.async_api import expect

from .browser import DESKTOP, PHONE, SHOWN_AS, Cable, connected, try_now, violations

pytestmark = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(120),
]


def box(page):
    return page.get_by_role("textbox", name="Message to")


def complaint(page):
    return page.locator("#composer-error")


def texts(page):
    return page.locator(".messages .message:not(.pending) .text")


async def say(page, text):
    await box(page).fill(text)
    await box(page).press("Enter")
    await expect(box(page)).to_have_value("")


# --- Together ---


@pytest.mark.main_path
async def test_two_people_talk(site, room, person):
    maya = await (await person(site, "maya")).enter(room)
    jonas = await (await person(site, "jonas")).enter(room)

    people = maya.get_by_role("complementary", name="In the room").get_by_role("listitem")
    await expect(people).to_have_count(2)
    await expect(people.nth(0)).to_contain_text("Jonas Lindqvist")
    await expect(people.nth(1)).to_contain_text("Maya Okafor")

    await box(jonas).press_sequentially("Is anybody")
    await expect(maya.get_by_text("Jonas Lindqvist is typing…")).to_be_visible()
    await box(jonas).press_sequentially(" here?")
    await box(jonas).press("Enter")
    await expect(texts(maya)).to_have_text(["Is anybody here?"])
    await expect(maya.get_by_text("is typing…")).to_be_hidden()

    await box(maya).press_sequentially("Yes,")
    await box(maya).press("Shift+Enter")
    await box(maya).press_sequentially("me.")
    await maya.get_by_role("button", name="Send").click()
    for page in (maya, jonas):
        await expect(texts(page)).to_have_text(
            ["Is anybody here?", "Yes,\nme."], use_inner_text=True
        )
        await expect(page.locator(".pending")).to_have_count(0)

    await jonas.context.close()
    await expect(people).to_have_count(1)


async def test_typing_ends_when_the_text_is_taken_back(site, room, person):
    maya = await (await person(site, "maya")).enter(room)
    jonas = await (await person(site, "jonas")).enter(room)
    await box(jonas).press_sequentially("Hm")
    await expect(maya.get_by_text("Jonas Lindqvist is typing…")).to_be_visible()
    await box(jonas).fill("")
    await expect(maya.get_by_text("is typing…")).to_be_hidden()


async def test_several_tabs_are_one_person_and_show_the_same(site, room, person):
    maya = await person(site, "maya")
    jonas = await (await person(site, "jonas")).enter(room)
    one, two = await maya.enter(room), await maya.enter(room)
    await expect(jonas.locator(".person")).to_have_count(2)
    await say(one, "From the first.")
    await say(two, "From the second.")
    await say(jonas, "From elsewhere.")
    for page in (one, two, jonas):
        await expect(texts(page)).to_have_text(
            ["From the first.", "From the second.", "From elsewhere."]
        )
    await expect(two.locator(".own .text")).to_have_count(2)
    await two.close()
    await say(one, "Still here.")
    await expect(texts(jonas).last).to_have_text("Still here.")
    await expect(jonas.locator(".person:not(.leaving)")).to_have_count(2)


async def test_what_others_write_is_text_and_never_code(site, room, person):
    maya = await (await person(site, "maya")).enter(room)
    jonas = await (await person(site, "jonas")).enter(room)
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>&lt;{{ 7*7 }}"
    await say(jonas, evil)
    await expect(texts(maya)).to_have_text([evil])
    await maya.reload()
    await expect(texts(maya)).to_have_text([evil])
    assert await maya.locator(".messages :is(img, script)").count() == 0


async def test_a_new_room_appears_for_everyone(site, person):
    maya = await person(site, "maya")
    lobby = await (await person(site, "jonas")).tab("/chat/")
    await connected(lobby)
    page = await maya.tab("/chat/")
    await page.get_by_role("main").get_by_role("link", name="New room").click()
    name = f"Boathouse <{uuid.uuid4().hex[:4]}>"
    await page.get_by_label("Name").fill(name)
    await page.get_by_label("What is it about?").fill("Oars & ropes")
    await page.get_by_role("button", name="Open the room").click()
    await expect(page.get_by_role("heading", name=name, level=1)).to_be_visible()
    card = lobby.get_by_role("main").get_by_role("link", name=name)
    await expect(card).to_contain_text("Oars & ropes")
    await connected(page)
    await say(page, "The first word.")
    await expect(card).to_contain_text("The first word.")
    await expect(card).to_contain_text("1 unread")
    await card.click()
    await expect(texts(lobby)).to_have_text(["The first word."])


# --- What is new ---


async def test_what_was_said_while_one_looked_away_is_marked_and_counted(site, room, person):
    maya = await (await person(site, "maya")).enter(room)
    elsewhere = await (await person(site, "maya")).enter("reading-room")
    jonas = await (await person(site, "jonas")).enter(room)
    title = await maya.title()
    await say(jonas, "Seen.")
    await expect(texts(maya)).to_have_text(["Seen."])
    await maya.evaluate(SHOWN_AS, "hidden")
    await say(jonas, "Unseen, one.")
    await say(jonas, "Unseen, two.")
    await expect(maya).to_have_title(f"(2) {title}")
    await expect(maya.locator(".new-mark + .message .text")).to_have_text("Unseen, one.")
    link = elsewhere.get_by_role("navigation").locator(f"[data-room={room}]")
    await expect(link).to_contain_text("2 unread")
    await maya.evaluate(SHOWN_AS, "visible")
    await expect(maya).to_have_title(title)
    await expect(link.locator(".badge")).to_be_hidden()
    await say(maya, "Back again.")
    await expect(maya.locator(".new-mark")).to_have_count(0)


async def test_who_reads_above_is_told_of_what_is_new_below(site, room, person):
    maya = await (await person(site, "maya")).enter(room)
    jonas = await (await person(site, "jonas")).enter(room)
    await say(maya, "A long story.\n" + "…\n" * 60 + "The end.")
    await expect(maya.locator(".pending")).to_have_count(0)
    await maya.locator(".log").evaluate("log => log.scrollTop = 0")
    await say(jonas, "What an end!")
    button = maya.get_by_role("button", name="1 new message")
    await button.click()
    await expect(texts(maya).last).to_be_in_viewport()
    await expect(button).to_be_hidden()


# --- Through thick and thin ---


async def test_a_restart_in_the_middle_loses_and_doubles_nothing(own_site, person):
    maya = await (await person(own_site, "maya")).enter("mill-pond")
    jonas = await (await person(own_site, "jonas")).enter("mill-pond")
    await say(maya, "Before.")
    await expect(texts(jonas).last).to_have_text("Before.")

    await own_site.stop()
    for page in (maya, jonas):
        await expect(page.get_by_role("status")).to_have_text("Connection lost, trying again…")
        await expect(page.get_by_role("button", name="Try now")).to_be_visible()
    await say(maya, "Written while the server was away.")
    await say(maya, "And one more.")
    await say(jonas, "Me too.")
    await expect(maya.locator(".pending .note")).to_have_text(["Waiting for the connection…"] * 2)
    await own_site.start()
    for page in (maya, jonas):
        await try_now(page)  # the next attempt may be far off
        await connected(page)
        await expect(page.locator(".pending")).to_have_count(0)
        await expect(texts(page)).to_have_count(16)
        said = await texts(page).all_inner_texts()
        assert sorted(said[-4:]) == sorted(
            ["Before.", "Written while the server was away.", "And one more.", "Me too."]
        )
        assert said.index("Written while the server was away.") < said.index("And one more.")
        await expect(page.locator(".person")).to_have_count(2)
    assert await texts(maya).all_inner_texts() == await texts(jonas).all_inner_texts()
    await maya.reload()
    await expect(texts(maya)).to_have_count(16)


async def test_an_answer_that_got_lost_doubles_nothing(site, room, person):
    """The server keeps the message, and the connection ends before it can say so."""
    somebody = await person(site, "maya")
    cut = []

    async def lose_the_answer(route):
        server = route.connect_to_server()

        async def from_server(message):
            if '"type": "message"' in message and not cut:
                cut.append(message)
                await route.close()
                await server.close()
            else:
                route.send(message)

        server.on_message(from_server)

    await somebody.context.route_web_socket(re.compile("/ws/rooms/"), lose_the_answer)
    maya = await somebody.enter(room)
    jonas = await (await person(site, "jonas")).enter(room)
    await say(maya, "Only once.")
    await expect(texts(maya)).to_have_text(["Only once."])
    await expect(maya.locator(".pending")).to_have_count(0)
    await say(maya, "Then this.")
    for page in (maya, jonas):
        await expect(texts(page)).to_have_text(["Only once.", "Then this."])
    assert len(cut) == 1


async def test_what_was_not_sent_outlives_a_reload(site, room, person):
    somebody = await person(site, "maya")
    cable = await Cable().lay(somebody.context)
    maya = await somebody.enter(room)
    await cable.pull()
    await say(maya, "Waiting.")
    await box(maya).fill("Half a sentence")
    await maya.reload()
    await expect(maya.locator(".pending .text")).to_have_text("Waiting.")
    await expect(box(maya)).to_have_value("Half a sentence")
    cable.out = False
    await try_now(maya)
    await expect(texts(maya)).to_have_text(["Waiting."])
    await expect(box(maya)).to_have_value("Half a sentence")


async def test_a_flood_is_slowed_down_and_not_lost(site, room, person):
    maya = await (await person(site, "maya")).enter(room)
    words = [f"Word {number}" for number in range(12)]
    await box(maya).evaluate(
        """(box, words) => words.forEach(word => {
            box.value = word;
            box.form.requestSubmit();
        })""",
        words,
    )
    await expect(
        maya.locator(".pending .note", has_text="You write faster than anyone")
    ).to_be_visible()
    await expect(texts(maya)).to_have_text(words)
    await expect(maya.locator(".pending")).to_have_count(0)


# --- Mistakes ---


async def test_an_empty_message_is_explained(site, room, person):
    maya = await (await person(site, "maya")).enter(room)
    await box(maya).fill("  \n ")
    await maya.get_by_role("button", name="Send").click()
    await expect(complaint(maya)).to_have_text("Write something first.")
    await expect(box(maya)).to_have_attribute("aria-invalid", "true")
    await box(maya).fill("Something.")
    await expect(complaint(maya)).to_be_empty()
    await expect(box(maya)).not_to_have_attribute("aria-invalid", "true")


async def test_too_long_a_message_is_explained_and_stays_in_the_box(site, room, person):
    maya = await (await person(site, "maya")).enter(room)
    text = "😄" * 2001
    await box(maya).fill(text)
    await expect(maya.get_by_text("1 too many")).to_be_visible()
    await box(maya).press("Enter")
    await expect(complaint(maya)).to_have_text("Too long by 1 character. Please shorten it.")
    await expect(box(maya)).to_have_value(text)
    await say(maya, "😄" * 2000)
    await expect(texts(maya)).to_have_text(["😄" * 2000])


async def test_what_the_server_refuses_comes_back_into_the_box(site, room, person):
    somebody = await person(site, "maya")

    # As if the page knew of no limit: the attribute goes before the scripts run.
    await somebody.context.add_init_script(
        """document.addEventListener("readystatechange", () =>
            document.querySelector("main.room")?.setAttribute("data-limit", "9000"))"""
    )
    maya = await somebody.enter(room)
    text = "x" * 2500
    await box(maya).fill(text)
    await box(maya).press("Enter")
    await expect(complaint(maya)).to_have_text(
        "A message has at most 2,000 characters; this one has 2,500."
    )
    await expect(box(maya)).to_have_value(text)
    await expect(maya.locator(".message")).to_have_count(0)


async def test_logged_out_elsewhere_is_told_and_the_text_stays(site, room, person):
    somebody = await person(site, "maya")
    maya, other = await somebody.enter(room), await somebody.tab("/chat/")
    await box(maya).fill("Almost sent")
    await other.get_by_role("button", name="Log out").click()
    await expect(maya.get_by_role("status")).to_have_text("You are logged out.")
    await box(maya).press("Enter")
    await expect(complaint(maya)).to_have_text("Not sent. You are logged out.")
    await expect(box(maya)).to_have_value("Almost sent")
    await maya.get_by_role("link", name="Log in again").click()
    await maya.get_by_role("button", name="Maya Okafor").click()
    await expect(maya).to_have_url(f"{site.url}/chat/rooms/{room}/")
    await expect(box(maya)).to_have_value("Almost sent")


async def test_nothing_is_sent_in_the_name_of_somebody_else(site, room, person):
    """A message waits for the connection, and meanwhile another tab logs in as somebody else."""
    somebody = await person(site, "maya")
    cable = await Cable().lay(somebody.context)
    maya, other = await somebody.enter(room), await somebody.tab("/login/")
    await cable.pull()
    await say(maya, "In whose name?")
    await other.get_by_role("button", name="Log out").click()
    await other.get_by_role("button", name="Jonas Lindqvist").click()
    await expect(other.get_by_role("heading", name="Pages that move")).to_be_visible()
    cable.out = False
    await expect(maya.get_by_role("status")).to_have_text("You are logged in as somebody else.")
    await expect(maya.locator(".pending .note")).to_have_text(
        "Not sent. You are logged in as somebody else."
    )
    await maya.get_by_role("link", name="Go on as them").click()
    await connected(maya)
    await expect(maya.locator(".message")).to_have_count(0)


async def test_sign_up_log_out_and_in(site, person):
    page = await (await person(site)).tab("/login/")
    await page.get_by_role("link", name="Make an account").click()
    await page.get_by_label("Username").fill("rosa")
    await page.get_by_label("Display name").fill("Rosa Mbeki")
    await page.get_by_label("Password", exact=True).fill("short")
    await page.get_by_label("The same password again").fill("short")
    await page.get_by_role("button", name="Make my account").click()
    await expect(page.get_by_text("too short")).to_be_visible()
    await page.get_by_label("Password", exact=True).fill("correct horse battery")
    await page.get_by_label("The same password again").fill("correct horse battery")
    await page.get_by_role("button", name="Make my account").click()
    await expect(page.get_by_text("Rosa Mbeki")).to_be_visible()
    await page.get_by_role("button", name="Log out").click()
    await page.get_by_label("Username").fill("rosa")
    await page.get_by_label("Password", exact=True).fill("correct horse battery")
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_role("heading", name="Pages that move")).to_be_visible()


# --- For everyone ---


async def background(page):
    return await page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor")


async def test_light_and_dark(site, person):
    bright, black = "rgb(241, 244, 242)", "rgb(14, 20, 19)"
    somebody = await person(site, "maya", color_scheme="dark")
    page = await somebody.enter("workshop")
    switch = page.get_by_role("button", name="Dark theme")
    assert await background(page) == black
    await expect(switch).to_have_attribute("aria-pressed", "true")
    await page.emulate_media(color_scheme="light")
    assert await background(page) == bright
    await expect(switch).to_have_attribute("aria-pressed", "false")
    await switch.click()
    assert await background(page) == black
    # A choice goes before the system's, and holds on other pages, from the first moment.
    other = await somebody.tab("/")
    assert await background(other) == black
    assert await other.locator("html").get_attribute("data-theme") == "dark"
    await other.get_by_role("button", name="Dark theme").click()
    assert await background(other) == bright


async def test_the_keyboard_is_enough(site, room, person):
    page = await (await person(site)).tab("/login/")
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("button", name="Maya Okafor")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="Pages that move")).to_be_visible()
    await page.goto(f"{site.url}/chat/rooms/{room}/")
    await connected(page)
    await expect(box(page)).to_be_focused()
    await page.keyboard.type("By hand.")
    await page.keyboard.press("Enter")
    await expect(texts(page)).to_have_text(["By hand."])
    await expect(box(page)).to_be_focused()
    await expect(page.locator(".pending")).to_have_count(0)
    await page.keyboard.press("Shift+Tab")  # to what may be done with the message
    await page.keyboard.press("Shift+Tab")
    await expect(page.get_by_role("log")).to_be_focused()


async def test_bad_news_fits_on_a_phone(site, room, person):
    somebody = await person(site, "maya", **PHONE)
    cable = await Cable().lay(somebody.context)
    page = await somebody.enter(room)
    await cable.pull()
    await expect(page.get_by_role("button", name="Try now")).to_be_visible()
    for part in (
        page.get_by_role("heading", level=1),
        page.get_by_role("status"),
        page.get_by_role("button", name="Try now"),
        page.get_by_role("button", name="in the room"),
    ):
        await expect(part).to_be_in_viewport(ratio=1)
        assert (await part.bounding_box())["width"] > 20


async def test_a_phone_has_room_for_it(site, room, person):
    somebody = await person(site, "maya", **PHONE)
    page = await somebody.enter(room)
    people = page.get_by_role("complementary", name="In the room")
    await expect(people).to_be_hidden()
    toggle = page.get_by_role("button", name="1 in the room")
    await toggle.click()
    await expect(people).to_be_visible()
    await expect(toggle).to_have_attribute("aria-expanded", "true")
    await page.keyboard.press("Escape")
    await expect(people).to_be_hidden()
    await expect(toggle).to_be_focused()
    await say(page, "w" * 300)
    await expect(texts(page)).to_have_count(1)
    for path in ("/", "/chat/", "/login/", "/chat/new-room/", f"/chat/rooms/{room}/"):
        await page.goto(site.url + path)
        width = await page.evaluate("document.documentElement.scrollWidth")
        assert width <= PHONE["viewport"]["width"], path
    await page.get_by_role("link", name="All rooms").click()
    await expect(page.get_by_role("heading", name="Rooms", level=1)).to_be_visible()


@pytest.mark.parametrize(
    ("scheme", "device"), [("light", DESKTOP), ("dark", PHONE)], ids=["desktop", "phone"]
)
async def test_axe_finds_nothing(site, person, scheme, device):
    somebody = await person(site, color_scheme=scheme, reduced_motion="reduce", **device)
    # The checks are injected, which the site's own policy rightly forbids.
    page = await somebody.tab("/login/")
    found = {"/login/": await violations(page)}
    await page.get_by_role("button", name="Wen Li").click()
    for path in ("/", "/chat/", "/chat/new-room/", "/chat/rooms/workshop/", "/chat/rooms/nowhere/"):
        await page.goto(site.url + path)
        if path == "/chat/rooms/workshop/":
            await connected(page)
            await box(page).fill(" ")
            await box(page).press("Enter")
        found[path] = await violations(page)
    somebody.problems = [each for each in somebody.problems if "404" not in each]
    assert {path: each for path, each in found.items() if each} == {}
