"""The tool that calculates what stands before a `=`."""

import pytest
from rlvr_verifiers.calculator import calculator

from rlvr.verify import Sample


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        ("<think>7+5=", "12"),
        (",12*3=", "36"),
        ("so (1 + 2) * -3 =", "-9"),
        ("7/2=", "7/2"),
        ("<<1,000*2=", "2000"),
        ("x=", ""),
        ("1/0=", ""),
        ("=", ""),
        ("9**9=", ""),
        ("7+5=12", None),
        ("\\boxed{36}", None),
        ("", None),
    ],
)
def test_it_calculates_what_the_turn_ends_in(turn, said):
    assert calculator.function(Sample("", turn, None)) == said
