"""The generated parts of the docs: tables made from the recipes, the code and the measured results.

    python scripts/docs.py            rewrite them
    python scripts/docs.py --check    exit 1 and name the files that are out of date

A part stands between `<!-- docs: name argument -->` and `<!-- /docs -->`; the functions of PARTS make it.
"""

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from rlvr.compose import compose_recipe, typed
from rlvr.objective import Rewards, advantages
from rlvr.plan.devices import find
from rlvr.plan.model import PUBLISHED
from rlvr.plan.setting import Setting
from rlvr.plan.time import times

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PART = re.compile(r"(<!-- docs: (?P<name>\w+)(?: (?P<argument>[^>]*?))? -->\n).*?(<!-- /docs -->)", re.DOTALL)
SLOTS = ("advantage", "ratio", "surrogate", "weighting", "kl")


def algorithms() -> dict[str, DictConfig]:
    paths = sorted((ROOT / "recipes" / "algorithm").glob("*.yaml"))
    return {path.stem: OmegaConf.load(path) for path in paths}  # type: ignore[misc]


def said(choice: object) -> str:
    """A slot's choice in a few words: `clip 0.2/0.28 dual 3`."""
    if not isinstance(choice, DictConfig):
        return f"{choice}"
    plain = OmegaConf.to_container(choice, resolve=False)
    assert isinstance(plain, dict)
    name = str(plain["_target_"]).rpartition(".")[2]
    options = {k: v for k, v in plain.items() if not str(k).startswith("_")}
    if name == "KL":
        return f"{said(choice.estimator)} {options['coefficient']:g} in the {options.get('place', 'loss')}"
    words = [name]
    if "low" in options and "high" in options:
        words.append(f"{options.pop('low'):g}/{options.pop('high'):g}")
    words += [f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in options.items()]
    return " ".join(words)


def presets(_: str) -> Iterator[str]:
    """Every file of recipes/algorithm, slot by slot."""
    yield "| preset | advantage | ratio | surrogate | weighting | KL | also |"
    yield "|---|---|---|---|---|---|---|"
    for name, cfg in algorithms().items():
        rest = {key: value for key, value in cfg.items() if key not in (*SLOTS, "no_signal", "_target_")}
        also = [said(value) if isinstance(value, DictConfig) else key for key, value in rest.items()]
        also += ["refill"] if cfg.no_signal == "refill" else []
        slots = [said(cfg[slot]) if slot in cfg else "-" for slot in SLOTS]
        yield f"| `{name}` | {' | '.join(slots)} | {', '.join(map(str, also))} |"


def used_by(target: str) -> Iterator[str]:
    """The presets that name a function, or have a key: value."""
    key, colon, value = target.partition(": ")

    def has(cfg: DictConfig) -> bool:
        if colon:
            return str(cfg.get(key, "")).lower() == value
        return re.search(rf"\.{target}\b", OmegaConf.to_yaml(cfg)) is not None

    found = [f"`{name}`" for name, cfg in algorithms().items() if has(cfg)]
    yield f"Presets: {', '.join(found) or 'none'}."


def advantage_numbers(argument: str) -> Iterator[str]:
    """What the functions named make of a few groups."""
    groups = [[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 0, 0], [0.2, 0.1, 0, 0]]
    yield f"| rewards | {' | '.join(f'`{name}`' for name in argument.split())} |"
    yield f"|---|{'---|' * len(argument.split())}"
    for rewards in groups:
        made = [getattr(advantages, name)(Rewards.of_one_group(rewards))[0].tolist() for name in argument.split()]
        cells = [", ".join(f"{value:.3g}" for value in row) for row in made]
        yield f"| {', '.join(f'{r:g}' for r in rewards)} | {' | '.join(cells)} |"


