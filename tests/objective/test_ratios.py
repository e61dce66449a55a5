"""The token ratio is the log ratio itself, gradient included."""

import torch
from torch import tensor

from rlvr.objective import ratios


def test_every_token_carries_its_own_weight():
    log_ratio = tensor([[0.1, -0.2, 3.0]], requires_grad=True)
    out = ratios.token(log_ratio, tensor([[1.0, 1.0, 0.0]]))
    assert torch.equal(out, log_ratio)
    (grad,) = torch.autograd.grad(out.sum(), log_ratio)
    assert torch.equal(grad, torch.ones(1, 3))
