"""Does an objective work at all with this recipe's rewards? Found out on made-up tensors, before anything is paid."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from rlvr.objective.objective import Batch, Objective
from rlvr.objective.rewards import Rewards

TOKENS = 3


def trial(objective: Objective, weights: Sequence[float], group_size: int) -> None:
    """One group with every slot called as in training.

    ValueError when the objective refuses, or makes something of the wrong shape or not finite; whatever else a slot
    raises that cannot take its arguments.
    """
    G, K = group_size, len(weights)
    parts_1GK = torch.rand(1, G, K, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights_K = torch.tensor(list(weights), dtype=torch.float64)
    rewards = Rewards(parts_1GK, weights_K, torch.ones(1, G, dtype=torch.bool))
    objective.signal(rewards)
    if objective.shaping is not None:
        rewards = rewards.plus(objective.shaping(torch.full((1, G), float(TOKENS))))
    advantages_1G = objective.advantages(rewards)
    if advantages_1G.shape != (1, G) or not advantages_1G.isfinite().all():
        raise ValueError(f"advantages of one group of {G} completions must be finite [1,{G}], got {advantages_1G}")
    mask_GT = torch.ones(G, TOKENS)
    weights_GT = objective.weighting(mask_GT, mask_GT)
    if weights_GT.shape != mask_GT.shape:
        raise ValueError(f"weighting made {tuple(weights_GT.shape)} of a mask {tuple(mask_GT.shape)}")
    zeros_GT = torch.zeros(G, TOKENS)
    batch = Batch.of_tokens(torch.zeros(G, TOKENS, dtype=torch.int64))
    batch = replace(batch, mask_BT=mask_GT, weights_BT=weights_GT, advantages_B1=advantages_1G.T.float())
    batch = replace(batch, old_logprobs_BT=zeros_GT, ref_logprobs_BT=zeros_GT)
    logprobs_GT = torch.full((G, TOKENS), -0.1, requires_grad=True)
    loss, _ = objective.loss(logprobs_GT, batch)
    gradient_GT = torch.autograd.grad(loss, logprobs_GT)[0] if loss.requires_grad else None
    if gradient_GT is None or not gradient_GT.isfinite().all():
        raise ValueError(f"the loss must have a finite gradient to the logprobs; {loss} has {gradient_GT}")
