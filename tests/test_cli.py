"""A wrong word costs one line and exit code 2, before anything is loaded, written or started."""

import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from transformers import AutoTokenizer

from rlvr import cli
from rlvr.compose import compose_recipe, escaped, quoted, saved_recipe, to_yaml, typed
from rlvr.config import RecipeError
from tests.data.tokenizers import WORDS, model_folder

ALGORITHMS = ", ".join(sorted(p.stem for p in (Path(__file__).parents[1] / "recipes/algorithm").glob("*.yaml")))

FOLDER = "names a folder, so it is not empty, has only printable characters, no / and no dot in front"

RECIPE = """
defaults:
  - recipe_schema
  - algorithm: grpo
  - cluster: inline
  - _self_
name: mine
steps: 3
model: {path: nowhere}
data: {train: nothing.jsonl}
reward:
  parts:
    math: {verifier: math}
"""

ALGORITHM = """
_target_: rlvr.objective.Objective
advantage: {_partial_: true, _target_: my_objective.twice_the_mean}
ratio: {_partial_: true, _target_: rlvr.objective.ratios.token}
surrogate: {_partial_: true, _target_: rlvr.objective.surrogates.clip, low: 0.2, high: 0.2}
weighting: {_partial_: true, _target_: rlvr.objective.weightings.sequence_mean}
no_signal: keep
"""

MODULE = """
def twice_the_mean(rewards):
    return 2 * rewards.total_NG
"""


@pytest.fixture(autouse=True)
def untouched(monkeypatch):
    """What a command changes in its own process."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))


@pytest.fixture
def own(tmp_path) -> Path:
    """A user's own folder: a recipe, an algorithm, the Python behind it."""
    folder = tmp_path / "own"
    (folder / "algorithm").mkdir(parents=True)
    (folder / "mine.yaml").write_text(RECIPE)
    (folder / "algorithm" / "twice.yaml").write_text(ALGORITHM)
    (folder / "my_objective.py").write_text(MODULE)
    return folder


@pytest.fixture
def inputs(tmp_path) -> list[str]:
    """Overrides that give the recipe a model and data to look at."""
    for name, questions in (("train", ("1 + 1", "1 + 2", "2 + 2")), ("heldout", ("3 + 1",))):
        rows = [json.dumps({"problem": question, "answer": "2"}) for question in questions]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    return [
        f"model.path={model_folder(tmp_path / 'model')}",
        f"data.train={tmp_path / 'train.jsonl'}",
        f"data.heldout={tmp_path / 'heldout.jsonl'}",
    ]


