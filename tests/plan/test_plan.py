"""The plan's arithmetic: golden sizes by hand, properties over many settings, and runs that others have published."""

import json
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr.cli import main
from rlvr.compose import compose_recipe, recipes_folder, typed
from rlvr.config import Recipe, RecipeError
from rlvr.plan import memory
from rlvr.plan.devices import DEVICES, GIB, find
from rlvr.plan.model import PUBLISHED, from_config, read
from rlvr.plan.report import fits, rank_bytes, report
from rlvr.plan.setting import Setting
from rlvr.plan.time import decode, decoding_step, shared, times, train
from rlvr.plan.work import work

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "recipes" / "tiny"
CALCULATOR = "rollout.tool.name=rlvr_verifiers.calculator:calculator"


@cache
def quickstart(algorithm: str) -> Recipe:
    return typed(compose_recipe("quickstart", [f"algorithm={algorithm}"]))[0]


def setting(
    model: str = "Qwen3-8B", gpu: str = "h100", tokens: float = 1000, algorithm: str = "stable", **overrides: object
) -> Setting:
    """`trainer__ranks=8` means trainer.ranks=8."""
    cfg = deepcopy(quickstart(algorithm))
    for key, value in ({"rollout__max_tokens": 2048, "model__max_context": 4096} | overrides).items():
        *path, last = key.split("__")
        part = cfg
        for name in path:
            part = getattr(part, name)
        assert hasattr(part, last)
        setattr(part, last, value)
    made = Setting(cfg, find(gpu), PUBLISHED[model], 0, 200, tokens)
    return replace(made, count=made.needed)


def test_qwen3_8b_is_counted_to_the_last_parameter():
    # a layer: q, o 2*4096*4096 + k, v 2*4096*1024 + gate, up, down 3*4096*12288 + norms 2*4096 + 2*128 = 192,946,432
    # 36 layers 6,946,071,552 + embedding and head 2*151936*4096 = 1,244,659,712 + last norm 4096
    assert PUBLISHED["Qwen3-8B"].layer_parameters == 192_946_432
    assert PUBLISHED["Qwen3-8B"].parameters == 6_946_071_552 + 1_244_659_712 + 4096 == 8_190_735_360
    assert PUBLISHED["Qwen3-8B"].cache_bytes(2) == 2 * 36 * 8 * 128 * 2 == 147_456
    # two for each weight of the matrices and the head, none for the embedding
    assert PUBLISHED["Qwen3-8B"].flops(0) == 2 * (36 * 192_937_984 + 151_936 * 4096)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("Qwen3-0.6B", 596_049_920), ("Qwen3-32B", 32_762_123_264), ("Llama-3.1-8B", 8_030_261_248)],
)
def test_published_sizes_are_those_of_the_hub(name, parameters):
    assert read(f"somebody/{name}").parameters == parameters


def test_the_tiny_model_is_counted_as_transformers_counts_it():
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        lm = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(TINY))
    assert read(str(TINY)).parameters == lm.num_parameters()


@pytest.mark.parametrize(
    ("family", "biases"),
    [("qwen2", {}), ("qwen3", {}), ("llama", {}), ("mistral", {}), ("qwen3", {"attention_bias": True}),
     ("llama", {"attention_bias": True, "mlp_bias": True})],
)  # fmt: skip
def test_every_family_is_counted_as_transformers_counts_it(family, biases):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = AutoConfig.for_model(family, **sizes, num_key_value_heads=2, head_dim=16, vocab_size=100, **biases)
    with torch.device("meta"):
        lm = AutoModelForCausalLM.from_config(config)
    assert from_config(config.to_dict()).parameters == lm.num_parameters()


def test_a_model_that_is_not_dense_is_refused():
    with pytest.raises(RecipeError, match="model_type=qwen3_moe"):
        from_config({"model_type": "qwen3_moe"})


def test_zero_3_on_8_ranks_holds_an_eighth_of_the_state():
    items = memory.trainer(setting(trainer__ranks=8, trainer__zero_stage=3))
    assert items["weights"] == 8_190_735_360 * 2 / 8
    assert items["optimizer"] == 8_190_735_360 * 12 / 8  # float32 weights and two moments
    assert items["gradients"] == 8_190_735_360 * 4 / 8
    assert items["gathered"] == 2e9


RANKS = st.sampled_from([1, 2, 4, 8, 16, 64])
MODELS = st.sampled_from(sorted(PUBLISHED))


