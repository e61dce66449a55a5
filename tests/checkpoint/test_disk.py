"""A checkpoint exists whole or not at all, and a run finds the newest whole one whatever happened."""

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rlvr.checkpoint.disk import CheckpointFailed, DiskCheckpoints, ResumeRefused, what_is_wrong
from rlvr.lineage import Lineage
from rlvr.state import State


class Trainer:
    """One number as weights, saved in two files; the score depends on it."""

    def __init__(self, weight: float = 0.0) -> None:
        self.weight = weight
        self.fails: BaseException | None = None

    def save(self, folder: str) -> None:
        Path(folder, "optimizer.bin").write_bytes(bytes(range(64)))
        if self.fails:
            raise self.fails
        (Path(folder) / "shards").mkdir()
        Path(folder, "shards", "rank_0.json").write_text(json.dumps(self.weight))

    def load(self, folder: str) -> None:
        self.weight = json.loads(Path(folder, "shards", "rank_0.json").read_text())

    def score(self, token_ids: list[int]) -> list[float]:
        return [self.weight * token for token in token_ids]


def at(step: int, **fields) -> State:
    history = ({"policy/grad_norm": 1.5}, {})
    return State(step, cursor=16 * step, lineage=Lineage(step + 1), history=history, **fields)


def name(step: int) -> str:
    return f"step-{step:08d}-v{step + 1:08d}"


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def checkpoints(tmp_path, warnings) -> DiskCheckpoints:
    return DiskCheckpoints(tmp_path / "checkpoints", keep=3, probe=[1, 2], warn=warnings.append)


@pytest.fixture
def three(checkpoints) -> DiskCheckpoints:
    """Steps 1, 2, 3; the weight is a tenth of the step."""
    for step in (1, 2, 3):
        checkpoints.save(Trainer(step / 10), at(step))
    return checkpoints


def files(checkpoints: DiskCheckpoints, step: int) -> list[Path]:
    return sorted(path for path in (checkpoints.root / name(step)).rglob("*") if path.is_file())


def reopened(checkpoints: DiskCheckpoints) -> DiskCheckpoints:
    """As the process after the crash sees it."""
    return DiskCheckpoints(checkpoints.root, checkpoints.keep, checkpoints.probe, checkpoints.warn)


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
    assert three.newest() == name(3)
    assert three.newest_step() == 3


def test_the_newest_checkpoint_is_that_of_the_highest_version_not_of_the_highest_step(three):
    back = replace(at(1), step=2, lineage=Lineage(9, floor=8))
    three.save(Trainer(0.7), back)
    assert three.restore(Trainer()) == back


def test_only_the_newest_are_kept(three):
    for step in (4, 5):
        three.save(Trainer(), at(step))
    assert three.all() == [name(3), name(4), name(5)]
    assert sorted(os.listdir(three.root)) == three.all()


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
def test_a_damaged_checkpoint_is_passed_over_with_its_name_for_the_one_before(three, warnings, file, damage):
    path = three.root / name(3) / file
    data = path.read_bytes()
    if damage == "removed":
        path.unlink()
    else:
        path.write_bytes({"flipped": flip(data, 13), "truncated": data[:-1], "emptied": b""}[damage])
    trainer = Trainer()
    assert reopened(three).restore(trainer) == at(2)
    assert trainer.weight == 0.2
    assert len(warnings) == 1
    assert f"checkpoint {name(3)} is damaged" in warnings[0]
    assert file in warnings[0]


def test_the_warning_says_what_is_wrong(three):
    folder = three.root / name(3)
    (folder / "trainer" / "optimizer.bin").write_bytes(bytes(63))
    assert what_is_wrong(folder) == "trainer/optimizer.bin has 63 bytes, not 64"
    (folder / "trainer" / "optimizer.bin").write_bytes(bytes(64))
    assert what_is_wrong(folder) == "trainer/optimizer.bin has other content than was written"
    (folder / "trainer" / "optimizer.bin").unlink()
    assert what_is_wrong(folder) == "trainer/optimizer.bin is missing"


def test_damage_is_passed_over_until_one_is_whole(three, warnings):
    for step in (2, 3):
        (three.root / name(step) / "state.json").write_text("{}")
    assert three.restore(Trainer()) == at(1)
    assert [warning.split()[1] for warning in warnings] == [name(3), name(2)]


def test_a_damaged_checkpoint_is_kept_but_counts_no_more(three):
    """Else a rollback would take it for the one it restored, and retention would keep it in place of a good one."""
    (three.root / name(3) / "state.json").unlink()
    three.restore(Trainer())
    assert three.newest() == name(2)
    assert (three.root / f"damaged-{name(3)}" / "manifest.json").exists()
    three.save(Trainer(0.3), replace(at(3), lineage=Lineage(7)))
    assert len(three.all()) == 3
    assert three.restore(Trainer()).lineage.version == 7


