"""What belongs to one user: folders, and who is at the other end of a socket."""

import os
import socket
import struct
from pathlib import Path

import pytest

from headrace import private
from headrace.private import NotPrivate, make, require_same_user, user_folder


def test_a_folder_is_made_once(tmp_path):
    path = tmp_path / "own"
    make(path)
    make(path)
    assert path.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o701])
def test_a_folder_that_lets_others_in(tmp_path, mode):
    path = tmp_path / "own"
    path.mkdir()
    path.chmod(mode)
    with pytest.raises(NotPrivate, match=rf"^lets others in \(mode {mode:04o}\)$"):
        make(path)
    assert path.stat().st_mode & 0o777 == mode


def test_what_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "own").mkdir(0o700)
    (tmp_path / "link").symlink_to("own")
    for name in ("file", "link"):
        with pytest.raises(NotPrivate, match=r"^is no directory$"):
            make(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        make(tmp_path / "no" / "parent")


def test_a_folder_of_somebody_else(tmp_path, monkeypatch):
    user = os.geteuid()
    make(tmp_path / "own")
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(NotPrivate, match=f"^belongs to user {user}, and this process runs as 4711"):
        make(tmp_path / "own")


def test_where_it_is(monkeypatch, tmp_path):
    monkeypatch.setattr(private, "ROOTS", ("/nowhere", str(tmp_path), "/"))
    assert user_folder() == tmp_path / f"headrace-{os.geteuid()}"
    monkeypatch.setattr(private, "ROOTS", ("/nowhere", "/neither"))
    assert user_folder() == Path("/neither") / f"headrace-{os.geteuid()}"


def test_who_is_at_the_other_end(monkeypatch):
    here, there = socket.socketpair()
    user = os.geteuid()
    with here, there:
        require_same_user(here)
        monkeypatch.setattr(os, "geteuid", lambda: 4711)
        with pytest.raises(PermissionError, match=f"process {os.getpid()} of user {user} is at"):
            require_same_user(here)
        require_same_user(here, also=(user,))
        monkeypatch.delattr(socket, "SO_PEERCRED")
        require_same_user(here)  # the folder alone has to do


def test_what_the_kernel_says_is_what_counts():
    class Told:
        def getsockopt(self, level, name, size):
            assert (level, name) == (socket.SOL_SOCKET, socket.SO_PEERCRED)
            return struct.pack("3i", 1, 4711, os.getegid())[:size]

    with pytest.raises(PermissionError, match="process 1 of user 4711"):
        require_same_user(Told())
