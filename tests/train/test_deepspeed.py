"""The real trainer on a tiny model, one rank: what happens between a batch and its optimizer steps."""

import gc
import json
import math
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoTokenizer, Gemma3ForCausalLM, Gemma3TextConfig

from rlvr.collate import collate
from rlvr.config import ModelConfig, RecipeError, TrainerConfig
from rlvr.data.prompts import Renderer
from rlvr.objective import Batch, Objective, advantages, kl, ratios, surrogates, weightings
from rlvr.trainer_config import LoraConfig
from tests.builders import completion, group, prompt
from tests.train.conftest import VOCABULARY

pytest.importorskip("deepspeed")
TINY = Path(__file__).resolve().parents[2] / "recipes" / "tiny"
GRPO = Objective(
    advantages.standardize, ratios.token, partial(surrogates.clip, low=0.2, high=0.2), weightings.sequence_mean
)
LEASHED = replace(GRPO, kl=kl.KL(kl.k3, 0.5))
IN_REWARD = replace(GRPO, kl=kl.KL(kl.k1, 0.5, place="reward"))
CENTRED = replace(IN_REWARD, advantage=advantages.center)


def batch(objective: Objective = GRPO, seed: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(seed)

    def tokens(count: int) -> list[int]:
        return torch.randint(1, VOCABULARY, (count,), generator=generator).tolist()

    groups = [
        group([1.0, 0.0, 0.5, 0.0], [completion(tokens(n)) for n in (5, 9, 1, 3)], prompt(0, tokens(3))),
        group([0.0, 1.0, 1.0, 0.0], [completion(tokens(n)) for n in (4, 2, 7, 6)], prompt(1, tokens(1))),
    ]
    return collate(groups, objective, {"math": 1.0})


@pytest.mark.parametrize("zero_stage", [0, 2, 3])
def test_a_bfloat16_model_learns_as_a_float32_one_does(build, zero_stage):
    exact, half = build(), build(dtype="bfloat16", zero_stage=zero_stage)
    for _ in range(3):
        wanted, got = exact.step(batch(), GRPO, 1e-3), half.step(batch(), GRPO, 1e-3)
    assert got["policy/grad_norm"] == pytest.approx(wanted["policy/grad_norm"], rel=0.1)
    assert got["policy/entropy"] == pytest.approx(wanted["policy/entropy"], rel=0.02)
    before = half.score([1, 2, 3, 4])
    nowhere = replace(batch(), advantages_B1=batch().advantages_B1 * torch.nan)
    assert half.step(nowhere, GRPO, 1e-3)["policy/skipped"] == 1.0 and half.score([1, 2, 3, 4]) == before


LONG = torch.randint(1, VOCABULARY, (1500,), generator=torch.Generator().manual_seed(5)).tolist()


def gemma(folder) -> str:
    """With two kinds of rotary frequencies, and a factor of the embedding beside its weights."""
    config = Gemma3TextConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, query_pre_attn_scalar=8, bos_token_id=None, eos_token_id=None,
        pad_token_id=None, layer_types=["sliding_attention", "full_attention"], initializer_range=0.4,
    )  # fmt: skip
    Gemma3ForCausalLM(config).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("model", ["qwen", "gemma"])
def test_zero_3_has_the_frequencies_that_any_other_stage_and_the_engines_have(build, model_folder, tmp_path, model):
    """Built for ZeRO-3 a model gets them in bfloat16, which shows at positions that no probe reaches."""
    path = model_folder if model == "qwen" else gemma(tmp_path)
    gc.collect()  # while a ZeRO-3 trainer lives on, transformers loads every model in shards
    whole, sharded = (build(dtype="bfloat16", path=path, zero_stage=stage) for stage in (1, 3))
    sharded.step(batch(LEASHED), LEASHED, 1e-9)
    wanted = dict(whole.engine.module.named_buffers())
    assert {buffer.dtype for name, buffer in wanted.items() if "inv_freq" in name} == {torch.float32}
    for trained in (sharded.engine, sharded._reference):
        assert_close(dict(trained.module.named_buffers()), wanted, atol=0, rtol=0)
    assert sharded.score(LONG) == pytest.approx(whole.score(LONG), abs=0.05)


