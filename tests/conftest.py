"""What the tests of several rooms share."""

import os
from pathlib import Path

import hypothesis
import pytest

import headrace
from headrace.layers import InMemoryChannelLayer, channel_layers

# How long an example takes is the affair of the machine, which may have other things to do.
hypothesis.settings.register_profile("headrace", deadline=None)
hypothesis.settings.load_profile("headrace")

# What fails in these says why, as it does in a file of tests.
pytest.register_assert_rewrite(
    "tests.demo.site",
    "tests.layers.network",
    "tests.management.project",
    "tests.protocols.wire",
    "tests.server.clients",
    "tests.server.h2_client",
)


def pytest_sessionstart():
    """Refuse to test what was compiled of sources that are no longer these."""
    if os.environ.get("HEADRACE_PURE"):
        return
    for built in Path(headrace.__file__).parent.rglob("*.so"):
        stem = built.name.partition(".")[0]
        names = (f"{stem}.pxd", f"{stem}.pyx", stem.removesuffix("_compiled") + ".py")
        for source in filter(Path.exists, map(built.with_name, names)):
            if source.stat().st_mtime > built.stat().st_mtime:
                pytest.exit(
                    f"{source.name} is newer than what was compiled of it: run tools/setup, or "
                    "have HEADRACE_PURE=1 in the environment",
                    returncode=4,
                )


@pytest.fixture
def layer():
    """The default channel layer: a new one, in memory."""
    layer = InMemoryChannelLayer()
    old = channel_layers.set("default", layer)
    yield layer
    channel_layers.set("default", old)
