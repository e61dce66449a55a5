"""DAPO's soft overlong punishment with the paper's numbers, and by hand."""

import pytest
from torch import float64, tensor

from rlvr.objective.shaping import overlong


@pytest.mark.parametrize(
    ("length", "penalty"),
    [
        # the paper's own: Lmax 20,480, buffer 4,096 = a fifth, so nothing up to 16,384 tokens
        (0, 0.0),
        (16_384, 0.0),
        (16_384 + 1_024, -0.25),  # a quarter into the buffer
        (16_384 + 2_048, -0.5),
        (20_480, -1.0),
        (30_000, -1.0),  # never below -1
    ],
)
def test_the_punishment_grows_linearly_through_the_buffer(length, penalty):
    out = overlong(tensor([[length]], dtype=float64), max_tokens=20_480, buffer=0.2)
    assert float(out) == pytest.approx(penalty)


def test_the_buffer_is_a_share_of_max_tokens():
    # max 100, buffer half: from 50 on; 75 is half way
    out = overlong(tensor([[50.0, 75.0, 100.0]], dtype=float64), max_tokens=100, buffer=0.5)
    assert out.tolist() == [[0.0, -0.5, -1.0]]
