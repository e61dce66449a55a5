"""A wrong word costs one line and exit code 2, before anything is loaded, written or started."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from rlvr import cli
from rlvr.compose import compose_recipe
from tests.cli.conftest import ALGORITHMS, refusal
from tests.data.tokenizers import WORDS

FOLDER = "names a folder, so it is not empty, has only printable characters, no / and no dot in front"


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
            "algorithm=[1]: one value, please; `rlvr sweep` takes several, a list is algorithm=[...], and a text with "
            "such characters goes into quotes, inside of the shell's: 'algorithm=\"...\"'",
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
            "data.system=Be helpful, honest: one value, please; `rlvr sweep` takes several, a list is "
            "data.system=[...], and a text with such characters goes into quotes, inside of the shell's: "
            "'data.system=\"...\"'",
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
        ("model=tiny", "model=tiny: this recipe chooses no file of model/; +model=tiny adds one"),
        (
            "+model=tyny",
            "no model 'tyny'; did you mean tiny?; there are: qwen3_0.6b, qwen3_1.7b, qwen3_32b, qwen3_4b, qwen3_8b, "
            "tiny, tiny_code",
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
        ("rollout.max_tokens=0", "rollout.max_tokens=0: at least 1"),
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
    tiny = Path(__file__).parents[2] / "recipes" / "tiny"
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


def test_an_unknown_option_is_refused(capsys):
    with pytest.raises(SystemExit) as refused:
        cli.main(["train", "quickstart", "--dry-rum", "steps=1"])
    assert refused.value.code == 2
    assert "unrecognized arguments: --dry-rum" in capsys.readouterr().err


def test_quotes_let_any_text_into_a_value():
    composed = compose_recipe("quickstart", [r'data.system="Answer in \boxed{}, please (once)."'])
    assert composed.data.system == r"Answer in \boxed{}, please (once)."


def test_a_verifier_that_is_not_there_is_one_line(capsys):
    line = refusal(capsys, "train", "quickstart", "reward.parts.math.verifier=maths")
    assert line.startswith("reward.parts.math: ") and "maths" in line


def test_data_that_is_not_there_or_overlaps_is_one_line(capsys, tmp_path, inputs):
    line = refusal(capsys, "train", "quickstart", *inputs, "data.train=nothing.jsonl")
    assert line.startswith("data.train=nothing.jsonl: no such file")
    line = refusal(capsys, "train", "quickstart", *inputs, f"data.heldout={tmp_path / 'train.jsonl'}")
    assert "3 of 3 prompts of data.heldout are in data.train too" in line
