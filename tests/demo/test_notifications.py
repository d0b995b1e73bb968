"""Notifications over real HTTP and WebSockets: who is told what, when, and in which count."""

import asyncio
import contextlib
import json
import re
import shutil

import pytest
import pytest_asyncio

from .site import Site, Tab, manage

pytestmark = pytest.mark.asyncio(loop_scope="session")


@contextlib.asynccontextmanager
async def bell(visitor):
    """Open the bell of a page, and come back with its welcome."""
    async with visitor.websocket("/ws/bell/") as socket:
        tab = Tab(socket)
        tab.welcome = await tab.wait_for("welcome")
        yield tab


@contextlib.asynccontextmanager
async def page_of(visitor, path, **query):
    seen = "".join(f"?{name}={value}" for name, value in query.items())
    async with visitor.websocket(
        f"/ws/board/{path.strip('/').rpartition('/')[2]}/{seen}"
    ) as socket:
        tab = Tab(socket)
        tab.welcome = await tab.wait_for("welcome")
        yield tab


@pytest.fixture(scope="session")
def guests(running_site):
    """Make accounts that nobody has told anything yet, and return their names, each for one use."""
    manage(
        running_site.data,
        "shell",
        "--no-imports",
        "-c",
        "from accounts.models import User; User.objects.bulk_create(User(username=f'guest{n}', "
        "password='!', open_to_all=True) for n in range(60))",
    )
    return (f"guest{number}" for number in range(60))


async def guest(site, guests):
    visitor = site.visitor()
    visitor.name = next(guests)
    return await visitor.log_in(visitor.name)


@pytest_asyncio.fixture(loop_scope="session")
async def people(site, guests):
    """Two to whom nothing has happened yet."""
    return await guest(site, guests), await guest(site, guests)


async def write_post(visitor, title="A title"):
    page = await visitor.post("/notifications/", title=title, text="Some text.")
    assert re.fullmatch(r"/notifications/posts/\d+/", page.path), page.text
    return page.path


async def rows(visitor):
    """Return what the page of everything lists: the texts, and whether each is read."""
    page = await visitor.get("/notifications/inbox/")
    found = re.findall(
        r'<li class="notification( read)?" data-notification="\d+">.*?dir="auto">(.*?)</span>',
        page.text,
    )
    return [(text, bool(read)) for read, text in found]


async def badge(visitor):
    """Return the unread count of a page as the server made it."""
    page = await visitor.get("/")
    return int(re.search(r"data-bell-unread>(\d+)<", page.text)[1])


# --- Who is told ---


async def test_a_comment_rings_every_bell_of_who_follows_and_no_other(site, people):
    author, other = people
    post = await write_post(author, "Soup")
    async with bell(author) as one, bell(author) as two, bell(other) as theirs:
        you = one.welcome["you"]
        empty = {"unread": 0, "revision": 0, "latest": []}
        assert one.welcome == {"type": "welcome", "you": you, **empty}
        assert theirs.welcome["you"] != you
        page = await other.post(post, text="With <b>lemon</b>.")
        told = await one.wait_for("notification")
        assert told["unread"] == told["revision"] == 1
        notification = told["notification"]
        assert notification["kind"] == "comment"
        assert notification["text"] == f"{other.name} · Soup · With <b>lemon</b>."
        assert notification["is_read"] is False
        assert await two.wait_for("notification") == told
        assert await theirs.quiet() == [theirs.welcome, {"type": "pong"}]
    # Who comments follows, and is told of the next one.
    async with bell(other) as theirs:
        await author.post(post, text="Agreed.")
        assert (await theirs.wait_for("notification"))["unread"] == 1
    # The link leads to the comment, and with that it is read.
    assert await badge(author) == 1
    assert (await author.get(notification["url"])).path == page.path
    assert await badge(author) == 0
    assert "&lt;b&gt;lemon&lt;/b&gt;" in (await author.get("/notifications/inbox/")).text


async def test_who_was_away_finds_it(site, people):
    author, other = people
    post = await write_post(author)
    for number in range(12):
        await other.post(post, text=f"Number {number}.")
    assert await badge(author) == 12
    async with bell(author) as tab:
        assert tab.welcome["unread"] == 12
        texts = [each["text"].rpartition(" · ")[2] for each in tab.welcome["latest"]]
        assert texts == [f"Number {number}." for number in range(11, 1, -1)]
    assert len(await rows(author)) == 12


async def test_following_is_begun_and_ended(site, people):
    author, reader = people
    post = await write_post(author)
    await reader.post(f"{post}follow/", on=post, follow="yes")
    await author.post(post, text="You hear this.")
    await reader.post(f"{post}follow/", on=post, follow="no")
    await author.post(post, text="And not this.")
    assert [text.rpartition(" · ")[2] for text, _ in await rows(reader)] == ["You hear this."]


