"""Log importance weight [B,T], advantage [B,1] and log pi [B,T] -> what is maximised at each token [B,T]."""

import torch
from torch import Tensor


def clip(
    log_w_BT: Tensor, advantages_B1: Tensor, logprobs_BT: Tensor, low: float, high: float, dual: float | None = None
) -> Tensor:
    """PPO (arXiv:1707.06347): min(w A, clip(w, 1-low, 1+high) A).

    high > low is DAPO's clip-higher (arXiv:2503.14476). `dual` bounds the loss from below where A < 0 at dual * A
    (arXiv:1912.09729); None leaves it unbounded.
    """
    w_BT = log_w_BT.exp()
    gain_BT = torch.minimum(w_BT * advantages_B1, w_BT.clamp(1 - low, 1 + high) * advantages_B1)
    if dual is None:
        return gain_BT
    return torch.where(advantages_B1 < 0, torch.maximum(gain_BT, dual * advantages_B1), gain_BT)
