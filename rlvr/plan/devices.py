"""What a GPU can do, from its maker's data sheet, and what of that a program sees. Knows no model and no recipe.

Rates are per device and in bytes/s or FLOP/s; links count one direction. A machine of your own: a JSON file with the
same fields, as scripts/bench/device.py writes it.
"""

import json
from dataclasses import dataclass, fields
from math import inf
from pathlib import Path

from rlvr.config import RecipeError

GIB = 2**30


@dataclass(frozen=True)
class Device:
    """Device("h100", 80 GiB, 989e12 FLOP/s, 3.35e12 bytes/s, ...)"""

    name: str
    memory_gib: float
    flops: float
    """Dense, without sparsity, in the dtype that is trained in: bfloat16, on a CPU float32."""
    bandwidth: float
    """Of the device's own memory."""
    link: float
    """Device to device in a node."""
    host: float
    """Device to host memory."""
    network: float
    """Per device, between nodes."""
    price: float
    """USD an hour, on demand; `--price` overrides it: it is what ages fastest here."""
    node: int = 8
    """Devices of a node."""
    cpu: bool = False
    """Engines and ranks are processes on cores that share one memory."""
    dtype_bytes: int = 2
    train_efficiency: float = 0.4
    """Share of `flops` that forward and backward reach: 38-43% is what Llama 3's authors report for 8,192 to 16,384
    H100s (arXiv:2407.21783, table 4)."""
    prefill_efficiency: float = 0.5
    """Share of `flops` of a forward pass over whole prompts."""
    bandwidth_efficiency: float = 0.75
    """Share of `bandwidth` that a decoding step reaches."""
    link_efficiency: float = 0.8
    """Share of a link: NVIDIA/nccl issue 1264 measures 376 of 450 GB/s on an H100's NVLink."""
    pass_s: float = 0.002
    """Of a decoding step, however small: scheduling, kernel launches, sampling."""
    sequence_s: float = 20e-6
    """Of a decoding step, for each sequence in it: sampling with its own seed, bookkeeping."""
    train_pass_s: float = 0.12
    """Of a forward and backward pass over one micro-batch, however small: kernel launches. What `train_efficiency`
    leaves of each of 8 passes through 28 layers on an H200 (scripts/bench/gpu.py --eager)."""
    compiled_pass_s: float = 0.025
    """The same where layers are compiled."""
    transfer_s: float = 0.3
    """Of a weight transfer, however small: calls, and the probe that proves it."""
    reserved_gib: float = 2.0
    """CUDA context, NCCL's buffers, fragmentation."""


# H100, H200: NVIDIA data sheets (SXM): 989 TFLOP/s bf16 without sparsity, 80 GB at 3.35 TB/s and 141 GB at 4.8 TB/s,
#   NVLink 900 GB/s both ways, PCIe 5 x16 64 GB/s a way; DGX H100: a 400 Gbit/s adapter for each GPU.
# B200: NVIDIA DGX B200 data sheet: 36 PFLOP/s bf16 with sparsity for 8, so 2.25 dense each; 180 GB, 64 TB/s for 8,
#   NVLink 1.8 TB/s both ways.
# A100: NVIDIA data sheet: 312 TFLOP/s bf16, 80 GB at 2,039 GB/s (SXM), 40 GB at 1,555 GB/s, NVLink 600 GB/s both
#   ways, PCIe 4 x16 32 GB/s a way; DGX A100: 200 Gbit/s for each GPU.
# L40S: NVIDIA data sheet: 362 TFLOP/s bf16 dense, 48 GB at 864 GB/s, no NVLink. A10G: the A10's data sheet, 125 TFLOP/s
#   less the A10G's lower clocks (70), 24 GB at 600 GB/s. RTX 4090: Ada whitepaper, 165 TFLOP/s with fp32 accumulation,
#   24 GB at 1,008 GB/s.
# Prices: of the order of on-demand list prices of specialised clouds in 2025; give your own with --price.
DEVICES = {
    device.name: device
    for device in (
        Device("h100", 80e9 / GIB, 989e12, 3.35e12, 450e9, 64e9, 50e9, price=3.0),
        Device("h200", 141e9 / GIB, 989e12, 4.8e12, 450e9, 64e9, 50e9, price=3.8),
        Device("b200", 180e9 / GIB, 2250e12, 8e12, 900e9, 64e9, 50e9, price=6.0),
        Device("a100", 80e9 / GIB, 312e12, 2.039e12, 300e9, 32e9, 25e9, price=1.8),
        Device("a100_40gb", 40e9 / GIB, 312e12, 1.555e12, 300e9, 32e9, 25e9, price=1.3),
        Device("l40s", 48e9 / GIB, 362e12, 864e9, 32e9, 32e9, 12.5e9, price=1.2),
        Device("a10g", 24e9 / GIB, 70e12, 600e9, 32e9, 32e9, 3e9, price=1.0, node=4),
        Device("rtx4090", 24e9 / GIB, 165e12, 1.008e12, 32e9, 32e9, 1.25e9, price=0.5),
    )
}


def find(name: str) -> Device:
    """One of DEVICES, or a JSON file of a measured one."""
    if name in DEVICES:
        return DEVICES[name]
    if not name.endswith(".json"):
        raise RecipeError(f"--gpu {name}: one of {', '.join(DEVICES)}, or a .json file of scripts/bench/device.py")
    try:
        said = json.loads(Path(name).read_text(encoding="utf-8"))
        if not isinstance(said, dict):
            raise ValueError(f"a {type(said).__name__}, not an object")
        known = {field.name for field in fields(Device)}
        given = {key: value for key, value in said.items() if key in known}
        for key, value in given.items():
            check(key, value)
        return Device(**given)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise RecipeError(f"--gpu {name}: {error}") from error


MAY_BE_0 = ("price", "pass_s", "sequence_s", "train_pass_s", "compiled_pass_s", "transfer_s", "reserved_gib")


def check(key: str, value: object) -> None:
    """ValueError for what is no figure of a device."""
    if key in ("name", "cpu"):
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < inf:
        raise ValueError(f"{key}={value!r:.40}: a finite number of at least 0")
    if value == 0 and key not in MAY_BE_0:
        raise ValueError(f"{key}=0: must be above 0")
