"""The rewards of the whole step -> the advantage of each completion [N,G]. 0 where there is no reward."""

from torch import Tensor

from rlvr.objective.rewards import Rewards, masked_center, masked_std


def standardize(rewards: Rewards, ddof: int = 1, eps: float = 1e-6) -> Tensor:
    """GRPO (arXiv:2402.03300): (r - mean) / (std + eps), per group.

    `ddof=1` is the sample standard deviation (TRL, verl); 0 the population's, which some frameworks use.
    """
    r_NG, valid_NG = rewards.total_NG, rewards.valid_NG
    return masked_center(r_NG, valid_NG) / (masked_std(r_NG, valid_NG, ddof) + eps)


def center(rewards: Rewards) -> Tensor:
    """Dr. GRPO (arXiv:2503.20783): r - mean. No division by std, so no weight for groups that almost agree."""
    return masked_center(rewards.total_NG, rewards.valid_NG)