def refusal(capsys, *argv: str) -> str:
    """The one line that the command says before it exits with 2."""
    assert cli.main(list(argv)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("rlvr: ") and said.err.count("\n") == 1
    return said.err.removeprefix("rlvr: ").rstrip("\n")


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("rollout.grup_size=8", "no such key: rollout.grup_size; did you mean rollout.group_size?"),
        ("+rollout.grup_size=8", "no such key: rollout.grup_size; did you mean rollout.group_size?"),
        ("trainer.learning_rat=1", "no such key: trainer.learning_rat; did you mean trainer.learning_rate?"),
        ("learning_rate=1", "no such key: learning_rate; did you mean trainer.learning_rate?"),
        ("rolout.group_size=8", "no such key: rolout; did you mean rollout?"),
        ("algo=dapo", "no such key: algo; did you mean algorithm?"),
        (
            "algorithm.surrogate.lw=0.3",
            "no such key: algorithm.surrogate.lw; did you mean algorithm.surrogate.low?",
        ),
        (
            "reward.parts.math.wieght=2",
            "no such key: reward.parts.math.wieght; did you mean reward.parts.math.weight?",
        ),
        (
            "reward.parts.math.requires={format: 1}",
            "no such key: reward.parts.math.requires.format; a new one is added by "
            "+reward.parts.math.requires.format=...",
        ),
        (
            "reward.parts.math.params.evalated=true",
            "no such key: reward.parts.math.params.evalated; did you mean reward.parts.math.params.evaluated?",
        ),
        (
            "reward.parts.math.first_decided=[{verifer: judge}]",
            "no such key in first_decided: verifer; did you mean verifier?; a verifier there has verifier, params, "
            "timeout_s",
        ),
        ("reward.parts.code.verifier=x", "no such key: reward.parts.code: a new part goes into a recipe file"),
        (
            "+reward.parts.code.verifier=x",
            "reward.parts cannot be added to from the command line: a new part goes into a recipe file",
        ),
        ("steps=many", "steps: Value 'many' of type 'str' could not be converted to Integer"),
        ("log.wandb=maybe", "log.wandb: Value 'maybe' is not a valid bool (type str)"),
        ("steps", "'steps' is no override: expected key=value, e.g. steps=10"),
        (
            "algorithm=[1]",
            "algorithm=[1]: one value, please; a list is algorithm=[...], and a text with such characters goes into "
            "quotes, inside of the shell's: 'algorithm=\"...\"'",
        ),
        ("=3", "'=3' is no override: expected key=value, e.g. steps=10"),
        ("~steps", "recipe quickstart does not say: steps"),
        ("hydra.run.dir=x", "hydra.run.dir=x: a recipe has no hydra settings"),
        *(
            (
                override,
                f"{override}: {said}; a text with such characters goes into quotes, inside of the shell's: "
                f"'{override.partition('=')[0]}=\"...\"'",
            )
            for override, said in (
                ("trainer.betas=[1", "no viable alternative at input '[1'"),
                (r"data.system=Answer in \boxed{}.", "mismatched input '{' expecting <EOF>"),
                ("data.train=/data/my file (1).jsonl", "mismatched input ' (' expecting <EOF>"),
            )
        ),
        (
            "data.system=Be helpful, honest",
            "data.system=Be helpful, honest: one value, please; a list is data.system=[...], and a text with such "
            "characters goes into quotes, inside of the shell's: 'data.system=\"...\"'",
        ),
        *(
            (
                f"reward.parts.math.audit{given}",
                f"reward.parts.math.audit{given}: the recipe has no reward.parts.math.audit to change: a new one goes "
                "into a recipe file",
            )
            for given in ("={verifier:format}", ".verifier=format", ".share=0.1")
        ),
        (
            "algorithm=grop",
            f"no algorithm 'grop'; did you mean grpo?; there are: {ALGORITHMS}",
        ),
        ("cluster=lokal", "no cluster 'lokal'; did you mean local?; there are: inline, local, one_gpu, one_node, ray"),
        ("algorithm.no_signal=refil", "algorithm.no_signal=refil: one of drop, refill, keep"),
        ("algorithm.surrogate.low=-0.2", "algorithm: surrogate.low=-0.2: at least 0"),
        ("algorithm.surrogate.dual=nan", "algorithm: surrogate.dual=nan: above 1, or null"),
        (
            "+algorithm.kl={_target_: rlvr.objective.kl.KL, coefficient: null, estimator: null}",
            "algorithm: kl.coefficient=null: a finite number of at least 0, or one for each domain",
        ),
        ("rollout.group_size=1", "rollout.group_size=1: at least 2"),
        ("rollout.max_staleness=-1", "rollout.max_staleness=-1: at least 0"),
        ("evaluation.every=-5", "evaluation.every=-5: at least 0"),
        ("evaluation.limit=0", "evaluation.limit=0: at least 1"),
        ("log.completions_every=-1", "log.completions_every=-1: at least 0"),
        ("cluster.restarts=-1", "cluster.restarts=-1: at least 0"),
        ("cluster.placement=together", "cluster.placement=together: one of disaggregated, colocated"),
        ("trainer.betas=[0.9]", "trainer.betas=[0.9]: two numbers, each at least 0 and below 1"),
        ("trainer.zero_stage=4", "trainer.zero_stage=4: one of 0, 1, 2, 3"),
        (
            "model.attention=flash",
            "model.attention=flash: one of auto, sdpa, varlen, eager, flash_attention_2, flash_attention_3",
        ),
        (
            "trainer.offload_optimizer=cpu",
            "trainer.offload_optimizer=cpu needs trainer.zero_stage of at least 1, not 0",
        ),
        ("trainer.learning_rate=0", "trainer.learning_rate=0.0: must be above 0"),
        ("rollout.compile=true", "rollout.compile=true is for rollout.engine=transformers: vllm sees to itself"),
        *(
            (
                f"rollout.temperature={outside}",
                f"rollout.temperature={outside}: with rollout.engine=vllm from 0.01 to 2; less it takes for 0.01 "
                "without an error, and the trainer would train on another distribution; more it refuses",
            )
            for outside in (0.005, 2.5)
        ),
        *((f"seed={seed}", f"seed={seed}: from 0 to 4294967295") for seed in (-1, 2**32)),
        *(
            (f"name={name}", f"name='{name}': {FOLDER}")
            for name in ("../evil", "a/b", "/a", "..", ".hidden")
        ),
        ("name=''", f"name='': {FOLDER}"),
        ("name='a\tb'", f"name='a\\tb': {FOLDER}"),
        ("rollout.top_p=0", "rollout.top_p=0.0: above 0, at most 1"),
        ("rollout.stop=['']", "rollout.stop=['']: an empty string is in every text"),
        ("rollout.memory_gib=-3", "rollout.memory_gib=-3.0: vllm takes whole GiB, at least 1"),
        ("rollout.memory_gib=1.5", "rollout.memory_gib=1.5: vllm takes whole GiB, at least 1"),
        ("rollout.tensor_parallel=0", "rollout.tensor_parallel=0: at least 1"),
        ("rollout.gpu_memory_utilization=7", "rollout.gpu_memory_utilization=7.0: above 0, at most 1"),
        ("cluster.gpus_per_engine=-1", "cluster.gpus_per_engine=-1.0: at least 0, above 1 a whole number"),
        ("cluster.gpus_per_rank=1.5", "cluster.gpus_per_rank=1.5: at least 0, above 1 a whole number"),
        ("cluster.restart_hours=nan", "cluster.restart_hours=nan: at least 0"),
        ("cluster.restart_wait_s=nan", "cluster.restart_wait_s=nan: at least 1"),
        (
            "model.max_context=32",
            "model.max_context=32: above 32 with rollout.engine=vllm, which scores so many tokens to prove each "
            "transfer of weights",
        ),
        (
            "rollout.top_p=0.9",
            "rollout.top_p=0.9 needs rollout.top_k: what was left to sample from travels to the trainer, and top_p "
            "alone may leave the whole vocabulary",
        ),
        (
            "rollout.top_k=20",
            "rollout.top_p=1, rollout.top_k=20: completions are then sampled from a part of the policy, which this "
            "algorithm does not train; set +algorithm.keep_sampling_mask=true (in a resume without the +)",
        ),
        ("trainer.learning_rate=nan", "trainer.learning_rate=nan: must be above 0"),
        ("model.path=./nowhere", "model.path=./nowhere: no such folder"),
    ],
)
def test_a_wrong_override_is_one_line_that_names_the_key_and_the_nearest_valid_one(capsys, override, line):
    assert refusal(capsys, "train", "quickstart", override) == line


