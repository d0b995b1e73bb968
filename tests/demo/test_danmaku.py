"""Comments over the film, over real HTTP and WebSockets: who gets which, and what is refused."""

import asyncio
import contextlib
import re
import shutil
import uuid

import pytest

from .site import Site, Tab

pytestmark = pytest.mark.asyncio(loop_scope="session")

SHOWN, REPLAYED = 3, 12


@contextlib.asynccontextmanager
async def viewing(visitor):
    """Open the film as a page does, and come back with its welcome."""
    async with visitor.websocket("/ws/danmaku/") as socket:
        tab = Tab(socket)
        tab.welcome = await tab.wait_for("welcome")
        yield tab


async def comment(tab, text, at_ms=1_000, client_id=None):
    """Send a comment, and return the server's answer to it."""
    client_id = client_id or str(uuid.uuid4())
    await tab.send(type="comment", client_id=client_id, text=text, at_ms=at_ms)
    return await tab.wait_until(
        lambda event: (
            (event["type"] == "kept" and event["comment"]["client_id"] == client_id)
            or (event["type"] == "error" and event.get("client_id") == client_id)
        )
    )


def of_batches(events):
    return [each for event in events if event["type"] == "comments" for each in event["comments"]]


# --- The film ---


@pytest.mark.parametrize(
    ("asked", "status", "given"),
    [
        ({}, 200, None),
        ({"Range": "bytes=0-9"}, 206, "bytes 0-9/"),
        ({"Range": "bytes=100-"}, 206, "bytes 100-"),
        ({"Range": "bytes=0-99999999"}, 206, "bytes 0-"),
        ({"Range": "bytes=99999999-"}, 416, "bytes */"),
        ({"Range": "bytes=-5"}, 200, None),
        ({"Range": "bytes=0-1,4-5"}, 200, None),
        ({"Range": "frames=0-1"}, 200, None),
        ({"Range": "bytes=0-9", "If-Range": "another version"}, 200, None),
    ],
)
async def test_the_film_is_served_by_ranges(site, asked, status, given):
    # A style sheet is served the same way, and is text.
    answer = await site.visitor().get("/static/danmaku/danmaku.css", **asked)
    assert answer.status == status
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert int(answer.headers["Content-Length"]) == len(answer.text.encode())
    if given is None:
        assert answer.headers["Content-Range"] is None
    else:
        assert answer.headers["Content-Range"].startswith(given)


async def test_a_part_is_that_part(site):
    visitor = site.visitor()
    whole = await visitor.get("/static/danmaku/danmaku.css")
    part = await visitor.get(
        "/static/danmaku/danmaku.css",
        **{"Range": "bytes=3-7", "If-Range": whole.headers["Last-Modified"]},
    )
    assert part.text == whole.text[3:8]


async def test_who_is_not_logged_in_is_sent_to_the_door(site):
    assert (await site.visitor().get("/danmaku/")).path == "/login/?next=/danmaku/"
    async with site.visitor().websocket("/ws/danmaku/") as socket:
        assert await Tab(socket).closed() == 4401


# --- Comments ---


async def test_a_comment_reaches_everyone_and_those_who_come_later(site):
    maya = await site.visitor().log_in("maya")
    jonas = await site.visitor().log_in("jonas")
    async with viewing(maya) as one, viewing(jonas) as other:
        assert 0 <= one.welcome["at_ms"] < 16_000
        answer = await comment(one, "  Look,\n <b>ducks</b>  ", 4_321)
        kept = answer["comment"]
        assert kept["text"] == "Look, <b>ducks</b>"
        assert (kept["at_ms"], kept["author"]["name"]) == (4_321, "Maya Okafor")
        await other.wait_until(lambda event: kept in of_batches([event]))
    async with viewing(jonas) as late:
        assert kept in late.welcome["comments"]


