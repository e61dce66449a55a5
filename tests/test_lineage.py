"""Versions only grow, and nothing of an abandoned branch is ever admitted: a state machine against a plain model."""

from dataclasses import FrozenInstanceError

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rlvr.lineage import Lineage


def test_publishing_grows_the_version_and_keeps_the_floor():
    assert Lineage(version=4, floor=2).publish() == Lineage(version=5, floor=2)


def test_the_first_version_is_zero_and_admits_itself():
    assert Lineage() == Lineage(version=0, floor=0)
    assert Lineage().branch() == Lineage(version=1, floor=1)


def test_a_lineage_is_frozen_and_slotted():
    lineage = Lineage()
    with pytest.raises(FrozenInstanceError):
        lineage.version = 1
    assert not hasattr(lineage, "__dict__")


def test_a_branch_starts_above_everything_published_and_refuses_all_of_it():
    branch = Lineage(version=7, floor=3).branch()
    assert branch == Lineage(version=8, floor=8)
    assert not branch.admits(7, max_staleness=100)
    assert branch.admits(8, max_staleness=0)


@pytest.mark.parametrize(("above", "version"), [(0, 8), (6, 8), (7, 8), (8, 9), (40, 41)])
def test_a_branch_goes_above_what_an_engine_that_outlived_the_driver_holds(above, version):
    assert Lineage(version=7).branch(above) == Lineage(version=version, floor=version)


@pytest.mark.parametrize(
    ("version", "max_staleness", "admitted"),
    [(10, 0, True), (9, 0, False), (8, 2, True), (7, 2, False), (5, 5, True), (4, 100, False), (5, 100, True)],
)
def test_staleness_is_bounded_by_the_limit_and_by_the_floor(version, max_staleness, admitted):
    assert Lineage(version=10, floor=5).admits(version, max_staleness) is admitted


class LineageMachine(RuleBasedStateMachine):
    """Publications, rollbacks, and restarts from any earlier lineage while engines live on."""

    def __init__(self) -> None:
        super().__init__()
        self.lineage = Lineage()
        self.history = [Lineage()]  # what a checkpoint may hold
        self.published = [0]
        self.abandoned: set[int] = set()

    def _now(self, lineage: Lineage) -> None:
        self.lineage = lineage
        self.published.append(lineage.version)
        self.history.append(lineage)

    @rule()
    def publish(self) -> None:
        self._now(self.lineage.publish())

    @rule()
    def roll_back(self) -> None:
        self.abandoned |= set(self.published)
        self._now(self.lineage.branch())

    @rule(data=st.data())
    def restart_from_a_checkpoint(self, data) -> None:
        self.abandoned |= set(self.published)
        self._now(data.draw(st.sampled_from(self.history)).branch(above=self.published[-1]))

    @invariant()
    def versions_only_grow(self) -> None:
        assert all(a < b for a, b in zip(self.published, self.published[1:], strict=False))

    @invariant()
    def nothing_abandoned_is_admitted(self) -> None:
        assert not any(self.lineage.admits(version, max_staleness=10**6) for version in self.abandoned)

    @invariant()
    def what_was_just_published_is_admitted(self) -> None:
        assert self.lineage.admits(self.lineage.version, max_staleness=0)


LineageMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=20, deadline=None, derandomize=True)
test_versions_only_grow_through_rollbacks_and_restarts = LineageMachine.TestCase
