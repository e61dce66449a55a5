"""Several runs side by side: a table for a terminal, the same as records for programs, and one page with their curves.

    [Record, ...] -> rows -> lines, records, page

Shows what the runs wrote, and measures nothing again. What a run does not say is a dash.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import TextWrapper
from typing import Any

from rlvr.atomic import replace_text
from rlvr.config import RecipeError
from rlvr.observe.charts import COLOURS, Curve, Mark, chart, look, swatch
from rlvr.observe.html import Markup, tag, visible
from rlvr.observe.record import Record
from rlvr.observe.report import document, evaluations, marks_of
from rlvr.observe.runs import COLUMNS, DASH, RECENT, Row, Seeds, rows_of, seeds_of

NAME = "compare.html"
WIDE = 120  # columns of a terminal
LEAST = 12  # of them for a name
LONG = 40  # characters of a value that differs
LOOKS = 2 * len(COLOURS)

WORDS = ("run", "status")  # the columns that are no numbers
CURVES = (  # title, metric, a share
    ("Reward", "reward/mean", False),
    ("Accuracy of what was sampled", "accuracy", True),
    ("Held-out accuracy, greedy", "eval/accuracy_greedy", True),
    ("Held-out accuracy, sampled", "eval/accuracy_sampled", True),
    ("Entropy, nats", "policy/entropy", False),
    ("Mean length, tokens", "completions/length_mean", False),
    ("Truncated", "completions/truncated", True),
    ("Groups without signal", "groups/no_signal", True),
    ("Gradient norm, before clipping", "policy/grad_norm", False),
    ("KL from the reference, nats", "policy/kl_ref", False),
    ("KL from an anchor, nats", "policy/kl_anchor", False),
    ("Sampled tokens per second", "tokens/per_s", False),
    ("Seconds a step", "time/step", False),
)
KEY = f"greedy, sampled: held-out accuracy before -> after; reward: mean of the last {RECENT} steps; s/step: median"
RESUMED = ">: the time of the last start alone, as the run was resumed"
BY_HAND = "+: the sentinel's rollbacks, and those by hand"
NEWEST = "*: of the newest evaluation, as there is none of the end"
PER_SEEDS = "seeds: mean accuracy after of the n that finished, +- the standard deviation between them"


def records_of(runs: Sequence[Path]) -> list[Record]:
    """RecipeError for fewer than two run folders; one that is named twice counts once."""
    once: dict[Path, Path] = {}
    for path in runs:
        once.setdefault(path.resolve(), path)
    paths = list(once.values())
    if len(paths) < 2:
        raise RecipeError(f"compare needs two run folders or more: got {', '.join(map(str, paths)) or 'none'}")
    return [Record.of(path, completions=False) for path in paths]


def write_page(records: Sequence[Record], out: Path) -> Path:
    """RecipeError for a place that cannot be written."""
    try:
        replace_text(out, page(records))
    except OSError as error:
        raise RecipeError(f"--out {out}: cannot be written: {error.strerror or error}") from error
    return out


def json_records(records: Sequence[Record]) -> list[dict[str, Any]]:
    """A run each, then one for runs that differ by their seed alone: these have `runs` in the place of `run`."""
    return [row.record() for row in table_of(records)]


def table_of(records: Sequence[Record]) -> list[Row | Seeds]:
    rows = rows_of(records)
    return [*rows, *seeds_of(rows)]


def lines(records: Sequence[Record]) -> list[str]:
    """The table, for a terminal of 120 columns; ASCII. What differs stands below it where it is too long for a line."""
    every = table_of(records)
    table = [list(COLUMNS), *([plain(cell) for cell in row.cells()] for row in every)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    widths[0] = min(widths[0], max(LEAST, WIDE - sum(widths[1:]) - 2 * len(widths[1:])))
    drawn = []
    for cells in table:
        shown = [cut(cells[0], widths[0]), *cells[1:]]
        placed = zip(shown, widths, COLUMNS, strict=True)
        drawn.append("  ".join(f"{c:<{w}}" if name in WORDS else f"{c:>{w}}" for c, w, name in placed))
    differs = ["differs in", *(in_words(row) for row in every)]
    beside = [f"{line}  {said}".rstrip() for line, said in zip(drawn, differs, strict=True)]
    if not any(differs[1:]):
        found = [line.rstrip() for line in drawn]
    elif max(map(len, beside)) <= WIDE:
        found = beside
    else:
        found = [*(line.rstrip() for line in drawn), "", "what differs:"]
        for cells, said in zip(table[1:], differs[1:], strict=True):
            start = f"{cut(cells[0], widths[0]):<{widths[0]}}  "
            found += wrapped(said or DASH, start, " " * len(start))
    return [*found, "", *(line for note in notes(every) for line in wrapped(note, "", "  "))]


def wrapped(text: str, first: str, then: str) -> list[str]:
    filled = TextWrapper(WIDE, first, then, break_long_words=False, break_on_hyphens=False)
    return filled.wrap(text)


def notes(every: Sequence[Row | Seeds]) -> list[str]:
    rows = [row for row in every if isinstance(row, Row)]
    said = {
        KEY: True,
        RESUMED: any(row.resumed and row.wall_s is not None for row in rows),
        BY_HAND: any(row.rollbacks and row.rollbacks[1] for row in rows),
        NEWEST: any(row.newest for row in rows),
        PER_SEEDS: len(rows) < len(every),
    }
    return [note for note, holds in said.items() if holds]


def in_words(row: Row | Seeds) -> str:
    if isinstance(row, Seeds):
        return plain(f"of {', '.join(run.name for run in row.runs)}")
    return " ".join(f"{name}={cut(plain(value), LONG)}" for name, value in row.differs.items())


def plain(text: str) -> str:
    """In one line of ASCII."""
    return visible(text.replace("\n", "\\n").replace("\t", "\\t")).encode("ascii", "backslashreplace").decode()


def cut(text: str, width: int) -> str:
    """Without its middle where it is too long: paths differ at either end."""
    if len(text) <= width:
        return text
    head = (width - 3) // 2
    return f"{text[:head]}...{text[head + 3 - width :]}"


def page(records: Sequence[Record]) -> str:
    every = table_of(records)
    rows = [row for row in every if isinstance(row, Row)]
    said = [tag("p", note, class_="dim") for note in notes(every)]
    if bad := sum(record.unreadable for record in records):
        said.append(tag("p", f"{bad} lines or files of these runs cannot be read and are left out.", class_="bad"))
    if len(rows) > LOOKS:
        said.append(tag("p", f"More than {LOOKS} runs: from there on they look alike in the curves.", class_="bad"))
    return document(
        f"{len(rows)} runs: rlvr compare", tag("h1", f"{len(rows)} runs side by side"), table(every), said,
        tag("h2", "What differs"), what_differs(rows),
        tag("h2", "Curves"), key(records), curves(records, rows),
    )  # fmt: skip


def table(every: Sequence[Row | Seeds]) -> Markup:
    drawn = [tag("tr", [tag("th", name, class_="" if name in WORDS else "n") for name in COLUMNS])]
    for n, row in enumerate(every):
        name, *cells = row.cells()
        first = named(row, n) if isinstance(row, Row) else [name, tag("span", f" {in_words(row)}", class_="dim")]
        rest = [tag("td", cell, class_=side(of)) for cell, of in zip(cells, COLUMNS[1:], strict=True)]
        drawn.append(tag("tr", tag("td", first, class_="kind" if isinstance(row, Row) else ""), rest))
    return tag("div", tag("table", drawn), class_="card scroll")


def side(column: str) -> str:
    return "kind" if column in WORDS else "n kind"


def named(row: Row, n: int) -> Markup:
    return tag("span", swatch(*look(n)), f" {row.name}", title=str(row.path))


def what_differs(rows: Sequence[Row]) -> Markup:
    """A column a run, in the order of the recipe."""
    names = dict.fromkeys(name for row in rows for name in row.differs)
    if not names:
        return tag("p", "Their recipes are the same, or cannot be read.", class_="dim")
    drawn = [tag("tr", tag("th", ""), [tag("th", named(row, n)) for n, row in enumerate(rows)])]
    for name in names:
        values = [tag("td", cut(row.differs.get(name, ""), LONG), title=row.differs.get(name, "")) for row in rows]
        drawn.append(tag("tr", tag("td", name), values))
    return tag("div", tag("table", drawn), class_="card scroll")


def key(records: Sequence[Record]) -> Markup | None:
    """What lines mean that are no curve."""
    said = []
    if any(rollbacks(record, "", n) for n, record in enumerate(records)):
        said.append(tag("span", "upright and dashed: a rollback, in the colour of its run"))
    if any(record.undone for record in records):
        said.append(tag("span", "steps that were undone are left out: the report of each run has them"))
    return tag("p", said, class_="legend") if said else None


def curves(records: Sequence[Record], rows: Sequence[Row]) -> Markup:
    """A run looks the same in all of them."""
    evaluated = [evaluations(record.events) for record in records]
    marks = [rollbacks(record, row.name, n) for n, (record, row) in enumerate(zip(records, rows, strict=True))]
    figures = []
    for title, metric, share in CURVES:
        drawn, beside = [], []
        for n, (record, row) in enumerate(zip(records, rows, strict=True)):
            points = evaluated[n].get(metric, [])
            curve = Curve(row.name, points, dots=True) if points else Curve.of(metric, record.metrics, label=row.name)
            if curve.any_finite():
                drawn.append(replace(curve, look=n))
                beside += marks[n]
        figures.append(chart(title, drawn, beside, share))
    shown = [figure for figure in figures if figure is not None]
    return tag("div", shown, class_="grid-of") if shown else tag("p", "No step was taken yet.", class_="dim")


def rollbacks(record: Record, name: str, n: int) -> list[Mark]:
    found = [mark for mark in marks_of(record) if mark.kind == "rollback"]
    return [replace(mark, text=f"{name}: {mark.text}", colour=look(n)[0]) for mark in found]
