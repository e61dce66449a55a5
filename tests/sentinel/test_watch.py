"""Each reason to distrust a step, at its limit; the successes that must not look like one; and that it is pure."""

import math
import random
from dataclasses import replace
from pathlib import Path

import pytest

from rlvr.loop import Diverged
from rlvr.observe.metrics import find
from rlvr.sentinel.columns import KNOWN
from rlvr.sentinel.detectors import WATCHED_FINITE
from rlvr.sentinel.replay import replay
from rlvr.sentinel.watch import WATCHED, Watch
from rlvr.sentinel_config import (
    AccuracyConfig,
    EntropyCollapseConfig,
    FallConfig,
    MismatchConfig,
    NonFiniteConfig,
    RiseConfig,
    SampleSizeConfig,
    SentinelConfig,
)
from tests import toy
from tests.sentinel.runs import BROKEN, rows

HEALTHY = {
    "policy/loss": 0.1,
    "policy/entropy": 0.5,
    "policy/grad_norm": 3.0,
    "policy/kl_ref": 0.01,
    "mismatch/mean_abs": 0.01,
    "mismatch/ess": 0.98,
    "reward/mean": 0.5,
    "completions/length_mean": 100.0,
    "completions/truncated": 0.0,
    "groups/no_signal": 0.4,
}


def watch(**sections) -> Watch:
    return Watch(SentinelConfig(**sections))


def told(watch: Watch, *parts: tuple[int, dict]):
    """The alarm of the first step that has one, after stretches of (steps, what differs from HEALTHY)."""
    history: list = []
    for count, changes in parts:
        for _ in range(count):
            row = watch.watch(len(history) + 1, HEALTHY | changes)
            if alarm := watch.inspect(row, history):
                return alarm
            history.append(row)
    return None


def test_a_healthy_run_raises_no_alarm():
    assert told(watch(), (200, {})) is None


# ---- numbers that are none -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WATCHED_FINITE)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_not_finite_is_an_alarm_that_names_it(name, value):
    alarm = told(watch(), (3, {}), (1, {name: value}))
    onset = 3 if name.startswith("transfer/") else 4  # what was published came of the step before
    assert (alarm.detector, alarm.step, alarm.onset, alarm.metric) == ("nonfinite", 4, onset, name)
    since = ", since step 3" if onset == 3 else ""
    assert str(alarm) == f"step 4: {name} is {value}, not finite (sentinel.nonfinite){since}"


def test_a_metric_that_a_trainer_does_not_report_is_no_alarm():
    assert watch().inspect(watch().watch(1, {"policy/grad_norm": 1.0}), ()) is None


SKIPPED = {"policy/skipped": 1.0, "policy/loss": math.nan, "policy/grad_norm": math.nan}


def test_a_skipped_step_broke_nothing_and_what_is_no_number_is_not_remembered():
    row = watch().watch(1, HEALTHY | SKIPPED)
    assert watch().inspect(row, ()) is None
    assert row["policy/skipped"] == 1.0 and not {"policy/loss", "policy/grad_norm"} & set(row)


def test_so_many_skipped_steps_in_a_row_are_an_alarm_from_the_first_one_on():
    patient = watch(nonfinite=NonFiniteConfig(patience=4))
    assert told(patient, (5, {}), (3, SKIPPED), (1, {}), (3, SKIPPED)) is None
    alarm = told(patient, (5, {}), (4, SKIPPED))
    assert (alarm.step, alarm.onset, alarm.knob) == (9, 6, "sentinel.nonfinite.patience")


IDLE = {"tokens/trained": 0.0, "policy/skipped": 0.0, "policy/loss": 0.0, "policy/grad_norm": 0.0}


def test_a_step_without_an_update_ends_no_row_of_skipped_ones():
    patient = watch(nonfinite=NonFiniteConfig(patience=4))
    alternating = [(1, changes) for _ in range(4) for changes in (SKIPPED, IDLE)]
    alarm = told(patient, (5, {"policy/skipped": 0.0}), *alternating)
    assert (alarm.step, alarm.onset, alarm.knob) == (12, 6, "sentinel.nonfinite.patience")
    assert told(patient, (3, SKIPPED), (40, IDLE)) is None, "nothing new is known"


def test_of_several_updates_a_step_all_must_be_skipped():
    patient = watch(nonfinite=NonFiniteConfig(patience=4))
    assert told(patient, (5, {}), (40, SKIPPED | {"policy/skipped": 7 / 8})) is None


