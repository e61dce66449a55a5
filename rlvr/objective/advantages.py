"""The rewards of the whole step -> the advantage of each completion [N,G]. 0 where there is no reward.

Two stages: a baseline within each group, then, for the variants that have it, a whitening over the step. A group whose
first stage is all 0 has no signal.
"""

import torch
from torch import Tensor

from rlvr.objective.rewards import Rewards, masked_center, masked_mean, masked_std


def standardize(rewards: Rewards, ddof: int = 1, eps: float = 1e-6) -> Tensor:
    """GRPO (arXiv:2402.03300): (r - mean) / (std + eps), per group.

    `ddof=1` is the sample standard deviation (TRL, verl); 0 the population's, which some frameworks use.
    """
    r_NG, valid_NG = rewards.total_NG, rewards.valid_NG
    return masked_center(r_NG, valid_NG) / (masked_std(r_NG, valid_NG, ddof) + eps)


def center(rewards: Rewards) -> Tensor:
    """Dr. GRPO (arXiv:2503.20783): r - mean. No division by std, so no weight for groups that almost agree."""
    return masked_center(rewards.total_NG, rewards.valid_NG)


def leave_one_out(rewards: Rewards) -> Tensor:
    """RLOO (arXiv:2402.14740): r - mean of the *other* completions, an unbiased baseline. ValueError for groups of 1.

    G/(G-1) times `center`, with the G of the rewarded completions.
    """
    if rewards.valid_NG.shape[1] < 2:
        raise ValueError("leave_one_out compares a completion with the others of its group: it needs at least 2")
    count_N1 = rewards.valid_NG.sum(1, keepdim=True)
    return center(rewards) * count_N1 / (count_N1 - 1).clamp(min=1)


def mean_normalize(rewards: Rewards) -> Tensor:
    """MaxRL (arXiv:2602.02710): (r - mean) / mean, so that rare successes weigh more. A mean of 0 gives 0.

    Meant for rewards of 0 and 1: a negative mean would turn every sign round, and gives 0 instead.
    """
    mean_N1 = masked_mean(rewards.total_NG, rewards.valid_NG)
    return torch.where(mean_N1 > 0, center(rewards) / mean_N1, 0.0)


def decouple(rewards: Rewards, ddof: int = 1, eps: float = 1e-4) -> Tensor:
    """GDPO (arXiv:2601.05242), first stage: every part standardized by itself, then the weighted sum of those.

    With plain GRPO, (accuracy 1, format 0) and (accuracy 0, format 1) are the same number. ValueError for fewer than
    two parts with weight: it would be `standardize`. `whiten` is the second stage; conditioning of one part on another
    is the recipe's `reward.parts.<part>.requires`.
    """
    if (rewards.weights_K != 0).sum() < 2:
        raise ValueError("decouple (GDPO) normalises reward parts one by one: it needs at least 2 parts with weight")
    valid_KN_G = rewards.valid_NG.repeat(len(rewards.weights_K), 1)
    parts_KN_G = rewards.parts_NGK.permute(2, 0, 1).flatten(0, 1)
    z_KN_G = masked_center(parts_KN_G, valid_KN_G) / (masked_std(parts_KN_G, valid_KN_G, ddof) + eps)
    z_KNG = z_KN_G.unflatten(0, (len(rewards.weights_K), -1))
    return torch.einsum("kng,k->ng", z_KNG, rewards.weights_K)


def whiten(advantages_NG: Tensor, valid_NG: Tensor, ddof: int = 1, eps: float = 1e-4) -> Tensor:
    """Second stage: (A - mean) / (std + eps) over the step, one value a completion (arXiv:2501.03262, 2601.05242).

    Never one value a token: that leaks length. A group without signal stays exactly 0, whatever the step's mean is.
    """
    signal_N1 = (advantages_NG != 0).any(1, keepdim=True)
    flat, valid = advantages_NG.reshape(1, -1), valid_NG.reshape(1, -1)
    white = masked_center(flat, valid) / (masked_std(flat, valid, ddof) + eps)
    return torch.where(signal_N1, white.view_as(advantages_NG), 0.0)
