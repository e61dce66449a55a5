"""`rlvr evaluate` and `rlvr export`: what is done with a model, without training it."""

import argparse
import json
import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from rlvr.config import RecipeError, RunError
from rlvr.observe.console import open_display
from rlvr.observe.files import RunFolderError, usable
from rlvr.observe.runfolder import CONFIG, SUMMARY, RunFolder, numbered

ImportFrom = Callable[[str | None], None]  # own modules may lie in this folder


def add_to(commands: Any, import_from: ImportFrom) -> None:
    """The sub-commands, into argparse's own object."""
    one = commands.add_parser("evaluate", help="how good a model is on held-out problems: a recipe's, or a run's")
    one.add_argument("source", help="a recipe, for the model that it starts from; or a run folder, for what it trained")
    one.add_argument("overrides", nargs="*", help="key=value, e.g. data.heldout=aime.jsonl evaluation.samples=8")
    one.add_argument("--out", type=Path, help="where to write it (default: evaluations/<recipe>-<number>)")
    one.add_argument("--against", type=Path, help="the folder of another evaluation, to compare with by problem")
    one.add_argument("--config-dir", help="a folder with your own recipes and Python modules, as for train")
    one.set_defaults(command=lambda args: evaluate(args, import_from))
    two = commands.add_parser("export", help="the weights of a run's checkpoint, as a Hugging Face folder")
    two.add_argument("run", type=Path, help="the run folder; the run must have ended")
    two.add_argument("overrides", nargs="*", help="key=value, e.g. cluster.kind=inline trainer.ranks=1")
    two.add_argument("--step", type=int, help="a step that `rlvr checkpoints` lists (default: the newest)")
    two.add_argument("--to", type=Path, help="where to write it (default: <run>/model-<step>)")
    two.add_argument("--config-dir", help="the folder with your own Python modules, as the run had it")
    two.set_defaults(command=lambda args: export(args, import_from))


def evaluate(args: argparse.Namespace, import_from: ImportFrom) -> int:
    from rlvr.compose import to_yaml, typed
    from rlvr.evaluate_model import OUT, solved_before, write
    from rlvr.evaluate_model import evaluate as run_evaluation
    from rlvr.inputs import read_problems
    from rlvr.workers import without_trainer

    import_from(args.config_dir)
    composed, step, day = composed_for(args)
    cfg = without_trainer(typed(composed)[0])
    of = cfg.model.path if step is None else f"{cfg.model.path} (step {step})"
    before = solved_before(args.against) if args.against else None
    with stopped_by_sigterm():
        inputs = read_problems(cfg, day)
        with place(args.out, cfg.name, OUT) as folder:
            with closing(open_display(cfg.log.console)) as display:
                report = run_evaluation(cfg, of, inputs, display, folder)
            print("\n".join(report.words()))
            if before is not None:
                print("\n".join(report.against(before, str(args.against))))
            try:
                write(folder, report, to_yaml(composed))
            except RunFolderError as error:  # what was asked for was in order
                raise RunError(str(error)) from error
    print(f"Written to {folder}")
    return 0


def composed_for(args: argparse.Namespace) -> tuple[Any, int | None, str | None]:
    """The recipe to evaluate; of a run's own model the step, and the day that the run's chat template was told."""
    from rlvr.compose import check_overrides, compose_recipe, saved_recipe, text_of

    check_overrides(args.overrides)
    source = args.source
    saved = Path(source, CONFIG)
    if not saved.is_file():
        if Path(source).is_dir():
            raise RecipeError(f"{source} is no run folder: it has no {CONFIG}")
        return compose_recipe(source, args.overrides, args.config_dir), None, None
    composed = saved_recipe(text_of(saved), args.overrides, where=saved)
    step = None
    if not any(override.startswith("model.path=") for override in args.overrides):
        composed.model.path = str(Path(source, "model"))
        if not any(override.startswith("model.chat_template=") for override in args.overrides):
            composed.model.chat_template = None  # it was exported with the model
        step = exported_step(Path(source))
    return composed, step, RunFolder.prompts_of(source).get("day")


def exported_step(run: Path) -> int:
    """Of the model that the run left; RecipeError where it has left none, or has gone on, or back, since."""
    summary = run / SUMMARY
    if not summary.is_file() or not (run / "model").is_dir():
        raise RecipeError(
            f"{run} has not come to an end, and has no model of what it is now: `rlvr export {run}` makes one of its "
            f"newest checkpoint, model.path=<folder> evaluates it"
        )
    try:
        with usable(summary):
            return int(json.loads(summary.read_text(encoding="utf-8"))["steps"])
    except (ValueError, KeyError, TypeError) as error:
        raise RecipeError(f"{summary}: not as a run writes it: mend or remove it ({error})") from None


@contextmanager
def place(out: Path | None, name: str, knob: str) -> Iterator[Path]:
    """The folder to write to. It is made now, not when hours have passed; and is gone where nothing came of it."""
    made = out is None or not out.exists()
    with usable(out or Path("evaluations"), knob):
        folder = out or numbered(Path("evaluations"), name, knob)
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise RecipeError(f"--out {out}: there are files in it already")
    try:
        yield folder
    except BaseException:
        if made:
            with suppress(OSError):  # what was written stays
                folder.rmdir()
        raise


@contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """As by Ctrl-C: whatever was started is ended."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def export(args: argparse.Namespace, import_from: ImportFrom) -> int:
    from rlvr.compose import check_overrides, saved_recipe, text_of, typed
    from rlvr.export_checkpoint import export_checkpoint

    check_overrides(args.overrides)
    import_from(args.config_dir)
    with closing(RunFolder.open(args.run)), stopped_by_sigterm():
        saved = args.run / CONFIG
        cfg, _ = typed(saved_recipe(text_of(saved), args.overrides, where=saved))
        with closing(open_display(cfg.log.console)) as display:
            folder = export_checkpoint(cfg, args.run, args.step, args.to, display)
    print(folder)
    return 0
