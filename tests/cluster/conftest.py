"""One Ray for all tests of the folder; engines without a model, and verifiers that write down what they see."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rlvr.config import ClusterConfig, Recipe
from rlvr.reward_config import PartConfig, RewardConfig, VerifyConfig
from rlvr.types import Completion, Prompt
from tests.rollout.fakes import FakeEngine

PLUGIN = """
import os, time
from rlvr.verify import verifier

def note(folder, what):
    with open(f"{folder}/seen", "a") as seen:
        seen.write(f"{what} {time.time()}\\n")

@verifier("look", timeout_s=20)
def look(sample, folder: str, nap: float = 0.0, deadly: str = ""):
    note(folder, sample.completion)
    time.sleep(nap)
    if sample.completion == deadly or (sample.completion == "1.5" and not os.path.exists(f"{folder}/killed")):
        open(f"{folder}/killed", "w").close()
        os.kill(os.getppid(), 9)  # its actor
        time.sleep(10)
    return float(sample.completion)

@verifier("rank", scope="group")
def rank(samples):
    order = sorted(range(len(samples)), key=lambda i: float(samples[i].completion))
    return [order.index(i) / 10 for i in range(len(samples))]
"""


NOTHING: Any = SimpleNamespace(ahead=1, to=lambda engines: [[{}] * len(engines)])  # weights: a bucket without any


class TextEngine(FakeEngine):
    """A completion is the prompt's number plus its index; each step ends one of them."""

    def __init__(self, folder: str, nap: float):
        super().__init__(nap=nap, max_num_seqs=64)
        self.folder, self.ended = folder, 0

    def step(self):
        time.sleep(self.nap)
        key = next(iter(self.decoding))
        request = self.requests.pop(key)
        del self.decoding[key]
        self.steps += 1
        with open(f"{self.folder}/sampled", "a") as sampled:
            sampled.write(f"{request.prompt.id}/{request.index} {time.time()}\n")
        text = str(float(request.prompt.id) + request.index)
        return [(key, Completion((1,), (True,), (0.0,), self.policy_version, text, "eos"))]


@pytest.fixture(scope="package")
def ray():
    from rlvr.cluster.calls import ray

    ray.init(address="local", include_dashboard=False, log_to_driver=False, num_cpus=2)
    yield ray
    ray.shutdown()


@pytest.fixture
def pipeline(ray, tmp_path):
    """`made(...)` is a RayPipeline over fake engines; `engines_hold_weights` says that a trainer published already."""
    from rlvr.cluster.actors import DECODE, RolloutWorker
    from rlvr.cluster.home import Home
    from rlvr.cluster.pipeline import RayPipeline
    from rlvr.cluster.seats import Seats
    from rlvr.cluster.verifying import VerifierWorker
    from rlvr.rollout.serving import Server

    class FakeWorker(RolloutWorker):
        def __init__(self, folder: str, nap: float):
            self.server = Server(TextEngine(folder, nap))

        def process(self) -> int:
            import os

            return os.getpid()

        def asleep(self) -> bool:
            return self.server.engine.asleep

    (tmp_path / "p.py").write_text(PLUGIN)
    pipelines = []

    def made(nap_engine=0.0, nap=0.0, max_waiting=1000, verifiers=1, engines=2, deadly="", restarts=5):
        look = {"folder": str(tmp_path), "nap": nap, "deadly": deadly}
        reward = RewardConfig(
            {"look": PartConfig(f"{tmp_path}/p.py:look", look), "rank": PartConfig(f"{tmp_path}/p.py:rank")}
        )
        cfg = Recipe(
            name="x", steps=1, reward=reward, verify=VerifyConfig(processes=1, max_waiting=max_waiting),
            cluster=ClusterConfig(restarts=restarts, restart_wait_s=60),
        )  # fmt: skip
        engine = ray.remote(concurrency_groups={DECODE: 1})(FakeWorker).options(num_cpus=0)
        verifier = ray.remote(VerifierWorker).options(num_cpus=0)
        seats = Seats("engine", cfg.cluster, lambda n: engine.remote(str(tmp_path), nap_engine), engines)
        judges = Seats("verifier worker", cfg.cluster, lambda n: verifier.remote(cfg, Home.here()), verifiers)
        ray.get([*seats.begin(), *judges.begin()])
        pipe = RayPipeline(seats, judges, cfg)
        pipelines.append((pipe, seats, judges))
        pipe.told = []
        pipe.tell = pipe.told.append
        pipe.bring = lambda destination: destination.load_weights(NOTHING, 7, [1, 2])
        pipe.bring(pipe)
        return pipe

    yield made
    for pipe, *groups in pipelines:
        pipe.close()
        for group in groups:
            group.kill()


@pytest.fixture
def seen(tmp_path):
    """When each completion was sampled, and looked at."""

    def times(path: Path) -> dict[str, float]:
        return {name: float(at) for name, at in (line.split() for line in path.read_text().splitlines())}

    return SimpleNamespace(
        sampled=lambda: times(tmp_path / "sampled"), looked_at=lambda: times(tmp_path / "seen"), folder=tmp_path
    )


def prompts(count: int, start: float = 0.0) -> list[Prompt]:
    return [Prompt(str(n + start), n, ({"role": "user", "content": "q"},), (1,), "") for n in range(count)]
