"""The process in which verifiers run: `python -m rlvr.verify.worker FD`. It may be killed at any moment.

    parent --pickle: [(part, verifier, params), ...]--> loaded once, at the start
    parent --pickle: (part, [sample, ...])------------> one JSON answer for each sample, as soon as it is there

Answers are JSON, not pickle: whatever a completion does to a verifier, it cannot run code in the parent.
"""

import ctypes
import json
import os
import resource
import signal
import sys
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import Any

from rlvr.types import Outcome, Provenance, Verdict
from rlvr.verify.plugin import Sample, Verifier, load

PR_SET_PDEATHSIG = 1


def encode(verdict: Verdict) -> bytes:
    return json.dumps({"verdict": asdict(verdict)}).encode()


def decode(verdict: dict[str, Any]) -> Verdict:
    provenance = tuple(Provenance(**record) for record in verdict["provenance"])
    steps = tuple((start, end, value) for start, end, value in verdict["step_rewards"])
    outcome = Outcome(verdict["outcome"])
    return Verdict(**verdict | {"outcome": outcome, "provenance": provenance, "step_rewards": steps})


def answer(verifier: Verifier, sample: Sample, params: dict[str, Any]) -> bytes:
    """The verdict; what the completion exhausts is the completion's fault, any other exception the verifier's."""
    limit_memory(verifier.memory_gib)
    try:
        return encode(verifier(sample, **params))
    except MemoryError:
        return encode(refused(verifier, "too_much_memory", f"more than {verifier.memory_gib} GiB"))
    except RecursionError:
        return encode(refused(verifier, "too_deep", "the answer is nested too deeply"))
    except Exception as error:
        return json.dumps({"error": f"{type(error).__name__}: {error}"}).encode()


def refused(verifier: Verifier, reason: str, detail: str) -> Verdict:
    where = Provenance(verifier.name, verifier.version)
    return Verdict(0.0, Outcome.REJECTED, reason=reason, detail=detail, provenance=(where,))


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


def main() -> None:
    pipe, parent = Connection(int(sys.argv[1])), int(sys.argv[2])
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    try:
        parts = {part: (load(reference), params) for part, reference, params in pipe.recv()}
        for verifier, _ in parts.values():
            if verifier.setup is not None:
                verifier.setup()
        pipe.send_bytes(json.dumps({"ready": True}).encode())
        while True:
            part, samples = pipe.recv()
            for sample in samples:
                pipe.send_bytes(answer(parts[part][0], sample, parts[part][1]))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent has closed its end: nobody asks any more


if __name__ == "__main__":
    main()
