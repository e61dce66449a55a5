"""The loop on a toy that breaks: back to a good checkpoint from before the trouble, forward in the data, remedied."""

import re
from itertools import pairwise

import pytest

from rlvr.lineage import Lineage
from rlvr.loop import Diverged
from rlvr.sentinel.history import NEARBY
from tests import toy
from tests.interruptions import POISON, STEPS, Recorded, Unplugged, fail, opened


def test_a_bad_step_is_undone_and_its_batch_is_not_replayed(tmp_path):
    done = toy.run(tmp_path, toy.recipe(STEPS), poison={11})
    assert (done.state.step, done.state.rollbacks) == (STEPS, 1)
    assert done.observer.steps == [1, 2, 3, 4, 5, 4, 5, 6, 7]
    assert done.trainer.trained == [[2 * i, 2 * i + 1] for i in range(10)]  # on and on through the data
    assert done.state.cursor == 20
    kind, message, fields = done.observer.rollbacks[0]
    assert kind == "rollback"
    said = "step 6: policy/loss is nan, not finite (sentinel.nonfinite): rolled back from step 6 to 3; "
    assert message == said + "remedies: skip_data"
    assert (fields["alarm"]["detector"], fields["alarm"]["onset"]) == ("nonfinite", 6)
    assert (fields["step"], fields["to"]) == (5, 3)
    assert fields["metrics"]["step"] == 6, "the step that broke the run, which gets no line of its own"
    assert not list(tmp_path.glob("anchor*")), "a whole model that nobody asked for"


def test_a_rollback_brings_back_weights_and_optimizer(tmp_path):
    good = toy.run(tmp_path / "good", toy.recipe(3)).trainer
    seen: list[tuple[float, float]] = []

    class Looks(toy.ToyRollouts):
        def publish(self, trainer, version):
            seen.append((trainer.weight, trainer.momentum))
            return super().publish(trainer, version)

    toy.run(tmp_path / "broken", toy.recipe(STEPS), {11}, rollouts=Looks())
    # publications: the start, steps 1 to 5, and then what the rollback from step 6 brought back
    assert seen[6] == seen[3] == (good.weight, good.momentum)


def test_a_rollback_branches_the_lineage(tmp_path):
    done = toy.run(tmp_path, toy.recipe(STEPS), poison=POISON)
    assert all(a < b for a, b in pairwise(done.rollouts.versions))
    floors = [state.lineage.floor for state in done.rollouts.states]
    assert floors == [1] * 6 + [7] + [8] * 7  # 1..6 sampled by the first branch, 7 by the second
    assert done.state.lineage == Lineage(version=15, floor=8)


def test_a_checkpoint_that_broke_again_within_its_probation_is_given_up(tmp_path):
    done = toy.run(tmp_path, toy.recipe(STEPS), poison=POISON)
    assert [fields["to"] for _, _, fields in done.observer.rollbacks] == [3, 0]
    assert done.observer.rollbacks[1][1].endswith(" to 0; remedies: skip_data, lower_learning_rate")
    assert done.observer.steps == [1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 6, 7]
    assert done.state.rollbacks == 2


def test_one_that_broke_after_its_probation_is_gone_back_to_again(tmp_path):
    # 11 breaks step 6: back to 3; 17 breaks step 6 again, when 3 has stood for two more steps
    done = toy.run(tmp_path, toy.recipe(STEPS), poison={11, 17})
    assert [fields["to"] for _, _, fields in done.observer.rollbacks] == [3, 3]


def test_a_candidate_is_not_gone_back_to(tmp_path):
    done = toy.run(tmp_path, toy.recipe(STEPS), poison={9})  # breaks step 5, when step 3 has stood for one step
    assert [fields["to"] for _, _, fields in done.observer.rollbacks] == [0]


