"""Chunked log-probabilities and entropies against the plain log_softmax, gradients included."""

import math

import pytest
import torch
from torch import nn, tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from rlvr.train import logprobs
from rlvr.train.logprobs import LogprobHead

N, H, V = 11, 6, 13


def problem(bias: bool = True, dtype: torch.dtype = torch.float32) -> tuple[nn.Linear, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return nn.Linear(H, V, bias, dtype=dtype), torch.randn(N, H, dtype=dtype), torch.randint(V, (N,))


def plain(head, hidden, targets, temperature):
    logprobs = (head(hidden) / temperature).log_softmax(1)
    return logprobs.gather(1, targets[:, None])[:, 0], -(logprobs.exp() * logprobs).sum(1)


def of_logits(logits, targets, temperature=1.0, chunk=8, kept=None):
    """A head that hands its input on."""
    identity = nn.Linear(logits.shape[1], logits.shape[1], bias=False)
    with torch.no_grad():
        identity.weight.copy_(torch.eye(logits.shape[1]))
    return LogprobHead(identity)(logits, targets, temperature, chunk, kept)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.7])
@pytest.mark.parametrize("chunk", [1, 3, 4, N, 1000])
def test_any_chunk_gives_the_logprobs_entropies_and_gradients_of_the_whole(temperature, chunk, bias, monkeypatch):
    monkeypatch.setattr(logprobs, "SLICE", 2)
    head, hidden, targets = problem(bias, torch.float64)
    hidden.requires_grad_()
    weights = torch.randn(N, dtype=torch.float64)
    wanted, entropy = plain(head, hidden, targets, temperature)
    wanted_grads = torch.autograd.grad((wanted.exp() * weights).sum(), [hidden, *head.parameters()])
    got, got_entropy = LogprobHead(head)(hidden, targets, temperature, chunk)
    assert got.dtype == torch.float64
    assert_close(got, wanted)
    assert_close(got_entropy, entropy)
    assert_close(torch.autograd.grad((got.exp() * weights).sum(), [hidden, *head.parameters()]), wanted_grads)


def test_a_frozen_head_passes_the_gradient_on():
    head, hidden, targets = problem(dtype=torch.float64)
    head.requires_grad_(False)
    wanted = torch.autograd.grad(plain(head, hidden.requires_grad_(), targets, 0.7)[0].sum(), hidden)
    assert_close(torch.autograd.grad(LogprobHead(head)(hidden, targets, 0.7, 4)[0].sum(), hidden), wanted)


def test_no_gradient_gives_the_same_numbers():
    head, hidden, targets = problem()
    with_grad = LogprobHead(head)(hidden, targets, 0.7, 4)[0]
    with torch.no_grad():
        without = LogprobHead(head)(hidden, targets, 0.7, 4)[0]
    assert with_grad.requires_grad and not without.requires_grad and torch.equal(without, with_grad)


def test_temperature_by_hand():
    # logits log 1, log 4 at temperature 2 are log 1, log 2: probabilities 1/3, 2/3
    got, entropy = of_logits(tensor([[0.0, math.log(4)]]), tensor([1]), temperature=2.0)
    assert_close(got, tensor([math.log(2 / 3)]))
    assert_close(entropy, tensor([math.log(3) / 3 + 2 / 3 * math.log(1.5)]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_more_than_a_chunk_of_the_matrix_is_ever_there(dtype):
    largest = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **kwargs or {})
            largest.extend(x.numel() for x in (out if isinstance(out, tuple) else [out]) if torch.is_tensor(x))
            return out

    torch.manual_seed(0)
    head, hidden, targets = nn.Linear(4, 64, dtype=dtype), torch.randn(100, 4, dtype=dtype), torch.randint(64, (100,))
    with Sizes():
        LogprobHead(head)(hidden.requires_grad_(), targets, 1.0, 10)[0].sum().backward()
    assert max(largest) == 10 * 64


def test_entropy_carries_no_gradient():
    head, hidden, targets = problem()
    assert not LogprobHead(head)(hidden.requires_grad_(), targets, 1.0, 4)[1].requires_grad


def test_a_bfloat16_model_has_float32_logprobs_and_gradients_as_good_as_its_own():
    head, hidden, targets = problem()
    head, hidden = head.bfloat16(), hidden.bfloat16().requires_grad_()
    wanted = (head(hidden).float() / 0.7).log_softmax(1).gather(1, targets[:, None])[:, 0]
    wanted_grads = torch.autograd.grad(wanted.sum(), [hidden, *head.parameters()])
    got, entropy = LogprobHead(head)(hidden, targets, 0.7, 4)
    assert got.dtype == entropy.dtype == torch.float32
    assert_close(got, wanted)
    for grad, plain_grad in zip(
        torch.autograd.grad(got.sum(), [hidden, *head.parameters()]), wanted_grads, strict=True
    ):
        assert grad.dtype == torch.bfloat16
        assert_close(grad, plain_grad, atol=0.05, rtol=0.05)


def test_an_impossible_token_and_huge_logits_are_finite():
    got, entropy = of_logits(tensor([[1e4, 0.0, -1e4]]), tensor([0]))
    assert_close(got, tensor([0.0]))
    assert_close(entropy, tensor([0.0]))
    impossible, no_entropy, _ = logprobs._read(tensor([[0.0, -torch.inf, 0.0]]), tensor([0]), 1.0, None)
    assert_close(impossible, tensor([-math.log(2)]))
    assert_close(no_entropy, tensor([math.log(2)]))


def test_no_tokens_keep_the_graph_for_ranks_without_work():
    head, hidden, _ = problem()
    hidden.requires_grad_()
    got, entropy = LogprobHead(head)(hidden[:0], torch.empty(0, dtype=torch.int64), 1.0, 4)
    assert got.shape == entropy.shape == (0,)
    grads = torch.autograd.grad(got.sum(), [hidden, *head.parameters()])
    assert all((grad == 0).all() for grad in grads)


def test_without_targets_it_is_the_linear_layer():
    head, hidden, _ = problem()
    assert torch.equal(LogprobHead(head)(hidden), head(hidden))
    assert LogprobHead(head).weight is head.weight


def test_the_softmax_runs_over_the_kept_tokens_alone():
    # logits log 1, log 2, log 5: of all, token 1 has 2/8; of tokens 0 and 1, 2/3
    logits = tensor([[0.0, math.log(2), math.log(5)]] * 3, requires_grad=True)
    kept = tensor([[0, 1], [-1, -1], [1, -1]], dtype=torch.int32)
    got, entropy = of_logits(logits, tensor([1, 1, 1]), 1.0, 2, kept)
    assert_close(got, tensor([2 / 3, 2 / 8, 1.0]).log())
    assert_close(entropy[[0, 2]], tensor([math.log(3) / 3 + 2 / 3 * math.log(1.5), 0.0]))
    (grad,) = torch.autograd.grad(got.sum(), logits)
    # d log p(1) = 1[v = 1] - p(v); nothing flows to what was cut off
    assert_close(grad, tensor([[-1 / 3, 1 / 3, 0.0], [-1 / 8, 6 / 8, -5 / 8], [0.0, 0.0, 0.0]]))


def test_keeping_the_whole_vocabulary_changes_nothing():
    head, hidden, targets = problem()
    everything = torch.arange(V, dtype=torch.int32).expand(N, V)
    head = LogprobHead(head)
    assert_close(head(hidden, targets, 0.7, 4, everything), head(hidden, targets, 0.7, 4))
