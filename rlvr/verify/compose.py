"""The verdicts of all reward parts on one completion -> one verdict. Pure."""

from collections.abc import Mapping
from math import inf

from rlvr.config import PartConfig
from rlvr.types import Outcome, Verdict


def combine(verdicts: Mapping[str, Verdict], parts: Mapping[str, PartConfig]) -> Verdict:
    """Weighted sum; a gate that is 0 makes every part 0, and a part whose `requires` are not reached is 0 itself.

    `verdicts` in the order of `parts`, the main part first. A part that cannot say masks the completion, unless it has
    no say anyway (weight 0, no gate, required by none): then it is left out.
    """
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
    return Verdict(
        reward=sum(parts[name].weight * value for name, value in values.items()),
        outcome=main.outcome if main.trainable else Outcome.OK,
        parts=values,
        reason=f"gate_{closed}" if closed else main.reason,
        detail=main.detail,
        answer=main.answer,
        step_rewards=main.step_rewards,
        provenance=provenance,
    )
