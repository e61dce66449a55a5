"""log pi and entropy of given tokens from hidden states, without ever holding [tokens, vocabulary] whole.

The matrix exists `chunk` rows at a time, in one buffer: in the forward pass, and again (one more product, but for the
last chunk) in the backward pass, which needs of the forward pass only the normaliser of each row:

    d log pi(target) / d logits = (onehot(target) - softmax(logits)) / temperature
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

SLICE = 32  # rows that a CPU exponentiates at a time: their temporaries stay in its cache


class LogprobHead(nn.Module):
    """A language model's head that answers with logprobs. Takes the place of the linear layer whose weights it shares.

    One call a micro-batch, however many chunks it takes: under ZeRO-3 every call is a gather that all ranks must join.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, of: nn.Linear):
        super().__init__()
        self.weight = of.weight
        self.register_parameter("bias", of.bias)

    def forward(
        self,
        hidden_NH: Tensor,
        targets_N: Tensor | None = None,
        temperature: float = 1.0,
        chunk: int = 1024,
        kept_NC: Tensor | None = None,
    ) -> Any:
        """(log pi(target) [N] with gradient, entropy [N] without) of softmax(logits / temperature), at least float32.
        Without targets: the plain logits.

        `kept_NC` names the token ids that the softmax runs over, -1 for none; a row without any runs over all.
        """
        if targets_N is None:
            return linear(hidden_NH, self.weight, self.bias)
        return _TokenLogprobs.apply(hidden_NH, self.weight, self.bias, targets_N, kept_NC, temperature, chunk)


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden_NH, weight_VH, bias_V, targets_N, kept_NC, temperature, chunk):
        N, exact = len(targets_N), torch.promote_types(hidden_NH.dtype, torch.float32)
        logprobs_N, entropy_N, normaliser_N = (hidden_NH.new_empty(N, dtype=exact) for _ in range(3))
        buffer_nV = hidden_NH.new_empty(min(chunk, N), len(weight_VH))
        read = _fused(_read) if buffer_nV.is_cuda else _read
        for rows in _cut(0, N, chunk):
            logits_nV = _logits(hidden_NH[rows], weight_VH, bias_V, buffer_nV)
            for part, here_mV, kept_mV in _slices(rows, logits_nV, kept_NC):
                found = read(here_mV, targets_N[part], temperature, kept_mV)
                logprobs_N[part], entropy_N[part], normaliser_N[part] = found
        ctx.save_for_backward(hidden_NH, weight_VH, bias_V, targets_N, kept_NC, normaliser_N, logprobs_N)
        ctx.temperature, ctx.chunk = temperature, chunk
        # the last chunk stays: the backward pass, which needs a buffer of that size anyway, begins with it
        ctx.buffer_nV = buffer_nV if any(ctx.needs_input_grad) else None
        ctx.mark_non_differentiable(entropy_N)
        return logprobs_N, entropy_N

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_N, _):
        hidden_NH, weight_VH, bias_V, targets_N, kept_NC, normaliser_N, logprobs_N = ctx.saved_tensors
        buffer_nV, ctx.buffer_nV = ctx.buffer_nV, None
        to_hidden, to_weight, to_bias, *_ = ctx.needs_input_grad
        grad_NH = torch.empty_like(hidden_NH) if to_hidden else None
        grad_VH = torch.zeros_like(weight_VH) if to_weight else None
        grad_V = torch.zeros_like(bias_V) if to_bias else None
        g_N = grad_N / ctx.temperature
        at_target_N = (-torch.expm1(logprobs_N) * g_N).to(buffer_nV.dtype)
        share = _fused(_share) if buffer_nV.is_cuda else _share
        for rows in reversed(list(_cut(0, len(targets_N), ctx.chunk))):
            is_there = rows.stop == len(targets_N)
            logits_nV = buffer_nV[: rows.stop - rows.start]
            if not is_there:
                _logits(hidden_NH[rows], weight_VH, bias_V, buffer_nV)
            is_scaled = is_there and logits_nV.dtype == normaliser_N.dtype  # in place
            temperature = 1.0 if is_scaled else ctx.temperature
            for part, here_mV, kept_mV in _slices(rows, logits_nV, kept_NC):
                share(here_mV, normaliser_N[part], g_N[part], temperature, kept_mV)
            logits_nV.scatter_(1, targets_N[rows, None], at_target_N[rows, None])
            if grad_NH is not None:
                torch.mm(logits_nV, weight_VH, out=grad_NH[rows])
            if grad_VH is not None:
                grad_VH.addmm_(logits_nV.t(), hidden_NH[rows])
            if grad_V is not None:
                grad_V += logits_nV.sum(0)
        return grad_NH, grad_VH, grad_V, None, None, None, None


