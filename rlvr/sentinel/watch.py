"""When to distrust an optimizer step. Pure: the same metrics and history give the same answer."""

import math
from collections.abc import Mapping, Sequence
from statistics import median

from rlvr.config import SentinelConfig

WATCHED = ("policy/loss", "policy/entropy", "policy/grad_norm", "mismatch/mean_abs")


class Watch:
    """The first reason to undo the last step, in words, or None."""

    def __init__(self, cfg: SentinelConfig):
        self.cfg, self.window = cfg, cfg.window

    def watch(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """What must be remembered of a step; a skipped one has no gradient norm worth remembering."""
        return {} if metrics.get("policy/skipped") else {"policy/grad_norm": metrics["policy/grad_norm"]}

    def inspect(self, metrics: Mapping[str, float], history: Sequence[Mapping[str, float]]) -> str | None:
        if metrics.get("policy/skipped"):  # nothing was broken: the optimizer never saw it
            endless = len(history) == self.window and not any(history)
            return f"gradients not finite for sentinel.window={self.window} steps in a row" if endless else None
        for name in WATCHED:
            if not math.isfinite(metrics.get(name, 0.0)):
                return f"{name} is {metrics[name]}"
        mismatch = metrics.get("mismatch/mean_abs", 0.0)
        if mismatch > self.cfg.max_mismatch:
            return f"mismatch/mean_abs {mismatch:.3g} > sentinel.max_mismatch {self.cfg.max_mismatch}"
        recent = [seen["policy/grad_norm"] for seen in history if seen]
        if len(recent) < self.window:
            return None
        usual = max(median(recent), self.cfg.grad_norm_floor)
        if metrics["policy/grad_norm"] > self.cfg.grad_norm_factor * usual:
            return (
                f"policy/grad_norm {metrics['policy/grad_norm']:.3g} > sentinel.grad_norm_factor "
                f"{self.cfg.grad_norm_factor} x {usual:.3g}"
            )
        return None
