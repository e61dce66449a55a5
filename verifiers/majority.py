"""Is an answer that of most completions of its prompt (TTRL, arXiv:2504.16084)? No reference is looked at.

Agreement is not truth: a policy that says the same wrong thing every time earns everything. Hence off by default: no
recipe of ours uses it, and it abstains until `unlabelled` says that the data has no references to use instead.
"""

from collections import Counter
from collections.abc import Sequence

from rlvr_verifiers.boxes import after_thoughts, last_answer
from rlvr_verifiers.math_text import normalised, too_large
from rlvr_verifiers.numbers import quantity
from rlvr_verifiers.verdicts import abstained, rejected, said

from rlvr.verify import Sample, Verdict, verifier


@verifier("majority", version="2", scope="group")
def majority(
    samples: Sequence[Sample], unlabelled: bool = False, agreement: float = 0.5, least: int = 4
) -> list[Verdict]:
    """1 for completions whose last box says what most say, else 0.

    Masked as a whole where the most frequent answer is given by less than the share `agreement` of the completions, or
    as often as another, or where fewer than `least` answered at all.
    """
    answers = [answer_of(sample) if sample.stop_reason != "abort" else None for sample in samples]
    whole = sum(sample.stop_reason != "abort" for sample in samples)
    said_any = Counter(answer for answer in answers if answer is not None)
    (winner, count), *others = said_any.most_common(2) or [("", 0)]
    doubt = ""
    if not unlabelled:
        doubt = "off: set unlabelled=true to reward agreement instead of truth"
    elif said_any.total() < least:
        doubt = f"{said_any.total()} answers, least is {least}"
    elif others and others[0][1] == count:
        doubt = f"{winner!r} and {others[0][0]!r} are equally frequent"
    elif count < agreement * whole:
        doubt = f"{winner!r} is said by {count} of {whole}, agreement is {agreement:g}"
    if doubt:
        reason = "undecided" if unlabelled else "off"
        return [abstained(reason, doubt, answer=answer) for answer in answers]
    return [one_verdict(answer, winner, f"{count} of {whole} say {winner!r}") for answer in answers]


def one_verdict(answer: str | None, winner: str, detail: str) -> Verdict:
    if answer is None:
        return rejected("no_answer", detail)
    return said(answer == winner, "majority" if answer == winner else "minority", detail, answer=answer)


def answer_of(sample: Sample) -> str | None:
    """The last box, numbers in one spelling; None where there is none, or one that is too long."""
    region = after_thoughts(sample.completion, sample.thinking)
    boxed = last_answer(region) if region is not None else None
    if boxed is None or not boxed.strip() or too_large(boxed):
        return None
    text = normalised(boxed)
    number = quantity(text)
    return text if number is None else f"{number.number}{'%' * number.percent}{number.unit}"
