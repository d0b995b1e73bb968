"""Images of the chat: what is taken, what is kept of it, and who is shown it."""

import asyncio
import io
import json
import re
import urllib.error
import urllib.request
import uuid
import zlib
from types import SimpleNamespace

import pytest
from PIL import Image

from .test_chat_changes import change
from .test_chat_conversations import converse, person_of_number

pytestmark = pytest.mark.asyncio(loop_scope="session")


def picture(kind="PNG", size=(40, 30), **options):
    file = io.BytesIO()
    Image.new("RGB", size, (10, 120, 110)).save(file, kind, **options)
    return file.getvalue()


def exif(text):
    data = Image.Exif()
    data[0x010E] = text  # ImageDescription
    data[0x0112] = 6  # Orientation: turned by 90°
    return data


async def send_image(visitor, room, content, *, name="x.png", token=None, **fields):
    """Upload a file as a page does; return the status and the answer."""
    if token is None:
        page = await visitor.get("/chat/new-room/")
        token = re.search('name="csrfmiddlewaretoken" value="([^"]+)"', page.text)[1]
    fields = {"client_id": str(uuid.uuid4()), "text": ""} | fields
    boundary = "x-boundary-x"
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        for key, value in fields.items()
    ]
    if content is not None:
        head = f'Content-Disposition: form-data; name="image"; filename="{name}"\r\n'
        head += "Content-Type: image/svg+xml\r\n\r\n"  # nobody believes it
        parts.append(f"--{boundary}\r\n{head}".encode() + content + b"\r\n")
    body = b"".join(parts) + f"--{boundary}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", "X-CSRFToken": token}
    return await fetch(visitor, f"/chat/rooms/{room}/images/", body, **headers)


async def fetch(visitor, path, body=None, **headers):
    def load():
        request = urllib.request.Request(visitor.site.url + path, data=body, headers=headers)
        try:
            response = visitor._opener.open(request, timeout=15)
        except urllib.error.HTTPError as error:
            response = error
        with response:
            content = response.read()
            is_json = response.headers.get("Content-Type", "").startswith("application/json")
            return SimpleNamespace(
                status=response.status,
                headers=response.headers,
                path=response.url.removeprefix(visitor.site.url),
                content=content,
                json=json.loads(content) if is_json else None,
            )

    return await asyncio.to_thread(load)


@pytest.fixture
def kept(site):
    """Return a function that lists the files that are kept."""
    return lambda: {path.name for path in site.data.glob("media/chat/*")}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
async def test_an_image_is_encoded_anew_and_everyone_is_told(site, room, kind):
    maya = await site.visitor().log_in("maya")
    jonas = await site.visitor().log_in("jonas")
    options = {} if kind == "GIF" else {"exif": exif("at home, 59.3N 18.1E")}
    async with jonas.tab(room) as tab:
        answer = await send_image(
            maya, room, picture(kind, (2000, 1000), **options), text=" The pond "
        )
        assert answer.status == 200, answer.json
        told = (await tab.wait_for("message"))["message"]
        assert told == answer.json["message"]
        assert told["text"] == "The pond"
    shown = told["image"]
    upright = kind == "GIF"
    assert (shown["width"], shown["height"]) == ((380, 190) if upright else (150, 300))
    file = await fetch(jonas, shown["url"])
    assert file.headers["Content-Type"] == "image/webp"
    assert file.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in file.headers["Content-Security-Policy"]
    assert set(file.headers["Cache-Control"].split(", ")) == {"private", "no-cache"}
    with Image.open(io.BytesIO(file.content)) as image:
        assert image.format == "WEBP"
        assert image.size == ((1600, 800) if upright else (800, 1600))
        assert not image.getexif()
    assert b"at home" not in file.content
    again = await fetch(jonas, shown["url"], **{"If-None-Match": file.headers["ETag"]})
    assert again.status == 304
    page = await jonas.get(f"/chat/rooms/{room}/")
    assert f'<img src="{shown["url"]}"' in page.text
    assert 'alt="Image from Maya Okafor"' in page.text


