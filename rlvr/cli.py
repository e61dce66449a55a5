"""The command line: compose a recipe, show the plan, run. The only file that imports Hydra.

rlvr train <recipe> [key=value ...]     recipes/<recipe>.yaml + overrides -> Recipe -> run
rlvr resume <run folder>                the run's own config.yaml -> Recipe -> run from its newest checkpoint
"""

import argparse
import difflib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from rlvr.config import PartConfig, Recipe, RecipeError, RunError
from rlvr.objective import Objective
from rlvr.sandbox import command as sandbox_command
from rlvr.sentinel import command as sentinel_command
from rlvr.sentinel_config import SentinelConfig
from rlvr.verify import command as verify_commands

COMPOSING = (HydraException, OmegaConfBaseException, YAMLError, ValueError)  # what composing a bad recipe raises


def recipes_folder() -> Path:
    spec = importlib.util.find_spec("rlvr_recipes")
    if spec is None or not spec.submodule_search_locations:
        raise RecipeError("the recipes are not installed: run `make setup`")
    return Path(next(iter(spec.submodule_search_locations))).resolve()


def compose_recipe(name: str, overrides: Sequence[str], folder: str | None = None) -> DictConfig:
    """`name` is one of ours, one in `folder`, or a path to a .yaml file. Types and keys are checked."""
    name, places = find_recipe(name, folder)
    check_overrides(overrides)
    ConfigStore.instance().store(name="recipe_schema", node=Recipe)
    OmegaConf.register_new_resolver("recipes", lambda path: str(recipes_folder() / path), replace=True)
    search = [f"hydra.searchpath=[{','.join(f'file://{place}' for place in places[1:])}]"]

    def composed(chosen: Sequence[str]) -> DictConfig:
        with initialize_config_dir(str(places[0]), version_base="1.3"):
            return compose(name, [*search, *chosen])

    try:
        cfg = composed(overrides)
    except COMPOSING as error:
        keys = list(all_keys(OmegaConf.structured(Recipe)))
        with suppress(*COMPOSING):  # the recipe itself may be what is wrong
            chosen = ("algorithm=", "cluster=", "sentinel=")
            groups = [override for override in overrides if override.startswith(chosen)]
            keys = list(all_keys(composed(groups)))
        raise RecipeError(explain(error, keys, places)) from None
    check_keys(cfg, name)
    return cfg


def find_recipe(name: str, folder: str | None) -> tuple[str, list[Path]]:
    """The recipe's name and the folders to compose it from, that of the recipe first."""
    ours = recipes_folder()
    own = Path(folder).resolve() if folder else None
    if own and not own.is_dir():
        raise RecipeError(f"--config-dir {folder}: no such folder")
    if name.endswith((".yaml", ".yml")):
        path = Path(name).resolve()
        if not path.is_file():
            raise RecipeError(f"recipe {name}: no such file")
        own, name = own or path.parent, path.stem
        if path.parent != own:
            raise RecipeError(f"recipe {path} is not in --config-dir {own}")
    places = [own, ours] if own else [ours]
    available = sorted({p.stem for place in places for p in place.glob("*.yaml")})
    if name not in available:
        raise RecipeError(f"no recipe {name!r}{nearest(name, available)}; there are: {', '.join(available)}")
    # Hydra looks for the recipe itself in the first one only
    return name, sorted(places, key=lambda place: not (place / f"{name}.yaml").is_file())


def check_overrides(overrides: Sequence[str]) -> None:
    for override in overrides:
        if not re.match(r"\+{0,2}[^=+~]+=|~.", override):
            raise RecipeError(f"{override!r} is no override: expected key=value, e.g. steps=10")
        if override.lstrip("+~").startswith("hydra"):
            raise RecipeError(f"{override}: a recipe has no hydra settings")


def check_keys(cfg: DictConfig, name: str) -> None:
    """What Hydra lets pass: a recipe without schema, keys added by `+key=value`, keys taken out by `~key`."""
    if OmegaConf.get_type(cfg) is not Recipe:
        raise RecipeError(f"recipe {name}: its `defaults` must begin with `- recipe_schema`, or nothing can be checked")
    known = list(all_keys(OmegaConf.structured(Recipe)))
    for key in surplus(cfg):
        raise RecipeError(f"no such key: {key}{nearest(key, known)}")
    if missing := OmegaConf.missing_keys(cfg) | {str(f.name) for f in fields(Recipe) if f.name not in cfg}:
        raise RecipeError(f"recipe {name} does not say: {', '.join(sorted(missing))}")


