"""What a slot really protects: canaries try to get out, and the level is what they could not do. Assumes no layer.

    one job tries everything a program should not be able to do and says what worked
    one spins, one allocates without end, one is honest
"""

import json
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rlvr.sandbox.job import Job, Level, Limits
from rlvr.sandbox.running import run_together
from rlvr.sandbox.slot import Slot

CANARY = b"canary"
ATTEMPTS = """
import ctypes, json, os, socket
files, port, name = {files!r}, {port!r}, {name!r}
done = []

def attempt(what, act):
    try:
        if act():
            done.append(what)
    except Exception:
        pass

def write(path):
    with open(path, "r+b") as file:
        file.write(b"changed")
    return True

def memory(pid):
    here = ctypes.create_string_buffer(8)
    local = (ctypes.c_ulong * 2)(ctypes.addressof(here), 8)
    remote = (ctypes.c_ulong * 2)(id(memory), 8)
    call = {{"x86_64": 310, "aarch64": 270}}[os.uname().machine]
    return ctypes.CDLL(None).syscall(call, pid, local, 1, remote, 1, 0) == 8

def connect(family, address):
    with socket.socket(family) as to:
        to.settimeout(1)
        to.connect(address)
    return True

def fork():
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    return True

def execute():
    return os.spawnv(os.P_WAIT, "/bin/true", ["true"]) == 0

parent = os.getppid()
attempt("read", lambda: open(files[0], "rb").read())
attempt("write", lambda: write(files[0]))
attempt("see files", lambda: os.stat(files[0]))
attempt("see processes", lambda: parent != 1)
attempt("connect", lambda: connect(socket.AF_INET, ("127.0.0.1", port)))
attempt("connect by name", lambda: connect(socket.AF_UNIX, chr(0) + name))
attempt("connect by path", lambda: connect(socket.AF_UNIX, files[1]))
attempt("signal", lambda: os.kill(parent, 0) is None)
attempt("parent's memory", lambda: memory(parent) or open("/proc/%d/mem" % parent, "rb"))
attempt("fork", fork)
attempt("execute", execute)
print(json.dumps(done))
"""
CLOSED = {"connect", "connect by name", "connect by path", "signal", "parent's memory", "fork", "execute"}
FILES = {"read", "write"}
VIEWS = {"see files", "see processes"}


@dataclass(frozen=True)
class Observed:
    """What the canaries managed to do (`got`) and which of the limits did not hold (`broken`)."""

    got: frozenset[str]
    broken: frozenset[str]

    @property
    def level(self) -> Level:
        if self.broken:
            return Level.BROKEN
        if self.got & CLOSED:
            return Level.LIMITED
        if self.got & FILES:
            return Level.FILTERED
        return Level.CONFINED if self.got & VIEWS else Level.ISOLATED


def observe(slot: Slot) -> Observed:
    with _baits() as (files, port, name):
        script = ATTEMPTS.format(files=files, port=port, name=name)
        attempts = _run(slot, script, Limits(cpu_s=5.0))
        with open(files[0], "rb") as file:
            changed = file.read() != CANARY
    try:
        got = frozenset(json.loads(attempts.stdout)) if attempts.ok else CLOSED | FILES
    except ValueError:
        got = CLOSED | FILES
    spin = _run(slot, "while True: pass", Limits(cpu_s=0.1, wall_factor=100))
    allocate = _run(slot, "bytearray(1 << 29)", Limits(cpu_s=5.0, memory_mb=128))
    flood = _run(slot, "while True: print('x' * 4096)", Limits(cpu_s=5.0, output_bytes=1 << 16))
    honest = _run(slot, "a, b = map(int, input().split()); print(a + b)", Limits(cpu_s=5.0))
    limits = {
        "CPU time": spin.end == "cpu_limit",
        "memory": b"MemoryError" in allocate.stderr,
        "output": flood.end == "output_limit",
        "an honest program": honest.ok and honest.stdout == b"3\n",
    }
    broken = frozenset(name for name, held in limits.items() if not held)
    return Observed(frozenset(got) | ({"write"} if changed else frozenset()), broken)


def _run(slot: Slot, program: str, limits: Limits):
    job = Job({"mode": "script", "program": program}, b"1 2\n", limits)
    return run_together([slot], [job], lambda who, message: [])[0]


@contextmanager
def _baits() -> Iterator[tuple[list[str], int, str]]:
    """A file that all the world may read and write, and sockets that all the world may connect to."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as tcp, _unix() as named, _unix() as pathed:
        os.chmod(folder, 0o755)
        canary, path = os.path.join(folder, "canary"), os.path.join(folder, "socket")
        with open(canary, "wb") as file:
            file.write(CANARY)
        os.chmod(canary, 0o666)
        name = f"rlvr-canary-{os.getpid()}-{id(folder)}"
        named.bind(f"\0{name}")
        pathed.bind(path)
        os.chmod(path, 0o777)
        tcp.bind(("127.0.0.1", 0))
        for listening in (tcp, named, pathed):
            listening.listen(4)
        yield [canary, path], tcp.getsockname()[1], name


def _unix() -> socket.socket:
    return socket.socket(socket.AF_UNIX)
