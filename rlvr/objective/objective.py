"""A variant is a choice of functions; the loss is one sum over tokens. Knows tensors, no records and no config."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor

from rlvr.objective.corrections import Correction, Mismatch
from rlvr.objective.kl import CLAMP, KL
from rlvr.objective.limits import beyond
from rlvr.objective.rewards import Rewards


@dataclass(frozen=True, slots=True)
class Batch:
    """A step's completions as padded tensors; a row is prompt and completion. Every `_BT` tensor at [b,t] is about
    `token_ids_BT[b,t]` itself, which position t-1 predicts; position 0 is never scored."""

    token_ids_BT: Tensor  # int64
    lengths_B: Tensor  # tokens of each row, prompt included
    mask_BT: Tensor  # 1.0 on the tokens that are trained on
    rollout_logprobs_BT: Tensor
    advantages_B1: Tensor
    weights_BT: Tensor  # each token's share of the loss, over the whole step
    counted_BT: Tensor  # 1.0 on the tokens that the weighting's normaliser counts
    kl_coefficients_B1: Tensor
    old_logprobs_BT: Tensor | None = None  # None: this is the first step on the batch, so pi_old is pi
    ref_logprobs_BT: Tensor | None = None
    rewards: Rewards | None = None  # what the advantages were made of, for a KL penalty in the reward
    slots_B: Tensor | None = None  # each row's place in the rewards' flattened [N,G]
    kept_BTC: Tensor | None = None  # int32: up to C token ids that top-p/top-k left, then -1; no id: none was cut off
    prompts_B: Tensor | None = None  # int64: tokens of each row's prompt; None: not known, so none is shared
    penalised_BT: Tensor | None = None  # 1.0 on the tokens that a KL penalty in the reward is of; None: as mask_BT

    @classmethod
    def of_tokens(cls, token_ids_BT: Tensor) -> "Batch":
        """Bare sequences of equal length, every token but the first to be scored; nothing to learn from."""
        B, T = token_ids_BT.shape
        zeros_BT, zeros_B1 = torch.zeros(B, T), torch.zeros(B, 1)
        mask_BT = torch.ones(B, T)
        mask_BT[:, 0] = 0.0
        return cls(token_ids_BT, torch.full((B,), T), mask_BT, zeros_BT, zeros_B1, zeros_BT, mask_BT, zeros_B1)

    def __len__(self) -> int:
        return len(self.token_ids_BT)

    @property
    def scored_BT(self) -> Tensor:
        """1.0 on the tokens whose old and reference logprobs are asked for."""
        return self.mask_BT if self.penalised_BT is None else self.penalised_BT

    def rows(self, index: Tensor | list[int] | slice) -> "Batch":
        """The same batch with some of its completions, cut to the longest of them; without the groups' rewards."""
        width = int(self.lengths_B[index].max()) if len(self.lengths_B[index]) else 0
        cut = {name: x[index] for name, x in self._tensors()}
        cut = {name: x[:, :width] if "_BT" in name else x for name, x in cut.items()}
        return replace(self, **cut | {"rewards": None})

    def to(self, device: torch.device | str) -> "Batch":
        """The per-completion tensors on `device`."""
        return replace(self, **{name: x.to(device) for name, x in self._tensors()})

    def _tensors(self) -> Iterator[tuple[str, Any]]:
        for field_ in fields(self):
            if isinstance(value := getattr(self, field_.name), Tensor):
                yield field_.name, value


def largest(values: Sequence[float]) -> float:
    """max, but nan where one is: in Python's it depends on where it stands."""
    return math.nan if any(map(math.isnan, values)) else max(values)


