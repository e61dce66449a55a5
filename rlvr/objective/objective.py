"""A variant is a choice of functions; the loss is one sum over tokens. Knows tensors, no records and no config."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Literal

import torch
from torch import Tensor

from rlvr.objective.kl import CLAMP, KL
from rlvr.objective.rewards import Rewards, masked_center


@dataclass(frozen=True, slots=True)
class Batch:
    """One optimizer step's completions as padded tensors; a row is prompt and completion, position t predicts t+1."""

    token_ids_BT: Tensor  # int64
    lengths_B: Tensor  # tokens of each row, prompt included
    mask_BT: Tensor  # 1.0 on the tokens that are trained on
    rollout_logprobs_BT: Tensor
    advantages_B1: Tensor
    weights_BT: Tensor  # each token's share of the loss, over the whole step
    kl_coefficients_B1: Tensor
    old_logprobs_BT: Tensor | None = None  # None: this is the first step on the batch, so pi_old is pi
    ref_logprobs_BT: Tensor | None = None

    @classmethod
    def of_tokens(cls, token_ids_BT: Tensor) -> "Batch":
        """Bare sequences of equal length, every token but the first to be scored; nothing to learn from."""
        B, T = token_ids_BT.shape
        zeros_BT, zeros_B1 = torch.zeros(B, T), torch.zeros(B, 1)
        mask_BT = torch.ones(B, T)
        mask_BT[:, 0] = 0.0
        return cls(token_ids_BT, torch.full((B,), T), mask_BT, zeros_BT, zeros_B1, zeros_BT, zeros_B1)

    def __len__(self) -> int:
        return len(self.token_ids_BT)

    def rows(self, index: Tensor | list[int] | slice) -> "Batch":
        """The same batch with some of its completions, cut to the longest of them."""
        width = int(self.lengths_B[index].max()) if len(self.lengths_B[index]) else 0
        cut = {f.name: getattr(self, f.name)[index] for f in fields(self) if getattr(self, f.name) is not None}
        return replace(self, **{name: x[:, :width] if name.endswith("_BT") else x for name, x in cut.items()})

    def to(self, device: torch.device | str) -> "Batch":
        present = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        return replace(self, **{name: x.to(device) for name, x in present.items()})


@dataclass(slots=True)
class Statistics:
    """What one loss saw. Everything adds up over micro-batches and ranks (`maxima` by max), then `means` divides."""

    sums: dict[str, float] = field(default_factory=dict)
    maxima: dict[str, float] = field(default_factory=dict)

    def __add__(self, other: "Statistics") -> "Statistics":
        sums = {k: self.sums.get(k, 0.0) + other.sums.get(k, 0.0) for k in {*self.sums, *other.sums}}
        both = {*self.maxima, *other.maxima}
        return Statistics(sums, {k: max(self.maxima.get(k, 0.0), other.maxima.get(k, 0.0)) for k in both})

    @property
    def tokens(self) -> float:
        return self.sums.get("tokens", 0.0)

    def means(self) -> dict[str, float]:
        """Metrics by the names of `rlvr.observe.metrics`; none where nothing was trained on."""
        tokens = self.tokens
        if not tokens:
            return {}
        weight = self.sums["mismatch_weight"]
        means = {
            "policy/ratio_mean": self.sums["ratio"] / tokens,
            "mismatch/mean_abs": self.sums["mismatch"] / tokens,
            "mismatch/max_abs": self.maxima["mismatch_max"],
            # Kish's effective sample size of the importance weights, as a share of the tokens: 1 when all are equal
            "mismatch/ess": weight**2 / max(self.sums["mismatch_weight_squared"], 1e-30) / tokens,
        }
        if "kl_ref" in self.sums:
            means["policy/kl_ref"] = self.sums["kl_ref"] / tokens
        if "mismatch_masked" in self.sums:
            means["mismatch/masked"] = self.sums["mismatch_masked"] / tokens
        return means