def test_top_k_is_at_most_the_vocabulary(capsys):
    tiny = Path(__file__).parents[1] / "recipes" / "tiny"
    kept, tokens = "+algorithm.keep_sampling_mask=true", len(AutoTokenizer.from_pretrained(tiny))
    said = refusal(capsys, "train", "quickstart", kept, f"rollout.top_k={tokens + 1}")
    assert said.startswith(f"rollout.top_k={tokens + 1} > {tokens}, the tokens of model.path=")
    assert cli.main(["train", "quickstart", kept, f"rollout.top_k={tokens}", "--dry-run"]) == 0


def test_what_a_tokenizer_knows_beyond_its_model_is_no_token(capsys, inputs, tmp_path):
    """Gemma-3's has one more than the text model, and that model may be its own reference."""
    config = {"model_type": "qwen3", "vocab_size": len(WORDS) - 1}  # without </think>
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    words = ["train", "quickstart", "algorithm=grpo", f"+algorithm.kl.reference={tmp_path / 'model'}", *inputs]
    assert cli.main([*words, "--dry-run"]) == 0
    capsys.readouterr()
    said = refusal(capsys, *words, "+algorithm.keep_sampling_mask=true", f"rollout.top_k={len(WORDS)}")
    assert said.startswith(f"rollout.top_k={len(WORDS)} > {len(WORDS) - 1}, the tokens of model.path=")
    (tmp_path / "train.jsonl").write_text(json.dumps({"problem": "1 </think>", "answer": "2"}))
    assert f"row 0: the prompt has the token {len(WORDS) - 1}, but" in refusal(capsys, *words)


