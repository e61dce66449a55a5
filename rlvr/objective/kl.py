"""Estimators of KL(pi || pi_ref) per token, and how strongly it is held against the policy."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Literal, Protocol

from torch import Tensor

CLAMP = 20.0  # on log ratios before exp: e^20 is still finite in bfloat16, and so is its square


class Estimator(Protocol):
    """`log_ratio_BT` is log pi/pi_old, for those who correct for who sampled the tokens."""

    def __call__(self, logprobs_BT: Tensor, ref_logprobs_BT: Tensor, log_ratio_BT: Tensor) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class KL:
    """A penalty: coefficient * estimate.

    In the `loss` it is subtracted at every token, with the same weighting as the surrogate. In the `reward` its sum
    over the completion is subtracted before advantages are made, with the policy as it was before the step.
    """

    estimator: Estimator
    coefficient: float | Mapping[str, float]  # one number, or one per prompt domain; a domain not named has 0
    place: Literal["loss", "reward"] = "loss"
    reference: str | None = None  # folder or hub name of pi_ref; None: where training began, model.path

    def __post_init__(self) -> None:
        if self.place not in ("loss", "reward"):
            raise ValueError(f"kl.place={self.place}: loss or reward")
        of = self.coefficient
        for one in of.values() if isinstance(of, Mapping) else (of,):
            if not isinstance(one, int | float) or not 0 <= one < inf:  # below 0 it would drive the policy away
                said = "null" if of is None else of
                raise ValueError(f"kl.coefficient={said}: a finite number of at least 0, or one for each domain")

    @property
    def on(self) -> bool:
        """Whether a reference model is needed at all."""
        one = isinstance(self.coefficient, int | float)
        return any([self.coefficient] if one else self.coefficient.values())  # type: ignore[union-attr, list-item]

    @property
    def domains(self) -> frozenset[str]:
        """The domains that have a coefficient of their own."""
        return frozenset() if isinstance(self.coefficient, int | float) else frozenset(map(str, self.coefficient))

    def of(self, domain: str) -> float:
        return self.coefficient if isinstance(self.coefficient, int | float) else self.coefficient.get(domain, 0.0)


def k1(logprobs_BT: Tensor, ref_logprobs_BT: Tensor, log_ratio_BT: Tensor) -> Tensor:
    """log pi - log pi_ref: unbiased as a value, useless as a loss term (its gradient has mean zero)."""
    return logprobs_BT - ref_logprobs_BT


def k2(logprobs_BT: Tensor, ref_logprobs_BT: Tensor, log_ratio_BT: Tensor) -> Tensor:
    """(log pi - log pi_ref)^2 / 2: its gradient is that of the reverse KL."""
    return (logprobs_BT - ref_logprobs_BT).square() / 2


def k3(logprobs_BT: Tensor, ref_logprobs_BT: Tensor, log_ratio_BT: Tensor) -> Tensor:
    """exp(-k1) - 1 + k1 (Schulman, "Approximating KL divergence", 2020; GRPO, arXiv:2402.03300). Never negative."""
    k1_BT = (logprobs_BT - ref_logprobs_BT).clamp(-CLAMP, CLAMP)
    return (-k1_BT).exp() - 1 + k1_BT


def unbiased(logprobs_BT: Tensor, ref_logprobs_BT: Tensor, log_ratio_BT: Tensor) -> Tensor:
    """pi/pi_old * k3, gradient through both (DeepSeek-V3.2, arXiv:2512.02556).

    As a loss term its gradient is an unbiased estimate of the KL's, off-policy too; that of k3 alone is not.
    """
    return log_ratio_BT.exp() * k3(logprobs_BT, ref_logprobs_BT, log_ratio_BT)
