"""Whole runs whose completions call a tool: the gradient is that of the policy's own tokens, a death costs nothing."""

import json
import re
import signal
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.end_to_end.test_deaths import actors, finish, start, steps, until
from tests.end_to_end.test_runs import SMALL, TINY, rlvr, rows

pytestmark = pytest.mark.slow
CALLS = [
    "rollout.stop=['=']", "rollout.tool.name=rlvr_verifiers.calculator:calculator", "rollout.tool.before=''",
    "rollout.tool.after=''", "rollout.max_tokens=40",
]  # fmt: skip


def records(run: Path) -> list[dict]:
    paths = sorted((run / "completions").glob("step-*.jsonl"))
    lines = [(path, line) for path in paths for line in path.read_text().splitlines()]
    return [{**json.loads(line), "step": int(path.stem.removeprefix("step-"))} for path, line in lines]


def check_answers(found: list[dict]) -> None:
    """Every answer stands behind its `=`, is right, and is no token of the policy's."""
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    calls = 0
    for record in found:
        text, spans = record["completion"], record.get("observed", [])
        mask = record.get("loss_mask", [True] * len(record["token_ids"]))
        for start_at, end in spans:
            before = re.search(r"([0-9()+*/-]+)=$", text[:start_at])
            wanted = eval(before[1]) if before and re.match(r"^\d+[+*-]\d+$", before[1]) else None
            assert wanted is None or text[start_at:end] == str(wanted)
            calls += wanted is not None
        told = "".join(text[start_at:end] for start_at, end in spans)
        others = [token for token, own in zip(record["token_ids"], mask, strict=True) if not own]
        assert tokenizer.decode(others, skip_special_tokens=True) == told
    assert calls > 10


def test_the_gradient_is_that_of_the_policys_own_tokens_and_verdicts_can_be_given_again(tmp_path):
    run = tmp_path / "run"
    still = ["algorithm=dapo", "algorithm.no_signal=keep", "trainer.learning_rate=1e-12", "cluster=inline"]
    plain = ["rollout.engine=transformers", "data.heldout=null", "log.console=false"]
    done = rlvr("train", "quickstart_tool", *SMALL, *still, *plain, f"run.folder={run}")
    assert done.returncode == 0, done.stderr[-3000:]
    check_answers(found := records(run))
    policy = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    for row in rows(run):
        mine = [record for record in found if record["step"] == row["step"]]
        tokens = sum(record["tokens"] for record in mine)
        assert row["tokens/sampled"] == tokens and row["mismatch/max_abs"] < 1e-3
        assert row["tools/calls"] == pytest.approx(sum(len(record.get("observed", ())) for record in mine) / len(mine))
        policy.zero_grad()
        for record in (record for record in mine if record["advantage"] is not None):
            prompt = tokenizer.apply_chat_template(record["messages"], add_generation_prompt=True, return_dict=False)
            ids = torch.tensor([[*prompt, *record["token_ids"]]])
            own = torch.tensor(record.get("loss_mask", [True] * len(record["token_ids"])))
            logprobs = policy(ids).logits[0, len(prompt) - 1 : -1].log_softmax(1)
            of_sampled = logprobs.gather(1, ids[0, len(prompt) :, None])[:, 0][own]
            (-record["advantage"] * of_sampled.sum() / tokens).backward()
        norm = torch.stack([p.grad.norm() for p in policy.parameters()]).norm()
        assert norm > 0.01 and row["policy/grad_norm"] == pytest.approx(float(norm), rel=1e-4)
    again = rlvr("rescore", str(run))
    assert again.returncode == 0 and "; 0 verdicts changed" in again.stdout + again.stderr


def test_through_ray_ahead_with_vllm_an_engine_dies_between_turns(tmp_path):
    folder = tmp_path / "run"
    alone = ["trainer.ranks=1", "trainer.zero_stage=0", "rollout.max_staleness=1", "steps=5", *CALLS]
    run = start(folder, *alone)
    until(run, lambda: len(steps(folder)) >= 2)
    actors(run, "RolloutWorker")[0].send_signal(signal.SIGKILL)
    finish(run)
    done = steps(folder)
    assert [row["step"] for row in done] == [1, 2, 3, 4, 5]
    assert max(row["mismatch/max_abs"] for row in done if not row["staleness/max"]) < 1e-2
    assert all(row["tools/calls"] > 0 and row["tools/failed"] == 0 for row in done)
    check_answers(found := records(folder))
    sampled = [(record["position"], record["index"]) for record in found]
    assert len(sampled) == len(set(sampled))
