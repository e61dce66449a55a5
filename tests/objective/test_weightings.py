"""Each token's share of the loss, by hand: one completion of one token, one of three."""

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from rlvr.objective.weightings import completions, constant, sequence_mean, sequence_sum, token_mean

MASK = tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]])


@pytest.mark.parametrize(
    ("weighting", "golden"),
    [
        # B = 2: 1/(2*1) and 1/(2*3)
        (sequence_mean, [[1 / 2, 0, 0], [1 / 6, 1 / 6, 1 / 6]]),
        # B = 2, whatever the length
        (sequence_sum, [[1 / 2, 0, 0], [1 / 2, 1 / 2, 1 / 2]]),
        # four tokens in the step
        (token_mean, [[1 / 4, 0, 0], [1 / 4, 1 / 4, 1 / 4]]),
        # 1/(B C), C = 5 whatever the padded width: 1/10
        (lambda mask, counted: constant(mask, counted, max_tokens=5), [[1 / 10, 0, 0], [1 / 10, 1 / 10, 1 / 10]]),
    ],
)
def test_shares_by_hand(weighting, golden):
    assert_close(weighting(MASK, MASK), tensor(golden))
    wider = torch.cat([MASK, torch.zeros(2, 4)], dim=1)
    assert_close(weighting(wider, wider)[:, :3], tensor(golden))
    masked_out = torch.cat([MASK, torch.zeros(1, 3)])
    assert_close(weighting(masked_out, masked_out), tensor([*golden, [0.0, 0.0, 0.0]]))


def test_sequence_mean_and_token_mean_are_shares_of_one():
    assert_close(sequence_mean(MASK, MASK).sum(), tensor(1.0))
    assert_close(token_mean(MASK, MASK).sum(), tensor(1.0))


@pytest.mark.parametrize(
    ("weighting", "golden"),
    [
        # a third completion of two tokens is counted but not trained on: B = 3, six tokens
        (sequence_mean, [[1 / 3, 0, 0], [1 / 9, 1 / 9, 1 / 9], [0, 0, 0]]),
        (token_mean, [[1 / 6, 0, 0], [1 / 6, 1 / 6, 1 / 6], [0, 0, 0]]),
        (lambda mask, counted: constant(mask, counted, max_tokens=5), [[1 / 15, 0, 0], [1 / 15] * 3, [0, 0, 0]]),
    ],
)
def test_completions_that_are_counted_but_not_trained_on_take_their_share(weighting, golden):
    mask = torch.cat([MASK, torch.zeros(1, 3)])
    counted = torch.cat([MASK, tensor([[1.0, 1.0, 0.0]])])
    assert_close(weighting(mask, counted), tensor(golden))


@pytest.mark.parametrize("weighting", [sequence_mean, token_mean, lambda m, c: constant(m, c, max_tokens=5)])
@pytest.mark.parametrize("shape", [(2, 3), (2, 0), (0, 0)])
def test_no_trained_token_is_no_weight_and_no_nan(weighting, shape):
    nothing = torch.zeros(shape)
    assert_close(weighting(nothing, nothing), nothing)


def test_a_completion_is_counted_once_however_long():
    assert completions(MASK) == 2
    assert completions(torch.cat([MASK, torch.zeros(3, 3)])) == 2


def test_tool_tokens_take_no_share():
    # one completion, sampled tokens at 0 and 2, tool output at 1
    mask = tensor([[1.0, 0.0, 1.0]])
    assert_close(sequence_mean(mask, mask), tensor([[1 / 2, 0.0, 1 / 2]]))


def test_a_single_token_carries_the_whole_step():
    mask = tensor([[0.0, 1.0]])
    for weighting in (sequence_mean, token_mean, sequence_sum):
        assert_close(weighting(mask, mask), mask)
