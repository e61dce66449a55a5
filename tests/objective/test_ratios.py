"""Token and sequence weights by hand, gradients included."""

import torch
from torch import tensor
from torch.testing import assert_close

from rlvr.objective import ratios

LOG_RATIO = tensor([[0.1, -0.2, 0.0], [0.6, 0.0, -0.3]], dtype=torch.float64)
MASK = tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]], dtype=torch.float64)


def test_every_token_carries_its_own_weight():
    log_ratio = LOG_RATIO.clone().requires_grad_()
    out = ratios.token(log_ratio, MASK)
    assert torch.equal(out, log_ratio)
    (grad,) = torch.autograd.grad(out.sum(), log_ratio)
    assert torch.equal(grad, torch.ones(2, 3, dtype=torch.float64))


def test_every_token_carries_the_mean_of_its_completion():
    # (0.1 - 0.2)/2 = -0.05; (0.6 + 0 - 0.3)/3 = 0.1; the token that is masked is in no mean
    out = ratios.sequence(LOG_RATIO, MASK)
    assert_close(out, tensor([[-0.05] * 3, [0.1] * 3], dtype=torch.float64))


def test_the_gradient_of_a_sequence_weight_goes_through_the_tokens_own_logprob():
    log_ratio = LOG_RATIO.clone().requires_grad_()
    (grad,) = torch.autograd.grad((ratios.sequence(log_ratio, MASK).exp() * tensor([[1.0], [10.0]])).sum(), log_ratio)
    weights = tensor([[-0.05] * 3, [0.1] * 3], dtype=torch.float64).exp()
    assert_close(grad, weights * tensor([[1.0], [10.0]], dtype=torch.float64))


def test_over_a_completion_the_gradient_is_that_of_the_geometric_mean():
    log_ratio = LOG_RATIO.clone().requires_grad_()
    mean = ((log_ratio * MASK).sum(1) / MASK.sum(1)).exp()  # GSPO's s, one a completion
    (wanted,) = torch.autograd.grad(mean.sum(), log_ratio, retain_graph=True)
    shares = MASK / MASK.sum(1, keepdim=True)
    (grad,) = torch.autograd.grad((ratios.sequence(log_ratio, MASK).exp() * shares).sum(), log_ratio)
    assert_close(grad, wanted)


def test_a_completion_without_tokens_has_weight_one():
    assert torch.equal(ratios.sequence(torch.zeros(1, 2), torch.zeros(1, 2)), torch.zeros(1, 2))


def test_a_completion_of_one_token_has_that_tokens_weight():
    assert_close(ratios.sequence(tensor([[0.4, 0.0]]), tensor([[1.0, 0.0]])), tensor([[0.4, 0.4]]))