def sum_against_gdpo(_: str) -> Iterator[str]:
    """Two parts of weight 1: what the sum makes of who earned what, and what GDPO does."""
    earned = [(1, 0), (0, 1), (0, 1), (0, 0)]
    parts_1GK = torch.tensor([earned], dtype=torch.float64)
    rewards = Rewards(parts_1GK, torch.ones(2, dtype=torch.float64), torch.ones(1, len(earned), dtype=torch.bool))
    plain, apart = advantages.standardize(rewards)[0].tolist(), advantages.decouple(rewards)
    white = advantages.whiten(apart, rewards.valid_NG)[0].tolist()
    yield "| right | well-formed | sum | advantage of the sum | GDPO |"
    yield "|---|---|---|---|---|"
    for (right, formed), one, other in zip(earned, plain, white, strict=True):
        yield f"| {right} | {formed} | {right + formed} | {one:.2f} | {other:.2f} |"


def measured(name: str) -> Any:
    path = DOCS / "measured" / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else []


def curve(result: dict, kind: str = "sampled") -> dict[int, float]:
    return {int(step): value for step, value in sorted(result[kind].items(), key=lambda item: int(item[0]))}


def worst_drop(values: list[float]) -> float:
    """How far the curve ever was below its best so far."""
    best = [max(values[: n + 1]) for n in range(len(values))]
    return max(b - v for b, v in zip(best, values, strict=True))


def by_name(results: list[dict]) -> dict[str, list[dict]]:
    named: dict[str, list[dict]] = {}
    for result in sorted(results, key=lambda r: (r["name"], r["seed"])):
        named.setdefault(result["name"], []).append(result)
    return named


def measured_presets(argument: str) -> Iterator[str]:
    """`argument`: the regime, and the steps to show."""
    regime, *columns = argument.split()
    steps = list(map(int, columns))
    results = [r for r in measured("presets") if r["regime"] == regime]
    half = steps[-1] // 2
    heads = " | ".join(f"after {step}" for step in steps)
    yield f"| preset | {heads} | mean from {half} on | worst drop | rollbacks | groups sampled |"
    yield f"|---|{'---|' * len(steps)}---|---|---|---|"
    for name, runs in by_name(results).items():
        curves = [curve(run) for run in runs]
        cells = [" ".join(f"{c[step]:.1%}" if step in c else "-" for c in curves) for step in steps]
        later = " ".join(f"{mean(v for step, v in c.items() if step >= half):.1%}" for c in curves)
        drops = " ".join(f"{100 * worst_drop(list(c.values())):.1f}" for c in curves)
        rollbacks = " ".join(str(run["rollbacks"]) for run in runs)
        sampled = f"{mean(run['sampled_groups'] for run in runs):,.0f}"
        yield f"| `{name}` | {' | '.join(cells)} | {later} | {drops} | {rollbacks} | {sampled} |"


def measured_gdpo(argument: str) -> Iterator[str]:
    steps = list(map(int, argument.split()))
    metrics = {"accuracy": "accuracy", "format": "reward/format", "tokens": "completions/length_mean"}
    yield f"| advantage of | {' | '.join(f'{name}, {step}' for name in metrics for step in steps)} |"
    yield f"|---|{'---|' * len(steps) * len(metrics)}"
    for name, runs in by_name(measured("gdpo")).items():
        cells = []
        for metric in metrics.values():
            for step in steps:
                values = [run["trained"][metric][str(step)] for run in runs]
                cells.append(" ".join(f"{v:.1f}" if metric.endswith("mean") else f"{v:.2f}" for v in values))
        yield f"| {name} | {' | '.join(cells)} |"


def divergences(_: str) -> Iterator[str]:
    """One accident a row, a value for each seed, and how many of the runs met what is asked of them."""
    named: dict[str, list[dict]] = {}
    for result in sorted(measured("divergences"), key=lambda r: r["seed"]):
        named.setdefault(result["title"], []).append(result)
    yield "| accident | stands for | off: best, end | on: best, end | rollbacks, by what | steps | ruined | saved |"
    yield "|---|---|---|---|---|---|---|---|"
    for title, runs in named.items():
        off, on = ([r for r in runs if r["sentinel"] == kind] for kind in ("off", "default"))
        ends = [" ".join(f"{r['best']:.1%}, {r['end']:.1%};" for r in some).rstrip(";") or "-" for some in (off, on)]
        causes = "; ".join(counted(r["rollbacks"]) + (", stopped" if r["exit"] else "") for r in on) or "-"
        steps = " ".join(str(r["steps_taken"]) for r in on) or "-"
        ruined = sum(r["end"] < r["best"] / 2 for r in off)
        within = [r for r in on if r["exit"] == 0 and r["steps_taken"] <= 1.5 * r["last_step"]]
        saved = sum(r["end"] >= r["best"] - 0.02 for r in within)
        counts = f"{ruined} of {len(off)} | {saved} of {len(on)}"
        yield f"| {title} | {runs[0]['life']} | {' | '.join(ends)} | {causes} | {steps} | {counts} |"


