"""The four ways in real browsers: what people see of one feed, and of what it costs."""

import base64
import contextlib
import hashlib
import re
from urllib.parse import urlsplit

import pytest
from playwright.async_api import expect

from .browser import DESKTOP, PHONE, SHOWN_AS, connected, violations

pytestmark = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(120),
]

WAYS = ("poll", "wait", "stream", "socket")
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3

# Notes what each way brings, as the page takes it in.
NOTE = """() => {
    window.brought = {poll: {}, wait: {}, stream: {}, socket: {}};
    const note = (way, message) => { brought[way][message.id] = message.born; };
    const json = Response.prototype.json;
    Response.prototype.json = async function () {
        const answer = await json.call(this);
        const way = this.url.includes("/poll/") ? "poll" : "wait";
        for (const message of answer.messages ?? []) note(way, message);
        return answer;
    };
    for (const [name, way] of [["EventSource", "stream"], ["WebSocket", "socket"]]) {
        window[name] = class extends window[name] {
            constructor(url, ...more) {
                super(url, ...more);
                if (!/polling\\/(stream|feed)/.test(url)) return;
                this.addEventListener("message", ({data}) => note(way, JSON.parse(data)));
            }
        };
    }
}"""


async def look(somebody):
    await somebody.context.add_init_script(f"({NOTE})()")
    page = await somebody.tab("/polling/")
    await connected(page)
    return page


async def all_on(page):
    await page.get_by_role("button", name="Start all four").click()
    await expect(page.get_by_role("status").filter(has_text="All four are on.")).to_be_visible()
    for way in WAYS:
        await expect(card(page, way).locator("[data-slot=last]")).to_have_text(re.compile("№ "))


async def all_off(page):
    await page.get_by_role("button", name="Stop all").click()
    await expect(page.get_by_role("status").filter(has_text="All four are off.")).to_be_visible()


def card(page, way):
    return page.locator(f".way[data-way={way}]")


def cell(page, way, name):
    return page.locator(f".totals tr[data-way={way}] [data-cell={name}]")


async def number(page, way, name):
    return (await numbers(page))(way, name)


async def numbers(page):
    """Return the table of this moment: what a cell says goes on, while another is asked."""
    rows = await page.locator(".totals tr[data-way]").evaluate_all(
        """rows => rows.map((row) => [row.dataset.way, Object.fromEntries(
            [...row.querySelectorAll("[data-cell]")].map((it) => [it.dataset.cell, it.innerText])
        )])"""
    )
    table = dict(rows)
    return lambda way, name: float(table[way][name].split("\n")[0].replace(",", ""))


def count_requests(page):
    """Return the paths of what the page asks for from now on."""
    paths = []
    page.on("request", lambda request: paths.append(urlsplit(request.url).path))
    return paths


@pytest.mark.main_path
async def test_two_people_hear_the_same_in_four_ways(site, person):
    maya = await look(await person(site, "maya"))
    jonas = await look(await person(site, "jonas"))
    asked = count_requests(maya)
    await all_on(maya)
    await all_on(jonas)
    await expect(cell(maya, "socket", "messages")).to_have_text(re.compile(r"^[3-9]\d"))
    await all_off(maya)
    await all_off(jonas)
    brought = [await page.evaluate("brought") for page in (maya, jonas)]
    begins = max(min(map(int, way)) for each in brought for way in each.values())
    ends = min(max(map(int, way)) for each in brought for way in each.values())
    heard = [
        {int(number): born for number, born in way.items() if begins <= int(number) <= ends}
        for each in brought
        for way in each.values()
    ]
    assert len(heard) == 8
    assert len(heard[0]) == ends - begins + 1 >= 10
    assert all(each == heard[0] for each in heard)

    # What the browser has asked for is what the server has counted.
    requests = {way: asked.count(f"/polling/{way}/") for way in WAYS} | {"socket": 1}
    for way in WAYS:
        await expect(cell(maya, way, "requests")).to_have_text(re.compile(rf"^{requests[way]}\b"))
    assert requests["stream"] == 1
    assert requests["wait"] > 5
    assert requests["poll"] > 5
    shows = await numbers(maya)
    for name in ("messages", "missing", "requests", "up", "down"):
        assert shows("all", name) == sum(shows(way, name) for way in WAYS), name
    assert shows("all", "missing") == 0
    cpu = sum(shows(way, "cpu") for way in WAYS)
    assert shows("all", "cpu") == pytest.approx(cpu, abs=0.3)
    for way in WAYS:
        assert shows(way, "messages") == len(brought[0][way])
        assert shows(way, "cpu") > 0
        assert shows(way, "up") > 100
    # For each message polling takes many times what the WebSocket does.
    ratio = await cell(maya, "poll", "requests").locator("small").inner_text()
    shown = float(ratio.replace(",", "").split()[0])
    messages = {way: len(brought[0][way]) for way in WAYS}
    assert shown == pytest.approx(requests["poll"] / messages["poll"] * messages["socket"], rel=0.1)
    assert shows("poll", "each") > 2 * shows("socket", "each")
    colours = await maya.locator(".plot canvas").first.evaluate(
        """canvas => {
            const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            return new Set(new Uint32Array(data.buffer)).size;
        }"""
    )
    assert colours > 10
    await maya.get_by_role("button", name="Count from zero").click()
    await expect(cell(maya, "all", "requests")).to_have_text("0")
    await expect(cell(maya, "socket", "messages")).to_have_text("0")


