"""The command in the shell: what it shows, writes, says and returns."""

import io
import shutil
import subprocess
import sys

import pytest

from headrace import cli
from headrace.migrating import command, project
from tests.migrating.test_project import NEW, OLD


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(project, "dependants", list)
    (tmp_path / "chat").mkdir()
    (tmp_path / "chat" / "a.py").write_text(f"# 1\n{OLD}# 3")
    return tmp_path


def run(*arguments):
    with pytest.raises(SystemExit) as caught:
        cli.main(["migrate-imports", *map(str, arguments)])
    return caught.value.code


DIFFERENCE = f"""\
--- a/chat/a.py
+++ b/chat/a.py
@@ -1,3 +1,3 @@
 # 1
-{OLD}+{NEW} # 3
\\ No newline at end of file
"""


def test_the_difference_comes_first(folder, capsys):
    assert run(".") == 1
    out, err = capsys.readouterr()
    assert out == DIFFERENCE
    assert err == "1 file would change. Nothing is written without --write.\n"
    assert OLD in (folder / "chat" / "a.py").read_text()


def test_writing(folder, capsys):
    assert run("--write", "chat/a.py") == 0
    out, err = capsys.readouterr()
    assert out == DIFFERENCE
    assert err == "1 file changed.\n"
    assert (folder / "chat" / "a.py").read_text() == f"# 1\n{NEW}# 3"
    assert run(".") == 0
    assert capsys.readouterr() == ("", "Nothing to change.\n")


def test_the_difference_can_be_applied(folder, capsys):
    (folder / "b.py").write_bytes(f"x = 'a\x0cb\u2028c'\n{OLD}".replace("\n", "\r\n").encode())
    run(folder)
    out = capsys.readouterr().out
    done = subprocess.run(
        ["git", "apply", "-"], input=out.encode(), cwd=folder, check=False, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "chat" / "a.py").read_text() == f"# 1\n{NEW}# 3"
    assert NEW.strip().encode() + b"\r\n" in (folder / "b.py").read_bytes()


def test_what_is_left(folder, capsys):
    (folder / "b.py").write_text("import channels_presence\nimport daphne\n")
    (folder / "c.py").write_text("import channels_presence\n")
    (folder / "d.py").write_text("import channels (\n")
    (folder / "requirements.txt").write_text("channels\n")
    assert run(folder / "b.py", folder / "c.py", folder / "d.py", folder / "requirements.txt") == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "\n  b.py:1: channels_presence imports channels itself" in err
    assert "(and c.py:1)\n" in err
    assert "\n  b.py:2: daphne belongs to Daphne" in err
    assert "\n  requirements.txt:1: channels: require headrace" in err
    assert "\nLeft alone:\n  d.py: line 1: " in err


def test_packages_that_import_channels(folder, capsys, monkeypatch):
    monkeypatch.setattr(project, "dependants", lambda: ["dcrf", "plotly"])
    run(folder)
    assert "import channels themselves: dcrf, plotly. Call headrace" in capsys.readouterr().err


def test_a_file_that_can_not_be_written(folder, capsys, monkeypatch):
    (folder / "b.py").write_text(OLD)
    whole = project.write

    def write(change):
        if change.path.name == "a.py":
            raise OSError("no space left on device")
        whole(change)

    monkeypatch.setattr(project, "write", write)
    assert run("--write", ".") == 1
    err = capsys.readouterr().err
    assert "  chat/a.py: no space left on device\n1 file changed. 1 file could not be." in err
    assert (folder / "b.py").read_text() == NEW


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_colours_on_a_terminal(folder, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    run(".")
    assert f"\x1b[31m-{OLD.strip()}\x1b[0m\n\x1b[32m+{NEW.strip()}\x1b[0m\n" in terminal.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    run(".")
    assert terminal.getvalue() == DIFFERENCE


def test_wrong_usage(folder, capsys):
    assert run("nowhere") == 2
    assert "there is no file or folder 'nowhere'" in capsys.readouterr().err
    assert run() == 2


def test_without_libcst(folder, capsys, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("headrace.migrating.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("headrace.migrating.project")
    monkeypatch.setitem(sys.modules, "libcst", None)
    assert run(".") == 2
    assert "pip install 'headrace[migrate]'" in capsys.readouterr().err


def test_an_installation_that_is_broken_otherwise(folder, monkeypatch):
    monkeypatch.delattr("headrace.migrating.project")
    monkeypatch.setitem(sys.modules, "headrace.migrating.project", None)
    with pytest.raises(ModuleNotFoundError):
        cli.main(["migrate-imports", "."])


def test_the_command_itself_needs_no_libcst():
    code = (
        "import sys; from headrace.cli import parser; parser(); "
        "assert 'headrace.migrating.command' in sys.modules; assert 'libcst' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_terminal_that_knows_no_unicode(folder):
    (folder / "b.py").write_text(f"{OLD}x = '\u2603'\n")
    done = subprocess.run(
        [
            shutil.which("python", path=sys.exec_prefix + "/bin"),
            "-m",
            "headrace",
            "migrate-imports",
            ".",
        ],
        capture_output=True,
        env={"PYTHONIOENCODING": "ascii", "PATH": "/usr/bin:/bin"},
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert b"\\u2603" in done.stdout


def test_help(capsys):
    assert run("--help") == 0
    assert "Exit status: 0" in capsys.readouterr().out
    assert command.register.__doc__
