"""The Chromium of the system, in two builds.

The headless one has no window, not even one that nobody sees: it does the same for a page with
little more than half of the CPU time, but it has no notifications.
"""

import shutil

import pytest

__all__ = ["chromium"]


def chromium(build: str = "chromium-headless-shell") -> str:
    """Return the path of a build; the test fails if it is missing."""
    return shutil.which(build) or pytest.fail(
        f"{build} is missing: install the system's package (apt install {build})"
    )