def test_weights_that_give_no_number_are_an_alarm_though_the_step_was_skipped_and_date_from_the_step_before():
    row = watch().watch(7, HEALTHY | SKIPPED | {"transfer/probe_rms": math.nan})
    alarm = watch().inspect(row, ())
    assert (alarm.detector, alarm.metric, alarm.onset) == ("nonfinite", "transfer/probe_rms", 6)


# ---- levels ----------------------------------------------------------------------------------------------------------

RISES = [
    ("entropy_rise", "policy/entropy"), ("kl", "policy/kl_ref"), ("grad_norm", "policy/grad_norm"),
    ("loss", "policy/loss"), ("mismatch", "mismatch/mean_abs"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "metric"), RISES)
def test_a_rise_is_seen_above_factor_times_the_quietest_stretch_and_not_below(name, metric):
    kind = MismatchConfig if name == "mismatch" else RiseConfig
    one = watch(**{name: kind(window=4, factor=5.0, floor=0.001)})
    usual = HEALTHY[metric]
    assert told(one, (30, {}), (30, {metric: 4.9 * usual})) is None
    alarm = told(one, (30, {}), (30, {metric: 5.1 * usual}))
    assert (alarm.detector, alarm.metric, alarm.onset) == (name, metric, 31)
    assert alarm.step == 33  # the median of [usual, usual, 5.1, 5.1] is not above 5 yet
    assert alarm.value == pytest.approx(5.1 * usual) and alarm.limit == pytest.approx(5 * usual)
    assert alarm.knob == f"sentinel.{name}.factor" and "since step 31" in str(alarm)


@pytest.mark.parametrize(("name", "metric"), RISES)
def test_a_rise_below_the_floor_is_none(name, metric):
    kind = MismatchConfig if name == "mismatch" else RiseConfig
    one = watch(**{name: kind(window=4, factor=5.0, floor=0.5)})
    tiny = {metric: 1e-6}
    assert told(one, (30, tiny), (30, {metric: 0.49})) is None
    assert told(one, (30, tiny), (30, {metric: 0.51})).knob == f"sentinel.{name}.floor"


def test_one_wild_gradient_is_no_alarm_and_neither_are_steps_without_an_update():
    assert told(watch(), (30, {}), (1, {"policy/grad_norm": 1e6}), (30, {})) is None
    idle = {"policy/grad_norm": 0.0, "policy/loss": 0.0}
    assert (
        told(watch(), (20, idle), (20, {"policy/grad_norm": 9.0}), (20, idle), (3, {"policy/grad_norm": 9.0})) is None
    )


def test_nothing_is_compared_before_there_is_something_to_compare_with():
    assert told(watch(), (10, {}), (17, {"policy/entropy": 9.0, "reward/mean": 0.0})) is None


@pytest.mark.parametrize(("value", "alarms"), [(0.99, False), (1.0, False), (1.01, True)])
def test_engine_and_trainer_may_differ_in_a_single_step_up_to_the_limit(value, alarms):
    alarm = told(watch(), (1, {"mismatch/mean_abs": value}))
    assert (alarm is not None) is alarms
    assert not alarms or alarm.message == "mismatch/mean_abs 1.01 > sentinel.mismatch.max 1"


def test_few_tokens_that_decide_are_an_alarm():
    one = watch(sample_size=SampleSizeConfig(window=4, min=0.5))
    assert told(one, (30, {"mismatch/ess": 0.51})) is None
    alarm = told(one, (30, {}), (9, {"mismatch/ess": 0.4}))
    assert (alarm.detector, alarm.step, alarm.onset) == ("sample_size", 33, 31)


def test_a_fallen_reward_is_seen_in_words():
    alarm = told(watch(reward=FallConfig(windows=[12])), (40, {}), (30, {"reward/mean": 0.1}))
    assert (alarm.detector, alarm.onset) == ("reward", 41)
    assert alarm.step == 46  # 12 steps, 6 of them at 0.1: 0.30; proved of 0.5 is 0.47, for the jump looks like noise
    assert alarm.message.startswith("reward/mean 0.3 (mean of 12 steps) < 0.306: sentinel.reward.share allows 0.165")


