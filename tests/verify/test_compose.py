"""What becomes of several verdicts on one completion."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.reward_config import PartConfig, RewardConfig
from rlvr.types import Outcome, Provenance, Verdict
from rlvr.verify.compose import attributed, combine


def said(**rewards: float | None) -> dict[str, Verdict]:
    return {
        name: Verdict(r, Outcome.ABSTAIN if r is None else Outcome.OK, reason="why", provenance=(Provenance(name),))
        for name, r in rewards.items()
    }


def parts(how: str = "sum", **cfg: dict) -> RewardConfig:
    return RewardConfig({name: PartConfig(verifier=name, **options) for name, options in cfg.items()}, how)


def test_the_reward_is_the_weighted_sum_and_the_parts_are_unweighted():
    verdict = combine(said(math=1.0, format=0.5), parts(math={}, format={"weight": 0.2}))
    assert verdict.reward == pytest.approx(1.1) and verdict.parts == {"math": 1.0, "format": 0.5}


def test_a_closed_gate_makes_every_part_zero_and_says_which():
    verdict = combine(said(math=1.0, format=0.0), parts(math={}, format={"gate": True}))
    assert verdict.reward == 0.0 and verdict.parts == {"math": 0.0, "format": 0.0}
    assert verdict.reason == "gate_format"


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_a_closed_gate_lets_nobody_off_a_punishment(weight):
    cfg = parts(math={}, format={"gate": True, "weight": weight}, length={})
    long = combine(said(math=0.0, format=1.0, length=-0.9), cfg)
    cut_off = combine(said(math=1.0, format=0.0, length=-1.0), cfg)
    assert cut_off.reward == -1.0 < long.reward
    assert cut_off.parts == {"math": 0.0, "format": 0.0, "length": -1.0}
    costly = parts(math={}, format={"gate": True, "weight": weight}, fault={"weight": -1.0})
    assert combine(said(math=1.0, format=0.0, fault=0.5), costly).reward == -0.5


@given(st.lists(st.floats(-2, 2), min_size=3, max_size=3), st.sampled_from(["sum", "product", "min"]))
def test_a_closed_gate_is_never_worth_more_than_an_open_one_nor_more_than_nothing(values, how):
    others = dict(zip("abc", values, strict=True))
    for weight in (0.0, 1.0):
        cfg = parts(how, gate={"gate": True, "weight": weight}, a={}, b={"weight": 0.5}, c={"weight": 2.0})
        closed, opened = (combine(said(gate=gate, **others), cfg).reward for gate in (0.0, 1.0))
        assert closed <= 0 and closed <= opened


def rejected(**rewards: float) -> dict[str, Verdict]:
    return {
        name: Verdict(r, Outcome.REJECTED, reason="no_box", provenance=(Provenance(name),))
        for name, r in rewards.items()
    }


def test_a_completion_that_a_fault_cannot_be_ruled_out_in_has_it():
    """Its 0 would be the best that the part can say: no box, no fault."""
    cfg = parts(math={}, fault={"weight": -0.5})
    verdict = combine(said(math=1.0) | rejected(fault=0.0), cfg)
    assert (verdict.reward, verdict.parts) == (0.5, {"math": 1.0, "fault": 1.0})
    assert combine(said(math=1.0) | rejected(fault=3.0), cfg).reward == -0.5
    assert combine(rejected(math=0.0) | said(fault=0.0), cfg).reward == 0.0


def test_a_rejected_fault_opens_no_gate_meets_no_requirement_and_stays_out_where_its_own_is_not_met():
    closed = parts(math={}, fault={"weight": -0.5, "gate": True})
    assert combine(said(math=1.0) | rejected(fault=0.0), closed).reward == -0.5
    required = parts(math={"requires": {"fault": 1.0}}, fault={"weight": -0.5})
    assert combine(said(math=1.0) | rejected(fault=0.0), required).parts == {"math": 0.0, "fault": 1.0}
    own = parts(math={}, fault={"weight": -0.5, "requires": {"math": 1.0}})
    assert combine(said(math=0.0) | rejected(fault=0.0), own).parts == {"math": 0.0, "fault": 0.0}


def test_a_product_of_two_faults_is_a_fault():
    assert combine(said(a=-1.0, b=-0.5), parts("product", a={}, b={})).reward == -0.5
    assert combine(said(a=-1.0, b=0.0), parts("product", a={}, b={})).reward == 0.0


@pytest.mark.parametrize(("math", "length"), [(1.0, 0.7), (0.9, 0.0), (0.0, 0.0)])
def test_a_part_counts_only_where_what_it_requires_is_reached(math, length):
    cfg = parts(math={}, length={"requires": {"math": 1.0}})
    verdict = combine(said(math=math, length=0.7), cfg)
    assert verdict.parts == {"math": math, "length": length}
    assert verdict.reward == pytest.approx(math + length)


def test_requirements_are_met_by_what_was_said_not_by_what_is_left_of_it():
    """b requires a, c requires b: b is taken out by a, and c still sees what b's verifier said."""
    cfg = parts(a={}, b={"requires": {"a": 1.0}}, c={"requires": {"b": 1.0}})
    assert combine(said(a=0.0, b=1.0, c=1.0), cfg).parts == {"a": 0.0, "b": 0.0, "c": 1.0}


