"""vLLM on a GPU agrees with the trainer, sleeps, wakes, and shares the GPU with it for a whole run."""

import json
import subprocess
import sys

import pytest
import torch

from rlvr.config import ModelConfig
from rlvr.rollout.engine import generate
from rlvr.train.policy import load_policy
from rlvr.types import Prompt, Sampling

pytestmark = [pytest.mark.gpu, pytest.mark.slow]
PROBE = [3, 9, 27, 81, 243, 5, 15, 45]


def gpu_gb() -> float:
    free, total = torch.cuda.mem_get_info()
    return (total - free) / 2**30


@pytest.fixture(scope="module")
def engine(model_folder):
    from rlvr.rollout.vllm import VllmEngine

    yield VllmEngine(
        model_folder, dtype="bfloat16", max_model_len=512, max_num_seqs=64, gpu_memory_utilization=0.2, sleeps=True
    )
    from vllm.distributed import cleanup_dist_env_and_memory

    cleanup_dist_env_and_memory()


def scored(folder: str, scale: float) -> tuple[list[float], dict[str, torch.Tensor]]:
    """What the trainer's model says of the probe when its weights are `scale` times as large, and those weights."""
    policy = load_policy(ModelConfig(folder, dtype="bfloat16"), False).cuda()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(scale)
        ids = torch.tensor([PROBE], device="cuda")
        hidden = policy.lm.model(
            input_ids=ids, attention_mask=None, use_cache=False,
            position_ids=torch.arange(len(PROBE), device="cuda")[None],
            cu_seq_lens_q=torch.tensor([0, len(PROBE)], dtype=torch.int32, device="cuda"), max_length_q=len(PROBE),
        ).last_hidden_state[0]  # fmt: skip
        logprobs = policy.lm.lm_head(hidden[:-1], ids[0, 1:])[0].tolist()
    weights = {n.removeprefix("lm."): p.detach() for n, p in policy.named_parameters() if "lm_head" not in n}
    return logprobs, weights


def test_weights_are_loaded_and_outlive_a_sleep(engine, model_folder):
    for version, scale in enumerate((1.0, 0.7, 1.2), start=1):
        wanted, weights = scored(model_folder, scale)
        before = gpu_gb()
        engine.sleep()
        assert gpu_gb() < before - 0.5 * 0.2 * torch.cuda.get_device_properties(0).total_memory / 2**30
        engine.wake()
        engine.load_weights([weights], version)
        assert max(abs(x - y) for x, y in zip(engine.score(PROBE), wanted, strict=True)) < 0.05


def test_the_logprobs_of_what_it_samples_are_those_of_the_trainer(engine, model_folder):
    _, weights = scored(model_folder, 1.0)
    engine.load_weights([weights], 9)
    asked = [Prompt("p", 0, ({"role": "user", "content": "1+1"},), tuple(PROBE), "2")]
    ended = [
        e
        for step in generate(engine, asked, Sampling(completions=8, max_tokens=32, temperature=1.0, seed=3))
        for e in step
    ]
    assert len(ended) == 8 and all(e.completion.policy_version == 9 for e in ended)
    policy = load_policy(ModelConfig(model_folder, dtype="float32"), False).cuda()
    for e in ended:
        ids = torch.tensor([[*PROBE, *e.completion.token_ids]], device="cuda")
        with torch.no_grad():
            logits = policy.lm(input_ids=ids, use_cache=False).logits[0, len(PROBE) - 1 : -1].float()
        ours = logits.log_softmax(1).gather(1, ids[0, len(PROBE) :, None])[:, 0].tolist()
        assert max(abs(x - y) for x, y in zip(ours, e.completion.rollout_logprobs, strict=True)) < 0.1


@pytest.mark.parametrize(
    "of",
    [["quickstart"], ["quickstart_tool", "algorithm=grpo", "trainer.lora.rank=8"]],
    ids=["weights", "adapters, a reference and a tool"],
)
def test_engine_and_trainer_share_a_gpu_for_a_whole_run(tmp_path, of):
    words = ["train", *of, "cluster=one_gpu", "steps=4"]
    words += ["rollout.gpu_memory_utilization=0.3", "evaluation.limit=16", f"run.folder={tmp_path / 'run'}"]
    done = subprocess.run([sys.executable, "-m", "rlvr.cli", *words], capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert all(row["mismatch/mean_abs"] < 0.01 for row in rows)
