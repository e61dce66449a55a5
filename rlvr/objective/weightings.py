"""The masks of the whole step [B,T] -> each token's share of the loss [B,T].

Computed once, before the batch is cut into micro-batches and ranks; from there on the loss is a plain sum, which no
cut can change. `mask_BT` says which tokens are trained on, `counted_BT` which ones the normaliser counts (they differ
only under `count_masked`, which also counts the completions that are masked from the loss).
"""

from torch import Tensor


def sequence_mean(mask_BT: Tensor, counted_BT: Tensor) -> Tensor:
    """GRPO (arXiv:2402.03300): every completion counts the same, its tokens share that. m / (B |o|)."""
    return mask_BT / mask_BT.sum(1, keepdim=True).clamp(min=1) / completions(counted_BT)


def token_mean(mask_BT: Tensor, counted_BT: Tensor) -> Tensor:
    """DAPO (arXiv:2503.14476): every token of the step counts the same. m / sum of all |o|."""
    return mask_BT / counted_BT.sum().clamp(min=1)


def constant(mask_BT: Tensor, counted_BT: Tensor, max_tokens: int) -> Tensor:
    """Dr. GRPO (arXiv:2503.20783): m / (B C), so that length is neither rewarded nor punished.

    C is the longest completion that the recipe allows, never the width of the padding, which changes with the batch.
    """
    return mask_BT / (completions(counted_BT) * max_tokens)


def sequence_sum(mask_BT: Tensor, counted_BT: Tensor) -> Tensor:
    """m / B: the log likelihood of a whole completion, so that a long one weighs more."""
    return mask_BT / completions(counted_BT)


def completions(counted_BT: Tensor) -> Tensor:
    """B: the completions that have a token at all."""
    return (counted_BT > 0).any(1).sum().clamp(min=1)
