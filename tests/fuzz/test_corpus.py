"""The corpus of the fuzzer, as ordinary tests; and that the laws can be broken."""

import sys
from pathlib import Path

import fuzz.targets
import pytest
from fuzz.__main__ import CORPUS, LONGEST
from fuzz.seeds import SEEDS, WORDS
from fuzz.targets import TARGETS

from fuzz import __main__ as program
from headrace.layers.local.wire import FrameReader
from headrace.protocols import deflate
from headrace.protocols.deflate import Deflate
from headrace.protocols.http1 import Http1Engine
from headrace.protocols.websocket import WebSocketEngine

#: Inputs that have broken a law, kept when it was mended.
FOUND = {
    "websocket_deflate": [
        # The reason named what was left of the limit, which depends on the cut.
        bytes.fromhex("c18882000003c188820000031600160000000000008800"),
        b"\xc1\x88\x82\x00\x03\xc1\x88\x82\x00\x03\x16\x00\x16\x00\x00\x00\x00\x00\x88\x00",
    ],
    # What came behind a GOAWAY that closed the connection was read, although it was gone.
    "http2": [b"\0\0\x08\x07" + bytes(10) + b"/\0\0\x04\x08\0\0\0\0\x10\0\0\x08\x07" + bytes(13)],
    # A line feed within the line was told only where the bytes came one by one.
    "proxy_protocol": [b"PROXY UNK\xa3NR\nPUI4 \r", b"PROXY UNKNOWN x\ny\r\n"],
    "event": [b"\x83" + b"\x91" * 200],
    "http1_smuggled": [b"PRI * HTTP/2.0\r\nPOST / HTTP/1.1\r\nHost: a\r\n\r\n"],
}


def inputs(name):
    yield from SEEDS[name]
    yield from FOUND.get(name, [])
    for path in sorted((CORPUS / name).iterdir()):
        yield path.read_bytes()


@pytest.mark.parametrize("name", TARGETS)
def test_the_laws_hold_for_the_corpus(name):
    for data in inputs(name):
        TARGETS[name](data)


def test_every_target_has_a_corpus_and_seeds_and_nothing_else_has():
    assert {path.name for path in CORPUS.iterdir()} == SEEDS.keys() == TARGETS.keys()
    assert WORDS.keys() <= TARGETS.keys()
    assert all(TARGETS[name].__doc__ for name in TARGETS)


def test_the_corpus_is_small():
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 1_000_000
    assert all(path.stat().st_size <= LONGEST for path in files)


def broken(name):
    """Whether the corpus breaks a law of the target."""
    try:
        test_the_laws_hold_for_the_corpus(name)
    except (AssertionError, Exception):
        return True
    return False


def loses_what_comes_alone(original):
    def receive(self, data, *arguments, **options):
        events = original(self, data, *arguments, **options)
        return [] if len(data) == 1 else events

    return receive


def forgets_its_limit(self, data, *, limit_bytes, final):
    return b"x" * (limit_bytes + 1)


@pytest.mark.parametrize(
    ("name", "parser", "method", "mistaken"),
    [
        ("http1", Http1Engine, "receive", loses_what_comes_alone),
        ("http1_chunks", Http1Engine, "receive", loses_what_comes_alone),
        ("websocket", WebSocketEngine, "receive", loses_what_comes_alone),
        ("local_wire", FrameReader, "receive", loses_what_comes_alone),
        ("inflate", Deflate, "decode", lambda _: forgets_its_limit),
    ],
)
def test_a_mistake_is_found(monkeypatch, name, parser, method, mistaken):
    assert not broken(name)
    # What is compiled can't be changed, but be another's base.
    wrong = type(parser.__name__, (parser,), {method: mistaken(getattr(parser, method))})
    for module in (fuzz.targets, deflate):
        if hasattr(module, parser.__name__):
            monkeypatch.setattr(module, parser.__name__, wrong)
    assert broken(name)


def test_an_unknown_target(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fuzz", "--only", "daydreams"])
    with pytest.raises(SystemExit):
        program.main()
    assert "no such target: daydreams" in capsys.readouterr().err


def test_the_fuzzer_finds_a_mistake_and_says_how_to_see_it_again(monkeypatch, tmp_path, capsys):
    """The whole program, with something in the place of atheris that reports a crash."""
    pretended = tmp_path / "one.py"
    pretended.write_text(
        "import sys\n"
        "prefix = [a for a in sys.argv if a.startswith('-artifact_prefix=')][0].partition('=')[2]\n"
        "open(prefix + 'crash-1', 'wb').write(b'x')\n"
    )
    real = program.subprocess.run

    def run(command, **options):
        return real([sys.executable, str(pretended), *command[3:]], **options)

    monkeypatch.setattr(program, "ROOT", tmp_path)
    monkeypatch.setattr(program, "REPORTS", tmp_path / "reports")
    monkeypatch.setattr(program.subprocess, "run", run)
    monkeypatch.setattr(sys, "argv", ["fuzz", "--only", "json", "--minutes", "0.01"])
    assert program.main() == 1
    assert "python3 -m fuzz.one json reports/json/crash-1" in capsys.readouterr().out


def test_atheris_runs_a_target(monkeypatch, tmp_path, capsys):
    pytest.importorskip("atheris", reason="make fuzz installs it, for Pythons that it supports")
    monkeypatch.setattr(program, "REPORTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["fuzz", "--only", "json", "--minutes", "0.01"])
    assert program.main() == 0
    printed = capsys.readouterr().out
    assert "json" in printed
    [line] = [line for line in printed.splitlines() if line.startswith("json")]
    assert int(line.split()[1].replace(",", "")) > 10
    assert Path(fuzz.targets.__file__).parent == CORPUS.parent