def weights(trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.engine.module.parameters()])


def test_old_logprobs_of_several_steps_are_those_before_the_first(build):
    trainer = build(epochs=2)
    before = trainer._logprobs(trainer.engine, batch())
    assert_close(trainer._prepared(batch(), GRPO).old_logprobs_BT, before)
    metrics = trainer.step(batch(), GRPO, 1e-2)
    assert metrics["policy/ratio_mean"] != pytest.approx(1.0, abs=1e-4)  # the second pass is off-policy
    assert metrics["tokens/trained"] == 2 * float(batch().mask_BT.sum())
    assert not torch.equal(trainer._logprobs(trainer.engine, batch()), before)


def test_one_step_needs_no_old_logprobs(build):
    assert build()._prepared(batch(), GRPO).old_logprobs_BT is None


def test_mini_batches_are_optimizer_steps_on_parts_of_the_batch(build):
    two, by_hand = build(mini_batches=2), build()
    of = by_hand._logprobs(by_hand.engine, batch())
    whole = replace(batch(), old_logprobs_BT=of)
    two.step(batch(), GRPO, 1e-3)
    for n in (0, 1):
        by_hand.step(GRPO.part(whole, slice(n, None, 2)), GRPO, 1e-3)
    assert_close(weights(two), weights(by_hand))
    one = build()
    one.step(batch(), GRPO, 1e-3)
    assert not torch.allclose(weights(two), weights(one), atol=1e-4)


def test_completions_are_laid_out_once_however_often_a_step_goes_through_them(build):
    """With thousands of them, and prompts that they share, to find the best rows takes a part of a second."""
    trainer = build(epochs=3, mini_batches=2)
    for seed in (1, 2):
        trainer.step(batch(LEASHED, seed), LEASHED, 1e-3)
    laid_out = trainer._laid_out.cache_info()
    assert laid_out.misses == 2 * (1 + 2) and laid_out.hits == 2 * (1 + 2 * 2)  # pi_old, pi_ref, three epochs of two
    assert laid_out.currsize == 1 + 2


def test_mini_batches_without_a_token_dilute_no_metric(build):
    of = batch()
    mask_BT = of.mask_BT.clone()
    mask_BT[1::2] = 0.0  # all of the second mini-batch
    of = GRPO.part(replace(of, mask_BT=mask_BT, counted_BT=mask_BT), slice(None))
    one, two = build().step(of.rows(slice(None, None, 2)), GRPO, 1e-3), build(mini_batches=2).step(of, GRPO, 1e-3)
    for name in ("policy/entropy", "policy/grad_norm", "policy/loss", "mismatch/mean_abs", "tokens/trained"):
        assert two[name] == pytest.approx(one[name], rel=1e-5) and one[name] != 0, name
    nothing = build(mini_batches=2).step(replace(of, mask_BT=mask_BT * 0), GRPO, 1e-3)
    assert nothing["tokens/trained"] == 0 and nothing["policy/lr"] == 1e-3
    logged = {name for name in nothing if name.startswith(("policy/", "mismatch/"))}
    assert logged == {"policy/lr"}, "a 0 would be drawn as an entropy that has collapsed"
    no_group = build().step(collate([], GRPO, {"math": 1.0}), GRPO, 1e-3)
    assert no_group["tokens/trained"] == 0 and "policy/entropy" not in no_group