@dataclass(frozen=True)
class Objective:
    """A member of the GRPO family: four slots (see the package docstring), and what it asks of the groups it is fed."""

    advantage: Callable[[Rewards], Tensor]
    ratio: Callable[[Tensor, Tensor], Tensor]
    surrogate: Callable[[Tensor, Tensor, Tensor], Tensor]
    weighting: Callable[[Tensor, Tensor], Tensor]
    kl: KL | None = None
    correction: Callable[[Tensor, Tensor], Tensor] | None = None
    shaping: Callable[[Tensor], Tensor] | None = None
    no_signal: Literal["drop", "refill", "keep"] = "drop"  # what becomes of groups whose completions all score the same
    train_on_truncated: bool = True  # completions that ran into the length limit
    count_masked: bool = False  # completions that are not trained on count in the weighting's normaliser

    @property
    def needs_reference(self) -> bool:
        return self.kl is not None and self.kl.on

    def signal(self, rewards: Rewards) -> Tensor:
        """[N] bool: which groups can teach anything, judged on the rewards without shaping."""
        return (masked_center(rewards.total_NG, rewards.valid_NG) != 0).any(1)

    def loss(self, logprobs_BT: Tensor, batch: Batch) -> tuple[Tensor, Statistics]:
        """-J over some rows of the step. Rows add up: any split of the step gives the same sum and gradient."""
        on_BT = batch.mask_BT > 0

        def clean(x_BT: Tensor) -> Tensor:
            x_BT = x_BT if x_BT.dtype == torch.float64 else x_BT.float()  # bfloat16 cannot tell 1.00 from 1.01
            return torch.where(on_BT, x_BT, 0.0)  # padding may hold anything, even nan

        logprobs_BT = clean(logprobs_BT)
        old_BT = logprobs_BT.detach() if batch.old_logprobs_BT is None else clean(batch.old_logprobs_BT)
        delta_BT = (old_BT - clean(batch.rollout_logprobs_BT)).clamp(-CLAMP, CLAMP)

        log_w_BT = self.ratio((logprobs_BT - old_BT).clamp(-CLAMP, CLAMP), batch.mask_BT)
        gain_BT = self.surrogate(log_w_BT, batch.advantages_B1, logprobs_BT)
        correction_BT = None if self.correction is None else self.correction(delta_BT, batch.mask_BT)
        if correction_BT is not None:
            gain_BT = gain_BT * correction_BT
        kl_BT = None
        if self.kl is not None and self.kl.on:
            if batch.ref_logprobs_BT is None:
                raise ValueError("this objective has a KL term, and the batch has no ref_logprobs_BT")
            kl_BT = self.kl.estimator(logprobs_BT, clean(batch.ref_logprobs_BT))
            gain_BT = gain_BT - batch.kl_coefficients_B1 * kl_BT
        loss = -(gain_BT * batch.weights_BT).sum()
        return loss, statistics(on_BT, log_w_BT.detach(), delta_BT, kl_BT, correction_BT)


@torch.no_grad()
def statistics(
    on_BT: Tensor, log_w_BT: Tensor, delta_BT: Tensor, kl_BT: Tensor | None, correction_BT: Tensor | None
) -> Statistics:
    """Plain sums over the trained tokens; `Statistics.means` divides them once the step is complete."""
    w, delta, mismatch_w = log_w_BT[on_BT].exp(), delta_BT[on_BT], delta_BT[on_BT].exp()
    sums = {
        "tokens": on_BT.sum(),
        "ratio": w.sum(),
        "mismatch": delta.abs().sum(),
        "mismatch_weight": mismatch_w.sum(),
        "mismatch_weight_squared": mismatch_w.square().sum(),
    }
    if kl_BT is not None:
        sums["kl_ref"] = kl_BT[on_BT].sum()
    if correction_BT is not None:
        sums["mismatch_masked"] = (correction_BT[on_BT] == 0).sum()
    peak = delta.abs().max() if delta.numel() else torch.zeros(())
    return Statistics({name: float(x) for name, x in sums.items()}, {"mismatch_max": float(peak)})