async def test_a_rollback_tells_nobody(site, people):
    author, other = people
    post = await write_post(author)
    async with bell(author) as tab, page_of(author, post) as page:
        answer = await other.post(post, text="Never said.", roll_back="yes")
        assert "rolled back" in answer.text
        assert "Never said." not in answer.text
        await other.post(post, text="Said.")
        assert (await tab.wait_for("notification"))["notification"]["text"].endswith(" · Said.")
        assert (await page.wait_for("comment"))["comment"]["text"] == "Said."
        for each in (tab, page):
            assert "Never said." not in json.dumps(await each.quiet())
    assert await badge(author) == 1


async def test_the_admin_notifies(site, people):
    author, _ = people
    post = await write_post(author)
    edith = await site.visitor().log_in("edith")
    path = "/admin/notifications/comment/add/"
    me = re.search(r'<option value="(\d+)">Edith Novák</option>', (await edith.get(path)).text)[1]
    async with bell(author) as tab:
        number = post.split("/")[3]
        await edith.post(path, post=number, author=me, text="From the admin.")
        text = (await tab.wait_for("notification"))["notification"]["text"]
        assert text == "Edith Novák · A title · From the admin."


# --- What is read ---


async def test_what_is_read_in_one_tab_is_read_in_all(site, people):
    author, other = people
    post = await write_post(author)
    for number in range(3):
        await other.post(post, text=f"Number {number}.")
    async with bell(author) as one, bell(author) as two:
        newest, middle, _ = one.welcome["latest"]
        await one.send(type="read", number=middle["number"])
        read = {"type": "read", "number": middle["number"], "unread": 2, "revision": 4}
        for tab in (one, two):
            assert await tab.wait_for("read") == read
        await one.send(type="read", number=middle["number"])  # once more changes nothing
        await two.send(type="read_all", up_to=newest["number"])
        for tab in (one, two):
            assert await tab.wait_for("read") == {
                "type": "read",
                "up_to": newest["number"],
                "unread": 0,
                "revision": 5,
            }
        await two.send(type="list")
        state = await two.wait_for("welcome")
        assert [each["is_read"] for each in state["latest"]] == [True, True, True]
    assert [read for _, read in await rows(author)] == [True, True, True]


async def test_all_is_what_one_could_see(site, people):
    author, other = people
    post = await write_post(author)
    await other.post(post, text="Seen.")
    async with bell(author) as tab:
        up_to = tab.welcome["latest"][0]["number"]
        await other.post(post, text="Not seen yet.")
        await tab.send(type="read_all", up_to=up_to)
        assert (await tab.wait_for("read"))["unread"] == 1
    assert [read for _, read in await rows(author)] == [False, True]
    await author.post("/notifications/inbox/", up_to=str(up_to + 1_000))
    assert await badge(author) == 0


async def test_nobody_reads_another_s(site, people):
    author, other = people
    post = await write_post(author)
    await other.post(post, text="Private.")
    async with bell(author) as tab, bell(other) as theirs:
        number = tab.welcome["latest"][0]["number"]
        await theirs.send(type="read", number=number)
        await theirs.send(type="read_all", up_to=number)
        assert await theirs.quiet() == [theirs.welcome, {"type": "pong"}]
        assert len(await tab.quiet()) == 2
    assert await badge(author) == 1
    assert (await other.get(f"/notifications/inbox/{number}/")).status == 404


async def test_the_count_is_right_when_everything_happens_at_once(site, people, guests):
    author, other = people
    post = await write_post(author)
    third = await guest(site, guests)
    async with bell(author) as one, bell(author) as two:

        async def comment(visitor):
            for number in range(4):
                await visitor.post(post, text=f"{visitor.name} {number}")

        async def read():
            for _ in range(4):
                number = (await one.wait_for("notification"))["notification"]["number"]
                await one.send(type="read", number=number)

        await asyncio.gather(comment(other), comment(third), read())
        await two.wait_until(lambda event: event.get("revision") == 12)
        heard = [event for event in await two.quiet() if "revision" in event]
        assert sorted(event["revision"] for event in heard) == list(range(13))
        assert next(event for event in heard if event["revision"] == 12)["unread"] == 4
    assert await badge(author) == 4


# --- The page of a post ---


async def test_a_post_s_page_gets_comments_and_those_it_missed(site, people):
    author, other = people
    post = await write_post(author)
    async with page_of(author, post) as tab:
        assert tab.welcome["comments"] == []
        await other.post(post, text="One.")
        first = (await tab.wait_for("comment"))["comment"]
        assert (first["text"], first["author"]["name"]) == ("One.", other.name)
    await other.post(post, text="Two.")
    async with page_of(author, post, seen=first["number"]) as tab:
        assert [each["text"] for each in tab.welcome["comments"]] == ["Two."]
    for nonsense in ("x", "-1", "9" * 400, "%00"):
        async with page_of(author, post, seen=nonsense) as tab:
            assert [each["text"] for each in tab.welcome["comments"]] == ["One.", "Two."]


