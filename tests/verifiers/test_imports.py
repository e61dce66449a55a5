"""What importing verifiers may load: nothing heavy. Their workers are many."""

import subprocess
import sys
from importlib.metadata import entry_points

HEAVY = {
    "torch",
    "transformers",
    "tokenizers",
    "aiohttp",
    "ray",
    "vllm",
    "deepspeed",
    "hydra",
    "jsonschema",
    "reasoning_gym",
}


def test_importing_every_verifier_of_ours_loads_nothing_heavy():
    modules = sorted(
        {point.module for point in entry_points(group="rlvr.verifiers") if point.module.startswith("rlvr_verifiers.")}
    )
    assert {"rlvr_verifiers.reward_model", "rlvr_verifiers.judge", "rlvr_verifiers.steps"} <= set(modules)
    code = f"import sys, {', '.join(modules)}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not set(loaded) & HEAVY