def test_a_stop_string_that_no_text_holds_is_refused(capsys, inputs):
    said = refusal(capsys, "train", "quickstart", *inputs, 'rollout.stop=["<end>1"]')
    assert said.startswith("rollout.stop: '<end>1' holds the special token '<end>'")


def test_what_gdpo_would_normalise_with_the_parts_is_refused(capsys):
    in_reward = "{_target_: rlvr.objective.kl.KL, coefficient: 0.1, estimator: {_partial_: true, _target_: " \
        "rlvr.objective.kl.k1}, place: reward}"
    said = refusal(capsys, "train", "quickstart_gdpo", f"+algorithm.kl={in_reward}")
    assert said.startswith("algorithm does not fit reward.parts=") and said.endswith("set algorithm.kl.place=loss")


@pytest.mark.parametrize("outside", ["inf", "1e-30", "0.005"])
def test_the_other_engine_has_bounds_of_the_temperature_too(capsys, outside):
    words = ["rollout.engine=transformers", f"rollout.temperature={outside}"]
    assert refusal(capsys, "train", "quickstart", *words) == f"rollout.temperature={outside}: at least 0.01, and finite"


def test_a_reference_that_cannot_be_one_is_refused_before_anything_is_paid(capsys, inputs, tmp_path):
    def said(reference) -> str:
        words = ["train", "quickstart", "algorithm=grpo", f"+algorithm.kl.reference={reference}", "--dry-run", *inputs]
        return refusal(capsys, *words)

    key = "algorithm.kl.reference="
    assert said("./nowhere") == f"{key}./nowhere: no such folder"
    (tmp_path / "empty").mkdir()
    assert said(tmp_path / "empty").startswith(f"{key}{tmp_path / 'empty'}: no model could be read: ")
    small = tmp_path / "small"
    small.mkdir()
    (small / "config.json").write_text(json.dumps({"model_type": "qwen3", "vocab_size": 3}))
    known = len(AutoTokenizer.from_pretrained(tmp_path / "model"))
    assert said(small) == f"{key}{small}: it knows 3 tokens, fewer than the {known} of model.path"
    fine = ["train", "quickstart", "algorithm=grpo", f"+algorithm.kl.reference={tmp_path / 'model'}", "--dry-run"]
    assert cli.main([*fine, *inputs]) == 0
    off = [*fine[:3], f"+algorithm.kl.reference={small}", "algorithm.kl.coefficient=0", "--dry-run"]
    assert cli.main([*off, *inputs]) == 0, "none is loaded"


def test_a_longer_context_than_the_model_was_built_for_is_refused(capsys, inputs):
    words = ["train", "quickstart", *inputs, "rollout.max_tokens=16", "--dry-run"]
    limit = f"32768, what {inputs[0]} was built for"
    assert refusal(capsys, *words, "model.max_context=32769").startswith(f"model.max_context=32769 > {limit}; ")
    assert cli.main([*words, "model.max_context=32768"]) == 0


def test_a_model_that_the_trainer_cannot_take_apart_leaves_no_run_behind(capsys, inputs, tmp_path):
    config = {"model_type": "gpt2", "n_layer": 1, "n_head": 1, "n_embd": 8, "vocab_size": 100}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    words = ["train", "quickstart", *inputs, f"run.folder={tmp_path / 'run'}", "rollout.engine=transformers"]
    assert refusal(capsys, *words) == (
        f"{inputs[0]}: GPT2LMHeadModel is not built as the trainer needs it, a decoder `model` and a linear "
        "`lm_head`: Llama, Mistral and Qwen models are"
    )
    assert not (tmp_path / "run").exists()


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


def test_an_unknown_option_is_refused(capsys):
    with pytest.raises(SystemExit) as refused:
        cli.main(["train", "quickstart", "--dry-rum", "steps=1"])
    assert refused.value.code == 2
    assert "unrecognized arguments: --dry-rum" in capsys.readouterr().err