@given(MODELS, RANKS, st.sampled_from([1, 2, 3]))
@settings(max_examples=25, deadline=None)
def test_more_ranks_never_need_more_memory_each(model, ranks, stage):
    one = setting(model, trainer__ranks=ranks, trainer__zero_stage=stage)
    more = setting(model, trainer__ranks=2 * ranks, trainer__zero_stage=stage)
    assert rank_bytes(more) < rank_bytes(one)


@given(MODELS, RANKS, st.sampled_from([0, 1, 2, 3]))
@settings(max_examples=25, deadline=None)
def test_what_saves_memory_saves_memory(model, ranks, stage):
    base = setting(model, trainer__ranks=ranks, trainer__zero_stage=stage)
    for key, value in (
        ("trainer__gradient_checkpointing", True),
        ("trainer__micro_batch_tokens", 4096),
        ("trainer__logprob_chunk_tokens", 256),
        ("trainer__lora__rank", 16),
    ):
        smaller = setting(model, trainer__ranks=ranks, trainer__zero_stage=stage, **{key: value})
        assert rank_bytes(smaller) < rank_bytes(base), key
    if stage:
        offloaded = setting(model, trainer__ranks=ranks, trainer__zero_stage=stage, trainer__offload_optimizer="cpu")
        assert "optimizer" not in memory.trainer(offloaded) and memory.host(offloaded) > 0
        assert train(offloaded) > train(base)


@given(MODELS, RANKS)
@settings(max_examples=20, deadline=None)
def test_more_devices_are_never_slower(model, workers):
    one = setting(model, rollout__workers=workers, trainer__ranks=8, trainer__zero_stage=1)
    more = setting(model, rollout__workers=2 * workers, trainer__ranks=8, trainer__zero_stage=1)
    assert times(more).rollout <= times(one).rollout
    assert times(one).step == pytest.approx(times(one).rollout + times(one).train + times(one).publish)


def test_what_is_offloaded_is_shared_among_ranks_in_host_memory():
    shape = {"trainer__ranks": 8, "trainer__zero_stage": 3, "trainer__offload_optimizer": "cpu"}
    one = setting(**shape, algorithm="grpo", trainer__offload_parameters="cpu")
    assert memory.host(one) == pytest.approx(8_190_735_360 * (12 + 2) / 8)
    whole = shape | {"trainer__zero_stage": 2}
    assert memory.host(setting(**whole, algorithm="grpo")) == pytest.approx(8_190_735_360 * 12 / 8)


def test_ranks_send_one_another_what_each_of_them_lacks():
    """ZeRO-1 on two H100s: a rank sends half of the gradients and half of the weights, in each update."""
    one = setting(trainer__ranks=2, trainer__zero_stage=1)
    rate = one.device.link * one.device.link_efficiency
    assert shared(one, 7) == pytest.approx((2 + 2) * 8_190_735_360 / 2 / rate)
    assert shared(setting(trainer__ranks=2, trainer__zero_stage=1, trainer__epochs=3), 7) == 3 * shared(one, 7)
    updates = {"trainer__epochs": 3, "trainer__mini_batches": 2}
    assert shared(setting(trainer__ranks=2, trainer__zero_stage=1, **updates), 7) == 6 * shared(one, 7)
    alone = setting(trainer__ranks=1, trainer__zero_stage=1)
    assert shared(alone, 7) == 0.0
    gathered = shared(setting(trainer__ranks=8, trainer__zero_stage=3), 7)  # twice a micro-batch, and 7 reductions
    assert gathered == pytest.approx((2 * 7 + 7) * 2 * 8_190_735_360 * 7 / 8 / rate)


@given(st.floats(10, 2000), st.sampled_from([64, 512, 2048]))
@settings(max_examples=30, deadline=None)
def test_lengths_have_the_mean_that_was_asked_for_and_stay_below_the_limit(mean, limit):
    lengths = setting(tokens=min(mean, 0.9 * limit), rollout__max_tokens=limit).lengths()
    assert sum(lengths) / len(lengths) == pytest.approx(min(mean, 0.9 * limit), rel=1e-3)
    assert lengths == sorted(lengths) and lengths[-1] <= limit


def test_decoding_is_bound_by_what_must_be_read():
    one = setting(tokens=1000)
    # weights without the embedding: 7,568,405,504 * 2 bytes at 0.75 * 3.35 TB/s = 6.025 ms, + 2 ms + 20 us a sequence
    expected = 7_568_405_504 * 2 / (0.75 * 3.35e12) + 0.002 + 20e-6
    assert decoding_step(one, 1, 0) == pytest.approx(expected, rel=1e-3)
    # with little in flight, twice the completions take hardly longer; with all slots taken, twice as long
    assert decode(one, 16) < 1.3 * decode(one, 8)
    many = setting(tokens=1000, rollout__max_sequences=64)
    assert decode(many, 64 * 40) == pytest.approx(2 * decode(many, 64 * 20), rel=0.1)


