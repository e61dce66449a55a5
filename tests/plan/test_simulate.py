"""The simulated pipeline agrees with arithmetic where there is some, and keeps its bound everywhere."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr.plan.simulate import Pipeline, simulate


def pipeline(**changes) -> Pipeline:
    usual = dict(engines=2, slots=4, groups_per_step=8, max_staleness=0, group_s=lambda rng: 10.0, verifiers=8)
    return Pipeline(**(usual | dict(verify_s=0.0, driver_s=0.0, train_s=6.0, publish_s=1.0) | changes))


def test_a_synchronous_step_is_the_sum_of_its_parts():
    found = simulate(pipeline(), steps=5)
    assert found.step_s == pytest.approx(10 + 6 + 1)
    assert found.staleness == 0


def test_an_overlapped_step_is_its_longer_side():
    rollout_bound = simulate(pipeline(max_staleness=1), steps=40)
    assert rollout_bound.step_s == pytest.approx(10.0, rel=0.03)
    assert 0 < rollout_bound.staleness <= 1
    train_bound = simulate(pipeline(max_staleness=2, train_s=30.0), steps=40)
    assert train_bound.step_s == pytest.approx(31.0, rel=0.03)
    assert train_bound.trainer_idle < 0.1


def test_a_slow_driver_or_verifier_is_the_step():
    assert simulate(pipeline(max_staleness=4, driver_s=5.0), steps=20).step_s == pytest.approx(40.0, rel=0.05)
    slow = pipeline(max_staleness=4, verifiers=1, verify_s=5.0)
    assert simulate(slow, steps=20).step_s == pytest.approx(40.0, rel=0.05)


def test_stragglers_cost_a_synchronous_run_more():
    def tail(rng: random.Random) -> float:
        return 100.0 if rng.random() < 0.05 else 5.0

    waits = simulate(pipeline(group_s=tail), steps=60, seed=1)
    overlaps = simulate(pipeline(group_s=tail, max_staleness=8), steps=60, seed=1)
    assert overlaps.step_s < 0.6 * waits.step_s


@given(
    st.integers(1, 5), st.integers(1, 4), st.integers(1, 9), st.integers(0, 4), st.floats(0, 3), st.floats(0.1, 20),
    st.integers(0, 1000),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_the_bound_on_staleness_holds_and_nothing_hangs(engines, slots, groups, staleness, verify_s, train_s, seed):
    found = simulate(
        pipeline(
            engines=engines, slots=slots, groups_per_step=groups, max_staleness=staleness, verify_s=verify_s,
            verifiers=2, train_s=train_s, group_s=lambda rng: rng.lognormvariate(1, 1.5),
        ),
        steps=12, seed=seed,
    )  # fmt: skip
    assert 0 <= found.staleness <= staleness  # and simulate() asserts it of every group
    assert found.step_s >= train_s
