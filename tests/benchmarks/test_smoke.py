"""The benchmark's own parts work: nothing is timed here."""

# ruff: noqa: RUF001 - the report is typeset

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.catalogue import REFERENCES, ROWS, TARGETS, WORKLOADS
from benchmarks.measure import Cell, Plan, measure
from benchmarks.report import Results, Spread, markdown

from benchmarks import environment

PEERS = environment.HERE / "peers"
PLAN = Plan(warmup_s=0.05, seconds=0.1, idle_warm=5, idle=20, crowd=40, broadcasts=2)

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, (os.environ.get("CC") or "cc", "gcc", "clang"))),
    reason="the load generator needs a C compiler",
)


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment.compile_generators(tmp_path_factory.mktemp("generator"))


def run(generator: Path, scratch: Path, arguments: str, path: str, row: str = "headrace") -> Cell:
    command = next(each.command for each in ROWS if each.key == row)
    return measure(
        command=command.replace("{bin}", str(Path(sys.executable).parent)),
        path=path,
        arguments=arguments.split(),
        plan=PLAN,
        generator=generator,
        environment={"PYTHONPATH": str(PEERS)},
        cwd=PEERS,
        scratch=scratch,
    )


@needs_compiler
@pytest.mark.parametrize("row", ["headrace", "headrace-bare", "uvicorn-sansio"])
def test_echo_and_handshake(generator: Path, tmp_path: Path, row: str) -> None:
    assert run(generator, tmp_path, "echo --connections 3", "/echo/", row).rate > 0
    assert run(generator, tmp_path, "handshake --connections 3", "/echo/", row).rate > 0


@needs_compiler
@pytest.mark.parametrize("path", ["/room/", "/fast/"])
@pytest.mark.parametrize("window", [1, 8])
def test_group(generator: Path, tmp_path: Path, path: str, window: int) -> None:
    cell = run(generator, tmp_path, f"group --connections 5 --window {window}", path)
    assert cell.rate > 0
    assert cell.server_us is not None


@needs_compiler
@pytest.mark.parametrize("row", ["headrace-http", "uvicorn-http"])
@pytest.mark.parametrize("window", [1, 8])
def test_plain_text(generator: Path, tmp_path: Path, row: str, window: int) -> None:
    cell = run(generator, tmp_path, f"http1 --connections 3 --window {window}", "/hello/", row)
    assert cell.rate > 0


@needs_compiler
def test_a_django_view(generator: Path, tmp_path: Path) -> None:
    assert run(generator, tmp_path, "http1 --connections 3", "/hello/", "headrace-django").rate > 0


@needs_compiler
def test_idle(generator: Path, tmp_path: Path) -> None:
    cell = run(generator, tmp_path, "hold", "/room/")
    assert cell.resident_bytes is not None


@needs_compiler
@pytest.mark.parametrize(
    ("row", "path"),
    [("headrace", "/room/"), ("headrace-fast", "/fast/"), ("headrace-bare", "/group/")],
)
def test_crowd(generator: Path, tmp_path: Path, row: str, path: str) -> None:
    cell = run(generator, tmp_path, "crowd", path, row)
    assert cell.rate > 0
    assert cell.stall_us is not None
    assert cell.stall_cpu_us is not None
    assert cell.connection_bytes is not None


@needs_compiler
@pytest.mark.parametrize("row", ["headrace-alone", "headrace-pair"])
def test_an_offered_load(generator: Path, tmp_path: Path, row: str) -> None:
    cell = run(generator, tmp_path, "echo --connections 5 --rate 300", "/echo/", row)
    assert cell.rate < 600


@needs_compiler
def test_http2(generator: Path, tmp_path: Path) -> None:
    arguments = "http2 --connections 2 --window 3"
    assert run(generator, tmp_path, arguments, "/hello/", "headrace-http").rate > 0


@pytest.mark.parametrize("layer", ["headrace-local", "headrace-redis"])
@pytest.mark.parametrize("pace", ["--window 3", "--rate 50"])
def test_across(tmp_path: Path, layer: str, pace: str) -> None:
    cell = run(tmp_path, tmp_path, f"across --members 5 {pace}", "", layer)
    assert cell.p50_us is not None
    assert cell.p99_us is not None
    assert 0 < cell.p50_us <= cell.p99_us
    assert cell.rate == cell.p99_us or "window" in pace
    assert (cell.commands is None) == (layer == "headrace-local")


class Answers:
    """A WebSocket server of twenty lines that answers what a test tells it to."""

    def __init__(self, *frames: bytes) -> None:
        self.frames = frames

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
            )
            for frame in self.frames:
                await reader.readexactly(6 + 20)
                writer.write(frame)
            await reader.read()
        writer.close()


TEXT = b"abcdefghijklmnopqrstuvwxyz"


def frame(sequence: int, text: bytes = TEXT[8:20], first_byte: int = 0x81) -> bytes:
    payload = b"%08x" % sequence + text
    return bytes([first_byte, len(payload)]) + payload


