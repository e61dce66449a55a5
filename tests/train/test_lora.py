"""Adapters on a frozen model: nothing at the start, the only thing that learns, merged wherever others see weights."""

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlvr.config import ModelConfig, RecipeError, TrainerConfig
from rlvr.trainer_config import LoraConfig
from tests.train.test_deepspeed import GRPO, LEASHED, batch

pytest.importorskip("deepspeed")
pytest.importorskip("peft")
TINY = Path(__file__).resolve().parents[2] / "recipes" / "tiny"
PROBE = [3, 9, 4, 1, 17, 22]


@pytest.fixture(scope="module")
def build(model_folder):
    from rlvr.train.deepspeed import DeepSpeedTrainer

    AutoTokenizer.from_pretrained(TINY).save_pretrained(model_folder)

    def make(rank=4, targets=("all-linear",), dtype="float32", **cfg) -> DeepSpeedTrainer:
        lora = LoraConfig(rank=rank, alpha=8, targets=list(targets))
        settings = TrainerConfig(**{"max_grad_norm": 1e9, "micro_batch_tokens": 24, "row_tokens": 12} | cfg, lora=lora)
        return DeepSpeedTrainer(ModelConfig(path=model_folder, dtype=dtype), settings, temperature=1.0)

    return make


def trained(trainer, steps: int = 3):
    for _ in range(steps):
        metrics = trainer.step(batch(), GRPO, 1e-2)
    return metrics


def transferred(trainer) -> dict[str, torch.Tensor]:
    return {name: x.clone() for bucket in trainer.weights() for name, x in bucket.items()}


@pytest.mark.parametrize("zero_stage", [0, 3])
def test_adapters_change_nothing_before_the_first_step(build, zero_stage):
    wanted = build(rank=0).score(PROBE)
    assert build(zero_stage=zero_stage).score(PROBE) == wanted


@pytest.mark.parametrize("zero_stage", [0, 2, 3])
def test_only_the_adapters_learn_and_the_merged_weights_say_the_same(build, model_folder, zero_stage):
    base = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    trainer = build(zero_stage=zero_stage)
    start = trainer.score(PROBE)
    assert trained(trainer)["policy/grad_norm"] > 0
    after = trainer.score(PROBE)
    assert max(abs(a - b) for a, b in zip(start, after, strict=True)) > 1e-2
    merged = transferred(trainer)
    assert merged.keys() == dict(base.named_parameters()).keys()
    changed = {name for name, p in base.named_parameters() if not torch.equal(p, merged[name])}
    assert changed == {name for name in merged if "_proj." in name}
    with torch.no_grad():
        for name, parameter in base.named_parameters():
            parameter.copy_(merged[name])
        logprobs = base(torch.tensor([PROBE])).logits[0, :-1].log_softmax(1)
    assert_close(logprobs.gather(1, torch.tensor(PROBE)[1:, None])[:, 0].tolist(), after, atol=1e-5, rtol=1e-5)


def test_the_optimizer_holds_only_the_adapters(build):
    trainer = build(targets=["q_proj"])
    held = sum(p.numel() for group in trainer.optimizer.param_groups for p in group["params"])
    # two layers, rank 4, q_proj from 16 to 16: A and B
    assert held == 2 * 4 * (16 + 16)


def test_the_reference_is_the_frozen_model_itself(build):
    trainer, whole = build(), build(rank=0)
    trained(trainer)
    before = trainer.score(PROBE)
    of = batch(LEASHED)
    assert_close(trainer._reference_logprobs(of, None), whole._logprobs(whole.engine, of))
    assert trainer._reference is None and trainer.score(PROBE) == before
    assert trainer.step(of, LEASHED, 1e-2)["policy/kl_ref"] > 0