def bomb():
    """Return a small file that says of itself that it has 3600 million pixels."""
    content = bytearray(picture())
    content[16:24] = (60_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


BAD = {
    "text": b"hello",
    "nothing": b"",
    "html": b"<html><script>alert(1)</script>",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "magic bytes only": b"\x89PNG\r\n\x1a\n" + b"\0" * 100,
    "cut off": picture("JPEG", (400, 400))[:-400],
    "another format": picture("BMP"),
    "another format, encapsulated": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
}


@pytest.mark.parametrize("what", BAD)
async def test_what_is_no_image_is_refused(site, room, what):
    maya = await site.visitor().log_in("maya")
    answer = await send_image(maya, room, BAD[what])
    assert (answer.status, answer.json["code"]) == (400, "no_image")


async def test_what_is_refused_leaves_nothing(site, room, kept):
    maya = await site.visitor().log_in("maya")
    before = kept()
    for content, fields, status, code in (
        (bomb(), {}, 413, "too_large"),
        (b"\0" * 5_000_001, {}, 413, "too_large"),
        (b"\0" * 5_100_000, {}, 413, "too_large"),
        (None, {}, 400, "no_image"),
        (picture(), {"client_id": "1"}, 400, "bad_message"),
        (picture(), {"text": "x" * 2001}, 400, "too_long"),
        (picture(), {"text": "\0"}, 400, "bad_message"),
    ):
        answer = await send_image(maya, room, content, **fields)
        assert (answer.status, answer.json["code"]) == (status, code)
        assert answer.json["text"].endswith("."), answer.json
    assert kept() == before
    async with maya.tab(room) as tab:
        assert (await tab.say("Nothing yet."))["message"]["number"] == 1


async def test_an_upload_from_elsewhere_is_refused(site, room):
    maya = await site.visitor().log_in("maya")
    answer = await send_image(maya, room, picture(), token="x" * 64)
    assert answer.status == 403
    answer = await send_image(site.visitor(), room, picture(), token="x" * 64)
    assert answer.path.startswith("/login/")
    assert (await maya.get(f"/chat/rooms/{room}/images/")).status == 405
    assert (await send_image(maya, "nowhere", picture())).status == 404
    # Django says of each refused form that it was.
    assert all("Forbidden" in complaint for complaint in site.new_complaints())


async def test_an_image_sent_again_is_kept_once(site, room, kept):
    maya = await site.visitor().log_in("maya")
    client_id = str(uuid.uuid4())
    first = await send_image(maya, room, picture(), client_id=client_id)
    before = kept()
    again = await send_image(maya, room, picture(), client_id=client_id)
    assert again.json == first.json
    assert kept() == before
    async with maya.tab(room) as tab:
        assert (await tab.say("Next."))["message"]["number"] == 2


async def test_an_image_of_a_conversation_is_shown_to_these_two(site):
    maya, _ = await person_of_number(site, "maya")
    wen, her = await person_of_number(site, "wen")
    slug = await converse(maya, her)
    answer = await send_image(maya, slug, picture())
    url = answer.json["message"]["image"]["url"]
    assert (await fetch(wen, url)).status == 200
    for name in ("jonas", "edith"):
        other = await site.visitor().log_in(name)
        assert (await fetch(other, url)).status == 404
        assert (await send_image(other, slug, picture())).status == 404
        number = url.rstrip("/").rpartition("/")[2]
        assert (await fetch(other, f"/chat/rooms/mill-pond/images/{number}/")).status == 404
    stranger = await fetch(site.visitor(), url)
    assert stranger.path.startswith("/login/")


async def test_a_deleted_image_is_gone(site, room, kept):
    maya = await site.visitor().log_in("maya")
    before = kept()
    answer = await send_image(maya, room, picture(), text="Look")
    message = answer.json["message"]
    assert len(kept() - before) == 1
    async with maya.tab(room) as tab:
        # Its words may go alone.
        edited = await change(tab, type="edit", number=1, text="")
        assert edited["image"] == message["image"]
        gone = await change(tab, type="delete", number=1)
        assert gone["image"] is None
    assert (await fetch(maya, message["image"]["url"])).status == 404
    assert kept() == before


async def test_who_sends_many_images_has_to_wait(site, room):
    visitor = site.visitor()
    secret = "correct horse battery"
    await visitor.post("/signup/", username="painter", password1=secret, password2=secret)
    token = re.search(
        'name="csrfmiddlewaretoken" value="([^"]+)"', (await visitor.get("/chat/new-room/")).text
    )[1]
    answers = [
        await send_image(visitor, room, picture(size=(1, 1)), token=token) for _ in range(11)
    ]
    assert [answer.status for answer in answers] == [200] * 10 + [429]
    assert answers[-1].json["code"] == "rate"
    assert answers[-1].json["retry_after_s"] == 60