@needs_compiler
@pytest.mark.parametrize(
    ("frames", "complaint"),
    [
        ([frame(0), frame(0)], "wrong message: expected 00000001"),
        ([frame(1)], "wrong message: expected 00000000"),
        ([frame(0, b"x" * 12)], "wrong message"),
        ([frame(0, b"short")], "wrong message"),
        ([frame(0, first_byte=0x82)], "unexpected frame: first byte 0x82"),
        ([b"\x88\x02\x03\xf3"], "the server closes: code 1011"),
        ([frame(0), b""], "nothing for 1 s"),
    ],
    ids=["repeated", "skipped", "damaged", "cut", "binary", "closed", "lost"],
)
async def test_nothing_wrong_passes(generator: Path, frames: list[bytes], complaint: str) -> None:
    server = await asyncio.start_server(Answers(*frames), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            *(generator / "loadgen", "echo", "127.0.0.1", str(port), "/"),
            *("--size", "20", "--warmup", "0.1", "--patience", "1"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        _, errors = await process.communicate()
    assert process.returncode == 1
    assert complaint in errors.decode()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
H2 = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"  # an empty SETTINGS frame
H2_OK = b"\x00\x00\x01\x01\x04\x00\x00\x00\x01\x88"  # the status 200 on stream 1


@needs_compiler
@pytest.mark.parametrize(
    ("mode", "answer", "complaint"),
    [
        ("http1", OK + b"Hullo", "another body"),
        ("http1", OK + b"HelloHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHello", "nobody asked"),
        ("http1", OK.replace(b"200", b"404") + b"Hello", "not 200"),
        ("http1", OK.replace(b"5", b"6") + b"Hello!", "another length"),
        ("http1", b"HTTP/1.1 200 OK\r\n\r\n", "without Content-Length"),
        ("http1", OK + b"Hel", "the server ended"),
        ("http2", H2 + H2_OK[:-1] + b"\x8d", "not 200"),
        ("http2", H2 + H2_OK + b"\x00\x00\x05\x00\x01\x00\x00\x00\x01Hullo", "another body"),
        ("http2", H2 + H2_OK + b"\x00\x00\x04\x00\x01\x00\x00\x00\x01Hell", "not whole"),
        ("http2", H2 + H2_OK[:8] + b"\x03\x88", "not open"),
        ("http2", H2 + b"\x00\x00\x04\x03\x00\x00\x00\x00\x01\x00\x00\x00\x02", "type 3"),
    ],
)
async def test_no_wrong_response_passes(
    generator: Path, mode: str, answer: bytes, complaint: str
) -> None:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.write_eof()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(respond, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            *(generator / "httpgen", mode, "127.0.0.1", str(port), "/", "--warmup", "5"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        _, errors = await process.communicate()
    assert process.returncode == 1
    assert complaint in errors.decode()


@needs_compiler
def test_no_server(generator: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    command = [generator / "loadgen", "echo", "127.0.0.1", str(port), "/"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Connection refused" in done.stderr


def test_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(environment.BenchmarkError, match="install gcc"):
        environment.compile_generators(tmp_path)


def raw_results() -> Iterator[dict[str, object]]:
    rates = {
        "uvicorn-sansio": (100, 200, 300),
        "uvicorn-wsproto": (90, 180, 500),
        "headrace": (150, 300, 330),
    }
    for row, found in rates.items():
        for number, rate in enumerate(found):
            busy = 0.95 if row == "headrace" else 0.5
            cell = {"rate": rate, "server_us": 500_000 / rate, "generator_cores": busy}
            yield {"round": number, "row": row, "workload": "echo", "cell": cell}
    yield {"round": 0, "row": "picows", "workload": "echo", "error": "it is not there"}


@pytest.fixture
def results() -> Results:
    raw = {
        "cells": list(raw_results()),
        "rounds": 3,
        "plan": {"seconds": 2, "warmup_s": 0.5, "idle": 10, "idle_warm": 1},
        "machine": {"cores": 2, "architecture": "x", "system": "y", "python": "z"},
        "versions": {"headrace": "0"},
    }
    return Results(json.loads(json.dumps(raw)))


def test_ratios_are_taken_round_by_round(results: Results) -> None:
    assert results.best("uvicorn", "echo") == "uvicorn-sansio"
    assert results.ratio("headrace", "echo", "uvicorn") == Spread(1.5, 1.1, 1.5)
    assert results.ratio("headrace", "echo", "picows") is None


def test_the_report_says_what_was_reached_and_what_is_missing(results: Results) -> None:
    text = markdown(results)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    target, ratio = "echo through a consumer ≥ 1.3 × bare Uvicorn", "1.50 × (1.10–1.50)"
    assert [target, ratio, ratio, "reached"] in lines
    assert "Headrace, consumer†" in text
    assert "picows on uvloop was not measured: it is not there." in text


def test_latencies_are_compared_the_other_way_round() -> None:
    cells = [
        {"round": 0, "row": row, "workload": "across-rate", "cell": {"rate": us, "p99_us": us}}
        for row, us in (("channels-redis", 900), ("channels-pubsub", 600), ("headrace-redis", 100))
    ]
    results = Results({"cells": cells})
    assert results.best("channels_redis", "across-rate") == "channels-pubsub"
    assert results.ratio("headrace-redis", "across-rate", "channels_redis") == Spread(6, 6, 6)


def test_the_catalogue_is_consistent() -> None:
    rows = {row.key: row for row in ROWS}
    works = {work.key for work in WORKLOADS}
    for stands_for in REFERENCES.values():
        assert set(stands_for) <= set(rows)
    for row in ROWS:
        assert set(row.paths) <= works
    for target in TARGETS:
        assert target.workload in rows[target.row].paths
        if target.beside is not None:
            beside = REFERENCES.get(target.beside, (target.beside,))
            workload = target.beside_workload or target.workload
            assert any(workload in rows[row].paths for row in beside)
