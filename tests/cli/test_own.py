"""Recipes, algorithms and functions of one's own: found in any folder, and what is wrong with them is one line."""

import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from rlvr import cli
from rlvr.compose import compose_recipe, quoted
from tests.cli.conftest import ALGORITHM, ALGORITHMS, RECIPE, refusal


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("steps: 3", "stepz: 3", "no such key: stepz; did you mean steps?"),
        (
            "steps: 3",
            "steps: 3\nrollout: {grup_size: 8}",
            "no such key: rollout.grup_size; did you mean rollout.group_size?",
        ),
        (
            "verifier: math",
            "verifer: math",
            "no such key: reward.parts.math.verifer; did you mean reward.parts.math.verifier?",
        ),
        ("steps: 3", "steps: many", "steps: Value 'many' of type 'str' could not be converted to Integer"),
        ("steps: 3\n", "", "recipe mine does not say: steps"),
        ("  - recipe_schema\n", "", "recipe mine: its `defaults` must begin with `- recipe_schema`, or nothing can"),
        ("algorithm: grpo", "algorithm: grop", f"no algorithm 'grop'; did you mean grpo?; there are: {ALGORITHMS}"),
        ("name: mine", "name: [mine", "while parsing a flow sequence"),
    ],
)
def test_a_wrong_word_in_a_recipe_of_ones_own_is_one_line_too(capsys, own, old, new, line):
    assert old in RECIPE
    (own / "mine.yaml").write_text(RECIPE.replace(old, new))
    assert refusal(capsys, "train", str(own / "mine.yaml")).startswith(line)


def test_an_unknown_recipe_is_answered_with_the_nearest_and_all_there_are(capsys, own):
    assert "no recipe 'quickstrt'; did you mean quickstart?; there are:" in refusal(capsys, "train", "quickstrt")
    assert "there are: mine, quickstart" in refusal(capsys, "train", "main", "--config-dir", str(own))


def test_a_recipe_file_or_folder_that_is_not_there_is_named(capsys, own):
    assert refusal(capsys, "train", "nope/own.yaml") == "recipe nope/own.yaml: no such file"
    assert refusal(capsys, "train", "mine", "--config-dir", "nope") == "--config-dir nope: no such folder"


def test_own_recipe_own_algorithm_and_own_function_need_only_a_folder(capsys, own, inputs):
    argv = ["train", "mine", "--config-dir", str(own), "algorithm=twice", *inputs, "--dry-run"]
    assert cli.main(argv) == 0
    said = capsys.readouterr().out
    assert said.startswith("mine\n")
    assert "advantage twice_the_mean, ratio token" in said
    assert "inline: 1 x vllm" in said
    assert sys.path[-1] == str(own)  # behind the library, here and in the processes that a run starts


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return rewards.nobody", "AttributeError: 'Rewards' object has no attribute 'nobody'"),
        ("return {}['x']", "KeyError: 'x'"),
        ("assert False, 'no reward'", "AssertionError: no reward"),
        ("return 1 / 0", "ZeroDivisionError: division by zero"),
        ("return nothing", "NameError: name 'nothing' is not defined"),
        ("raise ValueError('not with these')", "not with these"),
    ],
)
def test_what_ones_own_function_raises_is_said_with_its_slot(capsys, own, body, said):
    (own / "my_objective.py").write_text(f"def twice_the_mean(rewards):\n    {body}\n")
    sys.modules.pop("my_objective", None)
    line = refusal(capsys, "train", "quickstart", "--config-dir", str(own), "algorithm=twice", "--dry-run")
    sys.modules.pop("my_objective", None)
    fit = "algorithm does not fit reward.parts=math,format and rollout.group_size=8: algorithm.advantage: "
    assert line == fit + said


def test_our_recipe_runs_with_ones_own_algorithm(capsys, own, inputs):
    assert cli.main(["train", "quickstart", "algorithm=twice", "--config-dir", str(own), *inputs, "--dry-run"]) == 0
    assert "advantage twice_the_mean" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["a,b", "a=b", "my dir", "(x)", "q'r", 'q"r', "a\\b", "a{b", "[x]", "é:+"])
def test_ones_own_folder_may_have_any_name(own, name):
    own = own.rename(own.with_name(name))
    composed = compose_recipe("quickstart", ["algorithm=twice"], str(own))
    assert composed.algorithm.advantage._target_ == "my_objective.twice_the_mean"


@given(st.text(st.sampled_from("ab,'\"\\ =(){}[]:/+~"), max_size=9))
def test_what_is_quoted_is_read_back_by_hydra(text):
    (parsed,) = OverridesParser.create().parse_overrides([f"a=[{quoted(text)},{quoted(text)}]"])
    assert parsed.value() == [text, text]


def test_a_function_that_cannot_be_imported_is_one_line(capsys, own):
    (own / "algorithm" / "twice.yaml").write_text(ALGORITHM.replace("my_objective", "their_objective"))
    line = refusal(capsys, "train", "mine", "--config-dir", str(own), "algorithm=twice")
    assert line == "algorithm: No module named 'their_objective'"


def test_an_algorithm_that_makes_no_objective_is_one_line(capsys, own):
    (own / "algorithm" / "twice.yaml").write_text("_target_: builtins.dict\na: 1\n")
    line = refusal(capsys, "train", "mine", "--config-dir", str(own), "algorithm=twice")
    assert line == "algorithm: builtins.dict made a dict, no Objective"


def test_a_recipe_or_a_sentinel_that_is_not_utf_8_is_named(capsys, own):
    (own / "latin.yaml").write_bytes(b"name: \xe9\n")
    for words in (["train", str(own / "latin.yaml")], ["sentinel", "replay", "x", "--sentinel", f"{own}/latin.yaml"]):
        line = refusal(capsys, *words)
        assert line.startswith(f"{own / 'latin.yaml'}: not UTF-8: ")


def test_a_recipe_of_ones_own_that_ends_in_yml_is_not_taken_for_ours(capsys, own):
    path = (own / "mine.yaml").rename(own / "quickstart.yml")
    assert refusal(capsys, "train", str(path), "--dry-run") == (
        f"recipe {path}: Hydra reads files that end in .yaml alone: rename it"
    )


def test_a_dry_run_shows_the_tool_with_its_limits(capsys, inputs, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from rlvr.verify import tool\n\n@tool('doubled', timeout_s=1.5)\n"
        "def double(sample, digits=1):\n    return str(2 * digits)\n"
    )
    tool = f"{tmp_path}/mine.py:double"
    assert cli.main(["train", "quickstart", *inputs, "--dry-run"]) == 0
    assert "\n  tool " not in capsys.readouterr().out
    limits = "at most 4 answers a completion, of <= 2,000 characters and {} CPU seconds; 2 processes an engine\n"
    assert cli.main(["train", "quickstart", *inputs, f"rollout.tool.name='{tool}'", "--dry-run"]) == 0
    assert f"  tool       doubled ({tool}): {limits.format(1.5)}" in capsys.readouterr().out
    options = ["rollout.tool.timeout_s=0.25", "+rollout.tool.params.digits=3"]
    assert cli.main(["train", "quickstart", *inputs, f"rollout.tool.name='{tool}'", *options, "--dry-run"]) == 0
    assert f"  tool       doubled ({tool}, digits=3): {limits.format(0.25)}" in capsys.readouterr().out
