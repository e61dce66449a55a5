"""Files that survive a kill at any moment: whole replacements, and logs of one JSON object a line.

Knows bytes and JSON; what the lines mean is the run folder's business.
"""

import errno
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral, Real
from pathlib import Path
from time import sleep
from typing import Any

from rlvr.atomic import ESCAPED, replace_text
from rlvr.config import RecipeError

STRICT = json.JSONEncoder(ensure_ascii=False, allow_nan=False)  # made once: `json.dumps` makes one a line
NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
PLAIN = frozenset((str, bool, int, type(None)))  # are JSON as they are
LISTS = (list, tuple)
PLACE = "run.folder=<path>"  # the knob of what is written in most places
PATIENCE = 10  # tries, a second apart, where the disk is full


class RunFolderError(RecipeError):
    """The run folder cannot be made, read or written; one clear line for the user."""


@contextmanager
def usable(path: Path, knob: str = PLACE) -> Iterator[None]:
    """Turn the operating system's refusal into a line that names the file and the knob."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise RunFolderError(f"{path} is not UTF-8: {error}") from error
    except OSError as error:
        there = next((p for p in (path, *path.parents) if p.exists()), Path("/"))
        free_mb = shutil.disk_usage(there).free // 2**20
        raise RunFolderError(
            f"cannot use {path}: {error.strerror or error} ({free_mb} MB free there). "
            f"Make room or choose another place with {knob}"
        ) from error


def to_json(value: Any) -> str:
    """One line of strict JSON. JSON has no nan and no inf, so they become strings; `number` reads them back."""
    try:
        return STRICT.encode(value)  # nearly all is JSON as it is; to look first takes as long again
    except (ValueError, TypeError):
        return STRICT.encode(_jsonable(value))


def json_line(record: Mapping[str, Any]) -> str:
    return to_json(record) + "\n"


def _jsonable(value: Any) -> Any:
    kind = type(value)  # by far most are one of these; asking abstract classes first took three times as long
    if kind in PLAIN or (kind is float and math.isfinite(value)):
        return value
    if kind in LISTS:
        return list(value) if PLAIN.issuperset(map(type, value)) else [_jsonable(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_jsonable(item) for item in value]
    if isinstance(value, str | bool | None):
        return value
    if isinstance(value, Integral):  # numpy's integers and floats are no Python ones
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else str(float(value))
    return str(value)  # paths, dates, whatever a data set holds as its answer


def number(value: str | float) -> float:
    """A metric as `to_json` wrote it."""
    return NON_FINITE[value] if isinstance(value, str) else value


def write_atomic(path: Path, text: str | Iterable[str], knob: str = PLACE) -> None:
    """The file holds all of `text`, or of its pieces, or what it held before, even after a power cut."""
    with usable(path, knob):
        replace_text(path, text)


class JsonLines:
    """A log that only grows, one JSON object a line; each line is handed to the operating system as it is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with usable(path):
            self._cut_torn_line()
            self._file = path.open("ab", buffering=0)

    def append(self, record: Mapping[str, Any]) -> None:
        """A checkpoint that is being written may fill the disk for a moment, and is then taken back: worth a wait."""
        line = json_line(record).encode(errors=ESCAPED)
        with usable(self.path):
            for left in reversed(range(PATIENCE)):
                try:
                    return self._write(line)
                except OSError as error:
                    if error.errno != errno.ENOSPC or not left:
                        raise
                    sleep(1)

    def _write(self, line: bytes) -> None:
        written = self._file.write(line)
        if written != len(line):  # a full disk may take a part of the line first
            os.truncate(self.path, self.path.stat().st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def read(self) -> list[dict[str, Any]]:
        with usable(self.path):
            lines = self.path.read_bytes().split(b"\n")
        return [self._parsed(line, number) for number, line in enumerate(lines, 1) if line]

    def _parsed(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            raise RunFolderError(f"{self.path}, line {number}: no JSON object: mend or remove it")
        return record

    def keep(self, wanted: Callable[[dict[str, Any]], bool]) -> None:
        """Drop the other lines, all at once or not at all."""
        kept = [record for record in self.read() if wanted(record)]
        self._file.close()
        write_atomic(self.path, map(json_line, kept))
        with usable(self.path):
            self._file = self.path.open("ab", buffering=0)

    def close(self) -> None:
        self._file.close()

    def _cut_torn_line(self) -> None:
        """A kill in the middle of a write leaves a last line without its end."""
        data = self.path.read_bytes() if self.path.exists() else b""
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.truncate(self.path, whole)
