"""The seeded demo site, served once for all tests that leave it as it is, or anew for one.

``DEMO_KINDS=memory,local,redis`` says in which ways the browser tests have it served, all of them
in each. Unset, all run with one process and the layer in memory, and the main visitor path of each
application (the marker ``main_path``) with several workers on the local layer, too.
"""

import contextlib
import os
import shutil

import pytest
import pytest_asyncio
from playwright.async_api import async_playwright

from tests.chromium import chromium
from tests.layers.redis.servers import RedisServer

from .browser import ARGUMENTS, DESKTOP, SITE_MODULE, Person
from .site import Site, manage

MEMORY, LOCAL, REDIS = KINDS = ("memory", "local", "redis")
WORKERS = ("--workers", "2")


def pytest_generate_tests(metafunc):
    if "kind" in metafunc.fixturenames and metafunc.definition.get_closest_marker("browser"):
        asked = os.environ.get("DEMO_KINDS")
        if asked:
            kinds = asked.split(",")
            if not set(kinds) <= set(KINDS):
                raise pytest.UsageError(f"DEMO_KINDS={asked}: it is some of {','.join(KINDS)}")
        elif metafunc.definition.get_closest_marker("main_path"):
            kinds = [MEMORY, LOCAL]
        else:
            return
        metafunc.parametrize("kind", kinds)


@pytest.fixture
def kind():
    """How the site is served: one of ``KINDS``."""
    return MEMORY


@pytest.fixture(scope="session")
def seeded(tmp_path_factory):
    """Return a folder with the database as ``migrate`` and ``seed`` make it."""
    data = tmp_path_factory.mktemp("seeded")
    manage(data, "migrate", "--verbosity", "0")
    manage(data, "seed")
    return data


@contextlib.asynccontextmanager
async def serve(kind, seeded, folder):
    data = shutil.copytree(seeded, folder / "data")
    (data / "secret-key").unlink()  # sites that share one meet in the local layer
    with contextlib.ExitStack() as stack:
        if kind == MEMORY:
            site = Site(data, layer="")
        elif kind == LOCAL:
            site = Site(data, *WORKERS, layer="local")
        else:
            site = Site(data, *WORKERS, layer=stack.enter_context(RedisServer()).url)
        await site.start()
        yield site
        await site.stop()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def site_of(seeded, tmp_path_factory):
    """Return a function that returns the site of a kind, which it starts when first asked."""
    running = {}
    async with contextlib.AsyncExitStack() as stack:

        async def site_of(kind):
            if kind not in running:
                folder = tmp_path_factory.mktemp("site")
                running[kind] = await stack.enter_async_context(serve(kind, seeded, folder))
            return running[kind]

        yield site_of


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def running_site(site_of):
    return await site_of(MEMORY)


@pytest_asyncio.fixture(loop_scope="session")
async def site(kind, site_of):
    """The demo site. Others have been here; a test that talks does so in a ``room`` of its own."""
    site = await site_of(kind)
    yield site
    assert site.new_complaints() == []


@pytest_asyncio.fixture(loop_scope="session")
async def own_site(kind, seeded, tmp_path):
    """The demo site as it was seeded, which a test may restart."""
    async with serve(kind, seeded, tmp_path) as site:
        yield site
    assert site.new_complaints() == []


@pytest_asyncio.fixture(loop_scope="session")
async def room(site):
    """Open a room in which nothing was said yet, and return its slug."""
    visitor = await site.visitor().log_in("edith")
    site.rooms += 1
    page = await visitor.post("/chat/new-room/", name=f"Room {site.rooms}")
    return page.path.split("/")[3]


@contextlib.asynccontextmanager
async def launched(path):
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser():
    """The browser of all tests of one process."""
    async with launched(chromium()) as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="session")
async def notifying_browser():
    """A browser that has notifications."""
    async with launched(chromium("chromium")) as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="session")
async def person(browser):
    """Return a function that puts somebody in front of a browser, and see that nothing is amiss."""
    people = []

    async def sit_down(site, username=None, using=browser, **options):
        context = await using.new_context(**{**DESKTOP, **options})
        context.set_default_timeout(15_000)
        await context.add_init_script(SITE_MODULE)
        if username:
            visitor = await site.visitor().log_in(username)
            await context.add_cookies(
                [
                    {"name": cookie.name, "value": cookie.value, "url": site.url}
                    for cookie in visitor.cookies
                ]
            )
        people.append(Person(site, context))
        return people[-1]

    yield sit_down
    for each in people:
        await each.context.close()
    assert [problem for each in people for problem in each.problems] == []
