"""Per-token log pi/pi_old [B,T] -> log importance weight [B,T]."""

from torch import Tensor


def token(log_ratio_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """GRPO (arXiv:2402.03300): every token carries its own weight."""
    return log_ratio_BT
