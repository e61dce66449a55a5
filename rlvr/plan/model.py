"""A model's size, from its config.json alone: parameters, cache, FLOPs. Knows no device, loads no weights.

Dense decoders of the Llama and Qwen families: RMSNorm, grouped-query attention, a SwiGLU block. Others are refused: a
wrong plan is worse than none.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlvr.config import RecipeError

FAMILIES = {"llama", "mistral", "qwen2", "qwen3"}


@dataclass(frozen=True)
class Architecture:
    """Architecture(hidden=4096, layers=36, heads=32, kv_heads=8, head_dim=128, intermediate=12288, vocabulary=...)"""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    block_bias: bool = False
    qk_norm: bool = False

    @property
    def queries(self) -> int:
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        return self.kv_heads * self.head_dim

    @property
    def linear(self) -> tuple[tuple[int, int], ...]:
        """(in, out) of a layer's matrices: q, k, v, o, gate, up, down."""
        h, q, k, i = self.hidden, self.queries, self.keys, self.intermediate
        return ((h, q), (h, k), (h, k), (q, h), (h, i), (h, i), (i, h))

    @property
    def layer_parameters(self) -> int:
        biases = self.qkv_bias * (self.queries + 2 * self.keys) + self.output_bias * self.hidden
        biases += self.block_bias * (2 * self.intermediate + self.hidden)
        norms = 2 * self.hidden + self.qk_norm * 2 * self.head_dim
        return sum(a * b for a, b in self.linear) + biases + norms

    @property
    def head_parameters(self) -> int:
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """As `model.num_parameters()` counts them: a tied head once."""
        return self.layers * self.layer_parameters + self.head_parameters * (1 if self.tied else 2) + self.hidden

    def adapter_parameters(self, rank: int) -> int:
        """LoRA on every linear layer but the head."""
        return self.layers * rank * sum(a + b for a, b in self.linear)

    def cache_bytes(self, dtype_bytes: int) -> int:
        """Keys and values of one token."""
        return 2 * self.layers * self.keys * dtype_bytes

    @property
    def attention_tokens(self) -> float:
        """Positions to which to attend costs as much as the layer's matrices do."""
        return self.layer_parameters / (2 * self.queries)

    def forward(self, tokens: float, attended: float) -> float:
        """FLOPs of a forward pass over tokens that attend to so many positions, all together: two for each weight that
        a token meets, and four for each element of its attention."""
        matrices = self.layers * sum(a * b for a, b in self.linear) + self.head_parameters
        return 2 * matrices * tokens + 4 * self.layers * self.queries * attended

    def flops(self, context: float) -> float:
        """The same for one token, `context` positions."""
        return self.forward(1, context)


def from_config(config: Mapping[str, Any], where: str = "config.json") -> Architecture:
    if not isinstance(config, Mapping):
        raise RecipeError(f"{where}: a {type(config).__name__}, not an object")
    family = config.get("model_type")
    if family not in FAMILIES:
        raise RecipeError(f"{where}: model_type={family}: plan knows the dense models {', '.join(sorted(FAMILIES))}")
    try:
        hidden, heads = config["hidden_size"], config["num_attention_heads"]
        sizes = ("hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size", "vocab_size")
        for name in sizes:
            if isinstance(config[name], bool) or not isinstance(config[name], int) or config[name] < 1:
                raise RecipeError(f"{where}: {name}={config[name]!r:.40}: a whole number of at least 1")
        return Architecture(
            hidden=hidden,
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or hidden // heads,
            intermediate=config["intermediate_size"],
            vocabulary=config["vocab_size"],
            tied=config.get("tie_word_embeddings", False),
            qkv_bias=family == "qwen2" or config.get("attention_bias", False),
            output_bias=family in ("llama", "qwen3") and config.get("attention_bias", False),
            block_bias=family == "llama" and config.get("mlp_bias", False),
            qk_norm=family == "qwen3",
        )
    except KeyError as error:
        raise RecipeError(f"{where} has no {error}") from error


def qwen3(hidden: int, intermediate: int, layers: int, heads: int, tied: bool) -> Architecture:
    return Architecture(hidden, layers, heads, 8, 128, intermediate, 151_936, tied=tied, qk_norm=True)


# The config.json of the hub's models of these names, so that a plan needs no network (Qwen3: arXiv:2505.09388, table 1;
# Llama 3: arXiv:2407.21783, table 3).
PUBLISHED = {
    "Qwen3-0.6B": qwen3(1024, 3072, 28, 16, tied=True),
    "Qwen3-1.7B": qwen3(2048, 6144, 28, 16, tied=True),
    "Qwen3-4B": qwen3(2560, 9728, 36, 32, tied=True),
    "Qwen3-8B": qwen3(4096, 12_288, 36, 32, tied=False),
    "Qwen3-14B": qwen3(5120, 17_408, 40, 40, tied=False),
    "Qwen3-32B": qwen3(5120, 25_600, 64, 64, tied=False),
    "Llama-3.1-8B": Architecture(4096, 32, 32, 8, 128, 14_336, 128_256),
}


def read(path: str) -> Architecture:
    """Of a local folder, of a config.json, or of a hub name that PUBLISHED knows."""
    there = Path(path).expanduser()
    file = there if there.suffix == ".json" else there / "config.json"
    if file.is_file():
        try:
            return from_config(json.loads(file.read_text(encoding="utf-8")), str(file))
        except ValueError as error:
            raise RecipeError(f"{file}: {error}") from error
    name = path.rpartition("/")[2]
    for ending in ("-Base", "-Instruct", ""):
        if (known := name.removesuffix(ending) if ending else name) in PUBLISHED:
            return PUBLISHED[known]
    raise RecipeError(
        f"model.path={path}: neither a folder with a config.json nor one of {', '.join(PUBLISHED)}; "
        "give its config with --model-config FILE"
    )
