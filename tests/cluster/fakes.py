"""Actors without Ray: engines and verifier workers whose methods run in the pump's own loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from rlvr.cluster.pipeline import RayPipeline
from rlvr.cluster.seats import Seats
from rlvr.config import ClusterConfig, Recipe, RolloutConfig
from rlvr.reward_config import PartConfig, RewardConfig, VerifyConfig
from rlvr.types import Completion, Outcome, Prompt, Provenance, Verdict


class Said:
    """A reference: of a value, or of an error."""

    def __init__(self, value: Any = None):
        self.value = value

    def future(self) -> Future:
        future: Future = Future()
        if isinstance(self.value, BaseException):
            future.set_exception(self.value)
        else:
            future.set_result(self.value)
        return future

    def __await__(self):
        return asyncio.wrap_future(self.future()).__await__()


class Method:
    """`method.options(...).remote(...)`"""

    def __init__(self, called: Callable):
        self.called = called

    def remote(self, *args):
        return self.called(*args)

    def options(self, **_):
        return self


class Engine:
    """Each request ends at once, in a message of its own, unless it is `held`."""

    def __init__(self, number: int):
        self.todo: list = []
        self.held = False
        self.dead: Exception | None = None
        self.refuses: Exception | None = None
        self.add, self.abort = Method(self._add), Method(self.todo.clear)
        self.serve, self.ready = Method(self._serve), Method(lambda: Said(True))
        self.sleep = Method(lambda: Said(None))

    def _add(self, requests):
        if self.refuses is None:
            self.todo.extend(requests)
        return Said(self.refuses)

    async def _serve(self):
        while self.dead is None:
            if self.held:
                await asyncio.sleep(0.001)
                continue
            if not self.todo:
                await asyncio.sleep(0.01)  # serving.IDLE_S
                return
            request = self.todo.pop(0)
            yield Said([(request.key, Completion((1,), (True,), (0.0,), 0, "x", "eos"))])
            await asyncio.sleep(0)
        raise self.dead


class Verifier:
    """Says 1.0 to everything, once `held` is false."""

    def __init__(self, number: int):
        self.held = False
        self.dead: Exception | None = None
        self.answer, self.ready = Method(self._answer), Method(lambda: Said(self.dead or True))

    async def _answer(self, questions):
        if self.dead:
            raise self.dead
        while self.held:
            await asyncio.sleep(0.01)
        where = (Provenance("look"),)
        return [[Verdict(1.0, Outcome.OK, {"look": 1.0}, provenance=where) for _ in q.samples] for q in questions]


def made(
    folder, engines: int = 1, max_waiting: int = 1000, verifiers: int = 1, max_sequences: int = 256
) -> RayPipeline:
    """A pipeline over these; `pipeline.verifier` is its first verifier worker. `Seats.replace` calls ray.kill."""
    (folder / "p.py").write_text("def look(sample):\n    return 1.0")
    cfg = Recipe(
        name="x", steps=1, reward=RewardConfig({"look": PartConfig(f"{folder}/p.py:look")}),
        verify=VerifyConfig(processes=1, max_waiting=max_waiting), cluster=ClusterConfig(),
        rollout=RolloutConfig(max_sequences=max_sequences),
    )  # fmt: skip
    seats = Seats("engine", cfg.cluster, Engine, engines)
    judges = Seats("verifier worker", cfg.cluster, Verifier, verifiers)
    seats.begin(), judges.begin()
    pipe = RayPipeline(seats, judges, cfg)
    pipe.verifier, pipe.verifiers = judges.all[0].actor, judges.all
    pipe.bring = lambda destination: [pipe.pump.joined(seat, seat.lives) for seat in destination.seats]
    return pipe


def prompts(count: int) -> list[Prompt]:
    return [Prompt(str(n), n, (), (1,), "") for n in range(count)]
