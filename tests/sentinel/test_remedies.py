"""Each remedy changes what it says of whatever algorithm there is, and nothing else."""

from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import pytest
import torch

from rlvr.compose import compose_recipe, typed
from rlvr.objective import Objective
from rlvr.objective.corrections import Mismatch, off_policy_mask, sequence_truncate, token_truncate
from rlvr.objective.surrogates import clip, unclipped
from rlvr.objective.trial import trial
from rlvr.sentinel.remedies import REMEDIES, further, next_remedies, treat
from rlvr.sentinel.watch import Watch
from rlvr.sentinel_config import REMEDIES as NAMES
from rlvr.sentinel_config import SentinelConfig, knobs, what_is_wrong

ALGORITHMS = sorted(p.stem for p in (Path(__file__).parents[2] / "recipes" / "algorithm").glob("*.yaml"))
CFG = SentinelConfig()


def objective_of(name: str) -> Objective:
    return typed(compose_recipe("quickstart", [f"algorithm={name}"]))[1]


def changed(before: Objective, after: Objective) -> set[str]:
    return {f.name for f in fields(Objective) if getattr(before, f.name) is not getattr(after, f.name)}


def test_the_names_of_the_recipe_are_those_of_the_remedies():
    assert tuple(REMEDIES) == NAMES


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_works_under_all_remedies_at_once(name):
    treatment = treat(objective_of(name), CFG, NAMES, "anchor")
    trial(treatment.objective, [1.0, 0.5], 4)
    assert treatment.learning_rate == CFG.learning_rate_factor


@pytest.mark.parametrize(
    ("remedy", "slots"),
    [
        ("skip_data", set()),
        ("lower_learning_rate", set()),
        ("tighten_clip", {"surrogate"}),
        ("mask_mismatch", {"correction"}),
        ("anchor", {"kl"}),
    ],
)
@pytest.mark.parametrize("name", ["stable", "grpo", "sapo"])
def test_a_remedy_touches_its_own_slot_alone(name, remedy, slots):
    objective = objective_of(name)
    treatment = treat(objective, CFG, [remedy], "anchor")
    assert changed(objective, treatment.objective) == slots
    assert treatment.learning_rate == (0.3 if remedy == "lower_learning_rate" else 1.0)


def test_a_tighter_clip_has_half_the_bounds_and_keeps_the_rest():
    tight = treat(objective_of("stable"), CFG, ["tighten_clip"], None).objective.surrogate
    log_w_BT, one_B1 = torch.tensor([[0.5, 0.95, 1.05, 2.0, 9.0]]).log(), torch.ones(1, 1)
    gains = [tight(log_w_BT, sign * one_B1, log_w_BT).tolist()[0] for sign in (1, -1)]
    assert gains[0] == pytest.approx([0.5, 0.95, 1.05, 1.14, 1.14])  # 1 + 0.28 / 2
    assert gains[1] == pytest.approx([-0.9, -0.95, -1.05, -2.0, -3.0])  # 1 - 0.2 / 2; the dual clip is still at 3


@pytest.mark.parametrize("surrogate", [unclipped, partial(unclipped)])
def test_what_has_no_clip_gets_one(surrogate):
    objective = replace(objective_of("stable"), surrogate=surrogate)
    tight = treat(objective, CFG, ["tighten_clip"], None).objective.surrogate
    assert tight.func is clip and tight.keywords == {"low": 0.1, "high": 0.1}


@pytest.mark.parametrize("before", [None, partial(token_truncate, cap=1.5)])
def test_tokens_that_engine_and_trainer_disagree_about_do_not_teach(before):
    objective = replace(objective_of("stable"), correction=before)
    correction = treat(objective, CFG, ["mask_mismatch"], None).objective.correction
    delta_BT = torch.tensor([[0.4, 1.0, 1.9, 2.1]]).log()
    weights_BT = correction(Mismatch(delta_BT, delta_BT, torch.ones(1, 4), torch.ones(1, 1)))
    assert (weights_BT == 0).tolist() == [[True, False, False, True]]


ALONE = [partial(token_truncate, cap=2.0), partial(sequence_truncate, cap=2.0), off_policy_mask]


@pytest.mark.parametrize("before", ALONE)
def test_what_a_correction_weighs_is_masked_and_not_weighed_again(before):
    objective = replace(objective_of("stable"), correction=before)
    correction = treat(objective, CFG, ["mask_mismatch"], None).objective.correction
    delta_BT = torch.tensor([[0.0, 0.5, -0.5, 0.65, 1.0, -1.0]])  # exp of the last two: 2.7 and 0.37
    seen = Mismatch(delta_BT, delta_BT, torch.ones(1, 6), torch.ones(1, 1))
    agree_BT = torch.tensor([[1.0, 1.0, 1.0, 1.0, 0.0, 0.0]])
    assert torch.equal(correction(seen), before(seen) * agree_BT)