def test_a_checkpoint_made_after_the_trouble_began_is_not_gone_back_to(tmp_path):
    class Late:
        """Sees at step 12 what began at step 5."""

        memory, seen = 64, 0

        def watch(self, step, metrics):
            self.seen += 1
            return {"step": step}

        def inspect(self, seen, history):
            return DatedAlarm(5) if self.seen == 12 else None

    done = toy.run(tmp_path, toy.recipe(14), watch=Late())
    assert done.observer.steps[:11] == list(range(1, 12)), "steps 6 and 9 had become good by then"
    assert done.observer.rollbacks[0][2]["to"] == 3


class DatedAlarm:
    def __init__(self, onset: int):
        self.onset = onset

    def fields(self):
        return {"onset": self.onset}


def test_step_0_is_always_there_to_go_back_to(tmp_path):
    done = toy.run(tmp_path, toy.recipe(2), poison={0, 2, 12})
    assert [fields["to"] for _, _, fields in done.observer.rollbacks] == [0, 0, 0]
    assert (done.state.step, done.trainer.trained[-2:]) == (2, [[30, 31], [32, 33]])


def test_a_stretch_of_bad_data_is_passed_over_in_growing_leaps(tmp_path):
    done = toy.run(tmp_path, toy.recipe(4, max_rollbacks=5), poison=set(range(2, 80)))
    # a step is two prompts: the batch itself, then 4, 8, 16 and 16 steps more; the leaps end with the trouble
    tried = [[0, 1], [2, 3], [4, 5], [14, 15], [32, 33], [66, 67]]
    assert done.trainer.trained == [*tried, [100, 101], [102, 103], [104, 105], [106, 107]]
    assert done.state.step == 4


# ---- remedies --------------------------------------------------------------------------------------------------------


def test_each_rollback_while_remedies_are_in_force_adds_the_next_one(tmp_path):
    done = toy.run(tmp_path, toy.recipe(STEPS), poison=POISON)
    assert [fields["remedies"] for _, _, fields in done.observer.rollbacks] == [
        ("skip_data",),
        ("skip_data", "lower_learning_rate"),
    ]
    rates = [m["policy/lr"] for m in done.observer.metrics[-STEPS:]]
    assert rates == pytest.approx([0.3 * 0.5 / (step + 1) for step in range(STEPS)])
    assert done.state.remedies == ("skip_data", "lower_learning_rate")


def test_remedies_are_let_go_once_health_has_lasted(tmp_path):
    cfg = toy.recipe(12)
    cfg.sentinel.remedies = ["lower_learning_rate"]
    cfg.sentinel.remedy_steps = 3
    done = toy.run(tmp_path, cfg, poison={11})  # alarm at step 6, back to 3: in force up to step 9
    rates = {m: lr for m, lr in zip(done.observer.steps, (m["policy/lr"] for m in done.observer.metrics), strict=True)}
    assert [rates[step] / (0.5 / step) for step in (4, 9, 10, 12)] == pytest.approx([0.3, 0.3, 1, 1])
    assert told_healthy(done) == ["healthy up to step 9: no longer lower_learning_rate"]
    assert (done.state.remedies, done.state.until) == ((), 9)


def told_healthy(done: toy.Finished) -> list[str]:
    return [message for kind, message, _ in done.observer.events if kind == "healthy"]


@pytest.mark.parametrize(("ladder", "ended"), [([], ""), (["skip_data", "anchor"], ": no longer skip_data, anchor")])
def test_what_is_let_go_is_named(tmp_path, ladder, ended):
    cfg = toy.recipe(12)
    cfg.sentinel.remedies, cfg.sentinel.remedy_steps = ladder, 3
    # the second alarm is at step 4
    done = toy.run(tmp_path, cfg, poison=POISON)
    assert done.state.anchor is None and told_healthy(done) == [f"healthy up to step 7{ended}"]


@pytest.mark.parametrize("remedies", [["lower_learning_rate"], []])
def test_rollbacks_are_counted_anew_once_health_has_lasted(tmp_path, remedies):
    cfg = toy.recipe(40, max_rollbacks=1)
    cfg.sentinel.remedies, cfg.sentinel.remedy_steps = remedies, 3
    done = toy.run(tmp_path / "far", cfg, poison={11, 41, 71})
    assert len(done.observer.rollbacks) == 3 and done.state.step == 40
    with pytest.raises(Diverged, match="max_rollbacks=1 times in a row"):
        toy.run(tmp_path / "near", cfg, poison={11, 15})


