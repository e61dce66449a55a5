"""A tiny language model, and trainers of it."""

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from rlvr.config import ModelConfig, TrainerConfig

VOCABULARY = 31


def made(folder, hidden: int, intermediate: int) -> str:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, max_position_embeddings=64, tie_word_embeddings=True,
        initializer_range=0.4, bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> str:
    return made(tmp_path_factory.mktemp("model"), 16, 24)


@pytest.fixture(scope="module")
def wide_model_folder(tmp_path_factory) -> str:
    """Matrices of more than a megabyte: DeepSpeed writes nothing smaller to a disk."""
    return made(tmp_path_factory.mktemp("wide_model"), 256, 1100)


@pytest.fixture(scope="module")
def build(model_folder):
    from rlvr.train.deepspeed import DeepSpeedTrainer

    def make(dtype="float32", path=model_folder, attention="auto", **cfg) -> DeepSpeedTrainer:
        settings = TrainerConfig(**{"max_grad_norm": 1e9, "micro_batch_tokens": 24, "row_tokens": 12} | cfg)
        return DeepSpeedTrainer(ModelConfig(path=path, dtype=dtype, attention=attention), settings, temperature=1.0)

    return make
