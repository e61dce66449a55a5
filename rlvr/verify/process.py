"""One killable verifier process, seen from outside. Knows deadlines and deaths; no rewards.

Deadlines are kept here, by SIGKILL: neither a thread nor an alarm inside the process can stop CPython in one long C
call.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
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
        self._child: Child | None = None
        self._successor: Child | None = None

    def start(self) -> None:
        if self._child is None:
            self._child, self._successor = self._successor or Child(self.assignments.values()), None
            self._child.await_ready()

    def verify(self, part: str, samples: Sequence[Sample], verdicts: list[Verdict]) -> None:
        """Append a verdict for each sample in turn; TimedOut or Failed is about sample `len(verdicts)`."""
        self.start()
        child = self._renewed()
        try:
            child.send((part, list(samples)))
            for _ in samples:
                verdicts.append(child.verdict(self.assignments[part].timeout_s))
        except (TimedOut, Failed):
            child.kill()  # the rest of its samples are asked elsewhere
            self._child = None
            raise

    def _renewed(self) -> "Child":
        """The child to ask. One that has seen many samples goes on until its successor has loaded: nobody waits."""
        assert self._child is not None
        if self._successor is not None and self._successor.pipe.poll(0):
            self._child.kill()
            self._child, self._successor = self._successor, None
            self._child.await_ready()
        elif self._successor is None and self._child.samples >= RECYCLE:
            self._successor = Child(self.assignments.values())
        return self._child

    def kill(self) -> None:
        for child in (self._child, self._successor):
            if child is not None:
                child.kill()
        self._child = self._successor = None


class Child:
    """One start of the worker, with its pipe; of no use after `kill`."""

    def __init__(self, assignments: Iterable[Assignment]):
        self.samples = 0
        self.pipe, theirs = Pipe()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  what it prints, for the error message; closed by kill
        self._process = subprocess.Popen(
            [sys.executable, "-m", "rlvr.verify.worker", str(theirs.fileno()), str(os.getpid())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=self._said,
            stderr=subprocess.STDOUT,
        )
        theirs.close()
        self._looking = psutil.Process(self._process.pid)
        with suppress(BrokenPipeError):  # gone already: whoever waits for it is told why
            self.pipe.send([(a.part, a.reference, a.params) for a in assignments])

    def await_ready(self) -> None:
        try:
            self.receive(START_S)
        except (TimedOut, Failed) as error:
            self.kill()
            raise PluginError(f"the verifiers could not be loaded: {error}") from error

    def send(self, message: object) -> None:
        try:
            self.pipe.send(message)
        except (BrokenPipeError, ConnectionResetError):
            self._died()

    def verdict(self, limit_s: float) -> Verdict:
        try:
            reply = self.receive(limit_s)
            answer = None if "error" in reply else decode(reply["verdict"])
        except (ValueError, TypeError, KeyError) as error:  # it wrote into the pipe of its own accord
            raise Failed(f"the verifier's answer is garbled: {error}") from error
        if answer is None:
            raise Failed(reply["error"])
        self.samples += 1
        return answer

    def receive(self, limit_s: float) -> dict[str, Any]:
        """One reply within `limit_s` of CPU time, or STARVED times as much wall time."""
        started, used = monotonic(), self._cpu_s()
        wait_s = limit_s
        try:
            while not self.pipe.poll(wait_s):
                wait_s = limit_s - (self._cpu_s() - used)
                if wait_s <= 0.01 or monotonic() - started > STARVED * limit_s:
                    raise TimedOut(f"more than {limit_s:g} s")
            return json.loads(self.pipe.recv_bytes())
        except (EOFError, ConnectionResetError, psutil.NoSuchProcess):
            self._died()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self.pipe.close()
        self._said.close()

    def _cpu_s(self) -> float:
        times = self._looking.cpu_times()
        return times.user + times.system

    def _died(self) -> NoReturn:
        code = self._process.wait()
        self._said.seek(0)
        last = self._said.read().decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise Failed(f"the verifier's process ended with code {code}: {last[0]}")
