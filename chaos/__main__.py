"""``python3 -m chaos``: break things, and reconcile what was sent with what arrived.

Prints the account of each fault, and of all; the exit status is 1 when anything was lost untold,
came twice or out of order, or did not recover. What is random comes from the seed.
"""

import argparse
import shutil
import signal
import sys
import time
from pathlib import Path

from .account import Account
from .scenarios import SCENARIOS, Scenario
from .stage import ROOT, StageError

REPORTS = ROOT / "reports" / "chaos"

HEADS = {
    "accepted": "accepted",
    "refused": "refused",
    "undecided": "undecided",
    "due": "due",
    "arrived": "arrived",
    "gone": "gone",
    "told": "told",
    "counted": "counted",
    "untold": "UNTOLD",
    "duplicated": "TWICE",
    "reordered": "DISORDER",
    "failures": "FAILED",
}
LEGEND = """\
accepted, refused  messages whose send returned, or raised; undecided: their sender was killed
due, arrived       deliveries of accepted messages to members that were there
gone               the member was killed, or its connection ended
told, counted      lost: within a gap that the member was told of; dropped by policy and counted
UNTOLD             lost, and nobody said so
FAILED             calls that hung, targets that never recovered, promises that were broken"""


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, and stops what runs
    _print_line("", HEADS, "seconds")
    total, clean = Account(), True
    for number in range(options.rounds):
        for scenario in options.scenarios:
            account = _run(scenario, str(options.seed + number), options)
            total += account
            clean &= account.is_clean
    _print_line("all", _figures(total), "")
    print(f"\n{LEGEND}")
    return 0 if clean else 1


def _run(scenario: Scenario, seed: str, options: argparse.Namespace) -> Account:
    directory = options.output / f"{scenario.key}-{seed}"
    shutil.rmtree(directory, ignore_errors=True)
    began = time.monotonic()
    try:
        account = scenario.run(seed=seed, seconds=options.seconds, directory=directory)
    except (StageError, AssertionError) as error:
        account = Account()
        account.fail(str(error))
    _print_line(scenario.key, _figures(account), f"{time.monotonic() - began:.0f}")
    if options.verbose or not account.is_clean:
        for why, times in sorted(account.refusals.items()):
            print(f"    refused by {why}: {times}")
        for problem in account.problems:
            print(f"    {problem}")
    if account.is_clean and not options.keep:
        shutil.rmtree(directory)
    else:
        shown = directory.relative_to(ROOT) if directory.is_relative_to(ROOT) else directory
        print(f"    --only {scenario.key} --seed {seed}; journals and logs: {shown}")
    sys.stdout.flush()
    return account


def _figures(account: Account) -> dict[str, str]:
    return {name: f"{getattr(account, name):,}" for name in HEADS}


def _print_line(first: str, figures: dict[str, str], last: str) -> None:
    cells = [value.rjust(10) for name, value in figures.items()]
    print(f"{first:16}{''.join(cells)} {last:>8}", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python3 -m chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="faults:\n"
        + "\n".join(f"  {scenario.key:16} {scenario.title}" for scenario in SCENARIOS),
    )
    add = parser.add_argument
    add("--only", default="", metavar="A,B", help="only these faults, or all whose names begin so")
    add("--seed", type=int, default=1, help="where chance begins (1)")
    add("--rounds", type=int, default=1, help="everything so often, each time with the next seed")
    add("--seconds", type=float, default=8, help="how long things are broken, each fault (8)")
    add("--output", type=Path, default=REPORTS, metavar="FOLDER", help="for journals and logs")
    add("--keep", action="store_true", help="keep the journals and logs of clean runs too")
    add("--verbose", action="store_true", help="say why sends were refused")
    options = parser.parse_args()
    chosen = [name.strip() for name in options.only.split(",") if name.strip()]
    for name in chosen:
        if not any(scenario.key.startswith(name) for scenario in SCENARIOS):
            parser.error(f"--only: no such fault: {name}")
    options.scenarios = [
        scenario
        for scenario in SCENARIOS
        if not chosen or any(scenario.key.startswith(name) for name in chosen)
    ]
    return options


if __name__ == "__main__":
    sys.exit(main())
