"""Where the pipeline saturates: the simulation from 16 to 4,096 GPUs, into docs/measured/saturation.json.

    python scripts/bench/saturation.py [--driver-ms 5]

A model of the design, no measurement: durations are those of rlvr/plan/time.py, but for the driver's: what
scripts/bench/driver.py measured of a group of such lengths whose completions come alone. The batch grows with the GPUs.
"""

import argparse
import json
import random
from dataclasses import replace
from pathlib import Path

from rlvr.compose import compose_recipe, typed
from rlvr.config import Recipe
from rlvr.plan.devices import find
from rlvr.plan.model import PUBLISHED
from rlvr.plan.setting import Setting
from rlvr.plan.simulate import Pipeline, simulate
from rlvr.plan.time import decoding_step, publish, train

OUT = Path(__file__).resolve().parents[2] / "docs" / "measured" / "saturation.json"
GROUPS, SIZE, STEPS = 8, 8, 8  # groups an engine has for a step; completions of one; steps simulated
TOKENS = 1_500  # of a completion, on average
LONG = ["model.max_context=9216", "rollout.max_tokens=8192", f"rollout.group_size={SIZE}"]


def measured_ms() -> float:
    rows = json.loads(OUT.with_name("driver.json").read_text(encoding="utf-8"))["rows"]
    return next(float(row["driver_ms"]) for row in rows if row["mean_tokens"] == TOKENS and row["together"] == 1)


def setting(cfg: Recipe, gpus: int) -> Setting:
    cfg.rollout.workers = cfg.trainer.ranks = gpus // 2
    cfg.rollout.groups_per_step = GROUPS * gpus // 2
    return Setting(cfg, find("h100"), PUBLISHED["Qwen3-8B"], gpus, 200, TOKENS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--driver-ms", type=float, help="of a group (default: as measured)")
    given = parser.parse_args().driver_ms
    driver = (measured_ms() if given is None else given) / 1000
    cfg, _ = typed(compose_recipe("qwen3_8b_math_8gpu", LONG))
    results = []
    for gpus in (16, 64, 256, 1024, 4096):
        plan = setting(cfg, gpus)
        lengths = plan.lengths()
        token_s = decoding_step(plan, GROUPS * SIZE, 200 + TOKENS / 2)

        def group_s(rng: random.Random, lengths: list[float] = lengths, token_s: float = token_s) -> float:
            return max(rng.choice(lengths) for _ in range(SIZE)) * token_s

        pipe = Pipeline(
            engines=gpus // 2, slots=GROUPS, groups_per_step=GROUPS * gpus // 2, max_staleness=0, group_s=group_s,
            verifiers=gpus, verify_s=SIZE * plan.verify_s, driver_s=driver,
            train_s=train(plan), publish_s=publish(plan),
        )  # fmt: skip
        for staleness in (0, 1, 4):
            found = simulate(replace(pipe, max_staleness=staleness), STEPS)
            rate = pipe.groups_per_step * SIZE * TOKENS / found.step_s / gpus
            row = {"gpus": gpus, "max_staleness": staleness, "step_s": found.step_s, "tokens_per_s_gpu": rate}
            row |= {"trainer_idle": found.trainer_idle, "engines_idle": found.engines_idle, "driver": found.driver_busy}
            results.append(row)
            print({key: round(value, 2) for key, value in row.items()}, flush=True)
    found_at = {"driver_ms": driver * 1000, "rows": results}
    OUT.write_text(json.dumps(found_at, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
