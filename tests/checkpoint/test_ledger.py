"""Which checkpoints are good, which stay, and which one a rollback goes to, whatever crashes in between."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr.checkpoint.disk import DiskCheckpoints
from rlvr.checkpoint.ledger import FAR, Entry, Ledger, digest, step_of
from rlvr.config import CheckpointConfig
from rlvr.lineage import Lineage
from rlvr.state import State
from tests.checkpoint.fakes import Trainer, at, flip, labels, name, names, reopened, save


def test_a_checkpoint_is_good_after_its_probation(three):
    three.settle(Trainer(), 4)
    assert labels(three) == {1: "good", 2: "good", 3: "candidate"}
    three.settle(Trainer(), 5)
    assert labels(three) == {1: "good", 2: "good", 3: "good"}


def test_step_0_is_good_from_the_start(checkpoints):
    checkpoints.first(Trainer())
    assert labels(checkpoints) == {0: "good"}


def test_retention_keeps_the_newest_the_archived_the_best_and_two_good_ones(tmp_path, told):
    cfg = CheckpointConfig(keep=2, keep_every=8, probation=100)
    kept = DiskCheckpoints(tmp_path, cfg, [1], told)
    kept.first(Trainer())
    for step in range(1, 14):
        save(kept, Trainer(), at(step))
        kept.evaluated(at(step), {"eval/accuracy_greedy": 0.9 if step == 5 else 0.1})
    assert [step_of(n) for n in names(kept)] == [0, 1, 5, 8, 12, 13], "1 is the next to be good"
    kept.settle(Trainer(), 105)  # 5 is good now
    kept.settle(Trainer(), 108)  # and 8
    save(kept, Trainer(), at(14))
    assert [step_of(n) for n in names(kept)] == [0, 1, 5, 8, 12, 13, 14], "1 is the next to be 64 steps old"
    assert sorted(p.name for p in tmp_path.glob("step-*")) == names(kept)


def test_an_evaluation_that_comes_while_the_checkpoint_is_written_is_its_own(three):
    trainer = Trainer(0.4)
    trainer.gate.clear()
    three.save(trainer, at(4))
    three.evaluated(at(4), {"eval/accuracy_greedy": 0.7})
    trainer.gate.set()
    three.finish(trainer)
    assert reopened(three).ledger.entries[name(4)].score == 0.7


def test_the_only_good_one_is_gone_back_to_twice_rather_than_to_one_made_in_the_trouble(three):
    three.ledger.entries[name(1)].label = "good"  # 2 and 3 are candidates still
    assert three.ledger.before(onset=2, broken=name(1)) == name(1)
    assert three.ledger.before(onset=1, broken=name(1)) == name(1)  # the oldest good one


@pytest.mark.parametrize(("onset", "to"), [(9, 4), (5, 4), (4, 2), (3, 2), (1, 0)])
def test_a_rollback_goes_to_the_newest_good_one_from_before_the_trouble(tmp_path, told, onset, to):
    there = DiskCheckpoints(tmp_path, CheckpointConfig(keep=9, probation=2), [1], told)
    there.first(Trainer())
    for step in (2, 4, 6):
        save(there, Trainer(step / 10), at(step))
    trainer = Trainer()
    back = there.roll_back(trainer, at(7), onset)  # 6 is still on probation
    assert (back.step, trainer.weight) == (to, to / 10)
    assert step_of(back.restored) == to


def test_one_that_broke_again_on_probation_is_passed_over(tmp_path, told):
    there = DiskCheckpoints(tmp_path, CheckpointConfig(keep=9, probation=2), [1], told)
    there.first(Trainer())
    for step in (2, 4):
        save(there, Trainer(), at(step))
    once = there.roll_back(Trainer(), at(9), 8)
    assert once.step == 4
    again = replace(once, step=5)
    assert there.roll_back(Trainer(), again, 6).step == 2
    assert there.roll_back(Trainer(), replace(once, step=6), 7).step == 4, "it has stood for two more steps"


def rolled_back(checkpoints: DiskCheckpoints) -> State:
    checkpoints.settle(Trainer(), 5)
    restored = checkpoints.roll_back(Trainer(), at(5), 4)
    return replace(restored, cursor=999, rollbacks=1, lineage=Lineage(20, floor=20), remedies=("anchor",), until=55)


def test_a_rollback_is_remembered_after_a_crash_right_behind_it(three):
    note = rolled_back(three)
    three.note_rollback(note)
    trainer = Trainer()
    assert reopened(three).restore(trainer) == note
    assert trainer.weight == 0.3


def test_what_came_after_a_rollback_is_not_restored_and_goes_with_the_next_save(three):
    three.settle(Trainer(), 4)
    note = replace(three.roll_back(Trainer(), at(4), 3), lineage=Lineage(20, floor=20))
    assert step_of(note.restored) == 2
    three.note_rollback(note)
    assert labels(three) == {1: "good", 2: "good", 3: "abandoned"}
    assert reopened(three).restore(Trainer()) == note
    save(three, Trainer(), replace(at(3), lineage=Lineage(21, floor=20)))
    assert sorted(step_of(p.name) for p in three.root.glob("step-*")) == [1, 2, 3]
    assert not (three.root / name(3)).exists()


def test_a_rollback_past_a_damaged_checkpoint_is_remembered_too(three):
    three.settle(Trainer(), 5)
    (three.root / name(3) / "state.json").unlink()
    note = rolled_back(three)
    three.note_rollback(note)
    assert note.restored == name(2)
    assert reopened(three).restore(Trainer()) == note


def test_a_rollback_is_history_once_a_newer_checkpoint_is_there(three):
    note = rolled_back(three)
    three.note_rollback(note)
    newer = replace(at(4), lineage=Lineage(21, floor=20))
    save(three, Trainer(0.4), newer)
    assert reopened(three).restore(Trainer()) == newer
    shutil.rmtree(three.root / names(three)[-1])  # that one is gone: the rollback counts again
    assert reopened(three).restore(Trainer()) == note


def test_a_crash_while_a_rollback_is_noted_leaves_the_note_before(three, monkeypatch):
    note = rolled_back(three)
    three.note_rollback(note)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        three.note_rollback(replace(note, rollbacks=2))
    monkeypatch.undo()
    assert reopened(three).restore(Trainer()) == note


def test_every_flipped_bit_of_the_ledger_is_found_and_its_copy_read(three, told):
    three.note_rollback(rolled_back(three))
    path, before = three.root / "ledger.json", reopened(three).ledger
    good = path.read_bytes()
    for bit in range(0, 8 * len(good), 5):
        path.write_bytes(flip(good, bit))
        found = reopened(three).ledger
        assert (found.entries, found.rollback) == (before.entries, before.rollback), f"bit {bit}"
    assert len(told.of("warning")) > len(good), "and it was said, but for bits that are only white space"


def test_the_best_good_checkpoint_is_found_by_evaluation(three):
    three.evaluated(at(2), {"eval/accuracy_greedy": 0.8})
    three.evaluated(at(3), {"eval/accuracy_greedy": 0.3})
    three.settle(Trainer(), 9)
    assert three.best(Trainer(), onset=9).step == 2
    assert three.best(Trainer(), onset=2).step == 1


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ({}, 3),
        ({0: 0.4}, 3),  # only the untrained model: it is always evaluated
        ({0: 0.4, 1: 0.1, 2: 0.3}, 0),  # the run has only become worse
        ({0: 0.4, 1: 0.5, 2: 0.3}, 1),
        ({0: 0.0, 2: 0.0}, 2),
    ],
)
def test_the_untrained_model_is_the_best_only_of_those_that_were_evaluated_too(tmp_path, told, scores, best):
    there = DiskCheckpoints(tmp_path, CheckpointConfig(keep=9, probation=2), [1], told)
    there.first(Trainer())
    for step in (1, 2, 3):
        save(there, Trainer(step / 10), at(step))
    for step, score in scores.items():
        there.evaluated(at(step), {"eval/accuracy_greedy": score})
    there.settle(Trainer(), 9)
    assert there.best(Trainer(), onset=9).step == best


def test_an_evaluation_on_other_problems_does_not_beat_those_of_today(three):
    """`evaluation.limit` 50 until a resume, then 1,000; the ledgers of before said of no number."""
    def scored(step, score, **problems):
        three.evaluated(at(step), {"eval/accuracy_greedy": score} | problems)

    three.settle(Trainer(), 9)
    scored(1, 0.7, **{"eval/problems": 50.0})
    assert three.best(Trainer(), onset=9).step == 1
    scored(2, 0.62, **{"eval/problems": 1000.0})
    scored(3, 0.6, **{"eval/problems": 1000.0})
    assert reopened(three).best(Trainer(), onset=9).step == 2
    scored(3, 0.6)
    assert three.best(Trainer(), onset=9).step == 3


def test_a_ledger_that_says_of_no_number_of_problems_is_read(three):
    old = {"entries": {name(2): {"label": "good", "score": 0.5}}, "rollback": None}
    text = json.dumps({"sha256": digest(old), "ledger": old})
    (three.root / "ledger.json").write_text(text)
    assert reopened(three).ledger.entries[name(2)] == Entry("good", 0.5, None)


def kept_by(steps: int, every: int, keep: int = 3, probation: int = 20) -> Ledger:
    """The ledger of a run without trouble, of whose weights only the untrained ones were evaluated."""
    ledger = Ledger(Path("ledger.json"), {name(0): Entry("good", 0.4)})
    for step in range(1, steps + 1):
        if step % every == 0:
            ledger.entries[name(step)] = Entry()
            for gone in ledger.superfluous(keep, 0):
                del ledger.entries[gone]
        ledger.settle(step, probation)
    return ledger


def test_a_good_one_from_far_back_stays_and_step_0_does_though_none_was_evaluated():
    assert [step_of(n) for n in kept_by(200, 25).usable()] == [0, 125, 150, 175, 200]
    ledger = kept_by(500, 10)
    assert [step_of(n) for n in ledger.usable()] == [0, 430, 450, 460, 470, 480, 490, 500]
    assert step_of(ledger.before(450, None)) == step_of(ledger.best(450)) == 430
    assert step_of(ledger.before(300, None)) == step_of(ledger.best(300)) == 0, "rather than one made in the trouble"


@given(
    steps=st.integers(1, 200), every=st.integers(1, 40), keep=st.integers(1, 4), probation=st.integers(1, 40),
    onset=st.integers(1, 200),
)  # fmt: skip
def test_a_rollback_and_an_export_are_from_before_the_trouble_whenever_it_began(steps, every, keep, probation, onset):
    ledger = kept_by(steps, every, keep, probation)
    assert step_of(ledger.before(onset, None)) < onset and step_of(ledger.best(onset)) < onset
    assert len(ledger.entries) <= keep + 6


@settings(max_examples=30)
@given(every=st.integers(1, 30), probation=st.integers(1, 30), steps=st.integers(220, 260))
def test_a_trouble_that_is_seen_late_does_not_cost_the_whole_run(every, probation, steps):
    back = step_of(kept_by(steps, every, probation=probation).before(steps - FAR + 1, None))
    assert FAR <= steps - back < 2 * FAR + probation + 2 * every


def test_the_best_good_one_stays_though_one_on_probation_is_better(tmp_path, told):
    there = DiskCheckpoints(tmp_path, CheckpointConfig(keep=3, probation=20), [1], told)
    there.first(Trainer())
    for step, score in ((25, 0.4), (50, 0.45), (75, 0.3), (100, 0.31), (125, 0.46)):
        save(there, Trainer(), at(step))
        there.evaluated(at(step), {"eval/accuracy_greedy": score})
        there.settle(Trainer(), step + 24 if step < 125 else step)
    save(there, Trainer(), at(126))
    back = there.roll_back(Trainer(), at(130), 126)
    there.note_rollback(replace(back, lineage=Lineage(140, floor=140)))
    save(there, Trainer(), replace(at(101), lineage=Lineage(141, floor=140)))
    assert there.best(Trainer(), onset=126).step == 50


@pytest.fixture
def went_back_twice(tmp_path, told) -> DiskCheckpoints:
    """From a trouble that began at 7 to 5, which was good; broke again, whatever it was, and so to 4."""
    there = DiskCheckpoints(tmp_path, CheckpointConfig(keep=9, probation=2), [1], told)
    there.first(Trainer())
    for step, score in ((2, 0.2), (4, 0.4), (5, 0.5), (7, 0.9)):
        save(there, Trainer(step / 10), at(step))
        there.evaluated(at(step), {"eval/accuracy_greedy": score})
    first = there.roll_back(Trainer(), at(10), 7)  # seen late: 7 had become good
    there.note_rollback(replace(first, lineage=Lineage(20, floor=20)))
    assert labels(there) == {0: "good", 2: "good", 4: "good", 5: "good", 7: "abandoned"}
    second = there.roll_back(Trainer(), replace(first, step=6), 6)
    there.note_rollback(replace(second, lineage=Lineage(30, floor=30)))
    assert labels(there) == {0: "good", 2: "good", 4: "good", 5: "past", 7: "abandoned"}
    return there


def test_a_run_that_gives_up_has_the_best_that_was_ever_good_though_it_went_back_from_it(went_back_twice):
    newest = replace(at(6), lineage=Lineage(31, floor=30))
    save(went_back_twice, Trainer(), newest)
    trainer = Trainer()
    assert reopened(went_back_twice).best(trainer, onset=6).step == 5 and trainer.weight == 0.5
    assert reopened(went_back_twice).restore(Trainer()) == newest, "but a run does not go on from the past"


def test_of_the_past_only_the_best_stays(went_back_twice):
    there = went_back_twice
    third = there.roll_back(Trainer(), replace(at(5), restored=name(4)), 5)
    assert third.step == 2, "4 is past now, too"
    there.note_rollback(replace(third, lineage=Lineage(40, floor=40)))
    save(there, Trainer(), replace(at(3), lineage=Lineage(41, floor=40)))
    assert labels(there) == {0: "good", 2: "good", 3: "candidate", 5: "past"}


def test_an_anchor_is_a_model_folder_of_the_weights_that_were_gone_back_to(three):
    folder = Path(three.anchor(Trainer(0.7), name(2)))
    assert json.loads((folder / "model.json").read_text()) == 0.7
    assert three.anchor(Trainer(0.1), name(2)) == str(folder), "made once"


def test_an_anchor_stays_as_long_as_a_run_may_go_on_with_it(three):
    first = three.anchor(Trainer(0.7), name(2))
    three.note_rollback(replace(at(2), restored=name(2), anchor=first, lineage=Lineage(10, floor=10)))
    save(three, Trainer(0.2), replace(at(3), anchor=first, lineage=Lineage(11, floor=10)))
    second = three.anchor(Trainer(0.3), name(1))
    assert Path(first).exists(), "a kill here goes on with the first"
    three.note_rollback(replace(at(1), restored=name(1), anchor=second, lineage=Lineage(12, floor=12)))
    for step in range(2, 8):  # until retention has let go of the checkpoint that was saved with the first
        save(three, Trainer(step / 10), replace(at(step), anchor=second, lineage=Lineage(12 + step, floor=12)))
    assert not Path(first).exists() and Path(second).exists()


def test_a_damaged_checkpoint_costs_no_anchor_and_no_other_checkpoint(three):
    anchor = three.anchor(Trainer(0.7), name(2))
    (three.root / name(3) / "state.json").write_text("rotten")
    save(three, Trainer(0.4), at(4))
    assert Path(anchor).exists() and names(three)[-1] == name(4)


def test_a_run_folder_that_was_moved_brings_its_anchor(three, tmp_path):
    folder = three.anchor(Trainer(0.7), name(2))
    three.note_rollback(replace(at(2), restored=name(2), anchor=folder))
    os.replace(three.root, tmp_path / "moved")
    there = DiskCheckpoints(tmp_path / "moved", three.cfg, three.probe, three.tell)
    assert there.restore(Trainer()).anchor == str(tmp_path / "moved" / Path(folder).name)


def test_checkpoints_more_frequent_than_retention_is_patient_become_good_all_the_same(tmp_path, told):
    """Were only the newest two kept, none would live through its probation, and step 0 stayed the only way back."""
    kept = DiskCheckpoints(tmp_path, CheckpointConfig(every=1, keep=2, probation=4), [1], told)
    kept.first(trainer := Trainer())
    for step in range(1, 13):
        save(kept, trainer, at(step))
        kept.settle(trainer, step)
    assert step_of(kept.ledger.good()[-1]) >= 12 - 2 * 4


def test_the_one_that_was_gone_back_to_stays_until_the_next_rollback(three):
    """With it goes what the ledger notes of the rollback, should all that is newer turn out to be damaged."""
    note = replace(at(1), restored=name(1), lineage=Lineage(10, floor=10))
    three.note_rollback(note)
    for step in range(2, 9):
        save(three, Trainer(), replace(at(step), lineage=Lineage(9 + step, floor=10)))
        three.settle(Trainer(), step)
    assert three.ledger.good()[0] == name(1) and len(three.ledger.good()) > 2, "nothing else would keep it"
    for newer in names(three)[1:]:
        (three.root / newer / "state.json").unlink()
    assert reopened(three).restore(Trainer()) == note


def test_where_the_ledger_is_lost_step_0_is_still_good(checkpoints):
    checkpoints.first(Trainer())
    save(checkpoints, Trainer(), at(1))
    for place in checkpoints.root.glob("ledger*"):
        place.unlink()
    assert labels(checkpoints) == {0: "good", 1: "candidate"}


def test_where_ledger_and_copy_are_both_damaged_it_is_told_twice_and_the_folders_tell(three, told):
    three.settle(Trainer(), 9)
    for place in three.root.glob("ledger*"):
        place.write_text(json.dumps({"sha256": "0", "ledger": {}}))
    assert labels(three) == {1: "candidate", 2: "candidate", 3: "candidate"}
    damaged = [[name for name in ("ledger.json", "ledger.copy.json") if name in t] for t in told.of("warning")]
    assert [names[0] for names in damaged] == ["ledger.json", "ledger.copy.json"]
