import os
import stat

import pytest
from django.conf import settings

from headrace import private
from headrace.exceptions import InvalidChannelLayerError
from headrace.layers.local.directory import Directory, default_path


@pytest.fixture
def made():
    made = []

    def make(path, *, with_parent=False):
        made.append(Directory(path, with_parent=with_parent))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_it_is_made_for_its_owner_alone(tmp_path, made):
    old = os.umask(0)
    try:
        directory = made(tmp_path / "parent" / "own", with_parent=True)
    finally:
        os.umask(old)
    for path in (directory.path, directory.path.parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert directory / "table" == str(tmp_path / "parent" / "own" / "table")
    made(directory.path)  # and is used when it is there


def test_what_lets_others_in_is_refused(tmp_path, made):
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(
        InvalidChannelLayerError, match=r"lets others in \(mode 0755\).*'directory'"
    ):
        made(tmp_path / "open")
    with pytest.raises(InvalidChannelLayerError, match="lets others in"):
        made(tmp_path / "open" / "own", with_parent=True)


def test_a_link_is_refused_whatever_it_leads_to(tmp_path, made):
    made(tmp_path / "own")
    (tmp_path / "link").symlink_to(tmp_path / "own")
    (tmp_path / "file").touch()
    for name in ("link", "file"):
        with pytest.raises(InvalidChannelLayerError, match="is no directory"):
            made(tmp_path / name)


def test_that_of_another_user_is_refused(tmp_path, made, monkeypatch):
    made(tmp_path / "own")
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(InvalidChannelLayerError, match="this process runs as 4711"):
        made(tmp_path / "own")


def test_a_path_too_long_for_a_socket_is_refused(tmp_path, made):
    with pytest.raises(InvalidChannelLayerError, match="too long for a socket in it"):
        made(tmp_path / ("x" * 100))


def test_one_that_cannot_be_made_is_an_error(tmp_path, made):
    with pytest.raises(FileNotFoundError):
        made(tmp_path / "no" / "parent")


def test_it_is_known_when_it_was_removed(tmp_path, made):
    directory = made(tmp_path / "own")
    (directory.path / "file").touch()
    inode = (directory.path / "file").stat().st_ino
    assert directory.intact(("file", inode))
    assert not directory.intact(("file", inode + 1))
    (directory.path / "file").unlink()
    assert directory.intact()
    assert not directory.intact(("file", inode))
    directory.path.rmdir()
    assert not directory.intact()
    directory.path.mkdir()
    assert not directory.intact()


class TestTheDefault:
    def test_it_follows_from_the_project(self, settings):
        first = default_path("asgi")
        assert first == default_path("asgi")
        assert first.parent.name == f"headrace-{os.geteuid()}"
        assert first != default_path("other")
        settings.SECRET_KEY = "another"
        assert first != default_path("asgi")

    def test_one_package_of_settings_is_one_project(self, monkeypatch):
        monkeypatch.setattr(settings, "SETTINGS_MODULE", "tests.foreign", raising=False)
        first = default_path("asgi")
        monkeypatch.setattr(settings, "SETTINGS_MODULE", "tests.documented", raising=False)
        assert default_path("asgi") == first
        for elsewhere in ("tests.docs.pages", None, "tests.no_such_module"):
            monkeypatch.setattr(settings, "SETTINGS_MODULE", elsewhere, raising=False)
            assert default_path("asgi") != first

    def test_where_there_is_no_memory_it_is_elsewhere(self, monkeypatch, tmp_path):
        monkeypatch.setattr(private, "ROOTS", ("/nowhere", str(tmp_path)))
        assert default_path("asgi").is_relative_to(tmp_path)
        monkeypatch.setattr(private, "ROOTS", ("/nowhere", "/neither"))
        assert default_path("asgi").is_relative_to("/neither")
