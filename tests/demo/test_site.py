"""The demo site over real HTTP and real WebSockets, on ``headrace serve``."""

import asyncio
import json
import re
import signal
import threading
import types
import uuid
from types import SimpleNamespace

import pytest
from django.core.files.storage import FileSystemStorage
from django.core.signals import request_finished
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path as route
from django.utils import translation
from django.utils.deprecation import MiddlewareMixin
from django.utils.html import conditional_escape
from websockets.exceptions import InvalidStatus

from headrace.testing import HttpCommunicator
from headrace.threads import ThreadPoolMiddleware, pool_stats

from .site import DEMO

LOGGED_OUT, NO_SUCH_ROOM = 4401, 4404

# One event loop for all: the site is served once for most tests.
pytestmark = pytest.mark.asyncio(loop_scope="session")


# --- Pages ---


async def test_a_stranger_is_shown_the_door_and_comes_back_to_where_they_wanted(site):
    visitor = site.visitor()
    page = await visitor.get("/chat/rooms/workshop/")
    assert page.path == "/login/?next=/chat/rooms/workshop/"
    page = await visitor.post("/login/as/maya/", on="/login/", next="/chat/rooms/workshop/")
    assert page.path == "/chat/rooms/workshop/"


async def test_login_leads_to_no_other_site(site):
    page = await site.visitor().post("/login/as/maya/", on="/login/", next="https://evil.example/")
    assert page.path == "/"


async def test_only_open_accounts_are_entered_by_a_click(site):
    owner = site.visitor()
    secret = "correct horse battery"
    page = await owner.post("/signup/", username="nora", password1=secret, password2=secret)
    assert page.path == "/"
    page = await site.visitor().post("/login/as/nora/", on="/login/")
    assert page.status == 404


async def test_sign_up_log_out_and_log_in_again(site):
    visitor = site.visitor()
    secret = "correct horse battery"
    page = await visitor.post(
        "/signup/",
        username="nora.bell",
        display_name="  Nora   <b>Bell</b> ",
        password1=secret,
        password2=secret,
    )
    assert "Nora &lt;b&gt;Bell&lt;/b&gt;" in page.text
    page = await visitor.post("/logout/", on="/")
    assert page.path == "/login/"
    page = await visitor.post("/login/", username="nora.bell", password="wrong")
    assert "Please enter a correct username and password" in page.text
    page = await visitor.post("/login/", username="nora.bell", password=secret)
    assert page.path == "/"


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"username": "maya"}, "already exists"),
        ({"username": "no spaces"}, "valid username"),
        ({"username": ""}, "required"),
        ({"username": "nora", "display_name": "\u202eevil"}, "letters that can be seen"),
        ({"username": "nora", "display_name": "x" * 41}, "at most 40"),
        ({"username": "nora", "password2": "other"}, "match"),
        ({"username": "nora", "password1": "12345", "password2": "12345"}, "too short"),
    ],
)
async def test_a_sign_up_that_is_refused_says_why(site, fields, complaint):
    secret = {"password1": "correct horse battery", "password2": "correct horse battery"}
    page = await site.visitor().post("/signup/", **secret | fields)
    assert page.path == "/signup/"
    assert complaint in page.text
    assert 'aria-invalid="true"' in page.text


async def test_a_form_from_elsewhere_is_refused_in_the_site_s_own_words(site):
    page = await asyncio.to_thread(site.visitor()._open, "/login/as/maya/", "x=1", {})
    assert page.status == 403
    assert "That took too long" in page.text


async def test_what_is_not_there_has_a_page(site):
    visitor = await site.visitor().log_in("maya")
    page = await visitor.get("/chat/rooms/nowhere/")
    assert page.status == 404
    assert "There is nothing here" in page.text


async def test_headers_keep_foreign_code_out(site):
    page = await site.visitor().get("/login/")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["X-Frame-Options"] == "DENY"
    assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=|https?://", page.text)


