"""Algorithms in whole runs: a reference on every rank, several optimizer steps a batch, cut-off sampling."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.end_to_end.test_runs import SMALL, TINY, rlvr, rows

pytestmark = pytest.mark.slow
TRANSFORMERS = ["rollout.engine=transformers", "data.heldout=null", "log.console=false"]


@pytest.mark.long
def test_a_sharded_offloaded_reference_on_two_ranks_says_what_a_whole_one_on_one_does(tmp_path):
    grpo = ["algorithm=grpo", "algorithm.kl.coefficient=1.0", "trainer.learning_rate=2e-3", *TRANSFORMERS]
    sharded = ["trainer.ranks=2", "trainer.zero_stage=3", "trainer.offload_reference=true"]
    for name, more in {"one": ["cluster=inline"], "two": sharded}.items():
        done = rlvr("train", "quickstart", *SMALL, *grpo, *more, f"run.folder={tmp_path / name}")
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = rows(tmp_path / "one"), rows(tmp_path / "two")
    assert one[-1]["policy/kl_ref"] > 1e-4  # the policy has left the reference
    for name in ("policy/kl_ref", "policy/loss", "policy/grad_norm", "reward/mean"):
        assert [row[name] for row in two] == pytest.approx([row[name] for row in one], rel=2e-3, abs=1e-5), name


def test_several_optimizer_steps_on_truncated_samples_with_the_real_engine(tmp_path):
    sampling = ["rollout.top_k=8", "rollout.top_p=0.95", "trainer.epochs=2", "trainer.mini_batches=2"]
    settings = [*SMALL, "algorithm=deepseek_v32", *sampling, "cluster=inline", "data.heldout=null"]
    done = rlvr("train", "quickstart", *settings, f"run.folder={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr[-3000:]
    for row in rows(tmp_path / "run"):
        # against the whole softmax it would be up to -log 0.95 = 0.05
        assert row["mismatch/max_abs"] < 1e-3
        assert row["policy/ratio_mean"] != 1.0 and row["mismatch/ess"] > 0.99
        assert "policy/kl_ref" in row and "mismatch/masked" in row


@pytest.mark.parametrize("algorithm", ["grpo_no_kl", "dapo"])
def test_the_gradient_is_that_of_the_formula_on_what_was_recorded(tmp_path, algorithm):
    """Computed anew, a completion at a time and without the trainer: sum over all tokens of w A grad log pi."""
    still = [f"algorithm={algorithm}", "algorithm.no_signal=keep", "trainer.learning_rate=1e-12", "cluster=inline"]
    done = rlvr("train", "quickstart", *SMALL, *TRANSFORMERS, *still, f"run.folder={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr[-3000:]
    policy = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    for row in rows(tmp_path / "run"):
        path = tmp_path / "run" / "completions" / f"step-{row['step']:06d}.jsonl"
        records = [json.loads(line) for line in path.read_text().splitlines()]
        records = [record for record in records if record["advantage"] is not None]
        tokens = sum(record["tokens"] for record in records)
        policy.zero_grad()
        for record in records:
            prompt = tokenizer.apply_chat_template(record["messages"], add_generation_prompt=True, return_dict=False)
            ids = torch.tensor([[*prompt, *record["token_ids"]]])
            logprobs = policy(ids).logits[0, len(prompt) - 1 : -1].log_softmax(1)
            of_sampled = logprobs.gather(1, ids[0, len(prompt) :, None])
            weight = 1 / tokens if algorithm == "dapo" else 1 / (len(records) * record["tokens"])
            (-weight * record["advantage"] * of_sampled.sum()).backward()
        norm = torch.stack([p.grad.norm() for p in policy.parameters()]).norm()
        assert norm > 0.01 and row["policy/grad_norm"] == pytest.approx(float(norm), rel=1e-4)
