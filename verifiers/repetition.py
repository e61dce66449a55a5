"""Does a completion repeat itself? n-grams over the token ids that were sampled; no text, no tokenizer needed."""

import re
from collections.abc import Sequence

from rlvr_verifiers.verdicts import rejected, said

from rlvr.verify import Sample, Verdict, verifier

BASE, MODULUS = 1_000_003, (1 << 61) - 1  # of the rolling hash: an n-gram is one integer
WORDS = re.compile(r"[^\W\d_]+|\d|[^\w\s]|_")
MAX_PERIOD = 512  # tokens of a loop's body
LOOPS = 4  # that many times the same at the very end is a loop


@verifier("repetition", version="1")
def repetition(sample: Sample, n: int = 20, allowed: float = 0.1, worst: float = 0.5) -> Verdict:
    """1 while at most `allowed` of the n-grams were there before, then linearly down to 0 at `worst`.

    A completion that ends in a loop (the same tokens four times over, at least n of them) is worth 0 at once.
    Without token ids (a file of texts) words stand for tokens.
    """
    if not (n >= 1 and 0 <= allowed < worst <= 1):
        raise ValueError(f"repetition needs n >= 1 and 0 <= allowed < worst <= 1, got {n}, {allowed}, {worst}")
    tokens = sample.token_ids or numbered(WORDS.findall(sample.completion))
    if not tokens:
        return rejected("empty")
    if period := loop_at_end(tokens, least=n):
        return said(0.0, "loop", f"ends in a loop of {period} tokens")
    share = repeated_share(tokens, n)
    reward = min(1.0, max(0.0, (worst - share) / (worst - allowed)))
    return said(reward, "repeats" if share > allowed else "fresh", f"{share:.1%} of {n}-grams were there before")


def numbered(words: Sequence[str]) -> list[int]:
    known: dict[str, int] = {}
    return [known.setdefault(word, len(known)) for word in words]


def repeated_share(tokens: Sequence[int], n: int) -> float:
    """1 - distinct / all n-grams; 0 for a text shorter than n."""
    total = len(tokens) - n + 1
    if total < 1:
        return 0.0
    first = pow(BASE, n - 1, MODULUS)
    rolling, seen = 0, set()
    for place, token in enumerate(tokens):
        if place >= n:
            rolling -= (tokens[place - n] + 1) * first
        rolling = (rolling * BASE + token + 1) % MODULUS
        if place >= n - 1:
            seen.add(rolling)
    return 1 - len(seen) / total


def loop_at_end(tokens: Sequence[int], least: int) -> int:
    """The shortest period with which the last tokens repeat LOOPS times, over at least `least` tokens; 0 for none."""
    tail = list(tokens[-MAX_PERIOD * LOOPS - least - 1 :])
    if len(tail) > 1 and tail[-1] not in tail[-MAX_PERIOD - 1 : -1]:
        tail.pop()  # the end token after the loop
    for period in range(1, len(tail) // LOOPS + 1):
        length = max(period * LOOPS, least)
        if length <= len(tail) and tail[-length:-period] == tail[-length + period :]:
            return period
    return 0
