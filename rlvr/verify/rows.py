"""Whether the rows of a data set can be used: the references that they have, and the options that they bring.

    rows   --each reference--------> check_answer of its verifier      why not: the row is left out
           --each set of options---> its setup, and one empty answer   an exception: the data is refused
    recipe --each set of options---> its setup; an empty answer too    an exception: the recipe is
                                     where it is installed

Asked where verifiers run, in processes that are killed: a reference may be as hostile as a completion.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from rlvr.config import RecipeError
from rlvr.types import Outcome, Prompt, Verdict
from rlvr.verify.plan import AUDIT, Plan
from rlvr.verify.plugin import Sample, Verifier
from rlvr.verify.pool import Pool
from rlvr.verify.process import Assignment

CHECK = "check:"  # before a verifier's reference: a verifier of its references
SET_UP = "setup:"  # ... : one that only sets up
CHECK_S = 5.0  # CPU seconds for one reference
AT_ONCE = 1_000  # rows
PROCESSES = 2

Asked = tuple[Prompt, Assignment]


def checker(theirs: Verifier) -> Verifier:
    """A verifier of references: it abstains where `check_answer` says why not."""

    def check(sample: Sample, **params: object) -> Verdict:
        if why := theirs.unusable(sample.answer, params, sample.row):
            return Verdict(None, Outcome.ABSTAIN, reason="unusable", detail=why)
        return Verdict(1.0, Outcome.OK, reason="usable")

    return Verifier(theirs.name, check, theirs.version, CHECK_S, theirs.memory_gib)


def only_set_up(theirs: Verifier) -> Verifier:
    """Takes the same options, and does nothing with a completion."""

    def accept(sample: Sample, **params: object) -> bool:
        return True

    return replace(theirs, function=accept, scope="sample", batch=1, check_answer=None)


def leave_out(plan: Plan, data: Mapping[str, list[Prompt]]) -> tuple[list[list[Prompt]], list[str]]:
    """Of each data set, by the knob that names it, the prompts whose reference can be used; and what to say of the
    others. RecipeError when none is left."""
    left, said = [], []
    for (knob, prompts), bad in zip(data.items(), unusable(plan, list(data.values())), strict=True):
        left.append([prompt for prompt in prompts if prompt.position not in bad])
        if not bad:
            continue
        position, why = next(iter(bad.items()))
        first = next(prompt.id for prompt in prompts if prompt.position == position)
        if not left[-1]:
            raise RecipeError(f"{knob}: no row has a reference that can be used; the first is {first}: {why}")
        said.append(
            f"{knob}: {len(bad)} of {len(prompts)} rows are left out, as their reference cannot be used; "
            f"the first is {first}: {why}"
        )
    return left, said


def unusable(plan: Plan, data: Sequence[Sequence[Prompt]]) -> list[dict[int, str]]:
    """Of each data set prompt position (ids need not be of one row each) -> why a part that decides cannot use its
    reference: every verifier that would be asked in turn refuses it. RecipeError when the recipe or a row has options
    that a verifier does not take. All are asked by the same processes: they take seconds to start."""
    own = [assignment for assignment in plan.assignments() if to_try(assignment)]
    questions = [asked(plan, prompts) for prompts in data]
    count = len(own) + sum(len(references) + len(options) for references, options in questions)
    if not count:
        return [{} for _ in data]
    pool = Pool([], min(PROCESSES, count))
    try:
        set_ups = [replace(assignment, reference=SET_UP + assignment.reference) for assignment in own]
        try_options([(prompts[0], assignment) for prompts in data[:1] for assignment in set_ups], pool, of_rows=False)
        for _, options in questions:
            try_options(options, pool)
        bad = [dict(refused(references, pool)) for references, _ in questions]
        left = [p for prompts, some in zip(data, bad, strict=True) for p in prompts if p.position not in some]
        try_options(list(first_questions(plan, own, left)), pool, of_rows=False)
        return bad
    finally:
        pool.close()


def asked(plan: Plan, prompts: Sequence[Prompt]) -> tuple[list[Asked], list[Asked]]:
    """What is to be asked: every reference that can be checked, and once each set of options that rows bring."""
    references, decisive = [], plan.reward.decisive()
    options: dict[tuple[str, tuple[str, str]], tuple[Prompt, Assignment]] = {}
    for prompt in prompts:
        for part in plan.chains:
            chain = plan.chain(part, prompt)
            first = chain[0]
            if first is not plan.chains[part][0]:
                options.setdefault((part, first.key), (prompt, first))
            if part in decisive and all(one.verifier.check_answer is not None for one in chain):
                references += [(prompt, Assignment(part, CHECK + one.reference, one.params)) for one in chain]
    return references, list(options.values())


def first_questions(plan: Plan, own: Sequence[Assignment], prompts: Sequence[Prompt]) -> Iterator[Asked]:
    """Each of the recipe's verifiers with the first row that it will be asked about; of those that must take whatever
    a policy writes: who is installed, asks nobody else and judges one completion."""
    for one in own:
        theirs, part = one.verifier, one.part.removeprefix(AUDIT)
        if ":" in one.reference or theirs.is_async or theirs.scope != "sample":
            continue
        audits = one.part != part
        if (prompt := next((p for p in prompts if audits or one in plan.chain(part, p)), None)) is not None:
            yield prompt, one


def refused(references: Sequence[Asked], pool: Pool) -> Iterator[tuple[int, str]]:
    """(position, why), once a prompt. RecipeError where the check itself fails: it says nothing of the reference."""
    seen: set[int] = set()
    for _, group in groupby(answers(references, pool), lambda answer: (id(answer[0]), answer[1].part)):
        said = list(group)
        if any(verdict.outcome == Outcome.OK for _, _, verdict in said):
            continue
        prompt, assignment, verdict = said[0]
        name = assignment.verifier.name
        if verdict.outcome == Outcome.ERROR:
            raise RecipeError(f"prompt {prompt.id}: {name} cannot check its reference: {verdict.detail}")
        if prompt.position not in seen:
            seen.add(prompt.position)
            yield prompt.position, f"{name}: {verdict.detail}"


def to_try(assignment: Assignment) -> bool:
    """Whether it has options of its own, and does not load a model first, which takes minutes and the workers' GPUs."""
    return bool(assignment.params) and assignment.verifier.memory_gib is not None


