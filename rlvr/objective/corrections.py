"""The engine samples with other kernels than the trainer computes with -> a weight for each token's gain [B,T].

Never part of the gradient. A mask is a weight of 0: the token stays in the weighting's normaliser.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from rlvr.objective.kl import CLAMP


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Who sampled the tokens, and who is trained on them; without gradient, 0 where `mask_BT` is."""

    delta_BT: Tensor  # log pi_old - log pi_rollout: the same weights, two implementations
    drift_BT: Tensor  # log pi - log pi_rollout: what the optimizer steps on this batch did comes on top
    mask_BT: Tensor
    advantages_B1: Tensor

    @property
    def sum_B1(self) -> Tensor:
        """log of the whole completion's weight."""
        return self.delta_BT.sum(1, keepdim=True).clamp(-CLAMP, CLAMP)

    def mean_B1(self, x_BT: Tensor) -> Tensor:
        return (x_BT * self.mask_BT).sum(1, keepdim=True) / self.mask_BT.sum(1, keepdim=True).clamp(min=1)


Correction = Callable[[Mismatch], Tensor]


def token_truncate(mismatch: Mismatch, cap: float = 2.0) -> Tensor:
    """TIS, truncated importance sampling (as in Olmo 3): min(exp(delta), cap)."""
    return mismatch.delta_BT.exp().clamp(max=cap)


def token_mask(mismatch: Mismatch, low: float = 0.5, high: float = 5.0) -> Tensor:
    """MIS / IcePop: exp(delta) where it lies within [low, high], else 0."""
    return _within(mismatch.delta_BT.exp(), low, high)


def token_agrees(mismatch: Mismatch, low: float = 0.5, high: float = 5.0) -> Tensor:
    """1 for a token whose exp(delta) lies within [low, high], else 0: for a `product` with a correction that has the
    weight already."""
    w_BT = mismatch.delta_BT.exp()
    return ((w_BT >= low) & (w_BT <= high)).to(w_BT.dtype)


def sequence_truncate(mismatch: Mismatch, cap: float = 2.0) -> Tensor:
    """The completion's weight, min(exp(sum of delta), cap), at each of its tokens."""
    return mismatch.sum_B1.exp().clamp(max=cap).expand_as(mismatch.mask_BT)


def sequence_mask(mismatch: Mismatch, low: float = 0.5, high: float = 5.0) -> Tensor:
    """The completion's weight exp(sum of delta) where it lies within [low, high], else 0."""
    return _within(mismatch.sum_B1.exp(), low, high).expand_as(mismatch.mask_BT)


def geometric_mask(mismatch: Mismatch, low: float = 0.99, high: float = 1.01) -> Tensor:
    """1 for a completion whose mean token weight exp(mean of delta) lies within [low, high], else 0."""
    w_B1 = mismatch.mean_B1(mismatch.delta_BT).exp()
    return ((w_B1 >= low) & (w_B1 <= high)).to(w_B1.dtype).expand_as(mismatch.mask_BT)


def off_policy_mask(mismatch: Mismatch, threshold: float = 0.5) -> Tensor:
    """DeepSeek-V3.2 (arXiv:2512.02556): 0 for a completion with A < 0 whose mean log pi_rollout - log pi is above
    `threshold`, else 1: what the policy would no longer say, it need not be taught to avoid.

    The paper does not give its threshold.
    """
    gone_B1 = mismatch.mean_B1(-mismatch.drift_BT) > threshold
    return 1.0 - (gone_B1 & (mismatch.advantages_B1 < 0)).to(mismatch.mask_BT.dtype).expand_as(mismatch.mask_BT)


def product(mismatch: Mismatch, corrections: Sequence[Correction]) -> Tensor:
    """Several at once."""
    return reduce(torch.mul, (correction(mismatch) for correction in corrections))


def _within(w: Tensor, low: float, high: float) -> Tensor:
    return torch.where((w >= low) & (w <= high), w, 0.0)
