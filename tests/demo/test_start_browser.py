"""The start page in real browsers: that one finds one's way, on whatever one looks at it."""

import re

import pytest
from playwright.async_api import expect

from .browser import DESKTOP, violations

pytestmark = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(120),
]

SMALL_PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}

# What moves on the page, and until when, in milliseconds; null: for ever.
MOVING = """() => document.getAnimations().map(each => {
    const { endTime } = each.effect.getComputedTiming();
    return Number.isFinite(endTime) ? endTime : null;
})"""


def cards(page):
    return page.locator(".show-card")


async def test_a_stranger_comes_in_and_tries_each_application(site, person):
    page = await (await person(site)).tab("/")
    await page.get_by_role("link", name="Come in by a click").click()
    await page.get_by_role("button", name="Maya Okafor").click()
    await expect(page.get_by_role("link", name="Come in by a click")).to_have_count(0)
    count = await cards(page).count()
    assert count >= 5
    for number in range(count):
        card = cards(page).nth(number)
        title = await card.locator(".show-title").inner_text()
        await card.click()
        await expect(page).not_to_have_url(f"{site.url}/")
        here = page.get_by_role("navigation", name="Applications").locator("[aria-current=page]")
        await expect(here).to_have_text(title)
        await page.get_by_role("banner").get_by_role("link", name="Millpond").click()
        await expect(page).to_have_url(f"{site.url}/")


async def test_the_keyboard_is_enough(site, person):
    page = await (await person(site, "maya")).tab("/")
    await page.locator("#main").focus()
    titles = []
    for _ in range(await cards(page).count()):
        await page.keyboard.press("Tab")
        titles.append(await page.locator(":focus .show-title").inner_text())
    assert titles == await page.locator(".show-title").all_inner_texts()
    await page.keyboard.press("Enter")
    await expect(page).not_to_have_url(f"{site.url}/")


async def test_pictures_move_for_a_moment_and_while_one_points_at_them(site, person):
    page = await (await person(site)).tab("/")
    moving = await page.evaluate(MOVING)
    assert moving
    # WCAG 2.2, 2.2.2: what moves by itself for longer needs a way to stop it.
    assert all(end is not None and end <= 5_500 for end in moving)
    await cards(page).first.hover()
    await page.wait_for_function(f"({MOVING})().includes(null)")
    still = await (await person(site, reduced_motion="reduce")).tab("/")
    await cards(still).first.hover()
    assert await still.evaluate(MOVING) == []


async def test_staff_find_the_operations_page(site, person):
    page = await (await person(site, "edith")).tab("/")
    await page.get_by_role("link", name="what this server is doing now").click()
    await expect(page).to_have_url(re.compile("/admin/headrace_operations/operations/"))
    await expect(page.locator("#hr-state")).to_contain_text("Live")


async def test_it_speaks_chinese_and_the_way_back_is_said_in_english(site, person):
    english = await (await person(site, "maya")).tab("/")
    texts = set(await english.locator(".show-title, .show-summary, .hero p").all_inner_texts())
    page = await (await person(site, "maya", locale="zh-CN")).tab("/")
    await expect(page.get_by_role("heading", name="自己会动的页面")).to_be_visible()
    assert not texts & set(
        await page.locator(".show-title, .show-summary, .hero p").all_inner_texts()
    )
    await page.get_by_role("button", name="English").click()
    await expect(page.get_by_role("heading", name="Pages that move by themselves")).to_be_visible()
    await page.get_by_role("button", name="简体中文").click()
    await expect(page.locator("html")).to_have_attribute("lang", "zh-hans")


async def test_the_bar_of_a_phone_shows_which_application_is_open(site, person):
    page = await (await person(site, "maya", **SMALL_PHONE)).tab("/")
    await cards(page).last.click()
    here = page.get_by_role("navigation", name="Applications").locator("[aria-current=page]")
    await expect(here).to_be_in_viewport(ratio=0.6)


@pytest.mark.parametrize(
    ("scheme", "device", "locale"),
    [("light", DESKTOP, "en"), ("dark", SMALL_PHONE, "zh-CN"), ("light", SMALL_PHONE, "en")],
    ids=["desktop", "phone-dark-chinese", "phone"],
)
async def test_it_is_for_everyone(site, person, scheme, device, locale):
    options = {"color_scheme": scheme, "locale": locale, "reduced_motion": "reduce", **device}
    somebody = await person(site, **options)
    page = await somebody.tab("/")
    assert await violations(page) == []
    assert (
        await page.evaluate("document.documentElement.scrollWidth") <= device["viewport"]["width"]
    )
    pictures = await page.locator(".mini").evaluate_all(
        "all => all.map(each => each.children.length && each.getBoundingClientRect().width)"
    )
    assert pictures
    assert min(pictures) > 200