def test_the_advice_makes_it_fit(capsys):
    # an 8B model on 8 ranks with everything at its default does not fit an 80 GB device
    arguments = ["model.path=Qwen/Qwen3-8B", "trainer.ranks=8", "rollout.workers=8"]
    context = ["model.max_context=4096", "rollout.max_tokens=2048"]
    assert main(["plan", "quickstart", *arguments, *context, "--gpu", "h100"]) == 3
    said = capsys.readouterr().out
    assert "DOES NOT FIT: a trainer rank needs" in said
    advised = [word for word in said.split() if word.startswith("trainer.") and "=" in word]
    assert "trainer.zero_stage=3" in advised
    assert main(["plan", "quickstart", *arguments, *context, *advised, "--gpu", "h100"]) == 0
    assert "  fits" in capsys.readouterr().out


def test_too_few_devices_and_no_room_for_a_cache_are_said():
    too_few = report(replace(setting(trainer__ranks=4, trainer__zero_stage=3), count=3))
    assert "uses 5 devices (1 for engines, 4 for the trainer), more than --count 3" in too_few.problems[0]
    crowded = report(setting("Qwen3-32B", "a100_40gb", trainer__ranks=64, trainer__zero_stage=3))
    assert any("rollout.tensor_parallel" in problem for problem in crowded.problems)


def test_adapters_alone_need_little_more_than_the_weights():
    lora = setting(trainer__lora__rank=32, trainer__gradient_checkpointing=True, trainer__micro_batch_tokens=4096)
    items = memory.trainer(lora)
    assert items["optimizer"] + items["gradients"] < 0.1 * items["weights"]
    assert fits(lora)


@pytest.mark.parametrize(
    ("coefficient", "reference", "rank", "loaded", "asked"),
    [
        (0.001, None, 0, True, True), (0.0, None, 0, False, False), (0.0, "another", 16, False, False),
        ({"math": 0.0, "chat": 0.1}, None, 0, True, True), ({"math": 0.0}, "another", 0, False, False),
        (0.001, None, 16, False, True), (0.001, "another", 16, True, True),
    ],
)  # fmt: skip
def test_a_reference_counts_where_one_is_loaded(coefficient, reference, rank, loaded, asked):
    with_kl = setting(algorithm="grpo", trainer__lora__rank=rank)
    with_kl.cfg.algorithm["kl"] |= {"coefficient": coefficient, "reference": reference}
    without = setting(algorithm="dapo", trainer__lora__rank=rank)
    without.cfg.algorithm = with_kl.cfg.algorithm | {"kl": None}
    weights = memory.trainer(without)["weights"]
    assert rank_bytes(with_kl) - rank_bytes(without) == weights * loaded
    assert (train(with_kl) > train(without)) == asked


@pytest.mark.parametrize(
    ("place", "coefficient", "mini_batches", "passes"),
    [("loss", 0.1, 1, 4), ("reward", 0.1, 1, 5), ("reward", 0.0, 1, 3), ("loss", 0.1, 2, 5), ("reward", 0.1, 2, 5)],
)
def test_a_kl_penalty_in_the_reward_costs_the_old_logprobs_too(place, coefficient, mini_batches, passes):
    one = setting(algorithm="grpo", trainer__zero_stage=1, trainer__mini_batches=mini_batches)
    one.cfg.algorithm["kl"] |= {"place": place, "coefficient": coefficient}
    without = setting(algorithm="dapo", trainer__zero_stage=1)
    without.cfg.algorithm = one.cfg.algorithm | {"kl": None}
    without.cfg.trainer.mini_batches = mini_batches
    bare = 3 + (mini_batches > 1)
    counted = work(one)
    forward = one.model.forward(counted.tokens, counted.attended) / (one.device.flops * one.device.train_efficiency)
    a_pass = forward + counted.micro_batches * one.device.compiled_pass_s / 3
    assert train(one) - train(without) == pytest.approx((passes - bare) * a_pass)


