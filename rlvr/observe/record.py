"""What a run folder says, read by somebody who only looks: of a run that goes on, that died, or that never began.

Nothing is locked or mended here (`RunFolder` does that), nothing is expected to be there, and a line that a kill tore
in two is counted, not raised.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from rlvr.config import RecipeError
from rlvr.observe.files import NON_FINITE
from rlvr.records import completion_files

FILES = ("config.yaml", "metrics.jsonl", "events.jsonl", "summary.json")
LONG = 2_000  # characters of a completion that are kept from either end
WORST = 4  # held-out problems that are shown
LONGEST_LINE = 50_000_000  # bytes; what is longer is no completion


@dataclass(frozen=True)
class Record:
    """A run as it was written, with a few of its completions."""

    path: Path
    config: str
    metrics: list[dict[str, float]]  # a row a step, in order
    undone: list[list[dict[str, float]]]  # the rows that were taken back, in stretches of steps without a gap
    events: list[dict[str, Any]]
    summary: dict[str, Any]  # empty while there is none
    environment: dict[str, Any]
    prompts: dict[str, Any]  # a digest of what it trained on; empty in old runs
    completions: list[tuple[int, dict[str, Any]]]  # (step, record)
    missed: list[tuple[int, dict[str, Any]]]  # the same of held-out problems: the worst of the last evaluation
    unreadable: int  # lines and files

    @classmethod
    def of(cls, path: Path, completions: bool = True) -> "Record":
        """Without `completions` those files are not read: they are by far the largest."""
        if (path / "problems.jsonl").is_file():
            raise RecipeError(f"{path} is an evaluation, and no run folder")
        if not path.is_dir() or not any((path / name).is_file() for name in FILES):
            raise RecipeError(f"{path} is no run folder: it has none of {', '.join(FILES)}")
        rows, bad_rows = lines_of(path / "metrics.jsonl")
        taken_back, bad_undone = lines_of(path / "undone.jsonl")
        events, bad_events = lines_of(path / "events.jsonl")
        environments = sorted(path.glob("environment*.json"), key=lambda p: (len(p.name), p.name))
        environment = object_of(environments[-1]) if environments else {}
        objects = [object_of(path / "summary.json"), environment, object_of(path / "prompts.json")]
        some, bad_completions = some_completions(path) if completions else ([], 0)
        missed, bad_missed = the_worst(path) if completions else ([], 0)
        metrics = [row for row in map(numbers, rows) if "step" in row]
        bad = bad_rows + bad_undone + bad_events + bad_completions + bad_missed + sum(o is None for o in objects)
        config = path / "config.yaml"
        return cls(
            path,
            config.read_text(encoding="utf-8", errors="replace") if config.is_file() else "",
            sorted(metrics, key=lambda row: row["step"]),
            stretches(row for row in map(numbers, taken_back) if "step" in row),
            [event for event in events if isinstance(event.get("fields"), dict)],
            objects[0] or {},
            objects[1] or {},
            objects[2] or {},
            some,
            missed,
            bad,
        )

    def all_rows(self) -> list[dict[str, float]]:
        """Undone ones too."""
        return [*self.metrics, *(row for stretch in self.undone for row in stretch)]


def lines_of(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The objects of a file of JSON lines, and how many lines are none."""
    found = list(objects_in(path)) if path.is_file() else []
    whole = [record for record in found if record is not None]
    return whole, len(found) - len(whole)


def objects_in(path: Path) -> Iterator[dict[str, Any] | None]:
    with path.open("rb") as file:
        while line := file.readline(LONGEST_LINE):
            if line.strip():
                yield parsed(line)


def parsed(text: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def object_of(path: Path) -> dict[str, Any] | None:
    return parsed(path.read_bytes()) if path.is_file() else {}


def numbers(row: dict[str, Any]) -> dict[str, float]:
    """Of a line of metrics.jsonl what is a number, nan and inf included."""
    read = {name: NON_FINITE.get(value, value) if isinstance(value, str) else value for name, value in row.items()}
    return {name: float(value) for name, value in read.items() if is_number(value)}


def stretches(rows: Iterable[dict[str, float]]) -> list[list[dict[str, float]]]:
    """Of one step after the other; a rollback may have undone the same ones as the one before."""
    found: list[list[dict[str, float]]] = []
    for row in rows:
        if found and row["step"] == found[-1][-1]["step"] + 1:
            found[-1].append(row)
        else:
            found.append([row])
    return found


def is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**1000)


