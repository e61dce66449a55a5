"""Starts or joins Ray, places the actors, and dresses them as what the loop expects: one Trainer, one Pipeline.

driver --prompts--> RolloutWorker --completions--> driver --questions--> VerifierWorker --verdicts--> driver
   +-----batch----> TrainerRank(s) --buckets, through the object store--> RolloutWorker(s)
"""

import os
import re
import socket
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

# before Ray is imported: no usage report, no second environment when started by `uv run`, no metrics agents
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_DEDUP_LOGS", "0")
if {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ) or (Path.home() / ".ray" / "auth_token").exists():
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray presents its token unasked only to `auto`, not to an address

import ray

from rlvr.checkpoint.files import Fingerprint
from rlvr.cluster.actors import RolloutWorker, TrainerRank, VerifierWorker
from rlvr.config import Recipe, RecipeError, RunError
from rlvr.objective import Batch, Objective
from rlvr.types import Group, Prompt, Sampling, Verdict
from rlvr.verify.assembly import Assembly, Question, dealt, laid_out, put_back
from rlvr.verify.plan import Plan

AHEAD = 16  # decoding steps with completions that an engine may be ahead of the driver
BUCKETS = 2  # of weights that are made or loaded at a time: what a transfer takes of the object store
CLOSE_S = 5.0  # for verifiers to close what they opened
STARTS = 3  # tries
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}


class WorkerLost(RunError):
    """An actor died or failed; the message says which and why."""


def start_ray() -> None:
    """On this machine. Ray gives a node 30 s to come up, which is not enough under heavy load: it is tried again."""
    for _ in range(STARTS):
        try:
            ray.init(address="local", include_dashboard=False, **QUIET)
            return
        except Exception as error:  # Ray has no type of its own for it
            if "timed out during startup" not in str(error):
                raise
    raise RuntimeError(f"it did not come up within 30 s, {STARTS} times: is this machine overloaded?")


class RayCluster:
    """Ray with this run's actors on it. A context manager: on exit the actors, and a Ray that we started, are gone."""

    def __init__(self, cfg: Recipe):
        self.cfg = cfg

    def __enter__(self) -> "RayCluster":
        joins = self.cfg.cluster.kind == "ray"
        if joins:
            check_address(self.cfg.cluster.address)
        try:
            if joins:
                ray.init(address=self.cfg.cluster.address, **QUIET)
            else:
                start_ray()
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise WorkerLost(f"Ray could not be {'joined' if joins else 'started'}: {error}") from error
        try:
            self._place()
        except BaseException:
            ray.shutdown()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        ray.wait([v.close.remote() for v in self.verifiers], num_returns=len(self.verifiers), timeout=CLOSE_S)
        for actor in (*self.engines, *self.verifiers, *self.ranks):
            ray.kill(actor)
        ray.shutdown()

    def _place(self) -> None:
        cfg = self.cfg
        gpus = ray.cluster_resources().get("GPU", 0.0)
        per_engine = self._gpus(cfg.cluster.gpus_per_engine, cfg.rollout.tensor_parallel, gpus)
        per_rank = self._gpus(cfg.cluster.gpus_per_rank, 1, gpus)
        asked = per_engine * cfg.rollout.workers + per_rank * cfg.trainer.ranks
        if asked > gpus:
            raise RecipeError(
                f"{asked:g} GPUs asked for (rollout.workers={cfg.rollout.workers} x {per_engine:g} + "
                f"trainer.ranks={cfg.trainer.ranks} x {per_rank:g}), the cluster has {gpus:g}: "
                "lower the counts, or cluster.gpus_per_engine and cluster.gpus_per_rank"
            )
        # CPUs are not reserved: the phases alternate, and threads per actor are set by the recipe
        remote: Any = ray.remote
        engine = remote(RolloutWorker).options(num_cpus=0, num_gpus=per_engine)
        verifier = remote(VerifierWorker).options(num_cpus=0, max_restarts=cfg.cluster.restarts)
        trainer = remote(TrainerRank).options(num_cpus=0, num_gpus=per_rank)
        self.engines = [engine.remote(cfg) for _ in range(cfg.rollout.workers)]
        self.verifiers = [verifier.remote(cfg) for _ in range(cfg.verify.workers)]
        self.ranks = [trainer.remote(rank) for rank in range(cfg.trainer.ranks)]
        address = _get(self.ranks[0].free_address.remote())
        built = [rank.build.remote(cfg, address) for rank in self.ranks]
        _get([*built, *(e.policy_version.remote() for e in self.engines), *(v.ready.remote() for v in self.verifiers)])

    def _gpus(self, asked: float | None, default: int, there: float) -> float:
        return asked if asked is not None else (default if there else 0)

    @property
    def trainer(self) -> "RayTrainer":
        return RayTrainer(self.ranks)

    @property
    def pipeline(self) -> "RayPipeline":
        return RayPipeline(self.engines, self.verifiers, self.cfg)


