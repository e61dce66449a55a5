"""Which completions and verdicts have come, which question comes next, and which groups are whole. Pure bookkeeping.

    Ended(completion) --> questions of scope sample, at once
        last of its group --> questions of scope group       last of all --> questions of scope batch
    answered(question, verdicts) --> the next verifier in turn, where one could not say --> Groups that are whole

Knows no process and no Ray: whoever carries questions to verifiers drives it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from rlvr.types import Completion, Ended, Group, Outcome, Prompt, Provenance, Verdict
from rlvr.verify.compose import attributed, combine
from rlvr.verify.plan import AUDIT, Plan
from rlvr.verify.plugin import Sample, sample_of
from rlvr.verify.process import Assignment

Place = tuple[int, int]  # (prompt, completion)


@dataclass(frozen=True)
class Question:
    assignment: Assignment
    turn: int  # in the part's chain of verifiers
    places: tuple[Place, ...]
    samples: tuple[Sample, ...]


@dataclass
class Forming:
    """A group in the making."""

    prompt: Prompt
    chains: dict[str, tuple[Assignment, ...]]
    completions: dict[int, Completion] = field(default_factory=dict)
    said: dict[int, dict[str, list[Verdict]]] = field(default_factory=dict)  # completion -> part -> in turn
    open: Counter[int] = field(default_factory=Counter)  # of each completion, parts and audits still to come
    verdicts: dict[int, Verdict] = field(default_factory=dict)


class Assembly:
    def __init__(self, plan: Plan, prompts: Sequence[Prompt], size: int):
        """`size` completions a prompt."""
        self.plan, self.size = plan, size
        # those that are not whole, by their number: how long the others are held is for whoever takes them to say
        self.forming = {
            n: Forming(p, {part: plan.chain(part, p) for part in plan.chains}) for n, p in enumerate(prompts)
        }
        for group in self.forming.values():
            group.open.update({i: len(group.chains) for i in range(size)})
        self.to_end = size * len(prompts)

    def ended(self, completions: Iterable[Ended]) -> list[Question]:
        """What is to be asked now that these have ended."""
        asked: list[Question] = []
        for n, i, completion in ((e.prompt, e.index, e.completion) for e in completions):
            group = self.forming[n]
            group.completions[i] = completion
            self.to_end -= 1
            asked += [self._question(c[0], [(n, i)]) for c in group.chains.values() if c[0].verifier.scope == "sample"]
            for part, audit in self.plan.audits.items():
                if self.plan.audited(part, group.prompt.position, i):
                    group.open[i] += 1
                    asked.append(self._question(audit, [(n, i)]))
            if len(group.completions) == self.size:
                places = [(n, k) for k in range(self.size)]
                asked += [self._question(c[0], places) for c in group.chains.values() if c[0].verifier.scope == "group"]
        return merged(asked) + (self._of_all() if not self.to_end else [])

    def _of_all(self) -> list[Question]:
        shared: dict[tuple[str, tuple[str, str]], tuple[Assignment, list[Place]]] = {}
        for n, group in self.forming.items():
            for part, (first, *_) in group.chains.items():
                if first.verifier.scope == "batch":
                    places = shared.setdefault((part, first.key), (first, []))[1]
                    places += [(n, i) for i in range(self.size)]
        return [self._question(assignment, places) for assignment, places in shared.values()]

    def _question(self, assignment: Assignment, places: Sequence[Place], turn: int = 0) -> Question:
        groups = self.forming
        samples = tuple(sample_of(groups[n].prompt, groups[n].completions[i]) for n, i in places)
        return Question(assignment, turn, tuple(places), samples)

    def answered(self, question: Question, verdicts: Sequence[Verdict]) -> tuple[list[Question], list[Group]]:
        """What is to be asked next, and the groups that are whole now."""
        part, whole, undecided = question.assignment.part, [], []
        for (n, i), verdict in zip(question.places, verdicts, strict=True):
            group = self.forming[n]
            group.said.setdefault(i, {}).setdefault(part, []).append(verdict)
            chain = group.chains.get(part, ())
            if not verdict.trainable and question.turn + 1 < len(chain):
                undecided.append(self._question(chain[question.turn + 1], [(n, i)], question.turn + 1))
                continue
            group.open[i] -= 1
            if not group.open[i]:  # at once: at the end somebody waits for all of them
                group.verdicts[i] = self._verdict(group, i)
                if len(group.verdicts) == self.size:
                    whole.append(self._group(self.forming.pop(n)))
        return merged(undecided), whole

    def _group(self, group: Forming) -> Group:
        completions, verdicts = group.completions, group.verdicts
        return Group(
            group.prompt,
            tuple(completions[i] for i in range(self.size)), tuple(verdicts[i] for i in range(self.size)),
        )  # fmt: skip

    def _verdict(self, group: Forming, i: int) -> Verdict:
        said = {part: attributed(part, verdicts) for part, verdicts in group.said[i].items()}
        verdict = combine({part: said[part] for part in self.plan.chains}, self.plan.reward)
        if group.completions[i].stop_reason == "abort":  # it was not the policy that ended it
            verdict = aborted(verdict, group.completions[i].failure)
        audits = tuple(p for part, v in said.items() if part.startswith(AUDIT) for p in v.provenance)
        return with_audits(verdict, audits)


def aborted(verdict: Verdict, why: str) -> Verdict:
    """Nobody's verdict on what is no whole answer counts: neither as a reward nor in an accuracy."""
    detail = why or "the engine gave up"
    said = tuple(replace(p, outcome=Outcome.ERROR.value, reward=None, reason="aborted") for p in verdict.provenance)
    return Verdict(None, Outcome.ERROR, reason="aborted", detail=detail, provenance=said)