class Noting(MiddlewareMixin):
    """Notes in which thread it is called."""

    def process_request(self, request):
        request.threads = [threading.get_ident()]

    def process_response(self, request, response):
        response["Threads"] = len({*request.threads, threading.get_ident()})
        return response


async def test_a_page_goes_to_a_thread_once(settings, monkeypatch):
    monkeypatch.syspath_prepend(str(DEMO))
    from millpond.pages import Pages

    def whole(request):
        request.threads.append(threading.get_ident())
        return HttpResponse(request.body)

    def in_pieces(request):
        async def pieces():
            yield request.body
            yield b"."

        return StreamingHttpResponse(pieces())

    settings.ROOT_URLCONF = types.ModuleType("urls_of_this_test")
    settings.ROOT_URLCONF.urlpatterns = [route("whole/", whole), route("in-pieces/", in_pieces)]
    settings.MIDDLEWARE = [f"{__name__}.Noting", f"{__name__}.Noting"]
    finished, loop_thread = [], threading.get_ident()

    def note(sender, **_):
        finished.append((sender, threading.get_ident()))

    request_finished.connect(note)
    application = ThreadPoolMiddleware(Pages())
    for address, body, calls in (("/whole/", b"said", 1), ("/in-pieces/", b"said.", 2)):
        before = pool_stats().calls
        request = HttpCommunicator(application, "POST", address, b"said")
        response = await request.get_response(timeout=10)
        await request.wait()
        assert (response["status"], response["body"]) == (200, body)
        assert dict(response["headers"])[b"Threads"] == b"1"
        # What comes in pieces is closed when the last of them is sent.
        assert pool_stats().calls == before + calls
    assert [sender for sender, _ in finished] == [Pages, Pages], "each is closed, and once"
    assert loop_thread not in {thread for _, thread in finished}
    request_finished.disconnect(note)


async def test_a_piece_of_a_page_is_made_once(settings, monkeypatch):
    monkeypatch.syspath_prepend(str(DEMO))
    from millpond.pieces import pieces

    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    source = {"piece.html": "<p>{{ said.text }}</p>"}
    loaders = [("django.template.loaders.locmem.Loader", source)]
    settings.TEMPLATES = [
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "OPTIONS": {"loaders": loaders},
        }
    ]
    table = {n: SimpleNamespace(text=text) for n, text in enumerate(["one", "<two>", "three"])}
    asked = []

    def objects(numbers):
        asked.append(numbers)
        return {n: table[n] for n in numbers if n in table}

    def show():
        rows = [(n, said.text) for n, said in table.items()]
        return "".join(map(conditional_escape, pieces("piece.html", "said", rows, objects)))

    assert show() == show() == "<p>one</p><p>&lt;two&gt;</p><p>three</p>"
    table[1].text = "TWO"
    with translation.override("zh-hans"):
        assert show() == "<p>one</p><p>TWO</p><p>three</p>"
    assert show() == "<p>one</p><p>TWO</p><p>three</p>"
    assert asked == [[0, 1, 2], [0, 1, 2], [1]]
    assert pieces("piece.html", "said", [(0, "one"), (7, "gone")], objects) == ["<p>one</p>"]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/static/millpond/millpond.css", "text/css"),
        ("/static/chat/js/room.js", "text/javascript"),
        ("/static/millpond/icon.svg", "image/svg+xml"),
    ],
)
async def test_static_files_are_served_and_kept_by_the_browser(site, path, kind):
    visitor = site.visitor()
    file = await visitor.get(path)
    assert file.headers["Content-Type"].split(";")[0] == kind
    assert file.headers["X-Content-Type-Options"] == "nosniff"
    assert len(file.text.encode()) == int(file.headers["Content-Length"])
    again = await visitor.get(path, **{"If-Modified-Since": file.headers["Last-Modified"]})
    assert again.status == 304


