"""Can the models of a recipe be what it wants them for? Found out from their configs, before anything is paid. Loads no
weights."""

from math import inf
from pathlib import Path
from typing import Any

from rlvr.config import ModelConfig, RecipeError
from rlvr.data.rows import one_line
from rlvr.data.tokenizer import local
from rlvr.objective import Objective


def check_policy(model: ModelConfig) -> int:
    """The ids that it knows. RecipeError where `model.path` names no model that can be trained, or one built for less
    than max_context."""
    return int(_config_of("model.path", model.path, model.max_context).get_text_config().vocab_size)


def check_reference(objective: Objective, vocabulary: int, max_context: int) -> None:
    """RecipeError where `kl.reference` names no model like the policy, or one without some of its `vocabulary` tokens,
    or built for less than `max_context` tokens.

    Without one the reference is `model.path`, which is read in any case.
    """
    path = objective.kl.reference if objective.kl is not None and objective.kl.on else None
    if path is None:
        return
    key = "algorithm.kl.reference"
    known = _config_of(key, path, max_context).get_text_config().vocab_size
    if known < vocabulary:
        raise RecipeError(f"{key}={path}: it knows {known} tokens, fewer than the {vocabulary} of model.path")


def _config_of(key: str, path: str, max_context: int) -> Any:
    """Of a model that a policy can be made of (`rlvr/train/policy.py`)."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if path.startswith((".", "/", "~")) and not Path(local(path)).is_dir():
        raise RecipeError(f"{key}={path}: no such folder")
    try:
        config = AutoConfig.from_pretrained(local(path))
        with torch.device("meta"):  # the layers without their weights
            lm = AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError) as error:
        raise RecipeError(f"{key}={path}: no model could be read: {one_line(error)}") from None
    if not hasattr(lm, "model") or not isinstance(getattr(lm, "lm_head", None), torch.nn.Linear):
        raise RecipeError(
            f"{key}={path}: {type(lm).__name__} is not built as the trainer needs it, a decoder `model` and a linear "
            "`lm_head`: Llama, Mistral and Qwen models are"
        )
    if max_context > (limit := context_length(config)):
        raise RecipeError(
            f"model.max_context={max_context} > {limit:g}, what {key}={path} was built for; one that yarn makes longer "
            "says so in its config.json, as max_position_embeddings"
        )
    kind, same = one_rule(config)
    if max_context > same:
        raise RecipeError(
            f"model.max_context={max_context} > {same:g}: beyond it the rotary embedding of {key}={path}, {kind}, "
            "treats a sequence by the length of the longest one beside it, and no logprob could be trusted; lower it"
        )
    return config


def context_length(config: Any) -> float:
    """Tokens of the longest sequence that the model was built for; inf where its config does not say."""
    text = config.get_text_config()
    longest = getattr(text, "max_position_embeddings", None) or inf
    # the other kinds of scaling are in max_position_embeddings already
    stretched = [kind.get("factor") or 1 for kind in _ropes(text) if kind.get("rope_type") in ("linear", "dynamic")]
    return longest * max(stretched, default=1)


def one_rule(config: Any) -> tuple[str, float]:
    """The kind of rotary embedding that changes with the longest sequence of a micro-batch, and up to how many tokens
    it does not; inf where it never does."""
    text = config.get_text_config()
    limits = [("", inf)]
    for rope in _ropes(text):
        if (kind := rope.get("rope_type")) == "dynamic":
            limits.append((kind, getattr(text, "max_position_embeddings", None) or inf))
        elif kind == "longrope":
            trained = rope.get("original_max_position_embeddings")
            limits.append((kind, trained or getattr(text, "original_max_position_embeddings", None) or inf))
    return min(limits, key=lambda limit: limit[1])


def _ropes(text: Any) -> list[dict[str, Any]]:
    """One for all layers, or one for each type of them."""
    rope = getattr(text, "rope_parameters", None) or {}
    return [rope, *(kind for kind in rope.values() if isinstance(kind, dict))]
