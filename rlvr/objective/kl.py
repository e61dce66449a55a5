"""Estimators of KL(pi || pi_ref) per token, and how strongly it is held against the policy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

CLAMP = 20.0  # on log ratios before exp: e^20 is still finite in bfloat16, and so is its square


class Estimator(Protocol):
    def __call__(self, logprobs_BT: Tensor, ref_logprobs_BT: Tensor) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class KL:
    """A penalty in the loss: coefficient * estimate at every token, with the same weighting as the surrogate."""

    estimator: Estimator
    coefficient: float | Mapping[str, float]  # one number, or one per prompt domain; a domain not named has 0

    @property
    def on(self) -> bool:
        """Whether a reference model is needed at all."""
        one = isinstance(self.coefficient, int | float)
        return any([self.coefficient] if one else self.coefficient.values())  # type: ignore[union-attr, list-item]

    def of(self, domain: str) -> float:
        return self.coefficient if isinstance(self.coefficient, int | float) else self.coefficient.get(domain, 0.0)


def k1(logprobs_BT: Tensor, ref_logprobs_BT: Tensor) -> Tensor:
    """log pi - log pi_ref: unbiased as a value, useless as a loss term (its gradient has mean zero)."""
    return logprobs_BT - ref_logprobs_BT


def k2(logprobs_BT: Tensor, ref_logprobs_BT: Tensor) -> Tensor:
    """(log pi - log pi_ref)^2 / 2: its gradient is that of the reverse KL."""
    return k1(logprobs_BT, ref_logprobs_BT).square() / 2


def k3(logprobs_BT: Tensor, ref_logprobs_BT: Tensor) -> Tensor:
    """exp(-k1) - 1 + k1 (Schulman, "Approximating KL divergence", 2020; GRPO, arXiv:2402.03300). Never negative."""
    k1_BT = k1(logprobs_BT, ref_logprobs_BT).clamp(-CLAMP, CLAMP)
    return (-k1_BT).exp() - 1 + k1_BT
