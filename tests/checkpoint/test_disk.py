"""A checkpoint exists whole or not at all, and a run finds the newest whole one whatever happened."""

import errno
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from threading import Barrier, Timer

import pytest
import torch

from rlvr.checkpoint import disk
from rlvr.checkpoint.disk import CheckpointFailed, ResumeRefused
from rlvr.checkpoint.files import fingerprint, what_is_wrong
from rlvr.checkpoint.ledger import Ledger
from rlvr.checkpoint.writer import WriteFailed
from rlvr.lineage import Lineage
from rlvr.state import State
from tests.checkpoint.fakes import Trainer, at, files, flip, name, names, reopened, save


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


def test_of_several_damages_the_first_of_the_manifest_is_told(three):
    """Whatever file is read to its end first."""
    folder = three.root / name(3)
    listed = list(json.loads((folder / "manifest.json").read_text()))
    assert len(listed) > 2
    for file in reversed(listed):
        (folder / file).unlink()
        assert what_is_wrong(folder) == f"{file} is missing"


def test_the_files_of_a_checkpoint_are_read_side_by_side(three, monkeypatch):
    """One thread reads a gigabyte a second: a large checkpoint in minutes, with all GPUs held."""
    both = Barrier(2)

    def read(path):
        if path.suffix == ".bin" or path.name == "state.json":
            both.wait(timeout=10)
        return fingerprint(path)

    monkeypatch.setattr("rlvr.checkpoint.files.fingerprint", read)
    assert what_is_wrong(three.root / name(3)) is None


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
    with pytest.raises(ResumeRefused, match=r"no checkpoint in .* is intact any more"):
        reopened(three).restore(Trainer())
    with pytest.raises(ResumeRefused, match=r"of the 3 checkpoints that .* had, 3 are damaged and 0 are gone"):
        reopened(three).restore(Trainer())  # and not at the second try either


def test_a_run_whose_checkpoints_are_gone_does_not_quietly_start_again(three):
    for step in (1, 2, 3):
        shutil.rmtree(three.root / name(step))
    for _ in range(2):
        with pytest.raises(ResumeRefused, match=r"of the 3 checkpoints that .* had, 0 are damaged and 3 are gone"):
            reopened(three).restore(Trainer())


def test_one_that_was_removed_by_hand_costs_no_other(three, told):
    """Whoever runs out of room makes some."""
    three.anchor(Trainer(0.2), name(2))
    shutil.rmtree(three.root / name(2))
    for step in (4, 5, 6, 7):
        save(three, Trainer(step / 10), at(step))
        three.settle(Trainer(), step)
    assert not told.of("checkpoint_failed") and name(2) not in names(three)
    assert {path.name for path in three.root.glob("step-*")} == set(names(three))


def test_what_ranks_wrote_elsewhere_is_no_checkpoint(three, told, tmp_path):
    """A joined Ray, several nodes: whoever does not see the run folder writes into one of his own."""

    class Elsewhere(Trainer):
        def save(self, folder):
            super().save(folder)
            self.saved_in = folder

        def saved(self, wait):
            files = super().saved(wait)
            if files is not None:
                for path in files:
                    os.unlink(path)
            return files

    save(three, Elsewhere(0.4), at(4))
    (said,) = told.of("checkpoint_failed")
    assert "2 of 2 files that the trainer wrote are not in" in said and "run.folder" in said
    assert reopened(three).restore(Trainer()) == at(3)


def test_a_folder_that_only_looks_like_a_checkpoint_is_let_be(three):
    shutil.copytree(three.root / name(3), three.root / f"{name(3)}-backup")
    assert reopened(three).restore(Trainer()) == at(3)


