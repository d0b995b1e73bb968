"""The operations page of the demo, which two workers serve, in real browsers."""

import asyncio
import contextlib
import shutil
import signal
import subprocess
import sys

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import expect
from websockets.exceptions import InvalidStatus

from .browser import DESKTOP, PHONE, Cable
from .site import DEMO, Site, environment, manage

pytestmark = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(120),
]

PATH = "/admin/headrace_operations/operations/"
SOCKET = "/ws/headrace/operations/"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def running_watched(seeded, tmp_path_factory):
    # A deploy waits for browsers that keep connections for another request.
    site = Site(
        shutil.copytree(seeded, tmp_path_factory.mktemp("watched") / "data"),
        *("--workers", "2", "--keep-alive", "1"),
    )
    manage(
        site.data,
        "shell",
        "--no-imports",
        "-c",
        "from accounts.models import User; User.objects.filter(username='priya')"
        ".update(is_staff=True)",
    )
    await site.start()
    yield site
    await site.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def watched(running_watched):
    """The demo site with two workers. Edith may close connections, Priya may look."""
    yield running_watched
    complaints = running_watched.new_complaints()
    assert [each for each in complaints if "headrace.operations" not in each] == []


@pytest.fixture
def watching(person):
    """Return a function that opens the page."""
    people = []

    async def opened(site, username="edith", **options):
        somebody = await person(site, username, **options)
        people.append(somebody)
        return await somebody.tab(PATH)

    yield opened
    for each in people:
        # A browser asks for an icon, which the admin does not have.
        each.problems = [problem for problem in each.problems if "404" not in problem]


def state(page):
    return page.locator("#hr-state")


def tile(page, name):
    return page.locator("#hr-tiles > div").filter(has_text=name).locator("dd")


def rows(page, table="connections"):
    return page.locator(f"#hr-{table} tbody tr")


async def live(page):
    await expect(state(page)).to_have_text("Live")
    await expect(rows(page, "workers")).to_have_count(2)


async def find(page, text):
    await page.get_by_role("searchbox", name="Search").fill(text)


# What it shows


async def test_the_numbers_move_as_clients_come_and_talk(watched, watching):
    page = await watching(watched)
    await live(page)
    await expect(page.locator("#hr-plots canvas")).to_have_count(6)
    before = int(await tile(page, "WebSockets").inner_text())
    async with contextlib.AsyncExitStack() as stack:
        tabs = [
            await stack.enter_async_context(
                (await watched.visitor().log_in("tomas")).tab("workshop")
            )
            for _ in range(3)
        ]
        await expect(tile(page, "WebSockets")).to_have_text(str(before + 3))
        await find(page, "tomas workshop")
        await expect(rows(page)).to_have_count(3)
        await expect(rows(page).first).to_contain_text("/ws/rooms/workshop/")
        await expect(rows(page).first).to_contain_text("RoomConsumer")
        await expect(rows(page, "handlers").first).to_be_visible()
        await expect(rows(page, "groups").filter(has_text="room.")).not_to_have_count(0)

        async def talk():
            while True:
                await tabs[0].quiet()

        talking = asyncio.create_task(talk())
        await expect(tile(page, "Messages in")).not_to_have_text("0")
        talking.cancel()
    await expect(rows(page)).to_have_count(1)  # "Nothing yet."
    await expect(tile(page, "WebSockets")).to_have_text(str(before))


