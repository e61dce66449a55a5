"""Groups that are sampled before they are asked for. Pure bookkeeping over a Pipeline; knows no Ray and no trainer.

    stream:   ... trained on | cursor: what the next step takes | further steps, up to max_staleness | not begun
                                                                                             `fill` begins these

Groups are taken in the order of the stream, whatever order they end in: the data of a step are those of a synchronous
run, a slow completion holds back its own step and no other group, and nothing is biased to short answers.

Why staleness is bounded by construction: a step takes at least `groups_per_step` groups, and no more than
(max_staleness + 1) times as many are begun and not taken. So a group that is begun under version v has been taken when
v + max_staleness has been published.
"""

from collections import deque
from collections.abc import Callable, Iterator

from rlvr.types import Group


class Ahead:
    def __init__(self, begin: Callable[[int, int], Iterator[Group]], limit: int):
        """`begin(position, count)` starts to sample these prompts of the stream; `limit` groups may be begun and not
        taken."""
        self.begin, self.limit = begin, limit
        self.cursor = self.end = 0  # the next to be taken, the next to be begun
        self.begun = deque[tuple[range, Iterator[Group]]]()  # in the order of the stream
        self.ready: dict[int, Group] = {}  # by position

    def fill(self) -> None:
        """To be called when new weights are there: what is begun now is sampled with them."""
        self._begin(self.cursor + self.limit - self.end)

    def take(self, count: int) -> list[Group]:
        """The next `count` groups of the stream, once they are whole."""
        self._begin(self.cursor + count - self.end)  # where more are asked for than were begun
        wanted = range(self.cursor, self.cursor + count)
        for position in wanted:
            while position not in self.ready:
                group = next(self.begun[0][1])
                self.ready[group.prompt.position] = group
            if self.begun and self.begun[0][0].stop == position + 1:
                self.begun.popleft()  # now, as what it has read from may hold all of its groups
        self.cursor = wanted.stop
        return [self.ready.pop(position) for position in wanted]

    def forget(self, cursor: int) -> None:
        """Whatever was begun is of no use; the stream goes on at `cursor`."""
        self.cursor = self.end = cursor
        self.ready = {}
        self.begun.clear()

    def _begin(self, count: int) -> None:
        if count > 0:
            self.begun.append((range(self.end, self.end + count), self.begin(self.end, count)))
            self.end += count
