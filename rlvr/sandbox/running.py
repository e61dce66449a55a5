"""A job in its slot, from start to end: feeds it, reads it, kills it, and says how it ended by kernel and clocks alone.

    pipes and a socket pair --descriptors--> slot --> child
    stdin, request -->                              stdout, stderr, channel: capped, read while it runs
    CPU time, wall time, threads: looked at from outside; SIGKILL by pidfd

Knows limits and ends; nothing of right and wrong.
"""

import json
import os
import select
import signal
import socket
from collections.abc import Mapping
from contextlib import suppress
from time import clock_gettime, monotonic
from typing import Any

from rlvr.sandbox.job import Job, Relay, Result
from rlvr.sandbox.slot import START_S, Slot, SlotFailed
from rlvr.sandbox.wire import Frames, Garbled, frame

LOOK_S = 0.05  # how often the clocks are looked at
STARVED, STARVED_S = 5, 60.0  # wall time, as a multiple and at least, after which a job that gets no CPU is given up


class Run:
    """One job in one slot, from its start to its end."""

    def __init__(self, slot: Slot, job: Job):
        self.slot, self.limits = slot, job.limits
        self.messages: list[Any] = []
        self.out: dict[int, bytearray] = {}  # by descriptor
        self.end: str | None = None  # why we ended it
        self.garbled = False
        self.wait_status: dict[str, Any] | None = None
        self._frames, self._received = Frames(), 0
        self._pending: dict[int, memoryview] = {}
        self._hang_up = False
        self.own_s = self._cpu_s = 0.0
        self._threads = 0
        self.handle = -1  # of the child, once it is there
        self._open: set[int] = set()

    def start(self, job: Job) -> None:
        """SlotFailed when the slot is lost; `close` is due either way."""
        (stdin, self.stdin), (self.stdout, stdout), (self.stderr, stderr) = os.pipe(), os.pipe(), os.pipe()
        self.channel, channel = socket.socketpair()
        theirs = [stdin, stdout, stderr, channel.fileno()]
        limits = {
            "cpu_s": int(job.limits.cpu_s) + 2,
            "memory_bytes": job.limits.memory_mb << 20,
            "scratch_mb": job.limits.scratch_mb,
            "threads": job.limits.threads,
        }
        self.out = {self.stdout: bytearray(), self.stderr: bytearray()}
        self._open = {self.stdin, self.stdout, self.stderr, self.channel.fileno()}
        try:
            socket.send_fds(self.slot.control, [json.dumps(limits).encode()], theirs)
        except OSError as error:
            raise SlotFailed(f"the sandbox is gone: {error}") from error
        finally:
            for descriptor in theirs[:3]:
                os.close(descriptor)
            channel.close()
        _, handles = self.slot.receive(START_S)
        self.handle = handles[0]
        self.pid = pid_of(self.handle)
        self.began = monotonic()
        for descriptor in self._open:
            os.set_blocking(descriptor, False)
        self._pending = {self.stdin: memoryview(job.stdin)}
        self.send(job.request)

    def send(self, message: Any) -> None:
        channel = self.channel.fileno()
        if channel not in self._open:
            return  # it has closed its end, and will be judged by that
        left = self._pending.get(channel, memoryview(b""))
        self._pending[channel] = memoryview(bytes(left) + frame(message))

    def hang_up(self) -> None:
        """The child will find its channel at an end once everything has been sent."""
        self._hang_up = True
        channel = self.channel.fileno()
        if channel in self._open and channel not in self._pending:
            self._pending[channel] = memoryview(b"")

    # one turn of the loop ---------------------------------------------------------------------------------------------

    def interests(self) -> dict[int, int]:
        wanted = {descriptor: select.POLLIN for descriptor in self._open - {self.stdin}}
        for descriptor in set(self._pending) & self._open:
            wanted[descriptor] = wanted.get(descriptor, 0) | select.POLLOUT
        if self.wait_status is None:
            wanted[self.slot.control.fileno()] = select.POLLIN
        return wanted

    def turn(self, ready: Mapping[int, int]) -> list[Any]:
        """New messages of the child. Those that came before the news of its end are among them or among the next."""
        found: list[Any] = []
        for descriptor in list(self._open & set(ready)):
            events = ready[descriptor]
            if events & (select.POLLOUT | select.POLLERR) and descriptor in self._pending:
                self._write(descriptor)
            if events & (select.POLLIN | select.POLLHUP) and descriptor != self.stdin and descriptor in self._open:
                found += self._read(descriptor)
        if self.slot.control.fileno() in ready and self.wait_status is None:
            self.wait_status = self.slot.receive(0)[0]
        return found

    def _write(self, descriptor: int) -> None:
        data = self._pending[descriptor]
        try:
            data = data[os.write(descriptor, data) :] if data else data
        except BlockingIOError:
            return
        except OSError:  # it does not want to hear any more
            data = memoryview(b"")
        self._pending[descriptor] = data
        if not data:
            del self._pending[descriptor]
            if descriptor == self.stdin:
                self._close(descriptor)
            elif self._hang_up:
                self.channel.shutdown(socket.SHUT_WR)

    def _read(self, descriptor: int) -> list[Any]:
        try:
            data = os.read(descriptor, 1 << 16)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            self._close(descriptor)
            return []
        if descriptor in self.out:
            self.out[descriptor] += data
            if len(self.out[descriptor]) > self.limits.output_bytes:
                self.kill("output_limit")
            return []
        self._received += len(data)
        if self._received > self.limits.message_bytes:
            self.kill("output_limit")
        if self.garbled or self.end:
            return []
        try:
            return self._frames.feed(data)
        except Garbled:
            self.garbled = True  # read on, so that it can end by itself, and believe nothing
            return []

    def _close(self, descriptor: int) -> None:
        self._open.discard(descriptor)
        self._pending.pop(descriptor, None)
        if descriptor == self.channel.fileno():
            self.channel.close()
        else:
            os.close(descriptor)

    # clocks and the end -----------------------------------------------------------------------------------------------

    def look(self) -> tuple[bool, float]:
        """Whether it could run just now, if a CPU were free, and the CPU time it has used since the last look."""
        if self.wait_status is not None:
            return False, 0.0
        before, self._cpu_s = self._cpu_s, self._clock()
        states = [self._stat("stat")]
        if states[0][1] not in ("0", "1"):
            with suppress(OSError):
                states += [self._stat(f"task/{thread}/stat") for thread in os.listdir(f"/proc/{self.pid}/task")]
        self._threads = int(states[0][1])
        return any(state[0] == "R" for state in states), self._cpu_s - before

    def advance(self, own_s: float) -> None:
        """Time has passed for it; see `_pass_time`."""
        self.own_s += own_s
        if self.wait_status is not None or self.end:
            return
        if self._cpu_s > self.limits.cpu_s:
            self.kill("cpu_limit")
        elif self.own_s > self.limits.wall_s:
            self.kill("timeout")
        elif monotonic() - self.began > max(STARVED_S, STARVED * self.limits.wall_s):
            self.kill("starved")
        elif self._threads > self.limits.threads:
            self.kill("thread_limit")

    def _clock(self) -> float:
        """CPU time of all its threads, by the process's own clock."""
        with suppress(OSError):
            return clock_gettime((~self.pid << 3) | 2)
        return self._cpu_s

    def _stat(self, name: str) -> list[str]:
        """State and number of threads."""
        with suppress(OSError), open(f"/proc/{self.pid}/{name}") as file:
            fields = file.read().rpartition(")")[2].split()
            return [fields[0], fields[17]]
        return ["gone", "0"]

    def kill(self, why: str) -> None:
        self.end = self.end or why
        try:
            signal.pidfd_send_signal(self.handle, signal.SIGKILL)
        except ProcessLookupError:
            return
        except PermissionError:
            self.slot.control.send(b'{"kill": 1}')

    @property
    def done(self) -> bool:
        """The kernel has said how it ended, and all that it wrote has been read."""
        return self.wait_status is not None and not self._open & {self.stdout, self.stderr, self.channel.fileno()}

    def result(self) -> Result:
        assert self.wait_status is not None
        cpu_s = self.wait_status["cpu_s"]
        code = os.waitstatus_to_exitcode(self.wait_status["ended"])
        end = self.end or ("ok" if code == 0 else "nonzero_exit" if code > 0 else f"signal_{signal_name(-code)}")
        if end in ("ok", "nonzero_exit", "signal_SIGXCPU", "signal_SIGKILL") and cpu_s > self.limits.cpu_s:
            end = "cpu_limit"
        return Result(
            end=end,
            exit_code=code if code >= 0 else None,
            stdout=bytes(self.out[self.stdout][: self.limits.output_bytes]),
            stderr=bytes(self.out[self.stderr][: self.limits.output_bytes]),
            messages=tuple(self.messages),
            garbled=self.garbled,
            cpu_s=cpu_s,
            own_s=max(self.own_s, cpu_s),
            wall_s=monotonic() - self.began,
            memory_mb=self.wait_status["memory_kb"] / 1024,
            level=self.slot.level,
        )

    def close(self) -> None:
        for descriptor in list(self._open):
            self._close(descriptor)
        if self.handle >= 0:
            os.close(self.handle)
        self.slot.jobs += 1


