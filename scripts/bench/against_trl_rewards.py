"""TRL's rewards in the comparison: plain functions in its process, for our verifiers would cost it more. They say what
ours say (tests/test_bench.py), or the two sides would learn different things. Stdlib only: both interpreters read it.
"""

import re
from collections.abc import Callable
from typing import Any

WORKED = re.compile(r"\s*(<think>)?[^<]*[^<\s][^<]*</think>\\boxed\{[^{}]+\}[\s.]*")


def arithmetic(completions: list, answer: list[str], **_: Any) -> list[float]:
    """1 for the right number in the last box, 0.1 for the form: what our `math` and `format` say of these texts."""
    texts = [messages[0]["content"] for messages in completions]
    answers = [text.rpartition("</think>")[2] for text in texts]  # a thought without an end has none behind it
    boxes = [re.findall(r"\\boxed\{([^{}]*)\}", text)[-1:] if "<think>" not in text else [] for text in answers]
    formed = [0.1 * bool(WORKED.fullmatch(text)) for text in texts]
    return [float(box == [right]) + form for box, right, form in zip(boxes, answer, formed, strict=True)]


def matching(pattern: str) -> Callable[..., list[float]]:
    def matches(completions: list, **_: Any) -> list[float]:
        return [float(re.search(pattern, messages[0]["content"]) is not None) for messages in completions]

    return matches
