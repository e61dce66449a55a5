"""The command line: compose a recipe, show the plan, run.

rlvr train <recipe> [key=value ...]     recipes/<recipe>.yaml + overrides -> Recipe -> run
rlvr resume <run folder>                the run's own config.yaml -> Recipe -> run from its newest checkpoint
rlvr sweep <recipe> [key=a,b ...]       `train` for every combination, one after the other
"""

import argparse
import os
import re
import select
import sys
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rlvr import model_commands, sweep
from rlvr.checkpoint import command as checkpoint_command
from rlvr.config import Recipe, RecipeError, RunError
from rlvr.observe import compare_command, report_command
from rlvr.observe.console import open_display, silence
from rlvr.observe.files import RunFolderError
from rlvr.observe.runfolder import RunFolder, at_home
from rlvr.plan import command as plan_command
from rlvr.rollout_config import ToolConfig
from rlvr.sandbox import command as sandbox_command
from rlvr.sentinel import command as sentinel_command
from rlvr.verify import command as verify_commands
from rlvr.verify.plan import tool_of

if TYPE_CHECKING:  # Hydra and torch take seconds to import, and half of the commands need neither
    from rlvr.objective import Objective

# of a resume that means other prompts than the run began with
OTHER_PROMPTS = (
    "data.train", "data.split", "data.prompt", "data.answer", "data.system", "model.path", "model.chat_template",
)  # fmt: skip


def plan(cfg: Recipe, algorithm: Any, prompts: int, heldout: int) -> str:
    """What will run, for a person to see before it does."""
    from rlvr.compose import targets

    parts = [f"{name} x{part.weight:g}{' (gate)' if part.gate else ''}" for name, part in cfg.reward.parts.items()]
    rollout, verify, trainer = cfg.rollout, cfg.verify, cfg.trainer
    lines = {
        "model": f"{cfg.model.path} ({cfg.model.dtype}, context {cfg.model.max_context})",
        "data": f"{cfg.data.train}: {prompts:,} prompts; {heldout:,} held out",
        "algorithm": ", ".join(f"{slot} {target.rpartition('.')[2]}" for slot, target in targets(algorithm).items()),
        "reward": ", ".join(parts),
        "a step": f"{rollout.groups_per_step} prompts x {rollout.group_size} completions of <= {rollout.max_tokens} "
        f"tokens at temperature {rollout.temperature:g}",
        "tool": tool_in_words(rollout.tool) if rollout.tool.name else "",
        "workers": f"{cfg.cluster.kind}: {rollout.workers} x {rollout.engine}, {verify.workers} x {verify.processes} "
        f"verifiers, {trainer.ranks} x DeepSpeed ZeRO-{trainer.zero_stage}",
        "steps": f"{cfg.steps}, learning rate {trainer.learning_rate:g} {trainer.schedule}, seed {cfg.seed}",
    }
    return "\n".join(f"  {name:10} {text}" for name, text in lines.items() if text)


def tool_in_words(cfg: ToolConfig) -> str:
    found = tool_of(cfg)
    options = "".join(f", {name}={value!r}" for name, value in cfg.params.items())
    return (
        f"{found.verifier.name} ({cfg.name}{options}): at most {cfg.max_calls} answers a completion, of <= "
        f"{cfg.max_characters:,} characters and {found.limit_s:g} CPU seconds; {cfg.processes} processes an engine"
    )


def train(args: argparse.Namespace) -> int:
    from rlvr.compose import compose_recipe, to_yaml, typed

    composed = compose_recipe(args.recipe, args.overrides, args.config_dir)
    import_from(args.config_dir)
    cfg, objective = typed(composed)
    again = args.resume and begun(composed, cfg)
    if cfg.run.folder and not again:
        RunFolder.refuse_another(cfg.run.folder)
    from rlvr.inputs import read_inputs
    from rlvr.run import open_folder

    say_reading(cfg)
    inputs = read_again(str(cfg.run.folder), cfg, objective) if again else read_inputs(cfg, objective)
    if args.dry_run:
        print("\n".join([shown(cfg, composed, inputs), *(f"warning: {note}" for note in inputs.notes)]))
        return 0
    show(cfg, composed, inputs)
    folder = RunFolder.open(str(cfg.run.folder)) if again else open_folder(cfg)
    try:
        folder.write_config(to_yaml(composed))
        folder.write_prompts(inputs.known_by)
        return go(cfg, objective, inputs, folder)
    except (RecipeError, RunError):
        folder.remove_unused()
        raise