async def test_a_comment_sent_again_is_kept_once(site):
    wen = await site.visitor().log_in("wen")
    client_id = str(uuid.uuid4())
    async with viewing(wen) as one, viewing(wen) as two:
        answers = await asyncio.gather(
            comment(one, "Once.", client_id=client_id), comment(two, "Once.", client_id=client_id)
        )
        answers.append(await comment(one, "Once.", client_id=client_id))
        assert [answer["type"] for answer in answers] == ["kept"] * 3
    async with viewing(wen) as late:
        said = [each["client_id"] for each in late.welcome["comments"]]
        assert said.count(client_id) == 1


async def test_who_comes_later_gets_the_latest_of_each_second_and_all_their_own(site):
    tomas = await site.visitor().log_in("tomas")
    maya = await site.visitor().log_in("maya")

    async def write(tab, numbers):
        return [await comment(tab, f"Number {number}", 15_500) for number in numbers]

    async with viewing(tomas) as one, viewing(tomas) as two, viewing(tomas) as three:
        await asyncio.gather(
            write(one, range(5)), write(two, range(5, 10)), write(three, range(10, 14))
        )
        last = (await comment(three, "The last", 15_999))["comment"]

    def of_the_second(tab):
        return [each for each in tab.welcome["comments"] if each["at_ms"] >= 15_000]

    async with viewing(maya) as other, viewing(tomas) as own:
        assert len(of_the_second(other)) == REPLAYED
        assert of_the_second(other)[-1] == last
        assert len(of_the_second(own)) == 15


async def test_staff_say_which_words_are_refused(site):
    maya = await site.visitor().log_in("maya")
    edith = await site.visitor().log_in("edith")
    assert (await maya.get("/admin/danmaku/forbiddenword/")).path.startswith("/admin/login/")
    word = f"quack{uuid.uuid4().hex[:6]}"
    async with viewing(maya) as one, viewing(edith) as other:
        assert (await comment(one, f"{word}!"))["type"] == "kept"
        page = await edith.post("/admin/danmaku/forbiddenword/add/", word=word)
        assert page.path == "/admin/danmaku/forbiddenword/"
        error = await comment(one, f"Well, {word.upper()}!")
        assert (error["code"], error["word"]) == ("forbidden_word", word)
        assert error["text"] == f"“{word}” is not wanted here."
        # What came in the same batch is kept all the same.
        answers = await asyncio.gather(comment(one, f"A {word}"), comment(other, "A duck"))
        assert [answer["type"] for answer in answers] == ["error", "kept"]
        told = [each["text"] for each in of_batches(await other.quiet())]
        assert "A duck" in told
        assert f"A {word}" not in told


async def test_what_staff_take_away_is_gone_from_every_page(site):
    wen = await site.visitor().log_in("wen")
    edith = await site.visitor().log_in("edith")
    text = f"Away {uuid.uuid4().hex}"
    async with viewing(wen) as tab:
        kept = (await comment(tab, text))["comment"]
        found = await edith.get(f"/admin/danmaku/comment/?q={text.split()[1]}")
        path = re.search(r"/admin/danmaku/comment/\d+/", found.text)[0]
        await edith.post(f"{path}delete/", post="yes")
        gone = await tab.wait_for("gone")
        assert (gone["author"], gone["client_id"]) == (kept["author"]["id"], kept["client_id"])
    async with viewing(wen) as late:
        assert kept not in late.welcome["comments"]


CLIENT_ID = "8d0c7c5e-0d0c-4f0e-8a35-0a2d5e7d9b11"
GOOD = {"type": "comment", "client_id": CLIENT_ID, "text": "x", "at_ms": 0}


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"text": None}, "bad_message"),
        ({"text": " \n"}, "empty"),
        ({"text": "x" * 61}, "too_long"),
        ({"text": "\x00"}, "bad_message"),
        ({"client_id": "1"}, "bad_message"),
        ({"at_ms": None}, "bad_message"),
        ({"at_ms": -1}, "bad_message"),
        ({"at_ms": 16_000}, "bad_message"),
        ({"at_ms": 1.5}, "bad_message"),
        ({"at_ms": True}, "bad_message"),
        ({"type": "crowd", "at_ms": "now"}, "bad_message"),
        ({"type": "post"}, "unknown_command"),
    ],
)
async def test_nonsense_gets_an_error_and_the_film_goes_on(site, wrong, code):
    priya = await site.visitor().log_in("priya")
    async with viewing(priya) as tab:
        await tab.send(**GOOD | wrong)
        error = await tab.wait_for("error")
        assert error["code"] == code
        assert error["text"].endswith(".")
        assert (await comment(tab, "Sense."))["type"] == "kept"


