"""How much memory a run takes: all its processes together, at the worst moment. Linux; reads /proc, owns one thread.

Counted are this process and all its descendants (Ray's daemons and workers, where this process started Ray), orphans
included once seen. Their sum is of PSS, each process's share of the pages it maps: summing RSS would count torch's
libraries and Ray's shared object store once for every process. Reading PSS makes the kernel walk the page tables,
about 10 ms a GB; so every sample sums RSS, which is cheap, and PSS is read when RSS has grown beyond what it ever was,
and otherwise as often as 1% of a core allows. Processes of other users and of other machines are not seen.
"""

import os
import threading
import time
from pathlib import Path
from types import TracebackType

PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 2**20
GROWTH = 1.03  # of the summed RSS over its highest so far, for PSS to be read at once
BUSY = 0.005  # of one core, at most: once for the samples, once more for the readings of PSS


class PeakMemory:
    """Samples until it is closed.

    with PeakMemory() as memory:
        ...
    print(memory.peak_mb)
    """

    def __init__(self, interval_s: float = 2.0, proc: Path = Path("/proc")) -> None:
        self.peak_mb = 0.0
        self.current_mb = 0.0
        self._interval_s = interval_s
        self._proc = proc
        self._known: set[tuple[int, int]] = set()  # (pid, start time): a pid alone may be given again
        self._highest_rss_mb = 0.0
        self._pss_per_rss = 1.0
        self._next_reading = 0.0
        self._looking_s = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="rlvr-memory", daemon=True)

    def __enter__(self) -> "PeakMemory":
        self.sample()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self.sample()

    def sample(self) -> float:
        """The tree's memory now, in MB. Between two readings PSS is taken to be the same share of RSS."""
        start = time.thread_time()
        pids = [pid for pid, _ in self._tree()]
        rss_mb = sum(self._rss_mb(pid) for pid in pids)
        self._looking_s = time.thread_time() - start
        if rss_mb > GROWTH * self._highest_rss_mb or time.monotonic() >= self._next_reading:
            start = time.thread_time()
            pss_mb = sum(self._pss_mb(pid) for pid in pids)
            self._next_reading = time.monotonic() + (time.thread_time() - start) / BUSY
            self._highest_rss_mb = max(self._highest_rss_mb, rss_mb)
            self._pss_per_rss = pss_mb / rss_mb
            self.peak_mb = max(self.peak_mb, pss_mb)
        self.current_mb = rss_mb * self._pss_per_rss
        return self.current_mb

    def _watch(self) -> None:
        wait_s = self._interval_s
        while not self._ended.wait(wait_s):
            self.sample()
            wait_s = max(self._interval_s, self._looking_s / BUSY)

    def _tree(self) -> set[tuple[int, int]]:
        """This process, its descendants, and former descendants whose parent died before them."""
        parent_of, started = {}, {}
        for entry in os.listdir(self._proc):
            if entry.isdigit() and (stat := self._read(int(entry), "stat")):
                fields = stat.rpartition(")")[2].split()  # the name before may hold spaces and parentheses
                parent_of[int(entry)], started[int(entry)] = int(fields[1]), int(fields[19])
        members = {os.getpid()} | {pid for pid, start in self._known if started.get(pid) == start}
        grown = True
        while grown:
            children = {pid for pid, parent in parent_of.items() if parent in members} - members
            members |= children
            grown = bool(children)
        self._known = {(pid, started[pid]) for pid in members if pid in started}
        return self._known

    def _rss_mb(self, pid: int) -> float:
        statm = self._read(pid, "statm")
        return int(statm.split()[1]) * PAGE_MB if statm else 0.0

    def _pss_mb(self, pid: int) -> float:
        """RSS where the kernel (before 4.14) or the process's rights do not let PSS be read."""
        for line in self._read(pid, "smaps_rollup").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
        return self._rss_mb(pid)

    def _read(self, pid: int, name: str) -> str:
        """Empty when the process has just ended, or may not be looked at."""
        try:
            return (self._proc / str(pid) / name).read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return ""
