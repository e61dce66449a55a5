"""Can the models of a recipe be what it wants them for? Found out from their configs, before anything is paid. Loads no
weights."""

from math import inf
from pathlib import Path
from typing import Any

from rlvr.config import ModelConfig, RecipeError
from rlvr.data.rows import one_line
from rlvr.objective import Objective


def check_policy(model: ModelConfig) -> None:
    """RecipeError where `model.path` names no model that can be trained, or one built for less than max_context."""
    _config_of("model.path", model.path, model.max_context)


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

    if path.startswith((".", "/", "~")) and not Path(path).is_dir():
        raise RecipeError(f"{key}={path}: no such folder")
    try:
        config = AutoConfig.from_pretrained(path)
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
    return config


def context_length(config: Any) -> float:
    """Tokens of the longest sequence that the model was built for; inf where its config does not say."""
    text = config.get_text_config()
    longest = getattr(text, "max_position_embeddings", None) or inf
    rope = getattr(text, "rope_parameters", None) or {}
    kinds = [rope, *(kind for kind in rope.values() if isinstance(kind, dict))]  # one for all layers, or for each type
    # the other kinds of scaling are in max_position_embeddings already
    stretched = [kind.get("factor") or 1 for kind in kinds if kind.get("rope_type") in ("linear", "dynamic")]
    return longest * max(stretched, default=1)
