"""Completions in, as they end; groups with verdicts out. Verifiers themselves run in killable processes (`Pool`).

    engine --Ended--> Assembly --questions--> Pool --verdicts--> Assembly --whole groups--> caller
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from time import perf_counter

from rlvr.reward_config import RewardConfig
from rlvr.types import Ended, Group, Prompt, Verdict
from rlvr.verify.assembly import Assembly, Question, laid_out, put_back
from rlvr.verify.plan import Plan
from rlvr.verify.pool import Pool

Answered = tuple[Question, "list[Verdict] | BaseException"]


class Judge:
    """The recipe's reward, computed by `processes` killable processes."""

    def __init__(self, reward: RewardConfig, processes: int, max_waiting: int = 1024):
        self.plan, self.max_waiting = Plan(reward), max_waiting
        self.pool = Pool(self.plan.assignments(), processes)
        self.verifying_s = 0.0  # that someone waited for verdicts when all completions had ended

    def verify(self, prompts: Sequence[Prompt], size: int, ended: Iterable[Sequence[Ended]]) -> Iterator[Group]:
        """Verification of a completion starts as it arrives. With too many waiting, no further one is taken from
        `ended`: the engine pauses. Groups come as they get whole, in any order."""
        assembly, answers = Assembly(self.plan, prompts, size), SimpleQueue[Answered]()
        waiting = 0
        for completions in ended:
            waiting += self._ask(assembly.ended(completions), answers)
            while waiting and (waiting > self.max_waiting or not answers.empty()):
                question, groups = self._next(assembly, answers)
                waiting += question
                yield from groups
        while waiting:
            began = perf_counter()
            question, groups = self._next(assembly, answers)
            waiting += question
            self.verifying_s += perf_counter() - began
            yield from groups

    def verify_group(self, group: Group) -> Group:
        """Completions that are all there already; verdicts that it has are replaced."""
        (done,) = self.verify_groups([group])
        return done

    def verify_groups(self, groups: Sequence[Group]) -> list[Group]:
        """Groups of one size, in order."""
        prompts, completions, size = laid_out(groups)
        return put_back(groups, self.verify(prompts, size, [completions]))

    def _ask(self, questions: Sequence[Question], answers: "SimpleQueue[Answered]") -> int:
        """How many samples have been asked about."""
        for question in questions:
            future = self.pool.submit(question.assignment, question.samples)
            future.add_done_callback(partial(answered, question, answers))
        return sum(len(question.samples) for question in questions)

    def _next(self, assembly: Assembly, answers: "SimpleQueue[Answered]") -> tuple[int, list[Group]]:
        """The change in the number of samples that wait, and the groups that are whole now."""
        question, said = answers.get()
        if isinstance(said, BaseException):
            raise said
        further, groups = assembly.answered(question, said)
        return self._ask(further, answers) - len(question.samples), groups

    def close(self) -> None:
        self.pool.close()


def answered(question: Question, answers: "SimpleQueue[Answered]", done: "Future[list[Verdict]]") -> None:
    answers.put((question, done.exception() or done.result()))
