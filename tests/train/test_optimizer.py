"""GuardedAdamW is AdamW with clipping, except that a gradient that is not finite changes nothing, on any rank."""

import math

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from rlvr.train.optimizer import GuardedAdamW
from tests.train.processes import as_ranks


def parameters(*gradients: list[float]) -> list[nn.Parameter]:
    made = [nn.Parameter(torch.ones(len(gradient))) for gradient in gradients]
    for parameter, gradient in zip(made, gradients, strict=True):
        parameter.grad = torch.tensor(gradient)
    return made


@pytest.mark.parametrize("max_norm", [None, 100.0])
def test_a_finite_gradient_is_an_adamw_step(max_norm):
    mine, theirs = parameters([1.0, -2.0], [3.0]), parameters([1.0, -2.0], [3.0])
    guarded = GuardedAdamW(mine, max_norm=max_norm, lr=0.1, betas=(0.9, 0.95), weight_decay=0.1)
    plain = torch.optim.AdamW(theirs, lr=0.1, betas=(0.9, 0.95), weight_decay=0.1)
    for _ in range(3):
        guarded.step()
        plain.step()
    assert_close(mine, theirs)
    assert guarded.skipped is False


def test_the_norm_over_all_parameters_is_clipped_to_its_limit():
    # |(3, 0, 4)| = 5, clipped to 1: divided by 5
    mine = parameters([3.0, 0.0], [4.0])
    guarded = GuardedAdamW(mine, max_norm=1.0, lr=0.1)
    guarded.step()
    assert guarded.norm == pytest.approx(5.0)
    assert_close(mine[0].grad, torch.tensor([0.6, 0.0]), atol=1e-5, rtol=0)
    assert_close(mine[1].grad, torch.tensor([0.8]), atol=1e-5, rtol=0)


def test_a_small_gradient_is_not_scaled_up():
    mine = parameters([0.3, 0.4])
    guarded = GuardedAdamW(mine, max_norm=1.0, lr=0.1)
    guarded.step()
    assert guarded.norm == pytest.approx(0.5)
    assert_close(mine[0].grad, torch.tensor([0.3, 0.4]))


def test_the_step_is_taken_with_the_clipped_gradient():
    """Adam forgets the scale of a first gradient, so the second one tells: 1 then 100 clipped to 1 is 1 then 1."""
    mine, theirs = parameters([1.0]), parameters([1.0])
    guarded, plain = GuardedAdamW(mine, max_norm=1.0, lr=0.1), torch.optim.AdamW(theirs, lr=0.1)
    for gradient in (1.0, 100.0):
        mine[0].grad = torch.tensor([gradient])
        theirs[0].grad = torch.tensor([1.0])
        guarded.step()
        plain.step()
    assert_close(mine, theirs)


def test_without_a_limit_nothing_is_clipped():
    mine = parameters([3.0, 4.0])
    guarded = GuardedAdamW(mine, lr=0.1)
    guarded.step()
    assert guarded.norm is None
    assert_close(mine[0].grad, torch.tensor([3.0, 4.0]))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("max_norm", [None, 1.0])
def test_a_gradient_that_is_not_finite_touches_neither_weights_nor_moments(bad, max_norm):
    mine, theirs = parameters([1.0, 2.0], [3.0]), parameters([1.0, 2.0], [3.0])
    guarded = GuardedAdamW(mine, max_norm=max_norm, lr=0.1, weight_decay=0.1)
    reference = GuardedAdamW(theirs, max_norm=max_norm, lr=0.1, weight_decay=0.1)
    guarded.step()
    reference.step()
    before = [p.detach().clone() for p in mine]
    mine[1].grad = torch.tensor([bad])
    guarded.step()
    assert guarded.skipped is True
    assert_close([p.detach() for p in mine], before)
    # and the next good step is the one that would have come without it
    for p, q in zip(mine, theirs, strict=True):
        p.grad, q.grad = torch.ones_like(p), torch.ones_like(q)
    guarded.step()
    reference.step()
    assert guarded.skipped is False
    assert_close(mine, theirs)


def test_an_empty_shard_and_huge_gradients_are_finite():
    mine = parameters([], [3e38, -3e38, 3e38])
    guarded = GuardedAdamW(mine, lr=0.1)
    guarded.step()
    assert guarded.skipped is False


@given(
    values=st.lists(st.floats(width=32), min_size=1, max_size=70),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_a_step_is_skipped_where_any_number_is_not_finite(values, dtype):
    gradient = torch.tensor(values, dtype=dtype)
    parameter = nn.Parameter(torch.ones_like(gradient))
    parameter.grad = gradient
    guarded = GuardedAdamW([parameter], lr=0.1)
    guarded.step()
    assert guarded.skipped is not bool(gradient.isfinite().all())


def test_looking_for_what_is_not_finite_takes_no_memory():
    """Not even a byte for each: the GPU may be full."""

    class Made(TorchDispatchMode):
        largest = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            self.largest = max(self.largest, getattr(result, "nbytes", 0))
            return result

    parameter = parameters([math.nan] * 1000)
    with Made() as made:
        GuardedAdamW(parameter, lr=0.1).step()
    assert made.largest < 100


def test_a_skipped_step_reports_its_norm():
    guarded = GuardedAdamW(parameters([1.0, math.nan]), max_norm=1.0, lr=0.1)
    guarded.step()
    assert guarded.norm is not None and math.isnan(guarded.norm)


def test_parameters_without_a_gradient_are_left_alone():
    mine = [*parameters([1.0]), nn.Parameter(torch.ones(2))]
    GuardedAdamW(mine, max_norm=1.0, lr=0.1).step()
    assert_close(mine[1].detach(), torch.ones(2))


def test_ranks_talk_through_the_trainers_device_wherever_the_gradients_are(monkeypatch):
    """NCCL refuses host memory, which is where ZeRO leaves the gradients of an offloaded optimizer."""

    class Reduced(Exception):
        pass

    def reduce(tensor, op):
        raise Reduced(tensor.device.type)

    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_reduce", reduce)
    for device, seen in ((torch.device("meta"), "meta"), (None, "cpu")):
        with pytest.raises(Reduced, match=seen):
            GuardedAdamW(parameters([1.0]), device=device, lr=0.1).step()


def _rank(rank: int, store: str, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    mine = parameters([math.nan if rank == 1 else 1.0])
    guarded = GuardedAdamW(mine, lr=0.1)
    guarded.step()
    skipped = guarded.skipped
    mine[0].grad = torch.tensor([1.0])
    guarded.step()
    torch.save((skipped, guarded.skipped, mine[0].detach()), f"{out}/{rank}.pt")
    dist.destroy_process_group()


def test_a_bad_gradient_on_one_rank_skips_the_step_on_all(tmp_path):
    as_ranks(2, _rank, str(tmp_path / "store"), str(tmp_path))
    ours, theirs = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert ours[:2] == theirs[:2] == (True, False)
    assert torch.equal(ours[2], theirs[2])
