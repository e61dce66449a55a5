"""What must be true of every member of the family: each file in recipes/algorithm against the same properties."""

import random
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import Tensor
from torch.testing import assert_close

from rlvr.collate import collate
from rlvr.objective import Batch, Objective, Statistics
from rlvr.types import Completion, Group
from tests.builders import completion, prompt, verdict

FOLDER = Path(__file__).parents[2] / "recipes" / "algorithm"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
MAX_TOKENS = 6
WEIGHTS = {"math": 1.0, "format": 0.25}

every_algorithm = pytest.mark.parametrize("name", NAMES)
few = settings(max_examples=25, deadline=None, derandomize=True)
seeds = st.integers(0, 2**31)


@cache
def load(name: str) -> Objective:
    cfg = OmegaConf.create(
        {"rollout": {"max_tokens": MAX_TOKENS}, "algorithm": OmegaConf.load(FOLDER / f"{name}.yaml")}
    )
    return instantiate(cfg.algorithm)


def random_completion(rng: random.Random) -> Completion:
    length = rng.randint(0, MAX_TOKENS)
    return completion(
        [rng.randrange(1, 50) for _ in range(length)],
        [rng.random() < 0.8 for _ in range(length)],
        [-rng.random() for _ in range(length)],
        stop_reason="length" if length == MAX_TOKENS else "eos",
    )


def random_group(rng: random.Random, position: int) -> Group:
    completions = tuple(random_completion(rng) for _ in range(rng.randint(2, 5)))
    verdicts = tuple(
        verdict(None)
        if rng.random() < 0.2
        else verdict(0.0, {"math": rng.choice([0.0, 0.5, 1.0]), "format": rng.random()})
        for _ in completions
    )
    domain = rng.choice(["math", "chat", "default"])
    return Group(
        prompt(position, [rng.randrange(1, 50) for _ in range(rng.randint(1, 3))], domain), completions, verdicts
    )


def random_groups(seed: int) -> list[Group]:
    rng = random.Random(seed)
    return [random_group(rng, position) for position in range(rng.randint(1, 3))]


def noisy(batch: Batch, seed: int, spread: float = 0.2) -> tuple[Tensor, Batch]:
    """Logprobs of a policy that has moved, in float64, and the batch with old and reference ones."""
    generator = torch.Generator().manual_seed(seed)

    def near(x_BT: Tensor) -> Tensor:
        return x_BT + spread * torch.randn(x_BT.shape, generator=generator, dtype=torch.float64)

    old_BT = near(batch.rollout_logprobs_BT.double())
    return near(old_BT), replace(batch, old_logprobs_BT=old_BT, ref_logprobs_BT=near(old_BT))


