"""An actor whose GPU has failed is dead, as far as anybody else can see; one that has failed by itself is not."""

import os

import pytest
import torch

from rlvr.cluster import faults
from rlvr.cluster.actors import RolloutWorker, TrainerRank
from rlvr.cluster.home import Home


class Ended(BaseException):
    pass


class Broken:
    """Whatever is asked of it."""

    policy_version = 0

    def __getattr__(self, name):
        def fail(*_, **__):
            raise RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered")

        return fail


class Stream:
    def __init__(self, fails: bool):
        self.fails = fails

    def query(self) -> bool:
        if self.fails:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        return True


@pytest.fixture
def gpu(monkeypatch):
    """`gpu(fails)`: there is one, which has failed or not. A process that ends itself says so instead."""

    def end(code):
        raise Ended(code)

    def use(fails: bool) -> None:
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda: Stream(fails))

    monkeypatch.setattr(os, "_exit", end)
    return use


@pytest.fixture
def workers():
    engine = RolloutWorker.__new__(RolloutWorker)
    engine.server = Broken()
    rank = TrainerRank(0, Home.here())
    rank.trainer = Broken()
    return engine, rank


def asked(workers) -> list:
    engine, rank = workers
    return [
        lambda: engine.score([1, 2]), lambda: next(engine.serve()), lambda: rank.score([1, 2]),
        lambda: next(rank.weights()), lambda: rank.lend_weights(True, True),
    ]  # fmt: skip


def test_a_gpu_that_has_failed_ends_engine_and_rank_whatever_they_do(gpu, workers, capsys):
    gpu(fails=True)
    for call in asked(workers):
        with pytest.raises(Ended, match="1"):
            call()
        assert "Triton Error" in capsys.readouterr().err, "the log of the process says why"


@pytest.mark.parametrize("there_is_one", [True, False])
def test_an_error_of_anything_else_is_raised(gpu, workers, there_is_one):
    if there_is_one:
        gpu(fails=False)
    for call in asked(workers):
        with pytest.raises(RuntimeError, match="Triton Error"):
            call()


def test_ray_finds_a_watched_method_as_it_was():
    assert RolloutWorker.serve.__ray_concurrency_group__ == "decode"

    @faults.dies_with_its_gpu
    class Worker:
        """Answers."""

        def answer(self, n: int) -> int:
            """Twice n."""
            return 2 * n

        def count(self, n):
            yield from range(n)

    assert Worker().answer(3) == 6 and list(Worker().count(3)) == [0, 1, 2]
    assert Worker.answer.__doc__ == "Twice n."


@pytest.mark.slow
def test_the_driver_sees_a_death(ray):
    from rlvr.cluster.calls import WorkerLost, get

    @ray.remote(num_cpus=0)
    @faults.dies_with_its_gpu
    class Worker:
        def __init__(self, fails):
            torch.cuda.is_initialized = lambda: True
            torch.cuda.current_stream = lambda: Stream(fails)

        def serve(self):
            yield 1
            raise torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered")

    for fails, error in ((True, WorkerLost), (False, ray.exceptions.RayTaskError)):
        stream = Worker.remote(fails).serve.options(num_returns="streaming").remote()
        with pytest.raises(error):
            for ref in stream:
                get(ref)
