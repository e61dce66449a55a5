"""One killable verifier process, seen from outside. Knows deadlines and deaths; no rewards.

Deadlines are kept here, by SIGKILL: neither a thread nor an alarm inside the process can stop CPython in one long C
call.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import cached_property
from multiprocessing import Pipe
from multiprocessing.reduction import ForkingPickler
from threading import Thread
from time import monotonic
from typing import Any, NoReturn

import psutil

from rlvr.verify.call import Entry
from rlvr.verify.discover import load
from rlvr.verify.messages import Closed, Garbled, Messages
from rlvr.verify.plugin import PluginError, Sample, Verifier, fingerprint, named
from rlvr.verify.worker import decode

START_S = 120.0  # importing sympy on a busy machine takes its time
CLOSE_S = 2.0  # for a verifier's own `close`
PATIENCE = 4  # wall time may be this multiple of the CPU time allowed, when the verifier is not computing ...
STARVED = 25  # ... and this one when it wants to: a busy machine is not the policy's fault
SOON_S = 0.005  # most answers come within: not worth reading the process's clock
RECYCLE = 5_000  # samples: libraries cache, and caches grow


@dataclass(frozen=True)
class Assignment:
    """What one reward part asks for: a verifier by reference, its options, its limit (see `Verifier.timeout_s`)."""

    part: str
    reference: str
    params: dict[str, Any] = field(default_factory=dict)
    timeout_s: float | None = None  # none: the verifier's own

    @property
    def verifier(self) -> Verifier:
        return load(self.reference)

    @property
    def limit_s(self) -> float:
        return self.timeout_s or self.verifier.timeout_s

    @cached_property
    def key(self) -> tuple[str, str]:
        """Samples with the same one may share a call."""
        return self.reference, f"{fingerprint(self.params)}/{self.timeout_s}"


class TimedOut(Exception):
    """The call used up its time, and the process is gone. `computing`: its CPU time, not only its share of a day."""

    def __init__(self, said: str, computing: bool):
        super().__init__(said)
        self.computing = computing


class Failed(Exception):
    """The verifier's process could not be started, died, or answered garbage."""


class VerifierProcess:
    """Started on first use, and again after every death. Not thread-safe: one caller at a time."""

    def __init__(self, first: Sequence[Assignment]):
        self.first = first  # loaded at every start; what a data row names is loaded when it comes
        self._child: Child | None = None
        self._successor: Child | None = None
        self._leaving: Thread | None = None  # closes the one before

    def start(self) -> None:
        """Failed or PluginError when it cannot be; then nothing of it is left."""
        if self._child is None:
            try:
                self._child, self._successor = self._successor or Child(self.first), None
                self._child.await_ready()
            except (Failed, PluginError):
                self.kill()
                raise

    def verify(self, assignment: Assignment, calls: Sequence[list[Sample]]) -> Iterator[list[Entry]]:
        """The entries of each call in turn. TimedOut or Failed is about the call whose entries did not come."""
        try:
            self.start()
            child = self._renewed()
            child.load(assignment)
            sent = child.ask(assignment, calls)
            for samples in calls[:sent]:
                yield child.entries(assignment, len(samples))
        except (TimedOut, Failed, PluginError, GeneratorExit):
            self.kill()  # whatever else it was asked is asked elsewhere
            raise
        if sent < len(calls):
            raise Failed("the sample cannot be sent to a process: its row, or its reference, is nested too deeply")

    def _renewed(self) -> "Child":
        """The child to ask. One that has seen many samples goes on until its successor has loaded: nobody waits. Where
        that cannot be set up just now, it goes on for as many again, and says so."""
        assert self._child is not None
        try:
            if self._successor is not None and self._successor.is_loaded():
                self._left()
                self._leaving = Thread(target=self._child.close, name="verifier-leaving")  # its exit takes 0.1 s
                self._leaving.start()
                self._child, self._successor = self._successor, None
            elif self._successor is None and self._child.samples >= RECYCLE:
                self._successor = Child(self.first)
        except (Failed, PluginError, Closed, Garbled) as error:
            print(
                f"rlvr: a process of verifiers goes on after {self._child.samples} samples, as none could take its "
                f"place: {type(error).__name__}: {error}",
                file=sys.stderr,
            )
            if self._successor is not None:
                self._successor.kill()
            self._successor, self._child.samples = None, 0
        return self._child

    def interrupt(self) -> None:
        """From another thread: whatever is being asked ends in Failed."""
        if (child := self._child) is not None:
            child.interrupt()

    def kill(self) -> None:
        self._end("kill")

    def close(self) -> None:
        self._end("close")

    def _end(self, how: str) -> None:
        for child in (self._child, self._successor):
            if child is not None:
                getattr(child, how)()
        self._child = self._successor = None
        self._left()

    def _left(self) -> None:
        if self._leaving is not None:
            self._leaving.join()
        self._leaving = None


def worker() -> str:
    """What it runs: it imports from where we do, in our order. `-m` would put the current folder before the library,
    where a file of the user's own that is called random.py ends every process."""
    return f"import sys; sys.path[:] = {list(map(str, sys.path))!a}; from rlvr.verify.worker import main; main()"


