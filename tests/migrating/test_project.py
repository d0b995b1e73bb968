"""Files on disk: which are looked at, and how they are written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.exceptions import ConfigurationError
from headrace.migrating import project
from headrace.migrating.project import Change, survey, write

OLD = "from channels.layers import get_channel_layer\n"
NEW = "from headrace.layers import get_channel_layer\n"


@pytest.fixture
def tree(tmp_path):
    def make(files):
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path

    return make


def changed(root):
    return {change.path.relative_to(root).as_posix() for change in survey([root]).changes}


SKIPPED = {
    ".git/hooks/a.py": OLD,
    ".hidden/a.py": OLD,
    "node_modules/x/a.py": OLD,
    "lib/site-packages/a.py": OLD,
    "venv/a.py": OLD,
    "myenv/pyvenv.cfg": "",
    "myenv/a.py": OLD,
    "chat/__pycache__/a.py": OLD,
    "chat/migrations/0001_initial.py": OLD,
    "chat.egg-info/a.py": OLD,
    "README.md": OLD,
}


def test_what_is_looked_at(tree):
    root = tree({"chat/consumers.py": OLD, "stubs/a.pyi": OLD, "manage.py": "", **SKIPPED})
    assert changed(root) == {"chat/consumers.py", "stubs/a.pyi"}


def test_what_git_ignores(tree):
    root = tree({"a.py": OLD, "generated/b.py": OLD, ".gitignore": "generated/\n", "new.py": OLD})
    subprocess.run(["git", "init", "-q", root], check=True)
    subprocess.run(["git", "add", "a.py", ".gitignore"], cwd=root, check=True)
    assert changed(root) == {"a.py", "new.py"}
    # Who names an ignored folder means it.
    assert changed(root / "generated") == {"b.py"}


def test_without_git(tree, monkeypatch):
    root = tree({"a.py": OLD})
    monkeypatch.setenv("PATH", "")
    assert changed(root) == {"a.py"}


def test_files_that_are_named(tree):
    root = tree({"venv/a.py": OLD, "b.py": OLD})
    found = survey([root / "venv" / "a.py", root / "b.py", root])
    assert [change.path.name for change in found.changes] == ["a.py", "b.py"]


def test_links_are_not_followed(tree):
    root = tree({"real/a.py": OLD})
    (root / "link").symlink_to(root / "real")
    (root / "b.py").symlink_to(root / "real" / "a.py")
    assert changed(root) == {"real/a.py"}


def test_a_path_that_is_not_there(tmp_path):
    with pytest.raises(ConfigurationError, match="there is no file or folder"):
        survey([tmp_path / "nothing"])


@pytest.mark.parametrize("own", ["channels.py", "channels/__init__.py", "src/channels.py"])
def test_a_module_channels_of_its_own(tree, own):
    root = tree({"manage.py": "", own: "", "a.py": OLD})
    with pytest.raises(ConfigurationError, match="of your own"):
        survey([root])


def test_a_package_channels_inside_another(tree):
    root = tree(
        {
            "manage.py": "",
            "site/__init__.py": "",
            "site/channels/__init__.py": OLD,
            "x/channels.py": OLD,
        }
    )
    assert changed(root) == {"site/channels/__init__.py", "x/channels.py"}


def test_what_can_not_be_read(tree):
    root = tree(
        {
            "syntax.py": OLD + "def (:\n",
            "coding.py": b"# coding: latin-9000\n" + OLD.encode(),
            "bytes.py": OLD.encode() + b"x = '\xff'\n",
            "deep.py": OLD + "x = " + "(" * 3000 + ")" * 3000,
            "ends.py": OLD + "x = 1\n\x0cy = 2\r",
            "fine.py": OLD,
        }
    )
    found = survey([root])
    assert {path.name for path, _ in found.unread} == {
        "syntax.py", "coding.py", "bytes.py", "deep.py", "ends.py",
    }  # fmt: skip
    assert all(reason for _, reason in found.unread)
    assert [change.path.name for change in found.changes] == ["fine.py"]


def test_a_file_that_may_not_be_read(tree, monkeypatch):
    root = tree({"a.py": OLD})

    def refuse(path):
        raise PermissionError("may not be read")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert survey([root]).unread == [(root / "a.py", "may not be read")]


@pytest.mark.parametrize(
    ("encoding", "head"),
    [
        ("utf-8", ""),
        ("utf-8-sig", ""),
        ("latin-1", "# -*- coding: latin-1 -*-\n"),
        ("cp1252", "#!/usr/bin/python\n# vim: set fileencoding=cp1252 :\n"),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_encodings_and_line_endings_stay(tree, encoding, head, newline):
    text = head + "name = 'caf\xe9'\n" + OLD + "end = 'Stra\xdfe'"
    old = text.replace("\n", newline).encode(encoding)
    root = tree({"a.py": old})
    (change,) = survey([root]).changes
    write(change)
    assert (root / "a.py").read_bytes() == old.replace(b"channels.", b"headrace.")
    assert survey([root]).changes == []


def test_permissions_stay(tree):
    root = tree({"manage.py": OLD})
    (root / "manage.py").chmod(0o754)
    (change,) = survey([root]).changes
    write(change)
    assert (root / "manage.py").stat().st_mode & 0o777 == 0o754
    assert os.listdir(root) == ["manage.py"]


def test_a_link_that_is_named_is_written_through(tree):
    root = tree({"real.py": OLD})
    (root / "link.py").symlink_to("real.py")
    (change,) = survey([root / "link.py"]).changes
    write(change)
    assert (root / "link.py").is_symlink()
    assert (root / "real.py").read_text() == NEW


def test_a_file_that_changed_meanwhile_stays(tree):
    root = tree({"a.py": OLD})
    (change,) = survey([root]).changes
    (root / "a.py").write_text("# mine\n")
    with pytest.raises(OSError, match="changed by somebody else"):
        write(change)
    assert (root / "a.py").read_text() == "# mine\n"


def test_a_file_that_may_not_be_written_stays(tree, monkeypatch):
    root = tree({"a.py": OLD})
    (change,) = survey([root]).changes
    monkeypatch.setattr(project.os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError):
        write(change)
    assert (root / "a.py").read_text() == OLD


def test_there_is_never_half_a_file(tree, monkeypatch):
    root = tree({"a.py": OLD})
    (change,) = survey([root]).changes

    def fail(handle):
        raise OSError("no space left on device")

    monkeypatch.setattr(project.os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        write(change)
    assert (root / "a.py").read_text() == OLD
    assert os.listdir(root) == ["a.py"]


def test_files_are_given_back_to_their_owner(tree, monkeypatch):
    root = tree({"a.py": OLD})
    (change,) = survey([root]).changes

    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(project.os, "chown", refuse)
    write(change)
    assert (root / "a.py").read_text() == NEW


def test_settings_in_several_files(tree):
    root = tree(
        {
            "settings/base.py": 'INSTALLED_APPS = ["channels"]\n',
            "settings/dev.py": 'from .base import *\nINSTALLED_APPS.insert(0, "daphne")\n',
        }
    )
    ((path, remark),) = survey([root]).remarks
    assert path == root / "settings/dev.py"
    assert remark.line == 2
    assert "take it out here" in remark.text


def test_requirements_and_commands(tree):
    root = tree({"requirements.txt": "channels\n", "deploy/Dockerfile": b"CMD daphne a:b \xff\n"})
    found = survey([root])
    assert [path.name for path, _ in found.remarks] == ["requirements.txt", "Dockerfile"]
    assert found.changes == []


def test_own_modules_are_no_dependencies(tree):
    root = tree(
        {
            "channels_presence/__init__.py": "",
            "src/channels_api/__init__.py": "",
            "a.py": "import channels_presence, channels_api, channels_postgres\n",
        }
    )
    ((_, remark),) = survey([root]).remarks
    assert remark.text.startswith("channels_postgres")


def test_a_package_that_is_named_itself(tree):
    root = tree({"channels_presence/__init__.py": "import channels_presence.models\n"})
    assert survey([root / "channels_presence"]).remarks == []


def test_installed_packages_that_need_channels(tmp_path, monkeypatch):
    for name, requirement in [
        ("asker", "Requires-Dist: channels[daphne]>=4"),
        ("other", "Requires-Dist: channels-redis"),
        ("extra", 'Requires-Dist: channels>=4; extra == "ws"'),
        ("plain", ""),
    ]:
        folder = tmp_path / f"{name}-1.dist-info"
        folder.mkdir()
        head = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n"
        (folder / "METADATA").write_text(f"{head}{requirement}\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert project.dependants() == ["asker"]


def test_a_change_says_what_it_is(tree):
    root = tree({"a.py": OLD})
    assert survey([root]).changes == [Change(root / "a.py", OLD, NEW, "utf-8")]
