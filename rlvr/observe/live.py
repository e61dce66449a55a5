"""The display for a terminal, drawn with rich.

    ✓ starting Ray                                                  6.2 s     phases, done ...
    ⠹ evaluating on 500 problems  312/1,000                         9.1 s     ... and going on
    14:02:11 checkpoint: step 25 saved                                        events
    ╭─ quickstart ───────────────────────────────────────────────────────╮
    │ step 23/50 ━━━━━━━━━━━━━━━━━━━━━╸━━━━━━━━━━━━━━━━━━━━  0:48 left   │    one panel that stays at the bottom
    ╰────────────────────────────────────────────────────────────────────╯

The text in it comes from rlvr.observe.progress.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from rlvr.observe.html import visible
from rlvr.observe.progress import Clock, Curve, readings
from rlvr.observe.summary import Summary, duration, gain, percent, words

WIDTH = 100  # columns at most: beyond, the eye has too far to travel
COLUMN = 10  # characters of a reading
NARROW = 45  # characters that a bar of steps and its times do not fit into
FRAMES_PER_S = 4  # each costs about 3 ms of the driver's core
STYLES = {  # by kind of event
    "error": "bold red",
    "stopped": "bold red",
    "rollback": "bold yellow",
    "interrupt": "yellow",
    "warning": "yellow",
}


@dataclass(eq=False)
class Phase:
    name: str
    total: int  # pieces; 0: not known
    done: int = 0
    start: float = field(default_factory=time.monotonic)
    spinner: Spinner = field(default_factory=lambda: Spinner("dots", style="cyan"))

    def line(self, mark: RenderableType) -> RenderableType:
        row = Table.grid(padding=(0, 1), expand=True)
        row.add_column(width=1)
        row.add_column(ratio=1)
        row.add_column(justify="right")
        told = Text(visible(self.name))
        if self.total:
            told.append(f"  {self.done:,}/{self.total:,}", style="dim")
        row.add_row(mark, told, Text(f"{time.monotonic() - self.start:.1f} s", style="dim"))
        return row


class LiveDisplay:
    """See rlvr.observe.console.Display."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._phases: list[Phase] = []
        self._name = ""
        self._clock: Clock | None = None  # between `start` and `close`
        self._latest: Mapping[str, float] = {}
        self._curve = Curve()
        self._last_panel: Panel | None = None  # of a display that is closed; `result` shows it for good
        self._live = Live(
            get_renderable=self._picture, console=console, refresh_per_second=FRAMES_PER_S, transient=True
        )

    @contextmanager
    def phase(self, name: str, total: int = 0) -> Iterator[Callable[[], None]]:
        """Several may go on at once, one line each."""
        phase = Phase(name, total)

        def tick() -> None:
            phase.done += 1

        self._phases.append(phase)
        self._live.start()
        mark = Text("✗", style="bold red")
        try:
            yield tick
            mark = Text("✓", style="green")
        finally:
            self._phases.remove(phase)
            self._print(phase.line(mark))
            if not self._phases and self._clock is None:
                self._live.stop()

    def start(self, name: str, steps: int, history: Sequence[Mapping[str, float]] = ()) -> None:
        self._name = visible(name)
        for row in history:
            self._curve.add(int(row["step"]), row)
            self._latest = row
        self._clock = Clock(steps, int(history[-1]["step"]) if history else 0)
        self._live.start()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._curve.add(step, metrics)
        self._latest = metrics
        if self._clock is not None:
            self._clock.tick(step)

    def event(self, kind: str, message: str, **fields: Any) -> None:
        line = Text(time.strftime("%H:%M:%S "), style="dim")
        self._print(line.append(f"{kind}: ", style=STYLES.get(kind, "cyan")).append(visible(message), style="default"))

    def result(self, summary: Summary, folder: Path) -> None:
        self.close()
        if self._last_panel is not None:
            self._print(self._last_panel)
        if any(None not in pair for pair in summary.accuracies().values()):
            self._console.print()
            self._print(accuracy_table(summary))
        for line in words(summary, folder):
            self._console.print(Text(visible(line)), soft_wrap=True)  # a path that is broken in two cannot be copied

    def close(self) -> None:
        self._live.stop()
        if self._clock is not None:
            self._last_panel, self._clock = self._panel(self._clock), None

    def _print(self, what: RenderableType) -> None:
        self._console.print(what, width=min(self._console.width, WIDTH))

    def _picture(self) -> RenderableType:
        lines = [phase.line(phase.spinner) for phase in self._phases]
        panel = [] if self._clock is None else [self._panel(self._clock)]
        whole = Table.grid(expand=True)
        whole.width = min(self._console.width, WIDTH)
        for part in (*lines, *panel):
            whole.add_row(part)
        return whole

    def _panel(self, clock: Clock) -> Panel:
        width = min(self._console.width, WIDTH)
        parts: list[RenderableType] = [bar(clock, width - 4)]
        if self._latest:
            parts += [Text(), values(self._latest, width - 4)]
        if drawn := self._curve.drawn(width - 4):
            label, first, bars, last = drawn
            parts += [Text(), Text.assemble((f"{label} ", "dim"), first, " ", (bars, "green"), " ", (last, "bold"))]
        title = Text(self._name, style="bold")
        return Panel(Group(*parts), title=title, title_align="left", border_style="dim", width=width)


def bar(clock: Clock, width: int) -> RenderableType:
    row = Table.grid(padding=(0, 2, 0, 0), expand=True)
    row.add_column(no_wrap=True)
    row.add_column(ratio=1)
    row.add_column(no_wrap=True, justify="right")
    elapsed, left = duration(clock.elapsed_s), duration(clock.left_s)
    step = Text.assemble(("step ", "dim"), (f"{clock.done}/{clock.steps}", "bold"))
    if width < NARROW:
        return step
    row.add_row(
        step,
        ProgressBar(total=max(1, clock.steps), completed=clock.done),
        Text.assemble(elapsed, (" elapsed, ", "dim"), left, (" left", "dim")),
    )
    return row


def values(metrics: Mapping[str, float], width: int) -> RenderableType:
    """The readings in columns of equal width, each value over its label: the first so many as have room."""
    row = Table.grid(padding=(0, 1, 0, 0), expand=True)
    shown = readings(metrics)[: max(1, width // COLUMN)]
    for _ in shown:
        row.add_column(ratio=1, no_wrap=True)
    row.add_row(*(Text(value, style="bold") for _, value in shown))
    row.add_row(*(Text(label, style="dim") for label, _ in shown))
    return row


def accuracy_table(summary: Summary) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=f"Accuracy on {summary.problems} held-out problems", title_justify="left")
    table.add_column("decoding")
    for column in ("before", "after", "gain"):
        table.add_column(column, justify="right")
    for decoding, (before, after) in summary.accuracies().items():
        if before is not None and after is not None:
            style = "bold green" if after > before else "bold red" if after < before else "bold"
            table.add_row(decoding, percent(before), Text(percent(after), style=style), gain(before, after))
    return table
