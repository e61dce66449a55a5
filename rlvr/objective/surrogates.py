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


def cispo(log_w_BT: Tensor, advantages_B1: Tensor, logprobs_BT: Tensor, low: float, high: float) -> Tensor:
    """CISPO (MiniMax-M1, arXiv:2506.13585): sg(clip(w, 1-low, 1+high)) A log pi. No token loses its gradient.

    Both bounds are distances from 1; TRL's `epsilon_high` for this loss is the cap itself, 1 + high.
    """
    return log_w_BT.exp().clamp(1 - low, 1 + high).detach() * advantages_B1 * logprobs_BT


def unclipped(log_w_BT: Tensor, advantages_B1: Tensor, logprobs_BT: Tensor) -> Tensor:
    """w A: the importance-weighted policy gradient; REINFORCE where pi = pi_old."""
    return log_w_BT.exp() * advantages_B1


def sapo(
    log_w_BT: Tensor, advantages_B1: Tensor, logprobs_BT: Tensor, positive: float = 1.0, negative: float = 1.05
) -> Tensor:
    """SAPO (arXiv:2511.20347): A (4/tau) sigmoid(tau (w - 1)), a soft gate instead of a clip.

    `positive` and `negative` are the temperatures tau for A > 0 and A <= 0; a larger one closes the gate sooner. The
    slope at w = 1 is A, as everywhere.
    """
    tau_B1 = torch.where(advantages_B1 > 0, advantages_B1.new_tensor(positive), advantages_B1.new_tensor(negative))
    return advantages_B1 * 4 / tau_B1 * torch.sigmoid(tau_B1 * (log_w_BT.exp() - 1))
