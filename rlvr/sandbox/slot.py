"""One slot seen from outside: starts the fork server (zygote.py) with a clean environment, talks to it, ends it.

Not thread-safe: one caller at a time.
"""

import json
import os
import select
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rlvr.sandbox.job import Level
from rlvr.sandbox.layers import interpreter_flags

START_S = 60.0
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin", "HOME": "/tmp", "USER": "sandbox", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "TZ": "UTC",
    "PYTHONHASHSEED": "0", "MALLOC_ARENA_MAX": "2",
    "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
}  # fmt: skip
BOOT = "import sys; sys.path.insert(0, {root!r}); from rlvr.sandbox.zygote import main; main()"
ROOT = str(Path(__file__).resolve().parents[2])


class SlotFailed(RuntimeError):
    """The fork server did not start, or is gone."""


class Slot:
    """A started fork server. `said` is what it claims about its layers; `level` what was observed (see probe.py)."""

    def __init__(self, without: frozenset[str] = frozenset(), packages: tuple[str, ...] = ()):
        self.level = Level.BROKEN
        self.jobs = 0
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  closed by close
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        setting = {"control": theirs.fileno(), "packages": list(packages), "without": sorted(without)}
        self._process = subprocess.Popen(
            [*interpreter_flags(), "-c", BOOT.format(root=ROOT), json.dumps(setting)],
            env=ENVIRONMENT,
            cwd="/",
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._stderr,
            start_new_session=True,
        )
        theirs.close()
        self.said: Mapping[str, str] = self.receive(START_S)[0]["ready"]

    def receive(self, limit_s: float) -> tuple[dict[str, Any], list[int]]:
        if not select.select([self.control], [], [], limit_s)[0]:
            self.close()
            raise SlotFailed(f"the sandbox said nothing for {limit_s:g} s")
        try:
            content, descriptors, _, _ = socket.recv_fds(self.control, 65536, 4)
        except ConnectionResetError:
            content, descriptors = b"", []
        message = json.loads(content) if content else {"failed": self._last_words()}
        if "failed" in message:
            self.close()
            raise SlotFailed(message["failed"])
        return message, descriptors

    def _last_words(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()[-1:]
        return f"the sandbox's process ended with code {self._process.poll()}: {''.join(lines) or 'it said nothing'}"

    def close(self) -> None:
        self.control.close()  # the fork server ends when nobody can ask any more
        if self._process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(2)
            self._process.kill()
        self._process.wait()
        self._stderr.close()


def numpy_packages() -> tuple[str, ...]:
    """numpy's folders, found and not imported."""
    for path in sys.path:
        found = [os.path.join(path, name) for name in ("numpy", "numpy.libs")]
        if path and os.path.isfile(os.path.join(found[0], "__init__.py")):
            return tuple(f for f in found if os.path.isdir(f))
    return ()
