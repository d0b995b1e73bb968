"""The quotes in real browsers: what people see move, and what comes back by itself."""

import contextlib
import re
import sqlite3

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import expect

from .browser import DESKTOP, PHONE, Cable, connected

pytestmark = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(120),
]

PRICE = re.compile(r"^[\d,]+\.\d+$")


async def look_at_quotes(somebody):
    page = await somebody.tab("/quotes/")
    await connected(page)
    await expect(rows(page).first.locator(".last")).to_have_text(PRICE)
    return page


def rows(page):
    return page.locator(".board tbody tr:visible")


def figure(page, name):
    return page.locator(f"[data-figure={name}]")


async def number(page, name):
    return int((await figure(page, name).inner_text()).replace(",", ""))


@pytest.mark.main_path
async def test_two_people_look_and_keep_lists_of_their_own(site, person):
    maya = await look_at_quotes(await person(site, "maya"))
    jonas = await look_at_quotes(await person(site, "jonas"))
    await expect(rows(jonas)).to_have_count(6)
    await maya.get_by_label("Funds").check(force=True)
    await expect(rows(maya)).to_have_count(48)
    await maya.get_by_label("Search").fill("kestrel opt")
    await expect(rows(maya)).to_have_count(1)
    star = maya.get_by_role("button", name="Watch KESO")
    was = await star.get_attribute("aria-pressed")
    await star.click()
    await expect(star).not_to_have_attribute("aria-pressed", was)
    await maya.get_by_role("button", name="KESO Kestrel Optics").click()
    await expect(maya.get_by_role("heading", name="KESO Kestrel Optics")).to_be_visible()
    # A trade moves the number on the page: nobody asked for it.
    await expect(maya.locator(".detail-price .last")).to_have_text(PRICE)
    before = await number(maya, "trades")
    await expect(figure(maya, "trades")).not_to_have_text(f"{before:,}")
    await maya.get_by_label("Search").fill("")
    await maya.get_by_label("Watch list").check(force=True)
    await expect(rows(maya)).to_have_count(7 if was == "false" else 5)
    await expect(rows(jonas)).to_have_count(6)
    await maya.reload()
    await expect(rows(maya)).to_have_count(7 if was == "false" else 5)


async def test_the_charts_are_drawn(site, person):
    page = await look_at_quotes(await person(site, "maya"))
    for name in ("candles", "depth"):
        colours = page.locator(f".chart.{name} canvas").first.evaluate(
            """canvas => {
                const { data } = canvas.getContext("2d").getImageData(
                    0, 0, canvas.width, canvas.height);
                return new Set(new Uint32Array(data.buffer)).size;
            }"""
        )
        assert await colours > 5, name


async def test_a_gap_heals_by_itself(site, person):
    page = await look_at_quotes(await person(site, "maya"))
    await expect(figure(page, "gaps")).to_have_text("0")
    await page.get_by_role("button", name="Lose a message").click()
    await expect(figure(page, "gaps")).to_have_text("1")
    seq = await figure(page, "seq").inner_text()
    await expect(figure(page, "seq")).not_to_have_text(seq)
    await expect(figure(page, "gaps")).to_have_text("1")


async def test_a_page_that_was_cut_off_goes_on(site, person):
    somebody = await person(site, "maya")
    cable = await Cable().lay(somebody.context)
    page = await look_at_quotes(somebody)
    await page.get_by_label("10").check(force=True)
    await cable.pull()
    await expect(page.get_by_role("button", name="Try now")).to_be_visible()
    seq = await figure(page, "seq").inner_text()
    cable.out = False
    await connected(page)
    await expect(figure(page, "seq")).not_to_have_text(seq)
    await expect(figure(page, "gaps")).to_have_text("0")


def busiest_stock(site):
    """Return the one that is traded most often: an alert is looked at with each trade."""
    with contextlib.closing(sqlite3.connect(site.data / "db.sqlite3")) as database:
        query = "SELECT symbol FROM quotes_instrument WHERE kind = 'stock' ORDER BY activity DESC"
        return database.execute(query).fetchone()[0]


async def test_a_price_rings_the_bell(site, person):
    somebody = await person(site, "edith")
    page = await look_at_quotes(somebody)
    elsewhere = await somebody.tab("/chat/")
    await page.get_by_label("Stocks").check(force=True)
    symbol = busiest_stock(site)
    await page.get_by_label("Search").fill(symbol)
    await page.get_by_role("button", name=re.compile(f"^{symbol} ")).click()
    price = page.get_by_role("textbox", name="Price")
    await price.fill("a lot")
    await page.get_by_role("button", name="Set alert").click()
    await expect(page.get_by_role("alert").filter(has_text="Write a price")).to_be_visible()
    await expect(price).to_be_focused()
    await price.fill("0.10")
    await price.press("Enter")
    alerts = page.get_by_role("list", name="Alerts").get_by_role("listitem")
    await expect(alerts).to_have_count(1)
    await expect(alerts).to_contain_text("reached")
    bell = elsewhere.locator(".bar-end .badge")
    await expect(bell).to_have_text(re.compile("[1-9]"))
    await alerts.get_by_role("button", name="Forget").click()
    await expect(alerts).to_have_count(0)


@pytest.mark.parametrize(
    ("scheme", "device"), [("light", DESKTOP), ("dark", PHONE)], ids=["desktop", "phone"]
)
async def test_it_is_for_everyone(site, person, scheme, device):
    somebody = await person(site, "wen", color_scheme=scheme, reduced_motion="reduce", **device)
    page = await look_at_quotes(somebody)
    width = await page.evaluate("document.documentElement.scrollWidth")
    assert width <= device["viewport"]["width"]
    await page.get_by_role("button", name="Set alert").click()
    await page.locator(".about summary").click()
    results = await Axe().run(page)
    assert [
        (each["id"], [node["html"] for node in each["nodes"]])
        for each in results.response["violations"]
    ] == []
