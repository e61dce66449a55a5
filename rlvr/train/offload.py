"""Where DeepSpeed keeps what does not fit beside the model: its settings for host memory and disks."""

from pathlib import Path

from deepspeed.ops.op_builder import AsyncIOBuilder

from rlvr.config import RecipeError
from rlvr.trainer_config import TrainerConfig

KEYS = {"offload_optimizer": "offload_optimizer", "offload_parameters": "offload_param"}


def offloading(cfg: TrainerConfig, pinned: bool) -> dict[str, dict]:
    """Part of DeepSpeed's `zero_optimization`."""
    found: dict[str, dict] = {}
    for ours, theirs in KEYS.items():
        place = getattr(cfg, ours)
        if place == "none":
            continue
        found[theirs] = {"device": place, "pin_memory": pinned}
        if place == "nvme":
            if not AsyncIOBuilder().is_compatible():
                raise RecipeError(
                    f"trainer.{ours}=nvme: DeepSpeed reads disks through libaio, which is not here: "
                    "install libaio-dev, or offload to cpu"
                )
            found[theirs]["nvme_path"] = str(Path(cfg.offload_folder or "").absolute())
    return found
