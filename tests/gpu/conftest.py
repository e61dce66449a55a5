"""What only a GPU can show. Without one all of it is skipped; `make test-gpu` runs it."""

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

TINY = Path(__file__).resolve().parents[2] / "recipes" / "tiny"


@pytest.fixture(autouse=True, scope="session")
def there_is_a_gpu():
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> str:
    """Small, with heads of a size that GPU kernels like, and a tokenizer, which engines want."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    config = Qwen3Config(
        vocab_size=512, hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, head_dim=64, max_position_embeddings=1024, tie_word_embeddings=True,
        initializer_range=0.06, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
