"""Who may import whom. A new arrow is a design change: change these tables too, and say why."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted([*(ROOT / "rlvr").rglob("*.py"), *(ROOT / "verifiers").rglob("*.py")])

# Lower first. A module may import what stands strictly below it, and its own package. The framework's middle row has
# an order of its own: rollout stands on verify and evaluate.
LAYERS = [
    {"types", "reward_config", "rollout_config", "sentinel_config", "trainer_config", "compiling", "atomic", "probe",
     "signals"},
    {"lineage", "config", "objective"},
    {"state", "records", "measure", "collate", "weights", "sandbox", "data", "sentinel"},
    {"checkpoint", "verify", "evaluate", "observe"},
    {"rollout", "train"},
    {"parts", "plan"},
    {"loop", "cluster"},
    {"inputs", "workers"},
    {"run", "evaluate_model", "export_checkpoint", "compose"},
    {"model_commands", "sweep"},  # commands with a file of their own, as the command line has none left for them
    {"cli"},
]

# The only files, or folders, that may import a package at all.
HOMES = {
    "ray": ("rlvr/cluster/",),
    "vllm": ("rlvr/rollout/vllm.py", "rlvr/rollout/vllm_worker.py"),
    "deepspeed": ("rlvr/train/",),
    "peft": ("rlvr/train/lora.py",),
    "hydra": ("rlvr/compose.py",),
    "omegaconf": ("rlvr/compose.py",),
    "wandb": ("rlvr/observe/sinks.py",),
    "tensorboard": ("rlvr/observe/sinks.py",),
    "rich": ("rlvr/observe/",),
    "math_verify": ("verifiers/",),
    "sympy": ("verifiers/",),
    "mpmath": ("verifiers/",),
    "transformers": ("rlvr/train/", "rlvr/rollout/", "rlvr/data/", "verifiers/reward_model.py"),
    "datasets": ("rlvr/data/",),
    "pyarrow": ("rlvr/data/",),
}

# What a file knows besides the standard library and the layers below it.
THIRD_PARTY = {
    "rlvr/types.py": set(),
    "rlvr/atomic.py": set(),
    "rlvr/probe.py": set(),
    "rlvr/signals.py": set(),
    "rlvr/lineage.py": set(),
    "rlvr/config.py": set(),
    "rlvr/reward_config.py": set(),
    "rlvr/rollout_config.py": set(),
    "rlvr/sentinel_config.py": set(),
    "rlvr/trainer_config.py": set(),
    "rlvr/state.py": set(),
    "rlvr/records.py": set(),
    "rlvr/measure.py": set(),
    "rlvr/loop.py": set(),
    "rlvr/parts.py": set(),
    "rlvr/run.py": set(),
    "rlvr/collate.py": {"torch"},
    "rlvr/compiling.py": {"torch"},
    "rlvr/weights.py": {"torch"},
    "rlvr/objective/": {"torch"},
    "rlvr/sentinel/": set(),
    "rlvr/checkpoint/": set(),
    "rlvr/verify/": {"psutil"},  # to kill what a verifier left running
    "rlvr/sandbox/": set(),
    "rlvr/evaluate/": set(),
    "rlvr/plan/": set(),
    # regex matches under a time limit; jsonschema and reasoning_gym are the subject of the verifiers of those names
    "verifiers/chat.py": {"aiohttp"},  # judges are asked over HTTP
    "verifiers/reward_model.py": {"torch", "transformers"},  # when it is set up; importing it loads neither
    "verifiers/steps.py": {"tokenizers"},  # to find in which tokens a step stands; the same
    "verifiers/": {"math_verify", "sympy", "mpmath", "regex", "jsonschema", "referencing", "reasoning_gym"},
}

# Files that see less of the project than their layer would let them.
PROJECT = {
    "rlvr/types.py": set(),
    "rlvr/atomic.py": set(),
    "rlvr/probe.py": set(),
    "rlvr/lineage.py": set(),
    "rlvr/config.py": {"reward_config", "rollout_config", "sentinel_config", "trainer_config"},
    "rlvr/reward_config.py": set(),
    "rlvr/rollout_config.py": set(),
    "rlvr/sentinel_config.py": set(),
    "rlvr/trainer_config.py": set(),
    "rlvr/sentinel/remedies.py": {"objective", "sentinel", "sentinel_config"},
    "rlvr/sentinel/command.py": {"config", "sentinel", "sentinel_config"},
    "rlvr/sentinel/": {"sentinel", "sentinel_config"},  # rows of numbers, and its knobs
    "rlvr/objective/": {"objective"},
    "rlvr/collate.py": {"objective", "types"},
    # everything else is a Protocol to it
    "rlvr/loop.py": {"collate", "config", "objective", "parts", "sentinel", "sentinel_config", "state"},
    "rlvr/parts.py": {"lineage", "objective", "state"},
    "rlvr/records.py": {"types"},
    "rlvr/measure.py": {"config"},
    "rlvr/plan/work.py": {"plan", "train"},  # of it the packing alone: no torch (below)
    "rlvr/plan/": {"config", "plan"},
    "verifiers/": {"types", "verify", "sandbox"},
}

every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())


def imports(path: Path) -> Iterator[str]:
    """Every module that is imported anywhere in the file, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the layer"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def tops(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)}


