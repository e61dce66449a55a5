"""TRL's side of the comparison: its own GRPOTrainer, as it comes. Runs in the interpreter that has TRL.

    <TRL's python> scripts/bench/against_trl_peer.py <settings.json> <answer.json>

Knows TRL, nothing of rlvr. What differs from TRL's defaults is what both sides are given (against_trl.py), and what
makes TRL faster on a CPU: float32 instead of bfloat16, no gradient checkpointing, no progress bar.
"""

import json
import sys
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from against_trl_rewards import arithmetic, matching
from datasets import Dataset
from transformers import AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer


class Timed(GRPOTrainer):
    """Adds a clock around the sampling."""

    generating = 0.0

    def _generate(self, *args: Any, **kwargs: Any) -> Any:
        started = perf_counter()
        try:
            return super()._generate(*args, **kwargs)
        finally:
            self.generating += perf_counter() - started


class Clock(TrainerCallback):
    def __init__(self) -> None:
        self.ticks: list[tuple[float, float]] = []
        self.trainer: Any = None

    def tick(self) -> None:
        self.ticks.append((perf_counter(), self.trainer.generating))

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.tick()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.tick()


def main() -> None:
    asked = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(asked["threads"])
    rows = [json.loads(line) for line in Path(asked["data"]).read_text().splitlines()]
    prompts = [{"prompt": [{"role": "user", "content": r["problem"]}], "answer": r["answer"]} for r in rows]
    completions = asked["groups"] * asked["group_size"]
    config = GRPOConfig(
        output_dir=asked["out"], max_steps=asked["steps"], seed=asked["seed"], shuffle_dataset=False,
        per_device_train_batch_size=asked["micro_batch"],
        gradient_accumulation_steps=completions // asked["micro_batch"],
        num_generations=asked["group_size"], max_completion_length=asked["max_tokens"],
        learning_rate=asked["learning_rate"], lr_scheduler_type="constant", warmup_steps=0, weight_decay=0.0,
        adam_beta1=asked["betas"][0], adam_beta2=asked["betas"][1], max_grad_norm=1.0, optim="adamw_torch",
        beta=0.0, loss_type="grpo", scale_rewards="group", epsilon=0.2, temperature=1.0,
        use_cpu=True, bf16=False, gradient_checkpointing=False, model_init_kwargs={"dtype": "float32"},
        torch_compile=asked["compiled"], logging_steps=1, report_to="none", save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    clock = Clock()
    trainer = Timed(
        model=asked["model"],
        reward_funcs=matching(asked["pattern"]) if asked["pattern"] else arithmetic,
        args=config,
        train_dataset=Dataset.from_list(prompts),
        processing_class=AutoTokenizer.from_pretrained(asked["model"]),
        callbacks=[clock],
    )
    clock.trainer = trainer
    trainer.train()
    trainer.save_model(asked["out"])
    steps = []
    for (before, sampled_before), (now, sampled) in pairwise(clock.ticks):
        rollout = sampled - sampled_before
        steps.append({"time/step": now - before, "time/rollout": rollout, "time/train": now - before - rollout})
    logs = [log for log in trainer.state.log_history if "completions/mean_length" in log]
    for step, log in zip(steps, logs, strict=True):
        step["tokens/sampled"] = log["completions/mean_length"] * completions
        step["completions/length_max"] = log["completions/max_length"]
        step["reward/mean"] = log["reward"]
    versions = {name: version(name) for name in ("trl", "transformers", "accelerate", "torch")}
    Path(sys.argv[2]).write_text(json.dumps({"steps": steps, "versions": versions}))


if __name__ == "__main__":
    main()
