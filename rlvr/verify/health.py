"""Whether the verifiers can still be trusted: the last verdicts of each part, what they must not look like.

    verdicts of a step --> masked too often?        warn, then stop
                       --> all alike, suddenly?     ask again about earlier completions: still the same? warn, else stop
                       --> passes that look hacked, an audit that disagrees?      warn
                       --> made in a sandbox that protects little?                warn

Knows verdicts and `verify.*` of the recipe. It cannot start a verifier; `again` does, for whoever owns the pipeline.
What it has seen can be put into a checkpoint (`to_json`) and taken out again (`from_json`): a resume is no fresh start.
"""

import json
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from rlvr.config import Recipe, RunError
from rlvr.records import completion_records, group_of
from rlvr.types import Group, Provenance
from rlvr.verify.monitor import TRAINABLE, disagrees, metrics, passes, words
from rlvr.verify.plan import AUDIT
from rlvr.verify.suspicion import signs

FEW = 100  # verdicts below which no share of masked ones stops a run
SPLIT = 0.2  # of the verdicts before a uniform stretch, those that were different: a verifier that told things apart
CHANGED = 0.25  # of the earlier completions: a judge of flesh or of weights may waver on some
CONTROLS = 4  # groups that are kept to ask about again
HACKED = 0.1  # of the passes; of the audited completions
ENOUGH = 50  # passes, or audited completions, that such a share is taken of
UNPROTECTED = {"filtered": "read and write what this user may", "limited": "do all that this user may"}


class VerifiersFailed(RunError):
    """Verdicts that cannot be trusted: the policy cannot do that, a broken verifier can."""


@dataclass
class Stretch:
    """How many of the last rewards are the same, and up to FEW of those before them."""

    value: float | None = None
    length: int = 0
    before: deque[float] = field(default_factory=lambda: deque(maxlen=FEW))

    def add(self, value: float) -> None:
        if value != self.value:
            self.before.extend([self.value] * min(self.length, FEW) if self.value is not None else [])
            self.value, self.length = value, 0
        self.length += 1

    def told_apart(self, least: int) -> bool:
        """Whether those before the stretch, at least so many, were not all but the same."""
        usual = max(Counter(self.before).values(), default=0)
        return len(self.before) >= least and 1 - usual / len(self.before) >= SPLIT


@dataclass
class Watched:
    """The recent past of one part."""

    masked: deque[bool]
    reasons: deque[str]
    suspicious: deque[str]  # of its passes: the signs, or nothing
    disagreed: deque[bool]
    stretch: Stretch = field(default_factory=Stretch)
    controls: deque[Group] = field(default_factory=lambda: deque(maxlen=CONTROLS))
    warned: set[str] = field(default_factory=set)

    def to_json(self) -> dict[str, Any]:
        """Strict JSON. A control whose row holds more than JSON can is left out: others come with the next steps."""
        return {
            **{name: list(getattr(self, name)) for name in PAST},
            "stretch": [self.stretch.value, self.stretch.length, list(self.stretch.before)],
            "controls": [records for group in self.controls if is_json(records := list(completion_records([group])))],
            "warned": sorted(self.warned),
        }

    def from_json(self, saved: Mapping[str, Any]) -> None:
        """In place: the windows keep the lengths that the recipe has today."""
        for name in PAST:
            getattr(self, name).extend(saved[name])
        self.stretch.value, self.stretch.length, before = saved["stretch"]
        self.stretch.before.extend(before)
        self.controls.extend(map(group_of, saved["controls"]))
        self.warned |= set(saved["warned"])


PAST = ("masked", "reasons", "suspicious", "disagreed")


def is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