@pytest.mark.parametrize("algorithm", ["dapo", "dr_grpo", "grpo", "grpo_no_kl"])
def test_a_dry_run_shows_the_plan_and_writes_nothing(capsys, tmp_path, inputs, monkeypatch, algorithm):
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    argv = [
        "train",
        "quickstart",
        *inputs,
        "steps=7",
        "trainer.learning_rate=2e-3",
        "--dry-run",
        f"algorithm={algorithm}",
    ]
    assert cli.main(argv) == 0
    said = capsys.readouterr().out
    assert said.startswith("quickstart\n")
    assert "3 prompts; 1 held out" in said
    assert "math x1, format x0.1" in said
    assert "16 prompts x 8 completions of <= 64 tokens at temperature 1" in said
    assert "7, learning rate 0.002 constant, seed 0" in said
    advantage, weighting = {
        "dapo": ("standardize", "token_mean"),
        "dr_grpo": ("center", "constant"),
    }.get(algorithm, ("standardize", "sequence_mean"))
    kl = ", kl KL" if algorithm == "grpo" else ""
    shaping = ", shaping overlong" if algorithm == "dapo" else ""
    assert f"advantage {advantage}, ratio token, surrogate clip, weighting {weighting}{kl}{shaping}\n" in said
    assert list(empty.iterdir()) == []


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


@given(st.text(st.sampled_from("ab$\\{}:.'\" \n"), max_size=12))
@settings(max_examples=200, deadline=None)
def test_any_text_of_a_recipe_is_read_back_from_what_the_run_keeps(text):
    """`\\${` is how a recipe writes the text `${`: what is kept is resolved, and is resolved again by a resume."""
    kept = saved_recipe(to_yaml(OmegaConf.create(escaped({"data": {"system": text}, "rollout": {"stop": [text]}}))))
    assert (kept.data.system, kept.rollout.stop[0]) == (text, text)


def test_quotes_let_any_text_into_a_value():
    composed = compose_recipe("quickstart", [r'data.system="Answer in \boxed{}, please (once)."'])
    assert composed.data.system == r"Answer in \boxed{}, please (once)."


def test_a_function_that_cannot_be_imported_is_one_line(capsys, own):
    (own / "algorithm" / "twice.yaml").write_text(ALGORITHM.replace("my_objective", "their_objective"))
    line = refusal(capsys, "train", "mine", "--config-dir", str(own), "algorithm=twice")
    assert line == "algorithm: No module named 'their_objective'"


def test_an_algorithm_that_makes_no_objective_is_one_line(capsys, own):
    (own / "algorithm" / "twice.yaml").write_text("_target_: builtins.dict\na: 1\n")
    line = refusal(capsys, "train", "mine", "--config-dir", str(own), "algorithm=twice")
    assert line == "algorithm: builtins.dict made a dict, no Objective"


def test_a_verifier_that_is_not_there_is_one_line(capsys):
    line = refusal(capsys, "train", "quickstart", "reward.parts.math.verifier=maths")
    assert line.startswith("reward.parts.math: ") and "maths" in line


def test_data_that_is_not_there_or_overlaps_is_one_line(capsys, tmp_path, inputs):
    line = refusal(capsys, "train", "quickstart", *inputs, "data.train=nothing.jsonl")
    assert line.startswith("data.train=nothing.jsonl: no such file")
    line = refusal(capsys, "train", "quickstart", *inputs, f"data.heldout={tmp_path / 'train.jsonl'}")
    assert "3 of 3 prompts of data.heldout are in data.train too" in line


@pytest.fixture
def run_folder(tmp_path, inputs) -> Path:
    """As a run leaves it behind."""
    folder = tmp_path / "run"
    folder.mkdir()
    composed = compose_recipe("quickstart", inputs)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(composed, resolve=True))
    return folder


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("rollout.grup_size=8", "no such key: rollout.grup_size; did you mean rollout.group_size?"),
        ("steps=many", "steps: Value 'many' of type 'str' could not be converted to Integer"),
        ("steps", "'steps' is no override: expected key=value, e.g. steps=10"),
        ("algorithm=dapo", "algorithm=dapo: expected the content of a file like recipes/algorithm/grpo.yaml"),
        (
            "cluster=inline",
            "cluster=inline: a run that goes on takes single values and no file, e.g. cluster.kind=...",
        ),
        *(
            (word, f"{word}: a run that goes on takes key=value and nothing else, e.g. steps=100")
            for word in ("+steps=9", "++steps=9", "~steps", "~steps=3")
        ),
    ],
)
def test_a_wrong_override_of_a_resume_is_one_line_and_changes_nothing(capsys, run_folder, override, line):
    before = (run_folder / "config.yaml").read_text()
    assert refusal(capsys, "resume", str(run_folder), override) == line
    assert (run_folder / "config.yaml").read_text() == before