async def test_what_a_page_names_is_kept_for_good_and_found_under_any_version(site):
    visitor = await site.visitor().log_in("maya")
    page = (await visitor.get("/chat/rooms/mill-pond/")).text
    files = re.findall(r'(?:href|src)="(/(?:static|words)/[^"]+)"', page)
    assert len(files) > 5
    for path in files:
        assert (await visitor.get(path)).headers["Cache-Control"] == (
            "public, max-age=31536000, immutable"
        ), path
    of_another_version = re.sub("/[0-9a-f]{16}([./])", r"/0123456789abcdef\1", files[-1])
    for path in (of_another_version, "/static/chat/chat.css", "/words/en/0123456789abcdef.js"):
        file = await visitor.get(path)
        assert (file.status, file.headers["Cache-Control"]) == (200, "no-cache"), path
    assert (await visitor.get("/words/xx/0123456789abcdef.js")).status == 404


async def test_an_edited_file_gives_all_of_them_new_addresses(tmp_path, settings, monkeypatch):
    monkeypatch.syspath_prepend(str(DEMO))
    from millpond import versions

    (tmp_path / "a.js").write_text("1")
    (tmp_path / "b.js").write_text("1")
    storage = FileSystemStorage(tmp_path)
    found = SimpleNamespace(list=lambda _: [(path, storage) for path in storage.listdir("")[1]])
    monkeypatch.setattr(versions, "AppDirectoriesFinder", lambda: found)
    monkeypatch.setattr(versions, "LOOK_EVERY_S", 0)
    version = versions.Version()
    seen = [version.current()]
    assert version.current() == seen[0]
    (tmp_path / "a.js").write_text("1 + 1")
    seen.append(version.current())
    (tmp_path / "b.js").unlink()
    seen.append(version.current())
    assert len(set(seen)) == 3
    assert version.kept(f"{seen[2]}/a.js")
    assert not version.kept(f"{seen[1]}/a.js")
    assert not version.kept("a.js")


@pytest.mark.parametrize("path", ["/static/chat/nothing.css", "/static/../manage.py", "/static/"])
async def test_static_files_that_are_none(site, path):
    assert (await site.visitor().get(path)).status == 404


async def test_a_room_is_opened_once(site):
    visitor = await site.visitor().log_in("maya")
    page = await visitor.post("/chat/new-room/", name=" The  <i>Attic</i> ", topic="Dust & light")
    assert page.path == "/chat/rooms/the-iattici/"
    assert "The &lt;i&gt;Attic&lt;/i&gt;" in page.text
    page = await visitor.post("/chat/new-room/", name="the <I>attic</I>")
    assert "There is a room called" in page.text
    page = await visitor.post("/chat/new-room/", name="屋根裏")
    assert re.fullmatch("/chat/rooms/room-[a-z0-9]{6}/", page.path)
    page = await visitor.post("/chat/new-room/", name="New")
    assert page.path == "/chat/rooms/new/"
    page = await visitor.post("/chat/new-room/", name="Néw")
    assert re.fullmatch("/chat/rooms/new-[a-z0-9]{6}/", page.path)


# --- Coming in ---


async def test_a_stranger_s_websocket_is_told_why_it_is_closed(site):
    async with site.visitor().websocket("/ws/rooms/mill-pond/") as socket:
        error = json.loads(await socket.recv())
        assert (error["type"], error["code"]) == ("error", "not_logged_in")
        await socket.wait_closed()
        assert socket.close_code == LOGGED_OUT


async def test_a_websocket_from_another_site_is_refused(site):
    visitor = await site.visitor().log_in("maya")
    with pytest.raises(InvalidStatus) as refused:
        async with visitor.websocket("/ws/rooms/mill-pond/", origin="https://evil.example"):
            pass
    assert refused.value.response.status_code == 403
    (complaint,) = site.new_complaints()
    assert "https://evil.example" in complaint


async def test_an_unknown_room_is_said_to_be_one(site):
    visitor = await site.visitor().log_in("maya")
    async with visitor.websocket("/ws/rooms/nowhere/") as socket:
        assert json.loads(await socket.recv())["code"] == "unknown_room"
        await socket.wait_closed()
        assert socket.close_code == NO_SUCH_ROOM


