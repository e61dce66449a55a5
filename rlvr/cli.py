"""The command line: compose a recipe, show the plan, run. The only file that imports Hydra.

    rlvr train <recipe> [key=value ...]     recipes/<recipe>.yaml + overrides -> Recipe -> run
    rlvr resume <run folder>                the run's own config.yaml -> Recipe -> run from its newest checkpoint
"""

import argparse
import difflib
import importlib.util
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rlvr.config import Recipe, RecipeError
from rlvr.objective import Objective


def recipes_folder() -> Path:
    spec = importlib.util.find_spec("rlvr_recipes")
    if spec is None or not spec.submodule_search_locations:
        raise RecipeError("the recipes are not installed: run `make setup`")
    return Path(next(iter(spec.submodule_search_locations))).resolve()


def compose_recipe(name: str, overrides: Sequence[str], folder: str | None = None) -> DictConfig:
    """`name` is one of ours, one in `folder`, or a path to a .yaml file. Types and keys are checked."""
    ours = recipes_folder()
    own = Path(folder).resolve() if folder else None
    if name.endswith((".yaml", ".yml")):
        path = Path(name).resolve()
        if not path.is_file():
            raise RecipeError(f"recipe {name}: no such file")
        own, name = own or path.parent, path.stem
        if path.parent != own:
            raise RecipeError(f"recipe {path} is not in --config-dir {own}")
    available = sorted(p.stem for place in (ours, own) if place for p in place.glob("*.yaml"))
    if name not in available:
        raise RecipeError(f"no recipe {name!r}{nearest(name, available)}; there are: {', '.join(available)}")
    ConfigStore.instance().store(name="recipe_schema", node=Recipe)
    OmegaConf.register_new_resolver("recipes", lambda path: str(ours / path), replace=True)
    first, second = (own, ours) if own else (ours, None)
    search = [f"hydra.searchpath=[file://{second}]"] if second else []
    try:
        with initialize_config_dir(str(first), version_base="1.3"):
            cfg = compose(name, [*search, *overrides])
        missing = OmegaConf.missing_keys(cfg)
        if missing:
            raise RecipeError(f"recipe {name} does not say: {', '.join(sorted(missing))}")
        return cfg
    except (HydraException, OmegaConfBaseException) as error:
        raise RecipeError(explain(error, overrides)) from None


def explain(error: Exception, overrides: Sequence[str]) -> str:
    """Hydra's chain of errors as one line: the offending key, and the nearest valid one."""
    innermost: BaseException = error
    while innermost.__cause__ is not None:
        innermost = innermost.__cause__
    first_line = str(innermost).strip().splitlines()[0]
    key = getattr(innermost, "full_key", None) or ""
    if found := re.search(r"Key '([^']+)' (?:is )?not in", str(innermost)):
        key = key or found[1]
        return f"no such key: {key}{nearest(key, list(all_keys(OmegaConf.structured(Recipe))))}"
    if found := re.search(r"In '([^']+)': Could not find '([^']+)'|Could not find '([^']+)'", str(error)):
        group, _, choice = (found[2] or found[3]).rpartition("/")
        choices = sorted(p.stem for p in (recipes_folder() / group).glob("*.yaml"))
        return f"no {group or 'recipe'} {choice!r}{nearest(choice, choices)}; there are: {', '.join(choices)}"
    for override in overrides:  # Hydra says it of groups and of overrides that do not parse
        name = override.lstrip("+~").partition("=")[0]
        if f"'{name}'" in str(error):
            keys = [*all_keys(OmegaConf.structured(Recipe)), "algorithm", "cluster"]
            return f"no such key: {name}{nearest(name, keys)}" if name not in keys else str(error).splitlines()[0]
    return f"{key}: {first_line}" if key else first_line


def all_keys(cfg: Any, prefix: str = "") -> Iterator[str]:
    for key in cfg:
        yield prefix + str(key)
        child = OmegaConf.select(cfg, str(key), throw_on_missing=False)
        if isinstance(child, DictConfig):
            yield from all_keys(child, f"{prefix}{key}.")


def nearest(word: str, words: Sequence[str]) -> str:
    """`; did you mean ...?`, by the whole key or by its last part."""
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    last = {w: w.rpartition(".")[2] for w in words}
    by_last = difflib.get_close_matches(word.rpartition(".")[2], list(last.values()), n=1, cutoff=0.7)
    found = close[0] if close else next((w for w in words if by_last and last[w] == by_last[0]), None)
    return f"; did you mean {found}?" if found else ""


def typed(cfg: DictConfig) -> tuple[Recipe, Objective]:
    """The composed recipe as plain objects; nothing reads OmegaConf after this."""
    try:
        objective = instantiate(cfg.algorithm)
        recipe = OmegaConf.to_object(cfg)
    except (HydraException, OmegaConfBaseException) as error:
        raise RecipeError(f"algorithm: {explain(error, ())}") from None
    if not isinstance(objective, Objective):
        raise RecipeError(f"algorithm: {cfg.algorithm.get('_target_')} made a {type(objective).__name__}, no Objective")
    assert isinstance(recipe, Recipe)
    return recipe, objective