def counted(rollbacks: list[str]) -> str:
    """5 reward, 1 accuracy"""
    return ", ".join(f"{count} {name}" for name, count in Counter(rollbacks).items()) or "0"


def against_trl(_: str) -> Iterator[str]:
    """A row a side of each workload, medians of all turns."""
    yield "| completions | side | a step | sampling | training | tokens a step | held-out accuracy |"
    yield "|---|---|---|---|---|---|---|"
    for name, found in measured("trl")["workloads"].items():
        for side in ("rlvr", "trl"):
            runs = [run for run in found["runs"] if run["side"] == side]
            step, rollout, train, tokens = (
                median(run[key] for run in runs)
                for key in ("median_step_s", "time/rollout", "time/train", "tokens/sampled")
            )
            accuracy = " ".join(f"{run['accuracy']:.1%}" for run in runs if "accuracy" in run) or "-"
            yield f"| {name} | {side} | {step:.2f} s | {rollout:.2f} s | {train:.2f} s | {tokens:,.0f} | {accuracy} |"


def times_trl(_: str) -> Iterator[str]:
    """How many times as fast: the median turn, the worst and the best."""
    words = {"step": "a step", "token": "a token", "points_per_minute": "accuracy gained a minute"}
    yield "| completions | " + " | ".join(words.values()) + " |"
    yield "|---" * (1 + len(words)) + "|"
    for name, found in measured("trl")["workloads"].items():
        ratios = [found["ratios"].get(key) for key in words]
        cells = [f"{median(x):.2f} ({min(x):.2f} to {max(x):.2f})" if x else "-" for x in ratios]
        yield f"| {name} | {' | '.join(cells)} |"


def phases(_: str) -> Iterator[str]:
    """Shares of a step, the waiting for verdicts within that of sampling; a row a size of the step."""
    found = measured("run")["phases"]["by_groups"]
    yield f"| groups | {' | '.join(name.removeprefix('time/') for name in found[0]['shares'])} | padding |"
    yield "|---" * (len(found[0]["shares"]) + 2) + "|"
    for size in found:
        shares = " | ".join(f"{share:.1%}" for share in (*size["shares"].values(), size["padding_waste"]))
        yield f"| {size['groups']} | {shares} |"


def ahead(_: str) -> Iterator[str]:
    """A row a size of a step and a `max_staleness`: the median turn, the best and the worst."""
    yield "| groups | `rollout.max_staleness` | of a synchronous step's time | of the longer of sampling and training |"
    yield "|---|---|---|---|"
    for size in measured("run")["asynchronous"]["by_groups"]:
        for row in size["ahead"]:
            cells = [f"{median(x):.2f} ({min(x):.2f} to {max(x):.2f})"
                     for x in (row["of_synchronous"], row["of_the_longer_side"])]  # fmt: skip
            yield f"| {size['groups']} | {row['max_staleness']} | {' | '.join(cells)} |"


def driver(_: str) -> Iterator[str]:
    """A row a length: milliseconds of the driver's for a group, and what the trainer waits for of each."""
    yield "| tokens a completion | come | sampled, verified | collated | sent | written | all | the trainer waits |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in measured("driver")["rows"]:
        come = "alone" if row["together"] == 1 else f"up to {row['together']} together"
        stages = (row[f"{name}_ms"] for name in ("sampled", "collated", "sent", "written", "driver", "wait"))
        yield f"| {row['mean_tokens']:,} | {come} | {' | '.join(f'{ms:.1f} ms' for ms in stages)} |"


