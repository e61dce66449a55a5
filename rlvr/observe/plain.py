"""The display for pipes, CI and log files: whole lines, ASCII unless a message is not, never an escape code."""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, TextIO

from rlvr.observe.html import visible
from rlvr.observe.metrics import aggregate
from rlvr.observe.progress import Clock, readings
from rlvr.observe.summary import Summary, duration, words

LINES = 20  # of steps in the whole run, about
PARTS = 4  # of a phase of many pieces, each told of
# kinds of event that even a quiet run shows
URGENT = ("error", "stopped", "rollback", "restart", "interrupt", "warning", "checkpoint_failed")
ESCAPE_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class PlainDisplay:
    """See rlvr.observe.console.Display. `quiet` leaves trouble and the result; `every` is in steps."""

    def __init__(self, stream: TextIO, quiet: bool = False, every: int | None = None) -> None:
        self._stream = stream
        self._quiet = quiet
        self._every = every
        self._clock: Clock | None = None
        self._waiting: list[Mapping[str, float]] = []  # rows since the last line

    @contextmanager
    def phase(self, name: str, total: int = 0) -> Iterator[Callable[[], None]]:
        self._say(f"{name} ...")
        start, pieces = time.monotonic(), count(1)

        def tick() -> None:
            done = next(pieces)
            if done < total and done * PARTS // total > (done - 1) * PARTS // total:
                self._say(f"{name}: {done:,}/{total:,} after {time.monotonic() - start:.1f} s")

        try:
            yield tick
        except BaseException:
            self._say(f"{name}: failed after {time.monotonic() - start:.1f} s", urgent=True)
            raise
        self._say(f"{name}: done in {time.monotonic() - start:.1f} s")

    def start(self, name: str, steps: int, history: Sequence[Mapping[str, float]] = ()) -> None:
        done = int(history[-1]["step"]) if history else 0
        self._clock = Clock(steps, done)
        self._every = self._every or max(1, round(steps / LINES))
        self._say(f"{name}: {steps} steps" + (f", going on after step {done}" if done else ""))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Between lines the steps are averaged, so that a line says more than its last step."""
        if self._clock is None or self._every is None:
            return
        self._clock.tick(step)
        self._waiting.append(metrics)
        if step % self._every == 0 or step in (1, self._clock.steps):
            shown = "  ".join(f"{label} {value}" for label, value in readings(aggregate(self._waiting)))
            times = f"elapsed {duration(self._clock.elapsed_s)}  left {duration(self._clock.left_s)}"
            counted = f"{step:{len(str(self._clock.steps))}}/{self._clock.steps}"
            self._say(f"step {counted}  {shown}  {times}")
            self._waiting = []

    def event(self, kind: str, message: str, **fields: Any) -> None:
        self._say(f"{kind}: {message}", urgent=kind in URGENT)

    def result(self, summary: Summary, folder: Path) -> None:
        for line in words(summary, folder):
            self._say(line, urgent=True)

    def close(self) -> None:
        self._clock = None

    def _say(self, line: str, urgent: bool = False) -> None:
        if urgent or not self._quiet:
            encoding = self._stream.encoding or "utf-8"
            line = visible(ESCAPE_CODES.sub("", line)).encode(encoding, "backslashreplace").decode(encoding)
            print(line, file=self._stream, flush=True)