def run_together(slots: list[Slot], jobs: list[Job], relay: Relay) -> list[Result]:
    """Each job in its slot, at the same time; SlotFailed when a slot is lost."""
    runs: list[Run] = []
    try:
        for slot, job in zip(slots, jobs, strict=True):
            runs.append(Run(slot, job))
            runs[-1].start(job)
        looked, waited_s = monotonic(), 0.0
        while not all(run.done for run in runs):
            waited_s += _turn(runs, relay)
            if (passed_s := monotonic() - looked) >= LOOK_S:
                _pass_time(runs, passed_s, waited_s)
                looked, waited_s = looked + passed_s, 0.0
        return [run.result() for run in runs]
    finally:
        for run in runs:
            run.close()


def _turn(runs: list[Run], relay: Relay) -> float:
    """Seconds that it waited for them: the rest is our own work."""
    poll = select.poll()
    for run in runs:
        if not run.done:
            for descriptor, events in run.interests().items():
                poll.register(descriptor, events)
    began = monotonic()
    ready = dict(poll.poll(LOOK_S * 1000))
    waited_s = monotonic() - began
    for number, run in enumerate(runs):
        was_done = run.done
        for message in [] if was_done else run.turn(ready):
            run.messages.append(message)
            for to, reply in relay(number, message):
                runs[to].hang_up() if reply is None else runs[to].send(reply)
        if run.done and not was_done:
            for to, reply in relay(number, None):
                runs[to].hang_up() if reply is None else runs[to].send(reply)
    return waited_s


def _pass_time(runs: list[Run], passed_s: float, waited_s: float) -> None:
    """The wall clock runs while all of them sleep and we wait for them, not while they wait for us. While one could
    run, only the CPU time that it gets counts: a busy machine is not its fault, nor that of one that waits for it."""
    looks = [run.look() for run in runs]
    used_s = sum(cpu_s for _, cpu_s in looks)
    own_s = min(used_s, passed_s) if any(could_run for could_run, _ in looks) else min(waited_s, 4 * LOOK_S)
    for run in runs:
        run.advance(own_s)


def pid_of(handle: int) -> int:
    """The process that a pidfd stands for, as this process would call it."""
    with open(f"/proc/self/fdinfo/{handle}") as file:
        return next((int(line.split()[1]) for line in file if line.startswith("Pid:")), -1)


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
