"""``python3 -m visitors``: many visitors of all of the demo's applications at once.

One worker serves the seeded site. The visitors log in, are spread over the applications, and do
what the pages' JavaScript does. Prints a table, writes it as JSON, and puts it into the demo's page
when told to publish; the exit status is 1 when something was lost or refused, when more than one in
a hundred took longer than its bound, or when something was not measured at all.
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx
from attack.served import ROOT, Served, ServeError
from websockets.exceptions import WebSocketException

from headrace.server.control import BlockingClient, ControlError

from .applications import Application, Documents, Measured, site
from .ledger import Delays
from .visitor import PATIENCE_S, Run, Visitor

DEMO = ROOT / "demo"
REPORTS = ROOT / "reports" / "visitors"
PAGE = DEMO / "README.md"
BEGIN, END = "<!-- the published run: begin -->", "<!-- the published run: end -->"
#: A visitor looks at its page anew so often: beside it, as in another tab.
PAGE_EVERY_S = 40.0
ARRIVING_PER_S = 5.0

PREPARE = """
from django.core.management import call_command
call_command("migrate", verbosity=0)
call_command("seed")
from accounts.models import User
from documents.models import Document, Role
User.objects.bulk_create(
    [User(username=f"visitor{n}", display_name=f"Visitor {n}", password="!", open_to_all=True)
     for n in range(%d)],
    ignore_conflicts=True,
)
owner = User.objects.get(username="visitor0")
for n in range(1, 1 + %d):
    Document.objects.get_or_create(title=f"%s {n}", owner=owner, everyone=Role.EDITOR)