@pytest.mark.parametrize("settings", [{"mini_batches": 2}, {"mini_batches": 3}, {"mini_batches": 2, "epochs": 2}])
def test_into_how_many_updates_a_step_is_cut_changes_no_metric_of_its_tokens(build, settings):
    """Completions of the parts differ in length: a mean of their means would not be one over the tokens."""
    of, one, several = batch(LEASHED), build(), build(**settings)
    rollout_BT = one._logprobs(one.engine, of) + torch.linspace(-2, 2, len(of))[:, None]
    of = replace(of, rollout_logprobs_BT=rollout_BT)
    whole, cut = (trainer.step(of, LEASHED, 1e-12) for trainer in (one, several))
    for name in ("policy/entropy", "policy/ratio_mean", "policy/clipped", "policy/kl_ref", "mismatch/mean_abs",
                 "mismatch/max_abs", "mismatch/ess"):  # fmt: skip
        assert cut[name] == pytest.approx(whole[name], rel=1e-4, abs=1e-6), name
    assert whole["mismatch/ess"] < 0.5 and whole["policy/entropy"] > 0
    assert cut["tokens/trained"] == settings.get("epochs", 1) * whole["tokens/trained"]


@pytest.mark.parametrize("settings", [{}, {"mini_batches": 2}, {"mini_batches": 2, "micro_batch_tokens": 12}])
@pytest.mark.parametrize("row", range(8))
def test_the_largest_mismatch_is_nan_where_one_is(build, settings, row):
    of = batch()
    rollout_BT = of.rollout_logprobs_BT.clone()
    rollout_BT[row, int(of.lengths_B[row]) - 1] = torch.nan
    metrics = build(**settings).step(replace(of, rollout_logprobs_BT=rollout_BT), GRPO, 1e-3)
    assert math.isnan(metrics["mismatch/max_abs"])


def test_the_largest_mismatch_is_that_of_all_mini_batches(build):
    of = batch()
    trainer = build(mini_batches=2)
    rollout_BT = trainer._logprobs(trainer.engine, of)
    rollout_BT[3, int(of.lengths_B[3]) - 1] -= 2.0  # the second mini-batch has it
    of = replace(of, rollout_logprobs_BT=rollout_BT)
    metrics = trainer.step(of, GRPO, 1e-3)
    assert metrics["mismatch/max_abs"] == pytest.approx(2.0, abs=1e-3)
    assert metrics["mismatch/mean_abs"] < 0.2


def test_the_reference_may_be_weights_that_were_exported(build, tmp_path):
    """As the sentinel's anchor is; and back to the model that training began with."""
    trainer = build()
    start = trainer._logprobs(trainer.engine, batch())
    trainer.step(batch(), GRPO, 1e-2)
    then = trainer._logprobs(trainer.engine, batch())
    trainer.engine.module.lm.save_pretrained(tmp_path)
    trainer.step(batch(), GRPO, 1e-2)
    assert_close(trainer._reference_logprobs(batch(), str(tmp_path)), then)
    assert_close(trainer._reference_logprobs(batch(), None), start)
    assert (then - start).abs().max() > 1e-3


def test_the_reference_is_the_model_before_training_and_loaded_only_when_asked_for(build):
    trainer = build()
    start = trainer._logprobs(trainer.engine, batch())
    assert trainer.step(batch(), GRPO, 1e-2).get("policy/kl_ref") is None and trainer._reference is None
    metrics = trainer.step(batch(LEASHED), LEASHED, 1e-2)
    assert metrics["policy/kl_ref"] > 0
    assert_close(trainer._reference_logprobs(batch(LEASHED), None), start)


def test_a_kl_term_holds_the_policy_back(build):
    free, leashed = build(), build()
    term = replace(GRPO, kl=kl.KL(kl.k3, 50.0))
    for _ in range(4):
        free.step(batch(), GRPO, 3e-3)
        leashed.step(batch(term), term, 3e-3)

    def distance(trainer) -> float:
        of = batch(LEASHED)
        apart = trainer._logprobs(trainer.engine, of) - trainer._reference_logprobs(of, None)
        return float(apart.square().mean())

    assert distance(leashed) < distance(free) / 2