def loss_and_gradient(objective: Objective, logprobs_BT: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    x = logprobs_BT.clone().requires_grad_()
    loss, _ = objective.loss(x, batch)
    return loss.detach(), torch.autograd.grad(loss, x)[0]


def test_there_are_algorithms():
    family = "grpo grpo_no_kl dr_grpo dapo gspo cispo rloo reinforce_pp maxrl gdpo olmo3 deepseek_v32 sapo stable"
    assert set(family.split()) == set(NAMES)


@every_algorithm
def test_a_recipe_is_a_complete_objective_that_inherits_nothing(name):
    assert isinstance(load(name), Objective)
    assert "defaults" not in OmegaConf.load(FOLDER / f"{name}.yaml")


@every_algorithm
def test_a_step_whose_groups_were_all_dropped_is_an_empty_batch_with_a_loss_of_0(name):
    objective = load(name)
    batch = collate([], objective, WEIGHTS)
    assert len(batch) == 0
    x = torch.zeros(batch.token_ids_BT.shape, requires_grad=True)
    loss, statistics = objective.loss(x, replace(batch, ref_logprobs_BT=torch.zeros_like(batch.mask_BT)))
    assert loss.item() == 0 and statistics.means() == {}


@every_algorithm
@few
@given(seed=seeds)
def test_permuting_the_completions_of_a_group_permutes_its_advantages(name, seed):
    groups = random_groups(seed)
    rng = random.Random(seed)
    orders = [rng.sample(range(len(g.completions)), len(g.completions)) for g in groups]
    shuffled = [
        replace(g, completions=tuple(g.completions[i] for i in order), verdicts=tuple(g.verdicts[i] for i in order))
        for g, order in zip(groups, orders, strict=True)
    ]
    sizes = [len(order) for order in orders]
    before = collate(groups, load(name), WEIGHTS)
    after = collate(shuffled, load(name), WEIGHTS)
    for x, y in ((before.advantages_B1, after.advantages_B1), (before.weights_BT, after.weights_BT)):
        for mine, theirs, order in zip(x.split(sizes), y.split(sizes), orders, strict=True):
            assert_close(theirs, mine[order])


@every_algorithm
@few
@given(seed=seeds)
def test_advantages_of_a_group_sum_to_zero(name, seed):
    objective = replace(load(name), shaping=None)
    groups = random_groups(seed)
    advantages_B1 = collate(groups, objective, WEIGHTS).advantages_B1
    for mine in advantages_B1.split([len(g.completions) for g in groups]):
        assert abs(float(mine.sum())) < 1e-4


@every_algorithm
@few
@given(seed=seeds, columns=st.integers(1, 9))
def test_padding_changes_neither_loss_nor_gradient(name, seed, columns):
    objective = load(name)
    logprobs, batch = noisy(collate(random_groups(seed), objective, WEIGHTS), seed)

    def wider(x_BT: Tensor, fill: float = 0.0) -> Tensor:
        return torch.cat([x_BT, torch.full((len(x_BT), columns), fill, dtype=x_BT.dtype)], dim=1)

    mask_BT = wider(batch.mask_BT)
    padded = replace(
        batch,
        token_ids_BT=wider(batch.token_ids_BT),
        mask_BT=mask_BT,
        rollout_logprobs_BT=wider(batch.rollout_logprobs_BT, torch.nan),
        old_logprobs_BT=wider(batch.old_logprobs_BT, torch.nan),
        ref_logprobs_BT=wider(batch.ref_logprobs_BT, torch.nan),
        weights_BT=objective.weighting(mask_BT, mask_BT),
        counted_BT=mask_BT,
    )
    loss, grad = loss_and_gradient(objective, logprobs, batch)
    padded_loss, padded_grad = loss_and_gradient(objective, wider(logprobs, torch.nan), padded)
    assert_close(padded_loss, loss)
    assert_close(padded_grad, wider(grad))


@every_algorithm
@few
@given(seed=seeds)
def test_masked_tokens_are_inert_even_when_they_hold_nan(name, seed):
    objective = load(name)
    logprobs, batch = noisy(collate(random_groups(seed), objective, WEIGHTS), seed)
    _, grad = loss_and_gradient(objective, logprobs, batch)
    assert (grad[batch.mask_BT == 0] == 0).all()
    garbage = torch.where(batch.mask_BT > 0, logprobs, torch.nan)
    assert_close(loss_and_gradient(objective, garbage, batch), loss_and_gradient(objective, logprobs, batch))


@every_algorithm
@few
@given(seed=seeds, pieces=st.integers(1, 4))
def test_micro_batches_add_up_to_the_whole(name, seed, pieces):
    objective = load(name)
    logprobs, batch = noisy(collate(random_groups(seed), objective, WEIGHTS), seed)
    x = logprobs.clone().requires_grad_()
    dealt = random.Random(seed).sample(range(len(batch)), len(batch))
    loss, statistics = torch.zeros((), dtype=torch.float64), Statistics()
    for piece in range(pieces):
        rows = dealt[piece::pieces]
        micro = batch.rows(rows)
        micro_loss, micro_statistics = objective.loss(x[rows][:, : micro.token_ids_BT.shape[1]], micro)
        loss, statistics = loss + micro_loss, statistics + micro_statistics
    (grad,) = torch.autograd.grad(loss, x)
    whole_loss, whole_grad = loss_and_gradient(objective, logprobs, batch)
    assert_close(loss.detach(), whole_loss)
    assert_close(grad, whole_grad)
    assert statistics.means() == pytest.approx(objective.loss(x, batch)[1].means(), rel=1e-5)


@every_algorithm
@few
@given(seed=seeds)
def test_on_policy_the_gradient_is_that_of_the_plain_policy_gradient(name, seed):
    """With pi = pi_old = pi_rollout = pi_ref every variant is REINFORCE: -A times the token's share."""
    objective = load(name)
    batch = collate(random_groups(seed), objective, WEIGHTS)
    logprobs = batch.rollout_logprobs_BT.double()
    for old in (None, logprobs):
        of = replace(batch, old_logprobs_BT=old, ref_logprobs_BT=logprobs)
        _, grad = loss_and_gradient(objective, logprobs, of)
        assert_close(grad, (-batch.advantages_B1 * batch.weights_BT).double())


@every_algorithm
@few
@given(seed=seeds)
def test_completions_that_no_verifier_could_judge_do_not_matter(name, seed):
    """Adding some to every group changes no loss and no gradient of the others, whatever they are."""
    objective = replace(load(name), count_masked=False)
    groups, rng = random_groups(seed), random.Random(seed)
    sizes = [len(g.completions) for g in groups]
    more = [
        replace(g, completions=(*g.completions, random_completion(rng)), verdicts=(*g.verdicts, verdict(None)))
        for g in groups
    ]
    batch, larger = collate(groups, objective, WEIGHTS), collate(more, objective, WEIGHTS)
    starts = [sum(size + 1 for size in sizes[:n]) for n in range(len(sizes))]
    same = [start + i for start, size in zip(starts, sizes, strict=True) for i in range(size)]

    logprobs, batch = noisy(batch, seed)

    def widened(x_BT: Tensor, fill: float) -> Tensor:
        out = torch.full(larger.token_ids_BT.shape, fill, dtype=x_BT.dtype)
        out[same, : x_BT.shape[1]] = x_BT
        return out

    larger = replace(
        larger,
        old_logprobs_BT=widened(batch.old_logprobs_BT, -3.0),
        ref_logprobs_BT=widened(batch.ref_logprobs_BT, -5.0),
    )
    loss, grad = loss_and_gradient(objective, logprobs, batch)
    larger_loss, larger_grad = loss_and_gradient(objective, widened(logprobs, -1.0), larger)
    assert_close(larger_loss, loss)
    assert_close(larger_grad, widened(grad, 0.0))


@every_algorithm
@few
@given(seed=seeds)
def test_a_better_completion_becomes_more_likely(name, seed):
    """The sign of everything at once: a gradient step raises the trained tokens of the best, and lowers the worst."""
    objective = replace(load(name), shaping=None)
    rewards = random.Random(seed).sample([0.0, 0.25, 0.5, 1.0], 4)
    made = Group(
        prompt(), tuple(completion() for _ in rewards), tuple(verdict(0.0, {"math": r, "format": r}) for r in rewards)
    )
    batch = collate([made], objective, WEIGHTS)
    logprobs = batch.rollout_logprobs_BT.double()
    _, grad = loss_and_gradient(objective, logprobs, replace(batch, ref_logprobs_BT=logprobs))
    best, worst = rewards.index(1.0), rewards.index(0.0)
    assert (grad[best][batch.mask_BT[best] > 0] < 0).all() and (grad[worst][batch.mask_BT[worst] > 0] > 0).all()


@every_algorithm
@pytest.mark.parametrize("spread", [30.0, 1000.0])
def test_a_policy_far_away_gives_finite_losses_and_gradients(name, spread):
    objective = load(name)
    logprobs, batch = noisy(collate(random_groups(3), objective, WEIGHTS), seed=3, spread=spread)
    loss, grad = loss_and_gradient(objective, logprobs.float(), batch)
    assert loss.isfinite() and grad.isfinite().all()
