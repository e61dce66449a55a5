"""Two ranks, whose shares of the work differ, train as one does; whatever is sharded is whole where others see it."""

import json
from pathlib import Path

import pytest
import torch

from rlvr.config import ModelConfig, TrainerConfig
from rlvr.trainer_config import LoraConfig
from tests.train.processes import as_ranks, free_port
from tests.train.test_deepspeed import GRPO, batch

pytestmark = pytest.mark.slow
PROBE = [3, 9, 4, 1, 17, 22]


def train(rank: int, ranks: int, port: int, path: str, lora_rank: int, out: str) -> None:
    from rlvr.train.deepspeed import DeepSpeedTrainer

    # chunks of 4 tokens: the ranks need different numbers of them
    sizes = {"micro_batch_tokens": 24, "row_tokens": 12, "logprob_chunk_tokens": 4, "bucket_mb": 1}
    cfg = TrainerConfig(ranks=ranks, zero_stage=3 if ranks > 1 else 0, lora=LoraConfig(rank=lora_rank), **sizes)
    trainer = DeepSpeedTrainer(ModelConfig(path, dtype="float32"), cfg, 1.0, rank, f"127.0.0.1:{port}")
    norms = [trainer.step(batch(), GRPO, 1e-2)["policy/grad_norm"] for _ in range(2)]
    sums = {name: float(x.double().sum()) for bucket in trainer.weights() for name, x in bucket.items()}
    Path(out, f"{ranks}-{rank}.json").write_text(json.dumps([norms, trainer.score(PROBE), sums]))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_two_ranks_of_zero_3_train_as_one_without(model_folder, tmp_path, lora_rank):
    for ranks in (1, 2):
        as_ranks(ranks, train, ranks, free_port(), model_folder, lora_rank, str(tmp_path))
    one, first, second = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("1-0", "2-0", "2-1"))
    assert first[0] == pytest.approx(one[0], rel=1e-4) and first[1] == pytest.approx(one[1], abs=1e-4)
    assert first[2] == pytest.approx(one[2], rel=1e-3, abs=1e-3)
    assert first[:2] == second[:2] and second[2] == {}, "the weights travel once, from rank 0"
