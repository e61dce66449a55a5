"""The sandbox as others use it: slots started down the ladder, observed, renewed; a job goes to one that is free.

    namespaces + all the rest --refused by the kernel--> the rest --canaries--> level >= min_level, or Refused

    with Sandbox() as sandbox:
        result = sandbox.run(Job({"mode": "script", "program": "print(1 + 1)"}))
"""

import sys
import threading
from collections.abc import Iterable

from rlvr.sandbox.job import Job, Level, Refused, Relay, Result
from rlvr.sandbox.probe import Observed, observe
from rlvr.sandbox.running import run_together
from rlvr.sandbox.slot import Slot, SlotFailed, numpy_packages

RECYCLE = 5_000  # jobs of a slot
ATTEMPTS = 2


class Sandbox:
    """Up to `slots` jobs at a time, from any thread. `without`: layers to leave out, for tests and odd machines."""

    def __init__(
        self,
        slots: int = 1,
        min_level: str | Level = Level.CONFINED,
        allow_unsafe: bool = False,
        without: Iterable[str] = (),
    ):
        self.min_level = min_level if isinstance(min_level, Level) else level_named(min_level)
        self.allow_unsafe = allow_unsafe
        self.slots = slots
        self.without = frozenset(without)
        self.level = Level.BROKEN
        self.observed: Observed | None = None
        self.said: dict[str, str] = {}
        self._idle: list[Slot] = []
        self._started = 0
        self._change = threading.Condition()

    def start(self) -> Level:
        """Start one slot and say what it is worth; Refused when that is too little. The others start when needed."""
        self._give_back([self._take(1)[0]])
        return self.level

    def run(self, job: Job) -> Result:
        return self.run_together([job], lambda who, message: [])[0]

    def run_together(self, jobs: list[Job], relay: Relay) -> list[Result]:
        """Several jobs that may talk through `relay`, each in its own slot. A lost slot is tried once more."""
        problem = ""
        for _ in range(ATTEMPTS):
            slots = self._take(len(jobs))
            try:
                results = run_together(slots, jobs, relay)
            except SlotFailed as error:
                problem = str(error)
                self._drop(slots)
                continue
            except BaseException:
                self._drop(slots)
                raise
            self._give_back(slots)
            if not any(result.machine_failed for result in results):
                return results
            problem = "the job got no CPU"
        return [Result("machinery", level=self.level, detail=problem) for _ in jobs]

    def close(self) -> None:
        with self._change:
            idle, self._idle = self._idle, []
        self._drop(idle)

    def __enter__(self) -> "Sandbox":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _take(self, count: int) -> list[Slot]:
        """All at once, so that two callers cannot each wait for the other's."""
        if count > self.slots:
            raise ValueError(f"{count} jobs that talk to each other need as many slots, the sandbox has {self.slots}")
        with self._change:
            while len(self._idle) + self.slots - self._started < count:
                self._change.wait()
            taken = [self._idle.pop() for _ in range(min(count, len(self._idle)))]
            missing = count - len(taken)
            self._started += missing
        try:
            for _ in range(missing):
                taken.append(self._new_slot())
                missing -= 1
        except BaseException:
            with self._change:
                self._started -= missing
            self._drop(taken)
            raise
        return taken

    def _give_back(self, slots: list[Slot]) -> None:
        self._drop([slot for slot in slots if slot.jobs >= RECYCLE])
        with self._change:
            self._idle += [slot for slot in slots if slot.jobs < RECYCLE]
            self._change.notify_all()

    def _drop(self, slots: list[Slot]) -> None:
        for slot in slots:
            slot.close()
        with self._change:
            self._started -= len(slots)
            self._change.notify_all()

    def _new_slot(self) -> Slot:
        """The first rung of the ladder that this kernel lets us stand on, tried by canaries."""
        if sys.platform != "linux":
            raise Refused(f"the sandbox needs Linux, this is {sys.platform}")
        slot, said = self._first_rung()
        observed = observe(slot)
        slot.level = observed.level
        if slot.level < self.min_level or (slot.level == Level.LIMITED and not self.allow_unsafe):
            slot.close()
            raise Refused(explain(observed, self.min_level, said, self.allow_unsafe))
        self.observed, self.said = observed, said
        self.level = slot.level if self.level == Level.BROKEN else min(self.level, slot.level)
        return slot

    def _first_rung(self) -> tuple[Slot, dict[str, str]]:
        refusal = ""
        if "namespaces" not in self.without:
            try:
                slot = Slot(self.without, numpy_packages())
                return slot, dict(slot.said)
            except SlotFailed as error:
                refusal = str(error)
                self.without |= {"namespaces"}
        try:
            slot = Slot(self.without, numpy_packages())
        except SlotFailed as error:
            raise Refused(f"the sandbox does not start: {error}") from error
        said = dict(slot.said)
        if refusal:
            said["namespaces"] = f"refused: {refusal}"
        return slot, said


def level_named(name: str) -> Level:
    names = [str(level) for level in Level if level != Level.BROKEN]
    if name not in names:
        raise ValueError(f"min_level={name}: one of {', '.join(names)}")
    return Level[name.upper()]


def explain(observed: Observed, wanted: Level, said: dict[str, str], allow_unsafe: bool) -> str:
    """Why it is refused: value, limit, knob, and what the canaries and the layers say."""
    level = observed.level
    got = sorted(observed.got - {"see files", "see processes"})
    what = f"; programs could: {', '.join(got)}" if got else ""
    broken = f"; these limits did not hold: {', '.join(sorted(observed.broken))}" if observed.broken else ""
    layers = ", ".join(f"{name}: {text}" for name, text in said.items())
    if level == Level.LIMITED and wanted <= level and not allow_unsafe:
        knob = "it protects nothing but the CPU and needs allow_unsafe=true"
    else:
        knob = f"below min_level={wanted}"
    return f"sandbox level {level} {knob}{what}{broken} (layers: {layers})"
