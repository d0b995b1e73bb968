"""``python3 -m soak``: keep a server busy for long, and see whether it stays as it was.

Prints a line a minute and a verdict for each series, writes samples (JSON) and a plot; the exit
status is 1 when a series is not flat, when anything that was said did not come back, or when the
server ended by itself.
"""

import argparse
import asyncio
import json
import platform
import resource
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from attack.served import ROOT, Served, ServeError

from headrace.server.control import BlockingClient, ControlError

from .judge import SERIES, Verdict, judge
from .plot import plot
from .visitors import Crowd, Load

REPORTS = ROOT / "reports" / "soak"
#: Fewer samples than this decide nothing.
LEAST = 10


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, and stops what runs
    shutil.rmtree(options.output, ignore_errors=True)
    server = Served(
        "soak.place:application",
        "--no-access-log",
        "--log-level=warning",  # clients that vanish are a part of the load
        f"--control-socket={options.socket}",
        *options.serve,
        log=options.output / "server.log",
    )
    load = Load(visitors=options.visitors, arrive_s=min(5.0, options.minutes * 6))
    crowd = Crowd(server.address, load, options.seed)
    watch = Watch(server, crowd, options)
    try:
        with server:
            asyncio.run(watch.run())
            status = server.stop()
    except ServeError as error:
        print(error)
        return 1
    finally:
        shutil.rmtree(options.socket.parent, ignore_errors=True)
    return watch.conclude(status)