def with_audits(verdict: Verdict, audits: tuple[Provenance, ...]) -> Verdict:
    return replace(verdict, provenance=(*verdict.provenance, *audits)) if audits else verdict


def merged(questions: Sequence[Question]) -> list[Question]:
    """Those of single samples for the same verifier and options as one: fewer messages, the same calls."""
    together: dict[tuple[str, int, tuple[str, str]], Question] = {}
    others: list[Question] = []
    for q in questions:
        if q.assignment.verifier.scope != "sample":
            others.append(q)
            continue
        key = (q.assignment.part, q.turn, q.assignment.key)
        before = together.get(key)
        together[key] = q if before is None else Question(
            q.assignment, q.turn, before.places + q.places, before.samples + q.samples
        )  # fmt: skip
    return [*together.values(), *others]


def dealt(questions: Sequence[Question], hands: int) -> list[list[Question]]:
    """Questions about single samples in even shares; those about whole groups stay whole, one after the other."""
    shares: list[list[Question]] = [[] for _ in range(hands)]
    for n, q in enumerate(questions):
        if q.assignment.verifier.scope != "sample":
            shares[n % hands].append(q)
            continue
        for hand in range(hands):
            places, samples = q.places[hand::hands], q.samples[hand::hands]
            if places:
                shares[hand].append(Question(q.assignment, q.turn, places, samples))
    return [share for share in shares if share]


def laid_out(groups: Sequence[Group]) -> tuple[list[Prompt], list[Ended], int]:
    """Groups that are there already, as what an Assembly takes: prompts, ended completions, the size of a group."""
    sizes = {len(group.completions) for group in groups}
    if len(sizes) != 1:
        raise ValueError(f"groups of one size expected, not of {sorted(sizes)}")
    ended = [Ended(n, i, c) for n, group in enumerate(groups) for i, c in enumerate(group.completions)]
    return [replace(group.prompt, position=n) for n, group in enumerate(groups)], ended, sizes.pop()


def put_back(groups: Sequence[Group], done: Iterable[Group]) -> list[Group]:
    """`groups` with the verdicts of those that `laid_out` numbered, in order."""
    verdicts = {group.prompt.position: group.verdicts for group in done}
    return [replace(group, verdicts=verdicts[n]) for n, group in enumerate(groups)]