def test_a_program_can_read_the_plan(capsys):
    words = ["model.path=Qwen/Qwen3-0.6B", "trainer.gradient_checkpointing=true"]
    assert main(["plan", "quickstart", *words, "--gpu", "h100", "--price", "2", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["parameters"] == 596_049_920
    seconds = said["seconds"]["step"]
    assert said["gpu_hours"] == pytest.approx(2 * 50 * seconds / 3600)
    assert said["cost_usd"] == pytest.approx(2 * said["gpu_hours"])


def test_weights_that_stay_on_their_gpu_are_published_as_fast_as_they_can_be_lent():
    shape = {"trainer__ranks": 8, "rollout__workers": 8, "cluster__placement": "colocated"}
    one = setting(trainer__zero_stage=1, **shape)
    seconds = one.model.parameters * one.train_bytes / 13e9
    assert times(one).publish == pytest.approx(seconds + one.device.transfer_s)
    assert times(setting(trainer__zero_stage=3, **shape)).publish > times(one).publish  # gathered first
    apart = shape | {"cluster__placement": "disaggregated"}
    assert times(setting(trainer__zero_stage=1, **apart)).publish > 2 * seconds  # through host memory


def test_what_is_compiled_costs_less_a_pass():
    shape = {"trainer__ranks": 8, "trainer__zero_stage": 1, "trainer__micro_batch_tokens": 8192}
    eager, compiled = (setting(trainer__compile=choice, **shape) for choice in (False, True))
    assert times(setting(**shape)).train == times(compiled).train  # on a GPU that is the default
    sharded = shape | {"trainer__zero_stage": 3}
    assert times(setting(**sharded)).train == times(setting(**sharded, trainer__compile=False)).train
    # a rank has 16 completions of about 1,200 tokens, so three passes of 8,192
    assert times(eager).train - times(compiled).train == pytest.approx(3 * (0.12 - 0.025))


@pytest.mark.parametrize("turn", [0, 1])
def test_steps_of_a_trainer_on_an_h200_are_met_within_a_fifth(turn):
    """The even workload of scripts/bench/gpu.py: 64 completions of 896 tokens behind prompts of 128."""
    runs = json.loads((ROOT / "docs" / "measured" / "gpu.json").read_text())["runs"]
    run = next(r for r in runs if (r["side"], r["workload"], r["turn"]) == ("rlvr", "even", turn))
    shape = {"trainer__ranks": 1, "rollout__groups_per_step": 8, "rollout__group_size": 8, "trainer__zero_stage": 1}
    planned = replace(setting("Qwen3-0.6B", "h200", 896, **shape), prompt_tokens=128)
    assert run["tokens"] == 64 * 1024
    assert median(run["seconds"]) == pytest.approx(times(planned).train, rel=0.2)
    held = sum(memory.trainer(planned).values()) / 1e9
    others = 2 * 2 * planned.model.parameters / 1e9 + 2 * planned.model.parameters / 1e9  # the plain side's, beside it
    assert held == pytest.approx(run["peak_gb"] - others, rel=0.2)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--gpu", "h1000"], "--gpu h1000: one of"),
        (["--tokens", "65"], "--tokens 65 > rollout.max_tokens=64"),
        (["--count", "0"], "--count 0: must be above 0"),
        *(
            ([f"--{name}", value], f"--{name} {float(value)}: must be above 0, and finite")
            for name in ("tokens", "prompt-tokens", "sampled", "trained")
            for value in ("inf", "nan", "0")
        ),
        ([CALCULATOR, "--answer-tokens", "0"], "--answer-tokens 0.0: must be above 0, and finite"),
        *(
            ([CALCULATOR, f"--{name}={value}"], f"--{name} {float(value)}: must be at least 0, and finite")
            for name in ("verify-s", "price", "calls", "tool-s")
            for value in ("inf", "nan", "-1")
        ),
        (["--prompt-tokens", "193"], "--prompt-tokens 193 > 192 = model.max_context - rollout.max_tokens"),
        (["model.path=no/Such-7B"], "--model-config"),
        (["--gpu", "no.json"], "no.json"),
        (["--calls", "2"], "--calls 2: the recipe has no rollout.tool.name"),
        (["--tool-s", "0.5"], "--tool-s 0.5: the recipe has no rollout.tool.name"),
        ([CALCULATOR, "--calls", "5"], "--calls 5 > rollout.tool.max_calls=4"),
        (
            [CALCULATOR, "--calls", "4", "--answer-tokens", "9"],
            "--answer-tokens 9 > 8: with --tokens 32, --calls 4 of them must fit into rollout.max_tokens=64",
        ),
    ],
)
def test_what_cannot_be_planned_is_said_in_a_line(words, complaint, capsys):
    assert main(["plan", "quickstart", *words]) == 2
    assert complaint in capsys.readouterr().err