async def test_a_post_that_is_not_there_is_said_to_be_gone(site, people):
    visitor, _ = people
    async with visitor.websocket("/ws/board/999999/") as socket:
        tab = Tab(socket)
        assert await tab.closed() == 4404
        assert tab.heard[-1]["code"] == "unknown_post"
    assert (await visitor.get("/notifications/posts/999999/")).status == 404


# --- Nonsense ---


@pytest.mark.parametrize(
    "sent",
    [
        {"type": "read"},
        {"type": "read", "number": "1"},
        {"type": "read", "number": -1},
        {"type": "read", "number": 2**80},
        {"type": "read_all"},
        {"type": "read_all", "up_to": True},
    ],
)
async def test_nonsense_gets_an_error_and_the_bell_goes_on(site, sent):
    visitor = await site.visitor().log_in("maya")
    async with bell(visitor) as tab:
        await tab.send(**sent)
        assert (await tab.wait_for("error"))["code"] == "bad_message"
        assert (await tab.quiet())[-1] == {"type": "pong"}


@pytest.mark.parametrize("up_to", ["", "x", "-1", "٣", "9" * 40])
async def test_the_form_takes_numbers_only(site, up_to):
    visitor = await site.visitor().log_in("maya")
    page = await visitor.post("/notifications/inbox/", up_to=up_to)
    assert page.status == 400
    assert "number of a notification" in page.text


async def test_what_is_too_long_or_empty_is_asked_for_again(site, people):
    visitor, _ = people
    page = await visitor.post("/notifications/", title="x" * 81, text=" ")
    assert "at most 80 characters" in page.text
    assert "This field is required" in page.text
    post = await write_post(visitor)
    page = await visitor.post(post, text="x" * 1001)
    assert "at most 1000 characters" in page.text
    assert await badge(visitor) == 0


async def test_a_stranger_has_no_bell(site):
    visitor = site.visitor()
    assert "bell-panel" not in (await visitor.get("/")).text
    async with visitor.websocket("/ws/bell/") as socket:
        tab = Tab(socket)
        assert await tab.closed() == 4401


# --- Other applications, other processes ---


async def test_notify_refuses_what_no_bell_could_show(site):
    printed = await asyncio.to_thread(
        manage,
        site.data,
        "shell",
        "--no-imports",
        "-c",
        """
from accounts.models import User
from notifications import notify
from notifications.models import Inbox, Notification

maya, jonas = User.objects.filter(username__in=("maya", "jonas")).order_by("pk")
before = Inbox.of(maya).unread
for kind, url in (("gossip", ""), ("comment", "https://evil.example/"), ("comment", "//evil/")):
    try:
        notify([maya], kind, "Hm", url)
    except ValueError as error:
        print(error)
kept = notify([maya, jonas, maya], "comment", "x" * 500, "/chat/")
print([each.user.username for each in kept], len(kept[0].text), Inbox.of(maya).unread - before)
print(notify([], "comment", "Nobody."), Notification.objects.filter(text="Hm").count())
""",
    )
    printed = printed.splitlines()
    assert "unknown kind of notification: 'gossip'; known are comment" in printed[0]
    assert "leads to a path of this site, not to 'https://evil.example/'" in printed[1]
    assert "not to '//evil/'" in printed[2]
    assert printed[3:] == ["['maya', 'jonas'] 200 1", "[] 0"]


async def test_a_command_rings_the_bells_of_two_workers(seeded, tmp_path, monkeypatch):
    monkeypatch.setenv("DEMO_LAYER", "local")
    site = Site(shutil.copytree(seeded, tmp_path / "data"), "--workers", "2")
    await site.start()
    try:
        author = await site.visitor().log_in("maya")
        post = (await write_post(author)).split("/")[3]
        async with contextlib.AsyncExitStack() as stack:
            tabs = [await stack.enter_async_context(bell(author)) for _ in range(6)]
            before = tabs[0].welcome
            command = ("comment", post, "jonas")
            told = await asyncio.to_thread(manage, site.data, *command, "No.", "--roll-back")
            assert told == "rolled back\n"
            told = await asyncio.to_thread(manage, site.data, *command, "Yes.")
            assert told.startswith("comment ")
            for tab in tabs:
                event = await tab.wait_for("notification")
                assert event["notification"]["text"].endswith(" · Yes.")
                assert event["unread"] == before["unread"] + 1
                assert event["revision"] == before["revision"] + 1
    finally:
        await site.stop()
    assert site.new_complaints() == []
