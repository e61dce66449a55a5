"""Does an objective work at all with this recipe's rewards? Found out on made-up tensors, before anything is paid."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rlvr.objective.advantages import decouple
from rlvr.objective.corrections import Mismatch
from rlvr.objective.objective import Batch, Objective
from rlvr.objective.rewards import Rewards

TOKENS = 3
SLOTS = ("advantage", "whitening", "ratio", "surrogate", "weighting", "correction", "shaping")


def trial(objective: Objective, weights: Sequence[float], group_size: int, max_tokens: int = TOKENS) -> None:
    """One group with every slot called as in training, with completions of up to `max_tokens`.

    ValueError when the objective refuses, makes something of the wrong shape or not finite, or teaches nothing where
    there is an advantage; whatever else a slot raises that cannot take its arguments, with the slot as a note.
    """
    own, objective = objective, watched(objective)
    G, K = group_size, len(weights)
    parts_1GK = torch.rand(1, G, K, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights_K = torch.tensor(list(weights), dtype=torch.float64)
    valid_1G = torch.ones(1, G, dtype=torch.bool)
    rewards = Rewards(parts_1GK, weights_K, valid_1G)
    within("advantage", objective.signal, rewards)
    refuse_added(own)
    refuse_one_sided(objective)
    if objective.shaping is not None:
        rewards = rewards.plus(objective.shaping(torch.full((1, G), float(TOKENS))))
        lengths_1G = torch.linspace(1, max_tokens, G, dtype=torch.float64)[None]
        shaped = Rewards(parts_1GK, weights_K, valid_1G).plus(objective.shaping(lengths_1G))
        advantages_of(objective.advantages, shaped)
    equal = Rewards(torch.ones_like(parts_1GK), weights_K, valid_1G)  # whitened only where such groups are kept
    whole = objective.no_signal == "keep"
    advantages_of(objective.advantages if whole else objective.advantage, equal, ", all of the same reward,")
    advantages_1G = advantages_of(objective.advantages, rewards)
    mask_GT = torch.ones(G, TOKENS)
    weights_GT = objective.weighting(mask_GT, mask_GT)
    batch = Batch.of_tokens(torch.zeros(G, TOKENS, dtype=torch.int64))
    batch = replace(batch, mask_BT=mask_GT, weights_BT=weights_GT, advantages_B1=advantages_1G.T.float())
    ones_GT = torch.ones(G, TOKENS)
    for now, old in ((-0.1, 0.0), (-2.1, -0.1), (-0.1, -2.1)):
        gradient(objective, now, replace(batch, old_logprobs_BT=old * ones_GT, ref_logprobs_BT=old * ones_GT))
    slope_GT = gradient(replace(objective, kl=None), -1.0, replace(batch, rollout_logprobs_BT=-ones_GT))
    if advantages_1G.any() and not slope_GT.any():
        raise ValueError("with pi = pi_old = pi_rollout the loss has no gradient: this algorithm would teach nothing")


def refuse_added(objective: Objective) -> None:
    """GDPO knows parts and no reward that they make: what is added to the reward would be one more part, and normalised
    as they are. A penalty of 0.001 would count as much as one of 1."""
    if getattr(objective.advantage, "func", objective.advantage) is not decouple:
        return
    if objective.kl_in_reward:
        raise ValueError(
            "decouple (GDPO) normalises a KL penalty in the reward as it does every part, so that its coefficient "
            "means nothing; set algorithm.kl.place=loss"
        )
    if objective.shaping is not None:
        raise ValueError(
            "decouple (GDPO) normalises what algorithm.shaping adds as it does every part, so that its size means "
            "nothing; set algorithm.shaping=null, and algorithm.train_on_truncated=false or a reward part `length`"
        )


def refuse_one_sided(objective: Objective) -> None:
    """A penalty in the reward has no gradient of its own: it says only which tokens to sample less. One that is paid
    for a token that the policy has left, too, makes it leave that one further (arXiv:2510.01555)."""
    if objective.kl is None or not objective.kl_in_reward:
        return
    now_1T, ref_1T = torch.full((1, TOKENS), -2.0), torch.full((1, TOKENS), -1.0)
    if (objective.kl.estimator(now_1T, ref_1T, torch.zeros(1, TOKENS)) >= 0).any():
        raise ValueError(
            "algorithm.kl.place=reward with an estimate that is not below 0 where pi is below pi_ref: the penalty "
            "would drive the policy further from what it has left; use rlvr.objective.kl.k1, or set "
            "algorithm.kl.place=loss"
        )


def watched(objective: Objective) -> Objective:
    """The same, with slots that say which they are, and make a tensor of the shape that they owe: where the loss can
    broadcast another one it teaches something else. What an advantage owes is another check's."""
    slots = {slot: getattr(objective, slot) for slot in SLOTS}
    made: dict[str, Any] = {slot: partial(called, slot, own) for slot, own in slots.items() if own is not None}
    if objective.kl is not None:
        made["kl"] = replace(objective.kl, estimator=partial(called, "kl.estimator", objective.kl.estimator))
    return replace(objective, **made)


def called(slot: str, function: Callable[..., Tensor], *arguments: Any, **named: Any) -> Tensor:
    made, first = within(slot, function, *arguments, **named), next(iter((*arguments, *named.values())))
    like = first.delta_BT if isinstance(first, Mismatch) else first
    if not isinstance(made, Tensor):
        raise ValueError(f"{slot} made a {type(made).__name__}, no tensor")
    if isinstance(like, Tensor) and made.shape != like.shape:
        raise ValueError(f"{slot} made {tuple(made.shape)} of {tuple(like.shape)}")
    return made


def within(slot: str, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    try:
        return function(*arguments, **named)
    except Exception as error:
        error.add_note(f"algorithm.{slot}")
        raise


def advantages_of(make: Callable[[Rewards], Tensor], rewards: Rewards, which: str = "") -> Tensor:
    G = rewards.valid_NG.shape[1]
    made_1G = make(rewards)
    if made_1G.shape != (1, G) or not made_1G.isfinite().all():
        raise ValueError(f"advantages of one group of {G} completions{which} must be finite [1,{G}], got {made_1G}")
    return made_1G


def gradient(objective: Objective, logprob: float, batch: Batch) -> Tensor:
    """[G,T] of the loss, where every token has the same logprob."""
    logprobs_GT = torch.full_like(batch.mask_BT, logprob, requires_grad=True)
    loss, _ = objective.loss(logprobs_GT, batch)
    gradient_GT = torch.autograd.grad(loss, logprobs_GT)[0] if loss.requires_grad else None
    if gradient_GT is None or not gradient_GT.isfinite().all():
        raise ValueError(f"the loss must have a finite gradient to the logprobs; {loss} has {gradient_GT}")
    return gradient_GT
