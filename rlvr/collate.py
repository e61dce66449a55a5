"""Verified groups -> one Batch. The only place where lists become tensors, and where advantages are made
(but for a KL penalty in the reward, which needs the trainer's logprobs: `Objective.penalised`).

groups --> Rewards [N,G,K] --> advantages [N,G] --+
   \\                                              +--> Batch [B,T], one row a completion
    +----> token_ids, masks, logprobs [B,T] ------+
"""

from array import array
from collections.abc import Sequence

import torch
from torch import Tensor

from rlvr.objective import Batch, Objective, Rewards
from rlvr.types import Completion, Group, Prompt, Verdict


def collate(groups: Sequence[Group], objective: Objective, weights: dict[str, float]) -> Batch:
    """One row for every completion of every group, in order, the untrainable ones included (their mask is empty).

    `weights` are the recipe's weights of the reward parts; advantages are a function of all groups of the step.
    """
    rewards = rewards_of(groups, weights)
    present_NG = padded([[True] * len(group.completions) for group in groups], torch.bool)
    rewards = shaped(rewards, groups, objective)
    advantages_NG = objective.advantages(rewards)
    pairs = [(group.prompt, completion) for group in groups for completion in group.completions]
    prompts = [len(p.token_ids) for p, _ in pairs]  # tokens
    loss_mask_BT = padded([c.loss_mask for _, c in pairs], torch.float32, prompts)
    trained_B = rewarded_B = rewards.valid_NG[present_NG]
    if not objective.train_on_truncated:
        trained_B = rewarded_B & torch.tensor([c.stop_reason != "length" for _, c in pairs], dtype=torch.bool)
    mask_BT = loss_mask_BT * trained_B[:, None]
    counted_BT = loss_mask_BT if objective.count_masked else mask_BT
    kl = objective.kl
    return Batch(
        token_ids_BT=tokens(groups, prompts),
        lengths_B=torch.tensor([len(p.token_ids) + len(c.token_ids) for p, c in pairs], dtype=torch.int64),
        mask_BT=mask_BT,
        rollout_logprobs_BT=padded([c.rollout_logprobs for _, c in pairs], torch.float32, prompts),
        advantages_B1=advantages_NG[present_NG][:, None].float(),
        weights_BT=objective.weighting(mask_BT, counted_BT),
        counted_BT=counted_BT,
        kl_coefficients_B1=torch.tensor([[kl.of(p.domain) if kl else 0.0] for p, _ in pairs], dtype=torch.float32),
        rewards=rewards if objective.kl_in_reward else None,
        slots_B=present_NG.flatten().nonzero()[:, 0],
        kept_BTC=kept(pairs, loss_mask_BT.shape[1]) if objective.keep_sampling_mask else None,
        prompts_B=torch.tensor(prompts, dtype=torch.int64),
        penalised_BT=loss_mask_BT * rewarded_B[:, None] if objective.kl_in_reward else None,
    )


def tokens(groups: Sequence[Group], prompts: Sequence[int]) -> Tensor:
    """[B,T] each completion behind its prompt, of so many tokens."""
    token_ids_BT = padded([c.token_ids for group in groups for c in group.completions], torch.int64, prompts)
    rows = iter(token_ids_BT.numpy())
    for group in groups:
        before = array("i", group.prompt.token_ids)
        for _, row_T in zip(group.completions, rows, strict=False):
            row_T[: len(before)] = before
    return token_ids_BT


def kept(pairs: Sequence[tuple[Prompt, Completion]], T: int) -> Tensor | None:
    """[B,T,C] int32: of each token, the ids that it was sampled from, -1 behind them; None if all are always left."""
    C = max((len(ids) for _, c in pairs for ids in c.kept_ids or ()), default=0)
    if not C:
        return None
    kept_BTC = torch.full((len(pairs), T, C), -1, dtype=torch.int32)
    for kept_TC, (p, c) in zip(kept_BTC.numpy(), pairs, strict=True):
        for t, ids in enumerate(c.kept_ids or (), len(p.token_ids)):
            kept_TC[t, : len(ids)] = ids
    return kept_BTC


def rewards_of(groups: Sequence[Group], weights: dict[str, float]) -> Rewards:
    """[N,G,K] in float64: a mean of float32 rewards is not exact, and advantages divide by small spreads."""
    no_parts = [0.0] * len(weights)

    def parts_of(verdict: Verdict) -> list[float]:
        if not verdict.trainable:
            return no_parts
        return [verdict.parts[name] if weight else verdict.parts.get(name, 0.0) for name, weight in weights.items()]

    parts = [[parts_of(verdict) for verdict in group.verdicts] for group in groups]
    G = max((len(group.verdicts) for group in groups), default=1)
    parts_NGK = torch.tensor([[*rows, *[no_parts] * (G - len(rows))] for rows in parts], dtype=torch.float64).reshape(
        len(groups), G, len(weights)
    )
    valid_NG = padded([[v.trainable for v in group.verdicts] for group in groups], torch.bool)
    return Rewards(parts_NGK, torch.tensor(list(weights.values()), dtype=torch.float64), valid_NG)


def shaped(rewards: Rewards, groups: Sequence[Group], objective: Objective) -> Rewards:
    """The shaping by length joins as one more part of weight 1."""
    if objective.shaping is None:
        return rewards
    lengths_NG = padded([[c.length for c in group.completions] for group in groups], torch.float64)
    return rewards.plus(objective.shaping(lengths_NG))


def padded(rows: Sequence[Sequence], dtype: torch.dtype, starts: Sequence[int] | None = None) -> Tensor:
    """[rows, longest], zeros (False) before each row's start and behind its end; [0,1] without rows, for reductions to
    have a dimension."""
    starts = starts or [0] * len(rows)
    ends = [start + len(row) for start, row in zip(starts, rows, strict=True)]
    out_RT = torch.zeros(len(rows), max(ends, default=1), dtype=dtype)
    for out_T, start, end, row in zip(out_RT.numpy(), starts, ends, rows, strict=True):
        out_T[start:end] = row  # numpy copies an array, and reads a list in a third of torch's time
    return out_RT