def _logits(hidden_nH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, buffer: Tensor) -> Tensor:
    logits_nV = buffer[: len(hidden_nH)]
    if bias_V is None:
        return torch.mm(hidden_nH, weight_VH.t(), out=logits_nV)
    return torch.addmm(bias_V, hidden_nH, weight_VH.t(), out=logits_nV)


def _slices(rows: slice, logits_nV: Tensor, kept_NC: Tensor | None) -> Iterator[tuple[slice, Tensor, Tensor | None]]:
    """A few rows at a time: where they are among all, their logits, what they may be sampled from. On a GPU all of
    them, as nothing between the first and the last operation is ever written to memory there."""
    for part in _cut(rows.start, rows.stop, len(logits_nV) if logits_nV.is_cuda else SLICE):
        here_mV = logits_nV[part.start - rows.start : part.stop - rows.start]
        yield part, here_mV, None if kept_NC is None else _kept(kept_NC[part], here_mV.shape[1])


@cache
def _fused(function: Callable) -> Callable:
    return torch.compile(function)


def _cut(start: int, stop: int, size: int) -> Iterator[slice]:
    return (slice(at, min(at + size, stop)) for at in range(start, stop, size))


def _scaled(logits_mV: Tensor, temperature: float, kept_mV: Tensor | None) -> Tensor:
    """logits / temperature, -inf where not kept; at least float32, and in place where the logits are that already."""
    scaled_mV = logits_mV.to(torch.promote_types(logits_mV.dtype, torch.float32))
    if temperature != 1.0:
        scaled_mV /= temperature
    return scaled_mV if kept_mV is None else scaled_mV.masked_fill_(~kept_mV, -torch.inf)


def _read(
    logits_mV: Tensor, targets_m: Tensor, temperature: float, kept_mV: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """(log pi(target), entropy, normaliser) of each row."""
    scaled_mV = _scaled(logits_mV, temperature, kept_mV)
    top_m1 = scaled_mV.amax(1, keepdim=True)
    shifted_mV = (scaled_mV - top_m1).clamp_(min=torch.finfo(scaled_mV.dtype).min)  # an impossible token: 0 * -big = 0
    p_mV = shifted_mV.exp()
    sum_m = p_mV.sum(1)
    # H = log Z - sum p * logit, with everything shifted by the largest logit
    entropy_m = sum_m.log() - p_mV.mul_(shifted_mV).sum(1) / sum_m
    normaliser_m = top_m1[:, 0] + sum_m.log()
    return scaled_mV.gather(1, targets_m[:, None])[:, 0] - normaliser_m, entropy_m, normaliser_m


def _share(logits_mV: Tensor, normaliser_m: Tensor, g_m: Tensor, temperature: float, kept_mV: Tensor | None) -> None:
    """-g * softmax(logits / temperature), in place of the logits."""
    scaled_mV = _scaled(logits_mV, temperature, kept_mV)
    logits_mV.copy_(scaled_mV.sub_(normaliser_m[:, None]).exp_().mul_(-g_m[:, None]))


def _kept(kept_nC: Tensor, V: int) -> Tensor:
    """[n,V] bool; True everywhere in a row that names no id."""
    columns_nC = torch.where(kept_nC < 0, V, kept_nC).long()  # one column more, for the places that name none
    kept_nV = torch.zeros(len(kept_nC), V + 1, dtype=torch.bool, device=kept_nC.device).scatter_(1, columns_nC, True)
    return kept_nV[:, :V] | ~kept_nV[:, :V].any(1, keepdim=True)
