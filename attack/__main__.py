"""``python3 -m attack``: hostile clients against a real server, one kind after the other.

Each attack has a server of its own, while a good client goes on. Prints the account of each; the
exit status is 1 when the good client waited too long or failed, when memory went beyond its bound
or did not return, or when an enemy got what it does not deserve.
"""

import argparse
import json
import shutil
import signal
import sys
from dataclasses import asdict
from pathlib import Path

from .catalogue import ATTACKS, WEAK
from .enemy import raise_descriptor_limit
from .served import ROOT
from .stage import MIB, Finding, Judge, run

REPORTS = ROOT / "reports" / "attack"

LEGEND = """\
blows      requests, frames or connections of the enemies
p99        what the good client waited for 99 of 100 answers: in quiet, under attack, and the
           one in times of the other (10 at most)
memory     by how much the server grew at its peak, and the bound; kept: 20 s later at the latest
got        what the server did to the enemies; held: they were still there at the end"""


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, and stops what runs
    raise_descriptor_limit()  # the server inherits it
    judge = Judge(
        seconds=options.seconds,
        quiet_s=options.quiet,
        floor_s=options.floor / 1000,
        return_s=options.returns,
    )
    findings = []
    print(
        f"{'':20}{'blows':>11}{'quiet ms':>10}{'p99 ms':>9}{'times':>7}{'memory MiB':>14}"
        f"{'kept':>6}  got"
    )
    for attack in options.attacks:
        directory = options.output / attack.key
        shutil.rmtree(directory, ignore_errors=True)
        finding = run(
            attack,
            judge,
            directory=options.output,
            seed=options.seed,
            weak=WEAK if options.weak else (),
        )
        findings.append(finding)
        _print(finding)
    passed = all(finding.passed for finding in findings)
    print(f"\n{LEGEND}")
    if options.json is not None:
        report = [
            {**asdict(finding), "ratio": finding.ratio, "passed": finding.passed}
            for finding in findings
        ]
        options.json.write_text(json.dumps({"passed": passed, "attacks": report}, indent=1))
    return 0 if passed else 1


def _print(finding: Finding) -> None:
    memory = f"{finding.grown_bytes / MIB:.0f}/{finding.limit_bytes / MIB:.0f}"
    got = ", ".join(f"{name} {number:,}" for name, number in sorted(finding.outcomes.items()))
    print(
        f"{finding.key:20}{finding.blows:11,}{finding.quiet_p99_s * 1000:10.2f}"
        f"{finding.attack_p99_s * 1000:9.2f}{finding.ratio:7.1f}{memory:>14}"
        f"{finding.kept_bytes / MIB:6.0f}  {got}"
    )
    for violation in finding.violations:
        print(f"    VIOLATION: {violation}")
    sys.stdout.flush()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python3 -m attack",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="attacks:\n" + "\n".join(f"  {each.key:20} {each.title()}" for each in ATTACKS),
    )
    add = parser.add_argument
    add("--only", default="", metavar="A,B", help="only these, or all whose names begin so")
    add("--seconds", type=float, default=Judge().seconds, help="of each attack (5)")
    add("--quiet", type=float, default=Judge().quiet_s, help="seconds of quiet on either side (2)")
    add("--floor", type=float, default=1.0, metavar="MS", help="a quiet p99 below it is it (1 ms)")
    add(
        "--returns",
        type=float,
        default=Judge().return_s,
        metavar="SECONDS",
        help="that memory and descriptors have to return (20)",
    )
    add("--seed", default="1", help="where chance begins (1)")
    add("--weak", action="store_true", help="switch the limits off: this has to fail")
    add("--output", type=Path, default=REPORTS, metavar="FOLDER", help="for the servers' logs")
    add("--json", type=Path, metavar="FILE", help="write the account there")
    options = parser.parse_args()
    chosen = [name.strip() for name in options.only.split(",") if name.strip()]
    for name in chosen:
        if not any(attack.key.startswith(name) for attack in ATTACKS):
            parser.error(f"--only: no such attack: {name}")
    options.attacks = [
        attack
        for attack in ATTACKS
        if not chosen or any(attack.key.startswith(name) for name in chosen)
    ]
    return options


if __name__ == "__main__":
    sys.exit(main())
