"""A server that was started from a terminal ends with it; one that was not reloads."""

import os
import pty
import sys

import pytest

from . import supervised
from .supervised import service
from .test_supervisor import get, in_one_loop

#: Makes the terminal behind a descriptor the one of this process, then runs the command.
WRAPPER = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(int(sys.argv[1]), termios.TIOCSCTTY, 0)
os.close(int(sys.argv[1]))
os.execv(sys.executable, [sys.executable, "-m", "headrace", *sys.argv[2:]])
"""


@in_one_loop
@pytest.mark.parametrize("options", [[], ["--workers", "1"]])
async def test_the_end_of_a_terminal_is_the_end(tmp_path, monkeypatch, options):
    ours, theirs = pty.openpty()
    monkeypatch.setattr(supervised, "COMMAND", [sys.executable, "-c", WRAPPER, str(theirs)])
    async with service(tmp_path, *options, pass_fds=[theirs]) as running:
        os.close(theirs)
        await get(running)
        os.close(ours)
        await running.logged("SIGHUP: the terminal is gone, stopping")
        assert await running.end() == 0