def some_completions(run: Path) -> tuple[list[tuple[int, dict[str, Any]]], int]:
    """Of the first and the last recorded step: the best and the worst completion, one that was masked, and a pass on
    another prompt."""
    files = completion_files(run)
    chosen: list[tuple[int, dict[str, Any]]] = []
    bad = 0
    for step, path in dict.fromkeys([files[0], files[-1]] if files else []):
        records, unreadable = completions_in(path)
        bad += unreadable
        chosen += [(step, record) for record in picked(records)]
    return chosen, bad


def the_worst(run: Path) -> tuple[list[tuple[int, dict[str, Any]]], int]:
    """What the last evaluation's greedy completions were paid least for: less than others, or than a right answer."""
    files = completion_files(run, "evaluations")
    if not files:
        return [], 0
    step, path = files[-1]
    records, bad = completions_in(path)
    judged = sorted((r for r in records if r.get("decoding") == "greedy" and is_number(r.get("reward"))), key=paid)
    good = max([1.0, *map(paid, judged[-1:])])
    poor = [record for record in judged if paid(record) < good]
    return [(step, record) for record in poor[:WORST]], bad


def paid(record: dict[str, Any]) -> float:
    return float(record["reward"])


def completions_in(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Without what a reader does not read: rows, token ids, the middle of long texts."""
    records, bad = [], 0
    for record in objects_in(path):
        if record is None or not isinstance(record.get("completion"), str):
            bad += 1
            continue
        kept = ("decoding", "prompt", "index", "reference", "tokens", "stop_reason", "outcome", "reward", "parts",
                "reason", "detail", "answer", "advantage")  # fmt: skip
        messages = record.get("messages")
        last = messages[-1] if isinstance(messages, list) and messages else {}
        question = last.get("content", "") if isinstance(last, dict) else ""
        short = {name: record[name] for name in kept if name in record}
        text = record["completion"]
        short |= {"question": shortened(str(question)), "completion": shortened(text)}
        records.append(short | {"observed": of_shortened(spans(record.get("observed"), len(text)), len(text))})
    return records, bad


def picked(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    judged = sorted((r for r in records if is_number(r.get("reward"))), key=lambda r: -r["reward"])
    masked = [r for r in records if r.get("outcome") in ("abstain", "error")]
    another = [r for r in judged if r.get("prompt") != judged[0].get("prompt")]
    wanted = [*judged[:1], *another[:1], *judged[-1:], *masked[:1]]
    return [record for n, record in enumerate(wanted) if all(record is not other for other in wanted[:n])]


def shortened(text: str) -> str:
    left_out = len(text) - 2 * LONG
    return text if left_out <= 0 else f"{text[:LONG]}{gap(left_out)}{text[-LONG:]}"


def gap(left_out: int) -> str:
    return f"\n[... {left_out:,} characters ...]\n"


def spans(value: Any, length: int) -> list[tuple[int, int]]:
    """(start, end) of what tools wrote into a text of this length; none where the record does not hold such pairs."""
    try:
        found = [(int(start), int(end)) for start, end in value or ()]
    except (TypeError, ValueError, OverflowError):
        return []
    places = [0, *(place for span in found for place in span), length]
    return found if places == sorted(places) else []


def of_shortened(found: Sequence[tuple[int, int]], length: int) -> list[tuple[int, int]]:
    """Where the spans of a text of this length lie once it is `shortened`; what lies in its gap is gone."""
    left_out = length - 2 * LONG
    if left_out <= 0:
        return list(found)
    tail = length - LONG
    shift = len(gap(left_out)) - left_out
    before = [(start, min(end, LONG)) for start, end in found if start < LONG]
    return before + [(max(start, tail) + shift, end + shift) for start, end in found if end > tail]