def test_a_resumed_run_is_still_under_its_remedies(tmp_path):
    cfg = toy.recipe(12)
    cfg.sentinel.remedies = ["anchor"]
    cfg.sentinel.anchor_coefficient = 5.0
    with pytest.raises(Unplugged):
        toy.run(tmp_path / "crashed", cfg, {11}, Recorded(fail(), at=9, phase="stepped"))
    resumed = toy.run(tmp_path / "crashed", cfg, {11})
    assert resumed.rollouts.states[0].remedies == ("anchor",)
    assert resumed.outcome == toy.run(tmp_path / "alone", cfg, {11}).outcome
    cfg.sentinel.remedies = ["skip_data"]
    assert resumed.trainer.weight < toy.run(tmp_path / "free", cfg, {11}).trainer.weight, "the anchor held"


def test_a_run_without_remedies_only_goes_back(tmp_path):
    cfg = toy.recipe(STEPS)
    cfg.sentinel.remedies = []
    done = toy.run(tmp_path, cfg, poison={11})
    assert done.observer.rollbacks[0][1].endswith("rolled back from step 6 to 3; remedies: none")
    assert done.state.remedies == ()


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_a_run_that_goes_on_breaking_stops_after_max_rollbacks(tmp_path, limit):
    observer = toy.ToyObserver()
    said = rf"step (\d+): policy/loss is nan, .*; already rolled back sentinel.max_rollbacks={limit} times in a row"
    with pytest.raises(Diverged) as stopped:
        toy.run(tmp_path, toy.recipe(STEPS, max_rollbacks=limit), poison=set(range(9, 1000)), observer=observer)
    found = re.fullmatch(said, str(stopped.value))
    assert found and stopped.value.onset == int(found[1]), "what is not a number is so from its first step on"
    assert len(observer.rollbacks) == limit
    restored = toy.ToyTrainer(set())
    assert opened(tmp_path).restore(restored) is not None
    assert restored.weight == restored.weight, "the best good weights are still there, and no nan was saved"


def test_a_limit_that_was_lowered_since_holds(tmp_path):
    stopped, breaks = [], set(range(9, 1000))
    done = toy.run(
        tmp_path, toy.recipe(STEPS, max_rollbacks=9), breaks, stop=lambda: len(stopped) > 2,
        hook=lambda phase: stopped.append(phase) if phase == "noted" else None,
    )  # fmt: skip
    assert done.state.rollbacks == 3
    with pytest.raises(Diverged, match="max_rollbacks=2 times in a row"):
        toy.run(tmp_path, toy.recipe(STEPS, max_rollbacks=2), breaks)


def test_of_a_broken_branch_only_what_was_well_right_behind_the_checkpoint_is_remembered(tmp_path):
    done = toy.run(tmp_path, toy.recipe(STEPS), poison={11})  # breaks step 6: back to 3
    steps = [[row["step"] for row in state.history] for state in done.rollouts.states[6:8]]
    assert steps == [[1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 4]]


def test_the_yardstick_of_a_broken_branch_outlives_a_crash(tmp_path):
    with pytest.raises(Unplugged):
        toy.run(tmp_path / "crashed", toy.recipe(STEPS), {11}, Recorded(fail(), at=7, phase="take"))
    resumed = toy.run(tmp_path / "crashed", toy.recipe(STEPS), {11})
    assert [row["step"] for row in resumed.rollouts.states[0].history] == [1, 2, 3, 4, 5]


def test_of_a_long_branch_that_is_abandoned_only_the_first_steps_are_remembered(tmp_path):
    done = toy.run(tmp_path, toy.recipe(14, every=20), poison={26})  # breaks step 14: back to step 0
    assert [fields["to"] for _, _, fields in done.observer.rollbacks] == [0]
    assert [row["step"] for row in done.rollouts.states[14].history] == list(range(1, 1 + NEARBY))
