"""A checkpoint exists whole or not at all, and a run finds the newest whole one whatever happened."""

import errno
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from threading import Event, Timer

import pytest
import torch

from rlvr.checkpoint import disk
from rlvr.checkpoint.disk import CheckpointFailed, DiskCheckpoints, ResumeRefused
from rlvr.checkpoint.files import Fingerprint, what_is_wrong
from rlvr.checkpoint.ledger import Ledger, step_of
from rlvr.checkpoint.writer import BackgroundWriter
from rlvr.config import CheckpointConfig
from rlvr.lineage import Lineage
from rlvr.state import State


class Trainer:
    """One number as weights, saved in two files by another thread; the score depends on it."""

    def __init__(self, weight: float = 0.0) -> None:
        self.weight = weight
        self.fails: BaseException | None = None
        self.writer = BackgroundWriter()
        self.gate = Event()
        self.gate.set()

    def save(self, folder: str) -> None:
        self.writer.begin()
        content = json.dumps(self.weight)
        (Path(folder) / "shards").mkdir()
        self.writer.write(Path(folder, "optimizer.bin"), self._optimizer)
        self.writer.write(Path(folder, "shards", "rank_0.json"), lambda path: path.write_text(content))

    def _optimizer(self, path: Path) -> None:
        self.gate.wait()
        path.write_bytes(bytes(range(64)))
        if self.fails:
            raise self.fails

    def saved(self, wait: bool) -> dict[str, Fingerprint] | None:
        files = self.writer.done(wait)
        return None if files is None else {str(path): found for path, found in files.items()}

    def load(self, folder: str) -> None:
        self.weight = json.loads(Path(folder, "shards", "rank_0.json").read_text())

    def score(self, token_ids: list[int]) -> list[float]:
        return [self.weight * token for token in token_ids]

    def export(self, folder: str) -> None:
        Path(folder).mkdir()
        Path(folder, "model.json").write_text(json.dumps(self.weight))


def at(step: int, **fields) -> State:
    history = ({"policy/grad_norm": 1.5}, {})
    return State(step, cursor=16 * step, lineage=Lineage(step + 1), history=history, **fields)


def name(step: int) -> str:
    return f"step-{step:08d}-v{step + 1:08d}"


class Told:
    """What the run was told, by kind."""

    def __init__(self) -> None:
        self.all: list[tuple[str, str]] = []

    def __call__(self, kind: str, message: str) -> None:
        self.all.append((kind, message))

    def of(self, kind: str) -> list[str]:
        return [message for k, message in self.all if k == kind]


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def checkpoints(tmp_path, told) -> DiskCheckpoints:
    cfg = CheckpointConfig(keep=3, probation=2)
    return DiskCheckpoints(tmp_path / "checkpoints", cfg, probe=[1, 2], tell=told)


def save(checkpoints: DiskCheckpoints, trainer: Trainer, state: State) -> None:
    checkpoints.save(trainer, state)
    checkpoints.finish(trainer)


def names(checkpoints: DiskCheckpoints) -> list[str]:
    return checkpoints.ledger.usable()


@pytest.fixture
def three(checkpoints) -> DiskCheckpoints:
    """Steps 1, 2, 3; the weight is a tenth of the step."""
    for step in (1, 2, 3):
        save(checkpoints, Trainer(step / 10), at(step))
    return checkpoints


def files(checkpoints: DiskCheckpoints, step: int) -> list[Path]:
    return sorted(path for path in (checkpoints.root / name(step)).rglob("*") if path.is_file())


def reopened(checkpoints: DiskCheckpoints) -> DiskCheckpoints:
    """As the process after the crash sees it."""
    return DiskCheckpoints(checkpoints.root, checkpoints.cfg, checkpoints.probe, checkpoints.tell)


def test_nothing_is_restored_where_nothing_was_saved(checkpoints):
    assert checkpoints.restore(Trainer()) is None
    assert checkpoints.newest_step() is None


def test_the_first_checkpoint_is_step_0_with_the_starting_weights(checkpoints):
    assert checkpoints.first(Trainer(0.5)) == State()
    trainer = Trainer()
    assert checkpoints.restore(trainer) == State()
    assert trainer.weight == 0.5


def test_what_was_saved_comes_back_in_another_process(three):
    trainer = Trainer()
    assert reopened(three).restore(trainer) == at(3)
    assert trainer.weight == 0.3
    assert names(three)[-1] == name(3)
    assert three.newest_step() == 3


def test_the_newest_checkpoint_is_that_of_the_highest_version_not_of_the_highest_step(three):
    back = replace(at(1), step=2, lineage=Lineage(9, floor=8))
    save(three, Trainer(0.7), back)
    assert three.restore(Trainer()) == back


def test_only_the_newest_are_kept_and_the_next_to_be_good(three):
    for step in (4, 5):
        save(three, Trainer(), at(step))
    assert names(three) == [name(1), name(3), name(4), name(5)]
    assert sorted(os.listdir(three.root)) == ["ledger.copy.json", "ledger.json", *names(three)]