async def test_who_writes_too_fast_is_told_when_to_go_on(site):
    priya = await site.visitor().log_in("priya")
    async with viewing(priya) as tab:
        for _ in range(7):
            await tab.send(**GOOD | {"client_id": str(uuid.uuid4())})
        error = await tab.wait_for("error")
        assert error["code"] == "rate"
        assert 0 < error["retry_after_s"] <= 1


# --- Bursts, in two processes ---


async def test_a_burst_comes_in_few_batches_and_is_kept_whole(seeded, tmp_path, monkeypatch):
    monkeypatch.setenv("DEMO_LAYER", "local")
    site = Site(shutil.copytree(seeded, tmp_path / "data"), "--workers", "2")
    await site.start()
    try:
        await burst(site)
        await crowd(site)
    finally:
        await site.stop()
    assert site.new_complaints() == []


async def burst(site):
    writers = [await site.visitor().log_in(name) for name in ("maya", "jonas", "wen", "priya")]
    edith = await site.visitor().log_in("edith")
    async with contextlib.AsyncExitStack() as stack:
        viewer = await stack.enter_async_context(viewing(edith))
        second_page = await stack.enter_async_context(viewing(writers[0]))
        tabs = await asyncio.gather(
            *(stack.enter_async_context(viewing(writers[number % 4])) for number in range(60))
        )

        async def write(tab):
            for number in range(5):
                assert (await comment(tab, f"Number {number}", 9_000))["type"] == "kept"

        await asyncio.gather(*map(write, tabs))
        told = 0
        batches = []

        def is_all(event):
            nonlocal told
            if event["type"] == "comments":
                batches.append(event)
                told += len(event["comments"]) + event["left_out"]
            return told == 300

        await viewer.wait_until(is_all)
        assert all(len(batch["comments"]) <= SHOWN for batch in batches)
        assert sum(batch["left_out"] for batch in batches) > 0
        assert len(batches) < 100
        # Maya's other page got every one of hers: the batches that left some out, and those.
        maya = second_page.welcome["you"]
        mine = set()

        def are_mine(event):
            mine.update(
                each["client_id"] for each in of_batches([event]) if each["author"]["id"] == maya
            )
            return len(mine) == 75

        await second_page.wait_until(are_mine)
    async with viewing(writers[0]) as late:
        said = [each for each in late.welcome["comments"] if each["at_ms"] == 9_000]
        assert len([each for each in said if each["author"]["id"] == maya]) >= 75


async def crowd(site):
    maya = await site.visitor().log_in("maya")
    async with viewing(maya) as tab:
        before = asyncio.get_running_loop().time()
        await tab.send(type="crowd", at_ms=2_000)
        await tab.send(type="crowd", at_ms=2_000)
        assert (await tab.wait_for("error"))["code"] == "crowd_busy"
        batches = []
        while sum(len(batch["comments"]) + batch["left_out"] for batch in batches) < 1_000:
            batches.append(await tab.wait_for("comments"))
        took = asyncio.get_running_loop().time() - before
        assert all(len(batch["comments"]) <= SHOWN for batch in batches)
        assert len(batches) <= took / 0.1 + 1
        assert all(each["passing"] for each in of_batches(batches))
    async with viewing(maya) as late:
        assert not [each for each in late.welcome["comments"] if each["author"]["id"] == 0]
