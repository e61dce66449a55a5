"""Signals that ask for an end. Standard library only."""

import math
from time import monotonic

TOGETHER_S = 1.0


class Requests:
    """What came, in order. Two within a second are one request: schedulers tell every process of a job, and one of them
    may tell another again."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self._last = -math.inf

    def hear(self, number: int) -> bool:
        """Whether it is one more request."""
        now = monotonic()
        if now < self._last + TOGETHER_S:
            return False
        self.numbers.append(number)
        self._last = now
        return True
