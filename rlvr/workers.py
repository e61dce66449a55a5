"""The workers of a run, in this process or on Ray: gone when the block that holds them ends."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

from rlvr.config import Recipe
from rlvr.probe import tolerated
from rlvr.rollout.rollouts import Pipeline


@contextmanager
def workers(cfg: Recipe) -> Iterator[tuple[Any, Pipeline, Callable[[], str | None], bool]]:
    """Trainer and pipeline, wherever the recipe wants them. The function brings dead trainer ranks back, and says so;
    None where none was dead. And whether any of them has a GPU."""
    if cfg.cluster.kind == "inline":
        with closing(inline_pipeline(cfg)) as pipeline:
            trainer = inline_trainer(cfg)
            yield trainer, pipeline, lambda: None, trainer.cuda
        return
    from rlvr.cluster.ray_cluster import RayCluster

    with RayCluster(cfg) as cluster:
        yield cluster.trainer, cluster.pipeline, cluster.trainer.revive, cluster.on_gpu


@contextmanager
def sampling(cfg: Recipe) -> Iterator[Pipeline]:
    """Engines and verifiers alone, to sample with the weights of model.path."""
    if cfg.cluster.kind == "inline":
        with closing(inline_pipeline(cfg)) as pipeline:
            yield pipeline
        return
    from rlvr.cluster.ray_cluster import RayCluster

    with RayCluster(cfg, trains=False) as cluster:
        yield cluster.pipeline


@contextmanager
def training(cfg: Recipe) -> Iterator[tuple[Any, bool]]:
    """The trainer alone, and whether it has a GPU."""
    if cfg.cluster.kind == "inline":
        trainer = inline_trainer(cfg)
        yield trainer, trainer.cuda
        return
    from rlvr.cluster.ray_cluster import RayCluster

    with RayCluster(cfg, samples=False) as cluster:
        yield cluster.trainer, cluster.on_gpu


def inline_pipeline(cfg: Recipe) -> Any:
    from rlvr.rollout.build import build_engine
    from rlvr.rollout.pipeline import InlinePipeline
    from rlvr.verify import Judge

    return InlinePipeline(build_engine(cfg), Judge(cfg.reward, cfg.verify.processes, cfg.verify.max_waiting))


def inline_trainer(cfg: Recipe) -> Any:
    from rlvr.train.deepspeed import DeepSpeedTrainer

    return DeepSpeedTrainer(cfg.model, cfg.trainer, cfg.rollout.temperature)


def probe_tolerance(cfg: Recipe, on_gpu: bool, *dtypes: str) -> float:
    """Of logprobs in nats, between implementations that compute in `dtypes`. `on_gpu` says what `auto` is."""
    exact = {"float32"} if on_gpu else {"float32", "auto"}
    return tolerated(cfg.trainer.probe_tolerance, exact.issuperset(dtypes))
