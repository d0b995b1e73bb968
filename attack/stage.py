"""One attack: a server, a good client, the enemies, and the verdict.

Rules of this file:

- What was measured decides, and nothing else: how long the good client waited, what the kernel says
  of the server's memory and descriptors, what the enemies got.
- Quiet is measured in the same run, before and after: on a busy machine it is not quiet either.
- A stall must show again: where the good client waited too long, the attack is run twice more, and
  the median of the three decides. Everything else is decided by the first run.
"""

import contextlib
import json
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .enemy import Attack
from .served import ROOT, Served, ServeError, Vitals

__all__ = ["Finding", "Judge", "run"]

MIB = 2**20
#: How long the good client may wait under attack, in times of what it waits in quiet.
PATIENCE = 10.0
#: What of the memory may stay: what was used for the first time, and free pages that the
#: allocator keeps for the next time.
KEPT_BYTES = 32 * MIB
QUIET_S = 2.0
#: Enemies that do not come to an end by themselves are ended.
GRACE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """How strictly it is judged."""

    seconds: float = 5.0
    quiet_s: float = QUIET_S
    #: A quiet time below this counts as this.
    floor_s: float = 0.001
    #: How long memory and descriptors have to return.
    return_s: float = 20.0
    rounds: int = 3


@dataclass(slots=True)
class Finding:
    """What one attack did."""

    key: str
    title: str
    blows: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    samples: int = 0
    quiet_p99_s: float = 0.0
    attack_p99_s: float = 0.0
    grown_bytes: int = 0
    limit_bytes: int = 0
    kept_bytes: int = 0
    kept_descriptors: int = 0
    violations: list[str] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        return self.attack_p99_s / self.quiet_p99_s if self.quiet_p99_s else 0.0

    @property
    def passed(self) -> bool:
        return not self.violations


def run(
    attack: type[Attack],
    judge: Judge,
    *,
    directory: Path,
    seed: str,
    weak: Sequence[str] = (),
) -> Finding:
    """Run it, and judge it."""
    findings = [_once(attack, judge, directory / attack.key, seed, weak)]
    finding = findings[0]
    if _waits(finding) > 0:
        while len(findings) < judge.rounds:
            findings.append(_once(attack, judge, directory / attack.key, seed, weak))
        middle = statistics.median_low([each.ratio for each in findings])
        [decisive, *_] = [each for each in findings if each.ratio == middle]
        finding.quiet_p99_s = decisive.quiet_p99_s
        finding.attack_p99_s = decisive.attack_p99_s
        if _waits(decisive) > 0:
            finding.violations.append(
                f"the good client's p99 was {finding.attack_p99_s * 1000:.1f} ms, "
                f"{finding.ratio:.1f} times its quiet one"
            )
    return finding


def _waits(finding: Finding) -> float:
    """By how much the good client waits too long."""
    return finding.attack_p99_s - PATIENCE * finding.quiet_p99_s


def _once(
    attack: type[Attack], judge: Judge, directory: Path, seed: str, weak: Sequence[str]
) -> Finding:
    finding = Finding(attack.key, attack.title(), limit_bytes=attack.memory_bytes)
    wrong = finding.violations.append
    server = Served(
        attack.application,
        "--no-access-log",
        *(weak or attack.serve),
        command=attack.command or (),
        log=directory / "server.log",
    )
    try:
        with server:
            _measure(attack, server, judge, finding, directory, seed)
            if server.stop() != 0:
                wrong(f"the server did not stop in order: {server.process.returncode}")
    except ServeError as error:
        wrong(str(error))
    return finding