@dataclass(slots=True)
class Statistics:
    """What one loss saw. Everything adds up over micro-batches, ranks and the updates of a step (`maxima` by max), then
    `means` divides."""

    sums: dict[str, float] = field(default_factory=dict)
    maxima: dict[str, float] = field(default_factory=dict)

    def __add__(self, other: "Statistics") -> "Statistics":
        sums = {k: self.sums.get(k, 0.0) + other.sums.get(k, 0.0) for k in {*self.sums, *other.sums}}
        both = {*self.maxima, *other.maxima}
        return Statistics(sums, {k: largest((self.maxima.get(k, 0.0), other.maxima.get(k, 0.0))) for k in both})

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
            "policy/clipped": self.sums["clipped"] / tokens,
            "mismatch/mean_abs": self.sums["mismatch"] / tokens,
            "mismatch/max_abs": self.maxima["mismatch_max"],
            # Kish's effective sample size of the importance weights, as a share of the tokens: 1 when all are equal
            "mismatch/ess": weight**2 / self.sums["mismatch_weight_squared"] / tokens,
        }
        if "entropy" in self.sums:  # the trainer adds it: a loss does not see it
            means["policy/entropy"] = self.sums["entropy"] / tokens
        if "kl_ref" in self.sums:
            means["policy/kl_ref"] = self.sums["kl_ref"] / tokens
        if "mismatch_masked" in self.sums:
            means["mismatch/masked"] = self.sums["mismatch_masked"] / tokens
        return means


@dataclass(frozen=True)
class Objective:
    """A member of the GRPO family: four slots (see the package docstring), and what it asks of the groups it is fed.

    ValueError for a parameter of one of our own functions that cannot be meant.
    """

    advantage: Callable[[Rewards], Tensor]
    ratio: Callable[[Tensor, Tensor], Tensor]
    surrogate: Callable[[Tensor, Tensor, Tensor], Tensor]
    weighting: Callable[[Tensor, Tensor], Tensor]
    whitening: Callable[[Tensor, Tensor], Tensor] | None = None  # of the advantages, over the step
    kl: KL | None = None
    correction: Correction | None = None
    shaping: Callable[[Tensor], Tensor] | None = None
    no_signal: Literal["drop", "refill", "keep"] = "drop"  # what becomes of groups whose completions all score the same
    train_on_truncated: bool = True  # completions that ran into the length limit
    count_masked: bool = False  # completions that are not trained on count in the weighting's normaliser
    keep_sampling_mask: bool = False  # the softmax runs over the tokens that top-p/top-k left (arXiv:2512.02556)

    def __post_init__(self) -> None:
        slots = ("advantage", "surrogate", "weighting", "whitening", "correction", "shaping")
        for said in (said for slot in slots for said in beyond(slot, getattr(self, slot))):
            raise ValueError(said)

    @property
    def needs_reference(self) -> bool:
        return self.kl is not None and self.kl.on

    @property
    def start_is_reference(self) -> bool:
        """The KL term holds on to the model that training began with."""
        return self.kl is not None and self.kl.on and self.kl.reference is None

    @property
    def kl_in_reward(self) -> bool:
        return self.kl is not None and self.kl.on and self.kl.place == "reward"

    def signal(self, rewards: Rewards) -> Tensor:
        """[N] bool: which groups can teach anything, judged on the rewards without shaping."""
        return (self.advantage(rewards) != 0).any(1)

    def advantages(self, rewards: Rewards) -> Tensor:
        """[N,G] both stages; 0 where there is no reward."""
        if not len(rewards.valid_NG):  # every group of the step was dropped: no variant need know what that means
            return rewards.total_NG
        advantages_NG = self.advantage(rewards)
        return advantages_NG if self.whitening is None else self.whitening(advantages_NG, rewards.valid_NG)

    def part(self, batch: Batch, rows: Tensor | list[int] | slice) -> Batch:
        """Some rows as an optimizer step of their own: shares of the loss are of these rows."""
        part = batch.rows(rows)
        return replace(part, weights_BT=self.weighting(part.mask_BT, part.counted_BT))

    @torch.no_grad()
    def penalised(self, batch: Batch) -> Batch:
        """The KL penalty in the reward: advantages of r - coefficient * sum of the estimate over the completion,
        truncated ones that are not trained on included: they are in their group's mean."""
        assert self.kl and batch.rewards and batch.slots_B is not None and batch.old_logprobs_BT is not None
        on_BT = batch.scored_BT > 0
        old_BT, ref_BT = _clean(batch.old_logprobs_BT, on_BT), _clean(self._reference(batch), on_BT)
        kl_B = self.kl.estimator(old_BT, ref_BT, torch.zeros_like(old_BT)).sum(1)
        shape = batch.rewards.valid_NG.shape
        penalty_NG = torch.zeros(shape.numel(), dtype=torch.float64)
        penalty_NG[batch.slots_B] = -(batch.kl_coefficients_B1[:, 0] * kl_B).double()
        advantages_NG = self.advantages(batch.rewards.plus(penalty_NG.view(shape)))
        return replace(batch, advantages_B1=advantages_NG.flatten()[batch.slots_B][:, None].float())

    def loss(self, logprobs_BT: Tensor, batch: Batch) -> tuple[Tensor, Statistics]:
        """-J over some rows of the step. Rows add up: any split of the step gives the same sum and gradient."""
        on_BT = batch.mask_BT > 0
        logprobs_BT = _clean(logprobs_BT, on_BT)
        now_BT = logprobs_BT.detach()
        old_BT = now_BT if batch.old_logprobs_BT is None else _clean(batch.old_logprobs_BT, on_BT)
        rollout_BT = _clean(batch.rollout_logprobs_BT, on_BT)
        delta_BT = (old_BT - rollout_BT).clamp(-CLAMP, CLAMP)

        log_ratio_BT = (logprobs_BT - old_BT).clamp(-CLAMP, CLAMP)
        log_w_BT = self.ratio(log_ratio_BT, batch.mask_BT)
        gain_BT = self.surrogate(log_w_BT, batch.advantages_B1, logprobs_BT)
        weight_BT = torch.ones_like(delta_BT)
        if self.correction is not None:
            drift_BT = (now_BT - rollout_BT).clamp(-CLAMP, CLAMP)
            weight_BT = self.correction(Mismatch(delta_BT, drift_BT, batch.mask_BT, batch.advantages_B1))
            gain_BT = gain_BT * weight_BT
        clipped_BT = without_gradient(gain_BT, logprobs_BT, batch.advantages_B1, weight_BT)
        kl_BT = None
        if self.kl is not None and self.kl.on:
            kl_BT = self.kl.estimator(logprobs_BT, _clean(self._reference(batch), on_BT), log_ratio_BT)
            if self.kl.place == "loss":
                gain_BT = gain_BT - batch.kl_coefficients_B1 * kl_BT
        loss = -(gain_BT * batch.weights_BT).sum()
        seen = {"ratio": log_w_BT.detach().exp(), "clipped": clipped_BT, "mismatch": delta_BT.abs()}
        seen |= {"mismatch_weight": delta_BT.exp(), "mismatch_weight_squared": (2 * delta_BT).exp()}
        if kl_BT is not None:
            seen["kl_ref"] = kl_BT.detach()
        if self.correction is not None:
            seen["mismatch_masked"] = weight_BT == 0
        return loss, statistics(on_BT, seen)

    def _reference(self, batch: Batch) -> Tensor:
        if batch.ref_logprobs_BT is None:
            raise ValueError("this objective has a KL term, and the batch has no ref_logprobs_BT")
        return batch.ref_logprobs_BT


