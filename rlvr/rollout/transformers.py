"""The reference engine: plain transformers, batched, with a KV cache. Slow, always there, easy to read.

Prompts are padded on the left, so that every row's next token is the last column. A finished row leaves the batch.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from rlvr import compiling
from rlvr.config import RecipeError
from rlvr.data.tokenizer import load_tokenizer, local, special_tokens
from rlvr.rollout.decoding import Context, prepare
from rlvr.rollout.engine import Done, Request
from rlvr.types import Completion, Sampling, StopReason, sampling_seed


@dataclass
class Row:
    """One completion in the making."""

    request: Request
    uniform: torch.Generator
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    kept: list[tuple[int, ...]] = field(default_factory=list)  # where top-p or top-k cut
    versions: list[tuple[int, int]] = field(default_factory=list)  # (token, policy version) from which on


Why = tuple[Row, StopReason]


class TransformersEngine:
    def __init__(
        self, path: str, *, dtype: str, max_model_len: int, max_num_seqs: int, threads: int = 1, compiled: bool = False
    ):
        """`compiled`: the step that decodes a token of each row is compiled when it is first taken."""
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if dtype == "auto":
            dtype = "bfloat16" if self.device.type == "cuda" else "float32"
        transformers_logging.disable_progress_bar()
        model: Any = AutoModelForCausalLM.from_pretrained(local(path), dtype=getattr(torch, dtype))
        self.model = model.to(self.device).eval()
        prepare(self.model)
        if compiled:
            compiling.enable()
        self._decoder: Any = torch.compile(self.model, dynamic=True) if compiled else self.model
        self.tokenizer = load_tokenizer(path)
        self._special = special_tokens(self.tokenizer)
        self.max_model_len, self.max_num_seqs, self.threads = max_model_len, max_num_seqs, threads
        self.policy_version = -1
        self._waiting = deque[Request]()
        self._rows: list[Row] = []  # of the batch that is being decoded
        self._decoding: Iterator[list[Why]] = iter(())
        ends = self.model.generation_config.eos_token_id
        self.ends = set(ends if isinstance(ends, list) else [ends]) | {self.tokenizer.eos_token_id}
        self._try(path)

    @torch.no_grad()
    def _try(self, path: str) -> None:
        """RecipeError where the model keeps more of what it has read than keys and values: we do not."""
        token_ids_12 = torch.zeros(1, 2, dtype=torch.int64, device=self.device)
        context = Context(torch.ones_like(token_ids_12))
        try:
            self._forward(token_ids_12, context, self.model)
            context.add()
            self._forward(token_ids_12[:, 1:], context, self.model)
        except (AttributeError, LookupError, NotImplementedError, TypeError, ValueError) as error:
            raise RecipeError(
                f"model.path={path}: rollout.engine=transformers, which keeps keys and values alone, cannot decode "
                f"with {type(self.model).__name__} ({type(error).__name__}: {error}); rollout.engine=vllm may"
            ) from error

    def add(self, requests: Sequence[Request]) -> None:
        self._waiting.extend(requests)

    @property
    def running(self) -> int:
        return len(self._waiting) + len(self._rows)

    @torch.no_grad()
    def step(self) -> list[Done]:
        torch.set_num_threads(self.threads)
        if not self._rows:
            if not self._waiting:
                return []
            self._begin()
        return [(row.request.key, self._completion(row, reason)) for row, reason in next(self._decoding)]

    def abort(self) -> None:
        self._waiting.clear()
        self._rows = []

    def _begin(self) -> None:
        """A batch of those that wait, all sampled in the same way; whoever comes later waits for its end."""
        first = self._waiting[0].sampling
        while self._waiting and len(self._rows) < self.max_num_seqs and alike(self._waiting[0].sampling, first):
            request = self._waiting.popleft()
            seed = sampling_seed(request.sampling.seed, request.prompt.position, request.index)
            self._rows.append(Row(request, torch.Generator().manual_seed(seed)))
        self._decoding = self._decode(first)

    def _decode(self, sampling: Sampling) -> Iterator[list[Why]]:
        """Of each decoding step the rows that end with it, and why."""
        prompts = [row.request.prompt.token_ids for row in self._rows]
        once = {prompt: n for n, prompt in enumerate(dict.fromkeys(prompts))}
        token_ids_BT, mask_BT = self._left_padded(list(once))
        context = Context(mask_BT)
        logits_BV = self._forward(token_ids_BT, context, self.model)
        order_B = torch.tensor([once[prompt] for prompt in prompts], device=self.device)
        context.take(order_B)
        logits_BV = logits_BV[order_B]  # a prompt is read once, whatever number of completions it has
        while rows := self._rows:
            chosen_B = self._sample(rows, logits_BV.float(), sampling)
            reasons = [self._ended(row) for row in rows]
            staying = [b for b, reason in enumerate(reasons) if not reason]
            self._rows = [rows[b] for b in staying]
            yield [(row, reason) for row, reason in zip(rows, reasons, strict=True) if reason]
            if self._rows:
                if len(staying) < len(reasons):
                    keep_B = torch.tensor(staying, device=self.device)
                    context.take(keep_B)
                    chosen_B = chosen_B[keep_B]
                context.add()
                # what is compiled for any number of rows would be compiled once more for a single one
                model = self._decoder if len(chosen_B) > 1 else self.model
                logits_BV = self._forward(chosen_B[:, None], context, model)

    def _forward(self, token_ids_BT: Tensor, context: Context, model: Any) -> Tensor:
        """Logits [B,V] behind the last of these tokens, which the context then has read."""
        return model(
            input_ids=token_ids_BT, attention_mask=context.mask_BR, position_ids=context.positions_BT,
            past_key_values=context.cache, logits_to_keep=1,
        ).logits[:, -1]  # fmt: skip

    def _left_padded(self, token_ids: list[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
        width = max(map(len, token_ids))
        padded = [[0] * (width - len(ids)) + list(ids) for ids in token_ids]
        mask = [[0] * (width - len(ids)) + [1] * len(ids) for ids in token_ids]
        return torch.tensor(padded, device=self.device), torch.tensor(mask, device=self.device)

    def _sample(self, rows: list[Row], logits_BV: Tensor, sampling: Sampling) -> Tensor:
        """The next token of every row, by inverting its cumulative distribution at the row's own random number."""
        logits_BV = logits_BV / (sampling.temperature or 1.0)
        if sampling.truncated:
            logits_BV = truncated(logits_BV, sampling.top_p, sampling.top_k)
            for row, left_V in zip(rows, logits_BV.isfinite(), strict=True):
                row.kept.append(tuple(left_V.nonzero()[:, 0].tolist()))
        logprobs_BV = logits_BV.log_softmax(1)
        if sampling.temperature == 0:
            chosen_B = logprobs_BV.argmax(1)
        else:
            at_B = torch.cat([torch.rand(1, generator=row.uniform, dtype=torch.float64) for row in rows])
            steps_BV = logprobs_BV.double().exp().cumsum(1)
            at_B1 = at_B.to(self.device)[:, None] * steps_BV[:, -1:]  # in float the steps do not quite reach 1
            chosen_B = torch.searchsorted(steps_BV, at_B1, right=True)[:, 0].clamp(max=logits_BV.shape[1] - 1)
        for row, token, logprob in zip(
            rows, chosen_B.tolist(), logprobs_BV.gather(1, chosen_B[:, None])[:, 0].tolist(), strict=True
        ):
            if not row.versions or row.versions[-1][1] != self.policy_version:
                row.versions.append((len(row.token_ids), self.policy_version))
            row.token_ids.append(token)
            row.logprobs.append(logprob)
        return chosen_B

    def _ended(self, row: Row) -> StopReason | None:
        sampling = row.request.sampling
        token = row.token_ids[-1]
        if token == self.tokenizer.eos_token_id:
            return "eos"
        if any(self._special.get(stop) == token for stop in sampling.stop):
            return "stop"
        if token in self.ends:
            return "eos"
        if sampling.stop and any(stop in self._text(row) for stop in sampling.stop):
            return "stop"
        return "length" if len(row.token_ids) == sampling.max_tokens else None

    def _text(self, row: Row) -> str:
        text: Any = self.tokenizer.decode(row.token_ids, skip_special_tokens=True)
        return str(text)

    def _completion(self, row: Row, reason: StopReason) -> Completion:
        count = len(row.token_ids)
        return Completion(
            tuple(row.token_ids), (True,) * count, tuple(row.logprobs), row.versions[0][1], self._text(row), reason,
            tuple(row.kept) or None, tuple(row.versions[1:]),
        )  # fmt: skip

    def load_weights(self, weights: Iterable[Mapping[str, Tensor]], policy_version: int) -> None:
        ours = dict(self.model.named_parameters(remove_duplicate=False))
        with torch.no_grad():
            for bucket in weights:
                for name, tensor in bucket.items():
                    ours[name].copy_(tensor)
        self.policy_version = policy_version

    @torch.no_grad()
    def score(self, token_ids: list[int]) -> list[float]:
        ids_1T = torch.tensor([token_ids], device=self.device)
        logprobs_TV = self.model(input_ids=ids_1T).logits[0, :-1].float().log_softmax(1)
        return logprobs_TV.gather(1, ids_1T[0, 1:, None])[:, 0].tolist()

    def sleep(self) -> None:
        """It has no cache to give back between batches, and weights of no great size."""

    def wake(self) -> None:
        """It never sleeps."""

    def close(self) -> None:
        """It has started nothing."""


def alike(one: Sampling, other: Sampling) -> bool:
    """Whether their next tokens are chosen in the same way; seeds and limits are each row's own."""
    return replace(one, seed=0, max_tokens=0) == replace(other, seed=0, max_tokens=0)


def truncated(logits_BV: Tensor, top_p: float, top_k: int) -> Tensor:
    """-inf but for the `top_k` likeliest tokens (0: all), and of those the likeliest that together reach `top_p`."""
    sorted_BV, order_BV = logits_BV.sort(1, descending=True)
    if top_k:
        sorted_BV[:, top_k:] = -torch.inf
    p_BV = sorted_BV.softmax(1)
    sorted_BV[p_BV.cumsum(1) - p_BV >= top_p] = -torch.inf  # the token that reaches top_p is the last one in
    return torch.empty_like(logits_BV).scatter_(1, order_BV, sorted_BV)
