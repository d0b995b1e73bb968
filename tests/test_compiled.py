"""What is compiled at install is the same as its source, and stays so."""

import ast
import importlib
import os
import re
import runpy
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

import headrace
from headrace.exceptions import LocalProtocolError
from headrace.protocols.websocket import COMPILED, WebSocketEngine
from headrace.server.server import REACTOR

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(headrace.__file__).parent
MODULES = [f"headrace.{name}" for name in runpy.run_path(str(ROOT / "setup.py"))["MODULES"]]


def source_of(name):
    return PACKAGE.parent / (name.replace(".", "/") + ".py")


@pytest.mark.parametrize("name", MODULES)
def test_all_are_compiled_or_none_is(name):
    suffix = Path(importlib.import_module(name).__file__).suffix
    assert (suffix != ".py") == COMPILED


def test_sockets_have_their_reactor_where_all_is_compiled_on_linux():
    assert (REACTOR is not None) == (COMPILED and sys.platform == "linux")


@pytest.mark.parametrize("pure", ["1", ""])
def test_an_environment_variable_chooses_the_sources(pure):
    program = (
        "import importlib, sys; [print(importlib.import_module(n).__file__) for n in sys.argv[1:]]"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program, *MODULES],
        env={**os.environ, "HEADRACE_PURE": pure},
        capture_output=True,
        text=True,
        check=True,
    )
    built = any(PACKAGE.rglob("*.so"))
    for line in answer.stdout.split():
        assert (Path(line).suffix == ".py") == bool(pure or not built)


def test_what_instruments_imports_is_given_the_sources():
    """As a fuzzer does, whose finder is the first, and asks those behind it."""
    program = (
        "import sys\n"
        "class First:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:\n"
        "            if spec := finder.find_spec(name, path, target):\n"
        "                print(name, type(spec.loader).__name__)\n"
        "                return spec\n"
        "sys.meta_path.insert(0, First())\n"
        "import headrace.protocols.handshake\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "HEADRACE_PURE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "headrace.protocols.handshake SourceFileLoader" in answer.stdout.splitlines()


@pytest.mark.parametrize("name", MODULES)
def test_the_types_name_every_slot(name):
    slots, bases = {}, {}
    for node in ast.parse(source_of(name).read_text()).body:
        if isinstance(node, ast.ClassDef):
            for part in node.body:
                if isinstance(part, ast.Assign) and ast.unparse(part.targets[0]) == "__slots__":
                    slots[node.name] = list(ast.literal_eval(part.value))
                    bases[node.name] = [ast.unparse(base) for base in node.bases]
    typed = {}
    for line in source_of(name).with_suffix(".pxd").read_text().splitlines():
        if begins := re.match(r"cdef class (\w+)(?:\((\w+)\))?:", line):
            typed[begins[1]] = []
            assert bases[begins[1]] == ([begins[2]] if begins[2] else [])
            attributes = typed[begins[1]]
        elif attribute := re.match(r"    cdef public [\w ]+ (\w+)$", line):
            attributes.append(attribute[1])
    # Where there are only functions, there is nothing to type.
    assert typed or not any(slots.values())
    for kind, attributes in typed.items():
        assert attributes == slots[kind]


def test_a_traceback_names_file_and_line():
    engine = WebSocketEngine(0.0)
    engine.send_close(now=0.0)
    with pytest.raises(LocalProtocolError) as raised:
        engine.encode("late")
    last = traceback.extract_tb(raised.value.__traceback__)[-1]
    source = source_of("headrace.protocols.websocket")
    assert source.match(last.filename)
    assert "raise LocalProtocolError" in source.read_text().splitlines()[last.lineno - 1]


@pytest.mark.parametrize("name", MODULES)
def test_what_the_types_name_calls_no_base_without_its_name(name):
    """There ``super()`` fails at run time."""
    types = source_of(name).with_suffix(".pxd").read_text()
    named = set(re.findall(r"cpdef (?:\w+ )?(\w+)\(", types))
    for node in ast.walk(ast.parse(source_of(name).read_text())):
        if isinstance(node, ast.FunctionDef) and node.name in named:
            assert "super()" not in ast.unparse(node)
