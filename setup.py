"""Build the compiled leaf of the WebSocket engine; all the rest is in pyproject.toml.

``headrace.protocols._frames`` is compiled a second time, as ``_frames_compiled``. Without a
C compiler, without Python's headers or with HEADRACE_PURE=1 the build is a pure one, which
does the same and takes longer; the log says so (``pip install -v`` shows it).
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

NAME = "headrace.protocols._frames_compiled"
SOURCE = "src/headrace/protocols/_frames.py"


def why_pure() -> str | None:
    """Return why nothing is compiled here, or None."""
    if os.environ.get("HEADRACE_PURE"):
        return "HEADRACE_PURE is set"
    if platform.python_implementation() != "CPython":
        return "this is not CPython"
    try:
        import Cython  # noqa: F401 - a build dependency, absent only without build isolation
    except ImportError:
        return "Cython is not installed"
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
    """Return what ``setup`` must know to compile the leaf."""
    from Cython.Distutils import Extension, build_ext

    extension = Extension(
        NAME,
        [SOURCE],
        depends=[f"src/{NAME.replace('.', '/')}.pxd"],
        extra_compile_args=["-O3"],
        # The annotations speak of Python's types; the .pxd names those of C. Every index is
        # checked in the source.
        cython_directives={
            "annotation_typing": False,
            "boundscheck": False,
            "language_level": 3,
            "wraparound": False,
        },
        cython_c_in_temp=True,
    )
    # A compiler that passed the probe and fails now costs the speed, not the installation.
    extension.optional = True
    return {"ext_modules": [extension], "cmdclass": {"build_ext": build_ext}}


reason = why_pure()
if reason is None:
    print(f"headrace: compiling {SOURCE}", file=sys.stderr)
    setup(**compiled())
else:
    print(f"headrace: installing without compiled code: {reason}", file=sys.stderr)
    setup()
