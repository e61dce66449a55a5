"""What the benchmarks compare is the same on both sides."""

import importlib.util
from pathlib import Path

import pytest
from rlvr_verifiers.format import format
from rlvr_verifiers.math import math

from rlvr.verify import Sample

PATH = Path(__file__).resolve().parents[1] / "scripts" / "bench" / "against_trl_rewards.py"


@pytest.fixture(scope="module")
def theirs():
    spec = importlib.util.spec_from_file_location("rewards_of_trl", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.arithmetic


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("<think>2+3=5</think>\\boxed{5}", 1.1),
        ("<think>2+3=6</think>\\boxed{6}", 0.1),
        ("<think></think>\\boxed{5}", 1.0),  # `<` is no thought
        ("<think></think>\\boxed{6}", 0.0),
        ("<think> </think>\\boxed{6}", 0.0),
        ("<think><think></think>\\boxed{6}", 0.0),
        ("<think>2+3=5\\boxed{5}", 0.0),  # a thought that never ends
        ("<think>\\boxed{5}</think>\\boxed{6}", 0.1),
        ("\\boxed{5}", 1.0),
        ("<think>5</think>5", 0.0),
        ("5", 0.0),
    ],
)
def test_trl_is_paid_for_what_rlvr_is_paid_for(theirs, text, reward):
    sample = Sample("2+3=?", text, "5", "eos", ())
    ours = math.function(sample, evaluated=True).reward + 0.1 * format.function(sample).reward
    assert theirs([[{"content": text}]], ["5"])[0] == pytest.approx(ours) == pytest.approx(reward)
