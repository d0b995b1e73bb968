"""Serve an echo on a free port, let the Autobahn fuzzing client at it, and judge its report."""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop

from headrace import __version__
from headrace.protocols.deflate import DeflateFactory
from headrace.protocols.websocket import COMPILED, Limits
from headrace.server.config import Config
from headrace.server.server import Server

REPORTS = Path("reports/autobahn")
SPECIFICATION = REPORTS / "fuzzingclient.json"
TABLE = Path("docs/autobahn.md")
AGENTS = {
    "headrace": "Default settings: each message compressed by itself",
    "headrace-takeover": "With context takeover both ways",
}
#: What the report may say of a case. INFORMATIONAL and UNCLEAN describe the case, not a fault.
PASSED = {"OK", "INFORMATIONAL"}

INTRODUCTION = (
    "What the fuzzing client of the Autobahn test suite says of Headrace {version} ({codec} "
    "frame codec): `make autobahn` runs it and writes this page. Informational cases ask what "
    "a server chooses to do where the RFC leaves it open; there is no wrong answer."
)

Message = dict[str, Any]
Results = dict[str, dict[str, str]]
GROUPS = {
    "1": "Framing",
    "2": "Pings and pongs",
    "3": "Reserved bits",
    "4": "Opcodes",
    "5": "Fragmentation",
    "6": "UTF-8 handling",
    "7": "Close handling",
    "9": "Limits and performance",
    "10": "Auto-fragmentation",
    "12": "Compression (different payloads)",
    "13": "Compression (different parameters)",
}


async def echo(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """Send back what comes: the application that the fuzzing client expects."""
    if scope["type"] != "websocket":
        raise RuntimeError("only WebSockets here")
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


def config(*, context_takeover: bool) -> Config:
    """Return the default settings, with room for the largest cases.

    Every message is compressed, however short, where the client offers it.
    """
    return Config(
        port=0,
        access_log=False,
        websocket=Limits(
            message_bytes=32 * 1024 * 1024,
            frame_bytes=32 * 1024 * 1024,
            fragments=100_000,  # 9.3.1 sends 4 MB in fragments of 64 bytes
        ),
        outbox_limit_bytes=64 * 1024 * 1024,
        extensions=(
            DeflateFactory(
                server_no_context_takeover=not context_takeover,
                client_no_context_takeover=not context_takeover,
                threshold_bytes=0,
            ),
        ),
    )


async def fuzz(wstest: str, cases: str) -> dict[str, Results]:
    """Run the cases against both servers, and return what the report says of each."""
    async with (
        Server(echo, config(context_takeover=False)) as plain,
        Server(echo, config(context_takeover=True)) as takeover,
    ):
        specification = {
            "outdir": str(REPORTS),
            "servers": [
                {"agent": agent, "url": f"ws://127.0.0.1:{server.port}"}
                for agent, server in zip(AGENTS, (plain, takeover), strict=True)
            ],
            "cases": cases.split(","),
            "exclude-cases": [],
            "exclude-agent-cases": {},
        }
        SPECIFICATION.write_text(json.dumps(specification))
        process = await asyncio.create_subprocess_exec(
            *(wstest, "-m", "fuzzingclient", "-s", str(SPECIFICATION)),
            stdout=asyncio.subprocess.DEVNULL,
        )
        await process.wait()
    report: dict[str, Results] = json.loads((REPORTS / "index.json").read_text())
    return report


def page(report: dict[str, Results]) -> str:
    """Return the page for the documentation."""
    lines = [
        "# Autobahn test suite",
        "",
        INTRODUCTION.format(version=__version__, codec="compiled" if COMPILED else "pure Python"),
        "",
    ]
    for agent, words in AGENTS.items():
        lines += [f"## {words}", "", *table(report[agent]), ""]
    return "\n".join(lines)


def table(results: Results) -> list[str]:
    """Return the lines of one table."""
    counts: dict[str, Counter[str]] = {}
    for case, result in results.items():
        counts.setdefault(case.split(".")[0], Counter())[result["behavior"]] += 1
    columns = ["OK", "INFORMATIONAL", "NON-STRICT", "FAILED"]
    others = {kind for counter in counts.values() for kind in counter} - set(columns)
    columns += sorted(others)
    lines = [
        "| cases | | run | " + " | ".join(columns) + " |",
        "|---|---|---|" + "---|" * len(columns),
    ]
    for group in sorted(counts, key=int):
        counter = counts[group]
        cells = [f"{group}.*", GROUPS.get(group, ""), str(counter.total())]
        lines.append("| " + " | ".join(cells + [str(counter[kind]) for kind in columns]) + " |")
    total: Counter[str] = sum(counts.values(), Counter())
    cells = ["**all**", "", str(total.total()), *(str(total[kind]) for kind in columns)]
    return [*lines, "| " + " | ".join(cells) + " |"]


def main() -> int:
    """Return 0 if no case failed or was less than strict."""
    wstest, cases = sys.argv[1:]
    uvloop.install()
    REPORTS.mkdir(parents=True, exist_ok=True)
    report = asyncio.run(fuzz(wstest, cases))
    verdicts = [
        (agent, case, result["behavior"], result["behaviorClose"])
        for agent, results in report.items()
        for case, result in results.items()
    ]
    faults = [verdict for verdict in verdicts if not PASSED.issuperset(verdict[2:])]
    for agent, case, behavior, close in faults:
        print(f"{agent} {case}: {behavior}, close {close}")
    print(f"{len(verdicts)} cases, {len(faults)} of them not passed; reports in {REPORTS}")
    if cases == "*":
        TABLE.write_text(page(report))
    return 1 if faults or not verdicts else 0


if __name__ == "__main__":
    sys.exit(main())
