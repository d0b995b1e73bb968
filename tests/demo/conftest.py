"""A fresh copy of the seeded demo site for every test that asks for ``site``."""

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


@pytest_asyncio.fixture
async def site(seeded, tmp_path):
    """Serve the demo, and see that the server has had nothing to complain of at the end."""
    data = tmp_path / "data"
    shutil.copytree(seeded, data)
    site = Site(data)
    await site.start()
    try:
        yield site
    finally:
        await site.stop()
    assert site.complaints() == []
