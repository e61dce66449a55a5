"""Places for actors that may die: one is replaced by another in the same place. Knows no completion and no verdict."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from rlvr.cluster.calls import LOST, Budget, ray, unplaced, why
from rlvr.config import ClusterConfig

Say = Callable[[str], None]


@dataclass(eq=False)  # one of many is looked for by what it is, not by all that it owes
class Seat:
    """An actor, and what it has been given to do."""

    name: str
    actor: Any
    up: bool = True  # false while a dead one is being replaced
    ready: bool = True  # may be given work; an engine that is up lacks its weights at first
    owed: dict[Any, Any] = field(default_factory=dict)  # by key, what has not been answered
    lives: int = 0  # so many actors have sat here before
    heard: float = field(default_factory=monotonic)  # when it last answered, or was given something to do

    def silent(self, seconds: float) -> bool:
        """It owes something, and nothing has been heard of it for so long."""
        return self.up and bool(self.owed) and monotonic() - self.heard > seconds

    def fell(self, lives: int) -> bool:
        """The `lives`th actor was found dead. False where that was known."""
        news = self.up and self.lives == lives
        if news:
            self.up = self.ready = False
        return news


@dataclass
class Seats:
    """The seats of one kind. `start(n)` makes the actor of the nth; its `ready` answers once it can be called."""

    kind: str
    cfg: ClusterConfig
    start: Callable[[int], Any]
    count: int
    all: list[Seat] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.budget = Budget(f"{self.kind}s", self.cfg)

    def begin(self) -> list[Any]:
        """Starts the actors; what to wait for until they can be called."""
        self.all = [Seat(f"{self.kind} {n}", self.start(n)) for n in range(self.count)]
        return [seat.actor.ready.remote() for seat in self.all]

    async def replace(self, seat: Seat, say: Say, reason: str) -> None:
        """Another actor in this place, after a while. WorkerLost when there were too many."""
        while True:
            pause = self.budget.spend(seat.name, reason, seat.name)
            said = f", again in {pause:g} s" if pause else ""
            say(f"{seat.name} died ({reason}): it is replaced{said}")
            ray.kill(seat.actor)
            await asyncio.sleep(pause)
            seat.actor = self.start(self.all.index(seat))
            try:
                await asyncio.wait_for(asyncio.wrap_future(seat.actor.ready.remote().future()), self.cfg.restart_wait_s)
            except (*LOST, ray.exceptions.RayTaskError) as error:
                reason = why(error)
            except TimeoutError:
                ray.kill(seat.actor)
                raise unplaced(seat.name, self.cfg) from None
            else:
                seat.lives += 1
                seat.up = True  # `ready` is for whoever gives it work to say
                return

    def kill(self) -> None:
        for seat in self.all:
            ray.kill(seat.actor)