@pytest.mark.parametrize("name", ["stable", "grpo", "reinforce_pp"])
def test_the_anchor_takes_the_place_of_the_algorithms_own_reference(name):
    kl = treat(objective_of(name), CFG, ["anchor"], "good/weights").objective.kl
    assert (kl.reference, kl.coefficient, kl.place) == ("good/weights", 0.05, "loss")


def test_the_kl_from_an_anchor_is_not_called_that_from_the_reference():
    measured = {"policy/kl_ref": 0.01, "policy/loss": 1.0}
    assert treat(objective_of("grpo"), CFG, ["skip_data"], None).named(measured) == measured
    anchored = treat(objective_of("grpo"), CFG, ["skip_data", "anchor"], "good")
    assert anchored.named(measured) == {"policy/kl_anchor": 0.01, "policy/loss": 1.0}
    assert anchored.named({"policy/loss": 1.0}) == {"policy/loss": 1.0}, "a step without a trained token"


def test_the_ladder_is_climbed_a_rung_at_a_time_and_has_an_end():
    cfg = SentinelConfig(remedies=["skip_data", "anchor"])
    assert next_remedies(cfg, ()) == ("skip_data",)
    assert next_remedies(cfg, ("skip_data",)) == next_remedies(cfg, ("skip_data", "anchor")) == ("skip_data", "anchor")
    assert next_remedies(SentinelConfig(remedies=[]), ()) == ()


def test_data_are_passed_over_further_and_further_where_the_ladder_says_so():
    """By how often in a row, not by how many remedies there are: a ladder may have only this one."""
    for in_force in (("skip_data",), ("skip_data", "anchor")):
        assert [further(in_force, rollbacks, 8) for rollbacks in range(1, 6)] == [32, 64, 128, 128, 128]
    assert further((), 0, 8) == further(("anchor",), 3, 8) == 0


def test_the_defaults_can_work_and_every_knob_has_limits():
    assert what_is_wrong(SentinelConfig()) is None
    assert len(list(knobs(SentinelConfig()))) > 40


@pytest.mark.parametrize(
    ("section", "knob", "value", "said"),
    [
        ("", "remedies", ["pray"], "remedies: no remedy 'pray'; there are: skip_data, "),
        ("", "max_rollbacks", -1, "max_rollbacks=-1: at least 0"),
        ("", "memory", 63, "memory=63: at least 64"),
        ("", "learning_rate_factor", 1.5, "learning_rate_factor=1.5: at least 0, at most 1"),
        ("reward", "share", float("nan"), "reward.share=nan: at least 0, at most 1"),
        ("reward", "windows", [12, 0], "reward.windows=[12, 0]: at least 1"),
        ("reward", "windows", [], "reward.windows is empty"),
        ("kl", "factor", 0.5, "kl.factor=0.5: at least 1"),
        ("nonfinite", "patience", 5000, "nonfinite.patience=5000: at most memory=1000"),
        ("reward", "windows", [12, 986], "reward.windows=[12, 986]: at most 985, for memory=1000 must hold 16 steps"),
        ("loss", "window", 986, "loss.window=986: at most 985"),
        ("length", "window", 970, "length.window=970: at most 969, for memory=1000 must hold 32 steps before them"),
        ("sample_size", "window", 1001, "sample_size.window=1001: at most memory=1000"),
        ("", "learning_rate_factor", 0.0, "learning_rate_factor=0.0: above 0"),
        ("", "clip_factor", 0.0, "clip_factor=0.0: above 0"),
        ("", "anchor_coefficient", 0.0, "anchor_coefficient=0.0: above 0"),
        ("mismatch", "max", 0.0, "mismatch.max=0.0: above 0"),
    ],
)
def test_a_knob_that_cannot_work_is_named_with_value_and_limit(section, knob, value, said):
    cfg = SentinelConfig()
    setattr(getattr(cfg, section) if section else cfg, knob, value)
    assert what_is_wrong(cfg).startswith(said)


def test_the_largest_window_that_is_let_through_can_still_speak():
    """64 steps are remembered and one is judged: the longest window is the last 49 of them, or 33 for the lengths."""
    cfg = SentinelConfig(memory=64)
    cfg.reward.windows, cfg.length.window, cfg.entropy_collapse.window = [49], 33, 49
    for section in (cfg.mismatch, cfg.entropy_rise, cfg.kl, cfg.grad_norm, cfg.loss):
        section.window = 49
    assert what_is_wrong(cfg) is None
    well = {"reward/mean": 0.8, "policy/grad_norm": 1.0, "completions/length_mean": 100.0, "policy/entropy": 0.5}
    ill = {"reward/mean": 0.0, "policy/grad_norm": 1e5, "completions/length_mean": 900.0, "policy/entropy": 1e-4}
    watch, history, spoke = Watch(cfg), [], set()
    for step in range(1, 200):
        row = watch.watch(step, well if step < 100 else ill)
        spoke |= {alarm.detector for alarm in watch.all_alarms(row, history)}
        history.append(row)
    assert {"reward", "grad_norm", "length", "entropy_collapse"} <= spoke
