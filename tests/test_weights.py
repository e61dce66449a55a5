"""Buckets, and the proof that a transfer worked."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.weights import Loaded, TransferMismatch, cut, transfer


def test_a_bucket_is_full_before_the_next_one_begins():
    named = [("a", 4), ("b", 4), ("c", 3), ("d", 20), ("e", 1)]
    assert list(cut(named, 10, lambda size: size)) == [[("a", 4), ("b", 4)], [("c", 3)], [("d", 20)], [("e", 1)]]


@given(st.lists(st.integers(0, 50)), st.integers(1, 60))
def test_all_arrive_in_order_and_only_a_single_one_exceeds_the_limit(sizes, limit):
    buckets = list(cut(list(enumerate(map(int, sizes))), limit, lambda size: size))  # type: ignore[misc]
    assert [size for bucket in buckets for _, size in bucket] == sizes
    assert all(bucket and (sum(size for _, size in bucket) <= limit or len(bucket) == 1) for bucket in buckets)


class Holder:
    def __init__(self, said: list[float]):
        self.said, self.version = said, -1

    def weights(self):
        return [b"12345"]

    def score(self, token_ids):
        return self.said


class Engines(Holder):
    """The first one has died."""

    def load_weights(self, buckets, policy_version, probe):
        self.version = policy_version
        return Loaded(sum(map(len, buckets)), lambda: {"engine 1": self.said, "engine 2": self.said})


def test_what_was_transferred_is_measured_and_versioned():
    engines = Engines([-1.0, -2.5])
    metrics = transfer(Holder([-1.0, -2.0]), engines, 7, [1, 2, 3], tolerance=0.5)
    assert metrics["transfer/probe_rms"] == pytest.approx(0.5 / math.sqrt(2))
    assert metrics["policy_version"] == engines.version == 7
    assert metrics["transfer/bytes_per_s"] == pytest.approx(5 / metrics["transfer/seconds"])


@pytest.mark.parametrize("said", [-2.8, float("nan")])
def test_an_engine_that_says_otherwise_is_an_error_that_names_the_knob(said):
    words = r"engine 1 and trainer .* > 0.5 \(trainer.probe_tolerance\) after policy version 7"
    with pytest.raises(TransferMismatch, match=words):
        transfer(Holder([-1.0, -2.0]), Engines([-1.0, said]), 7, [1, 2, 3], tolerance=0.5)


def test_weights_that_the_trainer_cannot_score_itself_are_broken_and_not_badly_transferred():
    metrics = transfer(Holder([-1.0, float("nan")]), Engines([float("nan")] * 2), 7, [1, 2, 3], tolerance=0.5)
    assert math.isnan(metrics["transfer/probe_rms"])