def test_a_resume_of_no_run_is_one_line(capsys, tmp_path):
    assert refusal(capsys, "resume", str(tmp_path)) == f"{tmp_path} is no run folder: it has no config.yaml"


class Launched:
    """Stands in for the run itself: what it was asked to do, and how it ended."""

    def __init__(self, ends: str | BaseException) -> None:
        self.ends = ends

    def __call__(self, cfg, objective, inputs, folder, display):
        from rlvr.observe.summary import Summary

        self.cfg, self.inputs, self.folder = cfg, inputs, folder
        if isinstance(self.ends, BaseException):
            raise self.ends
        summary = Summary(cfg.name, cfg.seed, self.ends, cfg.steps, 1.0, 2.0, 3.0)
        folder.write_summary(summary)
        return summary


def launched(monkeypatch, ends: str | BaseException) -> Launched:
    from rlvr import run

    monkeypatch.setattr(run, "launch", launch := Launched(ends))
    return launch


@pytest.mark.parametrize(("status", "code"), [("finished", 0), ("interrupted", 3), ("stopped", 3)])
def test_the_exit_code_says_how_a_run_ended_and_the_last_line_where_it_is(
    capsys, tmp_path, inputs, monkeypatch, status, code
):
    monkeypatch.chdir(tmp_path)
    launch = launched(monkeypatch, status)
    assert cli.main(["train", "quickstart", *inputs, "steps=5"]) == code
    assert launch.cfg.steps == 5
    assert capsys.readouterr().out.splitlines()[-1] == "Run folder: runs/quickstart-001"
    written = {path.name for path in (tmp_path / "runs" / "quickstart-001").iterdir()}
    assert written >= {"config.yaml", "environment.json", "metrics.jsonl", "events.jsonl", "summary.json"}


def test_errors_that_end_a_run_are_one_line_with_their_own_exit_code(capsys, tmp_path, inputs, monkeypatch):
    from rlvr.config import RunError

    monkeypatch.chdir(tmp_path)
    for error, code, line in (
        (RunError("no verdicts"), 1, "rlvr: no verdicts\n"),
        (KeyboardInterrupt(), 130, "rlvr: interrupted\n"),
    ):
        launched(monkeypatch, error)
        assert cli.main(["train", "quickstart", *inputs]) == code
        assert capsys.readouterr().err == line


def test_a_disk_that_fills_up_in_mid_run_is_no_bad_input_and_another_error_keeps_its_traceback(
    capsys, tmp_path, inputs, monkeypatch
):
    from rlvr.observe.files import RunFolderError

    monkeypatch.chdir(tmp_path)
    launched(monkeypatch, RunFolderError("no space left on device"))
    assert cli.main(["train", "quickstart", *inputs]) == 1
    assert capsys.readouterr().err == "rlvr: no space left on device\n"
    launched(monkeypatch, PermissionError(13, "Permission denied", "somewhere"))
    with pytest.raises(RuntimeError, match="PermissionError"):
        cli.main(["train", "quickstart", *inputs])


