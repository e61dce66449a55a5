"""An objective that cannot work is found out before a run is paid for."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from rlvr.objective import Objective, advantages, kl, ratios, surrogates, weightings
from rlvr.objective.shaping import overlong
from rlvr.objective.trial import trial

GOOD = Objective(
    advantages.center, ratios.token, partial(surrogates.clip, low=0.2, high=0.2), weightings.token_mean,
    kl=kl.KL(kl.unbiased, {"chat": 0.1}), shaping=partial(overlong, max_tokens=8, buffer=0.25),
)  # fmt: skip


@pytest.mark.parametrize("size", [2, 8])
@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0, 0.5]])
def test_what_works_passes(size, weights):
    trial(GOOD, weights, size)
    trial(replace(GOOD, whitening=advantages.whiten), weights, size)


@pytest.mark.parametrize(
    ("change", "weights", "size", "says"),
    [
        ({"advantage": advantages.decouple}, [1.0], 8, "at least 2 parts"),
        ({"advantage": advantages.decouple, "shaping": None}, [1.0, 0.0], 8, "at least 2 parts"),
        ({"advantage": advantages.leave_one_out}, [1.0], 1, "at least 2"),
        ({"advantage": lambda r: r.total_NG.sum(1)}, [1.0], 4, "Dimension out of range"),
        ({"advantage": lambda r: r.total_NG / 0}, [1.0], 4, "must be finite"),
        ({"weighting": lambda mask, counted: mask.sum(1)}, [1.0], 4, "weighting made"),
        ({"surrogate": lambda w, a, lp: (a * lp).detach(), "kl": None}, [1.0], 4, "gradient|require grad"),
        ({"surrogate": lambda w, a, lp: w * torch.inf, "kl": None}, [1.0], 4, "finite gradient"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(change, weights, size, says):
    with pytest.raises((ValueError, IndexError), match=says):
        trial(replace(GOOD, **change), weights, size)


def test_a_slot_that_takes_other_arguments_is_a_type_error():
    with pytest.raises(TypeError):
        trial(replace(GOOD, ratio=lambda log_ratio: log_ratio), [1.0], 4)
