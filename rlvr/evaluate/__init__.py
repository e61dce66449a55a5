"""How good a policy is. Knows verdicts; not where completions come from."""

from collections.abc import Sequence

from rlvr.types import TRAINABLE, Verdict


def said(verdict: Verdict, part: str) -> float | None:
    """The reward that `part`'s own verifier gave, whatever gates and requirements took of it in `Verdict.parts`; None
    where it could not say. Other parts may have masked the completion: what this one said holds all the same."""
    own = [record for record in verdict.provenance if record.part == part]
    if own:
        return own[-1].reward if own[-1].outcome in TRAINABLE else None  # the last one asked decided
    return verdict.parts.get(part) if verdict.trainable else None


def judged(verdict: Verdict, part: str) -> bool:
    return said(verdict, part) is not None


def correct(verdict: Verdict, part: str) -> bool:
    """Whether `part`, the recipe's main verifier, found the completion right."""
    reward = said(verdict, part)
    return reward is not None and reward >= 1.0


def accuracy(verdicts: Sequence[Verdict], part: str) -> float:
    """Share of right ones among those that `part` could judge at all; 0 where there are none."""
    found = [correct(verdict, part) for verdict in verdicts if judged(verdict, part)]
    return sum(found) / max(len(found), 1)
