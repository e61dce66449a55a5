"""What a person sees while a run is going. Two displays with the same methods; `open_display` picks.

Both are sinks. Neither decides anything, and nothing here is read back by the run.
"""

import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, TextIO

from rich.console import Console

from rlvr.observe.live import LiveDisplay
from rlvr.observe.plain import PlainDisplay
from rlvr.observe.summary import Summary


class Display(Protocol):
    """Between `start` and `close` steps are logged; phases and events may come at any time."""

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Show that something long is going on ("loading the vLLM engine"), and afterwards how long it took."""
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


def open_display(on: bool = True, stream: TextIO | None = None) -> Display:
    """Live where there is a terminal that can show it; `on=False` (log.console) leaves only trouble and the result."""
    stream = stream or sys.stdout
    if not on or not stream.isatty():
        return PlainDisplay(stream, quiet=not on)
    console = Console(file=stream, highlight=False)
    able = not console.is_dumb_terminal and console.encoding.startswith("utf")
    return LiveDisplay(console) if able else PlainDisplay(stream)
