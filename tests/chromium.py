"""The Chromium of the system: its headless build, which draws no window, or the one with a window.

The first does the same for a page with little more than half of the CPU time.
"""

import shutil

import pytest

__all__ = ["chromium"]


def chromium() -> str:
    """Return the path of the browser; the test fails if there is none."""
    for name in ("chromium-headless-shell", "chromium"):
        if path := shutil.which(name):
            return path
    return pytest.fail(
        "Chromium is missing: install the system's package (apt install chromium-headless-shell)"
    )
