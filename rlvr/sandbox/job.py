"""What is run and how it ended: Job, Limits, Result, Level. Records only.

`Runner` is the seam for other places to run things: a remote service, or a slot for a compiled language.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol

MOST_CPU_S = 1_000_000
MOST_MEMORY_MB = 1 << 24


class Level(IntEnum):
    """What the canaries of a slot observed; see docs/sandbox.md. Each protects more than the one below it."""

    BROKEN = 0  # not even limits hold, or an honest program fails
    LIMITED = 1  # CPU, memory and output are limited; nothing else is
    FILTERED = 2  # and no network, no other processes, no children; files can be read
    CONFINED = 3  # and no files but the standard library
    ISOLATED = 4  # and private views of files, processes and network

    def __str__(self) -> str:
        return self.name.lower()


class Refused(RuntimeError):
    """This machine cannot protect itself as far as was asked; one line for the user."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one job. CPU time decides; wall time is there for programs that sleep.

    Limits(cpu_s=2.0, memory_mb=1024)
    """

    cpu_s: float = 2.0
    wall_factor: float = 3.0  # wall time allowed, as a multiple of cpu_s; time spent waiting for a CPU does not count
    memory_mb: int = 1024  # address space beyond the interpreter's own
    output_bytes: int = 1 << 20  # of stdout and of stderr, each
    message_bytes: int = 8 << 20  # of all that it sends besides
    scratch_mb: int = 64  # of /tmp, where there is a private one
    threads: int = 64

    def __post_init__(self) -> None:
        if not 0 < self.cpu_s <= MOST_CPU_S:
            raise ValueError(f"cpu_s={self.cpu_s}: CPU seconds, above 0 and at most {MOST_CPU_S}")
        if not 1 <= self.memory_mb <= MOST_MEMORY_MB:
            raise ValueError(f"memory_mb={self.memory_mb}: from 1 to {MOST_MEMORY_MB}")

    @property
    def wall_s(self) -> float:
        return self.cpu_s * self.wall_factor


@dataclass(frozen=True, slots=True)
class Job:
    """A request to the child (see child.py for the modes), its standard input, its limits.

    Job({"mode": "script", "program": "print(int(input()) + 1)"}, stdin=b"2\\n")
    """

    request: Mapping[str, Any]
    stdin: bytes = b""
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Result:
    """`end` is what the kernel and our own clocks say, never what the program says. Messages are its claims.

    end: ok, nonzero_exit, signal_SIG..., cpu_limit, timeout, output_limit, thread_limit: the program did that.
         starved, machinery: this machine did; no verdict may rest on it.
    """

    end: str
    exit_code: int | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    messages: tuple[Any, ...] = ()  # what it sent, as checked JSON
    garbled: bool = False  # it sent something that no honest child sends
    cpu_s: float = 0.0
    own_s: float = 0.0  # wall time, less the time it waited for a CPU
    wall_s: float = 0.0
    memory_mb: float = 0.0  # largest resident size
    level: Level = Level.BROKEN
    detail: str = ""

    @property
    def ok(self) -> bool:
        """A clean end; whether the answers are right is another question."""
        return self.end == "ok" and not self.garbled

    @property
    def machine_failed(self) -> bool:
        return self.end in ("starved", "machinery")


Relay = Callable[[int, Any], list[tuple[int, Any]]]  # (who, message) -> [(to whom, message or None to hang up)]


class Runner(Protocol):
    """Something that runs jobs: our Sandbox, an adapter to a remote service, a sandbox for another language."""

    level: Level

    def run(self, job: Job) -> Result: ...

    def run_together(self, jobs: list[Job], relay: Relay) -> list[Result]:
        """Several jobs at a time that may talk to each other, but only through `relay`, here outside."""
        ...

    def close(self) -> None: ...