def test_a_reward_that_rises_or_was_never_there_is_no_alarm():
    assert told(watch(), *[(20, {"reward/mean": 0.1 * i}) for i in range(10)]) is None
    assert told(watch(), (300, {"reward/mean": 0.0})) is None
    assert told(watch(), (100, {"reward/mean": -1.0}), (100, {"reward/mean": -0.5})) is None


def test_a_reward_below_zero_falls_too():
    assert told(watch(), (60, {"reward/mean": -0.2}), (30, {"reward/mean": -1.0})).detector == "reward"


def test_completions_that_run_into_the_limit_are_an_alarm():
    alarm = told(watch(), (60, {}), (30, {"completions/truncated": 0.9}))
    assert (alarm.detector, alarm.metric, alarm.onset) == ("truncated", "completions/truncated", 61)
    assert alarm.value > alarm.limit
    assert told(watch(), (60, {"completions/truncated": 0.7}), (60, {"completions/truncated": 0.75})) is None


def test_longer_answers_are_an_alarm_only_when_they_do_not_pay():
    longer = {"completions/length_mean": 200.0}
    assert told(watch(), (60, {}), (60, longer | {"reward/mean": 0.6})) is None
    assert told(watch(), (60, {}), (60, longer | {"reward/mean": 0.4})).detector == "length"


NO_ENTROPY = {"policy/entropy": 0.001}


@pytest.mark.parametrize(
    ("changes", "alarms"),
    [({"reward/mean": 0.45}, True), ({"reward/mean": 0.6}, False), ({"reward/mean": 0.5, "accuracy": 0.95}, False)],
)
def test_lost_entropy_is_an_alarm_unless_it_was_spent_on_reward_or_the_task_is_solved(changes, alarms):
    one = watch(entropy_collapse=EntropyCollapseConfig(window=4))
    alarm = told(one, (60, {}), (60, NO_ENTROPY | changes))
    assert (alarm is not None) is alarms
    assert not alarms or (alarm.detector, alarm.onset) == ("entropy_collapse", 61)


def test_entropy_that_is_spent_from_the_first_step_on_is_measured_by_more_than_that_steps_luck():
    """0.4 nats, 8 % less with every step; the reward rises from 0.3 to 0.6, but for a lucky first step."""
    spends = [(1, {"policy/entropy": 0.4 * 0.92**i, "reward/mean": 0.3 + 0.005 * i if i else 0.9}) for i in range(60)]
    assert told(watch(reward=FallConfig(enabled=False)), *spends) is None


@pytest.mark.parametrize(("reward", "alarms"), [(0.5, True), (0.95, False)])
def test_a_batch_that_teaches_nothing_is_an_alarm_unless_the_task_is_solved(reward, alarms):
    alarm = told(watch(), (60, {}), (60, {"groups/no_signal": 1.0, "reward/mean": reward}))
    assert (alarm is not None) is alarms
    assert not alarms or alarm.detector == "no_signal"


def test_a_task_is_not_solved_while_a_closed_gate_takes_what_right_answers_would_earn():
    unpaid = {"reward/mean": 0.05, "accuracy": 0.95, "accuracy_rewarded": 0.02}
    for rest, detector in ((NO_ENTROPY, "entropy_collapse"), ({"groups/no_signal": 1.0}, "no_signal")):
        one = watch(entropy_collapse=EntropyCollapseConfig(window=4), reward=FallConfig(enabled=False))
        assert told(one, (60, {}), (60, rest | unpaid)).detector == detector
        assert told(one, (60, {}), (60, rest | unpaid | {"accuracy_rewarded": 0.95})) is None


def test_held_out_accuracy_must_be_low_twice():
    def evaluated(*values):
        return [part for value in values for part in ((1, {"eval/accuracy_greedy": value}), (9, {}))]

    assert told(watch(), *evaluated(0.5, 0.6, 0.3, 0.58, 0.57)) is None
    alarm = told(watch(), *evaluated(0.5, 0.6, 0.4, 0.3))
    # it began behind the evaluation that travels with step 11, which is the last that was well
    assert (alarm.detector, alarm.step, alarm.onset, alarm.value) == ("accuracy", 31, 11, 0.4)


