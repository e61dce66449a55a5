"""A recipe's YAML, ours and the user's own, checked and typed. The only file that imports Hydra and OmegaConf.

recipes/<recipe>.yaml + overrides --Hydra--> DictConfig --typed--> Recipe, Objective       nothing reads OmegaConf after
a run's config.yaml   + overrides -------------^
"""

import difflib
import importlib.util
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from itertools import product
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from rlvr.config import PartConfig, Recipe, RecipeError
from rlvr.measure import changed
from rlvr.objective import Objective
from rlvr.reward_config import VerifierChoice
from rlvr.rollout_config import unsampled
from rlvr.sentinel_config import SentinelConfig, what_is_wrong

COMPOSING = (HydraException, OmegaConfBaseException, YAMLError, ValueError)  # what composing a bad recipe raises


def recipes_folder() -> Path:
    spec = importlib.util.find_spec("rlvr_recipes")
    if spec is None or not spec.submodule_search_locations:
        raise RecipeError("the recipes are not installed: run `make setup`")
    return Path(next(iter(spec.submodule_search_locations))).resolve()


def compose_recipe(name: str, overrides: Sequence[str], folder: str | None = None) -> DictConfig:
    """`name` is one of ours, one in `folder`, or a path to a .yaml file. Types and keys are checked."""
    name, places = find_recipe(name, folder)
    text_of(places[0] / f"{name}.yaml")
    check_overrides(overrides)
    ConfigStore.instance().store(name="recipe_schema", node=Recipe)
    OmegaConf.register_new_resolver("recipes", lambda path: str(recipes_folder() / path), replace=True)
    check_grammar(overrides)
    search = [f"hydra.searchpath=[{','.join(quoted(f'file://{place}') for place in places[1:])}]"]

    def composed(chosen: Sequence[str]) -> DictConfig:
        with initialize_config_dir(str(places[0]), version_base="1.3"):
            return compose(name, [*search, *chosen])

    try:
        cfg = composed(overrides)
    except COMPOSING as error:
        keys = list(all_keys(OmegaConf.structured(Recipe)))
        with suppress(*COMPOSING):  # the recipe itself may be what is wrong
            chosen = ("algorithm=", "cluster=", "model=", "sentinel=")
            groups = [override for override in overrides if override.startswith(chosen)]
            keys = list(all_keys(composed(groups)))
        raise RecipeError(explain(error, keys, places)) from None
    except (AttributeError, AssertionError) as error:
        raise RecipeError(without_section(overrides, error)) from None
    check_keys(cfg, name)
    return cfg


def find_recipe(name: str, folder: str | None) -> tuple[str, list[Path]]:
    """The recipe's name and the folders to compose it from, that of the recipe first."""
    ours = recipes_folder()
    own = Path(folder).resolve() if folder else None
    if own and not own.is_dir():
        raise RecipeError(f"--config-dir {folder}: no such folder")
    if name.endswith(".yml"):
        raise RecipeError(f"recipe {name}: Hydra reads files that end in .yaml alone: rename it")
    if name.endswith(".yaml"):
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


def check_grammar(overrides: Sequence[str]) -> None:
    for override in overrides:
        key, one = override.partition("=")[0], parsed(override)
        listed = isinstance(one.value(), list) and "." not in key  # of the keys of a recipe itself none is a list
        if one.is_sweep_override() or listed:
            several = f"`rlvr sweep` takes several, a list is {key}=[...]"
            raise RecipeError(f"{override}: one value, please; {several}, and {in_quotes(key)}")


def parsed(override: str) -> Override:
    """Hydra's errors do not say in which override they are."""
    try:
        (one,) = OverridesParser.create().parse_overrides([override])
    except HydraException as error:
        raise RecipeError(f"{override}: {explain(error, ())}; {in_quotes(override.partition('=')[0])}") from None
    return one


def in_quotes(key: str) -> str:
    return f"a text with such characters goes into quotes, inside of the shell's: '{key}=\"...\"'"


def expanded(overrides: Sequence[str]) -> list[list[str]]:
    """Every combination of the values, where an override has several: a,b or Hydra's choice(a,b) and range(0,3). Those
    of the last override change fastest."""
    check_overrides(overrides)
    return [list(one) for one in product(*map(each_value, overrides))]