@pytest.mark.parametrize(
    "words",
    [
        ["report", "{}"], ["checkpoints", "{}"], ["rescore", "{}"], ["resume", "{}"], ["rollback", "{}", "--to", "1"],
        ["train", "{}.yaml"], ["verifiers", "run", "math", "{}"], ["sentinel", "replay", "{}"],
        ["sentinel", "replay", "x", "--sentinel", "{}.yaml"], ["data", "check", "{}.jsonl", "--verifier", "math"],
        ["plan", "quickstart", "--model-config", "{}"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_the_operating_system_refuses_is_one_line_that_names_the_file(capsys, words):
    line = refusal(capsys, *(word.format("a" * 300) for word in words))
    assert "aaa" in line and "File name too long" in line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"name: \xe9\n", "not UTF-8"), (b"", "empty, and no recipe"), (b"- 1\n", "a list, and no recipe"),
        (b"a: 1\n\tb: 1\n", "found character '\\t' that cannot start any token"),
    ],
)  # fmt: skip
def test_a_config_that_no_run_wrote_is_named(capsys, tmp_path, text, said):
    config = tmp_path / "config.yaml"
    config.write_bytes(text)
    for words in (["resume"], ["rescore"], ["train", "quickstart", "--resume"]):
        place = f"run.folder={tmp_path}" if "train" in words else str(tmp_path)
        line = refusal(capsys, *words, place)
        assert str(config) in line and said in line


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


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0 and capsys.readouterr().out.startswith("rlvr ")


COMMAND = [sys.executable, "-m", "rlvr.cli"]


