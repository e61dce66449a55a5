"""DeepSpeed's checkpoint files, written behind the trainer's back. Knows state dicts and DeepSpeed's file names.

    engine.save_checkpoint --each file's content--> copy in host memory --another thread--> disk
"""

import copy
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from deepspeed.runtime.checkpoint_engine.checkpoint_engine import CheckpointCommitInfo, CheckpointEngine
from safetensors import SafetensorError

from rlvr.checkpoint.files import Fingerprint
from rlvr.checkpoint.writer import BackgroundWriter, WriteFailed
from rlvr.config import RunError

TAG = "deepspeed"


@contextmanager
def told_in_words() -> Iterator[None]:
    """WriteFailed for what the disk refuses: safetensors does not call it an OSError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise WriteFailed(getattr(error, "strerror", None) or str(error)) from error


class CopyThenWrite(CheckpointEngine):
    """What DeepSpeed writes with: `save` returns when the content has been copied."""

    def __init__(self) -> None:
        super().__init__()
        self.writer = BackgroundWriter()

    def create(self, info: CheckpointCommitInfo) -> None:
        self.writer.begin()

    def save(self, state_dict: Any, path: str) -> None:
        content = in_host_memory(state_dict, {})
        self.writer.write(Path(path), lambda place: torch.save(content, place))

    def load(self, path: str, map_location: Any = None) -> Any:
        return torch.load(path, map_location=map_location, weights_only=False)

    def commit(self, info: CheckpointCommitInfo) -> bool:
        """The run's own manifest says what is whole."""
        return True

    def saved(self, wait: bool) -> dict[str, Fingerprint] | None:
        files = self.writer.done(wait)
        return None if files is None else {str(path): found for path, found in files.items()}


def in_host_memory(value: Any, seen: dict[tuple, torch.Tensor]) -> Any:
    """A copy that shares nothing with the training; tensors that share memory still do in it."""
    if isinstance(value, torch.Tensor):
        key = (value.untyped_storage().data_ptr(), value.storage_offset(), value.shape, value.stride(), value.dtype)
        if key not in seen or not value.numel():
            seen[key] = value.detach().to("cpu", copy=True)
        return seen[key]
    if isinstance(value, Mapping):
        return {key: in_host_memory(item, seen) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(in_host_memory(item, seen) for item in value)
    return copy.deepcopy(value)


def load_checkpoint(engine: Any, folder: Path, rank: int, ranks: int) -> None:
    """Collective. What another number of ranks has saved is converted first, into a folder beside it. Weights and
    moments come from there; the optimizer's settings stay the recipe's, which a resume may have changed.

    RunError where another type of numbers, ZeRO stage, model or adapters saved it, on every rank alike.
    """
    refuse_another_dtype(engine.bfloat16_enabled(), folder / TAG)
    refuse_another_stage(engine.zero_optimization_stage(), folder / TAG)
    refuse_other_weights(engine.module, folder / TAG)
    optimizer = getattr(engine.optimizer, "optimizer", engine.optimizer)  # what is below ZeRO
    settings = [{key: x for key, x in group.items() if key != "params"} for group in optimizer.param_groups]
    shards = len(list((folder / TAG).glob("*zero_pp_rank_*_optim_states.pt")))
    if shards in (0, ranks):  # without ZeRO there is one file, for whoever wants it
        loaded, _ = engine.load_checkpoint(str(folder), tag=TAG)
    else:
        whole = folder.parent.with_name("universal")
        if rank == 0:
            to_universal(folder / TAG, whole / TAG)
        dist.barrier()
        engine._config.load_universal_checkpoint = True  # DeepSpeed reads it once, at its start, from nowhere else
        loaded, _ = engine.load_checkpoint(str(whole), tag=TAG)
        engine._config.load_universal_checkpoint = False
        dist.barrier()
        if rank == 0:
            shutil.rmtree(whole)
    if loaded is None:
        raise RuntimeError(f"DeepSpeed found no checkpoint in {folder}")
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group |= own
    settle_counters(optimizer)


def settle_counters(optimizer: torch.optim.Optimizer) -> None:
    """AdamW's counts of steps as it wants them, whoever saved them: on the parameter's device where it is fused, in
    host memory where not; and each its own, as ZeRO-3 gives all parameters one, which each of them would then advance.
    """
    fused = any(group.get("fused") for group in optimizer.param_groups)
    for parameter, state in optimizer.state.items():  # ZeRO-3 empties the groups between steps
        if "step" in state:
            step = torch.as_tensor(state["step"], dtype=torch.float32).clone()
            state["step"] = step.to(parameter.device if fused else "cpu")


def refuse_another_dtype(half: bool, folder: Path) -> None:
    """By the files' names: DeepSpeed looks for others in bfloat16, whatever the stage."""
    saved = any(folder.glob("bf16_zero_*_optim_states.pt"))
    if half != saved:
        then, now = ("bfloat16" if x else "float32" for x in (saved, half))
        raise RunError(f"model.dtype is {now} here: {folder} was saved in {then}, and only that can read it")


def refuse_another_stage(stage: int, folder: Path) -> None:
    """By the files' names: each kind of sharding has its own, and DeepSpeed does not read those of another."""
    if any(folder.glob("*zero_pp_rank_*_model_states.pt")):
        saved: tuple[int, ...] = (3,)
    elif any(folder.glob("*zero_pp_rank_*_optim_states.pt")):
        saved = (1, 2)
    else:
        saved = (0,)
    if stage not in saved:
        said = "1 or 2 (or 0 in bfloat16, which is 1)" if 1 in saved else str(saved[0])
        raise RunError(f"trainer.zero_stage={stage}: {folder} was saved with {said}, and only that can read it")


def refuse_other_weights(module: torch.nn.Module, folder: Path) -> None:
    """Names and shapes alone: of tensors on a disk nothing is read."""
    file = next(iter(sorted(folder.glob("*model_states.pt"))), None)
    if file is None:
        return
    saved = torch.load(file, map_location="cpu", weights_only=False, mmap=True)
    theirs = {name: tuple(x.shape) for name, x in saved["module"].items()}
    for shapes in (*(saved["param_shapes"] or ()), saved["frozen_param_shapes"] or {}):  # whole, where ZeRO-3 has none
        theirs |= {name: tuple(shape) for name, shape in shapes.items()}
    ours = {name: tuple(getattr(x, "ds_shape", x.shape)) for name, x in module.state_dict(keep_vars=True).items()}
    for name in {**theirs, **ours}:
        was, now = theirs.get(name), ours.get(name)
        if was != now and not (was == (0,) and now):  # ZeRO-3 tells no shape for the second name of a tied weight
            raise RunError(
                f"{folder} holds other weights than model.path and trainer.lora make now: {name} was "
                f"{was or 'not there'}, and is {now or 'not there'}; both must stay as they were"
            )


def to_universal(source: Path, target: Path) -> None:
    """DeepSpeed's universal format: every parameter whole, for any number of ranks to share out."""
    shutil.rmtree(target, ignore_errors=True)  # of a conversion that was killed
    command = [sys.executable, "-P", "-m", "deepspeed.checkpoint.ds_to_universal", "--inject_missing_state"]
    command += ["--num_extract_workers=1", "--num_merge_workers=1"]
    command += [f"--input_folder={source}", f"--output_folder={target}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunError(f"{source} cannot be converted for another number of trainer.ranks: {done.stderr[-2000:]}")