"""


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, and stops what runs
    with tempfile.TemporaryDirectory(prefix="visitors-") as folder:
        data = options.data or Path(folder)
        environment = {
            "DEMO_DATA_DIR": str(data),
            "DEMO_LAYER": options.layer,
            "DJANGO_SETTINGS_MODULE": "millpond.settings",
        }
        subprocess.run(
            [
                sys.executable,
                "manage.py",
                "shell",
                "--no-imports",
                "-c",
                PREPARE % (options.visitors, Documents.COUNT, Documents.NAME),
            ],
            cwd=DEMO,
            env={**os.environ, **environment},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        control = Path(folder) / "control"
        options.output.mkdir(parents=True, exist_ok=True)
        log = options.output / "server.log"
        log.unlink(missing_ok=True)
        server = Served(
            "millpond.asgi:application",
            f"--app-dir={DEMO}",
            f"--control-socket={control}",
            "--no-access-log",
            "--log-level=warning",
            # All visitors come from one address.
            *("--max-connections-per-address=0", "--handshakes-per-second-per-address=0"),
            *options.serve,
            log=log,
            environment=environment,
        )
        evening = Evening(server, control, options)
        try:
            with server:
                asyncio.run(evening.last())
                status = server.stop()
        except ServeError as error:
            print(error)
            return 1
        return evening.conclude(status)


class Evening:
    """One run: all come, all do what they do for a while, all go."""

    def __init__(self, server: Served, control: Path, options: argparse.Namespace) -> None:
        self._server = server
        self._control = control
        self._options = options
        self._bell, self._applications = site()
        self._run: Run | None = None
        self._usage: dict[str, float] = {}
        self._stalls = Delays()
        self._own_stalls = Delays()

    @property
    def _all(self) -> list[Application]:
        return [self._bell, *self._applications]

    async def last(self) -> None:
        run = self._run = Run(
            self._server.address, seed=self._options.seed, pace=self._options.pace
        )
        visitors = [Visitor(run, n, f"visitor{n}") for n in range(self._options.visitors)]
        async with asyncio.TaskGroup() as group:
            for visitor in visitors:
                group.create_task(self._guest(visitor))
            group.create_task(self._evening(run, visitors))
        for visitor in visitors:
            await visitor.leave()

    async def _guest(self, visitor: Visitor) -> None:
        application = self._applications[visitor.number % len(self._applications)]
        await asyncio.sleep(visitor.number / ARRIVING_PER_S)
        try:
            await visitor.log_in()
            async with self._bell.of(visitor), asyncio.TaskGroup() as group:
                group.create_task(application.visit(visitor))
                group.create_task(self._browse(visitor))
        except* (OSError, TimeoutError, ValueError, httpx.HTTPError, WebSocketException) as error:
            visitor.run.fail(f"a visitor of {application.title} failed: {error.exceptions!r}")

    @staticmethod
    async def _browse(visitor: Visitor) -> None:
        while await visitor.pause(PAGE_EVERY_S):
            await visitor.open(visitor.page)

    async def _evening(self, run: Run, visitors: list[Visitor]) -> None:
        try:
            try:
                async with asyncio.timeout(len(visitors) / ARRIVING_PER_S + 3 * PATIENCE_S):
                    # Each has its bell and its page's WebSocket.
                    while any(each.sockets < 2 for each in visitors):  # noqa: ASYNC110
                        await asyncio.sleep(0.1)
            except TimeoutError:
                there = sum(each.sockets >= 2 for each in visitors)
                run.fail(f"only {there} of {len(visitors)} visitors have come in time")
            for each in self._all:
                each.begin()
            run.pages.clear()
            run.files.clear()
            await self._measure()
            run.last_orders.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_S):
                    while any(each.ledger.missing for each in self._all):  # noqa: ASYNC110
                        await asyncio.sleep(0.05)
        finally:
            run.last_orders.set()
            run.closing.set()

    async def _measure(self) -> None:
        """Let time pass, and look each second how late the loops are; and what all of it cost."""
        loop = asyncio.get_running_loop()
        began, before, own = loop.time(), self._server.vitals(), _own_cpu_s()
        while not self._server.ended:
            lasts = loop.time() - began
            if lasts >= self._options.seconds + (0 if self._has_all() else PATIENCE_S):
                break
            due = loop.time() + min(1.0, self._options.seconds)
            await asyncio.sleep(due - loop.time())
            self._own_stalls.add(loop.time() - due)
            with contextlib.suppress(OSError, EOFError, ControlError):
                self._stalls.add(await asyncio.to_thread(self._loop_lag_s))
        lasted = loop.time() - began
        after = self._server.vitals()
        self._usage = {
            "seconds": lasted,
            "server_cpu": (after.cpu_s - before.cpu_s) / lasted,
            "client_cpu": (_own_cpu_s() - own) / lasted,
            "rss_bytes": after.rss_bytes,
        }

    def _has_all(self) -> bool:
        """Tell whether there is something of each line: a short run goes on until there is."""
        return all(measured.delays for each in self._all for measured in each.measured())

    def _loop_lag_s(self) -> float:
        with BlockingClient(str(self._control), timeout_s=30) as server:
            workers: list[dict[str, Any]] = server.ask("snapshot")["workers"]
        return max((worker["loop_lag_s"] for worker in workers), default=0.0)

    def conclude(self, status: int) -> int:
        run = self._run
        assert run is not None, "the visitors have never come"
        lines = [(each.title, measured) for each in self._all for measured in each.measured()]
        lines += [
            ("All", Measured("GET of a page", run.pages)),
            ("All", Measured("GET of a file", run.files)),
        ]
        lost = {each.title: each.ledger.missing + each.lost for each in self._all}
        bound_s = self._options.bound
        slow = [line for line in lines if not keeps(line[1], bound_s)]
        passed = not (status or run.failures or any(lost.values()) or slow)
        report = self._table(lines, lost)
        print(report)
        for title, each in slow:
            p99_ms = each.delays.percentile(0.99) * 1000
            late = f"p99 {p99_ms:.0f} ms" if each.delays else "nothing was measured"
            print(f"{title}, {each.what}: {late}; the bound is {bound_s or each.bound_s:g} s")
        for problem in run.problems:
            print(f"  {problem}")
        if status:
            print(f"the server ended with {status}:\n{self._server.tail()}")
        result = {
            "visitors": self._options.visitors,
            "python": platform.python_version(),
            **self._usage,
            "longest_stall_s": self._stalls.percentile(1),
            "own_longest_stall_s": self._own_stalls.percentile(1),
            "lost": lost,
            "failures": run.failures,
            "problems": run.problems,
            "exit_status": status,
            "passed": passed,
            "lines": [_figures(title, each) for title, each in lines],
        }
        (self._options.output / "report.json").write_text(json.dumps(result, indent=1))
        if self._options.publish:
            text = PAGE.read_text(encoding="utf-8")
            head, _, rest = text.partition(BEGIN)
            tail = rest.partition(END)[2]
            PAGE.write_text(f"{head}{BEGIN}\n\n{report}\n\n{END}{tail}", encoding="utf-8")
        return 0 if passed else 1

    def _table(self, lines: list[tuple[str, Measured]], lost: dict[str, int]) -> str:
        usage = self._usage
        summary = (
            f"{self._options.visitors} visitors for {usage['seconds']:.0f} s, one worker, Python "
            f"{platform.python_version()}: the server took {usage['server_cpu']:.0%} of a core and "
            f"{usage['rss_bytes'] / 2**20:.0f} MiB; its loop was late by "
            f"{self._stalls.percentile(1) * 1000:.0f} ms at most. The visitors took "
            f"{usage['client_cpu']:.0%} of a core, and were late themselves by "
            f"{self._own_stalls.percentile(1) * 1000:.0f} ms at most."
        )
        rows = [
            summary,
            "",
            "| | what | measured | p50, ms | p99, ms | longest, ms | lost |",
            "|---|---|---|---|---|---|---|",
        ]
        for title, each in lines:
            p50, p99, longest = (each.delays.percentile(share) * 1000 for share in (0.5, 0.99, 1))
            rows.append(
                f"| {title} | {each.what} | {len(each.delays):,} | {p50:.0f} | {p99:.0f} | "
                f"{longest:.0f} | {lost.get(title, '')} |"
            )
        return "\n".join(rows)


def keeps(measured: Measured, bound_s: float | None = None) -> bool:
    """Tell whether there was something to measure, and 99 in 100 of it kept the bound."""
    bound_s = measured.bound_s if bound_s is None else bound_s
    return len(measured.delays) > 0 and measured.delays.percentile(0.99) <= bound_s


def _figures(title: str, measured: Measured) -> dict[str, Any]:
    delays = measured.delays
    return {
        "application": title,
        "what": measured.what,
        "measured": len(delays),
        "p50_s": delays.percentile(0.5),
        "p99_s": delays.percentile(0.99),
        "longest_s": delays.percentile(1),
        "bound_s": measured.bound_s,
    }


def _own_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python3 -m visitors",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--visitors", type=int, default=200, help="how many (200)")
    add("--seconds", type=float, default=60, help="how long at least, once all are there (60)")
    add("--pace", type=float, default=1, help="how many times as often as people do (1)")
    add("--bound", type=float, metavar="SECONDS", help="for each p99, instead of each one's own")
    add("--layer", default="", help="the channel layer: DEMO_LAYER (in memory)")
    add("--data", type=Path, metavar="FOLDER", help="of the site; else a new one is seeded")
    add("--seed", default="1", help="where chance begins (1)")
    add(
        "--serve",
        action="append",
        default=[],
        metavar="OPTION",
        help="more for headrace serve, as --serve=--workers=2",
    )
    add("--output", type=Path, default=REPORTS, metavar="FOLDER", help="for the report and the log")
    add("--publish", action="store_true", help="write the table into demo/README.md")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
