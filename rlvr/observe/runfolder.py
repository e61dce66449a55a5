"""One run on disk, readable with nothing but a text editor. Knows file names and formats; computes nothing.

    runs/quickstart-001/
        config.yaml            the resolved recipe
        prompts.json           what a resume knows its prompts by: a digest, and the day that templates were told
        environment.json       versions, commit, hardware, command; environment-2.json ... for each resume
        metrics.jsonl          one line a step: {"step": 12, "reward/mean": 0.41, ...}; every step exactly once
        undone.jsonl           the lines of steps that were taken again, with why: `rollback`, or `begin` (a resume)
        events.jsonl           what happened: {"time": ..., "kind": "checkpoint", "message": ..., "fields": {...}}
        completions/step-000012.jsonl   one line a completion that was sampled, with its verdict
        evaluations/step-000050.jsonl   the same of the held-out problems: `decoding` greedy or sampled
        summary.json           the result, written at the end; gone while the run goes on
        report.html            all of it as a page to look at

A failure to write here ends the run (`RunFolderError`): a run without a record has not happened.
"""

import errno
import fcntl
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import IO, Any

from rlvr.observe.environment import environment
from rlvr.observe.files import PLACE, JsonLines, RunFolderError, json_line, number, to_json, usable, write_atomic
from rlvr.observe.summary import Summary
from rlvr.records import completion_files, completion_records, evaluation_records
from rlvr.types import Group

__all__ = ["RunFolder", "RunFolderError"]

CONFIG, METRICS, EVENTS, SUMMARY = "config.yaml", "metrics.jsonl", "events.jsonl", "summary.json"
UNDONE, PROMPTS, EVALUATIONS = "undone.jsonl", "prompts.json", "evaluations"


def numbered(parent: Path, name: str, knob: str = PLACE) -> Path:
    """`parent/<name>-001`, or the next free number, which is made."""
    pattern = re.compile(re.escape(name) + r"-(\d+)")
    with usable(parent, knob):
        parent.mkdir(parents=True, exist_ok=True)
        taken = [int(match[1]) for child in parent.iterdir() if (match := pattern.fullmatch(child.name))]
        number = max(taken, default=0) + 1
        while True:
            path = parent / f"{name}-{number:03d}"
            try:
                path.mkdir()
                return path
            except FileExistsError:
                number += 1


