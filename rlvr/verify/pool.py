"""Verifier processes and the samples that wait for them. Knows attempts and outcomes; no groups and no recipe's parts.

    submit(assignment, samples) --> queue --> slot: a thread and its killable process --> Future of one verdict a sample
                                      ^------------- asked once more, in another slot ---+

A completion that uses up its time is REJECTED: the policy did that. A verifier that raises or dies, or whose own
question is not answered, is asked once more in another process; then it is an ERROR, which is masked: never a reward.
"""

import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, replace
from time import perf_counter

from rlvr.types import Outcome, Provenance, Verdict
from rlvr.verify.call import Entry, Failure, entries, refused
from rlvr.verify.discover import load
from rlvr.verify.plugin import PluginError, Sample, fingerprint, named
from rlvr.verify.process import Assignment, Failed, TimedOut, VerifierProcess

ATTEMPTS = 2
WORTH_S = 0.002  # what is expected to take less is not shared out: a message would take as long
PACES = 1000  # assignments whose pace is known


class Answers:
    """To all jobs of one `submit`. One future for all of them: with one a job, futures were half of the work."""

    def __init__(self, jobs: int):
        self.future: Future[list[Verdict]] = Future()
        self._said: list[Sequence[Verdict]] = [()] * jobs
        self._left, self._lock = jobs, threading.Lock()
        if not jobs:
            self.future.set_result([])

    def put(self, at: int, verdicts: Sequence[Verdict]) -> None:
        with self._lock:
            self._said[at] = verdicts
            self._left -= 1
            last = not self._left
        if last:
            with suppress(InvalidStateError):  # whoever asked no longer waits
                self.future.set_result([verdict for said in self._said for verdict in said])

    def fail(self, error: BaseException) -> None:
        with suppress(InvalidStateError):
            self.future.set_exception(error)


@dataclass(eq=False)
class Job:
    """One sample, or all samples of a call that cannot be divided."""

    assignment: Assignment
    samples: list[Sample]
    answers: Answers
    at: int  # its place among them
    failures: int = 0
    alone: bool = False  # it is a call; or one that it shared has failed, and nobody knows through whom
    avoid: int | None = None  # the slot that failed


