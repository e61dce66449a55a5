"""Trainer settings that cannot work are refused, with key, value and limit."""

import pytest

from rlvr.trainer_config import LoraConfig, TrainerConfig, untrainable


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        ({}, None),
        ({"ranks": 0}, "ranks=0: at least 1"),
        ({"bucket_mb": 0}, "bucket_mb=0: at least 1"),
        ({"warmup_steps": -1}, "warmup_steps=-1: at least 0"),
        ({"learning_rate": float("nan")}, "learning_rate=nan: must be above 0"),
        ({"learning_rate": float("inf")}, "learning_rate=inf: must be finite"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0: at least 0 and finite"),
        ({"weight_decay": float("nan")}, "weight_decay=nan: at least 0 and finite"),
        ({"weight_decay": float("inf")}, "weight_decay=inf: at least 0 and finite"),
        ({"probe_tolerance": 0.0}, "probe_tolerance=0.0: must be above 0"),
        ({"probe_tolerance": float("nan")}, "probe_tolerance=nan: must be above 0"),
        ({"probe_tolerance": float("inf")}, "probe_tolerance=inf: must be finite"),
        ({"probe_tolerance": None, "weight_decay": 0.0, "max_grad_norm": float("inf")}, None),
        ({"betas": [0.9, float("nan")]}, "betas=[0.9, nan]: two numbers, each at least 0 and below 1"),
        ({"betas": [0.9, 1.0]}, "betas=[0.9, 1.0]: two numbers, each at least 0 and below 1"),
        ({"schedule": "cosin"}, "schedule=cosin: one of constant, linear, cosine"),
        ({"offload_optimizer": "gpu"}, "offload_optimizer=gpu: one of none, cpu"),
        ({"offload_parameters": "gpu"}, "offload_parameters=gpu: one of none, cpu, nvme"),
        ({"offload_optimizer": "cpu"}, "offload_optimizer=cpu needs trainer.zero_stage of at least 1, not 0"),
        ({"offload_optimizer": "cpu", "zero_stage": 1}, None),
        (
            {"offload_parameters": "nvme", "zero_stage": 2},
            "offload_parameters=nvme needs trainer.zero_stage of at least 3, not 2",
        ),
        (
            {"offload_parameters": "cpu", "zero_stage": 2},
            "offload_parameters=cpu needs trainer.zero_stage of at least 3, not 2",
        ),
        (
            {"offload_parameters": "nvme", "zero_stage": 3},
            "offload_parameters=nvme needs trainer.offload_folder: a folder on that disk",
        ),
        ({"offload_parameters": "cpu", "zero_stage": 3}, None),
        ({"compile": True, "zero_stage": 2}, None),
        (
            {"compile": True, "zero_stage": 3},
            "compile=true needs trainer.zero_stage below 3, which gathers weights in the middle of a layer",
        ),
        ({"lora": LoraConfig(rank=-1)}, "lora.rank=-1: at least 0"),
        (
            {"lora": LoraConfig(rank=8, dropout=0.1)},
            "lora.dropout=0.1: must be 0: the policy that is trained must be the one that sampled",
        ),
        ({"lora": LoraConfig(rank=8, alpha=0)}, "lora.alpha=0: must be above 0"),
        (
            {"lora": LoraConfig(rank=8, targets=["all-linear", "q_proj"])},
            "lora.targets=['all-linear', 'q_proj']: all-linear is every linear layer, name it alone",
        ),
        ({"lora": LoraConfig(rank=8, targets=[])}, "lora.targets is empty: nothing would be trained"),
    ],
)
def test_what_cannot_work_is_named(settings, wrong):
    assert untrainable(TrainerConfig(**settings)) == wrong