def test_prompts_are_assumed_no_longer_than_there_is_room_for(capsys):
    said = []
    for words in ([], ["--prompt-tokens", "192"], ["model.max_context=300"], ["--prompt-tokens", "200"]):
        context = ["model.max_context=300"] if words == ["--prompt-tokens", "200"] else []
        assert main(["plan", "quickstart", "--gpu", "h100", "--json", *words, *context]) == 0
        said.append(json.loads(capsys.readouterr().out))
    assert said[0] == said[1] and said[2] == said[3]


NEMO = json.loads((ROOT / "docs" / "measured" / "nemo.json").read_text())["runs"]


@pytest.mark.parametrize("run", NEMO, ids=lambda run: run["model"])
def test_published_steps_of_another_framework_are_met_within_a_third(run):
    model, gpus, length, tp, measured = (run[key] for key in ("model", "gpus", "tokens", "tensor_parallel", "step_s"))
    shared = setting(
        model, tokens=length - 200, algorithm="grpo",
        rollout__groups_per_step=64, rollout__group_size=32, rollout__max_tokens=4096, model__max_context=4400,
        rollout__workers=gpus // tp, rollout__tensor_parallel=tp, rollout__max_sequences=256,
        trainer__ranks=gpus, trainer__zero_stage=1, trainer__mini_batches=4, trainer__gradient_checkpointing=True,
    )  # fmt: skip
    assert measured / 1.35 < times(shared).step < measured * 1.35


@pytest.mark.parametrize(("share", "times_read"), [(None, 1), (True, 1), (False, 8)])
def test_a_shared_prompt_is_read_once_for_its_group(share, times_read):
    asked = {"rollout__group_size": 8, "rollout__groups_per_step": 64}
    once = times(setting("Llama-3.1-8B", **asked, rollout__share_prompts=True)).prefill
    found = times(setting("Llama-3.1-8B", **asked, rollout__share_prompts=share)).prefill
    assert found == pytest.approx(times_read * once)


def test_every_device_has_its_figures():
    for device in DEVICES.values():
        assert 20 < device.memory_gib < 200 and device.memory_gib * GIB % 1e9 == pytest.approx(0, abs=1)
        assert 100 < device.flops / device.bandwidth < 500  # FLOPs for a byte: of this order for all of them
        assert device.price > 0


GOOD_DEVICE = {"name": "mine", "memory_gib": 8, "flops": 1e12, "bandwidth": 1e11, "link": 1e9, "host": 1e9,
               "network": 1e9, "price": 0}  # fmt: skip


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ([1], "a list, not an object"), ("h100", "a str, not an object"), ({"flops": "fast"}, "flops='fast': a finite"),
        (GOOD_DEVICE | {"flops": 0}, "flops=0: must be above 0"), (GOOD_DEVICE | {"node": 0}, "node=0: must be above"),
        (GOOD_DEVICE | {"link": float("nan")}, "link=nan: a finite number"), ({}, "missing"), (GOOD_DEVICE, None),
    ],
)  # fmt: skip
def test_a_file_that_is_no_device_is_refused(tmp_path, capsys, said, complaint):
    path = tmp_path / "device.json"
    path.write_text(json.dumps(said))
    code = main(["plan", "quickstart", "--gpu", str(path)])
    assert (code == 2 and complaint in capsys.readouterr().err) if complaint else code in (0, 3)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (None, "a list, not an object"), ({"num_attention_heads": 0}, "num_attention_heads=0: a whole number"),
        ({"hidden_size": "x"}, "hidden_size='x': a whole number"), ({"num_key_value_heads": None}, None),
    ],
)  # fmt: skip
def test_a_config_that_is_no_models_is_refused(tmp_path, capsys, change, complaint):
    config = json.loads((recipes_folder() / "tiny" / "config.json").read_text())
    path = tmp_path / "config.json"
    path.write_text(json.dumps([] if change is None else config | change))
    code = main(["plan", "quickstart", "--model-config", str(path)])
    assert (code == 2 and complaint in capsys.readouterr().err) if complaint else code in (0, 3)


def seconds(capsys, *words: str) -> dict:
    """Of a step of the quickstart, as the command line plans it."""
    assert main(["plan", "quickstart", "--gpu", "h100", "--json", *words]) in (0, 3)
    return json.loads(capsys.readouterr().out)["seconds"]


def test_what_is_sampled_trained_on_and_verified_for_a_step_takes_its_time(capsys):
    usual = seconds(capsys)
    more, fewer, slow = (seconds(capsys, *w) for w in (["--sampled", "3"], ["--trained", "0.25"], ["--verify-s", "5"]))
    assert more["rollout"] > usual["rollout"] and more["train"] == usual["train"]
    assert fewer["train"] < usual["train"] and fewer["rollout"] == usual["rollout"]
    assert slow["step"] > usual["step"] + 4