def plan(cfg: Recipe, algorithm: DictConfig, prompts: int, heldout: int) -> str:
    """What will run, for a person to see before it does."""
    slots = {slot: str(algorithm[slot]["_target_"]).rpartition(".")[2] for slot in ("advantage", "ratio", "surrogate", "weighting")}
    parts = ", ".join(f"{name} x{part.weight:g}{' (gate)' if part.gate else ''}" for name, part in cfg.reward.parts.items())
    rollout, trainer = cfg.rollout, cfg.trainer
    lines = {
        "model": f"{cfg.model.path} ({cfg.model.dtype}, context {cfg.model.max_context})",
        "data": f"{cfg.data.train}: {prompts:,} prompts; {heldout:,} held out",
        "algorithm": ", ".join(f"{slot} {name}" for slot, name in slots.items()),
        "reward": parts,
        "a step": f"{rollout.groups_per_step} prompts x {rollout.group_size} completions of <= {rollout.max_tokens} tokens "
        f"at temperature {rollout.temperature:g}",
        "workers": f"{cfg.cluster.kind}: {rollout.workers} x {rollout.engine}, {cfg.verify.workers} x {cfg.verify.processes} "
        f"verifiers, {trainer.ranks} x DeepSpeed ZeRO-{trainer.zero_stage}",
        "steps": f"{cfg.steps}, learning rate {trainer.learning_rate:g} {trainer.schedule}, seed {cfg.seed}",
    }
    return "\n".join(f"  {name:10} {text}" for name, text in lines.items())


def train(args: argparse.Namespace) -> int:
    composed = compose_recipe(args.recipe, args.overrides, args.config_dir)
    cfg, objective = typed(composed)
    from rlvr.run import open_folder, read_inputs

    inputs = read_inputs(cfg)
    show(cfg, composed, inputs)
    if args.dry_run:
        return 0
    folder = open_folder(cfg)
    folder.write_config(OmegaConf.to_yaml(composed, resolve=True))
    return go(cfg, objective, inputs, folder)


def resume(args: argparse.Namespace) -> int:
    from rlvr.observe.runfolder import RunFolder
    from rlvr.run import read_inputs

    folder = RunFolder.open(args.run)
    try:
        saved = OmegaConf.create(folder.config_text())
        composed = OmegaConf.merge(OmegaConf.structured(Recipe), saved, OmegaConf.from_dotlist(args.overrides))
    except OmegaConfBaseException as error:
        raise RecipeError(explain(error, args.overrides)) from None
    assert isinstance(composed, DictConfig)
    cfg, objective = typed(composed)
    inputs = read_inputs(cfg)
    show(cfg, composed, inputs)
    folder.write_config(OmegaConf.to_yaml(composed, resolve=True))
    return go(cfg, objective, inputs, folder)


def show(cfg: Recipe, composed: DictConfig, inputs: Any) -> None:
    if cfg.log.console:
        print(f"{cfg.name}\n{plan(cfg, composed.algorithm, len(inputs.train), len(inputs.heldout))}", flush=True)


def go(cfg: Recipe, objective: Objective, inputs: Any, folder: Any) -> int:
    from rlvr.observe.console import open_display
    from rlvr.run import launch

    display = open_display(cfg.log.console)
    try:
        folder.write_environment()
        summary = launch(cfg, objective, inputs, folder, display)
    finally:
        display.close()
        folder.close()
    display.result(summary, folder.path)
    return 0 if summary.status == "finished" else 3


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="rlvr", description="GRPO with verifiable rewards that nobody has to babysit.")
    commands = top.add_subparsers(required=True, metavar="command")
    one = commands.add_parser("train", help="run a recipe")
    one.add_argument("recipe", help="a recipe's name, or a path to a .yaml file")
    one.add_argument("overrides", nargs="*", help="key=value, e.g. algorithm=dapo steps=10 trainer.ranks=2")
    one.add_argument("--config-dir", help="a folder with your own recipes, algorithms, ...")
    one.add_argument("--dry-run", action="store_true", help="check recipe, model and data, show the plan, and stop")
    one.set_defaults(run=train)
    two = commands.add_parser("resume", help="continue a run from its newest checkpoint")
    two.add_argument("run", help="the run folder")
    two.add_argument("overrides", nargs="*", help="key=value, e.g. steps=100")
    two.set_defaults(run=resume)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 2 bad input, 3 ended early (interrupted or stopped by the sentinel), 130 interrupted twice."""
    args = parser().parse_args(argv)
    try:
        return args.run(args)
    except RecipeError as error:
        print(f"rlvr: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("rlvr: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