async def test_welcome_tells_what_was_missed(site, room):
    maya = await site.visitor().log_in("maya")
    async with maya.tab(room) as tab:
        said = [(await tab.say(text))["message"] for text in ("One.", "Two.", "Three.")]
        assert [message["number"] for message in said] == [1, 2, 3]
    async with maya.tab(room, seen=1) as tab:
        assert tab.welcome["messages"] == said[1:]
        assert tab.welcome["afresh"] is False
        assert tab.welcome["you"]["name"] == "Maya Okafor"
        assert [person["name"] for person in tab.welcome["people"]] == ["Maya Okafor"]
    async with maya.tab(room, seen=3) as tab:
        assert tab.welcome["messages"] == []


@pytest.mark.parametrize("seen", ["", "x", "-1", "9" * 400, "%00", "1&seen=2"])
async def test_a_page_that_has_seen_nonsense_gets_a_welcome(site, seen):
    maya = await site.visitor().log_in("maya")
    async with maya.websocket(f"/ws/rooms/mill-pond/?seen={seen}") as socket:
        assert json.loads(await socket.recv())["type"] in {"welcome", "presence"}


async def test_who_has_seen_more_than_there_is_starts_afresh(site, room):
    maya = await site.visitor().log_in("maya")
    async with maya.tab(room) as tab:
        said = await tab.say("One.")
    async with maya.tab(room, seen=999) as tab:
        assert tab.welcome["afresh"] is True
        assert tab.welcome["messages"] == [said["message"]]


# --- Talking ---


async def test_a_message_reaches_every_tab_of_everyone_once(site, room):
    maya = await site.visitor().log_in("maya")
    jonas = await site.visitor().log_in("jonas")
    async with maya.tab(room) as one, maya.tab(room) as two, jonas.tab(room) as other:
        said = await one.say('  Hello <b>there</b> & "you"\r\n😄 ')
        assert said["message"]["text"] == 'Hello <b>there</b> & "you"\n😄'
        assert said["message"]["number"] == 1
        for tab in (two, other):
            assert await tab.wait_for("message") == said
        for tab in (one, two, other):
            told = [event for event in await tab.quiet() if event["type"] == "message"]
            assert told == [said]
    page = await jonas.get(f"/chat/rooms/{room}/")
    assert "Hello &lt;b&gt;there&lt;/b&gt; &amp; &quot;you&quot;" in page.text
    assert "<b>there" not in page.text


async def test_a_message_sent_again_is_kept_once(site, room):
    maya = await site.visitor().log_in("maya")
    client_id = str(uuid.uuid4())
    async with maya.tab(room) as one:
        first = await one.say("Once.", client_id)
        assert await one.say("Once.", client_id) == first
    async with maya.tab(room) as one, maya.tab(room) as two:
        assert await two.say("Once.", client_id) == first
        # Over two connections in the same moment, too.
        client_id = str(uuid.uuid4())
        answers = await asyncio.gather(
            one.say("Together.", client_id), two.say("Together.", client_id)
        )
        assert answers[0] == answers[1]
        assert (await one.say("After."))["message"]["number"] == 3


async def test_two_people_may_use_the_same_client_id(site, room):
    maya = await site.visitor().log_in("maya")
    jonas = await site.visitor().log_in("jonas")
    client_id = str(uuid.uuid4())
    async with maya.tab(room) as one, jonas.tab(room) as other:
        mine = await one.say("Mine.", client_id)
        theirs = await other.say("Theirs.", client_id)
        assert (mine["message"]["text"], theirs["message"]["text"]) == ("Mine.", "Theirs.")


