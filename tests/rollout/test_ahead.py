"""Groups that are sampled ahead: none lost, none twice, none too stale, whatever happens in between."""

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rlvr.lineage import Lineage
from rlvr.rollout.rollouts import SampledRollouts
from rlvr.state import State
from rlvr.types import Group
from rlvr.weights import Loaded
from tests import toy
from tests.builders import completion, group, prompt


class Stream:
    def take(self, cursor, count):
        return [prompt(position, (1,)) for position in range(cursor, cursor + count)]


class EagerPipeline:
    """Begins when it is asked, as engines of their own do; `sampling` holds what has begun and not arrived."""

    def __init__(self):
        self.version, self.bring, self.tell, self.verifying_s = 0, None, None, 0.0
        self.sampling: dict[int, int] = {}  # position -> the version that it was begun with
        self.done: dict[int, Group] = {}
        self.begun: list[tuple[int, int]] = []

    def groups(self, prompts, sampling):
        for one in prompts:
            assert one.position not in self.sampling, "begun twice"
            self.sampling[one.position] = self.version
            self.begun.append((one.position, self.version))
        return self.arriving([one.position for one in prompts])

    def arriving(self, positions):
        left = set(positions)
        while left:
            if not (done := left & self.done.keys()):
                done = {max(left)}  # whoever waits, waits until something ends: the youngest, of all things
                self.end(*done)
            for position in sorted(done, reverse=True):
                left.remove(position)
                yield self.done.pop(position)

    def end(self, position):
        version = self.sampling.pop(position)
        made = [completion(policy_version=version) for _ in range(2)]
        self.done[position] = group([1.0, 0.0], made, prompt(position, (1,)))

    def die(self, position):
        """Its engine died: sampled again, by the weights of now."""
        self.sampling[position] = self.version

    def flush(self):
        self.sampling, self.done = {}, {}

    def rest(self):
        pass

    def verify(self, groups):
        return list(groups)

    def load_weights(self, buckets, version, probe):
        self.version = version
        return Loaded(1, lambda: {"engine 0": [0.0]})


class IdleTrainer:
    def weights(self):
        return []

    def score(self, token_ids):
        return [0.0]


class Ahead(RuleBasedStateMachine):
    @initialize(staleness=st.integers(0, 3), per_step=st.integers(1, 3), saved=st.integers(0, 5))
    def begin(self, staleness, per_step, saved):
        cfg = toy.recipe(10)
        cfg.rollout.max_staleness, cfg.rollout.groups_per_step = staleness, per_step
        self.cfg, self.pipeline = cfg, EagerPipeline()
        self.rollouts = SampledRollouts(cfg, toy.GRPO, self.pipeline, Stream(), (), ([1, 2], 1e-3), lambda text: None)
        self.state = State(cursor=saved, lineage=Lineage().branch())
        self.taken: list[int] = []  # positions, in order
        self.first = saved
        self.publish()

    def publish(self):
        self.rollouts.publish(IdleTrainer(), self.state.lineage)

    @rule()
    def step(self):
        taken = self.rollouts.take(self.state)
        for one in taken.groups:
            assert self.state.lineage.admits(one.policy_version, self.cfg.rollout.max_staleness)
        self.taken += [one.prompt.position for one in taken.groups]
        self.state = self.state.advance(taken.cursor, {}, 1)
        self.publish()

    @rule()
    def roll_back(self):
        """The data of the step that broke the run are not replayed."""
        taken = self.rollouts.take(self.state)
        self.taken += [one.prompt.position for one in taken.groups]
        self.state = State(cursor=taken.cursor, lineage=self.state.lineage.branch())
        self.publish()

    @rule(back=st.integers(0, 4))
    def resume(self, back):
        """From a checkpoint of some steps ago: what was taken since is taken again."""
        cursor = max(self.first, self.state.cursor - back)
        self.taken = [position for position in self.taken if position < cursor]
        self.state = State(cursor=cursor, lineage=self.state.lineage.branch())
        self.publish()

    @precondition(lambda self: self.pipeline.sampling)
    @rule(data=st.data())
    def a_group_ends(self, data):
        self.pipeline.end(data.draw(st.sampled_from(sorted(self.pipeline.sampling))))

    @precondition(lambda self: self.pipeline.sampling)
    @rule(data=st.data())
    def an_engine_dies(self, data):
        self.pipeline.die(data.draw(st.sampled_from(sorted(self.pipeline.sampling))))

    @invariant()
    def nothing_is_lost_or_trained_on_twice(self):
        assert self.taken == list(range(self.first, self.state.cursor))

    @invariant()
    def no_more_is_begun_than_may_be(self):
        open_now = len(self.pipeline.sampling) + len(self.pipeline.done) + len(self.rollouts.ahead.ready)
        assert open_now <= (self.cfg.rollout.max_staleness + 1) * self.cfg.rollout.groups_per_step


Ahead.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestAhead = Ahead.TestCase


def test_without_staleness_nothing_is_begun_before_it_is_asked_for():
    machine = Ahead()
    machine.begin(0, 2, 0)
    assert machine.pipeline.begun == []
    machine.step()
    assert machine.pipeline.begun == [(0, 1), (1, 1)]


def test_the_groups_of_further_steps_are_begun_when_weights_are_published():
    machine = Ahead()
    machine.begin(1, 2, 0)
    machine.step()
    assert machine.pipeline.begun == [(0, 1), (1, 1), (2, 1), (3, 1), (4, 2), (5, 2)]
    machine.step()
    assert machine.pipeline.begun[6:] == [(6, 3), (7, 3)]
