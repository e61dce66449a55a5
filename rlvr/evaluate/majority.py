"""How often the most frequent answer of several completions is right (maj@k; Wang et al., arXiv:2203.11171)."""

from collections import defaultdict
from collections.abc import Sequence

from rlvr.evaluate import correct, judged
from rlvr.types import Verdict


def majority(problems: Sequence[Sequence[Verdict]], part: str) -> float | None:
    """Mean over the problems that could be judged; where several answers are as frequent, of them. None where no
    verdict says an answer.

    Answers are compared as text, but for blanks: two spellings of one are two, as for whoever votes without a
    reference. What `part` could not judge has no vote, nor what has no answer; without any a problem is not solved.
    """
    known = [verdicts for verdicts in problems if any(judged(verdict, part) for verdict in verdicts)]
    if all(verdict.answer is None for verdicts in known for verdict in verdicts):
        return None
    return sum(solved(verdicts, part) for verdicts in known) / len(known)


def solved(verdicts: Sequence[Verdict], part: str) -> float:
    votes: dict[str, list[bool]] = defaultdict(list)
    for verdict in verdicts:
        if verdict.answer is not None and judged(verdict, part):
            votes["".join(verdict.answer.split())].append(correct(verdict, part))
    most = max(map(len, votes.values()), default=0)
    shares = [sum(right) / most for right in votes.values() if len(right) == most]  # a judge may say either of one text
    return sum(shares) / max(len(shares), 1)