async def test_numbers_have_no_gap_when_everyone_talks_at_once(site, room):
    visitors = [await site.visitor().log_in(name) for name in ("maya", "jonas", "priya", "wen")]
    async with (
        visitors[0].tab(room) as one,
        visitors[1].tab(room) as two,
        visitors[2].tab(room) as three,
        visitors[3].tab(room) as four,
    ):
        tabs = (one, two, three, four)

        async def talk(tab):
            for number in range(5):
                await tab.say(f"{number}")

        await asyncio.gather(*map(talk, tabs))
        for tab in tabs:
            numbers = {
                event["message"]["number"]
                for event in await tab.quiet()
                if event["type"] == "message"
            }
            assert numbers == set(range(1, 21))


async def test_typing_is_told(site, room):
    maya = await site.visitor().log_in("maya")
    jonas = await site.visitor().log_in("jonas")
    async with maya.tab(room) as one, jonas.tab(room) as other:
        await other.send(type="typing", typing=True)
        assert (await one.wait_for("typing"))["user"]["name"] == "Jonas Lindqvist"
        await other.send(type="typing", typing="perhaps")
        assert (await one.wait_for("typing"))["typing"] is False


async def test_other_rooms_hear_that_something_was_said_and_no_more(site, room):
    maya = await site.visitor().log_in("maya")
    jonas = await site.visitor().log_in("jonas")
    async with maya.tab("workshop") as one, jonas.tab(room) as other, jonas.lobby() as lobby:
        await other.say("Soup!")
        for tab in (one, lobby):
            activity = await tab.wait_for("activity")
            assert activity["room"] == room
            assert (activity["number"], activity["text"]) == (1, "Soup!")
            assert not [event for event in await tab.quiet() if event["type"] == "message"]
        page = await maya.post("/chat/new-room/", name=f"Beside {room}")
        assert page.path == f"/chat/rooms/beside-{room}/"
        for tab in (one, lobby):
            assert (await tab.wait_for("room"))["room"]["url"] == page.path


# --- Who is there ---


async def test_presence_counts_people_and_not_tabs(site, room):
    maya = await site.visitor().log_in("maya")
    jonas = await site.visitor().log_in("jonas")
    async with maya.tab(room) as one:
        async with jonas.tab(room) as first:
            him = first.welcome["you"]
            await one.wait_for("presence", user=him, here=True)
            async with jonas.tab(room) as second:
                names = [person["name"] for person in second.welcome["people"]]
                assert names == ["Maya Okafor", "Jonas Lindqvist"]
            assert (await one.quiet())[-1]["type"] == "pong"
        await one.wait_for("presence", user=him, here=False)
        told = [each for each in one.heard if each["type"] == "presence" and each["user"] == him]
        assert [each["here"] for each in told] == [True, False]


async def test_a_connection_that_breaks_off_leaves_too(site, room):
    maya = await site.visitor().log_in("maya")
    jonas = await site.visitor().log_in("jonas")
    async with maya.tab(room) as one, jonas.tab(room) as other:
        him = other.welcome["you"]
        await one.wait_for("presence", user=him, here=True)
        other.socket.transport.abort()
        await one.wait_for("presence", user=him, here=False)


async def test_a_server_that_was_killed_leaves_no_ghosts_and_loses_no_message(own_site):
    maya = await own_site.visitor().log_in("maya")
    jonas = await own_site.visitor().log_in("jonas")
    async with maya.tab("mill-pond") as one, jonas.tab("mill-pond") as other:
        client_id = str(uuid.uuid4())
        said = await one.say("Kept before the end.", client_id)
        await own_site.stop(signal.SIGKILL)
        await one.closed()
        await other.closed()
    await own_site.start()
    async with maya.tab("mill-pond", seen=12) as one:
        assert one.welcome["messages"] == [said["message"]]
        assert await one.say("Kept before the end.", client_id) == said
        # Who was there then is gone with the lease of the process that had them.
        names = [person["name"] for person in one.welcome["people"]]
        if names != ["Maya Okafor"]:
            gone = await one.wait_for("presence", here=False)
            assert gone["user"]["name"] == "Jonas Lindqvist"
    async with maya.tab("mill-pond") as one:
        assert [person["name"] for person in one.welcome["people"]] == ["Maya Okafor"]


