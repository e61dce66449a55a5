"""What is known of a run's checkpoints beyond their files. One small file, replaced whole, and a copy of it.

    candidate --`probation` further steps without an alarm--> good        the sentinel goes back to good ones only
        |                                              `--a rollback to one before it--> past
        `--a rollback to one before it--> abandoned

A run never goes on from one that is past or abandoned. The abandoned are gone with the next save; the best of the past
stays, for a run that gives up in the end exports the best that it ever had.

The state after a rollback is in it too: it has no weights of its own to save, and must not be forgotten by a crash.
"""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from rlvr.checkpoint.files import write_whole

Label = Literal["candidate", "good", "past", "abandoned"]
NAME, COPY = "ledger.json", ".copy.json"
NAMED = re.compile(r"step-\d+-v\d+")
NEWEST_GOOD = 2  # a rollback needs one behind the newest
FAR = 64  # steps; most troubles are seen sooner after they began (docs/sentinel.md)


@dataclass
class Entry:
    label: Label = "candidate"
    score: float | None = None  # held-out accuracy with these weights
    problems: float | None = None  # that it is of; None in ledgers that did not say


@dataclass
class Ledger:
    path: Path
    entries: dict[str, Entry] = field(default_factory=dict)
    rollback: dict[str, Any] | None = None  # the last one's State, as JSON
    gone: list[str] = field(default_factory=list)  # that the file tells of, and that are not there

    @classmethod
    def open(cls, root: Path, tell: Callable[[str, str], None]) -> "Ledger":
        """Of the checkpoints that lie in `root`, whatever the file says of others."""
        path = root / NAME
        entries, rollback = cls._read(path, tell)
        there = {p.name for p in root.iterdir() if NAMED.fullmatch(p.name)}
        known = {name: entry for name, entry in entries.items() if name in there}
        # a crash between its rename and ours leaves a checkpoint that only its folder tells of
        unknown = {name: Entry() if step_of(name) else Entry("good") for name in sorted(there - set(known))}
        return cls(path, known | unknown, rollback, sorted(set(entries) - there))

    @staticmethod
    def _read(path: Path, tell: Callable[[str, str], None]) -> tuple[dict[str, Entry], dict[str, Any] | None]:
        """The file, or its copy where the file is damaged."""
        for place in (path, path.with_suffix(COPY)):
            if not place.exists():
                continue
            try:
                saved = json.loads(place.read_text())
                if saved["sha256"] != digest(saved["ledger"]):
                    raise ValueError("it has other content than was written")
            except (ValueError, KeyError, TypeError) as error:
                tell("warning", f"{place} is damaged ({error}): trying what else there is")
                continue
            ledger = saved["ledger"]
            return {name: Entry(**entry) for name, entry in ledger["entries"].items()}, ledger["rollback"]
        return {}, None

    def write(self) -> None:
        entries = {name: asdict(entry) for name, entry in self.entries.items()}
        ledger = {"entries": entries, "rollback": self.rollback}
        text = json.dumps({"sha256": digest(ledger), "ledger": ledger}, indent=1)
        for place in (self.path, self.path.with_suffix(COPY)):
            write_whole(place, text)

    # ---- what is there --------------------------------------------------------------------------------------------

    def usable(self) -> list[str]:
        """Names that a run may go on from, oldest version first."""
        return sorted((n for n, e in self.entries.items() if e.label in ("candidate", "good")), key=version_of)

    def newest_step(self) -> int | None:
        """That a run would go on from, damage aside; None where there is none."""
        names = self.usable()
        return step_of(names[-1]) if names else None

    def good(self, onset: int | None = None) -> list[str]:
        """Proven ones, made before step `onset` began; oldest version first."""
        before = [n for n in self.usable() if onset is None or step_of(n) < onset]
        return [n for n in before if self.entries[n].label == "good"]

    def before(self, onset: int, broken: str | None) -> str:
        """Where to go back to from a trouble that began at `onset`: the newest good one before it.

        `broken` was gone back to already, and broke again. Where none is left: that one once more, rather than one made
        in the trouble; then the oldest good one; then the oldest.
        """
        good = self.good(onset)
        choice = [n for n in good if n != broken] or good or self.good()[:1] or self.usable()[:1]
        return choice[-1]

    def best(self, onset: int) -> str:
        """By evaluation, of the good from before the trouble and the past; the latest where nothing was evaluated."""
        return self._best_of([*self.good(onset), *self.past()] or self.good() or self.usable())

    def past(self) -> list[str]:
        return [n for n, entry in self.entries.items() if entry.label == "past"]

    def _best_of(self, names: list[str]) -> str:
        """By evaluation on as many problems as the latest one's: others are harder. The latest where none behind step
        0 has one: what the untrained model is worth is always known, and says nothing of those whose worth is not."""
        found = {n: (e.score, e.problems) for n in names if (e := self.entries[n]).score is not None}
        problems = found[max(found, key=version_of)][1] if found else None
        scored = {n: score for n, (score, of) in found.items() if score is not None and of == problems}
        if not any(map(step_of, scored)):
            scored = dict.fromkeys(names, 0.0)
        return max(scored, key=lambda n: (scored[n], step_of(n), version_of(n)))

    def noted(self, name: str) -> dict[str, Any] | None:
        """The state to go on with from `name`, where the last rollback went back to it."""
        return self.rollback if self.rollback and self.rollback["restored"] == name else None

    # ---- what becomes of it -----------------------------------------------------------------------------------------

    def settle(self, step: int, probation: int) -> list[str]:
        """Those that have proved themselves by `step`, now good."""
        waiting = [n for n in self.usable() if self.entries[n].label == "candidate"]
        proven = [n for n in waiting if step_of(n) + probation <= step]
        for name in proven:
            self.entries[name].label = "good"
        return proven

    def doubt(self, name: str, onset: int) -> None:
        """What is newer than `name`, and was made since a trouble began, has proved nothing: trouble is seen late."""
        for other in self.good():
            if version_of(other) > version_of(name) and step_of(other) >= onset:
                self.entries[other].label = "candidate"

    def abandon_after(self, name: str) -> list[str]:
        """All that is newer than `name`; what was good then is past."""
        newer = [n for n in self.usable() if version_of(n) > version_of(name)]
        for other in newer:
            self.entries[other].label = "past" if self.entries[other].label == "good" else "abandoned"
        return newer

    def superfluous(self, keep: int, keep_every: int) -> list[str]:
        """What retention lets go: the abandoned ones, and all others but for

        - the `keep` newest, every `keep_every`-th, and step 0;
        - the best of all, of the good ones (a better one may yet be abandoned) and of the past ones;
        - the newest good ones, and the next to be good: else, of few and frequent ones, none would be;
        - the newest good one that is far back, and the next to be that: there is one from before any trouble;
        - the one that the last rollback went back to.
        """
        usable, good = self.usable(), self.good()
        waiting = [n for n in usable if self.entries[n].label == "candidate"]
        trained = [n for n in good if step_of(n)]
        far = [n for n in trained if step_of(n) + FAR <= step_of(usable[-1])]
        kept = {*usable[-keep:], *good[-NEWEST_GOOD:], *waiting[:1], *far[-1:], *trained[len(far) :][:1]}
        kept |= {n for n in usable if not step_of(n)}
        kept |= {n for n in usable if keep_every and step_of(n) % keep_every == 0}
        kept |= {self._best_of(names) for names in (usable, good, self.past()) if names}
        if self.rollback:
            kept.add(self.rollback["restored"])
        return [n for n in self.entries if n not in kept]


def digest(ledger: Any) -> str:
    return hashlib.sha256(json.dumps(ledger, sort_keys=True).encode()).hexdigest()


def name_of(step: int, version: int) -> str:
    return f"step-{step:08d}-v{version:08d}"


def step_of(name: str) -> int:
    return int(name.split("-")[1])


def version_of(name: str) -> int:
    return int(name.rsplit("-v", 1)[1])
