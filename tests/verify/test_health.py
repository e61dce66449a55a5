"""A verifier that lies is found out: by its silences, a sudden change of mind, an audit, or how its passes look."""

import json
import random
from dataclasses import replace

import pytest

from rlvr.config import Recipe
from rlvr.reward_config import PartConfig, RewardConfig, VerifyConfig
from rlvr.types import Completion, Group, Outcome, Prompt, Provenance, Verdict
from rlvr.verify import monitor
from rlvr.verify.health import Health, VerifiersFailed
from rlvr.verify.suspicion import signs


def record(reward: float | None, reason: str = "", part: str = "math", **more) -> Provenance:
    outcome = Outcome.ERROR if reward is None else Outcome.OK
    return Provenance("v", part=part, outcome=outcome.value, reason=reason, reward=reward, **more)


def group(rewards: list[float | None], text: str = "x", records: list[Provenance] | None = None, **more) -> Group:
    prompt = Prompt("p", 0, ({"role": "user", "content": "q"},), (1,), "5")
    completion = Completion((1,), (True,), (0.0,), 0, text, "eos")
    verdicts = [
        Verdict(r, Outcome.ERROR if r is None else Outcome.OK, reason="why", provenance=(record(r, "why", **more),))
        for r in rewards
    ]
    if records:
        verdicts = [replace(v, provenance=(*v.provenance, extra)) for v, extra in zip(verdicts, records, strict=True)]
    return Group(prompt, (completion,) * len(rewards), tuple(verdicts))


class Run:
    """Health with what it told; `broken` makes the verifier call everything 0 when it is asked again."""

    def __init__(self, broken: bool = False, parts: dict | None = None, **verify):
        reward = RewardConfig(parts or {"math": PartConfig("v")})
        self.told: list[str] = []
        self.asked = 0
        cfg = Recipe(name="x", steps=1, reward=reward, verify=VerifyConfig(**verify))

        def again(groups):
            self.asked += len(groups)
            return [group([0.0] * len(g.completions)) if broken else g for g in groups]

        self.health = Health(cfg, self.told.append, again)

    def step(self, *groups: Group) -> dict[str, float]:
        return self.health.step(groups)


def split(rng: random.Random, count: int, share: float = 0.5) -> list[float | None]:
    return [float(rng.random() < share) for _ in range(count)]


def test_a_step_without_any_reward_stops_with_the_reason():
    with pytest.raises(VerifiersFailed, match=r"none of the 4 completions .* 4 times why"):
        Run().step(group([None] * 4))


def test_a_few_masked_verdicts_warn_once_until_they_are_gone():
    run = Run()
    for _ in range(10):
        run.step(group([None] * 3 + [1.0, 0.0] * 30))
    assert len(run.told) == 1
    assert "math: 4.2% of its last 500 verdicts are masked (error why 21) > verify.mask_warn 2%" in run.told[0]
    for _ in range(10):
        run.step(group([1.0, 0.0] * 30))
    for _ in range(20):
        run.step(group([None] * 3 + [1.0, 0.0] * 30))
    assert len(run.told) == 2


@pytest.mark.parametrize(("level", "may"), [("filtered", "read and write what"), ("limited", "do all that")])
def test_a_sandbox_that_protects_little_is_said_once_a_run(level, may):
    run = Run()
    for _ in range(3):
        run.step(group([1.0, 0.0], sandbox_level=level))
    assert run.told == [
        f"math: programs run at sandbox level {level}: they could {may} this user may (min_level=confined refuses)"
    ]
    resumed = Run()
    resumed.health.from_json(json.loads(json.dumps(run.health.to_json())))
    resumed.step(group([1.0, 0.0], sandbox_level=level))
    assert resumed.told == []


@pytest.mark.parametrize("level", ["", "confined", "isolated"])
def test_a_sandbox_that_protects_is_not_worth_a_word(level):
    run = Run()
    run.step(group([1.0, 0.0], sandbox_level=level))
    assert run.told == []


def test_many_masked_verdicts_stop_the_run_before_the_window_is_full():
    run = Run()
    with pytest.raises(VerifiersFailed, match=r"math: 25\.0% .* \(error why 25\) > verify\.mask_stop 20%"):
        for _ in range(5):
            run.step(group([None] * 5 + [1.0] * 15))
    assert len(run.health.parts["math"].masked) == 100


