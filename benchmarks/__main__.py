"""``python3 -m benchmarks``: measure Headrace beside its peers, in one run.

The first run creates ``.venv-bench`` and installs the peers and this checkout into it; then the
run goes on inside. Rounds are interleaved: every server in turn, then all of them again, every
other round in the opposite order.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import environment
from .catalogue import ROWS, WORKLOADS, Row, Workload
from .environment import BIN, HERE, BenchmarkError
from .measure import Plan, measure
from .report import Results, markdown, plot

ROOT = HERE.parent
REPORTS = ROOT / "reports" / "benchmarks"
PAGE = ROOT / "docs" / "benchmarks.md"
PICTURE = ROOT / "docs" / "images" / "benchmarks.svg"
PUBLISHED = HERE / "published.json"
BEGIN, END = "<!-- the published run: begin -->", "<!-- the published run: end -->"

QUICK = Plan(warmup_s=0.25, seconds=0.5, idle_warm=200, idle=800, crowd=3_000, broadcasts=2)
BROWSER = (  # what a browser sends beside the least that a handshake needs
    "Pragma: no-cache",
    "Cache-Control: no-cache",
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Accept-Language: en-GB,en;q=0.8,de;q=0.5,fr;q=0.3",
    "Accept-Encoding: gzip, deflate, br, zstd",
)


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, and stops what runs
    if not environment.is_active():
        environment.install()
        command = [str(BIN / "python"), "-m", "benchmarks", *sys.argv[1:]]
        os.execv(command[0], command)
    if options.render:
        _publish(json.loads(options.render.read_text()), options)
        return 0
    raw: dict[str, Any] = {
        "machine": environment.machine(),
        "versions": environment.versions(),
        "rounds": options.rounds,
        "plan": asdict(options.plan),
        "headers": list(options.headers),
        "cells": [],
    }
    interrupted = False
    with (
        environment.exclusive(),
        tempfile.TemporaryDirectory(prefix="headrace-bench-") as scratch,
    ):
        try:
            _run(raw["cells"], options, Path(scratch))
        except KeyboardInterrupt:
            interrupted = True
            print(f"# interrupted: {len(raw['cells'])} cells were measured", file=sys.stderr)
    if raw["cells"]:
        _publish(raw, options)
    return 130 if interrupted else 0


def _run(cells: list[dict[str, Any]], options: argparse.Namespace, scratch: Path) -> None:
    generator = environment.compile_generators(scratch)
    failed = environment.failed()
    peers = HERE / "peers"
    variables = {
        "PYTHONPATH": str(peers),
        "PYTHONDONTWRITEBYTECODE": "1",
        "BENCHMARK_DATABASE": str(scratch / "site.sqlite3"),
    }
    cookie = _log_in(peers, variables) if any(work.logged_in for work in options.workloads) else ""
    for number in range(options.rounds):
        for work in options.workloads:
            rows = [row for row in options.rows if work.key in row.paths]
            for row in rows if number % 2 == 0 else reversed(rows):
                cell: dict[str, Any] = {"round": number, "row": row.key, "workload": work.key}
                headers = [*options.headers, *([f"Cookie: {cookie}"] if work.logged_in else [])]
                try:
                    for need in row.needs:
                        if need in failed:
                            raise BenchmarkError(f"{need} cannot be installed: {failed[need]}")
                    found = measure(
                        command=row.command.replace("{bin}", str(BIN)),
                        path=row.paths[work.key],
                        arguments=work.arguments,
                        plan=options.plan,
                        generator=generator,
                        environment=variables,
                        cwd=peers,
                        scratch=scratch,
                        headers=headers,
                        all_cores=row.all_cores,
                    )
                except (BenchmarkError, OSError, ValueError) as error:
                    # The other cells are not lost with this one.
                    cell["error"] = str(error) or type(error).__name__
                else:
                    cell["cell"] = asdict(found)
                cells.append(cell)
                _progress(number, work, row, cell)


def _log_in(peers: Path, variables: dict[str, str]) -> str:
    done = subprocess.run(
        [BIN / "python", peers / "log_in.py"],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BenchmarkError(f"cannot log in a user:\n{done.stderr}")
    return done.stdout.strip()


def _progress(number: int, work: Workload, row: Row, cell: dict[str, Any]) -> None:
    found = f"{cell['cell']['rate']:,.0f} {work.unit}" if "cell" in cell else cell["error"]
    line = f"# {number + 1} {work.key:10} {row.key:18} {found}"
    print(line, file=sys.stderr, flush=True)


def _publish(raw: dict[str, Any], options: argparse.Namespace) -> None:
    """Print the tables, and write tables, raw results and plot."""
    results = Results(raw)
    text = markdown(results)
    print(text)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "results.json").write_text(json.dumps(raw, indent=1) + "\n")
    (options.output / "results.md").write_text(text)
    plot(results, options.output / "results.svg")
    if options.publish:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        after = rest.partition(END)[2]
        picture = f"![The published run as bars]({PICTURE.relative_to(PAGE.parent)})"
        PAGE.write_text(f"{before}{BEGIN}\n\n{picture}\n\n{text}\n{END}{after}")
        PUBLISHED.write_text(json.dumps(raw, indent=1) + "\n")
        plot(results, PICTURE)
    print(f"# written: {options.output}/results.(md|json|svg)", file=sys.stderr)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python3 -m benchmarks", description=__doc__)
    add = parser.add_argument
    names = ", ".join(item.key for item in (*WORKLOADS, *ROWS))
    add("--only", default="", metavar="A,B", help=f"only these workloads and servers: {names}")
    add("--rounds", type=int, help="how often every cell is measured (3)")
    add("--seconds", type=float, help="measured time per cell, after a warm-up (2)")
    add("--quick", action="store_true", help="one short round, in a few minutes")
    add("--browser", action="store_true", help="send the headers of a browser")
    add("--output", type=Path, default=REPORTS, metavar="FOLDER", help="for tables, JSON, plot")
    add("--publish", action="store_true", help="write the run into the documentation too")
    add("--render", type=Path, metavar="JSON", help="measure nothing: render an earlier run")
    options = parser.parse_args()
    chosen = {name.strip() for name in options.only.split(",") if name.strip()}
    known = {item.key for item in (*WORKLOADS, *ROWS)}
    if unknown := chosen - known:
        parser.error(f"--only: no such workload or server: {', '.join(sorted(unknown))}")
    options.workloads = [work for work in WORKLOADS if work.key in chosen] or WORKLOADS
    rows = [row for row in ROWS if row.key in chosen]
    options.rows = rows or [row for row in ROWS if row.quick or not options.quick]
    options.rounds = options.rounds or (1 if options.quick else 3)
    plan = QUICK if options.quick else Plan()
    if options.seconds:
        plan = Plan(**{**asdict(plan), "seconds": options.seconds})
    options.plan = plan
    options.headers = BROWSER if options.browser else ()
    return options


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchmarkError as error:
        sys.exit(f"benchmarks: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