async def test_a_server_that_stops_says_that_it_restarts(own_site):
    maya = await own_site.visitor().log_in("maya")
    async with maya.tab("mill-pond") as one, maya.lobby() as lobby:
        await own_site.stop()
        assert await one.closed() == 1012
        assert await lobby.closed() == 1012


async def test_logging_out_ends_every_tab_of_that_log_in_and_no_other(site, room):
    laptop = await site.visitor().log_in("maya")
    phone = await site.visitor().log_in("maya")
    async with laptop.tab(room) as one, laptop.lobby() as two, phone.tab(room) as three:
        await laptop.post("/logout/", on="/")
        assert await one.closed() == LOGGED_OUT
        assert await two.closed() == LOGGED_OUT
        assert (await three.say("Still here."))["type"] == "message"


async def test_changing_the_log_in_ends_the_old_one_s_tabs(site, room):
    visitor = await site.visitor().log_in("maya")
    async with visitor.tab(room) as tab:
        await visitor.post("/login/as/jonas/", on="/chat/new-room/")
        assert await tab.closed() == LOGGED_OUT


# --- What has been said, and read ---


async def test_history_and_changes(site, room):
    maya = await site.visitor().log_in("maya")
    async with maya.tab(room) as tab:
        for number in range(6):
            await tab.say(f"{number}")
        for kind, command, numbers in (
            ("history", {"before": 4}, [1, 2, 3]),
            ("changes", {"after": 4}, [5, 6]),
            ("history", {"before": 1}, []),
            ("changes", {"after": 6}, []),
        ):
            await tab.send(type=kind, **command)
            page = await tab.wait_for(kind, **command)
            assert [message["number"] for message in page["messages"]] == numbers


async def test_a_long_absence_ends_with_the_last_page(site, room):
    visitors = [await site.visitor().log_in(name) for name in ("maya", "jonas", "wen", "priya")]
    for number in range(5):
        async with visitors[number % 4].tab(room) as tab:
            for _ in range(9):
                await tab.say(f"Round {number}.")
    async with visitors[0].tab(room, seen=4) as tab:
        assert tab.welcome["afresh"] is True
        assert [message["number"] for message in tab.welcome["messages"]] == list(range(6, 46))
        await tab.send(type="history", before=6)
        page = await tab.wait_for("history")
        assert [message["number"] for message in page["messages"]] == list(range(1, 6))
    async with visitors[0].tab(room, seen=5) as tab:
        assert tab.welcome["afresh"] is False
        assert len(tab.welcome["messages"]) == 40


async def test_what_is_read_in_one_place_is_read_in_all(own_site):
    maya = await own_site.visitor().log_in("maya")
    unread = re.compile(r'data-slot="unread">(\d+)<')
    page = await maya.get("/chat/new-room/")
    assert unread.findall(page.text) == ["0", "1", "2", "1"]
    async with maya.lobby() as lobby, maya.tab("workshop") as tab:
        assert tab.welcome["read"] == 8
        await tab.send(type="read", number=9)
        assert await lobby.wait_for("read") == {"type": "read", "room": "workshop", "number": 9}
        await tab.send(type="read", number=4)
        await tab.send(type="read", number=9)
        await tab.send(type="read", number=9_999)
        assert (await lobby.wait_for("read"))["number"] == 10
    page = await maya.get("/chat/new-room/")
    assert unread.findall(page.text) == ["0", "1", "0", "1"]


async def test_who_was_never_in_a_room_has_nothing_unread(site):
    visitor = site.visitor()
    secret = "correct horse battery"
    await visitor.post("/signup/", username="newcomer", password1=secret, password2=secret)
    page = await visitor.get("/chat/")
    assert set(re.findall(r'data-slot="unread">(\d+)<', page.text)) == {"0"}


# --- Nonsense ---