def test_a_part_that_cannot_say_masks_the_completion():
    verdict = combine(said(math=1.0, format=None), parts(math={}, format={}))
    assert (verdict.reward, verdict.outcome, verdict.reason) == (None, Outcome.ABSTAIN, "format_why")


def test_a_part_without_weight_may_stay_silent_unless_another_requires_it():
    silent = said(math=1.0, style=None)
    assert combine(silent, parts(math={}, style={"weight": 0.0})).reward == 1.0
    assert combine(silent, parts(math={"requires": {"style": 0.5}}, style={"weight": 0.0})).reward is None


@pytest.mark.parametrize(("how", "reward"), [("sum", 1.1), ("product", 0.2), ("min", 0.4)])
def test_a_product_and_a_minimum_are_one_part_over_those_with_a_weight(how, reward):
    cfg = parts(how, math={}, style={"weight": 0.2}, watched={"weight": 0.0})
    verdict = combine(said(math=1.0, style={"sum": 0.5, "product": 0.2, "min": 0.4}[how], watched=0.1), cfg)
    assert verdict.reward == pytest.approx(reward)
    weights = cfg.weights()
    assert sum(weights[name] * verdict.parts[name] for name in weights) == pytest.approx(verdict.reward)


@pytest.mark.parametrize("how", ["sum", "product", "min"])
def test_a_gate_that_is_all_that_counts_may_close(how):
    cfg = parts(how, math={"gate": True}, form={"gate": True, "weight": 0.0})
    assert combine(said(math=0.0, form=1.0), cfg).reward == 0.0
    assert combine(said(math=1.0, form=1.0), cfg).reward == 1.0


@pytest.mark.parametrize("weight", [0.0, 0.5])
@pytest.mark.parametrize(("how", "costs"), [("sum", 0.5), ("product", 1.0), ("min", 1.0)])
def test_a_gate_below_0_is_closed_and_keeps_what_it_takes_off(how, costs, weight):
    verdict = combine(said(math=1.0, format=-1.0), parts(how, math={}, format={"gate": True, "weight": weight}))
    assert (verdict.reward, verdict.reason) == (-costs if weight else 0.0, "gate_format")


def test_a_product_beyond_what_can_be_trained_on_masks_and_names_its_limit():
    cfg = parts("product", a={}, b={}, c={})
    verdict = combine(said(a=1e6, b=1e6, c=10.0), cfg)
    assert (verdict.outcome, verdict.reward, verdict.reason) == (Outcome.ERROR, None, "too_large")
    assert verdict.detail.endswith("is 1e+13: at most 1e+12 in magnitude") and "reward.combine" in verdict.detail
    assert combine(said(a=1e6, b=1e6, c=1.0), cfg).reward == 1e12
    endless = {f"p{n}": 1e6 for n in range(60)}
    assert combine(said(**endless), parts("product", **{name: {} for name in endless})).reason == "too_large"


def test_further_numbers_of_a_verdict_stay_with_who_gave_them():
    own = Verdict(1.0, Outcome.OK, {"acc": 1.0, "length": 0.25}, provenance=(Provenance("score"),))
    verdict = combine({"score": attributed("score", [own])}, parts(score={}))
    assert verdict.parts == {"score": 1.0} and verdict.provenance[0].parts == {"acc": 1.0, "length": 0.25}


def test_a_closed_gate_closes_products_too():
    verdict = combine(said(math=1.0, format=0.0), parts("min", math={}, format={"gate": True, "weight": 0.0}))
    assert (verdict.reward, verdict.reason, verdict.parts["combined"]) == (0.0, "gate_format", 0.0)
