"""Groups in, groups with verdicts out. The only door to verifiers; they themselves run in killable processes.

    group --split over processes--> [part x completion] verdicts --combine--> Group(+ verdicts)

A completion that uses up its time is REJECTED: the policy did that. A verifier that raises or dies is asked once more
in a fresh process, then it is an ERROR, which is masked: never a reward.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from queue import SimpleQueue

from rlvr.config import PartConfig, RecipeError
from rlvr.types import Group, Outcome, Provenance, Verdict
from rlvr.verify.compose import combine
from rlvr.verify.plugin import PluginError, Sample, load, samples_of
from rlvr.verify.process import Assignment, Failed, TimedOut, VerifierProcess

ATTEMPTS = 2


class Judge:
    """`parts` of the recipe's reward, run by `workers` processes."""

    def __init__(self, parts: Mapping[str, PartConfig], workers: int):
        self.parts, self.workers = parts, workers
        self.assignments = {name: assignment(name, part) for name, part in parts.items()}
        self._idle: SimpleQueue[VerifierProcess] = SimpleQueue()
        self._all = [VerifierProcess(list(self.assignments.values())) for _ in range(workers)]
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="verify")
        self._counts: Counter[str] = Counter()
        try:
            # in the threads that live as long as the judge: a child is killed when the thread that started it ends
            for started in [self._threads.submit(process.start) for process in self._all]:
                started.result()
        except BaseException:
            self.close()
            raise
        for process in self._all:
            self._idle.put(process)

    def verify_group(self, group: Group) -> Group:
        return self._finish(group, self._submit(group))

    def verify(self, groups: Iterable[Group]) -> Iterator[Group]:
        """Verification of a group starts as it arrives; what is done is yielded in between, in any order."""
        pending: list[tuple[Group, Jobs]] = []
        for group in groups:
            pending.append((group, self._submit(group)))
            done = [entry for entry in pending if all(job.done() for jobs in entry[1].values() for job in jobs)]
            pending = [entry for entry in pending if entry not in done]
            yield from (self._finish(*entry) for entry in done)
        yield from (self._finish(*entry) for entry in pending)

    def counts(self) -> Counter[str]:
        """Verdicts so far by `part/outcome/reason`."""
        return Counter(self._counts)

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)
        for process in self._all:
            process.kill()

    def _submit(self, group: Group) -> "Jobs":
        """Each part's completions in even shares, one for each process."""
        samples = samples_of(group)
        share = -(-len(samples) // self.workers)
        chunks = [samples[i : i + share] for i in range(0, len(samples), share)]
        return {part: [self._threads.submit(self._run, part, chunk) for chunk in chunks] for part in self.parts}

    def _finish(self, group: Group, jobs: "Jobs") -> Group:
        columns = {part: [v for job in chunks for v in job.result()] for part, chunks in jobs.items()}
        for part, verdicts in columns.items():
            self._counts.update(f"{part}/{v.outcome}/{v.reason}" for v in verdicts)
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        return replace(group, verdicts=tuple(combine(row, self.parts) for row in rows))

    def _run(self, part: str, samples: list[Sample]) -> list[Verdict]:
        process = self._idle.get()
        try:
            verdicts: list[Verdict] = []
            failures = 0
            while len(verdicts) < len(samples):
                begun = len(verdicts)
                try:
                    process.verify(part, samples[begun:], verdicts)
                except TimedOut as error:
                    verdicts.append(self._without_answer(part, Outcome.REJECTED, "timeout", str(error)))
                except (Failed, PluginError) as error:
                    failures = failures + 1 if len(verdicts) == begun else 1
                    if failures >= ATTEMPTS:
                        verdicts.append(self._without_answer(part, Outcome.ERROR, "verifier_failed", str(error)))
                        failures = 0
            return verdicts
        finally:
            self._idle.put(process)

    def _without_answer(self, part: str, outcome: Outcome, reason: str, detail: str) -> Verdict:
        reward = 0.0 if outcome == Outcome.REJECTED else None
        where = Provenance(self.assignments[part].reference, attempts=ATTEMPTS if outcome == Outcome.ERROR else 1)
        return Verdict(reward, outcome, reason=reason, detail=detail, provenance=(where,))


Jobs = dict[str, list[Future[list[Verdict]]]]


def assignment(name: str, part: PartConfig) -> Assignment:
    """The part's verifier, found and its options checked; RecipeError says what is wrong."""
    knob = f"reward.parts.{name}"
    try:
        verifier = load(part.verifier)
        verifier.check_params(part.params, f"{knob}.params")
    except PluginError as error:
        raise RecipeError(f"{knob}: {error}") from error
    return Assignment(name, part.verifier, dict(part.params), part.timeout_s or verifier.timeout_s)
