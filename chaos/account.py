"""The reconciliation: what was accepted against what arrived, message by message.

Rules of this file:

- It computes from journals alone, so that a run can be judged again and the judge be tested.
- A message is *due* at a member when its send began after the member's join had returned, was
  accepted, and the member had not ended by then. Each due message has arrived once, in the
  order of its sender, or it is lost in one of four ways:

  - **told**: between the messages before and behind it the member heard of a gap that covers
    the target, and not before the message was sent. A gap that is told for an earlier loss, or
    after the member has gone on to later messages, excuses nothing.
  - **counted**: the member's process counted as many drops by overflow policy.
  - **gone**: the member ended (killed, or its connection closed) before anything later came.
  - **untold**: anything else. That is what must never happen.

- A send that was refused, or that its sender did not live to see return, may have arrived or not;
  it may not arrive twice. It has no place in the order: a refused message may come late.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Self

from .journal import Entry

__all__ = ["Account", "reconcile"]

#: So many problems are described; all are counted.
DESCRIBED = 20


@dataclass(slots=True)
class Account:
    """What became of the messages of a run. ``due`` and what follows it count deliveries."""

    accepted: int = 0
    refused: int = 0
    undecided: int = 0  # the sender was killed in the midst of them
    due: int = 0
    arrived: int = 0
    told: int = 0
    counted: int = 0
    gone: int = 0
    untold: int = 0
    duplicated: int = 0
    reordered: int = 0
    gaps: int = 0
    failures: int = 0  # calls that hung, messages nobody sent, targets that never recovered
    problems: list[str] = field(default_factory=list)
    refusals: dict[str, int] = field(default_factory=dict)

    @property
    def is_clean(self) -> bool:
        return not (self.untold or self.duplicated or self.reordered or self.failures)

    def describe(self, problem: str) -> None:
        if len(self.problems) < DESCRIBED:
            self.problems.append(problem)

    def fail(self, problem: str) -> None:
        self.failures += 1
        self.describe(problem)

    def __iadd__(self, other: "Account") -> Self:
        for each in fields(self):
            if each.type is int:
                setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))
        for problem in other.problems:
            self.describe(problem)
        for why, number in other.refusals.items():
            self.refusals[why] = self.refusals.get(why, 0) + number
        return self


@dataclass(slots=True)
class _Sent:
    tried_ns: int
    accepted: bool | None = None


@dataclass(slots=True)
class _Arrival:
    place: int  # among everything that the member's process wrote down
    number: int


@dataclass(slots=True)
class _Gap:
    place: int
    ns: int
    groups: frozenset[str] | None


@dataclass(slots=True)
class _Member:
    process: str
    joined: dict[str, int] = field(default_factory=dict)
    arrivals: dict[tuple[str, str], list[_Arrival]] = field(default_factory=dict)
    gaps: list[_Gap] = field(default_factory=list)
    ended_ns: int | None = None


#: What each sender sent to each target, by number.
_Sends = dict[tuple[str, str], dict[int, _Sent]]


def reconcile(
    journals: Mapping[str, Sequence[Entry]],
    *,
    killed: Mapping[str, int] | None = None,
    healed_ns: int | None = None,
) -> Account:
    """Return the account of a run.

    Args:
        journals: The entries of each process, by its name.
        killed: When processes were killed on purpose (monotonic nanoseconds), by name.
        healed_ns: When the last fault was over: each sender that lives has to get something
            accepted by each of its targets after that.
    """
    return _Reconciliation(journals, killed or {}, healed_ns).account


class _Reconciliation:
    def __init__(
        self,
        journals: Mapping[str, Sequence[Entry]],
        killed: Mapping[str, int],
        healed_ns: int | None,
    ) -> None:
        self.account = Account()
        self.killed = killed
        self.sends: _Sends = defaultdict(dict)
        self.surviving: set[str] = set()
        self.members: dict[str, _Member] = {}
        self.drops: dict[str, int] = {}
        for process, entries in journals.items():
            self._read(process, entries)
        self._count_sends(healed_ns)
        readers: dict[str, list[tuple[str, _Member]]] = defaultdict(list)
        for name, member in self.members.items():
            for target in {*member.joined, *(target for target, _ in member.arrivals)}:
                if target.startswith("queue:"):
                    readers[target].append((name, member))
                else:
                    self._judge_member(name, member, target)
        for target in {target for _, target in self.sends if target.startswith("queue:")}:
            self._judge_queue(target, readers[target])

    # Reading

    def _read(self, process: str, entries: Sequence[Entry]) -> None:
        over = not any(entry[1] in ("join", "try") for entry in entries)
        for place, (ns, kind, *rest) in enumerate(entries):
            match kind:
                case "try":
                    sender, target, number = rest
                    self.sends[sender, target][number] = _Sent(ns)
                    if process not in self.killed:
                        self.surviving.add(sender)
                case "ok":
                    sender, target, number = rest
                    self.sends[sender, target][number].accepted = True
                case "no":
                    sender, target, number, why = rest
                    self.sends[sender, target][number].accepted = False
                    self.account.refusals[why] = self.account.refusals.get(why, 0) + 1
                case "hung":
                    sender, target, number = rest
                    self.account.fail(f"{sender}: sending {number} to {target} never returned")
                case "join":
                    self._member(process, rest[0]).joined.setdefault(rest[1], ns)
                case "got":
                    name, target, sender, number = rest
                    arrivals = self._member(process, name).arrivals
                    arrivals.setdefault((target, sender), []).append(_Arrival(place, number))
                case "gap":
                    name, groups, _ = rest
                    covered = None if groups is None else frozenset(groups)
                    self._member(process, name).gaps.append(_Gap(place, ns, covered))
                    self.account.gaps += 1
                case "end":
                    self._member(process, rest[0]).ended_ns = ns
                case "stats":
                    self.drops[process] = rest[0].get("dropped", 0)
                case "over":
                    over = True
                case _:
                    raise ValueError(f"{process}: no such kind of entry: {kind!r}")
        if not over and process not in self.killed:
            self.account.fail(f"{process} ended by itself, or did not end when it was asked to")

    def _member(self, process: str, name: str) -> _Member:
        member = self.members.get(name)
        if member is None:
            member = self.members[name] = _Member(process, ended_ns=self.killed.get(process))
        return member

    def _count_sends(self, healed_ns: int | None) -> None:
        account = self.account
        for (sender, target), sends in self.sends.items():
            for sent in sends.values():
                if sent.accepted is None:
                    account.undecided += 1
                elif sent.accepted:
                    account.accepted += 1
                else:
                    account.refused += 1
            if healed_ns is None or sender not in self.surviving:
                continue
            if target.startswith("channel:") and self._has_ended(target):
                continue
            if not any(sent.accepted and sent.tried_ns >= healed_ns for sent in sends.values()):
                account.fail(f"{sender}: {target} took nothing any more after the last fault")

    def _has_ended(self, target: str) -> bool:
        members = [member for member in self.members.values() if target in member.joined]
        return all(member.ended_ns is not None for member in members)

    # Judging

    def _judge_member(self, name: str, member: _Member, target: str) -> None:
        since_ns = member.joined.get(target)
        senders = [sender for sender, sent_to in self.sends if sent_to == target]
        for sender in senders:
            sends = self.sends[sender, target]
            arrivals = member.arrivals.get((target, sender), [])
            seen = self._judge_arrivals(f"{name}: {target} from {sender}", arrivals, sends)
            if since_ns is None:
                continue
            until_ns = member.ended_ns
            due = [
                number
                for number, sent in sends.items()
                if sent.accepted
                and sent.tried_ns >= since_ns
                and (until_ns is None or sent.tried_ns < until_ns)
            ]
            self.account.due += len(due)
            self.account.arrived += sum(number in seen for number in due)
            missing = [number for number in due if number not in seen]
            if missing:
                self._judge_missing(name, member, target, sender, missing)
        for sent_to, sender in member.arrivals:
            if sent_to == target and sender not in senders:
                self.account.fail(f"{name}: {target} has something from {sender}, who sent nothing")

    def _judge_arrivals(
        self, where: str, arrivals: Iterable[_Arrival], sends: Mapping[int, _Sent]
    ) -> set[int]:
        seen: set[int] = set()
        last = -1
        for arrival in arrivals:
            number = arrival.number
            sent = sends.get(number)
            if sent is None:
                self.account.fail(f"{where}: {number} was never sent")
            elif number in seen:
                self.account.duplicated += 1
                self.account.describe(f"{where}: {number} came twice")
            elif sent.accepted:
                if number < last:
                    self.account.reordered += 1
                    self.account.describe(f"{where}: {number} came behind {last}")
                last = max(last, number)
            seen.add(number)
        return seen

    def _judge_missing(
        self, name: str, member: _Member, target: str, sender: str, missing: Sequence[int]
    ) -> None:
        arrivals = sorted(
            (arrival.number, arrival.place) for arrival in member.arrivals.get((target, sender), [])
        )
        numbers = [number for number, _ in arrivals]
        sends = self.sends[sender, target]
        gaps = [gap for gap in member.gaps if _covers(gap, target)]
        for number in missing:
            index = bisect_left(numbers, number)
            before = arrivals[index - 1][1] if index else -1
            behind = arrivals[index][1] if index < len(arrivals) else None
            if any(
                gap.place > before
                and (behind is None or gap.place < behind)
                and gap.ns >= sends[number].tried_ns
                for gap in gaps
            ):
                self.account.told += 1
            elif behind is None and member.ended_ns is not None:
                self.account.gone += 1
            else:
                self._lose(member.process, f"{name}: {target} from {sender}: {number} is lost")

    def _judge_queue(self, target: str, readers: Sequence[tuple[str, _Member]]) -> None:
        # A reader that is killed takes with it what it had fetched and not yet written down.
        excuses = sorted(
            member.ended_ns
            for _, member in readers
            if member.ended_ns is not None and target in member.joined
        )
        for (sender, sent_to), sends in self.sends.items():
            if sent_to != target:
                continue
            everywhere: set[int] = set()
            for name, member in readers:
                where = f"{name}: {target} from {sender}"
                arrivals = member.arrivals.get((target, sender), [])
                seen = self._judge_arrivals(where, arrivals, sends)
                for number in seen & everywhere:
                    self.account.duplicated += 1
                    self.account.describe(f"{where}: {number} went to another reader too")
                everywhere |= seen
            due = [number for number, sent in sends.items() if sent.accepted]
            self.account.due += len(due)
            self.account.arrived += sum(number in everywhere for number in due)
            for number in due:
                if number in everywhere:
                    continue
                tried_ns = sends[number].tried_ns
                excuse = next((ns for ns in excuses if ns >= tried_ns), None)
                if excuse is not None:
                    excuses.remove(excuse)
                    self.account.gone += 1
                else:
                    self._lose(None, f"{target} from {sender}: {number} is lost")

    def _lose(self, process: str | None, problem: str) -> None:
        if process is not None and self.drops.get(process, 0) > 0:
            self.drops[process] -= 1
            self.account.counted += 1
            return
        self.account.untold += 1
        self.account.describe(problem)


def _covers(gap: _Gap, target: str) -> bool:
    if gap.groups is None:
        return True
    # An event of the layer names groups. What was sent to the member's own channel has none, and
    # shares the way: whoever hears of a gap knows that of its channel too.
    kind, _, name = target.partition(":")
    return kind == "channel" or name in gap.groups