def test_a_ledger_that_the_disk_has_no_room_for_is_written_later(three, told, monkeypatch):
    def full(place, text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr("rlvr.checkpoint.ledger.write_whole", full)
        three.evaluated(at(3), {"eval/accuracy_greedy": 0.5})
        three.settle(Trainer(), 5)
        three.settle(Trainer(), 6)
        with pytest.raises(CheckpointFailed, match=r"a rollback could not be noted in .*No space left"):
            three.note_rollback(replace(at(2), restored=name(2)))
    (said,) = told.of("checkpoint_failed")
    assert "No space left" in said
    three.settle(Trainer(), 7)
    entry = reopened(three).ledger.entries[name(3)]
    assert (entry.score, entry.label) == (0.5, "past")


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_ledger_that_cannot_be_written_keeps_what_it_held_and_leaves_no_draft(three, monkeypatch, call):
    def full(*_) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = three.ledger.path.read_bytes(), sorted(three.root.iterdir())
    three.ledger.entries[name(3)].label = "abandoned"
    with monkeypatch.context() as patched:
        patched.setattr(os, call, full)
        with pytest.raises(OSError, match="No space left"):
            three.ledger.write()
    assert (three.ledger.path.read_bytes(), sorted(three.root.iterdir())) == before
    three.ledger.write()
    assert reopened(three).ledger.entries[name(3)].label == "abandoned"


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


@pytest.mark.parametrize("nan_at", [0, 1])
def test_weights_that_give_no_number_are_not_saved(three, told, nan_at):
    class Broken(Trainer):
        def score(self, token_ids: list[int]) -> list[float]:
            return [float("nan") if i == nan_at else x for i, x in enumerate(super().score(token_ids))]

    save(three, Broken(0.4), at(4))
    assert told.of("checkpoint_failed") == [
        f"checkpoint {name(4)} was not written: its weights give logprobs that are no numbers"
    ]
    assert reopened(three).restore(Trainer()) == at(3)


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


def test_a_run_that_holds_on_to_the_model_it_began_with_does_not_go_on_with_another_one_there(checkpoints):
    """What the checkpoint holds is whole, and a KL term would pull it somewhere else."""
    checkpoints.first(Trainer(0.5))
    save(checkpoints, Trainer(0.7), at(1))
    assert reopened(checkpoints).restore(Trainer(0.6)) == at(1), "nothing holds on to what is at model.path"
    for start, fits in ((0.5, True), (0.6, False), (float("nan"), False)):
        again = reopened(checkpoints)
        again.start_is_reference = True
        if fits:
            assert again.restore(Trainer(start)) == at(1)
            continue
        with pytest.raises(ResumeRefused, match=r"model\.path holds another model .* algorithm\.kl\.reference="):
            again.restore(Trainer(start))


def test_where_no_run_has_begun_or_its_beginning_is_gone_no_reference_is_asked_for(checkpoints):
    checkpoints.start_is_reference = True
    assert checkpoints.restore(Trainer()) is None
    save(checkpoints, Trainer(0.1), at(1))
    assert checkpoints.restore(Trainer(0.9)) == at(1), "it has no step 0"


class DiskOrder:
    """What is done to the disk, in order. A power cut forgets a rename that its folder's fsync does not follow, and
    what was written but not synced before it."""

    def __init__(self, monkeypatch):
        self.synced: set[Path] = set()
        self.renamed: list[str] = []
        self.removed: list[str] = []
        self.unsafe: set[Path] = set()  # folders in which a rename may still be forgotten
        self.real = os.fsync, os.replace, shutil.rmtree
        monkeypatch.setattr(os, "fsync", self.fsync)
        monkeypatch.setattr(os, "replace", self.replace)
        monkeypatch.setattr(shutil, "rmtree", self.rmtree)

    def fsync(self, descriptor):
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        self.synced.add(path)
        self.unsafe.discard(path)
        self.real[0](descriptor)

    def replace(self, source, target):
        for path in (source, *source.rglob("*")):
            assert path in self.synced, f"{path} is renamed before it is on the disk"
            self.synced.remove(path)
        self.renamed.append(target.name)
        self.unsafe.add(target.parent)
        self.real[1](source, target)

    def rmtree(self, path, **more):
        assert not self.unsafe, f"{path} is removed before what comes in its place is sure to be there"
        self.removed.append(path.name)
        self.real[2](path, **more)


def test_nothing_is_renamed_before_it_is_on_the_disk_nor_removed_before_the_rename_is(three, monkeypatch):
    order = DiskOrder(monkeypatch)
    for step in (4, 5):
        save(three, Trainer(), at(step))
        assert not order.unsafe
    assert order.renamed == [name(4), "ledger.json", "ledger.copy.json", name(5), "ledger.json", "ledger.copy.json"]
    assert name(2) in order.removed


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), WriteFailed("I/O error")])
def test_an_anchor_that_the_disk_has_no_room_for_is_told_in_words(three, monkeypatch, error):
    def export(self, folder):
        Path(folder).mkdir()
        raise error

    monkeypatch.setattr(Trainer, "export", export)
    said = rf"anchor-{name(2)}: {error.args[-1]} \(\d+ MB free\): make room, `rlvr resume {three.root.parent}` exports"
    with pytest.raises(CheckpointFailed, match=said):
        three.anchor(Trainer(0.2), name(2))
    assert not list(three.root.glob("*anchor*"))


def test_an_anchor_is_on_the_disk_before_a_rollback_is_noted_with_it(three, monkeypatch):
    order = DiskOrder(monkeypatch)
    anchor = three.anchor(Trainer(0.2), name(2))
    assert not order.unsafe
    three.note_rollback(replace(at(2), restored=name(2), anchor=anchor))
    assert order.renamed == [f"anchor-{name(2)}", "ledger.json", "ledger.copy.json"] and not order.unsafe


def test_an_evaluation_of_another_step_is_not_that_of_the_checkpoint_that_is_written(three):
    trainer = Trainer(0.4)
    trainer.gate.clear()
    three.save(trainer, at(4))
    three.evaluated(at(3), {"eval/accuracy_greedy": 0.7})
    trainer.gate.set()
    three.finish(trainer)
    entries = reopened(three).ledger.entries
    assert (entries[name(3)].score, entries[name(4)].score) == (0.7, None)


def test_what_a_dead_trainer_was_writing_stays_a_draft(three, told):
    dead, alive = Trainer(0.4), Trainer()
    dead.gate.clear()
    three.save(dead, at(4))
    assert three.restore(alive) == at(3)
    three.settle(alive, 4)
    three.finish(alive)
    dead.gate.set()
    assert names(three)[-1] == name(3) and not told.all


def test_a_run_that_gives_up_goes_back_without_what_a_dead_trainer_was_writing(three, told, monkeypatch):
    dead, alive = Trainer(0.4), Trainer()
    three.save(dead, at(4))
    monkeypatch.setattr(dead, "saved", lambda wait: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        three.best(dead, 4)
    assert three.best(alive, 4) == at(3)  # one that is new has written nothing, and says so at once
    assert names(three)[-1] == name(3) and not told.all


def test_the_draft_of_a_killed_process_is_swept_away(three, told):
    (three.root / "draft" / "trainer").mkdir(parents=True)
    (three.root / "draft" / "trainer" / "half.bin").write_text("half")
    save(three, Trainer(0.4), at(4))
    assert not told.all
    assert "half.bin" not in {path.name for path in files(three, 4)}
