"""What a step's numbers are measured with. Where a resume changes that, those before and after are no one curve: half
the weight of a part is half the reward, and no policy that became worse. Knows keys of the recipe, and no metric.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from typing import Any

from rlvr.config import Recipe

MEASURED_BY = (
    "model.dtype", "model.chat_template", "data", "reward", "algorithm", "rollout.engine", "rollout.dtype",
    "rollout.groups_per_step", "rollout.group_size", "rollout.temperature", "rollout.top_p", "rollout.top_k",
    "rollout.max_tokens", "rollout.stop", "rollout.max_staleness", "rollout.update_in_flight",
)  # fmt: skip
"""Keys and sections. Not `evaluation.limit`: an evaluation itself says of how many problems it is."""


def mark(cfg: Recipe) -> int:
    """The same for recipes that measure alike, and only for those; below 2**53, so that it is exact as a float too."""
    recipe = asdict(cfg)
    values = json.dumps([value(recipe, key) for key in MEASURED_BY], default=str)
    return int.from_bytes(sha256(values.encode()).digest()[:6], "big")


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Of two recipes as plain dicts, the keys and sections of `MEASURED_BY` in which they are not alike."""
    return [key for key in MEASURED_BY if value(before, key) != value(now, key)]


def value(recipe: Mapping[str, Any], key: str) -> Any:
    section, _, name = key.partition(".")
    return recipe[section][name] if name else recipe[section]
