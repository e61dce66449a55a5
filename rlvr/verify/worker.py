"""The process in which verifiers run: `main()` with the arguments FD and PARENT. It may be killed at any moment.

    parent --pickle: (reference, options of its setup)-------> loaded once; {"ready": true}
    parent --pickle: (reference, options, [[sample, ...]], n, limit_s)
                                                             -> {"to": n, "said": [entry, ...]}, one for each call

Answers are JSON, not pickle: whatever a completion does to a verifier, it cannot run code in the parent.
"""

import asyncio
import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

from rlvr.types import Outcome, Provenance, Record, Verdict
from rlvr.verify.call import Entry, Failure, entries
from rlvr.verify.discover import load
from rlvr.verify.plugin import Sample, Verifier

PR_SET_PDEATHSIG = 1


def encode(to: int, said: Sequence[Entry]) -> bytes:
    records = [{"error": e.said, "late": e.late} if isinstance(e, Failure) else e for e in said]
    return RECORDS.encode({"to": to, "said": records}).encode()


def fields_of(record: Any) -> dict[str, Any]:
    """`dataclasses.asdict` copies everything within as well, and took longer than most verifiers."""
    if not isinstance(record, Record):
        raise TypeError(f"a verdict holds a {type(record).__name__}, which JSON cannot")
    return {name: getattr(record, name) for name in record.__match_args__}


RECORDS = json.JSONEncoder(default=fields_of)


def decode(reply: Any, to: int, count: int) -> list[Entry]:
    """ValueError, TypeError or KeyError when it is anything but `count` entries, in answer to call `to`."""
    if reply["to"] != to or len(reply["said"]) != count:
        raise ValueError(f"expected {count} in answer to call {to}")
    return [_entry(record) for record in reply["said"]]


def _entry(record: dict[str, Any]) -> Entry:
    if "error" in record:
        return Failure(str(record["error"]), bool(record["late"]))
    provenance = tuple(Provenance(**where) for where in record["provenance"])
    steps = tuple((start, end, value) for start, end, value in record["step_rewards"])
    return Verdict(
        **record | {"outcome": Outcome(record["outcome"]), "provenance": provenance, "step_rewards": steps}
    )


def limit_memory(gib: float | None) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = hard if gib is None else int(gib * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def die_with_parent(parent: int) -> None:
    """A verifier that computes for ever must not outlive a killed run."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the parent is gone")


class Worker:
    """What the process holds between two messages."""

    def __init__(self, pipe: Connection):
        self.pipe, self.runner = pipe, asyncio.Runner()
        self.loaded: dict[str, Verifier] = {}

    def load(self, reference: str, options: dict[str, Any]) -> None:
        limit_memory(None)
        try:
            verifier = self.loaded[reference] = load(reference)
            if verifier.setup is not None:
                verifier.setup(**options)
            reply: dict[str, Any] = {"ready": True}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        self.pipe.send_bytes(json.dumps(reply).encode())

    def ask(self, reference: str, params: dict[str, Any], calls: list[list[Sample]], to: int, limit_s: float) -> None:
        verifier = replace(self.loaded[reference], timeout_s=limit_s)
        limit_memory(None if verifier.isolation == "sandbox" else verifier.memory_gib)
        for n, samples in enumerate(calls, to):
            self.pipe.send_bytes(encode(n, entries(verifier, samples, params, self.runner)))

    def close(self) -> None:
        for verifier in self.loaded.values():
            if verifier.close is not None:
                verifier.close()
        self.runner.close()


def main() -> None:
    pipe, parent = Connection(int(sys.argv[1])), int(sys.argv[2])
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    worker = Worker(pipe)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent's end is closed: nobody asks any more
        while True:
            message = pipe.recv()
            if len(message) == 2:
                worker.load(*message)
            else:
                worker.ask(*message)
    worker.close()
