"""The fork server of one slot: the warm process whose children run programs. Started by slot.py, never imported there.

    judge --control socket: {"limits"} + 4 descriptors--> fork --> child: lock itself, run (child.py)
          <--{"started": pid} + pidfd--                   reap <-- its end, as the kernel has it
          <--{"ended": wait status, cpu_s, ...}--         clean: kill what is left, drop the scratch folder

It knows no program, no input and no secret: those go from the judge straight to the child.
"""

import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import sys
from contextlib import suppress
from typing import Any, NoReturn

from rlvr.sandbox import child, kernel
from rlvr.sandbox.layers import ChildLimits, Lock, enter_namespaces, fresh_scratch, inside

PR_SET_CHILD_SUBREAPER = 36
PRELOAD = """
    abc argparse array ast asyncio base64 bisect calendar cmath collections.abc contextlib copy csv ctypes dataclasses
    datetime decimal difflib enum fractions functools hashlib heapq inspect io itertools json logging math numbers
    operator pprint queue random re secrets shutil statistics string struct tempfile textwrap threading time traceback
    types typing unicodedata unittest uuid zlib
"""


def main() -> None:
    setting = json.loads(sys.argv[1])
    control = socket.socket(fileno=setting["control"])
    packages, without = setting["packages"], frozenset(setting["without"])
    said = {"namespaces": "left out"}
    os.umask(0o022)
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write("1000")
    private = "namespaces" not in without
    if private:
        try:
            size = enter_namespaces(packages)
        except OSError as error:
            control.send(json.dumps({"failed": str(error)}).encode())
            return
        packages = inside(packages)
        said["namespaces"] = "user, mount, pid, net, ipc, uts"
    else:
        size = os.open("/proc/self/statm", os.O_RDONLY)
    preload(packages)
    kernel.prctl("subreaper", PR_SET_CHILD_SUBREAPER, 1)
    if "dumpable" not in without:
        kernel.prctl("non-dumpable", kernel.PR_SET_DUMPABLE, 0)
    kernel.prctl("no new privileges", kernel.PR_SET_NO_NEW_PRIVS, 1)
    kernel.drop_bounding_set()
    lock = Lock(private, packages, without)
    os.chdir("/")
    gc.collect()
    gc.freeze()
    control.send(json.dumps({"ready": said | lock.said, "python": sys.version.split()[0]}).encode())
    Zygote(control, lock, private, size).serve()
    os._exit(0)


def preload(packages: list[str]) -> None:
    """Imports now, once, so that no job pays for them."""
    sys.path[:] = [path for path in sys.path if path.startswith(sys.base_prefix)]
    sys.path += sorted({os.path.dirname(package) for package in packages})
    for name in (*PRELOAD.split(), *(os.path.basename(package) for package in packages)):
        with suppress(ImportError):
            importlib.import_module(name)
    if "numpy" in sys.modules:
        importlib.import_module("numpy.random").seed(0)  # every child begins with this state


class Zygote:
    def __init__(self, control: socket.socket, lock: Lock, private: bool, size: int):
        self.control, self.lock, self.private = control, lock, private
        self.own_size = int(os.pread(size, 100, 0).split()[0]) * resource.getpagesize()

    def serve(self) -> None:
        while True:
            content, descriptors, _, _ = socket.recv_fds(self.control, 65536, 8)
            if not content:
                return  # nobody asks any more
            job = json.loads(content)
            if "kill" in job:
                continue  # it ended by itself meanwhile
            try:
                self.run(job, descriptors)
            except OSError as error:
                self.say({"failed": str(error)})

    def say(self, message: dict[str, Any], descriptors: list[int] | None = None) -> None:
        with suppress(BrokenPipeError):
            socket.send_fds(self.control, [json.dumps(message).encode()], descriptors or [])

    def run(self, job: dict[str, Any], descriptors: list[int]) -> None:
        limits = ChildLimits(
            cpu_s=job["cpu_s"],
            address_space=self.own_size + job["memory_bytes"],
            file_bytes=job["scratch_mb"] << 20,
            threads=job["threads"],
        )
        if self.private:
            fresh_scratch(job["scratch_mb"])
        rules = None
        try:
            rules = self.lock.ruleset()
            pid = os.fork()
            if not pid:
                self.become_child([*descriptors, *([rules] if rules is not None else [])], rules, limits)
        finally:
            for descriptor in (*descriptors, *([rules] if rules is not None else [])):
                os.close(descriptor)
        handle = os.pidfd_open(pid)
        self.say({"started": pid}, [handle])
        self.wait(pid, handle)
        os.close(handle)
        self.clean()

    def become_child(self, descriptors: list[int], rules: int | None, limits: ChildLimits) -> NoReturn:
        """Whatever happens, this process never goes back into the server's loop."""
        code = 71
        try:
            if self.private:
                os.chdir("/tmp")
            self.lock.apply(descriptors, rules, limits)
            code = 70
            child.main()
        finally:
            os._exit(code)

    def wait(self, pid: int, handle: int) -> None:
        watch = select.poll()
        watch.register(handle, select.POLLIN)
        watch.register(self.control, select.POLLIN)
        while True:
            ready = dict(watch.poll())
            if handle in ready:
                break
            if not self.control.recv(65536):
                watch.unregister(self.control)  # the judge is gone
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
        self.say({"ended": status, "cpu_s": usage.ru_utime + usage.ru_stime, "memory_kb": usage.ru_maxrss})

    def clean(self) -> None:
        """No process that the job began outlives it, nor does a file."""
        for _ in range(1000):
            try:
                if self.private:
                    os.kill(-1, signal.SIGKILL)
            except ProcessLookupError:
                pass
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    self.kill_children()
            except ChildProcessError:
                break
        if self.private:
            kernel.unmount("/tmp")

    def kill_children(self) -> None:
        """Without a namespace of our own: those that were handed to us, one generation after the other."""
        with suppress(OSError), open(f"/proc/self/task/{os.getpid()}/children") as children:
            for pid in children.read().split():
                os.kill(int(pid), signal.SIGKILL)
        select.select([], [], [], 0.001)


if __name__ == "__main__":
    main()
