"""Ray between engines and verifiers: what a completion waits for, who waits for whom, what a dead actor costs."""

import json
import os
import time

import pytest

from rlvr.config import Recipe
from rlvr.reward_config import PartConfig, RewardConfig, VerifyConfig
from rlvr.types import Completion, Ended, Outcome, Prompt, Sampling

pytestmark = pytest.mark.slow

PLUGIN = """
import os, time
from rlvr.verify import verifier

def note(folder, what):
    with open(f"{folder}/seen", "a") as seen:
        seen.write(f"{what} {time.time()}\\n")

@verifier("look", timeout_s=20)
def look(sample, folder: str, nap: float = 0.0):
    note(folder, sample.completion)
    time.sleep(nap)
    if sample.completion == "1.5" and not os.path.exists(f"{folder}/killed"):
        open(f"{folder}/killed", "w").close()
        os.kill(os.getppid(), 9)  # its actor
        time.sleep(10)
    return float(sample.completion)

@verifier("rank", scope="group")
def rank(samples):
    order = sorted(range(len(samples)), key=lambda i: float(samples[i].completion))
    return [order.index(i) / 10 for i in range(len(samples))]
"""


class FakeEngine:
    def __init__(self, folder: str, nap: float):
        self.folder, self.nap = folder, nap

    def generate(self, prompts, sampling):
        for n in range(len(prompts)):
            for i in range(sampling.completions):
                time.sleep(self.nap)
                with open(f"{self.folder}/sampled", "a") as sampled:
                    sampled.write(f"{prompts[n].id}/{i} {time.time()}\n")
                text = str(float(prompts[n].id) + i)
                yield [Ended(n, i, Completion((1,), (True,), (0.0,), 0, text, "eos"))]


@pytest.fixture(scope="module")
def ray():
    from rlvr.cluster import ray_cluster  # sets Ray's environment before it is imported

    ray_cluster.ray.init(address="local", include_dashboard=False, log_to_driver=False, num_cpus=2)
    yield ray_cluster.ray
    ray_cluster.ray.shutdown()


@pytest.fixture
def pipeline(ray, tmp_path):
    from rlvr.cluster.actors import VerifierWorker
    from rlvr.cluster.ray_cluster import RayPipeline

    (tmp_path / "p.py").write_text(PLUGIN)

    def made(nap_engine=0.0, nap=0.0, max_waiting=1000, verifiers=2):
        params = {"folder": str(tmp_path), "nap": nap}
        reward = RewardConfig(
            {"look": PartConfig(f"{tmp_path}/p.py:look", params), "rank": PartConfig(f"{tmp_path}/p.py:rank")}
        )
        cfg = Recipe(name="x", steps=1, reward=reward, verify=VerifyConfig(processes=1, max_waiting=max_waiting))
        engine = ray.remote(FakeEngine).options(num_cpus=0)
        verifier = ray.remote(VerifierWorker).options(num_cpus=0)
        engines = [engine.remote(str(tmp_path), nap_engine) for _ in range(2)]
        workers = [verifier.remote(cfg) for _ in range(verifiers)]
        ray.get([worker.ready.remote() for worker in workers])
        return RayPipeline(engines, workers, cfg)

    return made


def prompts(count: int) -> list[Prompt]:
    return [Prompt(str(n), n, ({"role": "user", "content": "q"},), (1,), "") for n in range(count)]


def times(path) -> dict[str, float]:
    return {name: float(at) for name, at in (line.split() for line in path.read_text().splitlines())}


def test_a_completion_is_verified_while_its_group_is_sampled(pipeline, tmp_path):
    pipe = pipeline(nap_engine=0.4)
    groups = sorted(pipe.groups(prompts(3), Sampling(4, 1.0, 8)), key=lambda group: group.prompt.position)
    assert [[v.parts["look"] for v in g.verdicts] for g in groups] == [[n + i for i in range(4)] for n in range(3)]
    assert [[v.parts["rank"] for v in g.verdicts] for g in groups] == [[0.0, 0.1, 0.2, 0.3]] * 3
    seen, sampled = times(tmp_path / "seen"), times(tmp_path / "sampled")
    assert seen["0.0"] < sampled["0/3"]
    again = pipe.verify(groups)
    assert [[v.reward for v in g.verdicts] for g in again] == [[v.reward for v in g.verdicts] for g in groups]


def test_engines_wait_for_verifiers_that_cannot_keep_up(pipeline, tmp_path):
    pipe = pipeline(nap=0.05, max_waiting=4)
    stream = pipe.groups(prompts(12), Sampling(16, 1.0, 8))
    next(stream)
    sampled, verified = len(times(tmp_path / "sampled")), len((tmp_path / "seen").read_text().splitlines())
    from rlvr.cluster.ray_cluster import AHEAD

    assert sampled - verified <= 4 + 2 * (AHEAD + 2) < 12 * 16 - verified
    assert len(list(stream)) == 11


def test_questions_of_a_dead_actor_are_asked_elsewhere(pipeline, tmp_path):
    pipe = pipeline()
    halves = [Prompt(str(n + 0.5), n, (), (1,), "") for n in range(2)]
    groups = list(pipe.groups(halves, Sampling(2, 1.0, 8)))
    assert (tmp_path / "killed").exists()
    assert {v.outcome for g in groups for v in g.verdicts} == {Outcome.OK}
    assert json.dumps(sorted(v.parts["look"] for g in groups for v in g.verdicts)) == "[0.5, 1.5, 1.5, 2.5]"
    assert os.path.exists(tmp_path / "killed")
