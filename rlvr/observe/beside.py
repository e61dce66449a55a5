"""Work that nobody waits for, done beside the loop in a thread of its own."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Beside:
    """One piece of work at a time. What it raises is raised where the next one begins, or where it is waited for."""

    def __init__(self, name: str):
        self._thread = ThreadPoolExecutor(1, name)
        self._begun: Future[None] | None = None

    def begin(self, work: Callable[[], None]) -> None:
        self.settle()
        self._begun = self._thread.submit(work)

    def settle(self) -> None:
        """Wait for what was begun."""
        begun, self._begun = self._begun, None
        if begun is not None:
            begun.result()

    def close(self) -> None:
        """No more work; what fails now is not raised above an error that there may be already."""
        self._thread.shutdown()
