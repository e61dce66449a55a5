"""The table of metrics and the names in the code are the same set."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlvr.observe.metrics import FAMILIES, NAMES, TABLE, aggregate, find, unknown
from rlvr.observe.progress import SHOWN

RLVR = Path(__file__).resolve().parents[2] / "rlvr"
LOGGING = (
    "loop.py",
    "run.py",
    "weights.py",
    "rollout/rollouts.py",
    "evaluate/pass_at.py",
    "rollout/evaluation.py",
    "verify/monitor.py",
    "train/deepspeed.py",
    "objective/objective.py",
    "sentinel/remedies.py",
)
NAME = re.compile(r"[a-z_]+/[a-z_]+|[a-z_]+/<.*>|accuracy|policy_version")


def keys(tree: ast.AST) -> Iterator[ast.expr]:
    """Keys of dict literals, and subscripts that are assigned to."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            yield from (key for key in node.keys if key is not None)
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            yield node.slice


def spelled(key: ast.expr) -> str | None:
    """What a key says; what an f-string fills in becomes `<...>`."""
    if isinstance(key, ast.Constant) and isinstance(key.value, str):
        return key.value
    if isinstance(key, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "<...>" for part in key.values)
    return None


def logged() -> set[str]:
    names = {spelled(key) for file in LOGGING for key in keys(ast.parse((RLVR / file).read_text()))}
    return {name for name in names if name and NAME.match(name)}


def as_pattern(name: str) -> re.Pattern[str]:
    return re.compile(re.escape(name).replace(re.escape("<...>"), "[a-z0-9<>_]+"))


def test_every_name_in_the_code_has_a_row():
    names = logged()
    assert {"accuracy", "policy/skipped", "reward/<...>", "eval/accuracy_<...>", "tokens/trained"} <= names
    homeless = [name for name in names if not any(as_pattern(name).fullmatch(metric.name) for metric in TABLE)]
    assert homeless == []


def test_every_row_is_logged_by_the_code():
    patterns = [as_pattern(name) for name in logged() if name != "reward/<...>"] + [re.compile("reward/<part>")]
    unused = [metric.name for metric in TABLE if not any(pattern.fullmatch(metric.name) for pattern in patterns)]
    assert unused == []


def test_what_the_displays_show_is_in_the_table():
    assert unknown(name for name, _, _ in SHOWN) == []


def test_no_name_has_two_rows():
    assert len(NAMES) + len(FAMILIES) == len(TABLE)


def test_an_exact_name_wins_over_its_family():
    assert find("reward/mean") is NAMES["reward/mean"]
    assert find("reward/format") is FAMILIES["reward/"]
    assert find("reward/") is None
    assert unknown(["policy/losss", "reward/code", "nothing"]) == ["nothing", "policy/losss"]


def test_several_steps_become_one_each_metric_its_own_way():
    rows = [
        {"accuracy": 0.2, "tokens/sampled": 900, "completions/length_max": 30, "policy/lr": 1.0},
        {"accuracy": 0.4, "tokens/sampled": 1100, "completions/length_max": 20, "policy/lr": 0.5, "policy/kl_ref": 0.3},
    ]
    assert aggregate(rows) == {
        "accuracy": pytest.approx(0.3),
        "tokens/sampled": 2000,
        "completions/length_max": 30,
        "policy/lr": 0.5,
        "policy/kl_ref": 0.3,
    }