def flip(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_every_single_flipped_bit_is_found(three):
    for path in files(three, 3):
        good = path.read_bytes()
        for bit in range(0, 8 * len(good), 1 if path.name == "manifest.json" else 29):
            path.write_bytes(flip(good, bit))
            assert what_is_wrong(three.root / name(3)), f"bit {bit} of {path.name}"
        path.write_bytes(good)
    assert what_is_wrong(three.root / name(3)) is None


@pytest.mark.parametrize("file", ["trainer/optimizer.bin", "trainer/shards/rank_0.json", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flipped", "truncated", "emptied", "removed"])
def test_a_damaged_checkpoint_is_passed_over_with_its_name_for_the_one_before(three, told, file, damage):
    path = three.root / name(3) / file
    data = path.read_bytes()
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes({"flipped": flip(data, 13), "truncated": data[:-1], "emptied": b""}[damage])
    trainer = Trainer()
    assert reopened(three).restore(trainer) == at(2)
    assert trainer.weight == 0.2
    (warning,) = told.of("warning")
    assert f"checkpoint {name(3)} is damaged" in warning and f"trying {name(2)}" in warning
    assert file in warning


def test_the_warning_says_what_is_wrong(three):
    folder = three.root / name(3)
    (folder / "trainer" / "optimizer.bin").write_bytes(bytes(63))
    assert what_is_wrong(folder) == "trainer/optimizer.bin has 63 bytes, not 64"
    (folder / "trainer" / "optimizer.bin").write_bytes(bytes(64))
    assert what_is_wrong(folder) == "trainer/optimizer.bin has other content than was written"
    (folder / "trainer" / "optimizer.bin").unlink()
    assert what_is_wrong(folder) == "trainer/optimizer.bin is missing"


def test_damage_is_passed_over_until_one_is_whole(three, told):
    for step in (2, 3):
        (three.root / name(step) / "state.json").write_text("{}")
    assert three.restore(Trainer()) == at(1)
    assert [warning.split()[1] for warning in told.of("warning")] == [name(3), name(2)]


def test_a_damaged_checkpoint_is_kept_but_counts_no_more(three):
    """Else a rollback would take it for the one it restored, and retention would keep it in place of a good one."""
    (three.root / name(3) / "state.json").unlink()
    three.restore(Trainer())
    assert names(three)[-1] == name(2)
    assert (three.root / f"damaged-{name(3)}" / "manifest.json").exists()
    save(three, Trainer(0.3), replace(at(3), lineage=Lineage(7)))
    assert len(names(three)) == 3
    assert three.restore(Trainer()).lineage.version == 7


def test_a_run_whose_checkpoints_are_all_damaged_does_not_quietly_start_again(three):
    for step in (1, 2, 3):
        (three.root / name(step) / "manifest.json").unlink()
    for _ in range(2):  # and not at the second try either
        with pytest.raises(ResumeRefused, match=r"none of the 3 checkpoints in .* is intact"):
            reopened(three).restore(Trainer())


def test_a_rank_that_cannot_write_costs_that_checkpoint_alone_and_the_run_is_told(three, told):
    trainer = Trainer(0.4)
    trainer.fails = OSError(errno.EIO, "bad disk")
    save(three, trainer, at(4))
    (said,) = told.of("checkpoint_failed")
    assert said.startswith(f"checkpoint {name(4)} could not be written: optimizer.bin: bad disk (")
    assert "checkpoint.keep=3" in said
    assert reopened(three).restore(Trainer()) == at(3)
    trainer.fails = None
    save(three, trainer, at(4))
    assert "draft" not in os.listdir(three.root)
    assert three.restore(Trainer()) == at(4)


def test_what_is_no_trouble_with_the_disk_is_raised(three):
    trainer = Trainer(0.4)
    trainer.fails = RuntimeError("a bug")
    with pytest.raises(RuntimeError, match="a bug"):
        save(three, trainer, at(4))


def test_a_kill_between_the_manifest_and_the_rename_leaves_the_older_ones(three, monkeypatch):
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save(three, Trainer(0.4), at(4))
    monkeypatch.undo()
    assert (three.root / "draft" / "manifest.json").exists()
    assert reopened(three).restore(Trainer()) == at(3)


def test_a_kill_between_the_rename_and_the_ledger_loses_nothing(three, monkeypatch):
    monkeypatch.setattr(Ledger, "write", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save(three, Trainer(0.4), at(4))
    monkeypatch.undo()
    assert reopened(three).restore(Trainer()) == at(4)


def test_torch_on_a_full_disk_is_disk_trouble_too(three, told):
    trainer = Trainer(0.4)
    with pytest.raises(RuntimeError) as full:
        torch.save({"weights": torch.zeros(10**6)}, "/dev/full")
    trainer.fails = full.value
    save(three, trainer, at(4))
    assert "MB free in" in told.of("checkpoint_failed")[0]
    assert not (three.root / "draft").exists()


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_is_named_with_the_room_left_and_the_knob(three, told, monkeypatch, call):
    def full(*_) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    save(three, Trainer(0.4), at(4))
    (said,) = told.of("checkpoint_failed")
    assert re.match(rf"checkpoint {name(4)} could not be written: .*No space left on device \(\d+ MB free in ", said)
    monkeypatch.undo()
    assert sorted(p.name for p in three.root.glob("*")) == [  # the draft gave its room back
        "ledger.copy.json", "ledger.json", name(1), name(2), name(3)
    ]  # fmt: skip
    assert three.restore(Trainer()) == at(3)


def test_where_there_is_no_room_for_another_one_nothing_is_begun(three, told, monkeypatch):
    monkeypatch.setattr(disk, "free_bytes", lambda folder: 10)
    save(three, Trainer(0.4), at(4))
    assert "it needs 0 MB" in told.of("checkpoint_failed")[0]
    assert reopened(three).restore(Trainer()) == at(3)


def test_a_run_that_cannot_save_step_0_does_not_start(checkpoints):
    trainer = Trainer()
    trainer.fails = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(CheckpointFailed, match="No space left on device"):
        checkpoints.first(trainer)


def test_training_goes_on_while_a_checkpoint_is_written(three):
    trainer = Trainer(0.4)
    trainer.gate.clear()
    three.save(trainer, at(4))
    trainer.weight = 0.5  # the next step
    three.settle(trainer, 5)
    assert names(three)[-1] == name(3)
    trainer.gate.set()
    three.finish(trainer)
    restored = Trainer()
    assert reopened(three).restore(restored) == at(4)
    assert restored.weight == 0.4


def test_a_second_save_waits_for_the_first(three):
    trainer = Trainer(0.4)
    trainer.gate.clear()
    three.save(trainer, at(4))
    Timer(0.2, trainer.gate.set).start()
    trainer.weight = 0.5
    save(three, trainer, at(5))
    assert names(three) == [name(1), name(3), name(4), name(5)]


def test_a_checkpoint_appears_only_after_all_of_it_is_on_the_disk(checkpoints, monkeypatch):
    synced, appeared = set(), []
    fsync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.add(Path(os.readlink(f"/proc/self/fd/{fd}")).name), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (appeared.append(set(synced)), rename(a, b)))
    save(checkpoints, Trainer(), at(1))
    assert appeared[0] == {"draft", "trainer", "shards", "optimizer.bin", "rank_0.json", "state.json", "manifest.json"}
    assert "checkpoints" in synced


def test_weights_that_score_the_probe_differently_are_refused(three):
    class Other(Trainer):
        def score(self, token_ids: list[int]) -> list[float]:
            return [x + 0.011 for x in super().score(token_ids)]

    class Nan(Trainer):
        def score(self, token_ids: list[int]) -> list[float]:
            return [*super().score(token_ids)[:-1], float("nan")]

    class Rounded(Trainer):
        def score(self, token_ids: list[int]) -> list[float]:
            return [x + 0.009 for x in super().score(token_ids)]

    said = rf"checkpoint {name(3)} is intact, but its weights score .* model\.path"
    for other in (Other(), Nan()):
        with pytest.raises(ResumeRefused, match=said):
            three.restore(other)
    assert three.restore(Rounded()) == at(3)


# ---- labels and rollback ---------------------------------------------------------------------------------------------


def labels(checkpoints: DiskCheckpoints) -> dict[int, str]:
    return {step_of(name): entry.label for name, entry in reopened(checkpoints).ledger.entries.items()}


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
    assert [step_of(n) for n in names(kept)] == [0, 5, 8, 12, 13, 14], "0 is a multiple of 8 too"
    assert sorted(p.name for p in tmp_path.glob("step-*")) == names(kept)


def test_an_evaluation_that_comes_while_the_checkpoint_is_written_is_its_own(three):
    trainer = Trainer(0.4)
    trainer.gate.clear()
    three.save(trainer, at(4))
    three.evaluated(at(4), {"eval/accuracy_greedy": 0.7})
    trainer.gate.set()
    three.finish(trainer)
    assert reopened(three).ledger.entries[name(4)].score == 0.7


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


def test_an_anchor_is_a_model_folder_of_the_weights_that_were_gone_back_to(three):
    folder = Path(three.anchor(Trainer(0.7), name(2)))
    assert json.loads((folder / "model.json").read_text()) == 0.7
    assert three.anchor(Trainer(0.1), name(2)) == str(folder), "made once"
    three.anchor(Trainer(0.3), name(1))
    assert not folder.exists(), "the former makes room"


def test_checkpoints_more_frequent_than_retention_is_patient_become_good_all_the_same(tmp_path, told):
    """Were only the newest two kept, none would live through its probation, and step 0 stayed the only way back."""
    kept = DiskCheckpoints(tmp_path, CheckpointConfig(every=1, keep=2, probation=4), [1], told)
    kept.first(trainer := Trainer())
    for step in range(1, 13):
        save(kept, trainer, at(step))
        kept.settle(trainer, step)
    assert step_of(kept.ledger.good()[-1]) >= 12 - 2 * 4
