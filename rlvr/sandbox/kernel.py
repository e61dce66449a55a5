"""The system calls that Python has no function for, by ctypes. Mechanisms only: who uses them when is elsewhere.

A call that the kernel refuses raises OSError with the call's name.
"""

import ctypes
import os
import struct

from rlvr.sandbox.syscalls import LANDLOCK_ADD, LANDLOCK_CREATE, LANDLOCK_RESTRICT, architecture

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 24, 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
SECCOMP_MODE_FILTER = 2

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_NOATIME = 1, 2, 4, 8, 32, 1024
MS_NODIRATIME, MS_BIND, MS_REC, MS_PRIVATE, MS_RELATIME = 2048, 4096, 16384, 1 << 18, 1 << 21
MNT_DETACH = 2

# Landlock: rights over files, then version by version those that came later
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
TRUNCATE = 1 << 14
FILE_RIGHTS = {1: (1 << 13) - 1, 2: 1 << 13, 3: TRUNCATE, 5: 1 << 15}
NET_RIGHTS = 3  # bind and connect over TCP, from version 4
SCOPES = 3  # abstract unix sockets and signals, from version 6

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _checked(name: str, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def _syscall(name: str, number: int, *arguments: object) -> int:
    longs = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _checked(name, _libc.syscall(ctypes.c_long(number), *longs))


def prctl(name: str, option: int, *arguments: int) -> None:
    rest = [ctypes.c_ulong(a) for a in (*arguments, 0, 0, 0, 0)[:4]]
    _checked(name, _libc.prctl(ctypes.c_int(option), *rest))


def unshare(flags: int) -> None:
    _checked("unshare", _libc.unshare(ctypes.c_int(flags)))


def mount(source: str | None, target: str, kind: str | None, flags: int, options: str = "") -> None:
    names = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    done = _libc.mount(*names, ctypes.c_ulong(flags), options.encode() if options else None)
    _checked(f"mount {target}", done)


def unmount(target: str) -> None:
    _checked(f"umount {target}", _libc.umount2(os.fsencode(target), ctypes.c_int(MNT_DETACH)))


def pivot_root(new: str, old: str) -> None:
    arch = architecture()
    assert arch is not None, "namespaces are only entered on a known architecture"
    _syscall("pivot_root", arch.pivot_root, os.fsencode(new), os.fsencode(old))


def sethostname(name: bytes) -> None:
    _checked("sethostname", _libc.sethostname(name, ctypes.c_size_t(len(name))))


def drop_capabilities() -> None:
    """From the effective, permitted and inheritable sets of this thread."""
    arch = architecture()
    if arch is None:
        raise OSError("capset: no system call table for this architecture")
    header = ctypes.create_string_buffer(struct.pack("=Ii", 0x20080522, 0))
    _syscall("capset", arch.capset, header, ctypes.create_string_buffer(24))


def drop_bounding_set() -> None:
    for capability in range(64):
        if _libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) < 0:
            return  # past the last one, or not permitted: then there is nothing to regain either


def install_filter(program: bytes) -> None:
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    holder = ctypes.create_string_buffer(header, len(header))
    prctl("seccomp", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(holder))


def landlock_version() -> int:
    """0 where the kernel has none."""
    version = _libc.syscall(ctypes.c_long(LANDLOCK_CREATE), None, ctypes.c_long(0), ctypes.c_long(1))
    return max(0, version)


def landlock_file_rights(version: int) -> int:
    return sum(bits for since, bits in FILE_RIGHTS.items() if since <= version)


def landlock_ruleset(version: int) -> int:
    """A descriptor of an empty ruleset that forbids everything this kernel's Landlock can forbid."""
    content = struct.pack("=Q", landlock_file_rights(version))
    if version >= 4:
        content += struct.pack("=Q", NET_RIGHTS)
    if version >= 6:
        content += struct.pack("=Q", SCOPES)
    attributes = ctypes.create_string_buffer(content, len(content))
    return _syscall("landlock_create_ruleset", LANDLOCK_CREATE, attributes, len(content), 0)


def landlock_allow(ruleset: int, beneath: int, rights: int) -> None:
    """`rights` over what the open file or folder `beneath` is or holds."""
    rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, beneath), 12)
    _syscall("landlock_add_rule", LANDLOCK_ADD, ruleset, 1, rule, 0)


def landlock_restrict(ruleset: int) -> None:
    _syscall("landlock_restrict_self", LANDLOCK_RESTRICT, ruleset, 0)