def test_a_part_that_masks_nothing_stops_nothing():
    run = Run(parts={"math": PartConfig("v"), "style": PartConfig("v", weight=0.0)})
    for _ in range(30):
        silent = [record(None, "gone", part="style")] * 20
        run.step(group([1.0, 0.0] * 10, records=silent))
    assert any(text.startswith("style: 100.0%") for text in run.told)


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("size", [50, 2_000])
def test_a_verifier_that_suddenly_says_always_the_same_and_forgets_what_it_said_stops_the_run(value, size):
    rng = random.Random(0)
    run = Run(broken=True)
    for _ in range(10):
        run.step(group(split(rng, 50)))
    with pytest.raises(VerifiersFailed, match=f"verdicts are all {value:g}.* changes its mind .* broken"):
        for _ in range(30):
            run.step(group([value] * size))


def test_a_policy_that_suddenly_always_fails_is_the_sentinels_business():
    rng = random.Random(0)
    run = Run(broken=False)
    for _ in range(10):
        run.step(group(split(rng, 50)))
    for _ in range(30):
        run.step(group([0.0] * 50))
    assert run.asked == 4 and len(run.told) == 1 and "it is the policy that changed" in run.told[0]


def test_success_that_comes_step_by_step_alarms_nobody():
    rng = random.Random(0)
    run = Run(broken=True)
    for share in [0.1, 0.4, 0.7, 0.9, 0.95, 0.98, 0.99, *[1.0] * 20]:
        run.step(group(split(rng, 100, share)))
    assert run.told == [] and run.asked == 0


def test_a_verifier_that_never_told_anything_apart_is_no_news():
    run = Run(broken=True)
    for _ in range(30):
        run.step(group([1.0] * 50))
    assert run.told == []


def test_sudden_changes_may_be_told_and_gone_on_with():
    rng = random.Random(0)
    run = Run(broken=True, sudden="warn")
    for _ in range(10):
        run.step(group(split(rng, 50)))
    for _ in range(30):
        run.step(group([0.0] * 50))
    assert len(run.told) == 1 and "it is broken" in run.told[0]


def test_passes_that_look_like_hacks_are_counted_and_told():
    run = Run()
    for _ in range(4):
        row = run.step(group([1.0] * 16 + [0.0] * 4, text="import os; os._exit(0)"))
    assert row["suspicious/math"] == 1.0
    assert run.told == [
        "math: 100.0% of its last 64 passes look like hacks (ends the program 64): read some in completions/"
    ]


def test_an_audit_that_disagrees_is_told():
    run = Run()
    audits = [record(0.0, "differs", part="audit:math"), record(1.0, part="audit:math")] * 10
    for _ in range(4):
        row = run.step(group([1.0] * 20, records=audits))
    assert row["disagreement/math"] == 0.5
    assert "math: the audit disagrees on 50.0% of the last 60 completions" in run.told[0]


def test_metrics_of_a_step_by_hand():
    said = [record(1.0, "equal", path="fast", seconds=0.1), record(0.0, "differs", path="algebra", seconds=0.3)]
    prompt = Prompt("p", 0, (), (1,), "5")
    completion = Completion((1,), (True,), (0.0,), 0, "x", "eos")
    verdicts = tuple(Verdict(p.reward, Outcome.OK, provenance=(p,)) for p in said)
    masked = Verdict(None, Outcome.ERROR, provenance=(record(None, "gone", seconds=0.2),))
    assert monitor.metrics([Group(prompt, (completion,) * 3, (*verdicts, masked))]) == {
        "masked/math": pytest.approx(1 / 3),
        "verify_seconds/math": pytest.approx(0.2),
        "fast_path/math": pytest.approx(1 / 3),
        "passed/math": 0.5,
        "suspicious/math": 0.0,
        "outcomes/math/ok/equal": 1,
        "outcomes/math/ok/differs": 1,
        "outcomes/math/error/gone": 1,
    }


