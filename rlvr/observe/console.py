"""What a person sees while a run is going. Two displays with the same methods; `open_display` picks.

Both are sinks. Neither decides anything, and nothing here is read back by the run.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, Protocol, TextIO, cast

from rich.console import Console

from rlvr.observe.live import LiveDisplay
from rlvr.observe.plain import PlainDisplay
from rlvr.observe.summary import Summary


class Display(Protocol):
    """Between `start` and `close` steps are logged; phases and events may come at any time."""

    def phase(self, name: str, total: int = 0) -> AbstractContextManager[Callable[[], None]]:
        """Show that something long is going on ("loading the vLLM engine"), and afterwards how long it took. Of `total`
        pieces, where that is known, each is told of by a call."""
        ...

    def start(self, name: str, steps: int, history: Sequence[Mapping[str, float]] = ()) -> None:
        """Training begins, of `steps` steps in all; `history` are the rows of those before a resume."""
        ...

    def log(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def event(self, kind: str, message: str, **fields: Any) -> None: ...

    def result(self, summary: Summary, folder: Path) -> None:
        """The closing table and the last printed lines. Closes the display."""
        ...

    def close(self) -> None:
        """Give the terminal back, also after Ctrl-C; closing twice is no error."""
        ...


class Unfailing:
    """A stream that falls silent at the first thing that it cannot write, as when a pipe has lost its reader or a log's
    disk is full: a run is worth more than what is shown of it. Everything else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except UnicodeError:  # the next text may be another
            return 0
        except (OSError, ValueError):  # the latter of one that is closed
            silence(self._stream)
            return 0

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            silence(self._stream)


def silence(stream: TextIO) -> None:
    """What it holds and what is still to come goes nowhere: at exit Python would try once more, and say so."""
    with suppress(OSError, ValueError):
        own = stream.fileno()  # first: a closed stream has none
        with open(os.devnull, "wb") as null:
            os.dup2(null.fileno(), own)


def open_display(on: bool = True, stream: TextIO | None = None) -> Display:
    """Live where there is a terminal that can show it; `on=False` (log.console) leaves only trouble and the result.
    Neither fails because its stream does."""
    if stream is None:  # no sys.stdout either: it was closed (`>&-`)
        stream = sys.stdout or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    stream = cast(TextIO, Unfailing(stream))
    if not on or not stream.isatty():
        return PlainDisplay(stream, quiet=not on)
    console = Console(file=stream, highlight=False)
    able = not console.is_dumb_terminal and console.encoding.startswith("utf")
    return LiveDisplay(console) if able else PlainDisplay(stream)