def planned(_: str) -> Iterator[str]:
    """A row a phase of each size of a step: medians over turns, and how far off the plan is."""
    yield "| groups | phase | measured | planned | off |"
    yield "|---|---|---|---|---|"
    found = measured("planned")
    for groups in sorted({turn["groups"] for turn in found}):
        turns = [turn for turn in found if turn["groups"] == groups]
        for phase in turns[0]["measured"]:
            real, said = (median(turn[kind][phase] for turn in turns) for kind in ("measured", "planned"))
            yield f"| {groups} | {phase} | {real:.2f} s | {said:.2f} s | {said / real - 1:+.0%} |"


def gpu(_: str) -> Iterator[str]:
    """A row a side of each workload, medians over its turns; below, how many times as fast."""
    found = measured("gpu")
    named: dict[tuple[str, str], list[dict]] = {}
    for run in found["runs"]:
        named.setdefault((run["workload"], run["side"]), []).append(run)
    yield "| completions | side | tokens/s | of peak FLOP/s | padding | memory at most | times the plain step |"
    yield "|---|---|---|---|---|---|---|"
    for (kind, side), runs in named.items():
        rate, flops, padding, peak = (
            median(run[key] for run in runs) for key in ("tokens_per_s", "flops_per_s", "padding", "peak_gb")
        )
        share, ratios = flops / found["peak_flops"], found[f"times_plain_{kind}"]
        faster = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if side == "rlvr" else ""
        yield f"| {kind} | {side} | {rate:,.0f} | {share:.1%} | {padding:.1%} | {peak:.1f} GB | {faster} |"


def sentinel_in_short(_: str) -> Iterator[str]:
    found = measured("sentinel")
    healthy = found["healthy"]
    kinds, runs = len({row["name"] for row in healthy}), sum(row["runs"] for row in healthy)
    steps = sorted({row["steps"] for row in healthy})
    wrong = [name for row in healthy for name in row["false_alarms"]]
    alarms = f"false alarms: {counted(wrong)}" if wrong else "no false alarm"
    yield (
        f"{found['ms_a_step']:.1f} ms of CPU a step with {found['memory']:,} steps in memory. Healthy runs, one group "
        f"a step and sixteen: {kinds} kinds, {healthy[0]['runs']} seeds each, {runs} runs of {steps[0]} to {steps[-1]} "
        f"steps, {alarms}."
    )


def sentinel(_: str) -> Iterator[str]:
    """A row a broken kind of run."""
    found = measured("sentinel")
    yield "| broken run | groups | runs | missed | steps until seen, median and worst | onset off by, median |"
    yield "|---|---|---|---|---|---|"
    for row in found["broken"]:
        seen = f"{median(row['late']):g}, {max(row['late'])} | {median(row['off']):+g}" if row["late"] else "- | -"
        yield f"| {row['name']} | {row['groups']} | {row['runs']} | {row['missed']} | {seen} |"


def packing(_: str) -> Iterator[str]:
    """Padding on paper; below, what sharing a prompt brings a step."""
    found = measured("packing")
    yield "| completions | ranks | padding: mean, worst of the draws |"
    yield "|---|---|---|"
    for row in found["padding"]:
        words = f"{row['mean']:.1%}, {row['worst']:.1%} of {row['draws']}"
        yield f"| 128 of {row['lengths']} | {row['ranks']} | {words} |"


