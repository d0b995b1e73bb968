"""A parsed module: what can be read, and where things are."""

import threading

import libcst as cst
import pytest

from headrace.migrating.module import Module, Unreadable, dotted


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("x = (\n", "line 1"),
        ("x = 1\n  y = 2\n", "line 2"),
        ("print 'x'\n", "line 1"),
        ("x = '\0'\n", "null bytes"),
        ("x = " + "(" * 3000 + "1" + ")" * 3000, "line 1"),
        ("x = " + "-" * 100_000 + "1", "nests too deeply"),
        ("x = " + " and ".join("a" * 3000), "nests too deeply"),
        ("x = 1\n\x0cy = 2\r", "line endings"),
    ],
)
def test_what_can_not_be_read(source, reason):
    with pytest.raises(Unreadable, match=reason):
        Module(source)


def test_what_python_takes_and_libcst_does_not(monkeypatch):
    def refuse(text):
        raise cst.ParserSyntaxError("not yet", lines=["x"], raw_line=3, raw_column=0)

    monkeypatch.setattr(cst, "parse_module", refuse)
    with pytest.raises(Unreadable, match="line 3: not yet"):
        Module("x = 1\n")


def test_other_threads_keep_the_size_of_their_stack():
    before = threading.stack_size()
    Module("x = 1\n")
    assert threading.stack_size() == before


def test_warnings_about_the_source_are_not_ours():
    Module("x = '\\d'\ny = 1 is 2\n")


def test_places_count_bytes():
    module = Module("\ufeff\u00e4 = b\n")
    name = list(module.all(cst.Name))[1]
    assert module.source.encode()[slice(*module.span(name))] == b"b"
    assert module.line(name) == 1


def test_dotted():
    assert dotted(cst.parse_expression("a.b.c")) == "a.b.c"
    assert dotted(cst.parse_expression("a")) == "a"
    assert dotted(cst.parse_expression("f().b")) == ""
    assert dotted(None) == ""
