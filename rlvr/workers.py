"""The workers of a run, in this process or on Ray: gone when the block that holds them ends."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

from rlvr.config import ClusterConfig, Recipe
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


def without_trainer(cfg: Recipe) -> Recipe:
    """As if it were never trained: nobody to take turns with, or to be ahead of."""
    return replace(
        cfg,
        cluster=alone(cfg.cluster),
        rollout=replace(cfg.rollout, max_staleness=0),
        trainer=replace(cfg.trainer, ranks=1),
    )


def without_engines(cfg: Recipe) -> Recipe:
    return replace(
        cfg,
        cluster=alone(cfg.cluster),
        rollout=replace(cfg.rollout, max_staleness=0, workers=1, tensor_parallel=1),
        verify=replace(cfg.verify, workers=1),
    )


def alone(cfg: ClusterConfig) -> ClusterConfig:
    """Whoever shared a GPU with another has it whole."""
    if cfg.placement != "colocated":
        return cfg
    return replace(cfg, placement="disaggregated", gpus_per_engine=None, gpus_per_rank=None)


@contextmanager
def sampling(cfg: Recipe) -> Iterator[Pipeline]:
    """Engines and verifiers alone, to sample with the weights of model.path. `cfg` is `without_trainer`."""
    if cfg.cluster.kind == "inline":
        with closing(inline_pipeline(cfg)) as pipeline:
            yield pipeline
        return
    from rlvr.cluster.ray_cluster import RayCluster

    with RayCluster(cfg, trains=False) as cluster:
        yield cluster.pipeline


@contextmanager
def training(cfg: Recipe) -> Iterator[tuple[Any, bool]]:
    """The trainer alone, and whether it has a GPU. `cfg` is `without_engines`."""
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