def each_value(override: str) -> list[str]:
    key, one = override.partition("=")[0], parsed(override)
    if not one.is_sweep_override():
        return [override]
    known = one.is_discrete_sweep() and not getattr(one.value(), "shuffle", False)
    with suppress(HydraException):  # of a glob
        if known and (values := list(one.sweep_string_iterator())):
            if len(set(values)) < len(values):
                raise RecipeError(f"{override}: a value is there twice")
            return [f"{key}={value}" for value in values]
    raise RecipeError(f"{override}: a sweep takes values one by one: {key}=a,b or choice(a,b), or range(0,3)")


def quoted(text: str) -> str:
    """As Hydra's grammar reads it back: backslashes count before a quote and at the end alone."""
    return "'" + re.sub(r"(\\*)('|$)", r"\1\1\2", text).replace("'", "\\'") + "'"


def without_section(overrides: Sequence[str], error: Exception) -> str:
    """For what OmegaConf raises when a section that is null is to get a content. Any other error is passed on."""
    for override in overrides:
        if found := re.match(r"\+*(reward\.parts\.\w+\.audit)\b", override):
            return f"{override}: the recipe has no {found[1]} to change: a new one goes into a recipe file"
    raise error


def check_values(overrides: Sequence[str]) -> None:
    """What the recipe of a run can be given: single values, no files of recipes/ and no new or fewer keys."""
    sections = {f.name: kind for f in fields(Recipe) if is_dataclass(kind := get_type_hints(Recipe)[f.name])}
    for override in overrides:
        key, _, value = override.partition("=")
        if key.startswith(("+", "~")):
            raise RecipeError(f"{override}: the recipe of a run takes key=value and nothing else, e.g. steps=100")
        if key in sections and not value.lstrip().startswith("{"):
            one = f"{key}.{fields(sections[key])[0].name}=..."
            raise RecipeError(f"{override}: the recipe of a run takes single values and no file, e.g. {one}")


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
    if found := re.search(r"default list use \+(([^=@]+)[^=]*=.*)", innermost):
        return f"{found[1]}: this recipe chooses no file of {found[2]}/; +{found[1]} adds one"
    full_key = re.search(r"full_key: (\S+)", innermost)
    if found := re.search(r"Key '([^']+)' (?:is )?not in", innermost):
        key = full_key[1] if full_key else found[1]
        if part := re.fullmatch(r"reward\.parts\.(\w+)(\.\w+)?", key):
            if not part[2]:
                return f"no such key: {key}: a new part goes into a recipe file"
            keys = [f"reward.parts.{part[1]}.{f.name}" for f in fields(PartConfig)]
        if "object_type=VerifierChoice" in innermost:  # in a list: no key leads there
            own = [f.name for f in fields(VerifierChoice)]
            return f"no such key in first_decided: {key}{nearest(key, own)}; a verifier there has {', '.join(own)}"
        if section := re.fullmatch(r"(reward\.parts\.\w+\.(?:params|requires|choices))\.\w+", key):
            near = nearest(key, [k for k in keys if k.startswith(f"{section[1]}.")])
            return f"no such key: {key}{near or f'; a new one is added by +{key}=...'}"
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


def recipe_in(cfg: DictConfig) -> Recipe:
    """The recipe alone: what `algorithm` names need not be there."""
    try:
        recipe = OmegaConf.to_object(cfg)
    except OmegaConfBaseException as error:
        raise RecipeError(explain(error, ())) from None
    assert isinstance(recipe, Recipe)
    return recipe


