"""The verdicts of all reward parts on one completion -> one verdict. Pure."""

from collections.abc import Mapping
from dataclasses import replace
from math import inf, prod

from rlvr.reward_config import LARGEST, RewardConfig
from rlvr.types import Outcome, Provenance, Verdict

WHOLE = 1.0  # a fault that a completion does not let be ruled out


def attributed(part: str, verdicts: list[Verdict]) -> Verdict:
    """The last of a part's verdicts, with what each verifier that was asked has said in its provenance."""
    said: list[Provenance] = []
    for verdict in verdicts:
        first, *rest = verdict.provenance
        own = replace(
            first, part=part, outcome=verdict.outcome.value, reason=verdict.reason, reward=verdict.reward,
            parts=verdict.parts,
        )  # fmt: skip
        said += [own, *rest]
    return replace(verdicts[-1], provenance=tuple(said))


def combine(verdicts: Mapping[str, Verdict], reward: RewardConfig) -> Verdict:
    """Sum, product or minimum; a gate that is 0 or less takes what every part adds to the reward, and leaves what a
    part takes off it, or it would pay to close the gate. A part whose `requires` are not reached is 0. A part with a
    negative weight that rejects the completion has found the whole fault (1, or what it says where that is more): the
    0 of a rejected completion would be the best that it can say.

    `verdicts` in the order of the parts, the main part first. A part that cannot say masks the completion, unless it
    has no say anyway (weight 0, no gate, required by none): then it is left out.
    """
    parts, decisive = reward.parts, reward.decisive()
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

    def unsure(name: str) -> bool:
        return parts[name].weight < 0 and verdicts[name].outcome == Outcome.REJECTED and name not in missed

    closed = [name for name, part in parts.items() if part.gate and values[name] <= 0]
    values = {name: max(value, WHOLE) if unsure(name) else value for name, value in values.items()}
    rest = [value for name, value in values.items() if parts[name].weight and (name not in closed or value)]
    if closed:
        values = {name: value if parts[name].weight * value < 0 else 0.0 for name, value in values.items()}
    if reward.combine == "sum":
        total = sum(parts[name].weight * value for name, value in values.items())
    else:
        rest = rest or [0.0]  # where the closed gate is all that counts
        total = product(rest) if reward.combine == "product" else min(rest)
        total = values["combined"] = min(total, 0.0) if closed else total
        if not abs(total) <= LARGEST**2:
            why = f"reward.combine=product of {rest!s:.200} is {total:g}: at most {LARGEST**2:g} in magnitude"
            return Verdict(None, Outcome.ERROR, reason="too_large", detail=why, provenance=provenance)
    return Verdict(
        reward=total,
        outcome=main.outcome if main.trainable else Outcome.OK,
        parts=values,
        reason=f"gate_{closed[0]}" if closed else main.reason,
        detail=main.detail,
        answer=main.answer,
        step_rewards=main.step_rewards,
        provenance=provenance,
    )


def product(values: list[float]) -> float:
    """Below 0 when any of them is: two faults make no virtue."""
    total = prod(values)
    return -abs(total) if total and min(values) < 0 else total