def test_a_run_whose_checkpoints_are_all_damaged_does_not_quietly_start_again(three):
    for step in (1, 2, 3):
        (three.root / name(step) / "manifest.json").unlink()
    for _ in range(2):  # and not at the second try either
        with pytest.raises(ResumeRefused, match=r"none of the 3 checkpoints in .* is intact"):
            reopened(three).restore(Trainer())


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("a rank died"), OSError(errno.EIO, "bad disk")])
def test_a_save_that_fails_half_way_leaves_the_older_ones_and_the_next_save_works(three, error):
    trainer = Trainer(0.4)
    trainer.fails = error
    with pytest.raises(CheckpointFailed if isinstance(error, OSError) else type(error)):
        three.save(trainer, at(4))
    assert reopened(three).restore(Trainer()) == at(3)
    trainer.fails = None
    three.save(trainer, at(4))
    assert "draft" not in os.listdir(three.root)
    assert three.restore(Trainer()) == at(4)


def test_a_kill_between_the_manifest_and_the_rename_leaves_the_older_ones(three, monkeypatch):
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        three.save(Trainer(0.4), at(4))
    monkeypatch.undo()
    assert (three.root / "draft" / "manifest.json").exists()
    assert reopened(three).restore(Trainer()) == at(3)


def test_torch_on_a_full_disk_is_disk_trouble_too(three):
    trainer = Trainer(0.4)
    with pytest.raises(RuntimeError) as full:
        torch.save({"weights": torch.zeros(10**6)}, "/dev/full")
    trainer.fails = full.value
    with pytest.raises(CheckpointFailed, match=r"MB free in .*checkpoint\.keep"):
        three.save(trainer, at(4))
    assert not (three.root / "draft").exists()


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_is_named_with_the_room_left_and_the_knob(three, monkeypatch, call):
    def full(*_) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    said = rf"checkpoint {name(4)} could not be written: No space left on device \(\d+ MB free in .*checkpoint\.keep"
    with pytest.raises(CheckpointFailed, match=said):
        three.save(Trainer(0.4), at(4))
    monkeypatch.undo()
    assert sorted(os.listdir(three.root)) == [name(1), name(2), name(3)]  # the draft gave its room back
    assert three.restore(Trainer()) == at(3)


def test_a_checkpoint_appears_only_after_all_of_it_is_on_the_disk(checkpoints, monkeypatch):
    synced, appeared = set(), []
    fsync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.add(Path(os.readlink(f"/proc/self/fd/{fd}")).name), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (appeared.append(set(synced)), rename(a, b)))
    checkpoints.save(Trainer(), at(1))
    assert appeared == [{"draft", "trainer", "shards", "optimizer.bin", "rank_0.json", "state.json", "manifest.json"}]
    assert "checkpoints" in synced


def test_weights_that_score_the_probe_differently_are_refused(three):
    class Other(Trainer):
        def score(self, token_ids: list[int]) -> list[float]:
            return [x + 0.011 for x in super().score(token_ids)]

    class Nan(Trainer):
        def score(self, token_ids: list[int]) -> list[float]:
            return [float("nan") for _ in token_ids]

    class Rounded(Trainer):
        def score(self, token_ids: list[int]) -> list[float]:
            return [x + 0.009 for x in super().score(token_ids)]

    said = rf"checkpoint {name(3)} is intact, but its weights score .* model\.path"
    for other in (Other(), Nan()):
        with pytest.raises(ResumeRefused, match=said):
            three.restore(other)
    assert three.restore(Rounded()) == at(3)


def rolled_back(checkpoints: DiskCheckpoints) -> State:
    restored = checkpoints.restore(Trainer())
    return replace(restored, cursor=999, rollbacks=1, lineage=Lineage(20, floor=20), restored=checkpoints.newest())


def test_a_rollback_is_remembered_after_a_crash_right_behind_it(three):
    note = rolled_back(three)
    three.note_rollback(note)
    trainer = Trainer()
    assert reopened(three).restore(trainer) == note
    assert trainer.weight == 0.3


def test_a_rollback_past_a_damaged_checkpoint_is_remembered_too(three):
    (three.root / name(3) / "state.json").unlink()
    note = rolled_back(three)
    three.note_rollback(note)
    assert note.restored == name(2)
    assert reopened(three).restore(Trainer()) == note


def test_a_rollback_is_history_once_a_newer_checkpoint_is_there(three):
    three.note_rollback(rolled_back(three))
    newer = replace(at(4), lineage=Lineage(21, floor=20))
    three.save(Trainer(0.4), newer)
    assert reopened(three).restore(Trainer()) == newer
    shutil.rmtree(three.root / three.newest())  # that one is gone: the rollback counts again
    assert reopened(three).restore(Trainer()).rollbacks == 1


def test_a_crash_while_a_rollback_is_noted_leaves_the_note_before(three, monkeypatch):
    note = rolled_back(three)
    three.note_rollback(note)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        three.note_rollback(replace(note, rollbacks=2))
    monkeypatch.undo()
    assert reopened(three).restore(Trainer()) == note


def test_the_newest_can_be_given_up_but_not_the_last_one(three):
    for left in (2, 1, 1):
        three.discard_newest()
        assert len(three.all()) == left
    assert three.newest() == name(1)