def check_address(address: str | None) -> None:
    """Whether anything listens there. Ray itself would find out after two minutes."""
    if not address:
        raise RecipeError("cluster=ray needs cluster.address, e.g. auto, head:6379 or ray://head:10001")
    if found := re.fullmatch(r"(?:ray://)?\[?([^\[\]]+?)\]?:(\d+)", address):
        try:
            socket.create_connection((found[1], int(found[2])), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise WorkerLost(f"cluster.address={address}: no Ray cluster answers there: {error}") from None


class RayTrainer:
    """All ranks as one. Every call goes to all of them: their methods are collective."""

    def __init__(self, ranks: list[Any]):
        self.ranks = ranks

    def _all(self, method: str, *args: Any) -> Any:
        """Rank 0's answer."""
        return _get([getattr(rank, method).remote(*args) for rank in self.ranks])[0]

    def step(self, batch: Batch, objective: Objective, learning_rate: float) -> dict[str, float]:
        return self._all("step", ray.put(batch), objective, learning_rate)

    def weights(self) -> Iterator[Any]:
        """References to buckets, each as soon as rank 0 has it."""
        streams = [
            rank.weights.options(num_returns="streaming", _generator_backpressure_num_objects=BUCKETS).remote()
            for rank in self.ranks
        ]
        for stream in streams:  # the other ranks gather along, and have nothing of their own
            yield from stream

    def score(self, token_ids: list[int]) -> list[float]:
        return self._all("score", token_ids)

    def save(self, folder: str) -> None:
        self._all("save", folder)

    def saved(self, wait: bool) -> dict[str, Fingerprint] | None:
        """None as long as some rank is still writing."""
        files = _get([rank.saved.remote(wait) for rank in self.ranks])
        return None if None in files else {path: found for rank in files for path, found in rank.items()}

    def load(self, folder: str) -> None:
        self._all("load", folder)

    def export(self, folder: str) -> None:
        self._all("export", folder)


class RayPipeline:
    """Engines and verifiers as one. A completion is asked about the moment it comes from its engine."""

    def __init__(self, engines: list[Any], verifiers: list[Any], cfg: Recipe):
        self.engines, self.verifiers = engines, verifiers
        self.plan, self.max_waiting = Plan(cfg.reward), cfg.verify.max_waiting

    def groups(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Group]:
        """Prompts are dealt round the engines, completions to the verifier with the least to do. With too many of
        them waiting nothing more is taken from the engines, which pause once AHEAD of it."""
        count = len(self.engines)
        shares = [range(i, len(prompts), count) for i in range(count)]
        sampling_ref = ray.put(sampling)
        streams = [
            (engine.generate.options(num_returns="streaming", _generator_backpressure_num_objects=AHEAD).remote(
                [prompts[n] for n in share], sampling_ref), share)
            for engine, share in zip(self.engines, shares, strict=True)
            if share
        ]  # fmt: skip
        assembly, asking = Assembly(self.plan, prompts, sampling.completions), Asking(self.verifiers)
        while streams or asking.refs:
            open_streams = [] if asking.waiting > self.max_waiting else [stream for stream, _ in streams]
            (ready,), _ = ray.wait([*asking.refs, *open_streams], num_returns=1, fetch_local=False)
            share = next((share for stream, share in streams if stream is ready), None)
            if share is None:
                for question, verdicts in asking.answers(ready):
                    further, whole = assembly.answered(question, verdicts)
                    asking.ask(further)
                    yield from whole
                continue
            try:
                ended = _get(next(cast(Any, ready)))
            except StopIteration:
                streams = [entry for entry in streams if entry[0] is not ready]
                continue
            asking.ask(assembly.ended([replace(e, prompt=share[e.prompt]) for e in ended]))

    def verify(self, groups: Sequence[Group]) -> list[Group]:
        asking = Asking(self.verifiers)
        prompts, completions, size = laid_out(groups)
        assembly = Assembly(self.plan, prompts, size)
        asking.ask(assembly.ended(completions))
        done: list[Group] = []
        while asking.refs:
            (ready,), _ = ray.wait(list(asking.refs), num_returns=1)
            for question, verdicts in asking.answers(ready):
                further, whole = assembly.answered(question, verdicts)
                asking.ask(further)
                done += whole
        return put_back(groups, done)

    def load_weights(self, buckets: Iterable[Any], policy_version: int) -> int:
        """Engines load a bucket while the trainer makes the next ones, never more than BUCKETS ahead."""
        size, loading = 0, deque[list[Any]]()
        for bucket in buckets:
            loading.append([engine.load_weights.remote(bucket, policy_version) for engine in self.engines])
            if len(loading) == BUCKETS:
                size += sum(_get(loading.popleft()))
        return size + sum(size for sizes in loading for size in _get(sizes))

    def score(self, token_ids: list[int]) -> list[list[float]]:
        return _get([engine.score.remote(token_ids) for engine in self.engines])

    def newest_version(self) -> int:
        return max(_get([engine.policy_version.remote() for engine in self.engines]))


class Asking:
    """Questions that are with the verifier actors. One whose actor died is asked once more, at another."""

    def __init__(self, verifiers: list[Any]):
        self.verifiers = verifiers
        self.load = [0] * len(verifiers)
        self.refs: dict[Any, tuple[int, list[Question], bool]] = {}  # by whom, what, for the first time?

    @property
    def waiting(self) -> int:
        return sum(self.load)

    def ask(self, questions: Sequence[Question]) -> None:
        for share in dealt(questions, len(self.verifiers)):
            self._send(min(range(len(self.verifiers)), key=self.load.__getitem__), share, first=True)

    def _send(self, verifier: int, questions: list[Question], first: bool) -> None:
        self.load[verifier] += sum(len(question.samples) for question in questions)
        self.refs[self.verifiers[verifier].answer.remote(questions)] = verifier, questions, first

    def answers(self, ref: Any) -> list[tuple[Question, list[Verdict]]]:
        """What came back; nothing when the question had to be sent elsewhere."""
        verifier, questions, first = self.refs.pop(ref)
        self.load[verifier] -= sum(len(question.samples) for question in questions)
        try:
            return list(zip(questions, _get(ref), strict=True))
        except WorkerLost:
            if not first:
                raise
            self._send((verifier + 1) % len(self.verifiers), questions, first=False)
            return []


def _get(refs: Any) -> Any:
    """ray.get, with the actor's own error first: Ray's wrapping hides the line that a user needs."""
    try:
        return ray.get(refs)
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, (RecipeError, RunError)) else error from None
    except ray.exceptions.RayActorError as error:
        cause = error.__cause__ or getattr(error, "cause", None)
        if isinstance(cause, (RecipeError, RunError)):
            raise cause from None
        raise WorkerLost(str(error).strip()) from error
