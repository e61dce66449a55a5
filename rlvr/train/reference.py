"""Can the reference of a KL term be one? Found out from its config, before anything is paid. Loads no weights."""

from pathlib import Path

from rlvr.config import RecipeError
from rlvr.data.rows import one_line
from rlvr.objective import Objective


def check_reference(objective: Objective, vocabulary: int) -> None:
    """RecipeError where `kl.reference` names no model, or one without some of the policy's `vocabulary` tokens.

    Without one the reference is `model.path`, which is read in any case.
    """
    path = objective.kl.reference if objective.kl is not None and objective.kl.on else None
    if path is None:
        return
    from transformers import AutoConfig

    key = f"algorithm.kl.reference={path}"
    if path.startswith((".", "/", "~")) and not Path(path).is_dir():
        raise RecipeError(f"{key}: no such folder")
    try:
        config = AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise RecipeError(f"{key}: no model could be read: {one_line(error)}") from None
    known = config.get_text_config().vocab_size
    if known < vocabulary:
        raise RecipeError(f"{key}: it knows {known} tokens, fewer than the {vocabulary} of model.path")
