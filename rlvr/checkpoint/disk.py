"""Checkpoints that exist whole or not at all.

    <run>/checkpoints/step-00000040-v00000057/
        trainer/        what every trainer rank saved
        state.json      the loop's State, and a probe: token ids with the logprobs these weights gave them
        manifest.json   size and SHA-256 of each file; written last, checked before anything is loaded

Written aside, fsynced, and made to exist by one rename. Versions never repeat, so nothing is ever overwritten.
Knows files and hashes; what a trainer writes into its folder is the trainer's affair.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from rlvr.config import RunError
from rlvr.state import State

TORCH_WRITER = "inline_container.cc"  # in the RuntimeError that torch.save raises where the disk is full


class Saveable(Protocol):
    def save(self, folder: str) -> None: ...
    def load(self, folder: str) -> None: ...
    def score(self, token_ids: list[int]) -> list[float]: ...


class ResumeRefused(RunError):
    """The weights that were loaded are not the weights that were saved."""


class CheckpointFailed(RunError):
    """A checkpoint could not be written. The ones before are untouched."""


class DiskCheckpoints:
    def __init__(self, root: Path, keep: int, probe: list[int], warn: Callable[[str], None] = print):
        self.root, self.keep, self.probe, self.warn = root, keep, probe, warn
        root.mkdir(parents=True, exist_ok=True)

    def all(self) -> list[str]:
        """Names, oldest version first."""
        return sorted((p.name for p in self.root.glob("step-*-v*")), key=lambda name: name.rsplit("-v", 1)[1])

    def newest(self) -> str:
        return self.all()[-1]

    def newest_step(self) -> int | None:
        """The step that `restore` would give back, damage aside."""
        names = self.all()
        return int(names[-1].split("-")[1]) if names else None

    def first(self, trainer: Saveable) -> State:
        """Step 0, saved: there is always a way back."""
        self.save(trainer, state := State())
        return state

    def save(self, trainer: Saveable, state: State) -> None:
        name = f"step-{state.step:08d}-v{state.lineage.version:08d}"
        draft = self.root / "draft"
        shutil.rmtree(draft, ignore_errors=True)
        try:
            self._write(draft, trainer, state)
            os.replace(draft, self.root / name)  # now it exists
            sync(self.root)
        except (OSError, RuntimeError) as error:
            if not isinstance(error, OSError) and TORCH_WRITER not in str(error):
                raise
            shutil.rmtree(draft, ignore_errors=True)  # half of it is of no use, and whoever reports this needs room
            raise CheckpointFailed(
                f"checkpoint {name} could not be written: {getattr(error, 'strerror', None) or error} "
                f"({shutil.disk_usage(self.root).free // 2**20} MB free in {self.root}). The ones before are intact: "
                "make room, or lower checkpoint.keep, and resume"
            ) from error
        for old in self.all()[: -self.keep]:
            shutil.rmtree(self.root / old)

    def _write(self, draft: Path, trainer: Saveable, state: State) -> None:
        """All files, on the disk when this returns."""
        (draft / "trainer").mkdir(parents=True)
        trainer.save(str(draft / "trainer"))
        probe = {"token_ids": self.probe, "logprobs": trainer.score(self.probe)}
        (draft / "state.json").write_text(json.dumps({"state": state.to_json(), "probe": probe}))
        files = {str(p.relative_to(draft)): fingerprint(p) for p in sorted(draft.rglob("*")) if p.is_file()}
        (draft / "manifest.json").write_text(json.dumps(files, indent=1))
        for path in (*draft.rglob("*"), draft):
            sync(path)

    def restore(self, trainer: Saveable) -> State | None:
        """The newest intact checkpoint into `trainer`, and its state; None when there is none at all."""
        names = self.all()
        if not names:
            return None
        damaged = []
        while names and (damage := what_is_wrong(self.root / names[-1])):
            damaged.append(names.pop())
            self.warn(f"checkpoint {damaged[-1]} is damaged ({damage}): trying the one before")
        if not names:
            raise ResumeRefused(f"none of the {len(damaged)} checkpoints in {self.root} is intact: start a new run")
        for name in damaged:  # kept for whoever wants to look, but no longer the newest, nor one of the `keep`
            os.replace(self.root / name, self.root / f"damaged-{name}")
        folder = self.root / (name := names[-1])
        saved = json.loads((folder / "state.json").read_text())
        trainer.load(str(folder / "trainer"))
        self._check_probe(trainer, name, **saved["probe"])
        noted = self._noted_rollback()
        return noted if noted and noted.restored == name else State.from_json(saved["state"])

    def discard_newest(self) -> None:
        if len(self.all()) > 1:
            shutil.rmtree(self.root / self.newest())

    def note_rollback(self, state: State) -> None:
        """The state after a rollback; it has no weights of its own to save, those of `state.restored` are its."""
        draft = self.root / "rollback.draft"
        draft.write_text(json.dumps(state.to_json()))
        sync(draft)
        os.replace(draft, self.root / "rollback.json")
        sync(self.root)

    def _noted_rollback(self) -> State | None:
        note = self.root / "rollback.json"
        return State.from_json(json.loads(note.read_text())) if note.exists() else None

    def _check_probe(self, trainer: Saveable, name: str, token_ids: list[int], logprobs: list[float]) -> None:
        """Other hardware or another number of ranks may round differently; other weights differ by much more."""
        now = trainer.score(token_ids)
        worst = max(abs(a - b) for a, b in zip(now, logprobs, strict=True))
        if not worst <= 1e-2:
            raise ResumeRefused(
                f"checkpoint {name} is intact, but its weights score the probe differently by {worst:.3g} > 0.01: "
                "wrong model.path, or another version of the software"
            )


def fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def what_is_wrong(folder: Path) -> str | None:
    """The first damage found in a checkpoint, in words."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
    except (OSError, ValueError) as error:
        return f"manifest.json: {error}"
    for name, expected in manifest.items():
        try:
            found = fingerprint(folder / name)
        except FileNotFoundError:
            return f"{name} is missing"
        except (OSError, ValueError) as error:  # a bad block, or a name that a flipped bit made impossible
            return f"{name!r} cannot be read: {error}"
        if found["bytes"] != expected.get("bytes"):
            return f"{name} has {found['bytes']} bytes, not {expected.get('bytes')}"
        if found != expected:
            return f"{name} has other content than was written"
    return None


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