async def test_the_table_is_sorted_and_paged_by_the_server(watched, watching):
    page = await watching(watched)
    await live(page)
    async with contextlib.AsyncExitStack() as stack:
        visitor = await watched.visitor().log_in("wen")
        for _ in range(26):
            await stack.enter_async_context(visitor.tab("mill-pond"))
        await find(page, "wen")
        place = page.locator("#hr-place")
        await expect(place).to_have_text("Page 1 of 2, 26 connections")
        await expect(rows(page)).to_have_count(25)
        await page.get_by_role("button", name="Next").click()
        await expect(place).to_have_text("Page 2 of 2, 26 connections")
        await expect(rows(page)).to_have_count(1)
        await page.get_by_role("button", name="Id").click()
        await expect(page.get_by_role("columnheader", name="Id")).to_have_attribute(
            "aria-sort", "ascending"
        )
        first = await rows(page).first.locator("th").inner_text()
        await page.get_by_role("button", name="Id").click()
        await expect(page.get_by_role("columnheader", name="Id")).to_have_attribute(
            "aria-sort", "descending"
        )
        await expect(rows(page).first.locator("th")).not_to_have_text(first)


# Closing


async def test_staff_close_a_connection_and_its_client_is_told(watched, watching):
    page = await watching(watched)
    await live(page)
    async with (await watched.visitor().log_in("jonas")).tab("mill-pond") as tab:
        await find(page, "jonas")
        await expect(rows(page)).to_have_count(1)
        connection = await rows(page).first.locator("th").inner_text()
        await page.get_by_role("button", name=f"Close the connection {connection}").click()
        dialog = page.get_by_role("dialog", name="Close this connection?")
        await expect(dialog).to_contain_text("/ws/rooms/mill-pond/")
        await page.keyboard.press("Escape")
        await expect(dialog).to_be_hidden()
        await tab.quiet()  # it still talks
        await page.get_by_role("button", name=f"Close the connection {connection}").click()
        await dialog.get_by_label("Close code").select_option("own")
        await dialog.get_by_label("Another code").fill("4242")
        await dialog.get_by_label("Reason").fill("tea time")
        await dialog.get_by_role("button", name="Close the connection").click()
        assert await tab.closed() == 4242
        assert tab.socket.close_reason == "tea time"
        await expect(page.locator("#hr-said")).to_have_text(f"Closed {connection} with 4242.")
        await expect(rows(page).locator("th")).to_have_count(0)
    await page.goto(watched.url + "/admin/")
    await expect(page.locator("#recent-actions-module")).to_contain_text(f"connection {connection}")
    assert f"edith has closed the connection {connection}" in watched.log.read_text()


async def test_who_may_look_has_no_button_to_close(watched, watching):
    page = await watching(watched, "priya")
    await live(page)
    await expect(rows(page).filter(has_text=SOCKET)).not_to_have_count(0)
    await expect(page.get_by_role("button", name="Close the connection")).to_have_count(0)


async def test_nobody_else_sees_the_page_or_opens_its_socket(watched, watching):
    page = await watching(watched, "maya")
    await expect(page).to_have_url(f"{watched.url}/admin/login/?next={PATH}")
    maya = await watched.visitor().log_in("maya")
    edith = await watched.visitor().log_in("edith")
    for visitor, origin in (
        (maya, None),
        (watched.visitor(), None),
        (edith, "http://evil.example"),
    ):
        with pytest.raises(InvalidStatus) as refused:
            async with visitor.websocket(SOCKET, origin=origin):
                pass
        assert refused.value.response.status_code == 403
    assert len(watched.new_complaints()) == 1  # of the origin


async def test_a_logout_ends_the_page(watched, watching):
    page = await watching(watched, "priya")
    await live(page)
    other = await page.context.new_page()
    await other.goto(watched.url)
    await other.get_by_role("button", name="Log out").click()
    await expect(state(page)).to_contain_text("your login has ended")


async def test_the_page_is_in_the_language_of_the_site(watched):
    edith = await watched.visitor().log_in("edith")
    page = await edith.get(PATH, **{"Accept-Language": "zh-hans"})
    assert ">工作进程</h2>" in page.text
    assert "Connecting" not in page.text


# When the server goes away