class Child:
    """One start of the worker, with its pipe; of no use after `close` or `kill`. Failed when there can be none."""

    def __init__(self, first: Sequence[Assignment]):
        self.samples = self.calls = 0
        try:
            self._start()
        except OSError as error:  # no room for another process, file or descriptor
            raise Failed(f"the verifier's process could not be started: {error}") from error
        self._messages = Messages(self.pipe)
        self._looking = psutil.Process(self._process.pid)
        self._loaded: set[tuple[str, str]] = set()
        self._awaited: list[str] = []  # verifiers that were sent for, and have not reported yet
        for assignment in first:
            with suppress(Failed):  # gone already: whoever waits for it is told why
                self._send_for(assignment)

    def _start(self) -> None:
        with ExitStack() as undo:
            self.pipe, theirs = Pipe()
            undo.callback(self.pipe.close)
            with theirs:
                # what it prints, for the error message; closed by kill
                self._said = undo.enter_context(tempfile.TemporaryFile())
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-c", worker(), str(theirs.fileno()), str(os.getpid())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=self._said,
                    stderr=subprocess.STDOUT,
                )
            undo.pop_all()

    def _send_for(self, assignment: Assignment) -> None:
        setup = assignment.verifier.setup
        options = named(setup, assignment.params) if setup is not None else {}
        if (key := (assignment.reference, fingerprint(options))) not in self._loaded:
            self._loaded.add(key)
            self._awaited.append(assignment.reference)
            self.send(ForkingPickler.dumps((assignment.reference, options)))

    def load(self, assignment: Assignment) -> None:
        self._send_for(assignment)
        self.await_ready()

    def is_loaded(self) -> bool:
        while self._awaited and self._messages.arrived(0):
            self._await_one()
        return not self._awaited

    def await_ready(self) -> None:
        while self._awaited:
            self._await_one()

    def _await_one(self) -> None:
        reference = self._awaited.pop(0)
        try:
            reply = self.receive(START_S, PATIENCE * START_S)
        except (TimedOut, Failed) as error:
            raise PluginError(f"the verifiers could not be loaded: {error}") from error
        if not isinstance(reply, dict) or reply.get("ready") is not True:
            said = reply.get("error", reply) if isinstance(reply, dict) else reply
            raise PluginError(f"verifier {reference!r} could not be set up: {said}")

    def send(self, message: Any) -> None:
        """Pickled already. Failed when the process is gone, or reads nothing for too long."""
        try:
            if not self._messages.send(message, START_S):
                raise Failed(f"the verifier's process has read nothing of its question in {START_S:g} s")
        except Closed:
            self._died()

    def ask(self, assignment: Assignment, calls: Sequence[list[Sample]]) -> int:
        """How many of them it is asked: those before one that cannot be pickled."""

        def pickled(some: Sequence[list[Sample]]) -> Any:
            asked = (assignment.reference, assignment.params, list(some), self.calls, assignment.limit_s)
            return ForkingPickler.dumps(asked)

        def fits(call: list[Sample]) -> bool:
            try:
                return bool(pickled([call]))
            except RecursionError:
                return False

        count = len(calls)
        try:
            message = pickled(calls)
        except RecursionError:
            count = next((place for place, call in enumerate(calls) if not fits(call)), 0)
            message = pickled(calls[:count])
        if count:
            self.send(message)
        return count

    def entries(self, assignment: Assignment, count: int) -> list[Entry]:
        """The answer to one call of `count` samples."""
        limit_s, verifier = assignment.limit_s, assignment.verifier
        waits = verifier.is_async and not verifier.takes_list
        rounds = -(-count // verifier.concurrency) if waits else 1
        wall_s = PATIENCE * limit_s + (rounds * limit_s if verifier.is_async else 0)
        try:
            said = decode(self.receive(limit_s, wall_s), self.calls, count)
        except (ValueError, TypeError, KeyError, AttributeError) as error:  # it wrote into the pipe of its own accord
            raise Failed(f"the verifier's answer is garbled: {error}") from error
        self.samples, self.calls = self.samples + count, self.calls + 1
        return said

    def receive(self, cpu_s: float, wall_s: float) -> Any:
        """One reply within so much CPU time, and so much wall time unless it is CPU time that it waits for."""
        try:
            if not self._messages.arrived(SOON_S):
                self._await_answer(cpu_s, wall_s)
            return json.loads(self._messages.take())
        except (Closed, psutil.NoSuchProcess):
            self._died()
        except (Garbled, ValueError, RecursionError) as error:  # it wrote into the pipe of its own accord
            raise Failed(f"the verifier's answer is garbled: {error}") from error

    def _await_answer(self, cpu_s: float, wall_s: float) -> None:
        started, used = monotonic(), self._cpu_s()
        wait_s = cpu_s
        while not self._messages.arrived(wait_s):
            if (left := cpu_s - (self._cpu_s() - used)) <= 0.01:
                raise TimedOut(f"more than {cpu_s:g} s of CPU time", computing=True)
            rest = started + wall_s - monotonic()
            if rest <= 0 and self._wants_cpu():
                rest = started + wall_s * STARVED / PATIENCE - monotonic()
            if rest <= 0:
                raise TimedOut(f"no answer in {wall_s:g} s, with {cpu_s - left:.2f} s of CPU time", computing=False)
            wait_s = min(left, rest, wall_s)

    def interrupt(self) -> None:
        self._process.kill()

    def close(self) -> None:
        """Let the verifiers close what they opened; then as `kill`."""
        self.pipe.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(CLOSE_S)
        self.kill()

    def kill(self) -> None:
        family = []
        with suppress(psutil.NoSuchProcess):
            family = self._looking.children(recursive=True)  # what the verifier started, and may not outlive it
        self._process.kill()
        self._process.wait()
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        self.pipe.close()
        self._said.close()

    def _cpu_s(self) -> float:
        times = self._looking.cpu_times()
        return times.user + times.system

    def _wants_cpu(self) -> bool:
        return self._looking.status() == psutil.STATUS_RUNNING

    def _died(self) -> NoReturn:
        try:
            code = self._process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            raise Failed("the verifier's process has closed its pipe, and goes on") from None
        self._said.seek(0)
        last = self._said.read().decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise Failed(f"the verifier's process ended with code {code}: {last[0]}")
