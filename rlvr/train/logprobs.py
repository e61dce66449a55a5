"""log pi and entropy of given tokens from hidden states, without ever holding [tokens, vocabulary] in float32 whole.

The matrix exists a chunk of rows at a time, in the forward pass and again (recomputed) in the backward pass.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def token_logprobs(
    head: Callable[[Tensor], Tensor],
    hidden_NH: Tensor,
    targets_N: Tensor,
    temperature: float,
    chunk: int,
    kept_NC: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """(log pi(target) [N] with gradient, entropy [N] without) of softmax(head(hidden) / temperature), float32.

    `kept_NC` names the token ids that the softmax runs over, -1 for none; a row without any runs over all.

    `head` is called as a module, so that ZeRO-3 gathers its weights; every call holds `chunk` rows of logits.
    """
    if not len(targets_N):
        empty = hidden_NH.sum() * 0.0  # keeps the graph: ranks without tokens still join the collectives
        return empty.expand(0), torch.empty(0, device=hidden_NH.device)
    hidden, targets = hidden_NH.split(chunk), targets_N.split(chunk)
    kept = [None] * len(targets) if kept_NC is None else kept_NC.split(chunk)
    parts = [
        checkpoint(_chunk, head, *rows, temperature, use_reentrant=False, preserve_rng_state=False)
        if torch.is_grad_enabled()
        else _chunk(head, *rows, temperature)
        for rows in zip(hidden, targets, kept, strict=True)
    ]
    return torch.cat([logprobs for logprobs, _ in parts]), torch.cat([entropy for _, entropy in parts])


def _chunk(
    head: Callable, hidden_nH: Tensor, targets_n: Tensor, kept_nC: Tensor | None, temperature: float
) -> tuple[Tensor, Tensor]:
    logits_nV = head(hidden_nH).float() / temperature
    if kept_nC is not None:
        logits_nV = logits_nV.masked_fill(~_kept(kept_nC, logits_nV.shape[1]), -torch.inf)
    normaliser_n = logits_nV.logsumexp(1)
    logprobs_n = logits_nV.gather(1, targets_n[:, None])[:, 0] - normaliser_n
    with torch.no_grad():
        # H = log Z - sum p * logit, with p = exp(logit - log Z); an impossible token (-inf) adds nothing
        p_nV = (logits_nV - normaliser_n[:, None]).exp()
        entropy_n = normaliser_n - (p_nV * logits_nV.nan_to_num(neginf=0.0)).sum(1)
    return logprobs_n, entropy_n


def _kept(kept_nC: Tensor, V: int) -> Tensor:
    """[n,V] bool; True everywhere in a row that names no id."""
    columns_nC = torch.where(kept_nC < 0, V, kept_nC).long()  # one column more, for the places that name none
    kept_nV = torch.zeros(len(kept_nC), V + 1, dtype=torch.bool, device=kept_nC.device).scatter_(1, columns_nC, True)
    return kept_nV[:, :V] | ~kept_nV[:, :V].any(1, keepdim=True)
