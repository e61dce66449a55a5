"""Two ranks, whose shares of the work differ, train as one does, element by element; whatever is sharded is whole where
others see it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from rlvr.config import ModelConfig, TrainerConfig
from rlvr.objective import weightings
from rlvr.trainer_config import LoraConfig
from tests.train.processes import as_ranks, free_port
from tests.train.test_deepspeed import GRPO, LEASHED, batch

pytestmark = pytest.mark.slow
PROBE = [3, 9, 4, 1, 17, 22]
OBJECTIVES = {"grpo": GRPO, "leashed": replace(LEASHED, weighting=weightings.token_mean)}
# (objective, ZeRO stage, rank of the adapters): what two ranks do; one rank does each without ZeRO. Stage 3 comes last,
# as transformers goes on to load models in shards
CASES = [
    ("grpo", 0, 0), ("grpo", 1, 0), ("grpo", 2, 0), ("leashed", 2, 0),
    ("grpo", 3, 0), ("leashed", 3, 0), ("grpo", 3, 4),
]  # fmt: skip


def train(rank: int, ranks: int, port: int, path: str, cases: list[tuple[str, int, int]], out: str) -> None:
    """Two steps of each case, one trainer behind the other: the start of a process is most of what it takes."""
    from rlvr.train.deepspeed import DeepSpeedTrainer

    # chunks of 4 tokens: the ranks need different numbers of them
    sizes = {"micro_batch_tokens": 24, "row_tokens": 12, "logprob_chunk_tokens": 4, "bucket_mb": 1}
    for name, stage, lora_rank in cases:
        objective = OBJECTIVES[name]
        cfg = TrainerConfig(ranks=ranks, zero_stage=stage, lora=LoraConfig(rank=lora_rank), **sizes)
        trainer = DeepSpeedTrainer(ModelConfig(path, dtype="float32"), cfg, 1.0, rank, f"127.0.0.1:{port}")
        gradients = gradients_of(trainer)
        norms, weights = [], []
        for _ in range(2):
            norms.append(trainer.step(batch(objective), objective, 1e-2)["policy/grad_norm"])
            weights.append({name: x.clone() for bucket in trainer.weights() for name, x in bucket.items()})
        said = {"norms": norms, "scores": trainer.score(PROBE), "weights": weights, "gradients": gradients}
        torch.save(said, Path(out, f"{name}-{stage}-{lora_rank}-{ranks}-{rank}"))
        del trainer
    torch.distributed.destroy_process_group()


def gradients_of(trainer) -> list[dict[str, Tensor]]:
    """Of each step, whole, before they are clipped; filled in as the steps are taken."""
    from deepspeed.utils import safe_get_full_grad

    found: list[dict[str, Tensor]] = []
    optimizer = trainer.engine.optimizer
    step = optimizer.step

    def watched(*args, **kwargs):
        trained = [(name, p) for name, p in trainer.engine.module.lm.named_parameters() if p.requires_grad]
        found.append({name: safe_get_full_grad(p).detach().clone() for name, p in trained})
        return step(*args, **kwargs)

    optimizer.step = watched
    return found


@pytest.fixture(scope="module")
def done(model_folder, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    alone = sorted({(objective, 0, lora_rank) for objective, _, lora_rank in CASES})
    for ranks, cases in ((1, alone), (2, CASES)):
        as_ranks(ranks, train, ranks, free_port(), model_folder, cases, str(folder))
    return folder


def flat(tensors: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensors[name].flatten() for name in sorted(tensors)])


@pytest.mark.parametrize(("objective", "stage", "lora_rank"), CASES)
def test_two_ranks_train_as_one_does(done, objective, stage, lora_rank):
    one = torch.load(done / f"{objective}-0-{lora_rank}-1-0")
    first, second = (torch.load(done / f"{objective}-{stage}-{lora_rank}-2-{rank}") for rank in (0, 1))
    for n, within in enumerate((2e-6, 5e-6)):  # the second step's begins with other weights already
        wanted = flat(one["gradients"][n])
        assert_close(flat(first["gradients"][n]), wanted, atol=within * float(wanted.abs().max()), rtol=0)
        assert_close(flat(first["weights"][n]), flat(one["weights"][n]), atol=5e-6, rtol=0)  # of steps of 1e-2
    assert first["norms"] == pytest.approx(one["norms"], rel=5e-6)
    assert first["scores"] == pytest.approx(one["scores"], abs=1e-5)
    assert (first["norms"], first["scores"]) == (second["norms"], second["scores"])
    assert second["weights"] == [{}, {}], "the weights travel once, from rank 0"