def typed(cfg: DictConfig) -> tuple[Recipe, Objective]:
    """The composed recipe as plain objects; nothing reads OmegaConf after this."""
    if OmegaConf.is_missing(cfg, "algorithm"):
        raise RecipeError("the recipe does not say: algorithm")
    if not isinstance(cfg.algorithm, DictConfig):
        raise RecipeError(f"algorithm={cfg.algorithm}: expected the content of a file like recipes/algorithm/grpo.yaml")
    recipe = recipe_in(cfg)
    if wrong := unsampled(recipe.rollout):  # an objective that takes such a value calls it its own
        raise RecipeError(f"rollout.{wrong}")
    try:
        objective = instantiate(cfg.algorithm)
    except (HydraException, OmegaConfBaseException) as error:
        raise RecipeError(f"algorithm: {explain(error, ())}") from None
    if not isinstance(objective, Objective):
        raise RecipeError(f"algorithm: {cfg.algorithm.get('_target_')} made a {type(objective).__name__}, no Objective")
    modes = get_args(get_type_hints(Objective)["no_signal"])
    if objective.no_signal not in modes:
        raise RecipeError(f"algorithm.no_signal={objective.no_signal}: one of {', '.join(modes)}")
    return recipe, objective


def text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8: {error}") from None


def saved_recipe(text: str, overrides: Sequence[str] = (), where: Path = Path("config.yaml")) -> DictConfig:
    """A run's config.yaml, checked against the schema as it is today. `where` it lies, for errors."""
    check_values(overrides)
    try:
        saved = OmegaConf.create(text)
    except (OmegaConfBaseException, YAMLError) as error:
        raise RecipeError(f"{where}: {explain(error, ())}") from None
    if not isinstance(saved, DictConfig) or not saved:
        raise RecipeError(f"{where}: {'empty' if not saved else 'a list'}, and no recipe")
    try:
        composed = OmegaConf.merge(OmegaConf.structured(Recipe), saved, OmegaConf.from_dotlist(list(overrides)))
    except (OmegaConfBaseException, YAMLError) as error:  # the latter of an override
        raise RecipeError(explain(error, list(all_keys(OmegaConf.structured(Recipe))))) from None
    assert isinstance(composed, DictConfig)
    return composed


def differing(one: DictConfig, other: DictConfig) -> list[str]:
    """The sections, or plain keys, in which two recipes are not alike."""
    a, b = (OmegaConf.to_container(cfg, resolve=True) for cfg in (one, other))
    assert isinstance(a, dict) and isinstance(b, dict)
    return [str(key) for key in a if a[key] != b.get(key)]


def measured_otherwise(before: DictConfig, now: DictConfig) -> list[str]:
    """The keys in which two recipes differ so that numbers of the one are not to be compared with the other's."""
    a, b = (OmegaConf.to_container(cfg, resolve=True) for cfg in (before, now))
    assert isinstance(a, dict) and isinstance(b, dict)
    return changed(cast(dict[str, Any], a), cast(dict[str, Any], b))


def sentinel_settings(name: str, overrides: Sequence[str]) -> SentinelConfig:
    """A file of recipes/sentinel by its name, or any other by its path."""
    folder = recipes_folder() / "sentinel"
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in folder.glob("*.yaml")))
        raise RecipeError(f"--sentinel {name}: no such file; there are: {there}")
    schema = OmegaConf.structured(SentinelConfig)
    try:
        merged = OmegaConf.merge(schema, OmegaConf.create(text_of(path)), OmegaConf.from_dotlist(list(overrides)))
        settings = cast(SentinelConfig, OmegaConf.to_object(merged))
    except (OmegaConfBaseException, YAMLError) as error:
        raise RecipeError(f"--sentinel {name}: {explain(error, list(all_keys(schema)))}") from None
    if wrong := what_is_wrong(settings):
        raise RecipeError(f"sentinel.{wrong}")
    return settings


def to_yaml(composed: DictConfig) -> str:
    """With every reference resolved: what a run folder keeps. A `${` that is left is text, and is read back as such."""
    return OmegaConf.to_yaml(OmegaConf.create(escaped(OmegaConf.to_container(composed, resolve=True))))


def escaped(value: Any) -> Any:
    """As OmegaConf reads it back: backslashes count before `${` alone."""
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    if isinstance(value, dict):
        return {key: escaped(item) for key, item in value.items()}
    return [escaped(item) for item in value] if isinstance(value, list) else value


def targets(algorithm: DictConfig) -> dict[str, str]:
    """The function in each slot."""
    slots = {str(slot): choice["_target_"] for slot, choice in algorithm.items() if isinstance(choice, DictConfig)}
    return slots or {"objective": algorithm["_target_"]}
