"""The result of a run: one record that becomes summary.json, the closing table and the last printed lines alike."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class Summary:
    """Accuracies are shares of the held-out problems, None where there were none to measure.

    Summary(recipe="quickstart", seed=0, status="finished", steps=50, wall_s=161.2, peak_rss_mb=3412, tokens_per_s=2310,
            problems=200, samples=1, accuracy_before=0.15, accuracy_after=0.765, accuracy_before_sampled=0.16,
            accuracy_after_sampled=0.74)
    """

    recipe: str
    seed: int
    status: Literal["finished", "interrupted", "stopped"]  # all steps; Ctrl-C; the sentinel gave up
    steps: int  # taken, those before a resume included
    wall_s: float  # from the start of the workers, the last one, to this summary; evaluations included
    peak_rss_mb: float  # see rlvr.observe.memory
    tokens_per_s: float  # sampled tokens over the time of the steps that sampled them
    problems: int = 0
    samples: int = 0  # completions a problem behind the sampled accuracies
    accuracy_before: float | None = None  # greedy
    accuracy_after: float | None = None
    accuracy_before_sampled: float | None = None
    accuracy_after_sampled: float | None = None
    steps_before: int = 0  # of `steps`, those that earlier starts took: their time is not in `wall_s`

    def accuracies(self) -> dict[str, tuple[float | None, float | None]]:
        return {
            "greedy": (self.accuracy_before, self.accuracy_after),
            "sampled": (self.accuracy_before_sampled, self.accuracy_after_sampled),
        }


def words(summary: Summary, folder: Path) -> list[str]:
    """What summary.json says, in sentences; ASCII, so that any log can hold them."""
    lines = []
    for decoding, (before, after) in summary.accuracies().items():
        if before is not None and after is not None:
            times = f" ({gain(before, after)})" if before > 0 else ""
            lines.append(f"Held-out accuracy, {decoding}: {percent(before)} before, {percent(after)} after{times}")
    how = {"finished": "", "interrupted": " (interrupted)", "stopped": " (stopped by the sentinel)"}[summary.status]
    before = summary.steps_before
    steps = f"{summary.steps - before} of {summary.steps}" if before else f"{summary.steps}"
    return [
        *lines,
        f"{summary.recipe}, seed {summary.seed}: {steps} steps{how} in {duration(summary.wall_s)} "
        f"({summary.wall_s:.0f} s)",
        f"{summary.tokens_per_s:,.0f} tokens/s, peak memory {summary.peak_rss_mb:,.0f} MB",
        f"Run folder: {folder}",
    ]


def gain(before: float, after: float) -> str:
    return f"{after / before:.1f} times" if before > 0 else ""


def percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def duration(seconds: float) -> str:
    """75 -> 1:15, 3675 -> 1:01:15."""
    if not math.isfinite(seconds):
        return "-:--"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