def _measure(
    attack: type[Attack],
    server: Served,
    judge: Judge,
    finding: Finding,
    directory: Path,
    seed: str,
) -> None:
    wrong = finding.violations.append
    with _bystander(server, attack) as bystander:
        began = time.monotonic()
        time.sleep(judge.quiet_s)
        before = server.vitals()
        attacked = time.monotonic()
        told = _assail(attack, server, judge.seconds, directory, seed)
        ceased = time.monotonic()
        peak_bytes = server.peak_bytes()
        after = _returned(server, before, judge.return_s + attack.lingers_s)
        resumed = time.monotonic()
        time.sleep(judge.quiet_s)
        if server.ended:
            wrong(f"the server ended by itself:\n{server.tail()}")
            return
    measured = bystander()

    finding.blows = told["blows"]
    finding.outcomes = told["outcomes"]
    finding.violations += told["violations"]
    finding.violations += _undeserved(attack, told["outcomes"])
    quiet = _samples(measured, began, attacked) + _samples(measured, resumed, time.monotonic())
    under = _samples(measured, attacked, ceased)
    finding.samples = len(under)
    finding.quiet_p99_s = max(judge.floor_s, _p99(quiet))
    finding.attack_p99_s = _p99(under)
    for problem in measured["problems"]:
        wrong(f"the good client failed: {problem}")
    if not under or not quiet:
        wrong("the good client has measured nothing")
    finding.grown_bytes = peak_bytes - before.rss_bytes
    if finding.grown_bytes > attack.memory_bytes:
        wrong(
            f"memory grew by {finding.grown_bytes / MIB:.0f} MiB, "
            f"beyond {attack.memory_bytes / MIB:.0f}"
        )
    finding.kept_bytes = after.rss_bytes - before.rss_bytes
    finding.kept_descriptors = after.descriptors - before.descriptors
    if finding.kept_bytes > KEPT_BYTES:
        wrong(f"{finding.kept_bytes / MIB:.0f} MiB did not return in {judge.return_s:g} s")
    if finding.kept_descriptors > 0:
        wrong(f"{finding.kept_descriptors} descriptors did not return in {judge.return_s:g} s")


def _assail(
    attack: type[Attack], server: Served, seconds: float, directory: Path, seed: str
) -> dict[str, Any]:
    host, port = server.address
    command = [sys.executable, "-m", "attack.assail", attack.key, host, str(port)]
    command += [str(seconds), seed]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            capture_output=True,
            check=False,
            timeout=max(seconds, attack.least_s) + GRACE_S,
        )
    except subprocess.TimeoutExpired:
        return {"outcomes": {}, "blows": 0, "violations": ["the enemies did not come to an end"]}
    if done.returncode:
        text = done.stderr.decode(errors="replace")
        (directory / "enemies.log").write_text(text)
        return {"outcomes": {}, "blows": 0, "violations": [f"the enemies failed: {text[-800:]}"]}
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def _undeserved(attack: type[Attack], outcomes: dict[str, int]) -> list[str]:
    """What the enemies got and should not have, or that they got nothing."""
    # What was going on when time was up has not had its outcome yet.
    ended = {outcome: number for outcome, number in outcomes.items() if outcome != "held"}
    wrong = [
        f"{number} enemies got {outcome}, not {' or '.join(sorted(attack.deserves))}"
        for outcome, number in ended.items()
        if outcome not in attack.deserves
    ]
    if not attack.deserves & outcomes.keys():
        wrong.append(f"no enemy got {' or '.join(sorted(attack.deserves))}")
    return wrong


def _returned(server: Served, before: Vitals, within_s: float) -> Vitals:
    """The vitals once memory and descriptors have returned, or time is up."""
    deadline = time.monotonic() + within_s
    while True:
        vitals = server.vitals()
        kept_bytes = vitals.rss_bytes - before.rss_bytes
        returned = vitals.descriptors <= before.descriptors and kept_bytes <= KEPT_BYTES
        if returned or time.monotonic() > deadline:
            return vitals
        time.sleep(0.1)


@contextlib.contextmanager
def _bystander(server: Served, attack: type[Attack]) -> Iterator[Callable[[], dict[str, Any]]]:
    """Start the good client; after the block, what it has measured can be asked for."""
    host, port = server.address
    command = [sys.executable, "-m", "attack.bystander", host, str(port), *attack.paths]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    measured: dict[str, Any] = {"samples": [], "problems": ["it did not end"]}
    try:
        assert process.stdout is not None
        select.select(
            [process.stdout], [], [], GRACE_S
        )  # it says when all its connections are there
        yield lambda: measured
        with contextlib.suppress(subprocess.TimeoutExpired, ValueError):
            measured.update(json.loads(process.communicate(timeout=30)[0]))
    finally:
        process.kill()
        process.wait()


def _samples(measured: dict[str, Any], began: float, ended: float) -> list[float]:
    return [
        took_s
        for _, due, took_s in measured["samples"]
        if took_s is not None and began <= due < ended
    ]


def _p99(samples: Sequence[float]) -> float:
    ordered = sorted(samples)
    return ordered[int(len(ordered) * 0.99)] if ordered else 0.0
