"""Where everything runs: the environment of the peers, and the compiled load generators.

- Every server runs on one interpreter, that of ``.venv-bench``.
- Nothing is installed twice: a second run asks no package index and starts at once.
- A peer that can't be installed is a fact to report, not an error.
"""

import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = [
    "BIN",
    "HERE",
    "BenchmarkError",
    "compile_generators",
    "exclusive",
    "failed",
    "install",
    "is_active",
    "machine",
    "versions",
]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
VENV = ROOT / ".venv-bench"
BIN = VENV / "bin"
STATE = VENV / "installed.json"
REQUIREMENTS = HERE / "requirements.txt"
GENERATORS = ("loadgen", "httpgen")

# What makes the package: installed again when one of these changed.
SOURCES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "src")


class BenchmarkError(Exception):
    """Something that keeps the benchmark, or one of its cells, from being measured."""


def is_active() -> bool:
    """Tell whether this process runs in the benchmark's own environment."""
    return Path(sys.prefix).resolve() == VENV


def install() -> None:
    """Bring ``.venv-bench`` up to date."""
    if not (BIN / "python").exists():
        _say(f"creating {VENV.name}")
        venv.create(VENV, with_pip=True)
    with exclusive():
        state = _state()
        wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
        if state.get("requirements") != wanted:
            _say("installing the peers")
            state = {"requirements": wanted, "failed": _install_peers()}
            STATE.write_text(json.dumps(state, indent=1))
        wanted = _sources_digest()
        if state.get("headrace") != wanted:
            _say("installing headrace from the checkout")
            state["failed"].pop("headrace", None)
            state["failed"] |= _install_headrace()
            state["headrace"] = wanted
            STATE.write_text(json.dumps(state, indent=1))


def failed() -> dict[str, str]:
    """Return what could not be installed, and why."""
    found: dict[str, str] = _state().get("failed", {})
    return found


@contextmanager
def exclusive() -> Iterator[None]:
    """Refuse to go on beside another run: each would spoil the other's figures."""
    with (VENV / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BenchmarkError("another run of the benchmark is under way") from None
        yield


def compile_generators(directory: Path) -> Path:
    """Compile the load generators into ``directory``; raise BenchmarkError where they can't be."""
    compiler = next(
        filter(None, map(shutil.which, (os.environ.get("CC") or "cc", "gcc", "clang"))), None
    )
    if compiler is None:
        raise BenchmarkError(
            "no C compiler: the load generators are written in C; install gcc "
            "(Debian: apt-get install gcc libc6-dev) or name a compiler in CC"
        )
    for name in GENERATORS:
        done = subprocess.run(
            [compiler, "-std=gnu11", "-O2", "-o", directory / name, HERE / f"{name}.c"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BenchmarkError(f"{compiler} cannot compile {name}.c:\n{done.stderr}")
    return directory


def machine() -> dict[str, object]:
    """Describe the machine in the terms that matter to the figures."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "architecture": platform.machine(),
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def versions() -> dict[str, str]:
    """Return name and version of everything that took part and is installed."""
    names = ("headrace", *(_name(line) for line in _requirements()))
    found = {name: version for name in names if (version := _version(name))}
    if "headrace" in found:
        compiled = any(path.suffix == ".so" for path in metadata.files("headrace") or ())
        found["headrace"] += " (with compiled parts)" if compiled else " (pure Python)"
    return found


def _state() -> dict[str, Any]:
    state: dict[str, Any] = json.loads(STATE.read_text()) if STATE.exists() else {}
    return state


def _requirements() -> list[str]:
    lines = REQUIREMENTS.read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _name(requirement: str) -> str:
    for separator in "[=>":
        requirement = requirement.split(separator)[0]
    return requirement


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _install_peers() -> dict[str, str]:
    requirements = _requirements()
    if not _pip(*requirements):
        return {}
    # One of them can't be had: find out which, and go on with the rest.
    return {_name(one): why for one in requirements if (why := _pip(one))}


def _install_headrace() -> dict[str, str]:
    """Install a copy of the checkout, as a user's pip would; its build leaves no trace here."""
    with tempfile.TemporaryDirectory() as scratch:
        for name in SOURCES:
            source, target = ROOT / name, Path(scratch, name)
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.so", "*.c")
                shutil.copytree(source, target, ignore=ignored)
            elif source.exists():
                shutil.copy(source, target)
        why = _pip("--no-build-isolation", "--no-deps", "--force-reinstall", scratch)
    return {"headrace": why} if why else {}


def _sources_digest() -> str:
    digest = hashlib.sha256()
    for name in SOURCES:
        path = ROOT / name
        for file in sorted(path.rglob("*.p*")) if path.is_dir() else [path]:
            if file.is_file() and file.suffix != ".pyc":
                digest.update(str(file.relative_to(ROOT)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def _pip(*arguments: str) -> str:
    """Install; return why it failed, or nothing."""
    command = f"{BIN}/python -m pip install --quiet --disable-pip-version-check".split()
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    if not done.returncode:
        return ""
    errors = [line for line in done.stderr.splitlines() if "error" in line.lower()]
    return (errors or done.stderr.splitlines() or ["pip failed"])[-1].strip()


def _say(what: str) -> None:
    print(f"# {what}", file=sys.stderr, flush=True)
