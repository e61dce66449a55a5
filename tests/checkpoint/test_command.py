"""`rlvr checkpoints` and `rlvr rollback` on a run that the toy has made."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from rlvr.checkpoint.disk import DiskCheckpoints
from rlvr.cli import main
from rlvr.config import CheckpointConfig
from rlvr.observe.record import Record
from rlvr.observe.report import evaluations, page, word
from rlvr.observe.runfolder import RunFolder
from tests import toy
from tests.checkpoint.fakes import Told, Trainer, at, labels, name, save
from tests.interruptions import Recorded

HOLD = """
import sys
from rlvr.observe.runfolder import RunFolder
folder = RunFolder.open(sys.argv[1])
print(1, flush=True)
input()
"""
CFG = toy.recipe(9, every=2, evaluate_every=4)


@pytest.fixture
def run(tmp_path):
    toy.run(tmp_path / "run" / "checkpoints", CFG)
    (tmp_path / "run" / "config.yaml").write_text("name: toy")
    return tmp_path / "run"


def listed(run, capsys, *words: str) -> list[dict]:
    capsys.readouterr()
    assert main(["checkpoints", str(run), "--json", *words]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_every_checkpoint_is_listed_with_label_score_and_size(run, capsys):
    lines = listed(run, capsys)
    assert [(line["step"], line["label"]) for line in lines] == [
        (0, "good"), (2, "good"), (4, "good"), (6, "good"), (8, "candidate"), (9, "candidate")
    ]  # fmt: skip
    assert [line["held-out"] is not None for line in lines] == [True, False, True, False, True, True]
    assert main(["checkpoints", str(run)]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split()[:3] == ["step", "label", "held-out"] and len(table) == 7


def test_damage_is_found_when_asked_for(run, capsys):
    next(run.glob("checkpoints/step-00000006-*/trainer/weights.json")).write_text("rotten")
    damage = {line["step"]: line["damage"] for line in listed(run, capsys, "--check")}
    assert damage[6].startswith("trainer/weights.json has 6 bytes") and damage[8] is None


def test_what_cannot_even_be_read_is_damage_too(run, capsys):
    next(run.glob("checkpoints/step-00000006-*/state.json")).unlink()
    damage = {line["step"]: line["damage"] for line in listed(run, capsys, "--check")}
    assert damage[6] == "state.json is missing" and damage[8] is None


def test_no_remedy_outlives_a_rollback_by_hand(run):
    cfg = toy.recipe(9, every=2)
    cfg.sentinel.remedies, cfg.sentinel.remedy_steps = ["lower_learning_rate"], 4
    folder = run.parent / "treated"
    toy.run(folder / "checkpoints", cfg, {11})  # back from step 6 to 4
    (folder / "config.yaml").write_text("name: toy")
    assert main(["rollback", str(folder), "--to", "8"]) == 0
    cfg.steps = 12
    resumed = toy.run(folder / "checkpoints", cfg, {11})
    assert resumed.rollouts.states[0].remedies == ()
    assert resumed.observer.metrics[0]["policy/lr"] == 0.5 / 9


def test_a_run_goes_on_from_where_it_was_told_and_forward_in_the_data(run, capsys):
    assert main(["rollback", str(run), "--to", "6"]) == 0
    assert "2 newer checkpoints are abandoned" in capsys.readouterr().out
    assert [line["label"] for line in listed(run, capsys)] == ["good"] * 4 + ["abandoned"] * 2
    resumed = toy.run(run / "checkpoints", CFG)
    assert resumed.observer.steps == [7, 8, 9]
    assert resumed.trainer.trained == [[18, 19], [20, 21], [22, 23]]
    assert resumed.state.rollbacks == 0


def test_going_back_right_behind_the_sentinel_does_not_replay_what_broke_the_run(tmp_path):
    """Nothing was saved since the sentinel's rollback: what it knew of data and versions is in the ledger alone."""
    folder = tmp_path / "run" / "checkpoints"
    asked: list[bool] = []
    hook = Recorded(lambda: asked.append(True), at=1, phase="event")  # 0 is the beginning, 1 the rollback
    stopped = toy.run(folder, toy.recipe(7, every=2), poison={11}, hook=hook, stop=lambda: bool(asked))
    (tmp_path / "run" / "config.yaml").write_text("name: toy")
    assert main(["rollback", str(tmp_path / "run"), "--to", "2"]) == 0
    resumed = toy.run(folder, toy.recipe(7, every=2), poison={11})
    assert resumed.trainer.trained[0] == [12, 13], "the batch that broke it is not taken again"
    assert resumed.rollouts.states[0].rollbacks == 0, "whoever goes back by hand lets the sentinel begin anew"
    assert resumed.rollouts.states[0].lineage.floor > stopped.state.lineage.version


def test_a_run_that_went_back_is_not_at_its_end_any_more(run):
    """Nor is the model that it left what it is now."""
    (run / "summary.json").write_text('{"status": "finished", "steps": 9}')
    assert main(["rollback", str(run), "--to", "4"]) == 0
    assert not (run / "summary.json").exists()


def with_lines(run, steps: int) -> None:
    """As the driver writes them: metrics, and what was evaluated on the way."""
    folder = RunFolder.open(run)
    for step in range(1, steps + 1):
        folder.log(step, {"reward/mean": step / 10})
        if step % 4 == 0:
            folder.event("evaluation", "held-out", step=step, **{"eval/accuracy_greedy": step / 10})
    folder.close()


