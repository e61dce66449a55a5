"""Engines and verifiers as one Pipeline: groups to whoever waits for them, weights to every engine."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from typing import Any

from rlvr.cluster.calls import WorkerLost, get
from rlvr.cluster.pump import Order, Pump
from rlvr.cluster.seats import Seat, Seats
from rlvr.cluster.trainer import Weights
from rlvr.config import Recipe
from rlvr.types import Group, Prompt, Sampling
from rlvr.verify.assembly import Assembly, laid_out, put_back
from rlvr.verify.plan import Plan
from rlvr.weights import Destination, Loaded


class RayPipeline:
    """A completion is asked about the moment it comes from its engine. `groups` begins at once, whether or not its
    result is read: sampling goes on while the trainer trains."""

    def __init__(self, engines: Seats, verifiers: Seats, cfg: Recipe):
        self.cfg, self.plan = cfg, Plan(cfg.reward)
        self.seats = engines
        self.tell: Callable[[str], None] = lambda text: None
        self.bring: Callable[[Destination], Any] | None = None  # the weights, to an engine that is new
        self.pump = Pump(
            engines, verifiers, cfg.verify.max_waiting, cfg.rollout.max_sequences, lambda text: self.tell(text)
        )
        self.pump.welcome = self._welcome
        self.resting = False  # nobody is given weights, which would wake it
        self.verifying_s = 0.0

    def groups(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Group]:
        assembly = Assembly(self.plan, prompts, sampling.completions)
        return self._arriving(self.pump.order(assembly, prompts, sampling))

    def verify(self, groups: Sequence[Group]) -> list[Group]:
        prompts, completions, size = laid_out(groups)
        order = self.pump.judge(Assembly(self.plan, prompts, size), completions, len(groups))
        return put_back(groups, self._arriving(order))

    def flush(self) -> None:
        self.pump.flush()

    def rest(self) -> None:
        """Colocated, every engine sleeps when this returns. One that is being replaced is waited for: training would
        take the memory that it starts with."""
        awake = list(self.seats.all) if self.cfg.cluster.placement == "colocated" else []
        self.resting = True
        try:
            while awake:
                asleep = self.of(awake, "sleep")
                awake = [seat for seat in awake if seat.name not in asleep]
                if awake:
                    self.pump.due()()  # which tell of its death, and then that it is there
        finally:
            self.resting = False

    def load_weights(self, buckets: Weights, policy_version: int, probe: list[int]) -> Loaded:
        return Engines(self, self.seats.all).load_weights(buckets, policy_version, probe)

    def newest_version(self) -> int:
        return max(self.of(self.seats.all, "policy_version").values(), default=-1)

    def of(self, seats: Sequence[Seat], method: str, *args: Any) -> dict[str, Any]:
        """The answers of those that are alive, by their names."""
        asked = [(seat, seat.lives, getattr(seat.actor, method).remote(*args)) for seat in seats if seat.up]
        return self.answers(asked)

    def answers(self, asked: Sequence[tuple[Seat, int, Any]]) -> dict[str, Any]:
        said = {}
        for seat, lives, ref in asked:
            try:
                said[seat.name] = get(ref)
            except WorkerLost as error:
                self.pump.died(seat, lives, str(error))
        return said

    def close(self) -> None:
        self.pump.close()

    def _arriving(self, order: Order) -> Iterator[Group]:
        while order.left:
            began = perf_counter()
            while not order.arrived:
                self.pump.due()()  # a group for this order or another, or something to be done in this thread
            self.verifying_s += max(0.0, perf_counter() - max(began, order.sampled))
            order.left -= 1
            yield order.arrived.popleft()

    def _welcome(self, seat: Seat) -> None:
        """The trainer is idle when someone waits for groups: it holds what was published last. Where nothing has been,
        engines sample with the weights that they start with. Who is to rest gets the next ones, as all do."""
        if seat.ready or self.resting:
            return
        if self.bring is None:
            self.pump.joined(seat, seat.lives)
        else:
            self.bring(Engines(self, [seat]))


class Engines:
    """Some of the engines, as a destination for weights. One that dies on the way is replaced, and gets them later."""

    def __init__(self, pipeline: RayPipeline, seats: Sequence[Seat]):
        self.pipeline, self.seats = pipeline, [seat for seat in seats if seat.up]
        self.lives = [seat.lives for seat in self.seats]

    def load_weights(self, buckets: Weights, policy_version: int, probe: list[int]) -> Loaded:
        """An engine does what it is asked in order, so nothing is waited for on the way but room for a bucket: the
        trainer makes the first ones while engines finish what they decode."""
        asked = deque([self._send("begin_update", [(self.pipeline.cfg.rollout.update_in_flight,)] * len(self.seats))])
        said: list[int | None] = []
        for refs in buckets.to([self.pipeline.seats.all.index(seat) for seat in self.seats]):
            asked.append(self._send("load_weights", [(ref, policy_version) for ref in refs]))
            while len(asked) >= buckets.ahead:
                said += self.pipeline.answers(asked.popleft()).values()
        scores = self._send("score", [(probe,)] * len(self.seats))
        ended = self._send("end_update", [()] * len(self.seats))
        for each in asked:
            said += self.pipeline.answers(each).values()
        for seat, lives in zip(self.seats, self.lives, strict=True):
            self.pipeline.pump.joined(seat, lives)

        def scored() -> dict[str, list[float]]:
            self.pipeline.answers(ended)
            return self.pipeline.answers(scores)

        return Loaded(sum(size for size in said if size is not None), scored)

    def _send(self, method: str, args: Sequence[tuple]) -> list[tuple[Seat, int, Any]]:
        """Each its own arguments."""
        return [
            (seat, lives, getattr(seat.actor, method).remote(*own))
            for seat, lives, own in zip(self.seats, self.lives, args, strict=True)
            if seat.up and seat.lives == lives
        ]
