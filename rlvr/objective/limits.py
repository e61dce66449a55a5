"""What the parameters of our functions may be. Beyond, nothing fails: it teaches something else, or nothing at all."""

from collections.abc import Callable, Iterator
from math import inf
from types import FunctionType
from typing import Any

from rlvr.objective import advantages, corrections, shaping, surrogates, weightings

Limit = tuple[str, Callable[[float], bool]]  # in words, and whether a number keeps it; nan keeps none

AT_LEAST_0: Limit = ("at least 0", lambda x: x >= 0)
FINITE: Limit = ("at least 0 and finite", lambda x: 0 <= x < inf)
ABOVE_0: Limit = ("above 0", lambda x: x > 0)
FINITE_ABOVE_0: Limit = ("above 0 and finite", lambda x: 0 < x < inf)
SHARE: Limit = ("above 0, at most 1", lambda x: 0 < x <= 1)
TOKENS: Limit = ("at least 1 and finite", lambda x: 1 <= x < inf)
DDOF: Limit = ("0 or 1", lambda x: x in (0, 1))
# where engine and trainer agree the weight is 1, which must pass
LOW: Limit = ("from 0 to 1", lambda x: 0 <= x <= 1)
HIGH: Limit = ("at least 1", lambda x: x >= 1)
# more than the advantage itself: with 1 or less nothing bad would ever be unlearned
DUAL: Limit = ("above 1, or null", lambda x: x > 1)

LIMITS: dict[Callable, dict[str, Limit]] = {
    # an eps of 0 in the first two is for a run to refuse (`trial`): where rewards always differ it is the plain formula
    advantages.standardize: {"ddof": DDOF, "eps": FINITE},
    advantages.decouple: {"ddof": DDOF, "eps": FINITE},
    advantages.whiten: {"ddof": DDOF, "eps": FINITE},
    surrogates.clip: {"low": AT_LEAST_0, "high": AT_LEAST_0, "dual": DUAL},
    surrogates.cispo: {"low": AT_LEAST_0, "high": AT_LEAST_0},
    surrogates.sapo: {"positive": FINITE_ABOVE_0, "negative": FINITE_ABOVE_0},
    weightings.constant: {"max_tokens": TOKENS},
    shaping.overlong: {"max_tokens": TOKENS, "buffer": SHARE},
    corrections.token_truncate: {"cap": ABOVE_0},
    corrections.sequence_truncate: {"cap": ABOVE_0},
    corrections.token_mask: {"low": LOW, "high": HIGH},
    corrections.token_agrees: {"low": LOW, "high": HIGH},
    corrections.sequence_mask: {"low": LOW, "high": HIGH},
    corrections.geometric_mask: {"low": LOW, "high": HIGH},
    corrections.off_policy_mask: {"threshold": AT_LEAST_0},
}


def beyond(slot: str, function: Any) -> Iterator[str]:
    """The key, its value and the limit, of each parameter of one of our functions that is beyond it."""
    given, function = getattr(function, "keywords", {}), getattr(function, "func", function)  # of a functools.partial
    limits = LIMITS.get(function, {}) if isinstance(function, FunctionType) else {}  # others may have no hash
    for name, (words, keeps) in limits.items():
        value = given.get(name)
        if name not in given or (value is None and "null" in words):
            continue
        if not isinstance(value, int | float) or not keeps(value):
            yield f"{slot}.{name}={'null' if value is None else value}: {words}"
    for n, one in enumerate(given["corrections"] if function is corrections.product else ()):
        yield from beyond(f"{slot}.corrections.{n}", one)
