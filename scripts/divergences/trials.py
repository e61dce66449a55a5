"""One run: the real command line, loop, trainer, engine and verifiers in a process of its own, and an accident.

    healthy(seed)  --40 steps, then asked to stop-->  run folder  --copied-->  suffer(accident)  --rlvr resume-->  80
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from accidents import ACCIDENTS, GROUPS, HEALTHY, Accident, Clock

import rlvr.run
import rlvr.train.deepspeed
from rlvr import cli
from rlvr.loop import train
from rlvr.parts import Parts

STEPS = 100
SETTINGS = (
    f"steps={STEPS}", f"rollout.groups_per_step={GROUPS}", "rollout.group_size=8", "rollout.refill_rounds=0",
    "rollout.max_tokens=40", "rollout.engine=transformers", "rollout.threads=1", "trainer.threads=1",
    "trainer.schedule=linear", "trainer.learning_rate=8e-4", "verify.processes=1", "cluster=inline",
    "data.shuffle=false", "evaluation.every=20", "checkpoint.every=5", "checkpoint.probation=10", "log.console=false",
    "log.completions_every=0",
)  # fmt: skip


def healthy(folder: Path, seed: int) -> None:
    """A run of `STEPS` that ends after `HEALTHY`, with a checkpoint, as after one Ctrl-C."""

    def interrupted(objective: Any, parts: Parts) -> tuple[Any, Parts]:
        clock = Clock(parts.trainer, 0)
        return objective, replace(parts, trainer=clock, stop=lambda: clock.taken == HEALTHY)

    code = alone(interrupted, folder, "train", "quickstart", *SETTINGS, f"seed={seed}", f"run.folder={folder}")
    assert code == 3, f"exit code {code}, not that of an interrupted run"


def suffer(name: str, healthy: Path, folder: Path, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
    """The healthy run goes on, and the accident happens to it; what became of it."""
    accident: Accident = ACCIDENTS[name]
    shutil.copytree(healthy, folder)
    beside = accident_folder(folder)
    beside.mkdir()

    def around(objective: Any, parts: Parts) -> tuple[Any, Parts]:
        objective, parts = accident.around((objective, parts), beside)
        return objective, replace(parts, trainer=Clock(parts.trainer, HEALTHY))

    settings = (*accident.settings(beside), *overrides)
    code = alone(around, folder, "resume", str(folder), *settings)
    return outcome(folder) | {"exit": code, "steps_taken": int((folder / "steps_taken").read_text())}


def accident_folder(folder: Path) -> Path:
    """Beside a run's: what the accident needs, a file of data or a mark."""
    return folder.with_name(f"{folder.name}.accident")


def alone(around: Callable[[Any, Parts], tuple[Any, Parts]], folder: Path, *words: str) -> int:
    """The command line in a forked process, with the run's parts changed on their way to the loop; its exit code."""

    def ours(cfg: Any, objective: Any, parts: Parts) -> Any:
        objective, parts = around(objective, parts)
        try:
            return train(cfg, objective, parts)
        finally:
            (folder / "steps_taken").write_text(str(parts.trainer.taken))

    def child() -> None:
        rlvr.run.train = ours  # type: ignore[assignment]
        os._exit(cli.main(words))

    process = get_context("fork").Process(target=child)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def outcome(folder: Path) -> dict[str, Any]:
    """Held-out accuracy after every twentieth step, undone ones included, and what was said on the way."""
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    evaluations = [e["fields"] for e in events if e["kind"] == "evaluation"]
    accuracy = [(e["step"], e["eval/accuracy_greedy"]) for e in evaluations]
    return {
        "accuracy": accuracy,
        "best": max(value for _, value in accuracy),
        "end": accuracy[-1][1],
        "last_step": accuracy[-1][0],
        "events": [e["message"] for e in events if e["kind"] not in ("evaluation", "begin")],
        "rollbacks": [e["fields"].get("alarm", {}).get("detector") for e in events if e["kind"] == "rollback"],
    }
