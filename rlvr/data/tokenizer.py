"""A model's tokenizer, loaded in the same way by whoever reads or writes text for the model."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlvr.config import RecipeError
from rlvr.data.rows import one_line

TEXT = "a b\n1 + 2"  # what a tokenizer must give back: spaces, a newline, digits


def local(path: str) -> str:
    """A folder with its `~` expanded; a hub name as it is."""
    return os.path.expanduser(path)  # a Path would take away the ./ that tells a folder from a hub name


def load_tokenizer(path: str) -> Any:
    """Of a local folder or a hub name: a transformers tokenizer that reads as the folder's `tokenizer.json` says.
    RecipeError where there is none, or where a text does not survive it."""
    if path.startswith((".", "/", "~")) and not Path(local(path)).is_dir():
        raise RecipeError(f"model.path={path}: no such folder")
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        # Mistral's own format knows neither chat templates nor files that others could read
        tokenizer = AutoTokenizer.from_pretrained(local(path), mistral_format=False)
    except (OSError, ValueError) as error:
        raise RecipeError(f"model.path={path}: no tokenizer could be loaded: {one_line(error)}") from None
    if gives_back(tokenizer):
        return tokenizer
    # its class may be a wrong one, built from the vocabulary alone: DeepSeek-R1-Distill-Llama's is
    try:
        bare = PreTrainedTokenizerFast.from_pretrained(local(path))
    except (OSError, ValueError):
        return tokenizer  # there is no tokenizer.json that would say otherwise
    if gives_back(bare):
        return bare
    if encoded(bare) != encoded(tokenizer):
        raise RecipeError(
            f"model.path={path}: its tokenizer loses what it reads, {TEXT!r} comes back as {decoded(tokenizer)!r}, and "
            f"is not what its tokenizer.json says; is tokenizer_class={type(tokenizer).__name__} right?"
        )
    return tokenizer  # it does not know all characters


def gives_back(tokenizer: Any) -> bool:
    return decoded(tokenizer) == TEXT


def encoded(tokenizer: Any) -> list[int]:
    return list(tokenizer.encode(TEXT, add_special_tokens=False))


def decoded(tokenizer: Any) -> str:
    return str(tokenizer.decode(encoded(tokenizer)))


def special_tokens(tokenizer: Any) -> dict[str, int]:
    """Text -> id of the tokens that no decoded completion shows: as stop strings they stop by their ids."""
    return {token.content: n for n, token in tokenizer.added_tokens_decoder.items() if token.special}


def check_stop(tokenizer: Any, stop: Sequence[str]) -> None:
    """RecipeError for a stop string that no text could hold."""
    special = special_tokens(tokenizer)
    for text in stop:
        if text not in special and (inside := [token for token in special if token in text]):
            raise RecipeError(
                f"rollout.stop: {text!r} holds the special token {inside[0]!r}, which decoded text does not show, and "
                f"would never stop; make it {inside[0]!r} alone"
            )