def surplus(cfg: DictConfig, prefix: str = "") -> Iterator[str]:
    """Keys in typed sections that the schema does not have."""
    kind = OmegaConf.get_type(cfg)
    allowed = {f.name for f in fields(kind)} if kind is not None and is_dataclass(kind) else None
    for key in map(str, cfg):
        if allowed is not None and key not in allowed:
            yield f"{prefix}{key}"
        elif isinstance(child := cfg._get_node(key), DictConfig) and not child._is_none() and not child._is_missing():
            yield from surplus(child, f"{prefix}{key}.")


def explain(error: BaseException, keys: Sequence[str], places: Sequence[Path] = ()) -> str:
    """Hydra's chain of errors as one line: the offending key, and the nearest valid one."""
    outermost, innermost = str(error), str(error)
    while error.__cause__ is not None:
        error = error.__cause__
        innermost = str(error)
    if found := re.search(r"Could not find '([^']+)'", outermost):
        group, _, choice = found[1].rpartition("/")
        choices = sorted({p.stem for place in places for p in (place / group).glob("*.yaml")})
        return f"no {group or 'recipe'} {choice!r}{nearest(choice, choices)}; there are: {', '.join(choices)}"
    full_key = re.search(r"full_key: (\S+)", innermost)
    if found := re.search(r"Key '([^']+)' (?:is )?not in", innermost):
        key = full_key[1] if full_key else found[1]
        if part := re.fullmatch(r"reward\.parts\.(\w+)(\.\w+)?", key):
            if not part[2]:
                return f"no such key: {key}: a new part goes into a recipe file"
            keys = [f"reward.parts.{part[1]}.{f.name}" for f in fields(PartConfig)]
        return f"no such key: {key}{nearest(key, keys)}"
    if "not a subclass of PartConfig" in innermost:
        return "reward.parts cannot be added to from the command line: a new part goes into a recipe file"
    lines = [line.strip() for line in innermost.splitlines() if not line.endswith("raised while composing config:")]
    said = " ".join(lines) if isinstance(error, YAMLError) else lines[0]
    return f"{full_key[1]}: {said}" if full_key else said


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
    if not isinstance(cfg.algorithm, DictConfig):
        raise RecipeError(f"algorithm={cfg.algorithm}: expected the content of a file like recipes/algorithm/grpo.yaml")
    try:
        objective = instantiate(cfg.algorithm)
        recipe = OmegaConf.to_object(cfg)
    except (HydraException, OmegaConfBaseException) as error:
        raise RecipeError(f"algorithm: {explain(error, ())}") from None
    if not isinstance(objective, Objective):
        raise RecipeError(f"algorithm: {cfg.algorithm.get('_target_')} made a {type(objective).__name__}, no Objective")
    modes = get_args(get_type_hints(Objective)["no_signal"])
    if objective.no_signal not in modes:
        raise RecipeError(f"algorithm.no_signal={objective.no_signal}: one of {', '.join(modes)}")
    assert isinstance(recipe, Recipe)
    return recipe, objective


def plan(cfg: Recipe, algorithm: DictConfig, prompts: int, heldout: int) -> str:
    """What will run, for a person to see before it does."""
    slots = {str(slot): choice["_target_"] for slot, choice in algorithm.items() if isinstance(choice, DictConfig)}
    slots = slots or {"objective": algorithm["_target_"]}
    parts = [f"{name} x{part.weight:g}{' (gate)' if part.gate else ''}" for name, part in cfg.reward.parts.items()]
    rollout, verify, trainer = cfg.rollout, cfg.verify, cfg.trainer
    lines = {
        "model": f"{cfg.model.path} ({cfg.model.dtype}, context {cfg.model.max_context})",
        "data": f"{cfg.data.train}: {prompts:,} prompts; {heldout:,} held out",
        "algorithm": ", ".join(f"{slot} {target.rpartition('.')[2]}" for slot, target in slots.items()),
        "reward": ", ".join(parts),
        "a step": f"{rollout.groups_per_step} prompts x {rollout.group_size} completions of <= {rollout.max_tokens} "
        f"tokens at temperature {rollout.temperature:g}",
        "workers": f"{cfg.cluster.kind}: {rollout.workers} x {rollout.engine}, {verify.workers} x {verify.processes} "
        f"verifiers, {trainer.ranks} x DeepSpeed ZeRO-{trainer.zero_stage}",
        "steps": f"{cfg.steps}, learning rate {trainer.learning_rate:g} {trainer.schedule}, seed {cfg.seed}",
    }
    return "\n".join(f"  {name:10} {text}" for name, text in lines.items())


