"""What the loop is given of what was sampled, and what is told of all of it: every number here is made by hand."""

from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from math import sqrt

import pytest

from rlvr.config import PartConfig
from rlvr.lineage import Lineage
from rlvr.rollout import rollouts as module
from rlvr.rollout.evaluation import SAMPLED
from rlvr.rollout.rollouts import SampledRollouts
from rlvr.state import State
from rlvr.types import Group, Outcome, Provenance, Sampling, Verdict
from tests import toy
from tests.builders import completion, prompt

FIRST = 10  # where the run stands in the stream
REWARDS = ([1.0, 1.0], [1.0, 0.0], [None, 1.0], [0.5, 0.0], [0.0, 0.0], [1.0, 0.0])  # of the positions from there on
MADE = {  # what is not three sampled tokens of version 7 up to the end token; a position and an index
    (0, 0): {"token_ids": (7,) * 9, "stop_reason": "length"},
    (0, 1): {"policy_version": 5},
    (1, 1): {"token_ids": (7,) * 6, "loss_mask": (True,) * 2 + (False,) * 4, "stop_reason": "stop"},
    (3, 0): {"token_ids": (7,) * 5},
}


def judged(position: int, index: int, reward: float | None) -> Verdict:
    """`style` has no weight, and says nothing of the second completion but once."""
    if reward is None:
        return Verdict(None, Outcome.ERROR, provenance=(Provenance("math", part="math", outcome="error"),))
    parts = {"math": reward} | ({"style": 1.0} if index == 0 else {"style": 0.0} if position == 1 else {})
    said = Provenance("math", part="math", outcome="ok", reward=reward)
    return Verdict(reward, Outcome.OK, parts, provenance=(said,))


class Pipeline:
    """The same groups at the same positions, and a quarter of a second of waiting for each time that it is asked."""

    def __init__(self):
        self.bring, self.tell, self.verifying_s, self.rests = None, None, 1.0, 0
        self.asked: list[tuple[list[int], Sampling]] = []

    def groups(self, prompts, sampling):
        self.verifying_s += 0.25
        self.asked.append(([one.position for one in prompts], sampling))
        return iter([self.group(one) for one in prompts])

    def group(self, one):
        n = one.position - FIRST
        made = [completion(**{"policy_version": 7} | MADE.get((n, index), {})) for index in range(2)]
        if n == 3:
            made[1] = replace(made[1], updates=((1, 8),))
        return Group(one, tuple(made), tuple(judged(n, index, reward) for index, reward in enumerate(REWARDS[n])))

    def rest(self):
        self.rests += 1

    def verify(self, groups):
        return list(groups)


class Stream:
    def take(self, cursor, count):
        return [prompt(position) for position in range(cursor, cursor + count)]


@pytest.fixture
def cfg():
    cfg = toy.recipe(3)
    cfg.seed = 3
    cfg.reward.parts = {"math": PartConfig("toy"), "style": PartConfig("toy", weight=0.0)}
    rollout = cfg.rollout
    rollout.groups_per_step, rollout.group_size, rollout.max_tokens, rollout.stop = 3, 2, 9, ["END"]
    rollout.temperature, rollout.top_p, rollout.top_k = 0.7, 0.9, 20
    return cfg


def taker(cfg, no_signal: str = "drop", heldout=()) -> SampledRollouts:
    objective = replace(toy.GRPO, no_signal=no_signal)
    return SampledRollouts(cfg, objective, Pipeline(), Stream(), heldout, ([1, 2], 1e-3), lambda text: None)