@pytest.mark.parametrize(
    ("said", "knob", "alarms"),
    [({}, 0, True), ({"eval/problems": 20}, 0, False), ({"eval/problems": 20}, 200, True), ({}, 20, False)],
)
def test_how_many_problems_were_held_out_the_run_says_unless_the_recipe_does(said, knob, alarms):
    """0.6 - 0.4 is 5.8 standard errors of 200 problems, and 1.8 of 20."""
    values = (0.5, 0.6, 0.4, 0.3)
    parts = [part for x in values for part in ((1, said | {"eval/accuracy_greedy": x}), (9, {}))]
    assert (told(watch(accuracy=AccuracyConfig(problems=knob)), *parts) is not None) is alarms


def test_the_luckiest_of_many_evaluations_is_no_level_to_fall_from():
    """200 problems, 0.45: a standard error is 0.035. One at +2.4 of them, later two at -1.4: together 3.8."""
    usual = [0.45, 0.46, 0.44] * 5
    parts = [(1, {"eval/accuracy_greedy": x}) for x in [*usual, 0.535, *usual, 0.40, 0.40]]
    assert told(watch(), *parts) is None
    lasting = [(1, {"eval/accuracy_greedy": x}) for x in [*usual, 0.535, 0.535, *usual, 0.40, 0.40]]
    assert told(watch(), *lasting).detector == "accuracy", "two in a row were no luck"


def test_a_steady_policy_with_small_and_frequent_evaluations_is_left_alone():
    """50 problems, each with its own chance (Beta, mean 0.7); 100 evaluations; 40 runs, of which half had an alarm."""
    alarms = 0
    for seed in range(40):
        rng = random.Random(seed)
        chances = [rng.betavariate(1.4, 0.6) for _ in range(50)]
        values = [sum(rng.random() < chance for chance in chances) / 50 for _ in range(100)]
        parts = [(1, {"eval/accuracy_greedy": x, "eval/problems": 50}) for x in values]
        alarms += told(watch(**ONLY_ACCURACY), *parts) is not None
    assert alarms <= 3


ONLY_ACCURACY = {name: replace(section, enabled=False) for name, section in vars(SentinelConfig()).items()
                 if hasattr(section, "enabled") and name != "accuracy"}  # fmt: skip


def test_an_evaluation_of_other_problems_is_not_compared_with():
    """`evaluation.limit` from 1,000 to 200 at a resume: the first 200 are harder."""
    def evaluated(problems, *values):
        return [part for x in values for part in ((1, {"eval/problems": problems, "eval/accuracy_greedy": x}), (9, {}))]

    assert told(watch(), *evaluated(1000, 0.5, 0.51, 0.5, 0.5), *evaluated(200, 0.3, 0.31, 0.3, 0.29)) is None
    assert told(watch(), *evaluated(200, 0.5, 0.51, 0.5, 0.5), *evaluated(200, 0.3, 0.31, 0.3, 0.29)) is not None


def test_steps_that_were_measured_otherwise_are_not_compared_with_and_older_ones_that_do_not_say_are():
    low = HEALTHY | {"reward/mean": 0.2}
    for before, now, alarms in ((1, 2, False), (1, 1, True), (None, 1, True)):
        old, new = Watch(SentinelConfig(), before), Watch(SentinelConfig(), now)
        history = [old.watch(step, HEALTHY) for step in range(1, 61)]
        found = []
        for step in range(61, 121):
            row = new.watch(step, low)
            found += new.all_alarms(row, history)
            history.append(row)
        assert bool(found) is alarms
    assert "recipe" not in watch().watch(1, HEALTHY), "a recorded run has no recipe"


# ---- purity, switches, memory ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["entropy_rise", "kl", "grad_norm", "loss", "reward", "truncated", "no_signal", "length"]
)
def test_a_detector_can_be_switched_off(name):
    cfg = SentinelConfig()
    getattr(cfg, name).enabled = False
    assert name not in {d.name for d in Watch(cfg).detectors}
    assert len(Watch(cfg).detectors) == len(watch().detectors) - 1


def test_a_sentinel_that_is_off_says_nothing():
    assert told(watch(enabled=False), (60, {}), (60, {"policy/loss": math.nan, "reward/mean": 0.0})) is None


def test_every_knob_in_an_alarm_exists():
    for schedule, onset, within, _ in BROKEN.values():
        history = []
        for metrics in rows(schedule, onset + within, 0, 16):
            row = watch().watch(metrics["step"], metrics)
            if metrics["step"] > onset and (alarm := watch().inspect(row, history)):
                section = SentinelConfig()
                for key in alarm.knob.split(".")[1:]:
                    section = getattr(section, key)
                assert alarm.metric in WATCHED and alarm.knob in alarm.message
                break
            history.append(row)


