"""What is kept elsewhere is the same training: optimizer and weights in host memory or on a disk."""

import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from rlvr.config import RecipeError
from tests.train.test_deepspeed import GRPO, batch

pytest.importorskip("deepspeed")
PROBE = [3, 9, 4, 1, 17, 22]


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
    assert elsewhere._guard.device == elsewhere.device
    for _ in range(3):
        wanted, got = plain.step(batch(), GRPO, 1e-3), elsewhere.step(batch(), GRPO, 1e-3)
    assert got["policy/grad_norm"] == pytest.approx(wanted["policy/grad_norm"], rel=1e-3)
    assert_close(elsewhere.score(PROBE), plain.score(PROBE), atol=1e-4, rtol=1e-4)
    elsewhere.save(str(tmp_path))
    elsewhere.saved(wait=True)
    again = build(dtype, **offload)
    again.load(str(tmp_path))
    assert again.score(PROBE) == elsewhere.score(PROBE)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("offload", ["none", "cpu"])
@pytest.mark.parametrize("zero_stage", [1, 2, 3])
def test_a_gradient_that_is_no_number_leaves_nothing_behind(build, zero_stage, offload, dtype, tmp_path):
    """The step after it, or after the rollback that it led to, is to the bit the step that would have come without."""
    trainer = build(dtype, zero_stage=zero_stage, offload_optimizer=offload)

    def next_weights() -> torch.Tensor:
        assert trainer.step(batch(seed=2), GRPO, 1e-2)["policy/skipped"] == 0.0
        return torch.cat([x.flatten() for bucket in trainer.weights() for x in bucket.values()])

    trainer.step(batch(), GRPO, 1e-2)
    trainer.save(str(tmp_path))
    trainer.saved(wait=True)
    wanted = next_weights()
    for rolls_back in (False, True):
        trainer.load(str(tmp_path))
        nowhere = replace(batch(), advantages_B1=batch().advantages_B1 * math.nan)
        assert trainer.step(nowhere, GRPO, 1e-2)["policy/skipped"] == 1.0
        if rolls_back:
            trainer.load(str(tmp_path))
        assert torch.equal(next_weights(), wanted)


@pytest.mark.slow
@pytest.mark.long  # where libaio is there DeepSpeed compiles for some minutes, once
@pytest.mark.parametrize("optimizer", ["none", "cpu"])
def test_from_a_disk_it_learns_the_same(build, wide_model_folder, optimizer, tmp_path):
    from deepspeed.ops.op_builder import AsyncIOBuilder

    if not AsyncIOBuilder().is_compatible():
        pytest.skip("libaio-dev is not installed")
    places = {"offload_optimizer": optimizer, "offload_parameters": "nvme", "offload_folder": str(tmp_path / "disk")}
    wide = {"path": wide_model_folder, "zero_stage": 3}
    plain, elsewhere = build(**wide), build(**wide, **places)
    for _ in range(3):
        wanted, got = plain.step(batch(), GRPO, 1e-3), elsewhere.step(batch(), GRPO, 1e-3)
    assert got["policy/grad_norm"] == pytest.approx(wanted["policy/grad_norm"], rel=1e-3)
    assert_close(elsewhere.score(PROBE), plain.score(PROBE), atol=1e-4, rtol=1e-4)
    assert [path for path in (tmp_path / "disk").rglob("*") if path.is_file()], "it lies there"
    elsewhere.save(str(tmp_path / "saved"))
    elsewhere.saved(wait=True)
    again = build(**wide, **(places | {"offload_folder": str(tmp_path / "other")}))
    again.load(str(tmp_path / "saved"))
    assert again.score(PROBE) == elsewhere.score(PROBE)
    plain.step(batch(), GRPO, 1e-3)
    again.step(batch(), GRPO, 1e-3)
    assert_close(again.score(PROBE), plain.score(PROBE), atol=1e-4, rtol=1e-4)


def test_a_disk_that_cannot_be_used_is_named(build, tmp_path, monkeypatch):
    from deepspeed.ops.op_builder import AsyncIOBuilder

    monkeypatch.setattr(AsyncIOBuilder, "is_compatible", lambda self: False)
    with pytest.raises(RecipeError, match=r"^trainer\.offload_parameters=nvme: .* install libaio-dev"):
        build(zero_stage=3, offload_parameters="nvme", offload_folder=str(tmp_path))
