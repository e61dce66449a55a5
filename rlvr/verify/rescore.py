"""The completions that a run recorded, judged again: by its own verifiers as they are today, or by another one."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from rlvr.config import RecipeError
from rlvr.records import completion_files, group_of
from rlvr.types import Group, Provenance
from rlvr.verify.judge import Judge
from rlvr.verify.monitor import words
from rlvr.verify.plan import Plan

TOGETHER = 32  # groups that are judged at a time, for all processes to have work
REWARD = "reward"


@dataclass(frozen=True, slots=True)
class Recorded:
    """A group as it was written, with the step that it was sampled for."""

    step: int
    group: Group


def recorded(run: Path, warn: Callable[[str], None]) -> Iterator[Recorded]:
    """Every group in completions/, step by step. A group with a line that cannot be read is left out whole, and `warn`
    hears of it: what is left of a group may be judged otherwise."""
    files = completion_files(run)
    if not files:
        raise RecipeError(f"{run}/completions holds no completions (log.completions_every=0?)")
    for step, path in files:
        for records in groups_in(path, warn):
            try:
                group = group_of(records)
            except (OverflowError, ValueError, TypeError, KeyError) as error:
                said = f"{type(error).__name__}: {error}"
                warn(f"{path}: a group's records are not as a run writes them ({said}); the group is left out")
                continue
            yield Recorded(step, group)


def groups_in(path: Path, warn: Callable[[str], None]) -> Iterator[list[dict[str, Any]]]:
    """The records of each group whose lines are all whole."""
    group: list[dict[str, Any]] = []
    torn = False
    for number, line in enumerate(lines_of(path), 1):
        try:
            record = json.loads(line)
            first = record["index"] == 0
        except (ValueError, TypeError, KeyError) as error:
            warn(f"{path}, line {number}: no record of a completion ({error}); its group is left out")
            torn = True
            continue
        if first and group and not torn:
            yield group
        if first:
            group, torn = [], False
        group.append(record)
    if group and not torn:
        yield group


def lines_of(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from filter(None, (line.removesuffix(b"\n") for line in file))


def together(entries: Iterable[Recorded], plan: Plan) -> Iterator[list[Recorded]]:
    """What is judged at once: some groups of a step; behind them, at once, all of those about which a verifier is asked
    that compares all that it is asked about. Only these are held."""
    for _, of_step in groupby(entries, lambda entry: entry.step):
        compared: list[Recorded] = []
        for _, some in groupby(not_compared(of_step, plan, compared), size):
            while share := list(islice(some, TOGETHER)):
                yield share
        for _, some in groupby(compared, size):
            yield list(some)


def not_compared(entries: Iterable[Recorded], plan: Plan, compared: list[Recorded]) -> Iterator[Recorded]:
    """As they come; the others are put into `compared`."""
    for entry in entries:
        asked = (one for part in plan.chains for one in plan.chain(part, entry.group.prompt))
        if any(one.verifier.scope == "batch" for one in asked):
            compared.append(entry)
        else:
            yield entry


def size(entry: Recorded) -> int:
    return len(entry.group.completions)


@dataclass(frozen=True, slots=True)
class Change:
    """One verdict that is not what it was. Change(12, "train-7", 3, "math", "ok equal 1", "ok differs 0")"""

    step: int
    prompt: str
    index: int
    part: str  # REWARD for what was made of the parts
    before: str
    after: str


def changes(entries: Sequence[Recorded], judge: Judge, renamed: dict[str, str]) -> Iterator[Change]:
    """What each part says now, asked about all of these at once, and said then. `renamed`: a part's own name, where
    another verifier stands in for it."""
    for entry, now in zip(entries, judge.verify_groups([entry.group for entry in entries]), strict=True):
        yield from changed(entry, now, renamed)


def changed(entry: Recorded, now: Group, renamed: dict[str, str]) -> Iterator[Change]:
    for i, ((_, old), (_, new)) in enumerate(zip(words([entry.group]), words([now]), strict=True)):
        for part, records in new.items():
            before = old.get(renamed.get(part, part))
            pair = said(before[-1]) if before else "nothing", said(records[-1])
            if pair[0] != pair[1]:
                yield Change(entry.step, entry.group.prompt.id, i, part, *pair)
        before_v, after_v = entry.group.verdicts[i], now.verdicts[i]
        if not renamed and before_v.reward != after_v.reward:
            yield Change(entry.step, entry.group.prompt.id, i, REWARD, f"{before_v.reward}", f"{after_v.reward}")


def said(record: Provenance) -> str:
    """Outcome, reason and reward; a reward that differs by rounding is the same."""
    reward = "" if record.reward is None else f" {record.reward:.6g}"
    return f"{record.outcome} {record.reason}{reward}"


class Tally:
    """How many of how many changed, which ways, and where to look: of each way a count and the first example."""

    def __init__(self) -> None:
        self.groups = self.completions = 0
        self.ways: Counter[tuple[str, str, str]] = Counter()  # (part, before, after)
        self.examples: dict[tuple[str, str, str], Change] = {}

    def add(self, entries: Sequence[Recorded], found: Iterable[Change]) -> None:
        self.groups += len(entries)
        self.completions += sum(len(entry.group.completions) for entry in entries)
        for change in found:
            way = (change.part, change.before, change.after)
            self.ways[way] += 1
            self.examples.setdefault(way, change)

    def sentences(self) -> list[str]:
        rewards = sum(times for (part, *_), times in self.ways.items() if part == REWARD)
        counted = f"{self.ways.total() - rewards} verdicts changed" + (f", and {rewards} rewards" if rewards else "")
        lines = [f"{self.completions} completions of {self.groups} groups judged again; {counted}"]
        for way, times in self.ways.most_common(20):
            part, before, after = way
            example = self.examples[way]
            where = f"step {example.step}, prompt {example.prompt}, completion {example.index}"
            lines.append(f"  {times:6} {part}: {before} -> {after}   e.g. {where}")
        return lines