async def test_the_handshake_and_the_frames_are_the_browser_s_own(site, person):
    page = await look(await person(site, "maya"))
    await expect(page.get_by_text("Start the WebSocket, and here")).to_be_visible()
    await page.get_by_role("button", name="Start WebSocket").click()
    request = page.locator("[data-slot=request]")
    await expect(request).to_contain_text("sec-websocket-version: 13")
    text = await request.inner_text()
    assert text.startswith("GET /ws/polling/feed/ HTTP/1.1\n")
    key = re.search("sec-websocket-key: (.+)", text)[1]
    digest = hashlib.sha1((key + GUID).encode(), usedforsecurity=False)
    accept = base64.b64encode(digest.digest()).decode()
    await expect(page.locator("[data-slot=key]")).to_have_text(key)
    await expect(page.locator("[data-slot=guid]")).to_have_text(GUID)
    await expect(page.locator("[data-slot=sha1]")).to_have_text(digest.hexdigest())
    await expect(page.locator("[data-slot=accept]")).to_have_text(accept)
    await expect(page.locator("[data-slot=answer]")).to_contain_text(
        f"sec-websocket-accept: {accept}"
    )
    agreed = await page.locator("[data-slot=extensions]").inner_text()
    assert agreed.startswith("permessage-deflate")
    await expect(page.locator("[data-slot=browser-extensions]")).to_have_text(agreed)

    sent = page.locator("[data-frame=page] tbody tr")
    await expect(sent).to_have_count(3)
    first, second, payload = [await row.inner_text() for row in await sent.all()]
    assert first.startswith("81\tFIN: the message ends here; opcode 1: text")
    length = int(re.search(r"not masked; payload of (\d+) bytes", second)[1])
    assert int(second.split("\t")[0], 16) == length
    assert '"level_mm": ' in payload
    assert len(payload.split("\t")[1].encode()) == length

    came = page.locator("[data-frame=server] tbody tr")
    for _ in range(5):
        await page.get_by_label("Send a message").fill("Hello")
        await page.get_by_role("button", name="Send", exact=True).click()
        # One row: it came while another frame passed, and which bytes were its own is not known.
        await expect(came).not_to_have_count(0)
        with contextlib.suppress(AssertionError):
            await expect(came).to_have_count(4, timeout=2_000)
            break
    await expect(came).to_have_count(4)
    rows = [await row.inner_text() for row in await came.all()]
    # As this browser compresses it (RFC 7692 §7.2.3.1).
    assert rows[0].startswith("c1\tFIN: the message ends here; RSV1: compressed; opcode 1: text")
    assert rows[1] == "87\tmasked; payload of 7 bytes"
    assert rows[2].startswith("?? ?? ?? ??")
    assert rows[3] == "f2 48 cd c9 c9 07 00\tcompressed: Hello"


async def test_nobody_asks_while_nobody_looks_and_a_lost_server_is_found_again(own_site, person):
    somebody = await person(own_site, "maya")
    page = await look(somebody)
    await all_on(page)
    await page.evaluate(SHOWN_AS, "hidden")
    status = page.get_by_role("status").filter(has_text="Stopped while the page was hidden.")
    await expect(status).to_be_visible()
    for way in WAYS:
        await expect(card(page, way)).to_have_attribute("data-state", "off")
    await page.evaluate(SHOWN_AS, "visible")
    await page.get_by_role("button", name="Start WebSocket").focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("button", name="Stop WebSocket")).to_be_focused()
    await page.get_by_role("button", name="Start Server-sent events").click()
    await page.get_by_role("button", name="Start Ajax polling").click()
    for way in ("socket", "stream", "poll"):
        await expect(card(page, way)).to_have_attribute("data-state", "on")
    await expect(cell(page, "socket", "messages")).to_have_text(re.compile("[1-9]"))
    await own_site.stop()
    for way in ("socket", "stream", "poll"):
        await expect(card(page, way)).to_have_attribute("data-state", "waiting")
    await own_site.start()
    for way in ("socket", "stream", "poll"):
        await expect(card(page, way)).to_have_attribute("data-state", "on")
    before = await number(page, "all", "messages")
    await expect(cell(page, "all", "messages")).not_to_have_text(f"{before:,.0f}")
    # The browser itself says of each attempt that nobody was there.
    for problem in somebody.problems[:]:
        if "net::ERR_" in problem:
            somebody.problems.remove(problem)


@pytest.mark.parametrize(
    ("scheme", "device"), [("light", DESKTOP), ("dark", PHONE)], ids=["desktop", "phone"]
)
async def test_it_is_for_everyone(site, person, scheme, device):
    somebody = await person(site, "wen", color_scheme=scheme, reduced_motion="reduce", **device)
    page = await look(somebody)
    await page.get_by_label("2", exact=True).check(force=True)
    await all_on(page)
    await expect(page.locator("[data-frame=page] tbody tr").first).to_be_visible()
    width = await page.evaluate("document.documentElement.scrollWidth")
    assert width <= device["viewport"]["width"]
    await page.locator(".about summary").click()
    assert await violations(page) == []
    await all_off(page)
