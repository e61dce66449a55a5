"""Chunked log-probabilities and entropies against the plain log_softmax, gradients included."""

import math

import pytest
import torch
from torch import nn, tensor
from torch.testing import assert_close

from rlvr.train.logprobs import token_logprobs

N, H, V = 11, 6, 13


def problem() -> tuple[nn.Linear, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return nn.Linear(H, V), torch.randn(N, H), torch.randint(V, (N,))


def plain(head, hidden, targets, temperature):
    logprobs = (head(hidden) / temperature).log_softmax(1)
    return logprobs.gather(1, targets[:, None])[:, 0], -(logprobs.exp() * logprobs).sum(1)


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.7])
@pytest.mark.parametrize("chunk", [1, 3, 4, N, 1000])
def test_any_chunk_gives_the_logprobs_entropies_and_gradients_of_the_whole(temperature, chunk):
    head, hidden, targets = problem()
    hidden.requires_grad_()
    weights = torch.randn(N)
    wanted, entropy = plain(head, hidden, targets, temperature)
    wanted_grads = torch.autograd.grad((wanted * weights).sum(), [hidden, *head.parameters()])
    got, got_entropy = token_logprobs(head, hidden, targets, temperature, chunk)
    assert_close(got, wanted)
    assert_close(got_entropy, entropy)
    assert_close(torch.autograd.grad((got * weights).sum(), [hidden, *head.parameters()]), wanted_grads)


def test_no_gradient_gives_the_same_numbers():
    head, hidden, targets = problem()
    with_grad = token_logprobs(head, hidden, targets, 0.7, 4)[0]
    with torch.no_grad():
        without = token_logprobs(head, hidden, targets, 0.7, 4)[0]
    assert not without.requires_grad and torch.equal(without, with_grad)


def test_temperature_by_hand():
    # logits log 1, log 4 at temperature 2 are log 1, log 2: probabilities 1/3, 2/3
    logits = tensor([[0.0, math.log(4)]])
    got, entropy = token_logprobs(nn.Identity(), logits, tensor([1]), temperature=2.0, chunk=8)
    assert_close(got, tensor([math.log(2 / 3)]))
    assert_close(entropy, tensor([math.log(3) / 3 + 2 / 3 * math.log(1.5)]))


def test_the_head_never_sees_more_than_a_chunk():
    head, hidden, targets = problem()
    seen = []
    head.register_forward_hook(lambda module, args, out: seen.append(len(args[0])))
    token_logprobs(head, hidden, targets, 1.0, 4)
    assert seen == [4, 4, 3]


def test_entropy_carries_no_gradient():
    head, hidden, targets = problem()
    assert not token_logprobs(head, hidden.requires_grad_(), targets, 1.0, 4)[1].requires_grad


def test_a_bfloat16_model_has_float32_logprobs():
    head, hidden, targets = problem()
    got, entropy = token_logprobs(head.bfloat16(), hidden.bfloat16(), targets, 1.0, 4)
    assert got.dtype == entropy.dtype == torch.float32
    assert_close(got, (head(hidden.bfloat16()).float()).log_softmax(1).gather(1, targets[:, None])[:, 0])


def test_an_impossible_token_and_huge_logits_are_finite():
    logits = tensor([[0.0, -torch.inf, 0.0], [1e4, 0.0, -1e4]])
    got, entropy = token_logprobs(nn.Identity(), logits, tensor([0, 0]), 1.0, 8)
    assert_close(got, tensor([-math.log(2), 0.0]))
    assert_close(entropy, tensor([math.log(2), 0.0]), atol=1e-5, rtol=0)


def test_no_tokens_keep_the_graph_for_ranks_without_work():
    head, hidden, _ = problem()
    hidden.requires_grad_()
    got, entropy = token_logprobs(head, hidden[:0], torch.empty(0, dtype=torch.int64), 1.0, 4)
    assert got.shape == entropy.shape == (0,)
    (grad,) = torch.autograd.grad(got.sum(), hidden)
    assert (grad == 0).all()


def test_the_softmax_runs_over_the_kept_tokens_alone():
    # logits log 1, log 2, log 5: of all, token 1 has 2/8; of tokens 0 and 1, 2/3
    logits = tensor([[0.0, math.log(2), math.log(5)]] * 3, requires_grad=True)
    kept = tensor([[0, 1], [-1, -1], [1, -1]], dtype=torch.int32)
    got, entropy = token_logprobs(nn.Identity(), logits, tensor([1, 1, 1]), 1.0, 2, kept)
    assert_close(got, tensor([2 / 3, 2 / 8, 1.0]).log())
    assert_close(entropy[[0, 2]], tensor([math.log(3) / 3 + 2 / 3 * math.log(1.5), 0.0]))
    (grad,) = torch.autograd.grad(got.sum(), logits)
    # d log p(1) = 1[v = 1] - p(v); nothing flows to what was cut off
    assert_close(grad, tensor([[-1 / 3, 1 / 3, 0.0], [-1 / 8, 6 / 8, -5 / 8], [0.0, 0.0, 0.0]]))


def test_keeping_the_whole_vocabulary_changes_nothing():
    head, hidden, targets = problem()
    everything = torch.arange(V, dtype=torch.int32).expand(N, V)
    assert_close(
        token_logprobs(head, hidden, targets, 0.7, 4, everything), token_logprobs(head, hidden, targets, 0.7, 4)
    )
