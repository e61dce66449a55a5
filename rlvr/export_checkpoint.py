"""The weights of a run's checkpoint as a plain Hugging Face folder: trainer ranks, and nothing else, are started."""

from contextlib import ExitStack
from pathlib import Path

from rlvr import config
from rlvr.checkpoint.disk import DiskCheckpoints, export
from rlvr.checkpoint.ledger import step_of
from rlvr.config import Recipe, RecipeError
from rlvr.observe.console import Display
from rlvr.probe import LEAST_RESUMED
from rlvr.train.models import check_policy
from rlvr.workers import probe_tolerance, training, without_engines


def export_checkpoint(cfg: Recipe, run: Path, step: int | None, folder: Path | None, display: Display) -> Path:
    """Of `step`, or the newest that the run could go on from, into `folder` or beside the run's own model; where it
    lies. RecipeError where there is no such checkpoint, or something lies there already."""
    cfg = without_engines(cfg)
    config.check(cfg)
    check_policy(cfg.model)
    if not (run / "checkpoints").is_dir():
        raise RecipeError(f"{run} has no checkpoints")
    checkpoints = DiskCheckpoints(run / "checkpoints", cfg.checkpoint, [], tell=display.event)
    name = chosen(checkpoints, run, step)
    folder = (folder or run / f"model-{step_of(name):08d}").resolve()  # trainers may stand in another folder
    if folder.exists():
        raise RecipeError(f"{folder} exists: remove it, or name another with --to")
    with ExitStack() as stack:
        with display.phase(f"starting DeepSpeed ({cfg.cluster.kind})"):
            trainer, on_gpu = stack.enter_context(training(cfg))
        checkpoints.tolerance = max(LEAST_RESUMED, probe_tolerance(cfg, on_gpu, cfg.model.dtype))
        with display.phase(f"exporting {name}"):
            checkpoints.load(trainer, name)
            export(trainer, folder, f"rlvr export {run} --step {step_of(name)}")
    return folder


def chosen(checkpoints: DiskCheckpoints, run: Path, step: int | None) -> str:
    """Of several of a step, as after a rollback, the newest that the run could go on from."""
    ledger = checkpoints.ledger
    there = {step_of(name): name for name in (*ledger.past(), *ledger.usable())}
    if not there:
        raise RecipeError(f"{run} has no checkpoints")
    if step is None:
        step = max(map(step_of, ledger.usable()), default=max(there))
    if step not in there:
        steps = ", ".join(map(str, sorted(there)))
        raise RecipeError(f"--step {step}: {run} has no checkpoint of that step; it has {steps}")
    return there[step]
