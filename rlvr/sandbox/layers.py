"""The layers around a slot and around each of its children: which system calls, in which order. Decides no policy.

    once a slot, `enter_namespaces`:  user, mount, pid, net, ipc, uts; a new root that holds the interpreter, read-only
    once a slot, `Lock(...)`:         what a child will be left with: filter, Landlock rules, user id
    each child,  `Lock.apply`:        session, limits, user id, capabilities, Landlock, seccomp: in this order

A layer that the kernel does not offer is left out, and said so; what the whole is worth, the canaries find out.
"""

import os
import resource
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass

from rlvr.sandbox import kernel, seccomp
from rlvr.sandbox.syscalls import architecture

SCRATCH = "/tmp"
PACKAGES = "/packages"  # in a root of our own: an environment may lie where a program sees something else
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
FILES = ("/etc/ld.so.cache", "/usr/share/zoneinfo")
SITES = ("site-packages", "dist-packages")
INSIDE_UID = 1000
NAMESPACES = (
    kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS | kernel.CLONE_NEWPID
    | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
)  # fmt: skip


def outside_uid() -> int:
    """A user id that nobody has, one for each slot: the kernel counts threads by user."""
    return 60_000 + os.getpid() % 5_000


def standard_library() -> str:
    return os.path.dirname(os.path.realpath(os.__file__))


def library_folders() -> list[str]:
    """Where the shared libraries of this process are. Not the interpreter's own lib/, which holds everything else."""
    folders = set()
    with open("/proc/self/maps") as maps:
        for line in maps:
            path = line.rstrip("\n").partition("/")[2]
            if ".so" in path:
                folders.add(os.path.dirname("/" + path))
    return sorted(f for f in folders if os.path.isdir(f) and not standard_library().startswith(f))


def readable(packages: list[str]) -> list[str]:
    """What a program may read: the standard library without installed packages, shared libraries, `packages`."""
    library = standard_library()
    inside = [os.path.join(library, name) for name in os.listdir(library) if name not in SITES]
    return [*inside, *library_folders(), *filter(os.path.exists, FILES), *packages]


# namespaces ----------------------------------------------------------------------------------------------------------


def inside(packages: list[str]) -> list[str]:
    """Where `packages` are in the new root."""
    return [f"{PACKAGES}/{os.path.basename(package)}" for package in packages]