def project(path: Path) -> set[str]:
    """The first-level modules of rlvr that the file imports."""
    return {name.split(".")[1] for name in imports(path) if name.startswith("rlvr.")}


def rule_for(path: Path, rules: dict[str, set[str]]) -> set[str] | None:
    name = path.relative_to(ROOT).as_posix()
    return next((allowed for prefix, allowed in rules.items() if name.startswith(prefix)), None)


def layer(module: str) -> int:
    found = [rank for rank, modules in enumerate(LAYERS) if module in modules]
    assert found, f"rlvr.{module} is in no layer: give it one in LAYERS"
    return found[0]


@every_file
def test_a_heavy_package_is_imported_in_its_home_alone(path):
    name = path.relative_to(ROOT).as_posix()
    for package in tops(path) & set(HOMES):
        assert name.startswith(HOMES[package]), f"only {', '.join(HOMES[package])} may import {package}"


@every_file
def test_imports_point_down(path):
    here = path.relative_to(ROOT).with_suffix("").parts
    if here[0] != "rlvr" or here[1] == "__init__":
        return
    for module in project(path) - {here[1]}:
        assert layer(module) < layer(here[1]), f"rlvr.{here[1]} may not look up, or sideways, at rlvr.{module}"


@every_file
def test_a_file_sees_no_more_of_the_project_than_it_should(path):
    allowed = rule_for(path, PROJECT)
    assert allowed is None or project(path) <= allowed


@every_file
def test_the_core_knows_the_standard_library_and_little_else(path):
    allowed = rule_for(path, THIRD_PARTY)
    if allowed is not None:
        assert tops(path) - set(sys.stdlib_module_names) - {"rlvr", "rlvr_verifiers"} <= allowed


@every_file
def test_the_framework_has_no_private_door_to_its_own_verifiers(path):
    if path.is_relative_to(ROOT / "rlvr"):
        assert "rlvr_verifiers" not in tops(path)


@every_file
def test_files_stay_readable(path):
    limit = 120 if path == ROOT / "rlvr" / "loop.py" else 350
    assert len(path.read_text().splitlines()) <= limit


def test_the_walk_found_the_project():
    names = {path.relative_to(ROOT).as_posix() for path in FILES}
    assert {"rlvr/loop.py", "rlvr/objective/objective.py", "rlvr/train/deepspeed.py", "verifiers/math.py"} <= names


def loaded_by(module: str) -> set[str]:
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


def test_importing_the_objective_loads_torch_and_nothing_heavier():
    loaded = loaded_by("rlvr.objective")
    assert "torch" in loaded
    assert not loaded & {"ray", "vllm", "deepspeed", "transformers", "hydra", "wandb", "datasets"}


def test_a_worker_that_verifies_loads_no_torch():
    assert not loaded_by("rlvr.cluster.verifying") & {"torch", "vllm", "deepspeed", "transformers", "hydra"}


@pytest.mark.parametrize(
    "module",
    ["rlvr_verifiers.math", "rlvr_verifiers.format", "rlvr.types", "rlvr.config", "rlvr.cli", "rlvr.plan.command"],
)
def test_importing_a_verifier_a_record_the_plan_or_the_command_line_loads_no_torch(module):
    assert not loaded_by(module) & {"torch", "ray", "vllm", "deepspeed", "transformers", "hydra"}
