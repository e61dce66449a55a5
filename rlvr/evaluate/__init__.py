"""How good a policy is. Knows verdicts; not where completions come from."""

from collections.abc import Sequence

from rlvr.types import Verdict


def correct(verdict: Verdict, part: str) -> bool:
    """Whether `part`, the recipe's main verifier, found the completion right."""
    return verdict.trainable and verdict.parts[part] >= 1.0


def accuracy(verdicts: Sequence[Verdict], part: str) -> float:
    """Share of right ones among those that could be judged at all."""
    judged = [verdict for verdict in verdicts if verdict.trainable]
    return sum(correct(verdict, part) for verdict in judged) / max(len(judged), 1)