def test_signs_are_looked_for_in_no_more_passes_than_the_window_remembers(monkeypatch):
    looked_at = []
    monkeypatch.setattr("rlvr.verify.health.signs", lambda text: looked_at.append(text) or signs(text))
    run = Run(window=10)
    for _ in range(2):
        looked_at.clear()
        row = run.step(*(group([1.0], text="os._exit(0)" if n > 25 else f"{n}") for n in range(30)))
    assert looked_at == [str(n) for n in range(20, 26)] + ["os._exit(0)"]
    assert row["suspicious/math"] == 0.4
    assert list(run.health.parts["math"].suspicious) == [""] * 6 + ["ends the program"] * 4


def test_reasons_that_are_all_different_make_no_metric_each():
    where = [record(1.0, "equal")] * 30 + [record(0.0, f"differs by {n}") for n in range(100)] + [record(None, "gone")]
    prompt, completion = Prompt("p", 0, (), (1,), "5"), Completion((1,), (True,), (0.0,), 0, "x", "eos")
    groups = [Group(prompt, (completion,), (Verdict(1.0, Outcome.OK, provenance=(one,)),)) for one in where]
    said = {name: n for name, n in monitor.metrics(groups).items() if name.startswith("outcomes/")}
    assert len(said) == 22 and sum(said.values()) == 131
    assert (said["outcomes/math/ok/equal"], said["outcomes/math/ok/other"]) == (30, 81)
    assert said["outcomes/math/error/other"] == 1


def resumed(run: Run, broken: bool) -> Run:
    """Another process, that has read what the first one saved."""
    after = Run(broken, run.health.reward.parts, window=60, mask_warn=0.02)
    after.health.from_json(json.loads(json.dumps(run.health.to_json(), allow_nan=False)))
    return after


@pytest.mark.parametrize("broken", [True, False])
def test_a_resume_goes_on_with_what_was_seen(broken):
    rng = random.Random(5)
    steps = [group([*split(rng, 7), None if n % 9 == 4 else 0.0]) for n in range(20)]
    steps += [group([1.0] * 8) for _ in range(12)]  # suddenly all alike
    whole, parted = Run(broken, window=60, mask_warn=0.02), Run(broken, window=60, mask_warn=0.02)
    told: list[str] = []
    ends = []
    for run in (whole, parted):
        try:
            for one in steps:
                run.step(one)
                if run is parted:
                    told += parted.told
                    run = parted = resumed(parted, broken)
            ends.append(None)
        except VerifiersFailed as failed:
            ends.append(str(failed))
    assert ends[0] == ends[1] and (ends[0] is not None) == broken
    assert told + parted.told == whole.told and bool(whole.told) != broken


def test_what_a_resume_no_longer_has_is_forgotten_and_what_is_new_begins_empty():
    run = Run()
    run.step(group([1.0, None, 0.0]))
    saved = run.health.to_json()
    assert saved["math"]["masked"] == [False, True, False] and len(saved["math"]["controls"]) == 1
    after = Run(parts={"code": PartConfig("v")})
    after.health.from_json(saved)
    assert after.health.to_json()["code"]["masked"] == []
    short = Run(window=20)
    short.health.from_json({"math": {**saved["math"], "masked": [True] * 500}})
    assert len(short.health.parts["math"].masked) == 20


def test_to_go_back_to_a_checkpoint_forgets_what_was_seen_since():
    run = Run()
    run.step(group([1.0, 0.0]))
    saved = json.loads(json.dumps(run.health.to_json()))
    run.step(group([1.0, None]))
    run.health.from_json(saved)
    assert json.loads(json.dumps(run.health.to_json())) == saved
    run.health.from_json({})  # of step 0
    assert run.health.to_json() == Run().health.to_json()


def test_controls_of_another_size_are_not_asked_about_together():
    sizes: list[int] = []

    def again(groups):
        sizes.extend(len(g.completions) for g in groups)
        assert len(set(sizes)) == 1
        return groups

    run = Run(window=60)
    run.health.again = again
    for n in range(24):
        run.step(group([1.0, 0.0, 0.0, 1.0] if n < 22 else [1.0, 0.0]))
    for _ in range(40):
        run.step(group([0.0, 0.0]))
    assert sizes == [2, 2]


