"""What a trained reward model thinks of a completion: any `AutoModelForSequenceClassification`, on a GPU in batches.

    prompt and answer --chat template--> tokens --model--> a logit --squash--> reward

The only verifier that loads torch, and only when it is set up. A reward model is a proxy: a policy trained against it
long enough finds what it overrates.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rlvr_verifiers.judge import gradable
from rlvr_verifiers.judging import cleaned
from rlvr_verifiers.verdicts import failed, rejected, said

from rlvr.verify import Provenance, Sample, Verdict, verifier


@dataclass(frozen=True)
class Loaded:
    model: Any
    tokenizer: Any
    judge: str  # for the provenance

    @property
    def longest(self) -> int:
        return int(getattr(self.model.config, "max_position_embeddings", 0) or 4096)


_loaded: dict[tuple[str, str, str], Loaded] = {}


def prepare(model: str, device: str = "cpu", dtype: str = "float32") -> None:
    loaded(model, device, dtype)


def close() -> None:
    _loaded.clear()


@verifier("reward_model", version="2", timeout_s=120.0, memory_gib=None, batch=16, setup=prepare, close=close)
def reward_model(
    samples: Sequence[Sample],
    model: str,
    device: str = "cpu",
    dtype: str = "float32",
    label: int = 0,
    squash: Literal["sigmoid", "softmax", "none"] = "sigmoid",
    thoughts: bool = False,
    max_tokens: int | None = None,
    max_characters: int = 100_000,
) -> list[Verdict]:
    """The logit `label`, squashed to 0..1 (`softmax` over all labels; `none` leaves it as it is).

    A text of more than `max_tokens` (none: what the model can read) is worth nothing: cut short it would be graded for
    what it does not say. With `squash=none` logits may fall below that 0: prefer a squash.
    """
    if squash not in ("sigmoid", "softmax", "none"):
        raise ValueError(f"reward_model: squash={squash!r} is none of sigmoid, softmax, none")
    ready = loaded(model, device, dtype)
    limit = max_tokens or ready.longest
    verdicts: list[Verdict | None] = []
    encoded: list[list[int]] = []
    for sample in samples:
        text = gradable(sample, thoughts, max_characters)
        if isinstance(text, Verdict):
            verdicts.append(text)
            continue
        token_ids = tokens_of(sample, cleaned(text), ready.tokenizer)
        if len(token_ids) > limit:
            verdicts.append(rejected("too_long", f"{len(token_ids)} tokens > max_tokens {limit}"))
            continue
        verdicts.append(None)
        encoded.append(token_ids)
    rewards = iter(scores(encoded, ready, label, squash) if encoded else [])
    where = (Provenance("reward_model", judge=ready.judge),)
    return [scored(next(rewards), where) if verdict is None else verdict for verdict in verdicts]


def scored(reward: float, where: tuple[Provenance, ...]) -> Verdict:
    if not math.isfinite(reward):
        return failed("not_finite", f"the model's score is {reward}", provenance=where)
    return said(reward, "scored", provenance=where)


def tokens_of(sample: Sample, text: str, tokenizer: Any) -> list[int]:
    """Prompt and answer as the model was trained to see them: its chat template where it has one."""
    before = [dict(message) for message in sample.messages] or [{"role": "user", "content": sample.prompt}]
    if tokenizer.chat_template:
        turns = [*before, {"role": "assistant", "content": text}]
        rendered = tokenizer.apply_chat_template(turns, tokenize=False)
        return list(tokenizer(rendered, add_special_tokens=False)["input_ids"])
    return list(tokenizer("\n".join([*(str(message["content"]) for message in before), text]))["input_ids"])


def scores(encoded: list[list[int]], ready: Loaded, label: int, squash: str) -> list[float]:
    """On a CPU each text has a pass of its own: in a batch its last digits change with what else is in there, and what
    is in there with who was waiting."""
    if ready.model.device.type != "cpu":
        return batch_scores(encoded, ready, label, squash)
    return [score for one in encoded for score in batch_scores([one], ready, label, squash)]


def batch_scores(encoded: list[list[int]], ready: Loaded, label: int, squash: str) -> list[float]:
    import torch

    padded = ready.tokenizer.pad({"input_ids": encoded}, return_tensors="pt", padding_side="right")
    with torch.inference_mode():
        logits_BL = ready.model(**padded.to(ready.model.device)).logits.float()
    labels = logits_BL.shape[-1]
    if not 0 <= label < labels:
        raise ValueError(f"reward_model: label={label}: the model has {labels}")
    if squash == "softmax":
        logits_BL = logits_BL.softmax(-1)
    elif squash == "sigmoid":
        logits_BL = logits_BL.sigmoid()
    return [float(value) for value in logits_BL[:, label]]


def loaded(model: str, device: str, dtype: str) -> Loaded:
    key = (model, device, dtype)
    if key not in _loaded:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        if device == "cpu":
            torch.set_num_threads(1)  # many processes like this one share the cores
        tokenizer = AutoTokenizer.from_pretrained(model)
        network = AutoModelForSequenceClassification.from_pretrained(model, dtype=getattr(torch, dtype))
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        network.config.pad_token_id = tokenizer.pad_token_id
        _loaded[key] = Loaded(network.to(device).eval(), tokenizer, f"{model} weights={digest(network)} dtype={dtype}")
    return _loaded[key]


def digest(network: Any) -> str:
    """Tells one set of weights from another by a glance at each tensor."""
    seen = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        seen.update(f"{name} {tuple(tensor.shape)}".encode())
        seen.update(tensor.flatten()[:64].float().cpu().numpy().tobytes())
    return seen.hexdigest()[:12]