def test_a_kl_penalty_in_the_reward_changes_the_advantages_by_its_own_hand(build):
    trainer = build()
    trainer.step(batch(), GRPO, 1e-2)
    of = batch(IN_REWARD)
    prepared = trainer._prepared(of, IN_REWARD)
    apart = (trainer._logprobs(trainer.engine, of) - trainer._reference_logprobs(of, None)).sum(1)
    rewards = torch.tensor([[1.0, 0.0, 0.5, 0.0], [0.0, 1.0, 1.0, 0.0]]) - 0.5 * apart.view(2, 4)
    wanted = (rewards - rewards.mean(1, keepdim=True)) / rewards.std(1, keepdim=True)
    assert_close(prepared.advantages_B1.view(2, 4), wanted, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(prepared.advantages_B1, of.advantages_B1, atol=1e-2)


def test_a_truncated_completion_that_is_not_trained_on_pays_the_penalty_too(build):
    """Its logprobs are asked for, and its group's advantages are those that it would have if it were trained on."""
    trainer = build()
    trainer.step(batch(), GRPO, 1e-2)
    cut = [completion((5, 9, 4), stop_reason="length"), completion((7, 2))]
    prepared = [
        trainer._prepared(collate([group([0.0, 1.0], cut, prompt(0, (3, 1)))], objective, {"math": 1.0}), objective)
        for objective in (replace(CENTRED, train_on_truncated=False), CENTRED)
    ]
    assert_close(prepared[0].advantages_B1, prepared[1].advantages_B1)
    assert prepared[0].mask_BT[0].sum() == 0 and prepared[0].old_logprobs_BT[0].any()


@pytest.mark.parametrize("cfg", [{}, {"zero_stage": 2, "gradient_checkpointing": True}, {"epochs": 2}])
def test_sharing_prompts_changes_no_step(build, cfg):
    wide = {"micro_batch_tokens": 60, "row_tokens": 60}
    shared, apart = build(**wide, **cfg), build(share_prompts=False, **wide, **cfg)
    for _ in range(2):
        got, wanted = shared.step(batch(LEASHED), LEASHED, 1e-3), apart.step(batch(LEASHED), LEASHED, 1e-3)
        for name in ("policy/loss", "policy/grad_norm", "policy/entropy", "tokens/trained"):
            assert got[name] == pytest.approx(wanted[name], rel=1e-4, abs=1e-6), name
        assert got["packing/shared"] == pytest.approx(12 / 53) and wanted["packing/shared"] == 0
    assert_close(weights(shared), weights(apart), atol=1e-5, rtol=1e-4)


def test_prompts_that_cannot_be_shared_are_refused_in_words(model_folder, build):
    with pytest.raises(RecipeError, match=r"trainer\.share_prompts=true needs model\.attention=sdpa"):
        build(attention="eager", share_prompts=True)
    assert build(attention="eager").step(batch(), GRPO, 1e-3)["packing/shared"] == 0


def test_a_reference_that_cannot_share_prompts_is_refused_in_words(build, monkeypatch):
    sharing, apart = build(), build(share_prompts=False)
    monkeypatch.setattr("rlvr.train.policy._sees_everything", lambda lm: False)  # of the models loaded from now on
    with pytest.raises(RecipeError, match=r"the reference .* cannot share prompts: trainer\.share_prompts=false"):
        sharing.step(batch(LEASHED), LEASHED, 1e-3)
    assert apart.step(batch(LEASHED), LEASHED, 1e-3)["policy/kl_ref"] == pytest.approx(0, abs=1e-6)


def test_what_is_exported_asks_as_it_was_asked_in_training(model_folder, tmp_path):
    from rlvr.train.deepspeed import DeepSpeedTrainer

    AutoTokenizer.from_pretrained(TINY).save_pretrained(model_folder)
    own = tmp_path / "own.jinja"
    own.write_text("{% for m in messages %}MINE {{ m['content'] }}{% endfor %}")
    message = {"role": "user", "content": "2+3"}
    said = set()
    for template in (None, "plain", str(own)):
        model = ModelConfig(path=model_folder, dtype="float32", chat_template=template)
        DeepSpeedTrainer(model, TrainerConfig(), 1.0).export(str(tmp_path / "model"))
        exported = AutoTokenizer.from_pretrained(tmp_path / "model")
        asked = exported.apply_chat_template([message], add_generation_prompt=True, tokenize=True, return_dict=False)
        assert tuple(asked) == Renderer(model)((message,))
        said.add(tuple(asked))
    assert len(said) == 3
    own.unlink()
    with pytest.raises(RecipeError, match=r"model\.chat_template=.*own\.jinja: no such file"):
        DeepSpeedTrainer(model, TrainerConfig(), 1.0)


@pytest.mark.parametrize(
    ("known", "exported"),
    [
        ({"temperature": 0.9, "top_p": 0.6}, {"do_sample": True, "temperature": 0.9, "top_p": 0.6}),
        ({"do_sample": False, "top_k": 20}, {"do_sample": True, "top_k": 20}),
        ({"do_sample": False, "temperature": 1.0}, {"do_sample": False, "temperature": 1.0}),
        ({"pad_token_id": -1}, {}),
        ({"eos_token_id": 2}, {"eos_token_id": [1, 2]}),  # Qwen3-Base: one of the text's, one of the chat's
        ({"eos_token_id": [2, 1]}, {"eos_token_id": [1, 2]}),
    ],
)
def test_what_is_exported_is_sampled_as_the_model_was_and_ends_as_in_training(known, exported, tmp_path):
    from rlvr.train.deepspeed import DeepSpeedTrainer

    shutil.copytree(TINY, tmp_path / "own")  # ends at 1
    (tmp_path / "own" / "generation_config.json").write_text(json.dumps({"eos_token_id": 1} | known))
    model = ModelConfig(path=str(tmp_path / "own"), dtype="float32", max_context=128)
    DeepSpeedTrainer(model, TrainerConfig(), 1.0).export(str(tmp_path / "model"))
    wrote = json.loads((tmp_path / "model" / "generation_config.json").read_text())
    wrote.pop("transformers_version")
    assert wrote == {"eos_token_id": 1} | exported
    assert (tmp_path / "model" / "model.safetensors").is_file()


def test_what_could_not_be_exported_is_found_at_the_start(tmp_path):
    from rlvr.train.deepspeed import DeepSpeedTrainer

    shutil.copytree(TINY, tmp_path / "own")
    (tmp_path / "own" / "generation_config.json").write_text(json.dumps({"eos_token_id": 1, "length_penalty": 0.5}))
    with pytest.raises(RecipeError, match=r"its generation_config\.json could not be exported: .*length_penalty"):
        DeepSpeedTrainer(ModelConfig(path=str(tmp_path / "own"), dtype="float32"), TrainerConfig(), 1.0)


@pytest.mark.long
@pytest.mark.parametrize(
    "cfg",
    [{}, {"gradient_checkpointing": True, "zero_stage": 2}, {"lora": LoraConfig(rank=4)}],
    ids=["plain", "checkpointing", "lora"],
)
@torch._dynamo.config.patch(disable=False)  # vLLM's engine switches it off for its process
def test_compiled_layers_learn_as_others_do(build, cfg):
    """Minutes: each kind of layer is compiled, forward and backward."""
    torch._dynamo.reset()  # layers of another trainer are compiled alike, and would serve
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    eager, compiled = build(compile=False, **cfg), build(compile=True, **cfg)
    for seed in range(3):  # of other lengths each
        of = batch(LEASHED, seed)
        wanted, got = eager.step(of, LEASHED, 1e-3), compiled.step(of, LEASHED, 1e-3)
        for name in ("policy/loss", "policy/grad_norm", "policy/entropy"):
            assert got[name] == pytest.approx(wanted[name], rel=1e-4, abs=1e-5)
    assert compiled.score([1, 2, 3, 4]) == pytest.approx(eager.score([1, 2, 3, 4]), abs=1e-4)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > before


@pytest.mark.parametrize(
    ("cuda", "cfg", "compiles"),
    [
        (False, {}, False),
        (False, {"compile": True}, True),
        (True, {}, True),
        (True, {"zero_stage": 3}, False),
        (True, {"compile": False}, False),
    ],
)
def test_layers_are_compiled_on_a_gpu_where_weights_are_whole(cuda, cfg, compiles):
    assert TrainerConfig(**cfg).compiles(cuda) == compiles
