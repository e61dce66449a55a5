"""What the sentinel would have said of a recorded run: ours, or anybody's CSV or JSON lines. Acts on nothing.

    file --read_records--> {column: number} a line --find_columns--> metrics of a step --replay--> Alarm, ...

A step that goes back is a rollback or a new start: what was recorded from there on is forgotten, or nearly, as the
loop does. One that stays is one more line of the same step.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isfinite, isnan, nan
from pathlib import Path
from typing import Any

from rlvr.sentinel.columns import STEP, Columns
from rlvr.sentinel.history import Alarm, Row, going_back
from rlvr.sentinel.watch import Watch

ACCURACIES = ("accuracy", "eval/accuracy_greedy")

Record = Mapping[str, float]


class NoRecord(ValueError):
    """The file holds no run that can be read."""


def read_records(path: Path) -> list[dict[str, float]]:
    """Numbers only, a line each; what is empty, text, or missing is left out."""
    if path.is_dir():  # a run folder of ours
        path = path / "metrics.jsonl"
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise NoRecord(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    try:
        raw: Iterable[Any] = objects(text) if text.lstrip()[:1] in ("{", "[") else csv.DictReader(text.splitlines())
        records = [{str(name): x for name, value in row.items() if (x := number(value)) is not None} for row in raw]
    except (ValueError, AttributeError, RecursionError, csv.Error) as error:
        raise NoRecord(f"{path}: neither CSV nor JSON lines: {error}") from error
    if not any(records):
        raise NoRecord(f"{path}: no number in it")
    return records


def objects(text: str) -> list[Any]:
    """JSON lines; or one JSON list; or a Hugging Face trainer_state.json."""
    try:
        whole = json.loads(text)
    except json.JSONDecodeError:
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    if isinstance(whole, dict):
        whole = whole.get("log_history", [whole])
    if not isinstance(whole, list):
        raise ValueError(f"log_history={whole!r:.40}, expected a list")
    return whole


def number(value: Any) -> float | None:
    if isinstance(value, bool) or value is None or isinstance(value, dict | list):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def steps_of(records: Sequence[Record], columns: Columns) -> list[Record]:
    """Our metrics, one record a step: lines that carry the same step become one. Without steps, lines are counted."""
    steps: list[dict[str, float]] = []
    for index, record in enumerate(records):
        metrics = columns.read(record)
        if STEP in columns.chosen and not isfinite(metrics.get(STEP, nan)):
            continue
        metrics.setdefault(STEP, index + 1)
        if len(metrics) == 1:
            continue
        if steps and steps[-1][STEP] == metrics[STEP]:
            steps[-1] |= metrics
        else:
            steps.append(metrics)
    return percents(steps)


def percents(steps: list[dict[str, float]]) -> list[Record]:
    """An accuracy above 1.5 is one in percent. A missing one is often written as nan."""
    percent = {name for name in ACCURACIES if any(row.get(name, 0) > 1.5 for row in steps)}
    return [
        {name: x / 100 if name in percent else x for name, x in row.items() if name not in ACCURACIES or not isnan(x)}
        for row in steps
    ]


def starts(steps: Sequence[Record]) -> list[tuple[int, int]]:
    """First and last step of every stretch without a step back."""
    found: list[tuple[int, int]] = []
    for row in steps:
        step = int(row[STEP])
        if found and step > found[-1][1]:
            found[-1] = (found[-1][0], step)
        else:
            found.append((step, step))
    return found


def replay(steps: Iterable[Record], watch: Watch) -> Iterator[Alarm]:
    """Each detector's alarms as they come, each trouble once: one that began before the detector last spoke is the
    same. The first alarm is where the run would have been rolled back; the others are of what would not have been."""
    history: list[Row] = []
    said: dict[str, int] = {}
    onset = 0  # of what the last step was undone for, if it was
    for metrics in steps:
        row = watch.watch(int(metrics[STEP]), {name: x for name, x in metrics.items() if name != STEP})
        if history and row[STEP] <= history[-1][STEP]:
            kept = [old for old in history if old[STEP] < row[STEP]]
            history, said = list(going_back(kept, history, onset, evaluates=False)), {}  # a record is as it is
        alarms = watch.all_alarms(row, history)
        onset = alarms[0].onset if alarms else 0
        for alarm in alarms:
            last, said[alarm.detector] = said.get(alarm.detector), alarm.step
            if last is None or alarm.onset > last:
                yield alarm
        history.append({name: x for name, x in row.items() if isfinite(x)})
