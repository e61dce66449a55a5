"""A BPF program that lets a process make the listed system calls and no others. Pure: bytes out, nothing installed.

    foreign architecture, x32 numbers        -> the process dies
    calls that are only safe some ways       -> their arguments are looked at
    listed calls                             -> allowed
    everything else                          -> EPERM (clone3: ENOSYS, so that libc falls back to clone)
"""

import struct
from collections.abc import Iterable
from errno import ENOSYS, EPERM

from rlvr.sandbox.syscalls import METADATA, TRUNCATING, Architecture

LOAD, JUMP_EQUAL, JUMP_GREATER_EQUAL, AND, RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
ALLOW, ERRNO, KILL = 0x7FFF0000, 0x00050000, 0x80000000
NUMBER, ARCHITECTURE = 0, 4  # offsets in struct seccomp_data; the arguments follow at 16, low word first
X32 = 0x40000000

THREAD = 0x00010000 | 0x00000100 | 0x00000800 | 0x00000200 | 0x00000400  # CLONE_THREAD, VM, SIGHAND, FS, FILES
NAMESPACES = 0x7E020080  # every CLONE_NEW*
FCNTL = (0, 1, 2, 3, 4, 5, 6, 7, 1030, 1032)  # dup, flags, locks, pipe size; no F_SETOWN, F_SETSIG, F_SETLEASE
IOCTL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # is it a terminal, how much is there, FIONBIO, FIOCLEX
PRCTL = (3, 15, 16)  # dumpable?, the thread's name
AF_UNIX, SOCK_STREAM = 1, 1
O_TRUNC = 0o1000
OWN_PID = 0x5EC0DE  # stands for the process's own id until `for_process` knows it

Instruction = tuple[int, int, int, int]


def _load(argument: int, high: bool = False) -> Instruction:
    return (LOAD, 0, 0, 16 + 8 * argument + 4 * high)


def _one_of(argument: int, values: Iterable[int]) -> list[Instruction]:
    tests = [step for value in values for step in ((JUMP_EQUAL, 0, 1, value), (RETURN, 0, 0, ALLOW))]
    return [_load(argument), *tests, (RETURN, 0, 0, ERRNO | EPERM)]


def _masked(argument: int, mask: int, value: int) -> list[Instruction]:
    return [_load(argument), (AND, 0, 0, mask), *_one_of(0, [value])[1:]]


def _conditions(arch: Architecture, truncation_governed: bool) -> dict[str, list[Instruction]]:
    null_address = [_load(4, high=True), (JUMP_EQUAL, 1, 0, 0), (RETURN, 0, 0, ERRNO | EPERM), *_one_of(4, [0])]
    stream = [_load(0), (JUMP_EQUAL, 1, 0, AF_UNIX), (RETURN, 0, 0, ERRNO | EPERM), *_masked(1, 0xF, SOCK_STREAM)]
    found = {
        "clone": _masked(0, THREAD | NAMESPACES, THREAD),
        "clone3": [(RETURN, 0, 0, ERRNO | ENOSYS)],
        "kill": _one_of(0, [OWN_PID]),
        "tgkill": _one_of(0, [OWN_PID]),
        "prlimit64": _one_of(0, [0, OWN_PID]),
        "fcntl": _one_of(1, FCNTL),
        "ioctl": _one_of(1, IOCTL),
        "prctl": _one_of(0, PRCTL),
        "socketpair": stream,
        "sendto": null_address,  # a connected pair only: an address would reach other sockets
    }
    if not truncation_governed:
        found |= {"open": _masked(1, O_TRUNC, 0), "openat": _masked(2, O_TRUNC, 0)}
    return {name: block for name, block in found.items() if name in arch.allowed}


def program(arch: Architecture, own_files: bool, truncation_governed: bool) -> bytes:
    """`own_files`: every writable file is the job's own. `truncation_governed`: by Landlock, or because of that."""
    refused = (frozenset() if own_files else METADATA) | (frozenset() if truncation_governed else TRUNCATING)
    conditions = _conditions(arch, truncation_governed)
    code: list[Instruction] = [
        (LOAD, 0, 0, ARCHITECTURE),
        (JUMP_EQUAL, 1, 0, arch.audit),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER),
        (JUMP_GREATER_EQUAL, 0, 1, X32),
        (RETURN, 0, 0, KILL),
    ]
    for name, number in arch.allowed.items():
        block = conditions.get(name, [(RETURN, 0, 0, ALLOW)])
        if name not in refused:
            code += [(JUMP_EQUAL, 0, len(block), number), *block]
    code.append((RETURN, 0, 0, ERRNO | EPERM))
    return b"".join(struct.pack("=HBBI", *step) for step in code)


def for_process(program: bytes, pid: int) -> bytes:
    """The program with the process's own id in place: it may signal nobody else."""
    return program.replace(struct.pack("=I", OWN_PID), struct.pack("=I", pid))