def _clean(x_BT: Tensor, on_BT: Tensor) -> Tensor:
    """Where a token is trained on, in float32 at least; elsewhere 0: padding may hold anything, even nan."""
    x_BT = x_BT if x_BT.dtype == torch.float64 else x_BT.float()  # bfloat16 cannot tell 1.00 from 1.01
    return torch.where(on_BT, x_BT, 0.0)


def without_gradient(gain_BT: Tensor, logprobs_BT: Tensor, advantages_B1: Tensor, weight_BT: Tensor) -> Tensor:
    """[B,T] bool: tokens with an advantage that a clip, whichever it is, keeps from teaching. Not those of a mask."""
    if not gain_BT.requires_grad:
        return torch.zeros_like(gain_BT, dtype=torch.bool)
    (slope_BT,) = torch.autograd.grad(gain_BT.sum(), logprobs_BT, retain_graph=True)
    return (slope_BT == 0) & (advantages_B1 != 0) & (weight_BT != 0)


@torch.no_grad()
def statistics(on_BT: Tensor, seen: dict[str, Tensor]) -> Statistics:
    """Plain sums over the trained tokens; `Statistics.means` divides them once the step is complete."""
    sums = {name: float(x_BT[on_BT].double().sum()) for name, x_BT in seen.items()}
    peak = seen["mismatch"][on_BT]
    return Statistics(sums | {"tokens": float(on_BT.sum())}, {"mismatch_max": float(peak.max()) if len(peak) else 0.0})
