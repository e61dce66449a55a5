"""A trainer that is one number, and what tests of checkpoints do with it again and again."""

import json
from pathlib import Path
from threading import Event

from rlvr.checkpoint.disk import DiskCheckpoints
from rlvr.checkpoint.files import Fingerprint
from rlvr.checkpoint.ledger import step_of
from rlvr.checkpoint.writer import BackgroundWriter
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


def save(checkpoints: DiskCheckpoints, trainer: Trainer, state: State) -> None:
    checkpoints.save(trainer, state)
    checkpoints.finish(trainer)


def names(checkpoints: DiskCheckpoints) -> list[str]:
    return checkpoints.ledger.usable()


def files(checkpoints: DiskCheckpoints, step: int) -> list[Path]:
    return sorted(path for path in (checkpoints.root / name(step)).rglob("*") if path.is_file())


def reopened(checkpoints: DiskCheckpoints) -> DiskCheckpoints:
    """As the process after the crash sees it."""
    return DiskCheckpoints(checkpoints.root, checkpoints.cfg, checkpoints.probe, checkpoints.tell)


def flip(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def labels(checkpoints: DiskCheckpoints) -> dict[int, str]:
    return {step_of(name): entry.label for name, entry in reopened(checkpoints).ledger.entries.items()}
