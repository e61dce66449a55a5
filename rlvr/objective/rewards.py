"""The rewards of one step as one padded tensor, and the masked statistics that every baseline needs."""

from dataclasses import dataclass

import torch
from torch import Tensor

EQUAL = 1e-9  # of a spread of rewards, as a share of the larger one where that is above 1


@dataclass(frozen=True, slots=True)
class Rewards:
    """Rewards of N groups of up to G completions in K parts.

    A completion without a reward (its verifier could not say) is not `valid`: it leaves its group's mean, std and
    count. A group with fewer than two valid completions has no baseline, hence no valid completion either.
    """

    parts_NGK: Tensor
    weights_K: Tensor
    valid_NG: Tensor  # bool

    def __post_init__(self) -> None:
        if self.parts_NGK.shape[:2] != self.valid_NG.shape or self.parts_NGK.shape[2:] != self.weights_K.shape:
            shapes = tuple(self.parts_NGK.shape), tuple(self.weights_K.shape), tuple(self.valid_NG.shape)
            raise ValueError(f"parts, weights and valid do not fit together: {shapes}")
        comparable = self.valid_NG & (self.valid_NG.sum(1, keepdim=True) >= 2)
        object.__setattr__(self, "valid_NG", comparable)
        # what is not valid may hold anything, nan included
        object.__setattr__(self, "parts_NGK", torch.where(comparable[..., None], self.parts_NGK, 0.0))

    @classmethod
    def of_one_group(cls, rewards: list[float]) -> "Rewards":
        """One group with one reward part: `Rewards.of_one_group([1, 0, 0, 0])`."""
        parts = torch.tensor(rewards, dtype=torch.float64)[None, :, None]
        return cls(parts, torch.ones(1, dtype=torch.float64), torch.ones(parts.shape[:2], dtype=torch.bool))

    def plus(self, part_NG: Tensor) -> "Rewards":
        """With one more part, of weight 1."""
        parts_NGK = torch.cat([self.parts_NGK, part_NG[..., None]], dim=2)
        return Rewards(parts_NGK, torch.cat([self.weights_K, self.weights_K.new_ones(1)]), self.valid_NG)

    @property
    def total_NG(self) -> Tensor:
        """The weighted sum of the parts; 0 where not valid.

        Part by part: a matrix product rounds one row as it does not round another, and equal rewards must be equal.
        """
        total_NG = self.parts_NGK.new_zeros(self.valid_NG.shape)
        for k, weight in enumerate(self.weights_K):
            total_NG = total_NG + self.parts_NGK[..., k] * weight
        return total_NG


def masked_mean(x_NG: Tensor, valid_NG: Tensor) -> Tensor:
    """[N,1] mean over the valid entries of each row; 0 for a row with none."""
    count_N1 = valid_NG.sum(1, keepdim=True).clamp(min=1)
    return torch.where(valid_NG, x_NG, 0.0).sum(1, keepdim=True) / count_N1


def masked_center(x_NG: Tensor, valid_NG: Tensor) -> Tensor:
    """[N,G] distance from the mean of the row's valid entries; 0 where not valid, *exactly* 0 in an all-equal row.

    The mean of equal floats may be one rounding step off, and so may 0.1 + 0.2 from 0.3; a division by a tiny std would
    make an advantage of it. So what lies within `EQUAL` is equal.
    """
    high_N1 = torch.where(valid_NG, x_NG, -torch.inf).amax(1, keepdim=True)
    low_N1 = torch.where(valid_NG, x_NG, torch.inf).amin(1, keepdim=True)
    scale_N1 = torch.maximum(high_N1, -low_N1).clamp(min=1.0)
    equal_N1 = (high_N1 - low_N1) / scale_N1 <= EQUAL  # not so where one is infinite or nan, which must be seen
    return torch.where(valid_NG & ~equal_N1, x_NG - masked_mean(x_NG, valid_NG), 0.0)


def masked_std(x_NG: Tensor, valid_NG: Tensor, ddof: int) -> Tensor:
    """[N,1] standard deviation over the valid entries of each row; 0 where a row has no more than `ddof` of them."""
    count_N1 = valid_NG.sum(1, keepdim=True)
    squares_N1 = masked_center(x_NG, valid_NG).square().sum(1, keepdim=True)
    return (squares_N1 / (count_N1 - ddof).clamp(min=1)).sqrt()
