"""The engine samples with other kernels than the trainer computes with: log pi_old - log pi_rollout [B,T], mask
-> a weight for each token's gain [B,T]. Never part of the gradient.
"""

import torch
from torch import Tensor


def token_truncate(delta_BT: Tensor, mask_BT: Tensor, cap: float = 2.0) -> Tensor:
    """TIS (truncated importance sampling): min(exp(delta), cap)."""
    return delta_BT.exp().clamp(max=cap)


def token_mask(delta_BT: Tensor, mask_BT: Tensor, low: float = 0.5, high: float = 5.0) -> Tensor:
    """MIS / IcePop: exp(delta) where it lies within [low, high], else 0."""
    w_BT = delta_BT.exp()
    return torch.where((w_BT >= low) & (w_BT <= high), w_BT, 0.0)