def test_a_part_that_a_gate_requires_decides_too():
    gate = PartConfig("v", weight=0.0, gate=True, requires={"math": 1.0})
    run = Run(parts={"math": PartConfig("v", weight=0.0), "form": gate})
    with pytest.raises(VerifiersFailed, match=r"math: 50\.0% of its last 100 verdicts are masked"):
        for _ in range(100):
            run.step(group([1.0, None]))


def test_a_control_comes_back_as_it_was():
    one = group([1.0, 0.0, None], "text\ud800")
    one = replace(one, prompt=replace(one.prompt, token_ids=(), row={"a": [1, {"b": None}]}, thinking=True))
    run = Run()
    run.step(one)
    after = Run()
    after.health.from_json(json.loads(json.dumps(run.health.to_json())))
    assert list(after.health.parts["math"].controls) == [one]


def test_a_row_that_json_cannot_hold_costs_its_control_and_no_checkpoint():
    run = Run()
    run.step(replace(group([1.0, 0.0]), prompt=Prompt("p", 0, (), (1,), b"bytes")))
    assert run.health.to_json()["math"]["controls"] == []


def test_without_anything_to_ask_again_nobody_is_acquitted():
    run = Run(window=60)
    for n in range(20):
        run.step(group([float(n % 2)] * 8))  # told apart between groups, never within one
    for _ in range(8):
        run.step(group([1.0] * 8))
    assert run.asked == 0 and [told for told in run.told if "no group that it judged in two ways is at hand" in told]


def in_turn() -> Group:
    """Of two verifiers in turn the second one decided: 1, and it took 0.3 s."""
    one = group([1.0])
    silent = replace(record(None, "cannot say", seconds=0.1), outcome="abstain")
    decided = record(1.0, "equal", seconds=0.3)
    return replace(one, verdicts=(replace(one.verdicts[0], provenance=(silent, decided)),))


def test_of_those_asked_in_turn_the_last_one_counts():
    row = monitor.metrics([in_turn()])
    assert (row["masked/math"], row["passed/math"], row["verify_seconds/math"]) == (0.0, 1.0, 0.3)
    assert (row["outcomes/math/abstain/cannot say"], row["outcomes/math/ok/equal"]) == (1, 1)
    run = Run()
    run.step(in_turn())
    seen = run.health.parts["math"]
    assert (list(seen.masked), list(seen.suspicious), seen.stretch.value) == ([False], [""], 1.0)


def test_only_the_full_reward_is_a_pass():
    said = {reward: monitor.passes(record(reward)) for reward in (-1.0, 0.0, 0.5, 1.0, 1.5, None)}
    assert [reward for reward, passes in said.items() if passes] == [1.0, 1.5]
    assert not monitor.passes(replace(record(1.0), outcome="error"))


def test_a_judge_that_wavers_on_a_few_is_not_broken():
    """Four groups of eight are asked about again, and one completion in four gets another verdict."""
    rng = random.Random(0)
    run = Run(window=60)
    run.health.again = lambda groups: [
        group([1 - r if n % 4 == 0 else r for n, r in enumerate(v.reward for v in g.verdicts)]) for g in groups
    ]
    for _ in range(20):
        run.step(group([1.0, *split(rng, 6), 0.0]))
    for _ in range(10):
        run.step(group([1.0] * 8))
    assert len(run.told) == 1 and "it stands by its verdicts on 32 earlier ones" in run.told[0]


def test_a_sudden_change_is_told_again_when_it_comes_again():
    rng = random.Random(0)
    run = Run(window=60)
    run.health.again = list
    for _ in range(2):
        for _ in range(20):
            run.step(group([1.0, *split(rng, 6), 0.0]))
        for _ in range(20):
            run.step(group([1.0] * 8))
    assert len(run.told) == 2


def test_a_window_of_few_verdicts_is_enough_where_the_recipe_says_so():
    rng = random.Random(0)
    run = Run(broken=True, window=40)
    for _ in range(5):
        run.step(group([1.0, *split(rng, 6), 0.0]))
    with pytest.raises(VerifiersFailed, match="its last 40 verdicts are all 1"):
        for _ in range(5):
            run.step(group([1.0] * 8))
    run = Run(window=40)
    with pytest.raises(VerifiersFailed, match=r"50\.0% of its last 40 verdicts are masked"):
        for _ in range(20):
            run.step(group([1.0, None]))
