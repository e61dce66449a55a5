"""How fast do weights reach the engines, against copying the same bytes in memory once?

    python scripts/bench/transfer.py [--out transfer.json] [--millions 300] [--engines 2] [--dtype bfloat16]

A random model of that size, made on the spot. In turn, in one run: `memcpy`, every tensor copied once within a process;
`inline`, the trainer's buckets loaded by an engine in the same process; `ray`, trainer and engines in processes of
their own, as a run has them, with 1 and with `--engines` engines on this node. Beside the speed: the most that the
object store held, as a share of the model; it does not grow with the engines, which share one copy.
"""

import argparse
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from rlvr.config import ClusterConfig, ModelConfig, Recipe, RolloutConfig, TrainerConfig, VerifyConfig
from rlvr.reward_config import PartConfig, RewardConfig
from rlvr.weights import Loaded

TINY = Path(__file__).resolve().parents[2] / "recipes" / "tiny"
PROBE = [3, 4, 5, 6]
LAYER_MILLIONS = 13.6  # of the shape below


def make_model(folder: Path, millions: float, dtype: str) -> None:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=32_000, hidden_size=1024, intermediate_size=3072, num_attention_heads=16, num_key_value_heads=16,
        head_dim=64, num_hidden_layers=max(1, round((millions - 33) / LAYER_MILLIONS)), tie_word_embeddings=True,
    )  # fmt: skip
    with torch.device("meta"):
        empty = Qwen3ForCausalLM(config)
    model = empty.to(getattr(torch, dtype)).to_empty(device="cpu")
    model.tie_weights()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(TINY / name, folder)


def recipe(folder: str, a: argparse.Namespace, engines: int, placement: str = "disaggregated") -> Recipe:
    return Recipe(
        name="transfer",
        steps=1,
        model=ModelConfig(folder, dtype=a.dtype, max_context=128),
        rollout=RolloutConfig(engine="transformers", workers=engines, max_tokens=8),
        trainer=TrainerConfig(
            ranks=engines if placement == "colocated" else a.ranks, zero_stage=a.zero_stage, bucket_mb=a.bucket_mb
        ),
        reward=RewardConfig({"repetition": PartConfig("repetition")}),
        verify=VerifyConfig(processes=1),
        cluster=ClusterConfig(kind="local", placement=placement),
    )


def timed(of: Callable[[], int], repeats: int, settle: Callable[[], object] = lambda: None) -> dict:
    """`settle` is waited for in between, and not timed."""
    of()  # memory that is touched for the first time is slow
    rates = []
    for _ in range(repeats):
        settle()
        started = perf_counter()
        size = of()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        rates.append(size / (perf_counter() - started) / 1e9)
    return {"gb": size / 1e9, "gb_per_s": median(rates), "rates": rates}


def in_process(folder: str, a: argparse.Namespace) -> dict[str, dict]:
    from rlvr.rollout.build import build_engine
    from rlvr.train.deepspeed import DeepSpeedTrainer

    cfg = recipe(folder, a, 1)
    cfg.trainer.ranks, cfg.trainer.zero_stage = 1, 0
    trainer, engine = DeepSpeedTrainer(cfg.model, cfg.trainer, 1.0), build_engine(cfg)
    source = [p.detach() for p in trainer.engine.module.parameters()]
    target = [torch.empty_like(p) for p in source]

    def memcpy() -> int:
        for to, of in zip(target, source, strict=True):
            to.copy_(of)
        return sum(of.nbytes for of in source)

    def load() -> int:
        engine.load_weights(trainer.weights(), 1)
        return sum(of.nbytes for of in source)

    done = {"memcpy": timed(memcpy, a.repeats), "inline": timed(load, a.repeats)}
    torch.distributed.destroy_process_group()
    return done


class Watch:
    """The most that lies in Ray's shared memory, looked at every few milliseconds."""

    def __enter__(self) -> "Watch":
        import ray

        self.peak, self.going = 0, True
        total = ray.cluster_resources()["object_store_memory"]

        def look() -> None:
            while self.going:
                free = ray.available_resources().get("object_store_memory", total)
                self.peak = max(self.peak, total - free)
                sleep(0.01)

        self.thread = threading.Thread(target=look)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.going = False
        self.thread.join()


def over_ray(folder: str, a: argparse.Namespace, engines: int, placement: str) -> dict:
    from rlvr.cluster.ray_cluster import RayCluster

    with RayCluster(recipe(folder, a, engines, placement)) as cluster:
        trainer, pipeline = cluster.trainer, cluster.pipeline

        loaded = Loaded(0, dict)

        def load() -> int:
            nonlocal loaded
            loaded = pipeline.load_weights(trainer.weights(), 1, PROBE)
            return loaded.nbytes // engines

        with Watch() as watch:
            done = timed(load, a.repeats, lambda: loaded.scores())  # engines score the probe behind it
        wanted = trainer.score(PROBE)
        worst = max(abs(x - y) for s in loaded.scores().values() for x, y in zip(s, wanted, strict=True))
    return done | {"object_store_peak": watch.peak / 1e9 / done["gb"], "probe_max_diff": worst}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=float, default=300)
    parser.add_argument("--engines", type=int, default=2)
    parser.add_argument("--ranks", type=int, default=1, help="trainer ranks of disaggregated runs over Ray")
    parser.add_argument("--placements", nargs="+", default=["disaggregated", "colocated"])
    parser.add_argument("--zero-stage", type=int, default=0)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--bucket-mb", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    a = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder), a.millions, a.dtype)
        done = in_process(folder, a)
        for engines in sorted({1, a.engines}):
            for placement in a.placements:
                done[f"{placement}, {engines}"] = over_ray(folder, a, engines, placement)
    memcpy = done["memcpy"]["gb_per_s"]
    print(f"{done['memcpy']['gb']:.2f} GB of weights in {a.dtype}")
    for name, one in done.items():
        extra = f", object store {one['object_store_peak']:.2f} of the model" if "object_store_peak" in one else ""
        print(f"{name:16} {one['gb_per_s']:6.2f} GB/s to every engine, {one['gb_per_s'] / memcpy:.2f} of memcpy{extra}")
    if a.out:
        settings = {name: value for name, value in vars(a).items() if name != "out"}
        a.out.write_text(json.dumps({"settings": settings, "runs": done}, indent=1) + "\n")


if __name__ == "__main__":
    main()
