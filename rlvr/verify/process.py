"""One killable verifier process, seen from outside. Knows deadlines and deaths; no rewards.

Deadlines are kept here, by SIGKILL: neither a thread nor an alarm inside the process can stop CPython in one long C
call.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from time import monotonic
from typing import Any, NoReturn

import psutil

from rlvr.types import Verdict
from rlvr.verify.plugin import PluginError, Sample
from rlvr.verify.worker import decode

START_S = 120.0  # importing sympy on a busy machine takes its time
STARVED = 4  # wall time may be this multiple of the CPU time allowed: a busy machine is not the policy's fault
RECYCLE = 5_000  # samples: libraries cache, and caches grow


@dataclass(frozen=True)
class Assignment:
    """What one reward part asks for: a verifier by reference, its options, its limit in CPU seconds."""

    part: str
    reference: str
    params: dict[str, Any]
    timeout_s: float


class TimedOut(Exception):
    """The call used up its time; the process is gone."""


class Failed(Exception):
    """The verifier raised, or its process died."""


class VerifierProcess:
    """Started on first use, and again after every death. Not thread-safe: one caller at a time."""

    def __init__(self, assignments: Sequence[Assignment]):
        self.assignments = {a.part: a for a in assignments}
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        if self._process is not None:
            return
        ours, theirs = Pipe()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  what it prints, for the error message; closed by kill
        self._process = subprocess.Popen(
            [sys.executable, "-m", "rlvr.verify.worker", str(theirs.fileno()), str(os.getpid())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=self._said,
            stderr=subprocess.STDOUT,
        )
        theirs.close()
        self._pipe, self._done = ours, 0
        self._looking = psutil.Process(self._process.pid)
        try:
            ours.send([(a.part, a.reference, a.params) for a in self.assignments.values()])
            self._receive(START_S)
        except (TimedOut, Failed) as error:
            raise PluginError(f"the verifiers could not be loaded: {error}") from error

    def verify(self, part: str, samples: Sequence[Sample], verdicts: list[Verdict]) -> None:
        """Append a verdict for each sample in turn; TimedOut or Failed is about sample `len(verdicts)`."""
        self.start()
        self._send((part, list(samples)))
        for _ in samples:
            reply = self._receive(self.assignments[part].timeout_s)
            if "error" in reply:
                self.kill()  # the rest of its samples are asked elsewhere
                raise Failed(reply["error"])
            verdicts.append(decode(reply["verdict"]))
        self._done += len(samples)
        if self._done >= RECYCLE:
            self.kill()

    def kill(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._pipe.close()
        self._said.close()
        self._process = None

    def _send(self, message: object) -> None:
        try:
            self._pipe.send(message)
        except (BrokenPipeError, ConnectionResetError):
            self._died()

    def _receive(self, limit_s: float) -> dict[str, Any]:
        """One reply within `limit_s` of CPU time, or STARVED times as much wall time."""
        started, used = monotonic(), self._cpu_s()
        wait_s = limit_s
        try:
            while not self._pipe.poll(wait_s):
                wait_s = limit_s - (self._cpu_s() - used)
                if wait_s <= 0.01 or monotonic() - started > STARVED * limit_s:
                    self.kill()
                    raise TimedOut(f"more than {limit_s:g} s")
            return json.loads(self._pipe.recv_bytes())
        except (EOFError, ConnectionResetError, psutil.NoSuchProcess):
            self._died()

    def _cpu_s(self) -> float:
        times = self._looking.cpu_times()
        return times.user + times.system

    def _died(self) -> NoReturn:
        assert self._process is not None
        code = self._process.wait()
        self._said.seek(0)
        last = self._said.read().decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        self.kill()
        raise Failed(f"the verifier's process ended with code {code}: {last[0]}")