def test_or_weights_that_were_exported_as_the_sentinels_anchor_is(build, tmp_path):
    trainer = build()
    trained(trainer)
    trainer.export(str(tmp_path))
    then = trainer._logprobs(trainer.engine, batch())
    trained(trainer, 1)
    assert_close(trainer._reference_logprobs(batch(), str(tmp_path)), then, atol=1e-4, rtol=1e-4)
    assert (then - trainer._reference_logprobs(batch(), None)).abs().max() > 1e-2


@pytest.mark.parametrize("zero_stage", [0, 3])
def test_a_checkpoint_brings_the_adapters_and_their_optimizer_back(build, tmp_path, zero_stage):
    trainer = build(zero_stage=zero_stage)
    trained(trainer)
    trainer.save(str(tmp_path))
    trainer.saved(wait=True)
    saved = trainer.score(PROBE)
    trained(trainer, 1)
    gone_on = trainer.score(PROBE)
    again = build(zero_stage=zero_stage)
    again.load(str(tmp_path))
    assert again.score(PROBE) == saved
    trained(again, 1)
    assert again.score(PROBE) == gone_on


def test_the_export_is_a_plain_model_with_the_adapter_beside_it(build, model_folder, tmp_path):
    from peft import PeftModel

    trainer = build()
    trained(trainer)
    trainer.export(str(tmp_path))
    tokens = torch.tensor([PROBE])
    wanted = torch.tensor(trainer.score(PROBE))

    def says(model) -> torch.Tensor:
        with torch.no_grad():
            return model(tokens).logits[0, :-1].log_softmax(1).gather(1, tokens[0, 1:, None])[:, 0]

    assert_close(says(AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)), wanted)
    base = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    assert_close(says(PeftModel.from_pretrained(base, str(tmp_path / "adapter"))), wanted)


def test_an_engine_agrees_after_the_transfer(build, model_folder):
    from rlvr.rollout.transformers import TransformersEngine
    from rlvr.weights import Loaded, transfer

    class Alone:
        def __init__(self):
            self.engine = TransformersEngine(model_folder, dtype="float32", max_model_len=64, max_num_seqs=8)

        def load_weights(self, buckets, version, probe):
            self.engine.load_weights(buckets, version)
            return Loaded(1, lambda: {"engine 0": self.engine.score(probe)})

    trainer = build()
    trained(trainer)
    assert transfer(trainer, Alone(), 1, PROBE, tolerance=1e-4)["transfer/probe_rms"] < 1e-4


def test_half_precision_adapters_learn_too(build):
    trainer = build(dtype="bfloat16")
    start = trainer.score(PROBE)
    trained(trainer)
    assert max(abs(a - b) for a, b in zip(start, trainer.score(PROBE), strict=True)) > 1e-2


@pytest.mark.parametrize("unknown", ["nowhere", "proj", "embed_tokens", "norm", "q_norm", "lm_head", "0.self_attn"])
def test_a_target_that_is_no_linear_layer_is_named_beside_one_that_is(build, unknown):
    said = rf"^trainer\.lora\.targets=\[.*\]: {unknown} is no linear layer; there are: down_proj, .*, v_proj$"
    for targets in ([unknown], ["q_proj", unknown]):
        with pytest.raises(RecipeError, match=said):
            build(targets=targets)


@pytest.mark.parametrize("before", ["model.layers.1.self_attn", "layers.1.self_attn", "1.self_attn"])
def test_a_layer_may_be_named_by_more_than_its_last_name(build, before):
    trainer = build(targets=[f"{before}.q_proj", "v_proj"])
    names = dict(trainer.engine.module.named_parameters())
    adapted = {name.partition(".lora_A.")[0] for name in names if ".lora_A." in name}
    q, v = "lm.model.layers.1.self_attn.q_proj", "lm.model.layers.{}.self_attn.v_proj"
    assert adapted == {q, v.format(0), v.format(1)}


def test_unknown_targets_are_named(build):
    with pytest.raises(RecipeError, match=r"trainer.lora.targets=\['nowhere'\]"):
        build(targets=["nowhere"])
