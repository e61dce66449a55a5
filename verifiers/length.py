"""How long is a completion, against what the recipe wants? Counts tokens; judges no content."""

import math

from rlvr_verifiers.repetition import WORDS

from rlvr.verify import Outcome, Sample, Verdict, verifier

SHAPES = {"linear": lambda x: 1.0 - x, "cosine": lambda x: (1.0 + math.cos(math.pi * x)) / 2}


@verifier("length", version="2")
def length(
    sample: Sample, limit: int, free: int = 0, top: float = 1.0, bottom: float = 0.0, shape: str = "linear"
) -> Verdict:
    """`top` for a completion of up to `free` tokens, falling to `bottom` at `limit` tokens and beyond.

    `shape` is `linear` (DAPO's soft overlong punishment, arXiv:2503.14476: free = limit - buffer, top 0, bottom -1) or
    `cosine` (half a wave, flat at both ends, arXiv:2502.03373). With `requires` in the recipe only right answers earn
    it. Without token ids (a file of texts) words stand for tokens. ValueError for options that cannot work.
    """
    if shape not in SHAPES:
        raise ValueError(f"length: shape={shape}: one of {', '.join(SHAPES)}")
    if not 0 <= free < limit:
        raise ValueError(f"length: free={free} must be at least 0 and below limit={limit}")
    tokens = len(sample.token_ids or WORDS.findall(sample.completion))
    progress = min(max((tokens - free) / (limit - free), 0.0), 1.0)
    reason = "short" if progress == 0 else "too_long" if progress == 1 else "longish"
    reward = bottom + (top - bottom) * SHAPES[shape](progress)
    return Verdict(reward, Outcome.OK, reason=reason, detail=f"{tokens} tokens")
