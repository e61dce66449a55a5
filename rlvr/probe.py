"""Do two hold the same weights? Both score the same tokens, and how far apart their logprobs are decides.

Rounding shows in single tokens: in bfloat16, healthy and trained for 50 steps, the worst of 32 was off by 0.37 nats and
their root mean square by 0.08. Weights that are others are off everywhere, and a wrong row of the embedding or the head
by several nats in one token, which is more than 0.25 of the root mean square too.
"""

import math
from collections.abc import Sequence

LEAST_RESUMED = 1e-2  # nats, of a checkpoint's probe: other hardware or ranks may round differently in float32 too


def tolerated(asked: float | None, exact: bool) -> float:
    """`trainer.probe_tolerance`, in nats: two float32 (`exact`) implementations differ by rounding, others more."""
    if asked is not None:
        return asked
    return 3e-4 if exact else 0.25


def apart(one: Sequence[float], other: Sequence[float]) -> float:
    """The root mean square of the differences, in nats; inf where one of them is no number."""
    squares = [(a - b) ** 2 for a, b in zip(one, other, strict=True)]
    return math.sqrt(sum(squares) / max(len(squares), 1)) if all(map(math.isfinite, squares)) else math.inf
