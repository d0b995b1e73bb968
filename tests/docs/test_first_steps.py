"""What ``make demo`` and ``make test`` rest on, and what they say when something is missing."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

PATIENCE_S = 30


def run(*command, **changes):
    return subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | changes,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def program(folder, name, text):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


# The environment


def test_a_python_that_is_too_old(tmp_path):
    old = program(
        tmp_path, "old", 'case "$2" in *python_version*) echo 3.8.18 ;; *) exit 1 ;; esac'
    )
    done = run("tools/setup", PYTHON=old)
    assert done.returncode == 1
    assert done.stderr == (
        f"Headrace needs Python 3.11 or later, and {old} is Python 3.8.18.\n"
        "Install one, or name another, for instance: make demo PYTHON=python3.13\n"
    )
    assert done.stdout == ""


def test_a_python_that_is_not_there():
    done = run("tools/setup", PYTHON="/no/python")
    assert done.returncode == 1
    assert "there is no /no/python" in done.stderr
    assert run("tools/test-packages", PYTHON="/no/python").stdout == ""  # it installs nothing


def test_what_is_there_is_not_installed_again():
    done = run("make", "--no-print-directory", "-n", "test")
    assert done.stdout.startswith("tools/test-packages\ntools/setup test demo\n")
    assert run("tools/test-packages").stdout == ""


@pytest.fixture
def user_without_rights(tmp_path):
    """Return a PATH on which nothing may be installed."""
    (tmp_path / "bash").symlink_to(shutil.which("bash"))
    program(tmp_path, "id", "echo 1000")
    program(tmp_path, "apt-get", f"touch {tmp_path}/installed")
    yield str(tmp_path)
    assert not (tmp_path / "installed").exists()


def test_packages_need_root_or_sudo(user_without_rights):
    done = run("tools/system-packages", "python3-venv", PATH=user_without_rights)
    assert done.returncode == 1
    assert "As root, run: apt-get install python3-venv" in done.stderr


def test_packages_need_a_sudo_that_lets_us(user_without_rights):
    program(Path(user_without_rights), "sudo", "echo sudo: a password is required >&2; exit 1")
    done = run("tools/system-packages", "python3-venv", PATH=user_without_rights)
    assert done.returncode == 1
    assert "As root, run: apt-get install python3-venv" in done.stderr


def test_packages_are_installed_with_sudo(tmp_path):
    for name in ("bash", "env", "cat"):
        (tmp_path / name).symlink_to(shutil.which(name))
    program(tmp_path, "id", "echo 1000")
    program(tmp_path, "sudo", '"$@"')
    program(tmp_path, "apt-get", f'echo "$DEBIAN_FRONTEND $*" >> {tmp_path}/log')
    done = run("tools/system-packages", "chromium", PATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Installing system packages: chromium\n"
    assert (tmp_path / "log").read_text() == (
        "noninteractive update -qq\n"
        "noninteractive install -y -qq --no-install-recommends chromium\n"
    )


# The demo


@pytest.fixture
def demo(tmp_path):
    """Start the demo as a terminal would, in a group of its own."""
    started = []

    def start(port="0"):
        process = subprocess.Popen(
            [sys.executable, "tools/demo.py", port],
            cwd=ROOT,
            env=os.environ | {"DEMO_DATA_DIR": str(tmp_path), "PYTHONWARNINGS": "error"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def read_until(process, text):
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return "".join(lines)
    raise AssertionError("".join(lines))


def group_is_empty(process):
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("to_the_group", [True, False], ids=["Ctrl-C", "SIGTERM"])
def test_the_demo_says_what_to_open_and_ends_in_silence(demo, to_the_group):
    process = demo()
    said = read_until(process, "Ctrl-C stops it.")
    url = re.search(r"^The demo is running\. Open (http://127\.0\.0\.1:\d+) ", said, re.MULTILINE)[
        1
    ]
    with urllib.request.urlopen(url, timeout=PATIENCE_S) as response:
        assert response.status == 200
    if to_the_group:
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.terminate()
    assert process.stdout.read() == ""
    assert process.wait(PATIENCE_S) == 0
    assert group_is_empty(process)


def test_ctrl_c_before_the_demo_runs(demo):
    process = demo()
    read_until(process, "accounts")
    os.killpg(process.pid, signal.SIGINT)
    assert "Traceback" not in process.stdout.read()
    process.wait(PATIENCE_S)
    assert group_is_empty(process)


def test_the_port_is_in_use(demo, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = demo(str(port))
        assert process.stdout.read() == (
            f"Port {port} can't be had: Address already in use. Try: make demo PORT={port + 1}\n"
        )
    assert process.wait(PATIENCE_S) == 1
    assert list(tmp_path.iterdir()) == []  # and nothing else was done


@pytest.mark.parametrize("port", ["http", "70000", "-1", ""])
def test_a_port_that_is_none(demo, port):
    process = demo(port)
    assert "is no port: write for instance make demo PORT=8001" in process.stdout.read()
    assert process.wait(PATIENCE_S) == 1
