"""The seeded demo site, served once for all tests that leave it as it is, or anew for one."""

import shutil

import pytest
import pytest_asyncio

from .site import Site, manage


@pytest.fixture(scope="session")
def seeded(tmp_path_factory):
    """Return a folder with the database as ``migrate`` and ``seed`` make it."""
    data = tmp_path_factory.mktemp("seeded")
    manage(data, "migrate", "--verbosity", "0")
    manage(data, "seed")
    return data


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def running_site(seeded, tmp_path_factory):
    site = Site(shutil.copytree(seeded, tmp_path_factory.mktemp("site") / "data"))
    await site.start()
    yield site
    await site.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def site(running_site):
    """The demo site. Others have been here; a test that talks does so in a ``room`` of its own."""
    yield running_site
    assert running_site.new_complaints() == []


@pytest_asyncio.fixture(loop_scope="session")
async def own_site(seeded, tmp_path):
    """The demo site as it was seeded, which a test may restart."""
    site = Site(shutil.copytree(seeded, tmp_path / "data"))
    await site.start()
    yield site
    await site.stop()
    assert site.new_complaints() == []


@pytest_asyncio.fixture(loop_scope="session")
async def room(site):
    """Open a room in which nothing was said yet, and return its slug."""
    visitor = await site.visitor().log_in("edith")
    site.rooms += 1
    page = await visitor.post("/chat/new-room/", name=f"Room {site.rooms}")
    return page.path.split("/")[3]
