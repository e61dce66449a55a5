"""Per-token log pi/pi_old [B,T] -> log importance weight [B,T]."""

from torch import Tensor


def token(log_ratio_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """GRPO (arXiv:2402.03300): every token carries its own weight."""
    return log_ratio_BT


def sequence(log_ratio_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """GSPO (arXiv:2507.18071): every token carries the completion's weight, the geometric mean of its tokens'.

    The gradient of a token goes through its own logprob only (GSPO-token, section 4.3): same value, and the same
    gradient where a completion's tokens share one advantage.
    """
    mean_B1 = (log_ratio_BT * mask_BT).sum(1, keepdim=True) / mask_BT.sum(1, keepdim=True).clamp(min=1)
    return mean_B1.detach() + log_ratio_BT - log_ratio_BT.detach()
