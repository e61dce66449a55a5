"""The verdicts of all reward parts on one completion -> one verdict. Pure."""

from collections.abc import Mapping
from dataclasses import replace
from math import inf, prod

from rlvr.reward_config import PartConfig, RewardConfig
from rlvr.types import Outcome, Provenance, Verdict


def attributed(part: str, verdicts: list[Verdict]) -> Verdict:
    """The last of a part's verdicts, with what each verifier that was asked has said in its provenance."""
    said: list[Provenance] = []
    for verdict in verdicts:
        first, *rest = verdict.provenance
        said += [
            replace(first, part=part, outcome=verdict.outcome.value, reason=verdict.reason, reward=verdict.reward),
            *rest,
        ]
    return replace(verdicts[-1], provenance=tuple(said))


def combine(verdicts: Mapping[str, Verdict], reward: RewardConfig) -> Verdict:
    """Sum, product or minimum; a gate that is 0 makes every part 0, and so is a part whose `requires` are not reached.

    `verdicts` in the order of the parts, the main part first. A part that cannot say masks the completion, unless it
    has no say anyway (weight 0, no gate, required by none): then it is left out.
    """
    parts = reward.parts
    decisive = {name for name, part in parts.items() if part.weight or part.gate}
    decisive |= {other for name in decisive for other in parts[name].requires}
    masked = [(name, v) for name, v in verdicts.items() if name in decisive and not v.trainable]
    provenance = tuple(p for v in verdicts.values() for p in v.provenance)
    main = next(iter(verdicts.values()))
    if masked:
        name, cause = next(((n, v) for n, v in masked if v.outcome == Outcome.ERROR), masked[0])
        return Verdict(
            None, cause.outcome, reason=f"{name}_{cause.reason}", detail=cause.detail, answer=main.answer,
            provenance=provenance,
        )  # fmt: skip
    said = {name: v.reward for name, v in verdicts.items() if v.reward is not None}
    missed = {name for name in said for other, least in parts[name].requires.items() if said.get(other, -inf) < least}
    values = {name: 0.0 if name in missed else value for name, value in said.items()}
    closed = next((name for name, part in parts.items() if part.gate and values[name] == 0), None)
    if closed:
        values = dict.fromkeys(values, 0.0)
    total = HOW[reward.combine](values, parts)
    if reward.combine != "sum":
        values["combined"] = total
    return Verdict(
        reward=total,
        outcome=main.outcome if main.trainable else Outcome.OK,
        parts=values,
        reason=f"gate_{closed}" if closed else main.reason,
        detail=main.detail,
        answer=main.answer,
        step_rewards=main.step_rewards,
        provenance=provenance,
    )


def weighed(values: Mapping[str, float], parts: Mapping[str, PartConfig]) -> list[float]:
    return [value for name, value in values.items() if parts[name].weight]


HOW = {
    "sum": lambda values, parts: sum(parts[name].weight * value for name, value in values.items()),
    "product": lambda values, parts: prod(weighed(values, parts)),
    "min": lambda values, parts: min(weighed(values, parts)),
}
