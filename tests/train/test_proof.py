"""Models of many kinds: those whose packed documents say what each says alone pass, the others are refused in words."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from rlvr.config import RecipeError
from rlvr.objective import kl
from rlvr.train.policy import Policy
from rlvr.train.proof import prove
from tests.train.test_deepspeed import GRPO, batch

SIZES = {
    "vocab_size": 31, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.3, "bos_token_id": None,
    "eos_token_id": None, "pad_token_id": None,
}  # fmt: skip
HEADS = {"head_dim": 16}
LINEAR = {
    **HEADS, "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 16,
    "linear_value_head_dim": 16, "layer_types": ["linear_attention", "full_attention"],
}  # fmt: skip
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1}
EXPERTS = {**HEADS, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
SOUND = {
    "qwen3": HEADS,
    "llama": {},
    "mistral": {"sliding_window": 4},
    "qwen3_moe": EXPERTS,
    "gemma3_text": {**HEADS, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
    "granite": {"logits_scaling": 1.0},
}
SCALED = {
    "granite": {"logits_scaling": 8.0},
    "cohere": {},
    "gemma2": {**HEADS, "final_logit_softcapping": 30.0},
}
STATEFUL = {
    "qwen3_next": {**LINEAR, "num_experts": 0, "mlp_only_layers": [0, 1]},
    "qwen3_5_text": LINEAR,
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "falcon_h1": {**MAMBA, "mamba_d_ssm": 64},
    "bamba": {**MAMBA, "attn_layer_indices": [1]},
}


def model(family: str, values: dict):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SIZES | values)).eval()


def proved(policy: Policy, tolerance: float | None = None) -> None:
    prove(policy, "model.path=x", tolerance, torch.device("cpu"), policy.can_share_prompts)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", SOUND)
def test_a_model_that_keeps_documents_apart_passes(family, dtype):
    proved(Policy(model(family, SOUND[family]).to(dtype)))


@pytest.mark.parametrize("family", SCALED)
def test_a_model_that_does_more_than_its_head_is_refused(family):
    with pytest.raises(RecipeError, match=r"^model\.path=x: this model scales or caps its logits.* > 0\.0003 \("):
        proved(Policy(model(family, SCALED[family])))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", STATEFUL)
def test_a_model_with_a_state_that_runs_along_the_row_is_refused(family, dtype):
    with pytest.raises(RecipeError, match=r"^model\.path=x: in this model a completion sees the one before it"):
        proved(Policy(model(family, STATEFUL[family]).to(dtype)))


def test_sharing_prompts_is_refused_where_our_mask_takes_the_place_of_a_window():
    policy = Policy(model("mistral", SOUND["mistral"]))
    policy.can_share_prompts = True
    with pytest.raises(RecipeError, match=r"trainer\.share_prompts=false"):
        proved(policy)


def test_the_tolerance_is_the_probes():
    proved(Policy(model("lfm2", STATEFUL["lfm2"])), tolerance=10.0)


def test_weights_that_are_no_numbers_are_called_that():
    policy = Policy(model("llama", {}))
    policy.lm.lm_head.weight.data[:] = torch.nan
    with pytest.raises(RecipeError, match="its logprobs are no numbers"):
        proved(policy)


@pytest.fixture
def stateful_folder(tmp_path) -> str:
    model("lfm2", STATEFUL["lfm2"]).save_pretrained(tmp_path)
    return str(tmp_path)


@pytest.mark.parametrize("zero_stage", [0, 3])
def test_a_trainer_does_not_start_with_such_a_model(build, stateful_folder, zero_stage):
    with pytest.raises(RecipeError, match=rf"^model\.path={stateful_folder}: in this model"):
        build(path=stateful_folder, zero_stage=zero_stage)


@pytest.mark.parametrize("zero_stage", [0, 3])
def test_nor_does_it_ask_such_a_reference(build, stateful_folder, zero_stage):
    leashed = replace(GRPO, kl=kl.KL(kl.k3, 0.5, reference=stateful_folder))
    trainer = build(zero_stage=zero_stage, share_prompts=False)
    with pytest.raises(RecipeError, match=rf"^algorithm\.kl\.reference={stateful_folder}: in this model"):
        trainer.step(batch(leashed), leashed, 1e-3)
