"""Starts or joins Ray, places the actors, and dresses them as what the loop expects: one Trainer, one Pipeline.

driver --prompts--> RolloutWorker --completions--> driver --questions--> VerifierWorker --verdicts--> driver
   +-----batch----> TrainerRank(s) --buckets, through the object store--> RolloutWorker(s)
"""

import os
import re
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from rlvr.cluster.actors import DECODE, RolloutWorker, TrainerRank
from rlvr.cluster.calls import WorkerLost, first_failure, get, ray
from rlvr.cluster.home import Home
from rlvr.cluster.pipeline import RayPipeline
from rlvr.cluster.placement import Placement
from rlvr.cluster.seats import Seats
from rlvr.cluster.trainer import RayTrainer
from rlvr.cluster.verifying import VerifierWorker
from rlvr.config import Recipe, RecipeError

CLOSE_S = 5.0  # for verifiers to close what they opened
STARTS = 3  # tries
LONGEST = 50  # characters of a place for sockets: with /rlvr-12345678/ and the 36 of vLLM's names 101, and 107 may be
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}


def hush() -> None:
    """What raylets say of workers that died Ray prints in colour, into whatever stdout is. Whoever waits for such a
    worker is told of it, and says so."""
    ray._private.worker.print_to_stdstream = lambda data, ignore_prefix: None


def start_ray() -> None:
    """On this machine. Ray gives a node 30 s to come up, which is not enough under heavy load: it is tried again."""
    for _ in range(STARTS):
        try:
            with children_apart():
                ray.init(address="local", include_dashboard=False, **QUIET)
            return
        except Exception as error:  # Ray has no type of its own for it
            if "timed out during startup" not in str(error):
                raise
    raise RuntimeError(f"it did not come up within 30 s, {STARTS} times: is this machine overloaded?")


@contextmanager
def children_apart() -> Iterator[None]:
    """What is started meanwhile has process groups of its own: a SIGTERM to ours, as schedulers send it, is for the
    driver to handle, and must not take away the Ray that it needs for its last checkpoint."""
    apart = True
    os.register_at_fork(after_in_child=lambda: os.setpgid(0, 0) if apart else None)
    try:
        yield
    finally:
        apart = False  # the hook stays, there is no way to take it back


@contextmanager
def own_handler() -> Iterator[None]:
    """Whoever handles SIGTERM goes on to do so: Ray's handlers would end this process at once, with nothing saved."""
    ours, of_ray = signal.getsignal(signal.SIGTERM), ray._private.utils.set_sigterm_handler
    if callable(ours):
        ray._private.utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        ray._private.utils.set_sigterm_handler = of_ray
        if callable(ours):
            signal.signal(signal.SIGTERM, ours)  # once more: Ray's native code has one too, which Python does not see


class RayCluster:
    """Ray with this run's actors on it. A context manager: on exit the actors, and a Ray that we started, are gone."""

    def __init__(self, cfg: Recipe, samples: bool = True, trains: bool = True):
        """`samples`: with engines and verifiers; `trains`: with trainer ranks."""
        self.cfg, self.samples, self.trains = cfg, samples, trains

    def __enter__(self) -> "RayCluster":
        joins = self.cfg.cluster.kind == "ray"
        if joins:
            check_address(self.cfg.cluster.address)
        hush()
        try:
            with own_handler():
                if joins:
                    ray.init(address=self.cfg.cluster.address, **QUIET)
                else:
                    start_ray()
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise WorkerLost(f"Ray could not be {'joined' if joins else 'started'}: {error}") from error
        # made by the driver, so that it goes whatever becomes of the actors
        short = None if len(tempfile.gettempdir()) <= LONGEST else "/tmp"
        self.temporary = tempfile.TemporaryDirectory(prefix="rlvr-", dir=short, ignore_cleanup_errors=True)
        try:
            self._start()
        except BaseException:
            self._shut_down()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.pipeline.close()
        closing = [seat.actor.close.remote() for seat in (*self.verifiers.all, *self.engines.all) if seat.up]
        ray.wait(closing, num_returns=len(closing), timeout=CLOSE_S)
        for group in (self.engines, self.verifiers, self.trainer):
            group.kill()
        self.placement.remove()
        self._shut_down()

    def _shut_down(self) -> None:
        ray.shutdown()
        self.temporary.cleanup()

    def _start(self) -> None:
        torch.set_num_threads(1)  # this process has small tensors only, and others want the cores
        cfg, home = self.cfg, Home.here()
        with_model = replace(home, temporary=self.temporary.name)  # verifiers may keep what they like in the usual one
        remote: Any = ray.remote
        engines, verifiers = (cfg.rollout.workers, cfg.verify.workers) if self.samples else (0, 0)
        self.placement = placement = Placement(cfg, engines, cfg.trainer.ranks if self.trains else 0)
        engine = remote(concurrency_groups={DECODE: 1})(RolloutWorker)
        verifier = remote(VerifierWorker)
        rank = remote(TrainerRank)

        def start_engine(n: int) -> Any:
            return engine.options(**placement.engine(n)).remote(cfg, with_model)

        def start_verifier(n: int) -> Any:
            return verifier.options(**placement.verifier()).remote(cfg, home)

        self.trainer = RayTrainer(cfg, lambda n: rank.options(**placement.rank(n)).remote(n, with_model))
        self.engines = Seats("engine", cfg.cluster, start_engine, engines)
        self.verifiers = Seats("verifier worker", cfg.cluster, start_verifier, verifiers)
        starting = [*self.engines.begin(), *self.verifiers.begin()]
        if placement.colocated and placement.gpus:
            get(starting)  # an engine measures what memory is free, which a rank would take meanwhile
        first_failure([*starting, *(self.trainer.begin() if self.trains else [])])
        with_models = [*self.trainer.ranks, *(seat.actor for seat in self.engines.all)]
        self.on_gpu = any(get([actor.has_gpu.remote() for actor in with_models]))  # the driver's node may have none
        self.pipeline = RayPipeline(self.engines, self.verifiers, cfg)
        self.trainer.tell = lambda text: self.pipeline.tell(text)


def check_address(address: str | None) -> None:
    """Whether anything listens there. Ray itself would find out after two minutes."""
    if not address:
        raise RecipeError("cluster=ray needs cluster.address, e.g. auto or head:6379")
    if address.startswith("ray://"):  # Ray's client cannot read what an actor yields
        raise RecipeError(
            f"cluster.address={address}: Ray's client is not enough; run rlvr on a node of the cluster, with "
            "cluster.address=auto"
        )
    if found := re.fullmatch(r"\[?([^\[\]]+?)\]?:(\d+)", address):
        try:
            socket.create_connection((found[1], int(found[2])), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise WorkerLost(f"cluster.address={address}: no Ray cluster answers there: {error}") from None