def test_steps_without_a_trained_token_say_nothing_of_the_policy():
    row = watch().watch(5, HEALTHY | {"tokens/trained": 0.0, "policy/entropy": 0.0, "policy/grad_norm": 0.0})
    assert row["reward/mean"] == 0.5 and not any(name.startswith(("policy/", "mismatch/")) for name in row)


def test_what_is_watched_is_in_the_table_of_metrics_and_a_replay_finds_it():
    assert all(find(name) for name in WATCHED)
    assert set(WATCHED) <= set(KNOWN) and "tokens/trained" in KNOWN


def test_the_same_step_and_history_give_the_same_answer_and_only_the_memory_counts():
    one = watch(memory=100)
    history = [one.watch(m["step"], m) for m in rows(BROKEN["reward falls"][0], 320, 3)]
    row, past = history[-1], history[:-1]
    before = [dict(old) for old in past]
    answers = {one.inspect(row, past), one.inspect(row, tuple(past)), one.inspect(row, past[-100:])}
    assert len(answers) == 1 and [dict(old) for old in past] == before


# ---- in the loop -----------------------------------------------------------------------------------------------------


class Breaks(toy.ToyRollouts):
    """Its metrics go bad from a place in the data on, and are bad for a while."""

    def take(self, state):
        taken = super().take(state)
        bad = 100 <= state.cursor < 130
        noise = random.Random(state.cursor).uniform(-0.05, 0.05)
        taken.metrics.update({"reward/mean": (0.1 if bad else 0.6) + noise})
        return taken


class Weighted(toy.ToyRollouts):
    """Rewards in proportion to the weight of their part; one step of nan at a place in the data."""

    def __init__(self, weight: float, bad: int | None = None):
        super().__init__()
        self.level, self.bad = weight / 2, bad

    def take(self, state):
        taken = super().take(state)
        noise = random.Random(state.cursor).uniform(-0.05, 0.05)
        taken.metrics.update({"reward/mean": self.level + noise})
        if state.cursor == self.bad:
            taken.metrics["transfer/probe_rms"] = math.nan
        return taken


@pytest.mark.parametrize("bad", [None, 210])
def test_half_the_weight_at_a_resume_is_no_trouble_nor_behind_a_rollback_to_before_it(tmp_path: Path, bad):
    cfg = toy.recipe(100, every=25, probation=20)
    toy.run(tmp_path, cfg, rollouts=Weighted(1.0))
    cfg.steps, cfg.reward.parts["math"].weight = 200, 0.5
    done = toy.run(tmp_path, cfg, rollouts=Weighted(0.5, bad))
    assert [fields["to"] for _, _, fields in done.observer.rollbacks] == ([75] if bad else [])
    assert done.state.step == 200


def test_the_same_fall_without_a_change_of_the_recipe_is_seen(tmp_path: Path):
    cfg = toy.recipe(100, every=25, probation=20)
    toy.run(tmp_path, cfg, rollouts=Weighted(1.0))
    cfg.steps = 120
    observer = toy.ToyObserver()
    with pytest.raises(Diverged):
        toy.run(tmp_path, cfg, rollouts=Weighted(0.5), observer=observer)
    assert {fields["alarm"]["detector"] for _, _, fields in observer.rollbacks} == {"reward"}


def test_a_replay_of_what_was_logged_gives_the_alarms_that_the_live_run_had(tmp_path: Path):
    class Keeps(toy.ToyObserver):
        """Logs as a run folder does that nothing is cut from, the steps that were undone included."""

        def event(self, kind, message, **fields):
            super().event(kind, message, **fields)
            if kind == "rollback":
                alarms.append(fields["alarm"])

    live_rows, alarms = [], []

    class Listening(Watch):
        def watch(self, step, metrics):
            live_rows.append({"step": step, **metrics})
            return super().watch(step, metrics)

    cfg = toy.recipe(90, every=10, max_rollbacks=9)
    done = toy.run(tmp_path, cfg, rollouts=Breaks(), observer=Keeps(), watch=Listening(cfg.sentinel))
    assert done.state.rollbacks == len(alarms) >= 1
    assert {alarm["detector"] for alarm in alarms} == {"reward"}
    assert [alarm.fields() for alarm in replay(live_rows, Watch(cfg.sentinel))] == alarms
