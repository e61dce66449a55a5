"""Short ways to say a verdict. Whose fault decides which: the policy's, the data's, or the machinery's."""

from typing import Any

from rlvr.verify import Outcome, Verdict


def said(reward: float, reason: str, detail: str = "", **more: Any) -> Verdict:
    return Verdict(float(reward), Outcome.OK, reason=reason, detail=detail, **more)


def rejected(reason: str, detail: str = "", **more: Any) -> Verdict:
    """The policy caused it: trainable, and worth nothing."""
    return Verdict(0.0, Outcome.REJECTED, reason=reason, detail=detail, **more)


def abstained(reason: str, detail: str = "", **more: Any) -> Verdict:
    """The row cannot be judged, whatever the completion: masked."""
    return Verdict(None, Outcome.ABSTAIN, reason=reason, detail=detail, **more)


def failed(reason: str, detail: str = "", **more: Any) -> Verdict:
    """The machinery failed: masked, never a reward."""
    return Verdict(None, Outcome.ERROR, reason=reason, detail=detail, **more)