async def test_a_deploy_is_told_and_survived(watched, watching):
    page = await watching(watched)
    await live(page)
    pids = await rows(page, "workers").locator("td").first.inner_text()
    seen = []
    await page.expose_function("changed", lambda shown: seen.append(shown))
    await page.evaluate(
        """() => new MutationObserver(() =>
            changed(document.getElementById("hr-state").dataset.state))
            .observe(document.getElementById("hr-state"), {attributes: true})"""
    )
    watched.process.send_signal(signal.SIGHUP)
    await expect(rows(page, "workers").locator("td").first).not_to_have_text(pids, timeout=30_000)
    await live(page)
    assert "offline" in seen
    async with (await watched.visitor().log_in("tomas")).tab("workshop"):
        await find(page, "tomas")
        await expect(rows(page).locator("th")).to_have_count(1)


async def test_a_socket_that_can_not_be_opened_says_what_may_be_missing(watched, person):
    edith = await person(watched, "edith")
    cable = await Cable().lay(edith.context)
    cable.out = True
    page = await edith.tab(PATH)
    await expect(page.locator("#hr-notice")).to_contain_text("headrace.operations.routing")
    await expect(state(page)).to_contain_text("Offline")
    cable.out = False
    await live(page)
    await expect(page.locator("#hr-notice")).to_be_hidden()
    edith.problems = [each for each in edith.problems if "404" not in each]


async def test_under_another_server_the_page_says_so(seeded, tmp_path, watching):
    site = Site(shutil.copytree(seeded, tmp_path / "data"))
    with site.log.open("ab") as log:
        process = subprocess.Popen(  # noqa: ASYNC220 - it is started, not waited for
            [
                sys.executable,
                "-m",
                "uvicorn",
                "--port",
                str(site.port),
                "millpond.asgi:application",
            ],
            cwd=DEMO,
            env={k: v for k, v in environment(site.data).items() if k != "HEADRACE_CONTROL"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        async with asyncio.timeout(15):
            while b"running on" not in site.log.read_bytes():  # noqa: ASYNC110 - a file
                await asyncio.sleep(0.05)
        page = await watching(site)
        await expect(state(page)).to_have_text("Live, this process alone")
        await expect(page.locator("#hr-notice")).to_contain_text("not run by “headrace serve”")
        await expect(rows(page, "workers")).to_have_count(1)
        await expect(rows(page, "handlers").first).to_contain_text("OperationsConsumer")
        await expect(page.locator("#hr-connections")).to_be_hidden()
        await page.close()
    finally:
        process.terminate()
        process.wait(15)


# For everybody


async def violations(page):
    """Return what axe has against our part of the admin's page."""
    results = await Axe().run(page, context="#hr-operations")
    return [
        (each["id"], [node["html"] for node in each["nodes"]])
        for each in results.response["violations"]
    ]


@pytest.mark.parametrize(
    ("scheme", "device"), [("light", DESKTOP), ("dark", PHONE)], ids=["desktop", "phone"]
)
async def test_axe_finds_nothing(watched, watching, scheme, device):
    page = await watching(watched, color_scheme=scheme, reduced_motion="reduce", **device)
    await live(page)
    await expect(rows(page).filter(has_text=SOCKET)).not_to_have_count(0)
    await page.locator("summary").click()
    await expect(rows(page, "counters").first).to_contain_text("headrace_")
    found = {"page": await violations(page)}
    await page.get_by_role("button", name="Close the connection").first.click()
    found["dialog"] = await violations(page)
    assert {where: what for where, what in found.items() if what} == {}
    fits = await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert fits


async def test_the_focus_stays_where_it_is_while_numbers_change(watched, watching):
    page = await watching(watched)
    await live(page)
    await find(page, "operations")
    await expect(rows(page).filter(has_not_text=SOCKET)).to_have_count(0)
    # Pages of other tests may be leaving just now: this row, wherever it stands, stays.
    connection = await rows(page).last.locator("th").inner_text()
    button = page.get_by_role("button", name=f"Close the connection {connection}", exact=True)
    row = rows(page).filter(has=button)
    await button.focus()
    shown = await row.inner_text()
    await expect(row).not_to_have_text(shown, use_inner_text=True)
    await expect(button).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog")).to_be_visible()
