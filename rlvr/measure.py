"""Which keys of the recipe decide what a step's numbers mean. When a resume changes one, numbers before and after
cannot be compared: with half the weight the reward is half, though the policy is no worse. Knows no metric.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from typing import Any

from rlvr.config import Recipe

TOOL = "rollout.tool"  # none is no value: marks of recipes without one are what they always were
MEASURED_BY = (
    "model.dtype", "model.chat_template", "data", "reward", "algorithm", "rollout.engine", "rollout.dtype",
    "rollout.groups_per_step", "rollout.group_size", "rollout.temperature", "rollout.top_p", "rollout.top_k",
    "rollout.max_tokens", "rollout.stop", "rollout.max_staleness", "rollout.update_in_flight",
    TOOL,
)  # fmt: skip
"""Keys and sections. Not `evaluation.limit`: an evaluation itself says of how many problems it is."""
NO_MEASURE = ("timeout_s", "audit")  # of a reward part: how long it may take, and who is reported beside it


def mark(cfg: Recipe) -> int:
    """The same for recipes that measure alike, and only for those; below 2**53, so that it is exact as a float too."""
    recipe = asdict(cfg)
    values = "\n".join(text(recipe, key) for key in MEASURED_BY if value(recipe, key) is not None or key != TOOL)
    return int.from_bytes(sha256(values.encode()).digest()[:6], "big")


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Of two recipes as plain dicts, the keys and sections of `MEASURED_BY` in which they are not alike."""
    return [key for key in MEASURED_BY if text(before, key) != text(now, key)]


def text(recipe: Mapping[str, Any], key: str) -> str:
    """What both go by: were one to compare values, 1 and 1.0 would be alike for it alone."""
    return json.dumps(value(recipe, key), default=str)


def value(recipe: Mapping[str, Any], key: str) -> Any:
    section, _, name = key.partition(".")
    if key == TOOL:
        tool = recipe[section].get(name) or {}
        return {n: x for n, x in tool.items() if n not in ("processes", "timeout_s")} if tool.get("name") else None
    if key == "reward":
        return recipe[section] | {"parts": {n: judging(part) for n, part in recipe[section]["parts"].items()}}
    return recipe[section][name] if name else recipe[section]


def judging(part: Mapping[str, Any]) -> dict[str, Any]:
    """Of a part, or of a verifier that is asked behind it, what decides a reward."""
    kept = {name: x for name, x in part.items() if name not in NO_MEASURE}
    later = [judging(choice) for choice in part.get("first_decided", ())]
    return kept | {"first_decided": later} if later else kept