def begun(composed: Any, cfg: Recipe) -> bool:
    """Whether the run of this very command is there already. A requeued job starts itself again and goes on."""
    from rlvr.compose import differing, saved_recipe, text_of

    if cfg.run.folder is None:
        raise RecipeError("--resume needs run.folder: where would the run be that may have begun?")
    saved = at_home(cfg.run.folder) / "config.yaml"
    if not saved.is_file():
        return False
    changed = differing(saved_recipe(text_of(saved), where=saved), composed)
    if changed := [key for key in changed if key not in ("cluster", "log", "run")]:  # where it runs, not what
        raise RecipeError(
            f"--resume: the run in {cfg.run.folder} was begun with another {', '.join(changed)}; "
            f"`rlvr resume {cfg.run.folder} key=value` changes what may be changed"
        )
    return True


def resume(args: argparse.Namespace) -> int:
    from rlvr.compose import check_overrides, measured_otherwise, saved_recipe, to_yaml, typed

    check_overrides(args.overrides)
    import_from(args.config_dir)
    folder = RunFolder.open(args.run)
    before, known_by = folder.config_text(), RunFolder.prompts_of(args.run)
    composed = saved_recipe(before, args.overrides, folder.path / "config.yaml")
    cfg, objective = typed(composed)
    if (taken := checkpoint_command.steps_taken(folder.path)) > cfg.steps:
        raise RecipeError(
            f"steps={cfg.steps}: the run in {args.run} has taken {taken} already; "
            f"`rlvr rollback {args.run} --to <step>` goes back"
        )
    others = any(override.partition("=")[0] in OTHER_PROMPTS for override in args.overrides)
    say_reading(cfg)
    inputs = read_again(args.run, cfg, objective, others)
    show(cfg, composed, inputs)
    if otherwise := measured_otherwise(saved_recipe(before), composed):
        note = f"{', '.join(otherwise)} changed: the sentinel compares with no step before, whose numbers meant another"
        inputs = replace(inputs, notes=(*inputs.notes, note))
    folder.write_config(to_yaml(composed))
    folder.write_prompts(inputs.known_by)
    try:
        return go(cfg, objective, inputs, folder)
    except BaseException:
        if not folder.logged:  # what it cannot go on with is not its recipe
            folder.write_config(before)
            folder.write_prompts(known_by)
        raise


def read_again(run: str, cfg: Recipe, objective: "Objective", others: bool = False) -> Any:
    """The inputs of a run that goes on. RecipeError where they are not what it began with, unless `others` are meant:
    it would go on in the middle of them, as if nothing had happened."""
    from rlvr.inputs import read_inputs

    known_by = RunFolder.prompts_of(run)
    inputs = read_inputs(cfg, objective, known_by.get("day"))
    if known_by and not others and known_by["sha256"] != inputs.known_by["sha256"]:
        raise RecipeError(
            f"data.train={cfg.data.train}: the run in {run} began with other prompts: this data has changed since, or "
            f"the tokenizer or chat template of model.path={cfg.model.path}. Put back what it was, or go on with the "
            f"new ones by `rlvr resume {run} data.train={cfg.data.train}`"
        )
    return inputs


def recipe_of(name: str, overrides: Sequence[str], folder: str | None) -> Recipe:
    from rlvr.compose import compose_recipe, typed

    import_from(folder)
    return typed(compose_recipe(name, overrides, folder))[0]


def recipe_of_run(run: Path, folder: str | None) -> Recipe:
    from rlvr.compose import recipe_in, saved_recipe, text_of

    saved = run / "config.yaml"
    if not saved.is_file():
        raise RecipeError(f"{run} is no run folder: it has no config.yaml")
    import_from(folder)
    return recipe_in(saved_recipe(text_of(saved), where=saved))


def sentinel_of(name: str, overrides: Sequence[str]) -> Any:
    from rlvr.compose import sentinel_settings

    return sentinel_settings(name, overrides)


def locked_run(path: Path) -> Any:
    return closing(RunFolder.open(path))


def say_reading(cfg: Recipe) -> None:
    """To a person who waits: a large data set, or references that are checked, take minutes."""
    if sys.stderr is not None and sys.stderr.isatty():
        print(f"reading the tokenizer and {cfg.data.train} ...", file=sys.stderr, flush=True)


def shown(cfg: Recipe, composed: Any, inputs: Any) -> str:
    return f"{cfg.name}\n{plan(cfg, composed.algorithm, len(inputs.train), len(inputs.heldout))}"


def show(cfg: Recipe, composed: Any, inputs: Any) -> None:
    if cfg.log.console:
        with suppress(OSError):  # nobody reads it, and the run is to begin all the same
            print(shown(cfg, composed, inputs), flush=True)


def import_from(folder: str | None) -> None:
    """Own objectives and verifiers may be modules in the current folder or in --config-dir. Last, and not by
    PYTHONPATH: a file there may be called as one of the library. Our processes are told of `sys.path`."""
    sys.path.append(str(Path.cwd()))
    if folder:
        sys.path.append(str(Path(folder).resolve()))


