"""What a table of several runs says of each, and of those that differ by their seed alone.

    [Record, ...] -> [Row, ...] -> [Seeds, ...]

Shows what the runs wrote, and measures nothing again. What a run does not say is None, and a dash in a table.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

from rlvr.observe.charts import short
from rlvr.observe.differences import Settings, differences
from rlvr.observe.record import Record, is_number
from rlvr.observe.report import evaluations, rolled_back, word
from rlvr.observe.summary import duration, percent

RECENT = 10  # steps of the reward at the end
DASH = "-"
COLUMNS = ("run", "status", "steps", "greedy", "sampled", "reward", "s/step", "tokens/s", "rollbacks", "wall")
DECODINGS = {"greedy": "", "sampled": "_sampled"}  # and the ends of their names in summary.json
Share = float | None


@dataclass(frozen=True)
class Row:
    """A run. None where it does not say."""

    name: str
    path: Path
    settings: Settings | None
    differs: Mapping[str, str]  # of its config.yaml, what is not the same in all
    status: str
    steps: int | None
    greedy: tuple[Share, Share]  # held-out accuracy before and after
    sampled: tuple[Share, Share]
    reward: float | None
    step_s: float | None
    tokens_per_s: float | None
    rollbacks: tuple[int, int] | None  # the sentinel's, and those by hand
    wall_s: float | None  # of the last start
    resumed: bool
    prompts: str  # a digest of what it trained on; empty in old runs
    newest: bool  # the accuracy after is that of the newest evaluation, as there is none of the end

    def setting(self, name: str) -> str | None:
        return self.settings.values.get(name) if self.settings else None

    def cells(self) -> list[str]:
        wall = DASH if self.wall_s is None else f"{'>' if self.resumed else ''}{duration(self.wall_s)}"
        numbers = [DASH if n is None else short(n) for n in (self.reward, self.step_s, self.tokens_per_s)]
        steps = DASH if self.steps is None else f"{self.steps}"
        sentinel, by_hand = self.rollbacks or (DASH, 0)
        back = f"{sentinel}+{by_hand}" if by_hand else f"{sentinel}"
        accuracies = [from_to(*shares, "*" if self.newest else "") for shares in (self.greedy, self.sampled)]
        return [self.name, self.status, steps, *accuracies, *numbers, back, wall]

    def record(self) -> dict[str, Any]:
        sentinel, by_hand = self.rollbacks or (None, None)
        return {
            "run": str(self.path), "name": self.name, "differs": dict(self.differs),
            "recipe": self.setting("name"), "seed": self.setting("seed"), "status": self.status, "steps": self.steps,
            "accuracy_before": self.greedy[0], "accuracy_after": self.greedy[1],
            "accuracy_before_sampled": self.sampled[0], "accuracy_after_sampled": self.sampled[1],
            "accuracy_after_is_newest": self.newest,
            "reward": self.reward, "step_s": self.step_s, "tokens_per_s": self.tokens_per_s,
            "rollbacks": sentinel, "rollbacks_by_hand": by_hand, "wall_s": self.wall_s, "resumed": self.resumed,
        }  # fmt: skip


@dataclass(frozen=True)
class Seeds:
    """Runs that differ by their seed alone. Accuracies are of those that finished: the others ended elsewhere."""

    runs: Sequence[Row]

    @property
    def seeds(self) -> list[str]:
        return list(dict.fromkeys(str(run.setting("seed")) for run in self.runs))

    def finished(self) -> list[Row]:
        return [run for run in self.runs if run.status == "finished" and not run.newest]

    def after(self, decoding: str) -> list[float]:
        shares = [run.greedy[1] if decoding == "greedy" else run.sampled[1] for run in self.finished()]
        return [share for share in shares if share is not None]

    def cells(self) -> list[str]:
        runs, seeds = len(self.runs), len(self.seeds)
        name = f"{seeds} seeds" if runs == seeds else f"{runs} runs, {seeds} seeds"
        means = [spread(self.after(decoding)) for decoding in DECODINGS]
        return [name, f"n={len(self.finished())}", "", *means, "", "", "", "", ""]

    def record(self) -> dict[str, Any]:
        said: dict[str, Any] = {"runs": [str(run.path) for run in self.runs]}
        said |= {"recipe": self.runs[0].setting("name"), "seeds": self.seeds}
        for decoding, suffix in DECODINGS.items():
            values = self.after(decoding)
            said[f"n{suffix}"] = len(values)
            said[f"accuracy_after{suffix}_mean"] = fmean(values) if values else None
            said[f"accuracy_after{suffix}_std"] = stdev(values) if len(values) > 1 else None
        return said


def rows_of(records: Sequence[Record]) -> list[Row]:
    settings = [Settings.of(record.config) for record in records]
    names = names_of([record.path for record in records])
    return [row_of(*of_one) for of_one in zip(records, names, settings, differences(settings), strict=True)]


def row_of(record: Record, name: str, settings: Settings | None, differs: Mapping[str, str]) -> Row:
    said, rows = record.summary, record.metrics
    timed = [row for row in rows if math.isfinite(row.get("time/step", math.nan))]
    rewards = [row["reward/mean"] for row in rows[-RECENT:] if "reward/mean" in row]
    steps = number(said, "steps")
    if steps is None and rows:
        steps = rows[-1]["step"]
    speed = number(said, "tokens_per_s")
    before = number(said, "steps_before")
    shares = [told(said, decoding) for decoding in DECODINGS]
    newest = all(after is None for _, after in shares)
    if newest:
        shares = [evaluated(record, decoding) for decoding in DECODINGS]
        newest = any(after is not None for _, after in shares)
    return Row(
        name, record.path, settings, differs, word(record),
        int(steps) if steps is not None and math.isfinite(steps) else None,
        shares[0], shares[1],
        sum(rewards) / len(rewards) if rewards else None,
        median(row["time/step"] for row in timed) if timed else None,
        tokens_per_s(timed) if speed is None else speed,
        rolled_back(record) if record.events else None,
        number(said, "wall_s"), before is not None and before > 0,
        str(record.prompts.get("sha256", "")), newest,
    )  # fmt: skip


def tokens_per_s(timed: Sequence[Mapping[str, float]]) -> float | None:
    """As a summary has it."""
    counted = [row for row in timed if "tokens/sampled" in row]
    seconds = sum(row["time/step"] for row in counted)
    return sum(row["tokens/sampled"] for row in counted) / seconds if seconds > 0 else None


def number(said: Mapping[str, Any], name: str) -> float | None:
    return float(value) if is_number(value := said.get(name)) else None


def told(said: Mapping[str, Any], decoding: str) -> tuple[Share, Share]:
    """By a summary: held-out accuracy before and after."""
    suffix = DECODINGS[decoding]
    return number(said, f"accuracy_before{suffix}"), number(said, f"accuracy_after{suffix}")


def evaluated(record: Record, decoding: str) -> tuple[Share, Share]:
    """By the events: before, and after the newest step that was evaluated."""
    found = {name: dict(points) for name, points in evaluations(record.events).items()}
    shares, problems = found.get(f"eval/accuracy_{decoding}", {}), found.get("eval/problems", {})
    newest = max(shares, default=0.0)
    same = problems.get(newest) == problems.get(0.0)  # else evaluation.limit was changed between them
    return shares.get(0.0) if same else None, shares[newest] if newest > 0 else None


def names_of(paths: Sequence[Path]) -> list[str]:
    """Of each path as many of its last folders as tell it from the others."""
    whole = [path.resolve().parts for path in paths]
    names = []
    for parts in whole:
        least = next(n for n in range(1, len(parts) + 1) if sum(parts[-n:] == other[-n:] for other in whole) == 1)
        names.append("/".join(parts[-least:]))
    return names


def seeds_of(rows: Sequence[Row]) -> list[Seeds]:
    """In the order of their first runs."""
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        if row.settings and row.setting("seed") is not None:
            groups[(row.prompts, *row.settings.but_for_the_seed())].append(row)
    found = [Seeds(runs) for runs in groups.values()]
    return [group for group in found if len(group.seeds) > 1]


def from_to(before: Share, after: Share, star: str = "") -> str:
    if before is None and after is None:
        return DASH
    then = DASH if after is None else f"{percent(after)}{star}"
    return f"{DASH if before is None else percent(before)} -> {then}"


def spread(values: Sequence[float]) -> str:
    if not values:
        return DASH
    return f"{percent(fmean(values))} +- {percent(stdev(values)) if len(values) > 1 else DASH}"
