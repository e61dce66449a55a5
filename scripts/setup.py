"""Installs the project into .venv: CUDA build where there is a GPU, CPU build where there is none.

Standard library only, for a machine that has Python, git and a compiler and nothing else. Knows the order of the
installation, what can be missing on a machine and what to do about it. Which packages are needed is said by
pyproject.toml, in which versions by constraints.txt; what must stay out of a CPU build by scripts/overrides.txt.

    RLVR_BUILD=cpu|cuda    chooses the build instead of looking for a GPU
"""

import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from time import monotonic

ROOT = Path(__file__).resolve().parent.parent
INPUTS = ("pyproject.toml", "constraints.txt", "scripts/setup.py", "scripts/overrides.txt")
PYTHONS = ((3, 11), (3, 14))
TORCH = "2.13.0"
STEPS = 5
GIB = 1024**3
FREE_GIB = {"cpu": 6, "cuda": 14}
TICK_S = 10.0

EXTENSION = "from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder as B; B().load(verbose=False)"
IMPORTS = "import rlvr, torch, transformers, deepspeed, ray, vllm"

NETWORK = """\
  - no network, or a proxy is needed: set HTTPS_PROXY
  - the registry is a mirror: say so in pip's configuration (`pip config set global.index-url ...`) or in PIP_INDEX_URL,
    PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS; they are passed on
  - a download broke off: run `make setup` again, it goes on where it stopped"""


class SetupError(Exception):
    """A step that failed, with what to do about it."""


class Progress:
    """One line per step; while a step runs, a sign of life where there is no terminal for uv's own bars."""

    def __init__(self) -> None:
        self.start, self.count = monotonic(), 0

    def step(self, what: str) -> None:
        self.count += 1
        print(f"[{self.count}/{STEPS}] {what} ...  ({monotonic() - self.start:.0f} s)", flush=True)

    def run(self, command: Sequence[str], advice: str, env: Mapping[str, str] | None = None) -> None:
        self.wait([subprocess.Popen(command, cwd=ROOT, env={**os.environ, **(env or {})})])[0](advice)

    def wait(self, processes: Sequence[subprocess.Popen[bytes]]) -> list[Callable[[str], None]]:
        """Waits for all; for each a function that raises SetupError with the advice given if it failed."""
        done = threading.Event()
        ticker = threading.Thread(target=self.tick, args=(done,), daemon=True)
        ticker.start()
        try:
            for process in processes:
                process.wait()
        finally:
            done.set()
            for process in processes:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        return [check(process) for process in processes]

    def tick(self, done: threading.Event) -> None:
        while not done.wait(TICK_S):
            if not sys.stderr.isatty():
                print(f"      ... still at it ({monotonic() - self.start:.0f} s)", flush=True)


def check(process: subprocess.Popen[bytes]) -> Callable[[str], None]:
    def succeeded_or(advice: str) -> None:
        if process.returncode:
            free = shutil.disk_usage(ROOT).free / GIB
            raise SetupError(
                f"this step failed (exit status {process.returncode}; its output is above). What to do:\n{advice}\n"
                f"  - disk full? {free:.1f} GiB are free in {ROOT}"
            )

    return succeeded_or