def test_a_rollback_by_hand_is_history_at_once(run):
    """Before the run is resumed its page shows what it is now; afterwards, why the steps were undone."""
    with_lines(run, 9)
    assert main(["rollback", str(run), "--to", "6"]) == 0
    record = Record.of(run)
    assert [row["step"] for row in record.metrics] == [1, 2, 3, 4, 5, 6]
    assert evaluations(record.events)["eval/accuracy_greedy"] == [(4, 0.4)]
    undone = [json.loads(line) for line in (run / "undone.jsonl").read_text().splitlines()]
    assert [(row["step"], row["undone_by"]) for row in undone] == [(7, "rollback"), (8, "rollback"), (9, "rollback")]
    event = record.events[-1]
    assert (event["kind"], event["message"]) == ("rollback", "by hand: back to step 6, from 9")
    assert event["fields"] == {"step": 9, "to": 6, "by_hand": True}
    said = page(record)
    assert "after 6 steps; the last it said: by hand: back to step 6, from 9; 1 rollback by hand" in said
    assert "1 rollback;" not in said


def test_a_run_that_died_behind_its_last_checkpoint_went_back_from_where_it_died(run):
    with_lines(run, 11)
    RunFolder.open(run).event("error", "RuntimeError: out of memory")
    assert main(["rollback", str(run), "--to", "8"]) == 0
    assert Record.of(run).events[-1]["message"] == "by hand: back to step 8, from 11"
    assert word(Record.of(run)) == "unfinished", "what ended it is behind it"


def test_what_a_crash_leaves_of_a_rollback_is_done_by_the_next_one_or_by_the_resume(run, monkeypatch):
    """The ledger comes first: a run that has its old lines still goes on from where it was told."""
    with_lines(run, 9)
    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "undo_after", killed)
        assert main(["rollback", str(run), "--to", "6"]) == 130
    there = DiskCheckpoints(run / "checkpoints", CheckpointConfig(), [1, 2], Told())
    assert there.newest_step() == 6, "a resume puts aside what is behind it"
    assert main(["rollback", str(run), "--to", "6"]) == 0
    backs = [event["fields"] for event in Record.of(run).events if event["kind"] == "rollback"]
    assert [(fields["step"], fields["to"]) for fields in backs] == [(9, 6)]
    assert toy.run(run / "checkpoints", CFG).observer.steps == [7, 8, 9]


def killed(*_) -> None:
    raise KeyboardInterrupt


def test_a_step_without_a_checkpoint_is_refused_with_those_that_have_one(run, capsys):
    assert main(["rollback", str(run), "--to", "5"]) == 2
    assert "no checkpoint of that step; it has 0, 2, 4, 6, 8, 9" in capsys.readouterr().err


def test_a_damaged_one_is_not_gone_back_to(run, capsys):
    next(run.glob("checkpoints/step-00000006-*/state.json")).write_text("{}")
    assert main(["rollback", str(run), "--to", "6"]) == 2
    assert "that checkpoint is damaged (state.json" in capsys.readouterr().err


def test_a_run_that_is_going_on_is_left_alone(run, capsys):
    command = [sys.executable, "-c", HOLD, str(run)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        assert main(["rollback", str(run), "--to", "6"]) == 2
        assert "another process is running in this run folder" in capsys.readouterr().err
        other.communicate(b"\n")
    RunFolder.open(run).close()


def test_a_folder_without_checkpoints_is_said_to_have_none(tmp_path, capsys):
    assert main(["checkpoints", str(tmp_path)]) == 2
    assert "has no checkpoints" in capsys.readouterr().err


def test_whoever_goes_back_by_hand_lets_the_sentinel_begin_anew_and_doubts_all_that_is_newer(tmp_path):
    there = DiskCheckpoints(tmp_path / "checkpoints", CheckpointConfig(keep=9, probation=1), [1, 2], Told())
    (tmp_path / "config.yaml").write_text("name: toy")
    save(there, Trainer(), at(1))
    anchor = there.anchor(Trainer(), name(1))
    treated = {"rollbacks": 2, "remedies": ("anchor",), "until": 55, "anchor": anchor, "restored": name(1)}
    for step in (2, 3, 4):
        save(there, Trainer(step / 10), at(step, **treated))
    there.settle(Trainer(), 4)
    assert labels(there) == {1: "good", 2: "good", 3: "good", 4: "candidate"}
    assert main(["rollback", str(tmp_path), "--to", "2"]) == 0
    assert labels(there) == {1: "good", 2: "good", 3: "abandoned", 4: "abandoned"}, "none is kept as a past best"
    back = DiskCheckpoints(there.root, there.cfg, there.probe, there.tell).restore(trainer := Trainer())
    last = at(4)
    assert back == replace(at(2), cursor=last.cursor, lineage=last.lineage.branch(), restored=name(2))
    assert trainer.weight == 0.2


def test_one_that_cannot_be_read_hides_no_other(run, capsys):
    next(run.glob("checkpoints/step-00000006-*/state.json")).write_text("{")
    assert [line["step"] for line in listed(run, capsys)] == [0, 2, 4, 6, 8, 9]
    assert main(["checkpoints", str(run)]) == 0
    assert "state.json cannot be read" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_said_to_be_none(tmp_path, capsys):
    assert main(["checkpoints", str(tmp_path / "nosuch")]) == 2
    assert "nosuch: no such folder" in capsys.readouterr().err