STATE = State(cursor=FIRST, lineage=Lineage(8, floor=2))
THREE = {  # of the first three groups, whichever of them are trained on
    "reward/mean": 4 / 5, "reward/std": sqrt(0.8 * 0.2), "reward/math": 4 / 5, "reward/style": 2 / 3, "accuracy": 4 / 5,
    "accuracy_rewarded": 4 / 5,
    "groups/sampled": 3, "groups/refill_rounds": 0,
    "completions/length_mean": (9 + 3 + 3 + 2 + 3 + 3) / 6, "completions/length_max": 9, "completions/truncated": 1 / 6,
    "completions/masked": 1 / 6, "passed/math": 4 / 5, "masked/math": 1 / 6, "outcomes/math/ok/": 5,
    "tokens/sampled": 9 + 3 + 3 + 2 + 3 + 3, "staleness/max": 3, "staleness/updated": 0, "time/verify": 0.25,
}  # fmt: skip
FIVE = {  # of the first five
    "reward/mean": 4.5 / 9, "reward/std": 0.5 * sqrt(8 / 9), "reward/math": 4.5 / 9, "reward/style": 4 / 5,
    "accuracy": 4 / 9, "accuracy_rewarded": 4 / 9, "groups/sampled": 5, "groups/refill_rounds": 1,
    "completions/length_mean": (23 + 5 + 3 + 3 + 3) / 10, "completions/length_max": 9, "completions/truncated": 1 / 10,
    "completions/masked": 1 / 10, "passed/math": 4 / 9, "masked/math": 1 / 10, "outcomes/math/ok/": 9,
    "tokens/sampled": 23 + 5 + 3 + 3 + 3, "staleness/max": 3, "staleness/updated": 1 / 10, "time/verify": 0.5,
}  # fmt: skip
SIX = FIVE | {
    "reward/mean": 5.5 / 11, "reward/std": 0.5 * sqrt(10 / 11), "reward/math": 5.5 / 11, "reward/style": 5 / 6,
    "accuracy": 5 / 11, "accuracy_rewarded": 5 / 11, "groups/sampled": 6, "groups/refill_rounds": 2,
    "completions/length_mean": (37 + 6) / 12, "completions/truncated": 1 / 12, "completions/masked": 1 / 12,
    "passed/math": 5 / 11, "masked/math": 1 / 12, "outcomes/math/ok/": 11,
    "tokens/sampled": 37 + 6, "staleness/updated": 1 / 12, "time/verify": 0.75,
}  # fmt: skip


@pytest.mark.parametrize(
    ("no_signal", "refill_rounds", "kept", "asked", "told"),
    [
        ("keep", 4, [10, 11], [[10, 11, 12]], THREE | {"groups/no_signal": 1 / 3}),  # one reward has no baseline
        ("drop", 4, [11], [[10, 11, 12]], THREE | {"groups/no_signal": 2 / 3}),
        ("refill", 0, [11], [[10, 11, 12]], THREE | {"groups/no_signal": 2 / 3}),
        ("refill", 1, [11, 13], [[10, 11, 12], [13, 14]], FIVE | {"groups/no_signal": 3 / 5}),
        ("refill", 4, [11, 13, 15], [[10, 11, 12], [13, 14], [15]], SIX | {"groups/no_signal": 1 / 2}),
    ],
)
def test_what_is_taken_and_told_of_groups_without_signal(
    cfg, monkeypatch, no_signal, refill_rounds, kept, asked, told
):
    cfg.rollout.refill_rounds = refill_rounds
    clock = count(100.0, 2.5)
    monkeypatch.setattr(module, "perf_counter", lambda: next(clock))
    rollouts = taker(cfg, no_signal)
    taken = rollouts.take(STATE)
    assert [group.prompt.position for group in taken.groups] == kept
    assert [group.prompt.position for group in taken.sampled] == [place for places in asked for place in places]
    assert taken.cursor == asked[-1][-1] + 1, "the next step takes none of them again"
    assert {name: taken.metrics[name] for name in told} == pytest.approx(told)
    assert taken.metrics["time/rollout"] == 2.5
    sampling = Sampling(2, 0.7, 9, ("END",), 3, 0.9, 20)
    assert rollouts.pipeline.asked == [(positions, sampling) for positions in asked]


def test_engines_rest_while_the_trainer_trains_but_where_they_sample_ahead(cfg):
    rollouts = taker(cfg)
    rollouts.take(STATE)
    assert rollouts.pipeline.rests == 1
    cfg.rollout.max_staleness = 1
    ahead = taker(cfg)
    ahead.take(STATE)
    assert ahead.pipeline.rests == 0


def test_an_evaluation_asks_greedily_and_as_the_run_samples_and_shares_no_seed_with_the_training(cfg):
    cfg.evaluation.samples = 4
    rollouts = taker(cfg, heldout=[prompt(0), prompt(2)])
    samples = [1, 4]  # of the greedy call, and of the other

    def group(one):
        n = samples[len(rollouts.pipeline.asked) - 1]
        return Group(one, (completion(),) * n, (judged(3, 0, 1.0),) * n)

    rollouts.pipeline.group = group
    shown = []

    @contextmanager
    def showing(total):
        shown.append((total, len(rollouts.pipeline.asked)))
        yield lambda: shown.append("group")
        shown.append(len(rollouts.pipeline.asked))

    rollouts.evaluation.showing = showing
    rollouts.evaluate()
    assert shown == [(4, 0), *["group"] * 4, 2], "around it, and told of each group"
    positions = [SAMPLED, SAMPLED + 2]
    assert SAMPLED > 10**12, "no training comes so far"
    assert rollouts.pipeline.asked == [
        (positions, Sampling(1, 0.0, 9, ("END",), 3)),
        (positions, Sampling(4, 0.7, 9, ("END",), 3, 0.9, 20)),
    ]