def try_options(options: Sequence[Asked], pool: Pool, of_rows: bool = True) -> None:
    """RecipeError for options with which the verifier cannot be set up, or raises about an empty completion."""
    for prompt, assignment, verdict in answers(options, pool):
        if verdict.reason == "verifier_failed":
            name, said = assignment.verifier.name, f"the options {assignment.params!s:.200}"
            part = f"reward.parts.{assignment.part.removeprefix(AUDIT)}"
            if of_rows:
                said = f"prompt {prompt.id}: {name} does not take {said} that its row brings for {part}"
            else:
                part += ".audit" if assignment.part.startswith(AUDIT) else ""
                said = f"{part}: {name} does not take {said}"
            raise RecipeError(f"{said}: {verdict.detail}")


def answers(questions: Sequence[Asked], pool: Pool) -> Iterator[tuple[Prompt, Assignment, Verdict]]:
    """In order, AT_ONCE at a time."""
    for start in range(0, len(questions), AT_ONCE):
        some = questions[start : start + AT_ONCE]
        futures = [pool.submit(assignment, [sample_of(prompt)]) for prompt, assignment in some]
        for (prompt, assignment), future in zip(some, futures, strict=True):
            yield prompt, assignment, future.result()[0]


def sample_of(prompt: Prompt) -> Sample:
    """The row with an empty completion."""
    question = str(prompt.messages[-1]["content"]) if prompt.messages else ""
    return Sample(question, "", prompt.answer, messages=prompt.messages, row=prompt.row, group=prompt.id)