def train(args: argparse.Namespace) -> int:
    composed = compose_recipe(args.recipe, args.overrides, args.config_dir)
    import_from(args.config_dir)
    cfg, objective = typed(composed)
    from rlvr.run import open_folder, read_inputs

    inputs = read_inputs(cfg, objective)
    if cfg.log.console or args.dry_run:
        show(cfg, composed, inputs)
    if args.dry_run:
        return 0
    folder = open_folder(cfg)
    folder.write_config(OmegaConf.to_yaml(composed, resolve=True))
    try:
        return go(cfg, objective, inputs, folder)
    except (RecipeError, RunError):
        folder.remove_unused()
        raise


def resume(args: argparse.Namespace) -> int:
    from rlvr.observe.runfolder import RunFolder
    from rlvr.run import read_inputs

    check_overrides(args.overrides)
    import_from(args.config_dir)
    folder = RunFolder.open(args.run)
    composed = saved_recipe(folder.config_text(), args.overrides)
    cfg, objective = typed(composed)
    inputs = read_inputs(cfg, objective)
    if cfg.log.console:
        show(cfg, composed, inputs)
    folder.write_config(OmegaConf.to_yaml(composed, resolve=True))
    return go(cfg, objective, inputs, folder)


def saved_recipe(text: str, overrides: Sequence[str] = ()) -> DictConfig:
    """A run's config.yaml, checked against the schema as it is today."""
    try:
        saved = OmegaConf.create(text)
        composed = OmegaConf.merge(OmegaConf.structured(Recipe), saved, OmegaConf.from_dotlist(list(overrides)))
    except (OmegaConfBaseException, YAMLError) as error:
        raise RecipeError(explain(error, list(all_keys(OmegaConf.structured(Recipe))))) from None
    assert isinstance(composed, DictConfig)
    return composed


def recipe_of(name: str, overrides: Sequence[str], folder: str | None) -> Recipe:
    import_from(folder)
    return typed(compose_recipe(name, overrides, folder))[0]


def recipe_of_run(run: Path) -> Recipe:
    if not (run / "config.yaml").is_file():
        raise RecipeError(f"{run} is no run folder: it has no config.yaml")
    import_from(None)
    return typed(saved_recipe((run / "config.yaml").read_text(encoding="utf-8")))[0]


def show(cfg: Recipe, composed: DictConfig, inputs: Any) -> None:
    print(f"{cfg.name}\n{plan(cfg, composed.algorithm, len(inputs.train), len(inputs.heldout))}", flush=True)


def import_from(folder: str | None) -> None:
    """Own objectives and verifiers may be modules in the current folder or in --config-dir, in our processes too."""
    sys.path.append(str(Path.cwd()))
    if folder:
        sys.path.append(str(Path(folder).resolve()))
        paths = (str(Path(folder).resolve()), os.environ.get("PYTHONPATH", ""))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))


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
    one.add_argument("--config-dir", help="a folder with your own recipes, algorithms, Python modules, ...")
    one.add_argument("--dry-run", action="store_true", help="check recipe, model and data, show the plan, and stop")
    one.set_defaults(command=train)
    two = commands.add_parser("resume", help="continue a run from its newest checkpoint")
    two.add_argument("run", help="the run folder")
    two.add_argument("overrides", nargs="*", help="key=value, e.g. steps=100")
    two.add_argument("--config-dir", help="as the run had it, for its Python modules")
    two.set_defaults(command=resume)
    verify_commands.add_to(commands, recipe_of, recipe_of_run)
    sandbox_command.add_parser(commands)
    sentinel_command.add_parser(commands, sentinel_settings)
    return top


def sentinel_settings(name: str, overrides: Sequence[str]) -> SentinelConfig:
    """A file of recipes/sentinel by its name, or any other by its path."""
    folder = recipes_folder() / "sentinel"
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in folder.glob("*.yaml")))
        raise RecipeError(f"--sentinel {name}: no such file; there are: {there}")
    schema = OmegaConf.structured(SentinelConfig)
    try:
        merged = OmegaConf.merge(schema, OmegaConf.load(path), OmegaConf.from_dotlist(list(overrides)))
        return cast(SentinelConfig, OmegaConf.to_object(merged))
    except (OmegaConfBaseException, YAMLError) as error:
        raise RecipeError(f"--sentinel {name}: {explain(error, list(all_keys(schema)))}") from None


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 1 could not go on, 2 bad input, 3 ended early (interrupted, or stopped by the sentinel),
    130 interrupted twice."""
    args, others = parser().parse_known_args(argv)  # argparse itself takes no overrides behind an option
    if wrong := [word for word in others if word.startswith("-") or "overrides" not in args]:
        parser().error(f"unrecognized arguments: {' '.join(wrong)}")
    if others:
        args.overrides += others
    try:
        return args.command(args)
    except RecipeError as error:
        print(f"rlvr: {error}", file=sys.stderr)
        return 2
    except RunError as error:
        print(f"rlvr: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("rlvr: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
