"""Writes a trainer rank's files behind its back. Knows threads and files, and nothing of what is in them.

    begin() write(path, save) ...  the rank trains on         one thread: save(path), fsync, SHA-256
    done(wait=False)               None while it works, then {path: fingerprint} of all since `begin`
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from rlvr.checkpoint.files import Fingerprint, fingerprint, sync
from rlvr.config import RunError

TORCH_WRITER = "inline_container.cc"  # in the RuntimeError that torch.save raises where the disk is full


class WriteFailed(RunError):
    """A file could not be written; says why."""


class BackgroundWriter:
    """Whoever calls `write` hands over data that nobody changes any more."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: dict[Path, Future[Fingerprint]] = {}

    def begin(self) -> None:
        """Forget the files of the time before; what is left of them is waited for, whatever became of it."""
        wait(self._writing.values())
        self._writing = {}

    def write(self, path: Path, save: Callable[[Path], None]) -> None:
        self._writing[path] = self._thread.submit(written, path, save)

    def done(self, wait_for_it: bool) -> dict[Path, Fingerprint] | None:
        """None while some file is still being written. WriteFailed when one could not be."""
        if not wait_for_it and not all(future.done() for future in self._writing.values()):
            return None
        return {path: future.result() for path, future in self._writing.items()}


def written(path: Path, save: Callable[[Path], None]) -> Fingerprint:
    try:
        save(path)
        sync(path)
        return fingerprint(path)
    except (OSError, RuntimeError) as error:
        path.unlink(missing_ok=True)  # half of it is of no use, and others need the room
        if not isinstance(error, OSError) and TORCH_WRITER not in str(error):
            raise
        raise WriteFailed(f"{path.name}: {getattr(error, 'strerror', None) or error}") from error