class Watch:
    """One run: samples while it lasts, verdicts at its end."""

    def __init__(self, server: Served, crowd: Crowd, options: argparse.Namespace) -> None:
        self._server = server
        self._crowd = crowd
        self._options = options
        self._samples: list[dict[str, float]] = []
        self._began = 0.0

    async def run(self) -> None:
        self._began = time.monotonic()
        until = self._began + self._options.minutes * 60
        crowd = asyncio.create_task(self._crowd.run(until))
        printed = 0.0
        while time.monotonic() < until and not self._server.ended:
            await asyncio.sleep(self._options.every)
            if not await self._sample() or crowd.done():
                break
            if time.monotonic() - printed >= min(60.0, self._options.minutes * 6):
                printed = time.monotonic()
                self._print_line()
        if not self._server.ended:
            await crowd
        else:
            crowd.cancel()
            await asyncio.wait([crowd])

    async def _sample(self) -> bool:
        try:
            inside = await self._inside()
        except (OSError, EOFError, ValueError, ControlError) as error:
            if self._server.ended:
                return False
            print(f"no vitals: {error!r}")
            return True
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self._samples.append(
            {
                "at_s": time.monotonic() - self._began,
                **asdict(self._server.vitals()),
                **inside,
                "client_cpu_s": usage.ru_utime + usage.ru_stime,
                "slowest_s": self._crowd.slowest_s,
                **{name: self._crowd.seen[name] for name in _COUNTED},
            }
        )
        self._crowd.slowest_s = 0.0
        return True

    async def _inside(self) -> dict[str, float]:
        """What only the server itself knows, of all its workers: tasks; groups, of one of them."""
        snapshot = await asyncio.to_thread(self._snapshot)
        workers = snapshot["workers"]
        return {
            "tasks": sum(worker["tasks"] for worker in workers),
            "loop_lag_s": max((worker["loop_lag_s"] for worker in workers), default=0.0),
            "restarts": sum(snapshot["server"].get("restarts", {}).values()),
            "groups": (await self._vitals())["groups"],
        }

    def _snapshot(self) -> dict[str, Any]:
        with BlockingClient(str(self._options.socket), timeout_s=30) as server:
            return server.ask("snapshot")

    async def _vitals(self) -> dict[str, float]:
        reader, writer = await asyncio.open_connection(*self._server.address)
        try:
            writer.write(b"GET /vitals HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            async with asyncio.timeout(30):
                answer = await reader.read()
        finally:
            writer.close()
        found: dict[str, float] = json.loads(answer.partition(b"\r\n\r\n")[2])
        return found

    def _print_line(self) -> None:
        sample = self._samples[-1]
        print(
            f"{sample['at_s'] / 60:6.1f} min  {sample['rss_bytes'] / 2**20:7.1f} MiB  "
            f"{sample['descriptors']:5} descriptors  {sample['tasks']:5} tasks  "
            f"{sample['threads']:3} threads  {sample['groups']:4} groups  "
            f"{sample['websockets']:8,} WebSockets  {sample['heard']:10,} messages  "
            f"{sample['requests']:8,} requests  {sample['failures']} failures",
            flush=True,
        )

    def conclude(self, status: int) -> int:
        options, crowd, samples = self._options, self._crowd, self._samples
        warm_up_s = options.warm_up * options.minutes * 60
        judged = [sample for sample in samples if sample["at_s"] >= warm_up_s]
        if len(judged) < LEAST:
            print(f"the run was too short: {len(judged)} samples after the warm-up")
            print(self._server.tail())
            return 1
        times = [sample["at_s"] for sample in judged]
        verdicts = [
            judge(times, [sample[series.key] for sample in judged], series) for series in SERIES
        ]
        summary = self._summary(judged, verdicts, status)
        (options.output / "samples.json").write_text(
            json.dumps({"summary": summary, "samples": samples}, indent=1)
        )
        title = (
            f"{summary['minutes']:.0f} minutes, {summary['websockets']:,} WebSockets, "
            f"{summary['heard']:,} messages, {summary['requests']:,} requests"
        )
        if not options.no_plot:
            plot(samples, verdicts, warm_up_s=warm_up_s, title=title, path=options.plot)
        print(title)
        for verdict in verdicts:
            print(f"  {verdict}")
        print(
            f"  CPU: server {summary['server_cpu']:.1%}, clients {summary['client_cpu']:.1%} of a "
            f"core; the slowest answer took {summary['slowest_s']:.2f} s"
        )
        for problem in crowd.problems:
            print(f"  {problem}")
        if status:
            print(f"  the server ended with {status}:\n{self._server.tail()}")
        return 0 if summary["passed"] else 1

    def _summary(
        self, judged: list[dict[str, float]], verdicts: list[Verdict], status: int
    ) -> dict[str, Any]:
        first, last = self._samples[0], self._samples[-1]
        lasted_s = last["at_s"] - first["at_s"]
        return {
            "minutes": last["at_s"] / 60,
            "python": platform.python_version(),
            **{name: self._crowd.seen[name] for name in _COUNTED},
            "problems": self._crowd.problems,
            "server_cpu": (last["cpu_s"] - first["cpu_s"]) / lasted_s,
            "client_cpu": (last["client_cpu_s"] - first["client_cpu_s"]) / lasted_s,
            "slowest_s": max(sample["slowest_s"] for sample in judged),
            "exit_status": status,
            "verdicts": [
                {
                    **{k: v for k, v in asdict(each).items() if k != "series"},
                    "series": each.series.key,
                    "flat": each.flat,
                }
                for each in verdicts
            ],
            "passed": status == 0
            and not self._crowd.failures
            and all(each.flat for each in verdicts),
        }


_COUNTED = ("websockets", "said", "heard", "requests", "farewells", "failures")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python3 -m soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--minutes", type=float, default=10, help="how long (10)")
    add("--visitors", type=int, default=Load().visitors, help="WebSockets at a time (100)")
    add("--every", type=float, default=5, metavar="SECONDS", help="between two samples (5)")
    add("--warm-up", type=float, default=0.2, metavar="SHARE", help="not judged (0.2 of the run)")
    add("--seed", default="1", help="where chance begins (1)")
    add(
        "--serve",
        action="append",
        default=[],
        metavar="OPTION",
        help="more for headrace serve, as --serve=--workers=2",
    )
    add("--output", type=Path, default=REPORTS, metavar="FOLDER", help="for samples and the log")
    add("--plot", type=Path, metavar="FILE", help="where the plot goes; else into the folder")
    add("--no-plot", action="store_true", help="do without the plot, and without matplotlib")
    options = parser.parse_args()
    # The path of a Unix socket is short, and its folder the user's own.
    options.socket = Path(tempfile.mkdtemp(prefix="soak-")) / "control"
    if options.plot is None:
        options.plot = options.output / "soak.svg"
    return options


if __name__ == "__main__":
    sys.exit(main())
