"""The workers that hold the model. Thin: whatever they do can be done, and is tested, without Ray."""

import os
import socket
from collections.abc import Iterator

import torch

from rlvr.checkpoint.files import Fingerprint
from rlvr.cluster.batches import Sent, received
from rlvr.cluster.buckets import Lent, Shipped, lend, opened, ship
from rlvr.cluster.calls import ray
from rlvr.cluster.faults import dies_with_its_gpu
from rlvr.cluster.home import Home
from rlvr.config import Recipe
from rlvr.objective import Objective
from rlvr.rollout.engine import Done, Request

DECODE = "decode"  # the concurrency group, of one thread


@dies_with_its_gpu
class RolloutWorker:
    """Decodes in one thread; everything else is called in another one, in order."""

    def __init__(self, cfg: Recipe, home: Home):
        home.enter()
        from rlvr.rollout.build import build_engine
        from rlvr.rollout.serving import Server

        # without one of its own processes an engine can do nothing: it dies whole, and is replaced
        self.server = Server(build_engine(cfg, on_death=lambda: os._exit(1)))

    @ray.method(concurrency_group=DECODE)
    def serve(self) -> Iterator[list[Done]]:
        yield from self.server.serve()

    def add(self, requests: list[Request]) -> None:
        self.server.add(requests)

    def abort(self) -> None:
        self.server.abort()

    def begin_update(self, in_flight: bool) -> None:
        self.server.begin_update(in_flight)

    def load_weights(self, bucket: Shipped | Lent, policy_version: int) -> int:
        """Bytes loaded. Read where they lie, and not needed any more when this returns."""
        tensors = opened(bucket)
        self.server.load(tensors, policy_version)
        if torch.cuda.is_initialized():  # not where a tensor-parallel engine's own processes hold the model
            torch.cuda.synchronize()  # the copies are only queued
        return sum(tensor.nbytes for tensor in tensors.values())

    def end_update(self) -> None:
        self.server.end_update()

    def score(self, token_ids: list[int]) -> list[float]:
        return self.server.score(token_ids)

    def policy_version(self) -> int:
        return self.server.engine.policy_version

    def sleep(self) -> None:
        self.server.engine.sleep()

    def close(self) -> None:
        self.server.engine.close()

    def ready(self) -> bool:
        return True

    def has_gpu(self) -> bool:
        return torch.cuda.is_available()


@dies_with_its_gpu
class TrainerRank:
    def __init__(self, rank: int, home: Home):
        home.enter()
        self.rank, self.bound = rank, socket.socket()

    def address(self) -> str:
        """host:port on this rank's machine, for the other ranks to meet at. Nobody else gets the port until they do."""
        self.bound.bind(("", 0))
        return f"{ray.util.get_node_ip_address()}:{self.bound.getsockname()[1]}"

    def build(self, cfg: Recipe, address: str) -> None:
        from rlvr.train.deepspeed import DeepSpeedTrainer

        self.shares_gpu = cfg.cluster.placement == "colocated" and torch.cuda.is_available()
        self.trainer = DeepSpeedTrainer(
            cfg.model, cfg.trainer, cfg.rollout.temperature, self.rank, address, self.bound
        )
        self.bound.close()  # the other ranks have one each too
        self._make_room()

    def _make_room(self) -> None:
        """Memory that torch has freed and kept for itself goes back to the GPU, where the engine wakes next."""
        if self.shares_gpu:
            torch.cuda.empty_cache()

    def step(self, batch: Sent, objective: Objective, learning_rate: float) -> dict[str, float]:
        metrics = self.trainer.step(received(batch), objective, learning_rate)
        self._make_room()
        return metrics

    def weights(self) -> Iterator[Shipped]:
        """The buckets, on rank 0; Ray copies each into the object store before the next one is gathered."""
        yield from (ship(bucket) for bucket in self.trainer.weights() if bucket)

    def lend_weights(self, first: bool, wanted: bool) -> Lent | None:
        """The first or next bucket for an engine on this rank's device, to be read before the next one is asked for;
        empty where it is not wanted, None after the last."""
        if first:
            self.buckets = self.trainer.weights(everywhere=True)
        bucket = next(self.buckets, None)
        self.lent = {n: t.clone() for n, t in bucket.items()} if wanted and bucket else {}
        return None if bucket is None else lend(self.lent)

    def score(self, token_ids: list[int]) -> list[float]:
        return self.trainer.score(token_ids)

    def save(self, folder: str) -> None:
        self.trainer.save(folder)

    def saved(self, wait: bool) -> dict[str, Fingerprint] | None:
        return self.trainer.saved(wait)

    def load(self, folder: str) -> None:
        self.trainer.load(folder)
        self._make_room()

    def export(self, folder: str) -> None:
        self.trainer.export(folder)
        self._make_room()

    def process(self) -> int:
        return os.getpid()

    def has_gpu(self) -> bool:
        return torch.cuda.is_available()