class Health:
    def __init__(self, cfg: Recipe, tell: Callable[[str], None], again: Callable[[Sequence[Group]], list[Group]]):
        """`tell` takes a warning; `again` judges groups once more."""
        self.reward, self.verify, self.tell, self.again = cfg.reward, cfg.verify, tell, again
        self.from_json({})

    def step(self, groups: Sequence[Group]) -> dict[str, float]:
        """The step's metrics; VerifiersFailed when its verdicts should not be trained on."""
        signs_of = cache(signs)  # a text is looked at once, however many parts it passes
        self._see(groups, signs_of)
        self._check_step(groups)
        for part, seen in self.parts.items():
            self._check_masked(part, seen)
            self._check_sudden(part, seen)
            self._check_hacks(part, seen)
        for part, seen in self.parts.items():
            seen.controls.extend(group for group in groups if len(set(rewards_of(part, group))) > 1)
        return metrics(groups, signs_of, self.verify.window)

    def to_json(self) -> dict[str, Any]:
        """What was seen so far, for a checkpoint."""
        return {part: seen.to_json() for part, seen in self.parts.items()}

    def from_json(self, saved: Mapping[str, Any]) -> None:
        """Go on from there, and forget what was seen since. Parts that the recipe no longer has are forgotten too, new
        ones begin empty."""
        window = self.verify.window
        self.parts = {
            part: Watched(deque(maxlen=window), deque(maxlen=window), deque(maxlen=window), deque(maxlen=window))
            for part in self.reward.parts
        }
        for part in set(self.parts) & set(saved):
            self.parts[part].from_json(saved[part])

    def _see(self, groups: Sequence[Group], signs_of: Callable[[str], list[str]]) -> None:
        passing: dict[str, deque[str]] = defaultdict(lambda: deque(maxlen=self.verify.window))
        for completion, said in words(groups):
            for part, records in said.items():
                if part.startswith(AUDIT):
                    part = part.removeprefix(AUDIT)
                    if (differs := disagrees(said[part][-1], records[-1])) is not None:
                        self.parts[part].disagreed.append(differs)
                else:
                    record, seen = records[-1], self.parts[part]
                    self._note(seen, record)
                    self._check_sandbox(part, seen, record.sandbox_level)
                    if passes(record):
                        passing[part].append(completion.written)
        for part, texts in passing.items():  # of more than the window remembers, the last ones
            self.parts[part].suspicious.extend(", ".join(signs_of(text)) for text in texts)

    def _note(self, seen: Watched, record: Provenance) -> None:
        trainable = record.outcome in TRAINABLE
        seen.masked.append(not trainable)
        seen.reasons.append("" if trainable else f"{record.outcome} {record.reason}")
        if trainable and record.reward is not None:
            seen.stretch.add(record.reward)

    def _check_sandbox(self, part: str, seen: Watched, level: str) -> None:
        """Once for each level: that it was allowed is no reason to forget it."""
        if level in UNPROTECTED and f"sandbox {level}" not in seen.warned:
            seen.warned.add(f"sandbox {level}")
            self.tell(f"{part}: programs run at sandbox level {level}: they could {UNPROTECTED[level]} "
                      "(min_level=confined refuses)")  # fmt: skip

    def _check_step(self, groups: Sequence[Group]) -> None:
        verdicts = [verdict for group in groups for verdict in group.verdicts]
        if any(verdict.trainable for verdict in verdicts):
            return
        (reason, detail), count = Counter((v.reason, v.detail) for v in verdicts).most_common(1)[0]
        raise VerifiersFailed(
            f"none of the {len(verdicts)} completions of this step got a reward; "
            f"{count} times {reason}: {detail or 'no detail'}"
        )

    def _check_masked(self, part: str, seen: Watched) -> None:
        share, count = sum(seen.masked) / max(len(seen.masked), 1), len(seen.masked)
        reasons = Counter(reason for reason in seen.reasons if reason)
        worst = ", ".join(f"{reason} {times}" for reason, times in reasons.most_common(3))
        said = f"{part}: {share:.1%} of its last {count} verdicts are masked ({worst})"
        if share > self.verify.mask_stop and count >= min(FEW, self.verify.window) and part in self.reward.decisive():
            raise VerifiersFailed(f"{said} > verify.mask_stop {self.verify.mask_stop:.0%}")
        full = count == self.verify.window
        self._warn(seen, "masked", full and share > self.verify.mask_warn, share <= self.verify.mask_warn / 2,
                   f"{said} > verify.mask_warn {self.verify.mask_warn:.0%}")  # fmt: skip

    def _check_sudden(self, part: str, seen: Watched) -> None:
        stretch, least = seen.stretch, min(FEW, self.verify.window)
        if stretch.length < self.verify.window:
            seen.warned.discard("sudden")
            return
        if "sudden" in seen.warned or not stretch.told_apart(least):
            return
        seen.warned.add("sudden")
        # a resume may have changed the size of groups, and they are asked about together
        asked = [group for group in seen.controls if len(group.completions) == len(seen.controls[-1].completions)]
        told = f"{part}: its last {stretch.length} verdicts are all {stretch.value:g}, and it used to tell them apart"
        if not asked:
            self.tell(f"{told}; no group that it judged in two ways is at hand to ask again: read some in completions/")
            return
        changed = total = 0
        for group, now in zip(asked, self.again(asked), strict=True):
            pairs = list(zip(rewards_of(part, group), rewards_of(part, now), strict=True))
            changed, total = changed + sum(a != b for a, b in pairs), total + len(pairs)
        if changed > CHANGED * total:
            told += f"; asked again about {total} earlier completions, it changes its mind about {changed}"
            if self.verify.sudden == "stop":
                raise VerifiersFailed(f"{told}: it is broken (verify.sudden=warn goes on)")
            self.tell(f"{told}: it is broken")
        else:
            self.tell(f"{told}; it stands by its verdicts on {total} earlier ones: it is the policy that changed")

    def _check_hacks(self, part: str, seen: Watched) -> None:
        found = Counter(sign for sign in seen.suspicious if sign)
        share = found.total() / max(len(seen.suspicious), 1)
        worst = ", ".join(f"{sign} {times}" for sign, times in found.most_common(3))
        self._warn(seen, "suspicious", share > HACKED and len(seen.suspicious) >= ENOUGH, share <= HACKED / 2,
                   f"{part}: {share:.1%} of its last {len(seen.suspicious)} passes look like hacks ({worst}): "
                   "read some in completions/")  # fmt: skip
        share = sum(seen.disagreed) / max(len(seen.disagreed), 1)
        self._warn(seen, "audit", share > HACKED and len(seen.disagreed) >= ENOUGH, share <= HACKED / 2,
                   f"{part}: the audit disagrees on {share:.1%} of the last {len(seen.disagreed)} completions that it "
                   "looked at")  # fmt: skip

    def _warn(self, seen: Watched, about: str, bad: bool, well: bool, text: str) -> None:
        """Once, until it is well again."""
        if bad and about not in seen.warned:
            seen.warned.add(about)
            self.tell(text)
        elif well:
            seen.warned.discard(about)


def rewards_of(part: str, group: Group) -> list[float | None]:
    """Of each completion what decided; None where the part said nothing."""
    return [next((r.reward for r in reversed(v.provenance) if r.part == part), None) for v in group.verdicts]
