"""`rlvr evaluate` and `rlvr export`: what is done with a model, without training it."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from rlvr.config import RecipeError
from rlvr.observe.console import open_display
from rlvr.observe.files import usable
from rlvr.observe.runfolder import CONFIG, RunFolder, numbered

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
    from rlvr.evaluate_model import evaluate as run_evaluation
    from rlvr.evaluate_model import solved_before, write
    from rlvr.inputs import read_problems

    import_from(args.config_dir)
    composed, day = composed_for(args)
    cfg, _ = typed(composed)
    before = solved_before(args.against) if args.against else None
    inputs = read_problems(cfg, day)
    with place(args.out, cfg.name) as folder:
        with closing(open_display(cfg.log.console)) as display:
            report = run_evaluation(cfg, inputs, display)
        write(folder, report, to_yaml(composed))
    print("\n".join(report.words()))
    if before is not None:
        print("\n".join(report.against(before, str(args.against))))
    print(f"Written to {folder}")
    return 0


def composed_for(args: argparse.Namespace) -> tuple[Any, str | None]:
    """The recipe to evaluate, and the day that its chat template is told: a run's own."""
    from rlvr.compose import check_overrides, compose_recipe, saved_recipe, text_of

    saved = Path(args.source, CONFIG)
    if not saved.is_file():
        return compose_recipe(args.source, args.overrides, args.config_dir), None
    check_overrides(args.overrides)
    model = Path(args.source, "model")
    composed = saved_recipe(text_of(saved), args.overrides, where=saved)
    if not any(override.startswith("model.path=") for override in args.overrides):
        if not model.is_dir():
            raise RecipeError(f"{args.source} has no model yet: `rlvr export {args.source}` makes one of a checkpoint")
        composed.model.path = str(model)
    return composed, RunFolder.prompts_of(args.source).get("day")


@contextmanager
def place(out: Path | None, name: str) -> Iterator[Path]:
    """The folder to write to. It is made now, not when hours have passed; and is gone where nothing came of it."""
    if out is None:
        folder = numbered(Path("evaluations"), name)
    else:
        folder = out
        with usable(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.iterdir()):
                raise RecipeError(f"--out {out}: there are files in it already")
    try:
        yield folder
    except BaseException:
        with suppress(OSError):  # what was written stays
            folder.rmdir()
        raise


def export(args: argparse.Namespace, import_from: ImportFrom) -> int:
    from rlvr.compose import check_overrides, saved_recipe, text_of, typed
    from rlvr.export_checkpoint import export_checkpoint

    check_overrides(args.overrides)
    import_from(args.config_dir)
    with closing(RunFolder.open(args.run)):
        saved = args.run / CONFIG
        cfg, _ = typed(saved_recipe(text_of(saved), args.overrides, where=saved))
        with closing(open_display(cfg.log.console)) as display:
            folder = export_checkpoint(cfg, args.run, args.step, args.to, display)
    print(folder)
    return 0
