"""What is done differently for a while after a rollback: changes to the objective and the learning rate.

    the recipe's ladder:  skip_data | lower_learning_rate | tighten_clip | mask_mismatch | anchor
    first alarm           ^^^^^^^^^
    again, while those are in force:  ^^^^^^^^^^^^^^^^^^^ as well, and so on; all let go after `remedy_steps` of health

Each remedy is a function (Objective, knobs, anchor) -> Objective and none knows of the others. Pure; knows no loop.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from rlvr.objective import Objective
from rlvr.objective.corrections import product, token_agrees, token_mask
from rlvr.objective.kl import KL, k3
from rlvr.objective.surrogates import clip
from rlvr.sentinel_config import SentinelConfig

USUAL_CLIP = 0.2  # of a surrogate that has none
Remedy = Callable[[Objective, SentinelConfig, str | None], Objective]


@dataclass(frozen=True)
class Treatment:
    """How the next step is taken."""

    objective: Objective
    learning_rate: float  # times that of the recipe
    anchored: bool = False

    def named(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """What the trainer measured. The KL from an anchor has a name of its own: it says nothing of the one from the
        reference, and were that one's quietest stretch."""
        if not self.anchored or "policy/kl_ref" not in metrics:
            return dict(metrics)
        others = {name: value for name, value in metrics.items() if name != "policy/kl_ref"}
        return others | {"policy/kl_anchor": metrics["policy/kl_ref"]}


def next_remedies(cfg: SentinelConfig, in_force: Sequence[str]) -> tuple[str, ...]:
    """One more of the ladder than is in force."""
    return tuple(cfg.remedies[: len(in_force) + 1])


def further(in_force: Sequence[str], rollbacks: int, step: int) -> int:
    """Prompts to pass over beyond the `step` ones that broke the run, after so many rollbacks in a row before this one.
    Trouble that comes again while remedies are in force may lie in a stretch of the data: 4 steps of it, 8, and from
    then on 16."""
    return step * min(16, 2 ** (rollbacks + 1)) if "skip_data" in in_force else 0


def treat(objective: Objective, cfg: SentinelConfig, in_force: Sequence[str], anchor: str | None) -> Treatment:
    for name in in_force:
        objective = REMEDIES[name](objective, cfg, anchor)
    rate = cfg.learning_rate_factor if "lower_learning_rate" in in_force else 1.0
    return Treatment(objective, rate, "anchor" in in_force)


def unchanged(objective: Objective, cfg: SentinelConfig, anchor: str | None) -> Objective:
    """Data and learning rate are no part of the objective: `further`, `Treatment.learning_rate`."""
    return objective


def tighten_clip(objective: Objective, cfg: SentinelConfig, anchor: str | None) -> Objective:
    """The clip's bounds times `clip_factor`; a surrogate without bounds becomes PPO's with 0.2 times that."""
    bounds = getattr(objective.surrogate, "keywords", {})
    if {"low", "high"} <= set(bounds):
        narrow = {side: cfg.clip_factor * bounds[side] for side in ("low", "high")}
        return replace(objective, surrogate=partial(objective.surrogate, **narrow))
    narrow = dict.fromkeys(("low", "high"), cfg.clip_factor * USUAL_CLIP)
    return replace(objective, surrogate=partial(clip, **narrow))


def mask_mismatch(objective: Objective, cfg: SentinelConfig, anchor: str | None) -> Objective:
    """Tokens that trainer and engine disagree about teach nothing, on top of whatever correction there is: what is left
    keeps the weight that this gives it."""
    low, high = cfg.mismatch_low, cfg.mismatch_high
    if objective.correction is None:
        return replace(objective, correction=partial(token_mask, low=low, high=high))
    both = (objective.correction, partial(token_agrees, low=low, high=high))
    return replace(objective, correction=partial(product, corrections=both))


def hold_on(objective: Objective, cfg: SentinelConfig, anchor: str | None) -> Objective:
    """A KL penalty to the weights that the run went back to, in place of the algorithm's own."""
    assert anchor is not None, "made when the remedy was chosen"
    return replace(objective, kl=KL(k3, cfg.anchor_coefficient, reference=anchor))


REMEDIES: dict[str, Remedy] = {
    "skip_data": unchanged,
    "lower_learning_rate": unchanged,
    "tighten_clip": tighten_clip,
    "mask_mismatch": mask_mismatch,
    "anchor": hold_on,
}
