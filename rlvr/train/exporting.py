"""A policy as a plain Hugging Face folder: weights, configs, tokenizer with the chat template of the recipe."""

from typing import Any

from torch import Tensor

from rlvr.config import RecipeError
from rlvr.data.prompts import use_template
from rlvr.data.rows import one_line
from rlvr.data.tokenizer import load_tokenizer


def make_writable(lm: Any, path: str) -> None:
    """transformers reads what it then refuses to write. RecipeError where that is more than we can set right."""
    known = lm.generation_config
    if known.pad_token_id is not None and known.pad_token_id < 0:
        known.pad_token_id = None
    if _unwritable(known):  # many give a temperature, and leave it to whoever samples to say that they do
        known.do_sample = True
    if why := _unwritable(known):
        raise RecipeError(f"model.path={path}: its generation_config.json could not be exported: {why}; correct it")


def _unwritable(known: Any) -> str | None:
    try:
        known.validate(strict=True)
    except ValueError as error:
        return one_line(error)
    return None


def write_model(lm: Any, weights: dict[str, Tensor], path: str, template: str | None, folder: str) -> None:
    """`weights` in place of those of `lm`, whose tokenizer is that of `path`."""
    tokenizer = load_tokenizer(path)
    use_template(tokenizer, template)
    # each token that ended a completion: engines stop at the tokenizer's end token too
    own = lm.generation_config.eos_token_id
    ends = sorted({*(own if isinstance(own, list) else [own]), tokenizer.eos_token_id} - {None})
    lm.generation_config.eos_token_id = ends if len(ends) > 1 else next(iter(ends), None)
    if lm.config.tie_word_embeddings:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    lm.config.use_cache = True
    lm.save_pretrained(folder, state_dict=weights)
    lm.config.use_cache = False
    tokenizer.save_pretrained(folder)
