"""What is kept elsewhere is the same training: optimizer and weights in host memory or on a disk."""

import pytest
from torch.testing import assert_close

from rlvr.config import ModelConfig, RecipeError, TrainerConfig
from tests.train.test_deepspeed import GRPO, batch
from tests.train.test_policy import model_folder  # noqa: F401

pytest.importorskip("deepspeed")
PROBE = [3, 9, 4, 1, 17, 22]


@pytest.fixture(scope="module")
def build(model_folder):  # noqa: F811
    from rlvr.train.deepspeed import DeepSpeedTrainer

    def make(dtype="float32", **cfg) -> DeepSpeedTrainer:
        settings = TrainerConfig(**{"max_grad_norm": 1e9, "micro_batch_tokens": 24, "row_tokens": 12} | cfg)
        return DeepSpeedTrainer(ModelConfig(path=model_folder, dtype=dtype), settings, temperature=1.0)

    return make


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "offload",
    [
        {"zero_stage": 1, "offload_optimizer": "cpu"},
        {"zero_stage": 2, "offload_optimizer": "cpu"},
        {"zero_stage": 3, "offload_optimizer": "cpu"},
        {"zero_stage": 3, "offload_optimizer": "cpu", "offload_parameters": "cpu"},
    ],
    ids=["1", "2", "3", "3 and parameters"],
)
def test_offloaded_it_learns_the_same(build, offload, dtype, tmp_path):
    plain, elsewhere = build(dtype, zero_stage=offload["zero_stage"]), build(dtype, **offload)
    for _ in range(3):
        wanted, got = plain.step(batch(), GRPO, 1e-3), elsewhere.step(batch(), GRPO, 1e-3)
    assert got["policy/grad_norm"] == pytest.approx(wanted["policy/grad_norm"], rel=1e-3)
    assert_close(elsewhere.score(PROBE), plain.score(PROBE), atol=1e-4, rtol=1e-4)
    elsewhere.save(str(tmp_path))
    elsewhere.saved(wait=True)
    again = build(dtype, **offload)
    again.load(str(tmp_path))
    assert again.score(PROBE) == elsewhere.score(PROBE)


def test_a_disk_that_cannot_be_used_is_named(build, tmp_path):
    try:
        trainer = build(zero_stage=3, offload_optimizer="nvme", offload_folder=str(tmp_path))
    except RecipeError as error:
        assert str(error).startswith("trainer.offload_optimizer=nvme: ")
    else:
        trainer.step(batch(), GRPO, 1e-3)
        assert list(tmp_path.rglob("*")), "the optimizer state lies there"