CLIENT_ID = "6f1d7d2e-52a5-4b0e-9d5e-0d3b6a0b7c11"
LONG = "x" * 2001


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ("", "not_json"),
        ("hello", "not_json"),
        ("[" * 100_000, "not_json"),
        ("9" * 5_000, "not_json"),
        ("null", "not_json"),
        ("[]", "not_json"),
        ("{}", "not_json"),
        ('{"type": null}', "not_json"),
        ('{"type": {}}', "not_json"),
        (b'{"type": "ping"}', "not_json"),
        ('{"type": "dance"}', "unknown_command"),
        ('{"type": "__init__"}', "unknown_command"),
        ('{"type": "disconnect"}', "unknown_command"),
        ('{"type": "message"}', "bad_message"),
        (f'{{"type": "message", "client_id": "{CLIENT_ID}"}}', "bad_message"),
        (f'{{"type": "message", "client_id": "{CLIENT_ID}", "text": {{}}}}', "bad_message"),
        (f'{{"type": "message", "client_id": "{CLIENT_ID}", "text": " \\n"}}', "empty"),
        (f'{{"type": "message", "client_id": "{CLIENT_ID}", "text": "{LONG}"}}', "too_long"),
        (f'{{"type": "message", "client_id": "{CLIENT_ID}", "text": "\\u0000"}}', "bad_message"),
        (f'{{"type": "message", "client_id": "{CLIENT_ID}", "text": "\\ud83d"}}', "bad_message"),
        ('{"type": "message", "client_id": "1", "text": "x"}', "bad_message"),
        ('{"type": "message", "client_id": "\\ud83d", "text": "x"}', "bad_message"),
        ('{"type": "message", "client_id": [], "text": "x"}', "bad_message"),
        ('{"type": "history"}', "bad_message"),
        ('{"type": "history", "before": "x"}', "bad_message"),
        ('{"type": "history", "before": 1e300}', "bad_message"),
        ('{"type": "changes"}', "bad_message"),
        ('{"type": "changes", "after": -1}', "bad_message"),
        ('{"type": "changes", "after": 99999999999999999999}', "bad_message"),
        ('{"type": "edit", "number": 1}', "bad_message"),
        ('{"type": "edit", "number": "1", "text": "x"}', "bad_message"),
        ('{"type": "edit", "number": 9, "text": "x"}', "no_such_message"),
        ('{"type": "delete"}', "bad_message"),
        ('{"type": "delete", "number": 9}', "no_such_message"),
        ('{"type": "mute", "user": 2}', "bad_message"),
        ('{"type": "mute", "user": 2, "minutes": 1441}', "bad_message"),
        ('{"type": "mute", "user": 2, "minutes": 5}', "not_staff"),
        ('{"type": "close", "closed": 1}', "bad_message"),
        ('{"type": "close", "closed": true}', "not_staff"),
        ('{"type": "read", "number": true}', "bad_message"),
        ('{"type": "read", "number": NaN}', "bad_message"),
    ],
)
async def test_nonsense_gets_an_error_and_the_conversation_goes_on(site, room, sent, code):
    maya = await site.visitor().log_in("maya")
    async with maya.tab(room) as tab:
        await tab.socket.send(sent)
        error = await tab.wait_for("error")
        assert error["code"] == code
        assert error["text"].endswith((".", ")"))
        if CLIENT_ID in str(sent):
            assert error["client_id"] == CLIENT_ID
        assert (await tab.say("Sense."))["message"]["number"] == 1


async def test_who_writes_too_fast_is_told_when_to_go_on(site, room):
    maya = await site.visitor().log_in("maya")
    async with maya.tab(room) as tab:
        answers = [await tab.say(f"{number}") for number in range(11)]
        assert [answer["type"] for answer in answers] == ["message"] * 10 + ["error"]
        assert answers[-1]["code"] == "rate"
        assert 0 < answers[-1]["retry_after_s"] <= 1


async def test_who_asks_too_much_is_told_too(site, room):
    maya = await site.visitor().log_in("maya")
    async with maya.tab(room) as tab:
        for _ in range(60):
            await tab.send(type="typing", typing=True)
        error = await tab.wait_for("error")
        assert error["code"] == "rate"