class Pool:
    """`workers` slots. `first` is what their processes load when they start."""

    def __init__(self, first: Sequence[Assignment], workers: int):
        self.workers = workers
        processed = [assignment for assignment in first if assignment.verifier.isolation != "inline"]
        self._beside = [assignment for assignment in first if assignment.verifier.isolation == "inline"]
        self.processes = [VerifierProcess(processed) for _ in range(workers)]
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._broken: BaseException | None = None
        self._busy: set[int] = set()
        self._pace_s: dict[tuple[str, str], float] = {}  # that a sample took of late
        self._inline: set[tuple[str, str]] = set()  # verifiers that run here, set up
        self._told: set[str] = set()  # references of verifiers that failed on several samples at once
        self._setting_up = threading.Lock()
        started: list[Future[None]] = [Future() for _ in range(workers)]
        # a child is killed when the thread that started it ends: each slot's thread lives as long as the pool
        self._threads = [
            threading.Thread(target=self._run, args=(slot, started[slot]), name=f"verify-{slot}", daemon=True)
            for slot in range(workers)
        ]
        for thread in self._threads:
            thread.start()
        try:
            for future in started:
                future.result()
        except BaseException:
            self.close()
            raise

    def submit(
        self, assignment: Assignment, samples: Sequence[Sample], whole: bool = False
    ) -> "Future[list[Verdict]]":
        """One verdict for each sample, in order. Samples of scope `sample` are shared out over the slots, unless they
        are to be one call (`whole`), whose failure is then that of each."""
        whole = whole or assignment.verifier.scope != "sample"
        calls = [list(samples)] if whole else [[sample] for sample in samples]
        calls = [call for call in calls if call]
        answers = Answers(len(calls))
        jobs = [Job(assignment, call, answers, at, alone=whole) for at, call in enumerate(calls)]
        with self._changed:
            if self._broken is not None:
                raise RuntimeError("a verifier slot has failed") from self._broken
            if self._closing:
                raise RuntimeError("the verifiers are closed")
            self._waiting.extend(jobs)
            self._changed.notify_all()
        return answers.future

    def close(self) -> None:
        """Verifiers that are idle may close what they opened; what is being computed is of no use to anybody."""
        with self._changed:
            self._closing = True
            for job in self._waiting:
                job.answers.fail(CancelledError())
            self._waiting.clear()
            for slot in self._busy:
                self.processes[slot].interrupt()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        for reference in {reference for reference, _ in self._inline}:
            if (close := load(reference).close) is not None:
                try:
                    close()
                except (Exception, SystemExit) as error:  # what it was asked is answered
                    print(f"rlvr: close of verifier {reference!r}: {type(error).__name__}: {error}", file=sys.stderr)

    def _run(self, slot: int, started: "Future[None]") -> None:
        process = self.processes[slot]
        try:
            if slot == 0:
                for assignment in self._beside:  # in a thread that asks them: a database's handle may be its thread's
                    self._set_up(assignment)
            process.start()
        except BaseException as error:
            started.set_exception(PluginError(str(error)) if isinstance(error, Failed) else error)
            return
        started.set_result(None)
        while jobs := self._take(slot):
            try:
                self._work(slot, process, jobs)
            except BaseException as error:  # a bug of ours: whoever waits must hear of it, not wait for ever
                self._break(error, jobs)
            with self._changed:
                self._busy.discard(slot)
        process.close()

    def _break(self, error: BaseException, jobs: Sequence[Job]) -> None:
        with self._changed:
            self._broken = error
            for job in {*jobs, *self._waiting}:
                job.answers.fail(error)
            self._waiting.clear()

    def _take(self, slot: int) -> list[Job]:
        """The next job and others that may share its call; none when the pool closes."""
        with self._changed:
            while not self._closing:
                if jobs := self._next(slot):
                    self._busy.add(slot)
                    return jobs
                self._changed.wait()
            return []

    def _next(self, slot: int) -> list[Job]:
        """Looks no further than it must: a whole file may be waiting."""
        jobs: list[Job] = []
        passed: list[Job] = []
        waiting, count = len(self._waiting), 1
        while self._waiting and len(jobs) < count:
            job = self._waiting.popleft()
            if job.answers.future.cancelled():
                continue
            alike = not jobs or (job.assignment.key == jobs[0].assignment.key and not job.alone)
            if not alike or job.avoid == slot:
                passed.append(job)
                continue
            verifier = job.assignment.verifier
            if not jobs and verifier.scope == "sample" and not job.alone:
                fair = verifier.at_once if verifier.takes_list else -(-waiting // self.workers)
                worth = int(WORTH_S / self._pace_s.get(job.assignment.key, WORTH_S))
                count = min(verifier.at_once, max(fair, worth))
            jobs.append(job)
        self._waiting.extendleft(reversed(passed))
        return jobs

    def _again(self, jobs: Sequence[Job], avoid: int | None = None) -> None:
        """To the head of the queue: they have waited already."""
        with self._changed:
            if self._closing:
                for job in jobs:
                    job.answers.fail(CancelledError())
                return
            for job in reversed(jobs):
                job.avoid = avoid if self.workers > 1 else None
                self._waiting.appendleft(job)
            self._changed.notify_all()

    def _work(self, slot: int, process: VerifierProcess, jobs: list[Job]) -> None:
        assignment = jobs[0].assignment
        verifier = assignment.verifier
        if self.workers == 1 and any(job.failures for job in jobs):
            process.kill()  # there is no other slot: another process it is
        each = verifier.scope != "sample" or not (verifier.takes_list or verifier.is_async)
        calls = [[job] for job in jobs] if each else [jobs]
        done = 0
        try:
            asked = [[sample for job in call for sample in job.samples] for call in calls]
            if verifier.isolation == "inline":
                self._set_up(assignment)
                timed = replace(verifier, timeout_s=assignment.limit_s)
                answers: Iterator[list[Entry]] = (entries(timed, samples, assignment.params) for samples in asked)
            else:
                answers = process.verify(assignment, asked)
            began = perf_counter()
            for call, said in zip(calls, answers, strict=True):
                done += 1
                self._note_pace(assignment.key, (perf_counter() - began) / len(said))
                began = perf_counter()
                self._settle(call, said, slot, shared=verifier.takes_list)
        except TimedOut as error:
            self._timed_out(calls[done], error, slot)
            self._again([job for call in calls[done + 1 :] for job in call])
        except (Failed, PluginError) as error:
            said = [Failure(str(error))] * sum(len(job.samples) for job in calls[done])
            self._settle(calls[done], said, slot, shared=True)
            self._again([job for call in calls[done + 1 :] for job in call])

    def _set_up(self, assignment: Assignment) -> None:
        """What a process does when it loads a verifier, for one that runs here."""
        setup = assignment.verifier.setup
        options = named(setup, assignment.params) if setup is not None else {}
        with self._setting_up:
            if (key := (assignment.reference, fingerprint(options))) not in self._inline:
                if setup is not None:
                    try:
                        setup(**options)
                    except (Exception, SystemExit) as error:
                        said = f"{type(error).__name__}: {error}"
                        raise PluginError(f"verifier {assignment.reference!r} could not be set up: {said}") from error
                self._inline.add(key)

    def _settle(self, call: list[Job], said: Sequence[Entry], slot: int, shared: bool) -> None:
        """`shared`: a failure in `said` is that of the call, not of a sample."""
        shared, at = shared and len(call) > 1, 0
        for job in call:
            mine, at = said[at : at + len(job.samples)], at + len(job.samples)
            verdicts = [entry for entry in mine if isinstance(entry, Verdict)]
            erred = any(verdict.outcome == Outcome.ERROR for verdict in verdicts)
            if erred and job.failures + 1 < ATTEMPTS:  # by its own account: what it asked is out of order
                job.failures += 1
                self._again([job], avoid=slot)
            elif len(verdicts) == len(job.samples):
                job.answers.put(job.at, [self._numbered(verdict, job) for verdict in verdicts])
            else:
                failure = next(entry for entry in mine if isinstance(entry, Failure))
                if shared:
                    self._tell(call, failure.said)
                self._failed(job, failure, slot, shared)

    def _tell(self, call: Sequence[Job], why: str) -> None:
        """Once: who fails on every list is slow, and judges all the same."""
        assignment = call[0].assignment
        with self._changed:
            known = assignment.reference in self._told
            self._told.add(assignment.reference)
        if not known:
            print(
                f"rlvr: verifier {assignment.verifier.name!r} failed on {len(call)} samples at once, each of which is "
                f"asked about alone now: {why}",
                file=sys.stderr,
            )

    def _note_pace(self, key: tuple[str, str], sample_s: float) -> None:
        with self._changed:  # with options of each row there is no end of keys: those not asked of late are forgotten
            self._pace_s[key] = 0.9 * self._pace_s.pop(key, sample_s) + 0.1 * sample_s
            if len(self._pace_s) > PACES:
                del self._pace_s[next(iter(self._pace_s))]

    def _failed(self, job: Job, failure: Failure, slot: int, shared: bool) -> None:
        if shared:
            job.alone = True
        else:
            job.failures += 1
        if job.failures < ATTEMPTS:
            self._again([job], avoid=slot)
            return
        reason = "no_answer_in_time" if failure.late else "verifier_failed"
        where = Provenance(job.assignment.verifier.name, job.assignment.verifier.version, attempts=ATTEMPTS)
        verdict = Verdict(None, Outcome.ERROR, reason=reason, detail=failure.said, provenance=(where,))
        job.answers.put(job.at, [verdict] * len(job.samples))

    def _timed_out(self, call: list[Job], error: TimedOut, slot: int) -> None:
        """Computing for too long is the completion's doing. Not answering without computing is once a busy machine's;
        twice it is the completion's too, unless the verifier waits for others and says so by being async."""
        if len(call) > 1:
            self._tell(call, str(error))
            for job in call:
                job.alone = True
            self._again(call)
            return
        (job,) = call
        verifier = job.assignment.verifier
        if error.computing or (job.failures + 1 >= ATTEMPTS and not verifier.is_async):
            verdict = refused(verifier, "timeout", str(error))
            job.answers.put(job.at, [self._numbered(verdict, job)] * len(job.samples))
        else:
            self._failed(job, Failure(str(error), late=True), slot, shared=False)

    def _numbered(self, verdict: Verdict, job: Job) -> Verdict:
        if not job.failures:
            return verdict
        first, *rest = verdict.provenance
        return replace(verdict, provenance=(replace(first, attempts=job.failures + 1), *rest))
