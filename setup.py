"""Build what is compiled; all the rest is in pyproject.toml.

Each of ``MODULES`` is plain Python that runs as it stands; it is compiled as well, with the types
of the ``.pxd`` beside it, under its own name, so that Python finds the compiled one first. The
frame codec is compiled beside itself, as ``_frames_compiled``: tests and fuzzers hold the two
against each other. Without a C compiler, without Python's headers or with HEADRACE_PURE=1 the
build is a pure one, which does the same and takes longer; the log says so (``pip install -v``
shows it).
"""

import os
import platform
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from setuptools import setup

#: What runs for each request, each handshake and each message; the longest to compile first.
MODULES = (
    "protocols.websocket",
    "protocols.http1",
    "server.websocket",
    "server.http",
    "server.connection",
    "protocols._http1_grammar",
    "server.limits",
    "protocols._http1_response",
    "server.runtime",
    "server.outbox",
    "protocols.handshake",
    "server.asgi",
    "server.counters",
    "server.wheel",
    "server.ending",
    "server.inbox",
    "server.turn",
    "server.buckets",
    "server.settled",
)
#: What is nothing but compiled, and only where the system has what it is made of.
BARE = ("server.reactor",) if sys.platform == "linux" else ()
COMPILED = [f"headrace.{name}" for name in (*MODULES, *BARE, "protocols._frames_compiled")]
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def source_of(name: str) -> str:
    """Return the source of a compiled module, as seen from ``src``."""
    suffix = ".pyx" if name.removeprefix("headrace.") in BARE else ".py"
    return name.removesuffix("_compiled").replace(".", "/") + suffix


def why_pure() -> str | None:
    """Return why nothing is compiled here, or None."""
    if os.environ.get("HEADRACE_PURE"):
        return "HEADRACE_PURE is set"
    if platform.python_implementation() != "CPython":
        return "this is not CPython"
    try:
        # A build dependency: absent, or another, only without build isolation.
        from Cython import __version__ as version
    except ImportError:
        return "Cython is not installed"
    if tuple(map(int, version.split(".")[:2])) < (3, 3):
        return f"Cython {version} is too old: it knows no match statement (3.3 does)"
    # Asked before the build, not found out by it: a wheel is tagged as pure or not at the start.
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    include = f"-I{sysconfig.get_path('include')}"
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder, "probe.c")
        probe.write_text("#include <Python.h>\n")
        command = [*compiler, include, "-c", str(probe), "-o", str(probe.with_suffix(".o"))]
        try:
            subprocess.run(command, check=True, capture_output=True)  # noqa: S603
        except OSError:
            return f"there is no C compiler ({compiler[0]})"
        except subprocess.CalledProcessError:
            return f"{compiler[0]} doesn't find Python.h (the package python3-dev)"
    return None


def compiled() -> dict[str, Any]:
    """Return what ``setup`` must know to compile ``COMPILED``."""
    from Cython.Build import cythonize
    from setuptools import Extension
    from setuptools.command.build_ext import build_ext

    class AllOrNothing(build_ext):
        """Drops what was compiled where some could not be: the modules know each other's types."""

        def run(self) -> None:
            self.parallel = self.parallel or CORES
            super().run()
            built = [Path(self.get_ext_fullpath(each.name)) for each in self.extensions]
            if all(path.exists() for path in built):
                return
            print("headrace: a module can't be compiled, so none is", file=sys.stderr)
            for path in built:
                path.unlink(missing_ok=True)

    directives = {
        # The annotations speak of Python's types; the .pxd names those of C.
        "annotation_typing": False,
        "language_level": 3,
    }
    leaf = {"boundscheck": False, "wraparound": False}  # every index is checked in the source
    here, extensions = Path.cwd(), []
    for names, more in ((COMPILED[:-1], {}), (COMPILED[-1:], leaf)):
        # From there, so that a traceback names files as they are to be found in sys.path.
        os.chdir(here / "src")
        generated = cythonize(
            [Extension(name, [source_of(name)]) for name in names],
            build_dir=str(here / "build" / "cython"),
            compiler_directives={**directives, **more},
            nthreads=CORES if len(names) > 1 else 0,
            quiet=True,
        )
        os.chdir(here)
        for extension in generated:
            extension.sources = [os.path.relpath(source, here) for source in extension.sources]
            extension.depends = [f"src/{source_of(extension.name)}"]
            # Nothing here is a long loop over numbers but the codec: what -O2 gains is little, and
            # to build takes twice as long.
            extension.extra_compile_args = ["-O3" if more else "-O1", "-g0"]
            # A compiler that passed the probe and fails now costs the speed, not the installation.
            extension.optional = True
        extensions += generated
    return {"ext_modules": extensions, "cmdclass": {"build_ext": AllOrNothing}}


# Processes that compile may begin by running this file, as its import.
if __name__ == "__main__":
    reason = why_pure()
    if reason is None:
        print(f"headrace: compiling {len(COMPILED)} modules", file=sys.stderr)
        setup(**compiled())
    else:
        print(f"headrace: installing without compiled code: {reason}", file=sys.stderr)
        setup()
