"""Checkpoints that exist whole or not at all.

    <run>/checkpoints/step-00000040-v00000057/
        trainer/        what every trainer rank saved, each its own shard
        state.json      the loop's State, and a probe: token ids with the logprobs these weights gave them
        manifest.json   size and SHA-256 of each file; written last, checked before anything is loaded
    <run>/checkpoints/ledger.json       which are good, which are abandoned, the state after the last rollback

    save   --ranks copy their state, and write it while training goes on-->  draft/
    settle --once all is written: manifest, fsync, one rename-->             step-...; probation; retention

Versions never repeat, so nothing is ever overwritten. Knows files; what a trainer writes is the trainer's affair.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any, Protocol

from rlvr.checkpoint.files import Fingerprint, free_bytes, size, sync, sync_all, what_is_wrong, write_manifest
from rlvr.checkpoint.ledger import Entry, Label, Ledger, name_of, step_of
from rlvr.checkpoint.writer import WriteFailed
from rlvr.config import CheckpointConfig, RunError
from rlvr.probe import LEAST_RESUMED, apart
from rlvr.state import State

SCORE, PROBLEMS = "eval/accuracy_greedy", "eval/problems"
Tell = Callable[[str, str], None]  # kind of event, message


class Saveable(Protocol):
    def save(self, folder: str) -> None:
        """Take a copy of everything, and begin to write it; the trainer may train on when this returns."""
        ...

    def saved(self, wait: bool) -> dict[str, Fingerprint] | None:
        """None while it is still being written; else the files by their whole path. WriteFailed when it cannot be."""
        ...

    def load(self, folder: str) -> None: ...
    def score(self, token_ids: list[int]) -> list[float]: ...
    def export(self, folder: str) -> None: ...


class ResumeRefused(RunError):
    """The weights that were loaded are not the weights that were saved."""


class CheckpointFailed(RunError):
    """The very first checkpoint could not be written: there would be no way back. Or a model, at the end or to hold on
    to."""


@dataclass(frozen=True)
class Pending:
    """A checkpoint that the trainer is still writing."""

    name: str
    state: State
    logprobs: list[float]  # of the probe
    score: float | None = None  # held-out accuracy, once it is known
    problems: float | None = None  # that it is of


class DiskCheckpoints:
    def __init__(
        self, root: Path, cfg: CheckpointConfig, probe: list[int], tell: Tell, tolerance: float = LEAST_RESUMED
    ):
        """`tolerance`: how far the probe's logprobs may be `apart` from those that were saved, in nats."""
        self.root, self.cfg, self.probe, self.tell, self.tolerance = root.resolve(), cfg, probe, tell, tolerance
        root.mkdir(parents=True, exist_ok=True)
        self.start_is_reference = False  # a KL term holds on to the model that trainers start with
        self.pending: Pending | None = None
        self.ledger = Ledger.open(self.root, tell)
        self.unwritten = False  # the ledger, where the disk was full

    def newest_step(self) -> int | None:
        """The step that `restore` would give back, damage aside."""
        return self.ledger.newest_step()

    # ---- saving -------------------------------------------------------------------------------------------------

    def first(self, trainer: Saveable) -> State:
        """Step 0, saved: there is always a way back."""
        state = State()
        if failure := self._begin(trainer, state) or self._end(trainer, wait=True):
            raise CheckpointFailed(failure)
        return state

    def save(self, trainer: Saveable, state: State) -> None:
        """Begin to save. What goes wrong is told, and costs this checkpoint alone: the ones before are intact."""
        self.finish(trainer)
        if failure := self._begin(trainer, state):
            self.tell("checkpoint_failed", failure)

    def settle(self, trainer: Saveable, step: int) -> None:
        """Once a step: what has been written exists, what has proved itself by `step` is good."""
        if failure := self._end(trainer, wait=False):
            self.tell("checkpoint_failed", failure)
        if self.ledger.settle(step, self.cfg.probation) or self.unwritten:
            self._note()

    def finish(self, trainer: Saveable) -> None:
        """Wait until nothing is being written any more."""
        if failure := self._end(trainer, wait=True):
            self.tell("checkpoint_failed", failure)

    def evaluated(self, state: State, accuracy: Mapping[str, float]) -> None:
        """What the weights of a step are worth, for `best` and for retention."""
        score, problems = accuracy.get(SCORE), accuracy.get(PROBLEMS)
        if self.pending and self.pending.state.step == state.step:
            self.pending = replace(self.pending, score=score, problems=problems)
            return
        name = next((n for n in reversed(self.ledger.usable()) if step_of(n) == state.step), None)
        if name and score is not None:
            entry = self.ledger.entries[name]
            entry.score, entry.problems = score, problems
            self._note()

    def _begin(self, trainer: Saveable, state: State) -> str | None:
        """What went wrong, in words."""
        name = name_of(state.step, state.lineage.version)
        if (room := self._room_for_one()) is not None:
            return self._failed(name, room)
        logprobs = trainer.score(self.probe)
        if not all(map(isfinite, logprobs)):
            return f"checkpoint {name} was not written: its weights give logprobs that are no numbers"
        draft = self.root / "draft"
        shutil.rmtree(draft, ignore_errors=True)
        try:
            (draft / "trainer").mkdir(parents=True)
            trainer.save(str(draft / "trainer"))
        except (OSError, WriteFailed) as error:
            return self._failed(name, error)
        self.pending = Pending(name, state, logprobs)
        return None

    def _end(self, trainer: Saveable, wait: bool) -> str | None:
        if self.pending is None:
            return None
        pending, self.pending = self.pending, None  # what is being written when a trainer dies stays a draft
        try:
            files = trainer.saved(wait)
            if files is None:
                self.pending = pending
                return None
            self._complete(pending, files)
        except (OSError, WriteFailed) as error:
            return self._failed(pending.name, error)
        return None

    def _complete(self, pending: Pending, files: dict[str, Fingerprint]) -> None:
        draft = self.root / "draft"
        probe = {"token_ids": self.probe, "logprobs": pending.logprobs}
        (draft / "state.json").write_text(json.dumps({"state": pending.state.to_json(), "probe": probe}))
        write_manifest(draft, {os.path.relpath(path, draft): found for path, found in files.items()})
        os.replace(draft, self.root / pending.name)  # now it exists
        sync(self.root)
        first = pending.state.step == 0
        label: Label = "good" if first else "candidate"
        self.ledger.entries[pending.name] = Entry(label, pending.score, pending.problems)
        for name in self.ledger.superfluous(self.cfg.keep, self.cfg.keep_every):
            with suppress(FileNotFoundError):  # somebody made room already
                shutil.rmtree(self.root / name)
            del self.ledger.entries[name]
        self.ledger.write()
        self._let_anchors_go()

    def _note(self) -> None:
        """Into the ledger what can be noted later as well, where the disk is full."""
        try:
            self.ledger.write()
            self.unwritten = False
        except OSError as error:
            if not self.unwritten:
                self.tell("checkpoint_failed", f"{self.ledger.path}: {error.strerror or error}: tried again each step")
            self.unwritten = True

    def _room_for_one(self) -> OSError | None:
        """A full disk is better met before the run's own logs meet it: another one like the last must fit."""
        names = self.ledger.usable()
        if not names:
            return None
        needed, free = size(self.root / names[-1]), free_bytes(self.root)
        return None if free > needed else OSError(None, f"it needs {needed / 2**20:.0f} MB")

    def _failed(self, name: str, error: Exception) -> str:
        shutil.rmtree(self.root / "draft", ignore_errors=True)  # whoever reports this needs the room
        return (
            f"checkpoint {name} could not be written: {getattr(error, 'strerror', None) or error} "
            f"({free_bytes(self.root) / 2**20:.0f} MB free in {self.root}). The ones before are intact: make room, or "
            f"lower checkpoint.keep={self.cfg.keep}"
        )

    # ---- going back ---------------------------------------------------------------------------------------------

    def restore(self, trainer: Saveable) -> State | None:
        """The newest intact checkpoint into `trainer`, and its state; None when there is none at all."""
        self.pending = None  # what was being written when a trainer died stays a draft
        if self.start_is_reference:
            self._check_reference(trainer)
        while names := self.ledger.usable():
            if state := self._intact(trainer, names[-1]):
                noted = self.ledger.noted(names[-1])
                return self._state(noted) if noted else state
        damaged = list(self.root.glob("damaged-*"))
        if damaged or self.ledger.gone:  # where there were checkpoints, a run does not quietly begin again
            raise ResumeRefused(
                f"of the {len(damaged) + len(self.ledger.gone)} checkpoints that {self.root} had, {len(damaged)} are "
                f"damaged and {len(self.ledger.gone)} are gone: bring one back, or start a new run"
            )
        return None

    def roll_back(self, trainer: Saveable, state: State, onset: int) -> State:
        """The newest good checkpoint from before `onset` into `trainer`; the state that was saved with it. One that
        broke again within its probation is given up: trouble is seen late, and it was sick already."""
        self.finish(trainer)
        self.ledger.settle(state.step, self.cfg.probation)  # however slow the disk was, the same choice
        restored = state.restored
        broken = restored if restored and state.step < step_of(restored) + self.cfg.probation else None
        while True:
            name = self.ledger.before(onset, broken)
            if saved := self._intact(trainer, name):
                self.ledger.doubt(name, onset)
                return replace(saved, restored=name)

    def best(self, trainer: Saveable, onset: int) -> State:
        """The best checkpoint that was good before any trouble into `trainer`, for a run that gives up."""
        self.finish(trainer)
        while True:
            if saved := self._intact(trainer, self.ledger.best(onset)):
                return saved

    def note_rollback(self, state: State) -> None:
        """Writes down, in one step, the state after a rollback and that nothing newer than `state.restored` may be
        restored."""
        assert state.restored is not None
        self.ledger.abandon_after(state.restored)
        self.ledger.rollback = state.to_json()
        try:
            self.ledger.write()
        except OSError as error:
            raise CheckpointFailed(f"a rollback could not be noted in {self.ledger.path}: {error.strerror}") from error

    def anchor(self, trainer: Saveable, name: str) -> str:
        """The weights that `trainer` now holds as a model folder, for a KL term to hold on to."""
        folder = self.root / f"anchor-{name}"
        if not folder.exists():
            export(trainer, folder, f"rlvr resume {self.root.parent}")
        return str(folder)

    def _let_anchors_go(self) -> None:
        """But for those that a run may still go on with: at the last rollback's state, or at a checkpoint's."""
        if anchors := set(self.root.glob("anchor-*")):
            files = [self.root / name / "state.json" for name in self.ledger.usable()]  # or removed by hand
            try:
                saved = [json.loads(file.read_text())["state"] for file in files if file.is_file()]
            except (ValueError, KeyError):  # a damaged one may want any of them; it is told of where it is needed
                return
            states = [*saved, self.ledger.rollback or {}]
            wanted = {Path(state["anchor"]).name for state in states if state.get("anchor")}
            for anchor in anchors:
                if anchor.name not in wanted:
                    shutil.rmtree(anchor, ignore_errors=True)

    def _state(self, saved: dict[str, Any]) -> State:
        """The folder may have been moved since; its anchors are in it."""
        state = State.from_json(saved)
        return replace(state, anchor=str(self.root / Path(state.anchor).name)) if state.anchor else state

    def _intact(self, trainer: Saveable, name: str) -> State | None:
        """Its state, once it is loaded. A damaged one is told of and put aside."""
        folder = self.root / name
        if damage := what_is_wrong(folder):
            del self.ledger.entries[name]
            left = self.ledger.usable()
            self.tell("warning", f"checkpoint {name} is damaged ({damage}): " + (f"trying {left[-1]}" if left else ""))
            if folder.exists():  # kept for whoever wants to look, but no longer one of ours
                os.replace(folder, self.root / f"damaged-{name}")
            self.ledger.write()
            if not left:
                raise ResumeRefused(f"no checkpoint in {self.root} is intact any more: start a new run")
            return None
        return self._loaded(trainer, name)

    def load(self, trainer: Saveable, name: str) -> None:
        """This checkpoint into `trainer`, for who does not go on from it: nothing is put aside where it is damaged."""
        if damage := what_is_wrong(self.root / name):
            raise ResumeRefused(f"checkpoint {name} is damaged ({damage})")
        self._loaded(trainer, name)

    def _loaded(self, trainer: Saveable, name: str) -> State:
        saved = json.loads((self.root / name / "state.json").read_text())
        trainer.load(str(self.root / name / "trainer"))
        self._check_probe(trainer, name, **saved["probe"])
        return self._state(saved["state"])

    def _check_reference(self, trainer: Saveable) -> None:
        """`trainer` has loaded no checkpoint yet: it holds what lies at model.path now."""
        try:
            probe = json.loads((self.root / name_of(0, 0) / "state.json").read_text())["probe"]
        except (OSError, ValueError, KeyError):  # none yet; or damaged, which whoever needs it is told
            return
        if (off := apart(trainer.score(probe["token_ids"]), probe["logprobs"])) > self.tolerance:
            raise ResumeRefused(
                f"model.path holds another model than the one that the run began with (the probe differs by {off:.3g} "
                f"> {self.tolerance:g}), and the KL term would pull towards it: put the former back, or name the one "
                "that you want, algorithm.kl.reference=<folder or hub name>"
            )

    def _check_probe(self, trainer: Saveable, name: str, token_ids: list[int], logprobs: list[float]) -> None:
        """Other hardware or another number of ranks may round differently; other weights differ by much more."""
        if (off := apart(trainer.score(token_ids), logprobs)) > self.tolerance:
            raise ResumeRefused(
                f"checkpoint {name} is intact, but its weights score the probe differently by {off:.3g} > "
                f"{self.tolerance:g}: wrong model.path, or another version of the software; "
                "trainer.probe_tolerance raises the limit"
            )


def export(trainer: Saveable, folder: Path, again: str) -> None:
    """The weights that `trainer` now holds as a model folder, there whole or not at all, and after a power cut too.
    CheckpointFailed where the disk has no room for it; `again` is the command that tries once more."""
    draft = folder.with_name(f"{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        trainer.export(str(draft))
        sync_all(draft)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(draft, folder)
        sync(folder.parent)
    except BaseException as error:
        free = free_bytes(folder.parent)
        shutil.rmtree(draft, ignore_errors=True)  # whoever reports this needs the room
        if not isinstance(error, (OSError, WriteFailed)):
            raise
        raise CheckpointFailed(
            f"the model could not be exported to {folder}: {getattr(error, 'strerror', None) or error} "
            f"({free / 2**20:.0f} MB free): make room, `{again}` exports it again"
        ) from error
