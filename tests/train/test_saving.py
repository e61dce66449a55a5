"""What a rank saves while it trains on is what it was, and comes back bit for bit, on another number of ranks too."""

import errno
import gc
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import SafetensorError

from rlvr.checkpoint.writer import WriteFailed
from rlvr.config import ModelConfig, RunError, TrainerConfig
from rlvr.trainer_config import LoraConfig
from tests.train.processes import as_ranks, free_port
from tests.train.test_deepspeed import GRPO, batch, weights

pytest.importorskip("deepspeed")


def build(folder: str, rank: int = 0, address: str = "", dtype: str = "float32", **cfg):
    from rlvr.train.deepspeed import DeepSpeedTrainer

    gc.collect()  # while a ZeRO-3 trainer lives on, transformers loads every model in shards
    settings = TrainerConfig(**{"weight_decay": 0.1, "micro_batch_tokens": 24, "row_tokens": 12} | cfg)
    return DeepSpeedTrainer(ModelConfig(path=folder, dtype=dtype), settings, 1.0, rank, address)


def test_the_conversion_does_not_import_from_the_folder_that_a_run_is_started_in(tmp_path, monkeypatch):
    from rlvr.train.saving import to_universal

    (tmp_path / "json.py").write_text("raise ImportError('the json of the current folder')\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match="cannot be converted") as refused:
        to_universal(tmp_path / "nowhere", tmp_path / "universal")
    assert "of the current folder" not in str(refused.value)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_trainer_goes_on_from_what_it_saved_as_if_nothing_had_been(model_folder, tmp_path, stage):
    trainer = build(model_folder, zero_stage=stage)
    trainer.step(batch(seed=1), GRPO, 1e-2)
    trainer.save(str(tmp_path))
    trainer.step(batch(seed=2), GRPO, 1e-2)  # the file is of before, however long it takes to write
    files = trainer.saved(wait=True)
    assert {Path(name) for name in files} == {path for path in tmp_path.rglob("*.pt")}
    expected, scored = weights(trainer).clone(), trainer.score([1, 2, 3])
    trainer.step(batch(seed=3), GRPO, 1e-2)
    trainer.load(str(tmp_path))  # as a rollback does, on the living engine
    trainer.step(batch(seed=2), GRPO, 1e-2)
    assert trainer.score([1, 2, 3]) == scored
    if stage < 3:
        assert torch.equal(weights(trainer), expected)
    other = build(model_folder, zero_stage=stage)
    other.load(str(tmp_path))
    other.step(batch(seed=2), GRPO, 1e-2)
    assert other.score([1, 2, 3]) == scored


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_the_optimizers_settings_are_the_recipes_of_today(model_folder, tmp_path, stage):
    trainer = build(model_folder, zero_stage=stage)
    trainer.step(batch(seed=1), GRPO, 1e-2)
    trainer.save(str(tmp_path))
    trainer.saved(wait=True)
    other = build(model_folder, zero_stage=stage, weight_decay=0.5, betas=[0.8, 0.99])
    other.load(str(tmp_path))
    groups = [(group["weight_decay"], group["betas"]) for group in other._guard.param_groups]
    assert groups == [(0.5, (0.8, 0.99)), (0.0, (0.8, 0.99))]
    other.step(batch(seed=2), GRPO, 1e-2)
    assert [group["weight_decay"] for group in other.optimizer.param_groups] == [0.5, 0.0]


@pytest.mark.parametrize("saved", [torch.tensor(3.0), torch.tensor(3), 3])
@pytest.mark.parametrize("fused", [True, False])
def test_steps_are_counted_where_the_optimizer_wants_it_whoever_saved_them(saved, fused):
    """A fused AdamW refuses a counter in host memory. "meta" stands for the GPU."""
    from rlvr.train.saving import settle_counters

    parameters = [torch.nn.Parameter(torch.ones(2, device="meta")) for _ in range(3)]
    optimizer = torch.optim.AdamW(parameters)
    optimizer.param_groups[0] |= {"fused": fused, "params": []}  # as ZeRO-3 leaves the groups between steps
    optimizer.state.update({parameter: {"step": saved} for parameter in parameters[:2]} | {parameters[2]: {}})
    settle_counters(optimizer)
    first, second = (optimizer.state[parameter]["step"] for parameter in parameters[:2])
    assert first.device.type == second.device.type == ("meta" if fused else "cpu")
    assert first.dtype == second.dtype == torch.float32 and first is not second and first is not saved
    assert fused or float(first) == 3
    assert optimizer.state[parameters[2]] == {}


SHARDED = ["zero_pp_rank_0_mp_rank_00_optim_states.pt"]
FILES = {
    (0,): ["mp_rank_00_model_states.pt"],
    (1, 2): ["mp_rank_00_model_states.pt", *SHARDED],
    (3,): ["zero_pp_rank_0_mp_rank_00_model_states.pt", *SHARDED],
}


@pytest.mark.parametrize(("saved", "names"), FILES.items(), ids=str)
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_another_zero_stage_is_refused_in_words(tmp_path, saved, names, stage):
    from rlvr.train.saving import TAG, refuse_another_stage

    (tmp_path / TAG).mkdir()
    for name in names:
        (tmp_path / TAG / name).touch()
    if stage in saved:
        refuse_another_stage(stage, tmp_path / TAG)
        return
    said = rf"^trainer\.zero_stage={stage}: .* was saved with {saved[0]}.*, and only that can read it$"
    with pytest.raises(RunError, match=said):
        refuse_another_stage(stage, tmp_path / TAG)


@pytest.mark.parametrize(("stage", "other"), [(0, 1), (1, 0)])
def test_a_trainer_says_which_zero_stage_it_needs(model_folder, tmp_path, stage, other):
    trainer = build(model_folder, zero_stage=stage)
    trainer.save(str(tmp_path))
    trainer.saved(wait=True)
    with pytest.raises(RunError, match=rf"trainer\.zero_stage={other}: .* was saved with {stage}"):
        build(model_folder, zero_stage=other).load(str(tmp_path))


@pytest.mark.parametrize("stage", [0, 1, 3])
@pytest.mark.parametrize(("then", "now"), [("float32", "bfloat16"), ("bfloat16", "float32")])
def test_another_type_of_numbers_is_refused_in_words(model_folder, tmp_path, stage, then, now):
    """Not as a file that DeepSpeed does not find, nor as a ZeRO stage that nobody asked for."""
    trainer = build(model_folder, dtype=then, zero_stage=stage)
    trainer.save(str(tmp_path))
    trainer.saved(wait=True)
    trainer.load(str(tmp_path))
    with pytest.raises(RunError, match=rf"^model\.dtype is {now} here: .* was saved in {then}, and only that can read"):
        build(model_folder, dtype=now, zero_stage=stage).load(str(tmp_path))


NONE, WIDER = LoraConfig(), {"wider": True}


@pytest.mark.parametrize(
    ("then", "now"),
    [
        ({}, {"lora": LoraConfig(rank=4)}),
        ({"lora": LoraConfig(rank=4)}, {}),
        ({"lora": LoraConfig(rank=4)}, {"lora": LoraConfig(rank=2)}),
        ({"lora": LoraConfig(rank=4, targets=["q_proj"])}, {"lora": LoraConfig(rank=4, targets=["v_proj"])}),
        ({}, WIDER),
    ],
    ids=["adapters", "no adapters", "another rank", "other targets", "another model"],
)
@pytest.mark.parametrize("stage", [0, 3])
def test_other_weights_are_refused_in_one_line(model_folder, wide_model_folder, tmp_path, stage, then, now):
    trainer = build(model_folder, zero_stage=stage, **then)
    trainer.save(str(tmp_path))
    trainer.saved(wait=True)
    trainer.load(str(tmp_path))
    other = build(wide_model_folder if now == WIDER else model_folder, zero_stage=stage, lora=now.get("lora", NONE))
    with pytest.raises(RunError, match=r"other weights than model\.path and trainer\.lora make now: lm\.") as error:
        other.load(str(tmp_path))
    assert len(str(error.value)) < 500 and "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [*(pytest.param(n, marks=pytest.mark.long) for n in (0, 1, 2)), 3])
def test_another_number_of_ranks_goes_on_from_what_was_saved(model_folder, tmp_path, stage):
    saved = run_ranks(2, model_folder, stage, "save", tmp_path)
    one = run_ranks(1, model_folder, stage, "load", tmp_path)
    assert one["loaded"] == pytest.approx(saved["saved"], abs=1e-6)
    assert one["after"] == pytest.approx(saved["after"], abs=1e-4), "the optimizer's moments came along"
    assert not list(tmp_path.glob("universal")), "what was converted is gone"
    alone = run_ranks(1, model_folder, stage, "save", tmp_path / "one")
    two = run_ranks(2, model_folder, stage, "load", tmp_path / "one")
    assert two["after"] == pytest.approx(alone["after"], abs=1e-4)


def run_ranks(ranks: int, model: str, stage: int, what: str, folder: Path) -> dict[str, list[float]]:
    place = folder / "step" / "trainer"
    place.mkdir(parents=True, exist_ok=True)
    as_ranks(ranks, run, ranks, free_port(), model, stage, what, place)
    return json.loads((folder / f"{what}-{ranks}.json").read_text())


def run(rank: int, ranks: int, port: int, model: str, stage: int, what: str, place: Path) -> None:
    torch.set_num_threads(1)
    trainer = build(model, rank, f"127.0.0.1:{port}", zero_stage=stage, ranks=ranks)
    told = {}
    if what == "save":
        trainer.step(batch(seed=1), GRPO, 1e-2)
        trainer.save(str(place))
        told["saved"] = trainer.score([1, 2, 3, 4])
        trainer.saved(wait=True)
    else:
        trainer.load(str(place))
        told["loaded"] = trainer.score([1, 2, 3, 4])
    trainer.step(batch(seed=2), GRPO, 1e-2)
    told["after"] = trainer.score([1, 2, 3, 4])
    if rank == 0:
        (place.parents[1] / f"{what}-{ranks}.json").write_text(json.dumps(told))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("raised", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("os error 28")])
def test_what_the_disk_refuses_is_told_in_words_whichever_library_writes(raised):
    from rlvr.train.saving import told_in_words

    @told_in_words()
    def export():
        raise raised

    for _ in range(2):
        with pytest.raises(WriteFailed, match=r"^(No space left on device|os error 28)$"):
            export()


def test_a_model_that_cannot_be_exported_is_told_in_words(model_folder, tmp_path):
    (tmp_path / "model" / "model.safetensors").mkdir(parents=True)  # where a file is to be written
    with pytest.raises(WriteFailed):
        build(model_folder).export(str(tmp_path / "model"))


def test_a_copy_shares_nothing_with_the_training():
    from rlvr.train.saving import in_host_memory

    weight, scaler = torch.ones(3), SimpleNamespace(scale=1)
    copied = in_host_memory({"weight": weight, "same": weight.view(3), "several": [weight[:2]], "own": scaler}, {})
    weight.zero_()
    scaler.scale = 0
    assert copied["weight"].eq(1).all() and copied["several"][0].eq(1).all() and copied["own"].scale == 1
    assert copied["same"] is copied["weight"], "what is one tensor is written once"