def enter_namespaces(packages: list[str]) -> int:
    """Returns in process 1 of new namespaces, with a new root. The process that called stays outside and waits.

    The value is a descriptor of its statm, since there will be no /proc. OSError when the kernel refuses; the process
    is then of no further use.
    """
    uid, gid = os.getuid(), os.getgid()
    library, sources = standard_library(), [*library_folders(), *filter(os.path.exists, FILES)]
    _unshare(uid, gid)
    if inner := os.fork():
        _wait_outside(inner)
    kernel.prctl("die with parent", kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    kernel.sethostname(b"sandbox")
    size = os.open("/proc/self/statm", os.O_RDONLY)
    _new_root(library, sources, packages)
    return size


def _unshare(uid: int, gid: int) -> None:
    """Root maps a second, unused id for the children. That takes a process outside of the new user namespace."""
    if uid:
        kernel.unshare(NAMESPACES)
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{INSIDE_UID} {uid} 1\n")
        _write("/proc/self/gid_map", f"{INSIDE_UID} {gid} 1\n")
        return
    target, (hear, say), (told, tell) = os.getpid(), os.pipe(), os.pipe()
    if helper := os.fork():
        kernel.unshare(NAMESPACES)
        os.write(say, b"x")
        os.close(tell)
        done = os.read(told, 1)
        os.waitpid(helper, 0)
        if not done:
            raise PermissionError("uid_map: may not be written")
    else:
        os.close(say)
        try:
            if os.read(hear, 1):
                _map_two(target, gid)
                os.write(tell, b"x")
        finally:
            os._exit(0)
    for descriptor in (hear, say, told):
        os.close(descriptor)


def _map_two(target: int, gid: int) -> None:
    """Root and one more; root alone where this machine's root has no other ids to give."""
    more = f"{INSIDE_UID} {outside_uid()} 1\n"
    for extra in (more, ""):
        try:
            _write(f"/proc/{target}/uid_map", f"0 0 1\n{extra}")
            _write(f"/proc/{target}/gid_map", f"0 {gid} 1\n{extra}")
            return
        except PermissionError:
            if not extra:
                raise


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _wait_outside(inner: int) -> None:
    os.closerange(3, 1 << 16)
    _, status = os.waitpid(inner, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _new_root(library: str, sources: list[str], packages: list[str]) -> None:
    """A tmpfs with read-only views of what the interpreter needs, an empty scratch folder and a few devices."""
    if library.startswith(SCRATCH + "/"):
        raise OSError(f"the interpreter is in {SCRATCH}, which a program gets empty")
    sources = [s for s in sources if not s.startswith(SCRATCH + "/")]
    everything = [library, *sources, *packages]
    candidates = ("/mnt", "/srv", "/media", "/opt", "/run", "/var", "/home", SCRATCH, "/usr")
    free = [c for c in candidates if os.path.isdir(c) and not any(s.startswith(c + "/") for s in everything)]
    if not free:
        raise OSError("no folder to mount the new root on")
    root = free[0]
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("tmpfs", root, "tmpfs", kernel.MS_NOSUID, "size=4m,mode=755")
    for name in ("/lib", "/lib64"):
        if os.path.islink(name):
            os.symlink(os.readlink(name), root + name)
    _bind(library, root)
    for site in SITES:
        if os.path.isdir(hidden := f"{root}{library}/{site}"):
            kernel.mount("tmpfs", hidden, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=1m,mode=755")
    for source in sources:
        if not source.startswith(library + "/") or any(site in source for site in SITES):
            _bind(source, root)
    for source, target in zip(packages, inside(packages), strict=True):
        _bind(source, root, target)
    for device in filter(os.path.exists, DEVICES):
        _bind(device, root, writable=True)
    os.makedirs(root + SCRATCH, exist_ok=True)
    os.chdir(root)
    kernel.pivot_root(".", ".")
    kernel.unmount(".")
    os.chdir("/")
    kernel.mount(None, "/", None, kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | kernel.MS_NOSUID)


def _bind(source: str, root: str, place: str = "", writable: bool = False) -> None:
    target = root + (place or source)
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "a"):
            pass
    kernel.mount(source, target, None, kernel.MS_BIND | kernel.MS_REC)
    if not writable:
        # flags that the outer mount has may not be taken away
        has = os.statvfs(target).f_flag
        keep = has & (kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC | kernel.MS_NOATIME | kernel.MS_NODIRATIME)
        if has & 4096:  # ST_RELATIME
            keep |= kernel.MS_RELATIME
        flags = kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV
        kernel.mount(None, target, None, flags | keep)


def fresh_scratch(megabytes: int) -> None:
    options = f"size={megabytes}m,nr_inodes=4096,mode=1777"
    kernel.mount("tmpfs", SCRATCH, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, options)


# the lock on each child ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ChildLimits:
    """As the child's rlimits have them."""

    cpu_s: int
    address_space: int
    file_bytes: int
    threads: int


class Lock:
    """Prepared once a slot; `apply` makes a child of it what it is allowed to be. `without`: layers to leave out."""

    def __init__(self, private: bool, packages: list[str], without: frozenset[str]):
        self.private = private
        self.said: dict[str, str] = {}
        self._uid = self._find_uid(private, without)
        self._rules: list[tuple[int, int]] = []
        self._landlock = 0
        if "landlock" in without:
            self.said["landlock"] = "left out"
        else:
            self._prepare_landlock(packages)
        self._filter = self._prepare_filter(without)
        self._no_dump = "dumpable" not in without

    def _find_uid(self, private: bool, without: frozenset[str]) -> int | None:
        """The children's own user id, or none: not root, or nobody else may read the interpreter."""
        if os.getuid() != 0 or "uid" in without:
            self.said["uid"] = "left out" if "uid" in without else "the user's own"
            return None
        uid = INSIDE_UID if private else outside_uid()
        pid = os.fork()
        if not pid:
            try:
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
                os.listdir(standard_library())
                os._exit(0)
            finally:
                os._exit(1)
        possible = os.waitpid(pid, 0)[1] == 0
        self.said["uid"] = f"{uid}" if possible else "the user's own: other users cannot read the interpreter"
        return uid if possible else None

    def _prepare_landlock(self, packages: list[str]) -> None:
        self._landlock = kernel.landlock_version()
        if not self._landlock:
            self.said["landlock"] = "the kernel has none"
            return
        read = kernel.READ_FILE | kernel.READ_DIR
        paths = ["/"] if self.private else readable(packages)
        writable = kernel.WRITE_FILE | (kernel.TRUNCATE if self._landlock >= 3 else 0)
        for path, rights in [*((p, read) for p in paths), *((d, kernel.READ_FILE | writable) for d in DEVICES)]:
            with suppress(FileNotFoundError):
                handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
                self._rules.append((handle, rights if os.path.isdir(path) else rights & ~kernel.READ_DIR))
        self.said["landlock"] = f"version {self._landlock}"

    def _prepare_filter(self, without: frozenset[str]) -> bytes | None:
        arch = architecture()
        if arch is None or "seccomp" in without:
            self.said["seccomp"] = "left out" if arch else f"no system call table for {os.uname().machine}"
            return None
        self.said["seccomp"] = arch.name
        return seccomp.program(arch, self.private, self.private or self._landlock >= 3)

    def ruleset(self) -> int | None:
        """Landlock rules for one child; made anew because its scratch folder is."""
        if not self._landlock:
            return None
        rules = kernel.landlock_ruleset(self._landlock)
        for handle, rights in self._rules:
            kernel.landlock_allow(rules, handle, rights)
        if self.private:
            scratch = os.open(SCRATCH, os.O_PATH | os.O_CLOEXEC)
            kernel.landlock_allow(rules, scratch, kernel.landlock_file_rights(self._landlock) & ~kernel.EXECUTE)
            os.close(scratch)
        return rules

    def apply(self, descriptors: list[int], rules: int | None, limits: ChildLimits) -> None:
        """In the child, which must not go on when this raises."""
        os.setsid()
        _keep_only(descriptors)
        self._limit(limits)
        if self._uid is not None:
            os.setgroups([])
            os.setresgid(self._uid, self._uid, self._uid)
            os.setresuid(self._uid, self._uid, self._uid)
        if architecture() is not None:
            kernel.drop_capabilities()
        if self._no_dump:
            kernel.prctl("non-dumpable", kernel.PR_SET_DUMPABLE, 0)
        kernel.prctl("no new privileges", kernel.PR_SET_NO_NEW_PRIVS, 1)
        if rules is not None:
            kernel.landlock_restrict(4)
            os.close(4)
        if self._filter is not None:
            kernel.install_filter(seccomp.for_process(self._filter, os.getpid()))

    def _limit(self, limits: ChildLimits) -> None:
        limited: dict[int, tuple[int, int]] = {
            resource.RLIMIT_CPU: (limits.cpu_s, limits.cpu_s + 1),
            resource.RLIMIT_AS: (limits.address_space,) * 2,
            resource.RLIMIT_FSIZE: (limits.file_bytes,) * 2,
            resource.RLIMIT_STACK: (64 << 20, resource.getrlimit(resource.RLIMIT_STACK)[1]),  # more: within the above
            resource.RLIMIT_NOFILE: (128, 128),
            resource.RLIMIT_CORE: (0, 0),
            resource.RLIMIT_MEMLOCK: (0, 0),
            resource.RLIMIT_MSGQUEUE: (0, 0),
            resource.RLIMIT_NICE: (0, 0),
            resource.RLIMIT_RTPRIO: (0, 0),
        }
        if self.private or self._uid is not None:  # else all of the user's other threads would count
            limited[resource.RLIMIT_NPROC] = (limits.threads + 8,) * 2
        for which, (soft, hard) in limited.items():
            ceiling = resource.getrlimit(which)[1]
            if ceiling != resource.RLIM_INFINITY:
                soft, hard = min(soft, ceiling), min(hard, ceiling)
            resource.setrlimit(which, (soft, hard))


def _keep_only(descriptors: list[int]) -> None:
    """descriptors[i] becomes i; all others are closed."""
    high = [os.dup2(d, 200 + i, inheritable=False) for i, d in enumerate(descriptors)]
    for number, descriptor in enumerate(high):
        os.dup2(descriptor, number)
    os.closerange(len(descriptors), 1 << 20)


def interpreter_flags() -> list[str]:
    """No site, no user site, no current folder, no byte code written, UTF-8."""
    return [sys.executable, "-S", "-s", "-P", "-B", "-X", "utf8"]
