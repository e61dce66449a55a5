"""When to distrust an optimizer step. Pure: the same step and history give the same answer.

metrics of a step --watch--> Row --inspect (with the history of good rows)--> Alarm | None
                              `--> history, when there was none: saved with the run, cut with a rollback
"""

from collections.abc import Mapping, Sequence
from math import isfinite

from rlvr.sentinel.detectors import WATCHED_FINITE, detectors
from rlvr.sentinel.history import Alarm, History, Row
from rlvr.sentinel_config import SentinelConfig

WATCHED = (
    *WATCHED_FINITE,
    "policy/skipped",
    "mismatch/ess",
    "reward/mean",
    "accuracy",
    "accuracy_rewarded",
    "completions/length_mean",
    "completions/truncated",
    "groups/no_signal",
    "eval/accuracy_greedy",
    "eval/problems",
)
OF_AN_UPDATE = ("policy/", "mismatch/")
RECIPE = "recipe"  # of a row: the mark of what its numbers were measured with


class Watch:
    """The sentinel: its detectors, and which rows they may compare."""

    def __init__(self, cfg: SentinelConfig, recipe: int | None = None):
        """`recipe`: the mark of what the run's numbers are measured with. A row that carries another one, from before
        a resume with other rewards or data, is remembered, and not compared with."""
        self.detectors, self.memory = detectors(cfg), cfg.memory
        self.marked: dict[str, float] = {} if recipe is None else {RECIPE: recipe}

    def watch(self, step: int, metrics: Mapping[str, float]) -> Row:
        """What matters of a step. Without trained tokens there was no update, and its zeros mean nothing; of an update
        that the optimizer skipped, only the numbers that are some."""
        row = {name: metrics[name] for name in WATCHED if name in metrics}
        if not metrics.get("tokens/trained", 1):
            row = {name: x for name, x in row.items() if not name.startswith(OF_AN_UPDATE)}
        if row.get("policy/skipped"):
            row = {name: x for name, x in row.items() if isfinite(x) or not name.startswith(OF_AN_UPDATE)}
        return {"step": step} | self.marked | row

    def inspect(self, row: Row, history: Sequence[Row]) -> Alarm | None:
        return next(iter(self.all_alarms(row, history)), None)

    def all_alarms(self, row: Row, history: Sequence[Row]) -> list[Alarm]:
        alike = [old for old in history[-self.memory :] if old.get(RECIPE, row.get(RECIPE)) == row.get(RECIPE)]
        seen = History([*alike, row])
        return [alarm for detector in self.detectors if (alarm := detector(seen))]
