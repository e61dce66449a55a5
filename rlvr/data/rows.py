"""Rows of a data set: local JSONL, JSON and parquet files, or a `datasets` hub name, as in

    HuggingFaceH4/MATH-500    HuggingFaceH4/MATH-500:test    openai/gsm8k:main:test     name, configuration, split
    train/part-*.parquet                                                                all of these, by name
"""

import json
import math
from glob import glob
from pathlib import Path
from typing import Any

from rlvr.config import RecipeError

Row = dict[str, Any]
MAX_NESTING = 100
OTHERS = (".csv", ".tsv", ".txt", ".arrow", ".gz", ".zst", ".xlsx")  # files, whether or not they are there: no hub name


def is_missing(cell: Any) -> bool:
    """Tables mark it with NaN too."""
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def read_rows(source: str, split: str, knob: str) -> list[Row]:
    """All rows of `source`. `knob` names the recipe key for error messages."""
    path = Path(source).expanduser()
    if path.suffix in READERS:
        rows = [row for file in files(path, source, knob) for row in READERS[path.suffix](file, knob)]
    else:
        if path.is_file() or path.suffix in OTHERS:
            said = f"{knob}={source}: a {path.suffix or 'bare'} file; what can be read is {', '.join(READERS)}"
            raise RecipeError(f"{said} (pandas and datasets write these)")
        if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
            raise RecipeError(f"{knob}={source}: a folder of save_to_disk; write it with to_parquet('rows.parquet')")
        rows = _from_hub(str(path) if source.startswith("~") else source, split, knob)
    if not rows:
        raise RecipeError(f"{knob}={source}: the data set is empty")
    for number, row in enumerate(rows):  # from 0, as everywhere where rows are counted; lines are from 1
        if too_deep(row):
            raise RecipeError(f"{knob}={source}: row {number} is nested more than {MAX_NESTING} deep")
    return rows


def files(path: Path, source: str, knob: str) -> list[Path]:
    """The one of this name, or those that the pattern fits."""
    if path.is_file():
        return [path]
    found = sorted(Path(name) for name in glob(str(path), recursive=True))
    if not found and set(source) & set("*?["):
        raise RecipeError(f"{knob}={source}: no file fits the pattern (looked from {Path.cwd()})")
    if not found:
        raise RecipeError(f"{knob}={source}: no such file (looked in {path.resolve().parent})")
    return found


def too_deep(value: Any) -> bool:
    """Nested so deeply that no other process could be told."""
    layer = [value]
    for _ in range(MAX_NESTING):
        holders = [item for item in layer if isinstance(item, (dict, list, tuple))]
        layer = [inner for item in holders for inner in (item.values() if isinstance(item, dict) else item)]
        if not layer:
            return False
    return any(isinstance(item, (dict, list, tuple)) for item in layer)


def _jsonl(path: Path, knob: str) -> list[Row]:
    rows = []
    # not splitlines(): a JSON string may hold U+2028 and the like, which are line ends to Python and not to JSON Lines
    for number, line in enumerate(_text(path, knob).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise RecipeError(f"{knob}={path}: line {number} is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise RecipeError(f"{knob}={path}: line {number} is a {type(row).__name__}, not an object")
        rows.append(row)
    return rows


def _json(path: Path, knob: str) -> list[Row]:
    try:
        rows = json.loads(_text(path, knob))
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{knob}={path}: not JSON: {error}") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise RecipeError(f"{knob}={path}: expected a list of objects")
    return rows


def _text(path: Path, knob: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # with or without a byte order mark
    except UnicodeDecodeError as error:
        raise RecipeError(f"{knob}={path}: not UTF-8: {error}") from None
    except OSError as error:
        raise RecipeError(f"{knob}={path}: cannot be read: {error.strerror}") from None


def _parquet(path: Path, knob: str) -> list[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:  # the latter for a damaged page too
        raise RecipeError(f"{knob}={path}: not a parquet file, or a damaged one: {one_line(error)}") from None


READERS = {".jsonl": _jsonl, ".json": _json, ".parquet": _parquet}


def _from_hub(source: str, split: str, knob: str) -> list[Row]:
    import datasets

    name, *parts = source.split(":")
    if len(parts) > 2:
        raise RecipeError(f"{knob}={source}: a data set is name, name:split or name:configuration:split")
    if not name.strip():
        raise RecipeError(f"{knob}={source!r} names no data set")
    configuration, own_split = (None, None, *parts)[-2:]
    try:
        return datasets.load_dataset(name, configuration, split=own_split or split).to_list()
    except Exception as error:  # no such data set, no such split, no network, a script, a damaged file: each its own
        said = one_line(error) + (f": {one_line(error.__cause__)}" if error.__cause__ else "")
        raise RecipeError(f"{knob}={source}: neither a .jsonl/.json/.parquet file nor a data set: {said}") from None


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
