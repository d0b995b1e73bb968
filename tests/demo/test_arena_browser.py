"""The pond in real browsers: two who race for grain, and what each of them sees."""

import re
from random import Random

import pytest
from playwright.async_api import expect

from .browser import PHONE, Cable, connected, violations
from .test_arena import world

pytestmark = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(120),
]


async def play(somebody):
    page = await somebody.tab("/arena/")
    await connected(page)
    await expect(page.locator("#pond")).to_have_attribute("data-x", re.compile(r"\d"))
    # Who is there comes a little after what is there, and only who comes after that is announced.
    await expect(page.locator("#scores li[data-you=true]")).to_be_visible()
    return page


async def place(page):
    pond = page.locator("#pond")
    return [int(await pond.get_attribute(f"data-{axis}")) for axis in ("x", "y")]


def beyond(page, before, axis, by=40):
    """Expect the own duck to get further than ``by`` from a place, on one axis."""
    wanted = "|".join(str(n) for n in range(1700) if (n - before) * (1 if by > 0 else -1) > abs(by))
    return expect(page.locator("#pond")).to_have_attribute(
        f"data-{axis}", re.compile(f"^({wanted})$")
    )


@pytest.mark.main_path
async def test_two_play(own_site, person):
    maya = await play(await person(own_site, "maya"))
    jonas = await play(await person(own_site, "jonas", locale="zh-CN", **PHONE))
    rows = maya.locator("#scores li")
    await expect(rows).to_have_count(2)
    await expect(rows.filter(has_text="Maya Okafor")).to_have_attribute("data-you", "true")
    await expect(maya.locator("#said")).to_have_text("Jonas Lindqvist is on the pond.")

    # By keys: arrows or letters.
    x, y = await place(maya)
    await maya.keyboard.down("ArrowRight")
    await beyond(maya, x, "x", 40)
    await maya.keyboard.up("ArrowRight")
    await maya.keyboard.down("w")
    await beyond(maya, y, "y", -40)
    await maya.keyboard.up("w")

    # By a finger on the water, at the left of the duck.
    x, _ = await place(jonas)
    box = await jonas.locator("#pond").bounding_box()
    await jonas.mouse.move(box["x"] + 10, box["y"] + box["height"] / 2)
    await jonas.mouse.down()
    await beyond(jonas, x, "x", -40)
    await jonas.mouse.up()

    # In words, and the keys go on to steer after the button.
    await maya.get_by_role("button", name="Where is grain?").click()
    await expect(maya.locator("#said")).to_have_text(re.compile("The next grain: .+, \\d+ duck"))
    _, y = await place(maya)
    await maya.keyboard.down("ArrowDown")
    await beyond(maya, y, "y", 20)
    await maya.keyboard.up("ArrowDown")
    await jonas.close()
    dropped = rows.filter(has_text="Jonas Lindqvist")
    await expect(dropped).to_have_attribute("data-away", "true")
    await expect(dropped).to_contain_text("dropped")


async def test_a_connection_that_is_cut_comes_back_to_its_place(site, person):
    somebody = await person(site, "maya")
    cable = await Cable().lay(somebody.context)
    maya = await play(somebody)
    x, y = await place(maya)
    await cable.pull()
    await expect(maya.locator(".connection")).to_have_attribute("data-state", "waiting")
    cable.out = False
    await connected(maya)
    await maya.keyboard.down("ArrowDown")
    await beyond(maya, y, "y", 30)
    await maya.keyboard.up("ArrowDown")
    assert abs((await place(maya))[0] - x) < 40


async def test_a_second_window_takes_the_duck_over(site, person):
    somebody = await person(site, "maya")
    first = await play(somebody)
    await play(somebody)
    await expect(first.locator(".connection")).to_contain_text("You play in another window now.")
    await expect(first.get_by_role("link", name="Play here")).to_be_visible()


async def test_the_page_reckons_as_the_server_does(site, person):
    """The page's `swim` and the server's agree, so that nothing has to be set right."""
    maya = await play(await person(site, "maya"))
    chance = Random(11)
    cases = [
        [
            [chance.uniform(0, world.WIDTH), chance.uniform(0, world.HEIGHT)]
            + [chance.uniform(-350, 350) for _ in range(2)],
            [chance.randint(-127, 127) / 127 for _ in range(2)],
        ]
        for _ in range(300)
    ]
    found = await maya.evaluate(
        """async ([rules, cases]) => {
            const { swim } = await siteModule("arena/js/player.js");
            return cases.map(([[x, y, vx, vy], [dx, dy]]) => {
                const now = swim(rules, { x, y, vx, vy }, dx, dy);
                return [now.x, now.y, now.vx, now.vy];
            });
        }""",
        [world.rules(), cases],
    )
    for (where, push), there in zip(cases, found, strict=True):
        assert there == pytest.approx(world.swim(*where, *push), abs=1e-9)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing(site, person, scheme):
    somebody = await person(site, "maya", color_scheme=scheme, reduced_motion="reduce", **PHONE)
    page = await play(somebody)
    await page.locator(".about summary").click()
    assert await violations(page) == []
    overflow = await page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    assert overflow == 0
