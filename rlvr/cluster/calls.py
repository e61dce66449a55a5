"""Calls to actors: whose fault it is when one fails, and how often a dead one is replaced."""

import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

# before Ray is imported: no usage report, no second environment when started by `uv run`, no metrics agents
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_DEDUP_LOGS", "0")
os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # of ranks that a dead one took along: it is what is told of
os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 lets anything else on the machine starve the run
if {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ) or (Path.home() / ".ray" / "auth_token").exists():
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray presents its token unasked only to `auto`, not to an address

import ray

from rlvr.config import ClusterConfig, RecipeError, RunError

LONGEST_WAIT_S = 60.0  # before one more try
TOGETHER_S = 60.0  # within which a node's actors are found dead: those with work at once, others when next asked
# the actor is gone, Ray's memory monitor has killed it, or what it had made went with its node
LOST = (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError, ray.exceptions.ObjectLostError)
OURS = {f"{kind.__module__}.{kind.__name__}": kind for kind in (RecipeError, RunError)}


class WorkerLost(RunError):
    """An actor died; the message says which and why."""


def get(refs: Any) -> Any:
    """ray.get, with the actor's own error first: Ray's wrapping hides the line that a user needs."""
    try:
        return ray.get(refs)
    except ray.exceptions.RayTaskError as error:
        raise own(error) from None
    except LOST as error:
        name, _, said = why(error).partition(": ")
        if kind := OURS.get(name):  # raised where the actor was made: its text is all that Ray keeps of it
            raise kind(said) from None
        raise WorkerLost(why(error)) from error


def own(error: ray.exceptions.RayTaskError) -> Exception:
    """The error that the actor's code raised, where it says all; else with Ray's traceback of it."""
    return error.cause if isinstance(error.cause, (RecipeError, RunError)) else error


def why(error: BaseException) -> str:
    """Ray's reason without its tables: what happened, and how it is known."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, ray.exceptions.OutOfMemoryError):  # how much, of how much; then pages of figures and advice
        return " ".join(lines[:2])[:400]
    if getattr(error, "actor_init_failed", False):
        return lines[-1][:1000]  # the error itself; before it the traceback
    return " ".join(dict.fromkeys([*lines[:1], *lines[-1:]]))[:400] or type(error).__name__


def unplaced(who: str, cfg: ClusterConfig) -> WorkerLost:
    return WorkerLost(
        f"{who} died and could not be placed anew within cluster.restart_wait_s={cfg.restart_wait_s:g}: "
        "is there a node with room for it?"
    )


def first_failure(refs: list[Any]) -> Any:
    """All answers of a collective call, in order. The error of a dead actor comes before what it does to the others,
    which may wait for it for ever."""
    left = list(refs)
    while left:
        ready, left = ray.wait(left, num_returns=1, fetch_local=False)
        get(ready)
    return get(refs)


class Budget:
    """How many deaths of one kind of worker are made good: `cluster.restarts` within `cluster.restart_hours`."""

    def __init__(self, kind: str, cfg: ClusterConfig, clock: Callable[[], float] = monotonic):
        self.kind, self.limit, self.window_s, self.clock = kind, cfg.restarts, cfg.restart_hours * 3600, clock
        self.deaths = deque[float]()
        self.fell: set[str | None] = {None}  # the seats that died in the last of them

    def spend(self, who: str, reason: str, seat: str | None = None) -> float:
        """Seconds to wait before the next try: none the first time, then 1, 2, 4, ... WorkerLost beyond the limit.
        Deaths of several seats that come together are one, as a node takes along all that are on it."""
        now = self.clock()
        while self.deaths and self.deaths[0] < now - self.window_s:
            self.deaths.popleft()
        if seat not in self.fell and self.deaths and now - self.deaths[-1] <= TOGETHER_S:
            self.fell.add(seat)
            return self._pause()
        if len(self.deaths) >= self.limit:
            raise WorkerLost(
                f"{who} died ({reason}); {len(self.deaths)} deaths of {self.kind} within "
                f"cluster.restart_hours={self.window_s / 3600:g} were made good, no more than "
                f"cluster.restarts={self.limit}"
            )
        self.deaths.append(now)
        self.fell = {None, seat}
        return self._pause()

    def _pause(self) -> float:
        return 0.0 if len(self.deaths) == 1 else min(2.0 ** (len(self.deaths) - 2), LONGEST_WAIT_S)