def sharing(_: str) -> Iterator[str]:
    """How many times as fast a step is: the median step, the worst and the best."""
    found = measured("packing")
    yield "| prompts of | shared, beside packed | shared, beside one a row |"
    yield "|---|---|---|"
    for row in found["steps"]:
        seconds, cells = row["seconds"], []
        for name in ("packed", "one a row"):
            ratios = [slow / fast for fast, slow in zip(seconds["shared"], seconds[name], strict=True)]
            cells.append(f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
        yield f"| {row['prompt']} tokens | {' | '.join(cells)} |"


def transfer(_: str) -> Iterator[str]:
    """How fast weights reach every engine: the median transfer, the slowest and the fastest."""
    runs = measured("transfer")["runs"]
    yield "| way | GB/s to every engine | of memcpy | most in the object store, of the model |"
    yield "|---|---|---|---|"
    for name, run in runs.items():
        rate = f"{run['gb_per_s']:.2f} ({min(run['rates']):.2f} to {max(run['rates']):.2f})"
        kept = f"{run['object_store_peak']:.2f}" if "object_store_peak" in run else "-"
        yield f"| {name} | {rate} | {run['gb_per_s'] / runs['memcpy']['gb_per_s']:.2f} | {kept} |"


def plan_against_nemo(_: str) -> Iterator[str]:
    """Published steps of another framework beside what the plan makes of them today."""
    yield "| model | GPUs | tokens | measured | planned | off |"
    yield "|---|---|---|---|---|---|"
    found = measured("nemo")
    for run in found["runs"]:
        seconds = times(as_planned(run)).step
        cells = f"{run['gpus']} | {run['tokens']:,} | {run['step_s']:g} s | {seconds:.1f} s"
        yield f"| {run['model']} | {cells} | {seconds / run['step_s'] - 1:+.0%} |"


def as_planned(run: dict) -> Setting:
    """What is published of it; 200 tokens a prompt are assumed."""
    gpus, tp = run["gpus"], run["tensor_parallel"]
    overrides = {
        "algorithm": "grpo", "model.max_context": 4400,
        "rollout.groups_per_step": 64, "rollout.group_size": 32, "rollout.max_tokens": 4096,
        "rollout.workers": gpus // tp, "rollout.tensor_parallel": tp, "rollout.max_sequences": 256,
        "trainer.ranks": gpus, "trainer.zero_stage": 1, "trainer.mini_batches": 4,
        "trainer.gradient_checkpointing": True,
    }  # fmt: skip
    cfg, _ = typed(compose_recipe("quickstart", [f"{key}={value}" for key, value in overrides.items()]))
    made = Setting(cfg, find("h100"), PUBLISHED[run["model"]], 0, 200, run["tokens"] - 200)
    return replace(made, count=made.needed)


def saturation(_: str) -> Iterator[str]:
    """The simulated pipeline, a row a number of GPUs."""
    rows = {(r["gpus"], r["max_staleness"]): r for r in measured("saturation")["rows"]}
    bounds = sorted({bound for _, bound in rows})
    yield "| GPUs | " + " | ".join(f"k={k}: tokens/s a GPU, trainer / driver busy" for k in bounds) + " |"
    yield "|---" * (1 + len(bounds)) + "|"
    for gpus in sorted({gpus for gpus, _ in rows}):
        found = [rows[gpus, k] for k in bounds]
        cells = [f"{r['tokens_per_s_gpu']:,.0f}, {1 - r['trainer_idle']:.0%} / {r['driver']:.0%}" for r in found]
        yield f"| {gpus:,} | {' | '.join(cells)} |"


PARTS: dict[str, Callable[[str], Iterator[str]]] = {
    part.__name__: part
    for part in (
        presets, used_by, advantage_numbers, sum_against_gdpo, measured_presets, measured_gdpo, divergences, saturation,
        against_trl, times_trl, phases, driver, ahead, planned, gpu, sentinel_in_short, sentinel, packing, sharing,
        plan_against_nemo, transfer,
    )
}  # fmt: skip


def renewed(text: str) -> str:
    """KeyError for a part that nobody makes."""
    return PART.sub(
        lambda found: found[1] + "\n".join(PARTS[found["name"]](found["argument"] or "")) + "\n" + found[4], text
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing")
    check = parser.parse_args().check
    stale = [path for path in sorted(DOCS.rglob("*.md")) if renewed(path.read_text()) != path.read_text()]
    for path in stale:
        print(f"{'out of date' if check else 'renewed'}: {path.relative_to(ROOT)}")
        if not check:
            path.write_text(renewed(path.read_text()))
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