def at_home(path: Path | str) -> Path:
    """`~/x` as a recipe may write it, with the home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:  # ~nobody/x
        raise RunFolderError(f"run.folder: {path}: {error}") from None


class RunFolder:
    """Made by `fresh`, `create` or `open`; one process at a time. It is also the sink that must not fail."""

    def __init__(self, path: Path) -> None:
        """For the three class methods: open the logs of a folder that exists."""
        self.path = path
        self._lock = self._locked()
        self.logged = False  # a step, since it was opened
        self._metrics = JsonLines(path / METRICS)
        self._events = JsonLines(path / EVENTS)
        self._last_step = max((record["step"] for record in self._metrics.read()), default=-1)

    @classmethod
    def fresh(cls, recipe: str, parent: Path = Path("runs")) -> "RunFolder":
        """`parent/<recipe>-001`, or the next free number; two runs that start together get two folders."""
        return cls(numbered(parent, recipe))

    @classmethod
    def create(cls, path: Path | str) -> "RunFolder":
        """A new run where the user says. Other files may lie there (a Slurm log does), another run may not."""
        cls.refuse_another(path)
        path = at_home(path)
        with usable(path):
            path.mkdir(parents=True, exist_ok=True)
        return cls(path)

    @staticmethod
    def refuse_another(path: Path | str) -> None:
        """RunFolderError where a run lies there already. Nothing is made."""
        path = at_home(path)
        with usable(path):
            found = [name for name in (CONFIG, METRICS, EVENTS, SUMMARY) if (path / name).exists()]
        if found:
            raise RunFolderError(
                f"run.folder: {path} already holds a run ({', '.join(found)}): "
                f"continue it with `rlvr resume {path}` or choose another run.folder"
            )

    @classmethod
    def open(cls, path: Path | str) -> "RunFolder":
        """An existing run, to resume it. A line that a kill tore in two is cut off."""
        path = at_home(path)
        if not (path / CONFIG).is_file():
            raise RunFolderError(f"{path} is no run folder: it has no {CONFIG}")
        return cls(path)

    def write_config(self, text: str) -> None:
        write_atomic(self.path / CONFIG, text)

    def config_text(self) -> str:
        with usable(self.path / CONFIG):
            return (self.path / CONFIG).read_text(encoding="utf-8")

    def write_prompts(self, known_by: Mapping[str, str]) -> None:
        write_atomic(self.path / PROMPTS, json.dumps(dict(known_by), indent=2) + "\n")

    @staticmethod
    def prompts_of(path: Path | str) -> dict[str, str]:
        """Empty where the run wrote none. It may go on meanwhile."""
        file = at_home(path) / PROMPTS
        with usable(file):
            text = file.read_text(encoding="utf-8") if file.is_file() else "{}"
        try:
            known_by: dict[str, str] = json.loads(text)
            if "day" in known_by:
                date.fromisoformat(known_by["day"])
        except (ValueError, TypeError) as error:
            raise RunFolderError(f"{file}: not as a run writes it: mend or remove it ({error})") from None
        return known_by

    def write_environment(self) -> None:
        """One file for each start of the run, so that a resume on another machine hides nothing."""
        starts = len(list(self.path.glob("environment*.json"))) + 1
        name = "environment.json" if starts == 1 else f"environment-{starts}.json"
        write_atomic(self.path / name, json.dumps(environment(), indent=2) + "\n")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append the line of a step. Numbers only; it is on its way to the disk when this returns."""
        if step <= self._last_step:
            raise ValueError(f"step {step} is already in {self.path / METRICS}: call undo_after({step - 1}) first")
        if not self.logged:
            self.forget_summary()
        row = {name: value if isinstance(value, int) else float(value) for name, value in metrics.items()}
        self._metrics.append({"step": step} | row)
        self._last_step, self.logged = step, True

    def read_metrics(self) -> list[dict[str, float]]:
        return [{name: number(value) for name, value in record.items()} for record in self._metrics.read()]

    def undo_after(self, step: int, why: str, broken: Mapping[str, float] | None = None) -> None:
        """Put the lines of the steps after `step` aside, before these are taken again; and that of the step that broke
        the run, which got no line of its own."""
        behind = [record for record in self._metrics.read() if record["step"] > step]
        undone = [*behind, *([broken] if broken else [])]
        if undone:
            log = JsonLines(self.path / UNDONE)
            for record in undone:
                log.append({**record, "undone_by": why})
            log.close()
        if behind:
            self._metrics.keep(lambda record: record["step"] <= step)
            self.forget_summary()
        self._last_step = max((record["step"] for record in self._metrics.read()), default=-1)
        with usable(self.path / "completions"):
            for recorded, path in (*completion_files(self.path), *completion_files(self.path, EVALUATIONS)):
                if recorded > step:
                    path.unlink()

    def event(self, kind: str, message: str, **fields: Any) -> None:
        """Append to the run's history, which is never cut: it tells of the resumes and rollbacks themselves."""
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._events.append({"time": time, "kind": kind, "message": message, "fields": fields})

    def read_events(self) -> list[dict[str, Any]]:
        return self._events.read()

    def write_completions(
        self, step: int, groups: Sequence[Group], advantages: Sequence[Sequence[float] | None] | None = None
    ) -> None:
        """All completions of a step with their verdicts; `advantages[n][i]` belongs to completion i of group n, and
        `advantages[n]` is None where that group was not trained on."""
        folder = self.path / "completions"
        with usable(folder):
            folder.mkdir(exist_ok=True)
        records = completion_records(groups, advantages)  # one at a time: all of a step may be gigabytes of text
        write_atomic(folder / f"step-{step:06d}.jsonl", map(json_line, records))

    def write_evaluation(self, step: int, groups: Mapping[str, Sequence[Group]]) -> None:
        """All completions of an evaluation, by decoding; one of the same step that was made before is replaced."""
        folder = self.path / EVALUATIONS
        with usable(folder):
            folder.mkdir(exist_ok=True)
        write_atomic(folder / f"step-{step:06d}.jsonl", map(json_line, evaluation_records(groups)))

    def write_summary(self, summary: Summary) -> None:
        write_atomic(self.path / SUMMARY, json.dumps(json.loads(to_json(asdict(summary))), indent=2) + "\n")

    def forget_summary(self) -> None:
        """That of an earlier end, of a run that goes on, or back."""
        with usable(self.path / SUMMARY):
            (self.path / SUMMARY).unlink(missing_ok=True)

    def remove_unused(self) -> None:
        """Take back a run that failed before its first checkpoint: there is nothing to resume. Other files stay."""
        with usable(self.path):
            if (self.path / "checkpoints").is_dir() and any((self.path / "checkpoints").iterdir()):
                return
            for name in (CONFIG, PROMPTS, METRICS, EVENTS, ".lock", "environment.json", "report.html"):
                (self.path / name).unlink(missing_ok=True)
            for folder in (self.path / "checkpoints", self.path):
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()

    def close(self) -> None:
        self._metrics.close()
        self._events.close()
        self._lock.close()

    def _locked(self) -> IO[str]:
        """Hold the folder until this process ends, however it ends; forked children do not inherit the lock."""
        with usable(self.path):
            lock = (self.path / ".lock").open("w")
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                lock.close()
                raise RunFolderError(f"{self.path}: another process is running in this run folder") from error
            # any other answer means that the file system knows no locks; the run goes on without
        return lock
