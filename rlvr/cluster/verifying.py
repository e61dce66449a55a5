"""The worker that verifies. Thin, as those that hold the model; apart from them, so that it starts without torch."""

import asyncio

from rlvr.cluster.home import Home
from rlvr.config import Recipe
from rlvr.types import Verdict
from rlvr.verify.assembly import Question
from rlvr.verify.plan import Plan
from rlvr.verify.pool import Pool


class VerifierWorker:
    """Asynchronous, so that many questions are with its processes at a time."""

    def __init__(self, cfg: Recipe, home: Home):
        home.enter()
        self.pool = Pool(Plan(cfg.reward).assignments(), cfg.verify.processes)

    async def answer(self, questions: list[Question]) -> list[list[Verdict]]:
        futures = [self.pool.submit(question.assignment, question.samples) for question in questions]
        return [await asyncio.wrap_future(future) for future in futures]

    async def ready(self) -> bool:
        return True

    async def close(self) -> None:
        self.pool.close()