def test_a_reader_that_has_seen_enough_ends_a_command_in_silence():
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run([*COMMAND, "verifiers", "list"], stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (1, b"")


def test_an_output_that_cannot_be_written_is_one_line():
    with open("/dev/full", "w") as full:
        ended = subprocess.run([*COMMAND, "verifiers", "list"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert (ended.returncode, ended.stderr) == (2, b"rlvr: No space left on device\n")


def test_a_run_folder_that_holds_a_run_is_refused(capsys, run_folder, inputs):
    line = refusal_after_plan(capsys, "train", "quickstart", *inputs, f"run.folder={run_folder}")
    assert "already holds a run (config.yaml): continue it with `rlvr resume" in line


def refusal_after_plan(capsys, *argv: str) -> str:
    assert cli.main(list(argv)) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err


def test_a_resume_takes_new_values_and_remembers_them(capsys, run_folder, monkeypatch):
    launch = launched(monkeypatch, "finished")
    assert cli.main(["resume", str(run_folder), "steps=99"]) == 0
    assert (launch.cfg.steps, launch.folder.path) == (99, run_folder)
    assert "steps: 99" in (run_folder / "config.yaml").read_text()
    assert capsys.readouterr().out.splitlines()[-1] == f"Run folder: {run_folder}"


def test_a_resume_with_other_prompts_is_refused_unless_they_are_named(capsys, tmp_path, inputs, monkeypatch):
    from rlvr.config import RunError

    launch = launched(monkeypatch, "finished")
    run, data = tmp_path / "run", tmp_path / "train.jsonl"
    command = ["train", "quickstart", *inputs, f"run.folder={run}", "--resume"]
    assert cli.main(command) == 0
    assert cli.main(["resume", str(run), "steps=99"]) == 0
    assert cli.main([*command, "steps=99"]) == 0
    rows = data.read_text()
    data.write_text(rows.replace('"answer": "2"', '"answer": "1"', 1))
    asked = ["resume", str(run), f"data.train={data}"]
    for words in (asked[:2], [*command, "steps=99"]):
        capsys.readouterr()
        said = refusal(capsys, *words)
        assert said.startswith(f"data.train={data}: the run in {run} began with other prompts: this data has changed")
        assert said.endswith(f"`rlvr {' '.join(asked)}`")
    known = (run / "prompts.json").read_text()
    with monkeypatch.context() as patched:
        launched(patched, RunError("no verdicts"))
        assert cli.main(asked) == 1
    assert (run / "prompts.json").read_text() == known  # nothing was trained on them
    assert cli.main(asked) == 0
    assert cli.main(asked[:2]) == 0
    assert launch.inputs.train[0].answer == "1"


def test_a_template_that_asks_for_the_date_is_told_the_day_of_the_beginning(tmp_path, inputs, monkeypatch):
    launch = launched(monkeypatch, "finished")
    (tmp_path / "own.jinja").write_text("{{ strftime_now('%d')[1] }} {{ messages[-1]['content'] }}")
    run = tmp_path / "run"
    template = f"model.chat_template={tmp_path / 'own.jinja'}"
    before = date.today()
    assert cli.main(["train", "quickstart", *inputs, template, f"run.folder={run}"]) == 0
    began = json.loads((run / "prompts.json").read_text())
    assert before.isoformat() <= began["day"] <= date.today().isoformat()
    (run / "prompts.json").write_text(json.dumps(began | {"day": "2024-01-02"}))
    assert cli.main(["resume", str(run), "data.split=train"]) == 0
    assert launch.inputs.train[0].token_ids[0] == WORDS.index("2")
    assert cli.main(["resume", str(run)]) == 0  # whatever day it is


@pytest.mark.parametrize(
    ("override", "told"), [("steps=99", 0), ("sentinel.max_rollbacks=3", 0), ("rollout.temperature=0.7", 1)]
)
def test_a_resume_says_when_the_sentinel_can_no_longer_compare(run_folder, monkeypatch, override, told):
    launch = launched(monkeypatch, "finished")
    assert cli.main(["resume", str(run_folder), override]) == 0
    assert launch.inputs.notes == (
        "rollout.temperature changed: the sentinel compares with no step before, whose numbers meant another",
    )[:told]


def test_what_a_run_cannot_go_on_with_does_not_become_its_recipe(capsys, run_folder, monkeypatch):
    from rlvr.config import RunError

    before = (run_folder / "config.yaml").read_text()
    (run_folder / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n')

    def launch(cfg, objective, inputs, folder, display):
        folder.undo_after(1, "begin")  # its newest checkpoint is older than its last step
        raise RunError("other weights")

    monkeypatch.setattr("rlvr.run.launch", launch)
    assert cli.main(["resume", str(run_folder), "trainer.lora.rank=8"]) == 1
    assert (run_folder / "config.yaml").read_text() == before


def test_what_went_on_for_a_step_keeps_what_it_was_told(run_folder, monkeypatch):
    from rlvr.config import RunError

    (run_folder / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n')

    def launch(cfg, objective, inputs, folder, display):
        folder.undo_after(1, "begin")
        folder.log(2, {"reward/mean": 0.5})  # as far as before
        raise RunError("the node went away")

    monkeypatch.setattr("rlvr.run.launch", launch)
    assert cli.main(["resume", str(run_folder), "steps=99"]) == 1
    assert "steps: 99" in (run_folder / "config.yaml").read_text()


def test_a_start_that_the_disk_has_no_room_for_can_be_tried_again(tmp_path, inputs, monkeypatch):
    from rlvr.observe.runfolder import RunFolder, RunFolderError

    def full(self, text):
        raise RunFolderError("no space left on device")

    launched(monkeypatch, "finished")
    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "write_config", full)
        assert cli.main(["train", "quickstart", *inputs, f"run.folder={tmp_path / 'run'}"]) == 2
    assert cli.main(["train", "quickstart", *inputs, f"run.folder={tmp_path / 'run'}"]) == 0


def test_a_command_that_is_started_again_goes_on_with_its_own_run_and_no_other(own, tmp_path, capsys, monkeypatch):
    def again(*words: str) -> bool:
        composed = compose_recipe("mine", words, str(own))
        return cli.begun(composed, typed(composed)[0])

    assert cli.main(["train", "mine", "--config-dir", str(own), "--resume"]) == 2
    assert "--resume needs run.folder" in capsys.readouterr().err
    run = tmp_path / "run"
    here = f"run.folder={run}"
    assert not again(here)
    run.mkdir()
    (run / "config.yaml").write_text(to_yaml(compose_recipe("mine", [here], str(own))))
    assert again(here)
    assert again(here, "cluster.kind=ray", "cluster.address=10.0.0.9:6379")  # a requeued job may be somewhere else
    monkeypatch.chdir(tmp_path)
    assert again("run.folder=run")
    assert cli.main(["train", "mine", "--config-dir", str(own), "--resume", here, "steps=4", "trainer.ranks=2"]) == 2
    assert f"the run in {run} was begun with another steps, trainer;" in capsys.readouterr().err


def test_a_config_that_holds_a_broken_interpolation_is_refused_in_one_line():
    """As runs wrote it before texts with `${` were escaped."""
    with pytest.raises(RecipeError, match=r"config\.yaml: .*"):
        saved_recipe("rollout: {stop: ['${']}")