def go(cfg: Recipe, objective: "Objective", inputs: Any, folder: Any) -> int:
    from rlvr.run import launch

    display = open_display(cfg.log.console)
    try:
        folder.write_environment()
        summary = launch(cfg, objective, inputs, folder, display)
    except RunFolderError as error:  # a recipe that runs is none of the bad ones
        raise RunError(str(error)) from error
    except (OSError, UnicodeDecodeError) as error:  # with its traceback: `main` would take it for bad input
        raise RuntimeError(f"the run ended on an error of its own, {type(error).__name__}: {error}") from error
    finally:
        report_command.at_end(folder.path, display)
        display.close()
        folder.close()
    display.result(summary, folder.path)
    settle(sys.stdout)
    return 0 if summary.status == "finished" else 3


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="rlvr", description="GRPO with verifiable rewards that nobody has to babysit.")
    top.add_argument("--version", action="version", version=f"rlvr {version('rlvr')}")
    commands = top.add_subparsers(required=True, metavar="command")
    one = commands.add_parser("train", help="run a recipe")
    one.add_argument("recipe", help="a recipe's name, or a path to a .yaml file")
    one.add_argument("overrides", nargs="*", help="key=value, e.g. algorithm=dapo steps=10 trainer.ranks=2")
    one.add_argument("--config-dir", help="a folder with your own recipes, algorithms, Python modules, ...")
    one.add_argument("--dry-run", action="store_true", help="check recipe, model and data, show the plan, and stop")
    one.add_argument(
        "--resume", action="store_true", help="go on if run.folder holds this run already: for jobs that are requeued"
    )
    one.set_defaults(command=train)
    two = commands.add_parser("resume", help="continue a run from its newest checkpoint")
    two.add_argument("run", help="the run folder")
    two.add_argument("overrides", nargs="*", help="key=value, e.g. steps=100")
    two.add_argument("--config-dir", help="the folder with your own Python modules, as the run had it")
    two.set_defaults(command=resume)
    sweep.add_parser(commands, import_from, begun)
    model_commands.add_to(commands, import_from)
    verify_commands.add_to(commands, recipe_of, recipe_of_run)
    plan_command.add_parser(commands, recipe_of)
    sandbox_command.add_parser(commands)
    report_command.add_parser(commands)
    compare_command.add_parser(commands)
    sentinel_command.add_parser(commands, sentinel_of)
    checkpoint_command.add_parsers(commands, locked_run)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 1 could not go on, 2 bad input, 3 ended early (interrupted, or stopped by the sentinel),
    130 interrupted twice."""
    words = map(expanded, sys.argv[1:] if argv is None else argv)
    args, others = parser().parse_known_args(list(words))  # argparse itself takes no overrides behind an option
    if wrong := [word for word in others if word.startswith("-") or "overrides" not in args]:
        parser().error(f"unrecognized arguments: {' '.join(wrong)}")
    if others:
        args.overrides += others
    try:
        code = args.command(args)
        if sys.stdout:
            sys.stdout.flush()
        return code
    except RecipeError as error:
        return said(f"{error}", 2)
    except RunError as error:
        return said(f"{error}", 1)
    except BrokenPipeError:
        if not any(map(unread, (sys.stdout, sys.stderr))):  # a process of ours, then
            raise
        return 1
    except (OSError, UnicodeDecodeError) as error:
        name = getattr(error, "filename", None)
        where = "" if name is None else f"{name}: "
        return said(f"{where}{getattr(error, 'strerror', None) or error}", 2)
    except KeyboardInterrupt:
        return said("interrupted", 130)
    finally:
        settle(sys.stdout)
        settle(sys.stderr)


def expanded(word: str) -> str:
    """`~/x` and `--out=~/x` with the home folder: a shell leaves what is quoted, or stands behind a `=`, as it is."""
    return re.sub(r"^(--[\w-]+=|)~(?=/|$)", lambda found: found[1] + os.path.expanduser("~"), word)


def said(line: str, code: int) -> int:
    with suppress(OSError):
        print(f"rlvr: {line}", file=sys.stderr)
    return code


def unread(stream: TextIO) -> bool:
    """Whether it is a pipe whose reader has gone."""
    asked = select.poll()
    with suppress(OSError, ValueError, AttributeError):  # it is closed
        asked.register(stream.fileno(), 0)
    return bool(asked.poll(0))


def settle(stream: TextIO) -> None:
    """What cannot be written is let go, or Python would try once more at exit, and end with a code of its own."""
    try:
        if stream is not None:  # as it is where it was closed (`>&-`)
            stream.flush()
    except (OSError, ValueError):
        silence(stream)


if __name__ == "__main__":
    sys.exit(main())
