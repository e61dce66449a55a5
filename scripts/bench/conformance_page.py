"""The generated parts of docs/conformance.md: what others' "GRPO" gives for [1,0,0,0], and the measured differences.

Numbers of ours come from our functions, those of peers that were run from docs/measured/conformance.json, those of
peers that were only read from the arithmetic beside them. `python scripts/bench/conformance.py --page` writes the page.
"""
# ruff: noqa: E501 - a reading is a line

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from conformance_cases import CASES, Case
from hydra.utils import instantiate
from omegaconf import OmegaConf

from rlvr.objective import Objective, Rewards

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "conformance.md"
PART = re.compile(r"(<!-- conformance: (?P<name>\w+) -->\n).*?(<!-- /conformance -->)", re.DOTALL)


@dataclass(frozen=True)
class Reading:
    """What a framework calls GRPO, where that is written, and which keys of ours give the same four numbers."""

    framework: str
    source: str
    formula: str
    vector: tuple[float, ...]  # by hand from the formula; for peers that were run, the test compares it with the run
    preset: str  # '': none of ours
    keys: tuple[str, ...] = ()
    ran: str = ""  # the case of conformance.json whose first group is [1,0,0,0]


def spread(first: float, others: float) -> tuple[float, ...]:
    return (first, others, others, others)


# fmt: off
# mean 0.25, sum of squares 0.75, std 0.5 with ddof=1 and 0.4330127 with ddof=0
READINGS = [
    Reading("TRL 1.16.0", "`trl/trainer/grpo_trainer.py`", "(r - mean)/(std + 1e-4)", spread(0.75 / 0.5001, -0.25 / 0.5001), "grpo", ("algorithm.advantage.eps=1e-4",), "grpo"),
    Reading("verl 0.9.1", "`verl/trainer/ppo/core_algos.py`", "(r - mean)/(std + 1e-6)", spread(0.75 / 0.500001, -0.25 / 0.500001), "grpo", (), "grpo, token-mean (its default)"),
    Reading("SkyRL 0.4.0", "`skyrl/backends/skyrl_train/utils/ppo_utils.py`", "(r - mean)/(std + 1e-6)", spread(0.75 / 0.500001, -0.25 / 0.500001), "grpo", (), "grpo, token_mean (its default)"),
    Reading("slime 0.3.1", "`slime/ray/rollout.py` at 624b824", "(r - mean)/(std + 1e-6)", spread(0.75 / 0.500001, -0.25 / 0.500001), "grpo"),
    Reading("OpenRLHF 0.11.2, `group_norm`", "`openrlhf/trainer/ppo_utils/experience_maker.py`", "(r - mean)/(std + 1e-9)", spread(0.75 / 0.500000001, -0.25 / 0.500000001), "grpo", ("algorithm.advantage.eps=1e-9",), "group_norm, per completion"),
    Reading("AReaL 1.0.4, `reward_norm` by group", "`areal/utils/data.py`, `NormConfig`", "(r - mean)/(std + 1e-5); its recipes then whiten over the batch's tokens", spread(0.75 / 0.50001, -0.25 / 0.50001), "grpo", ("algorithm.advantage.eps=1e-5",)),
    Reading("AReaL before 0.3.4", "help text of `std_unbiased` in `areal/api/cli_args.py`", "population std", spread(0.75 / 0.4330227, -0.25 / 0.4330227), "grpo", ("algorithm.advantage.ddof=0", "algorithm.advantage.eps=1e-5")),
    Reading("prime-rl 0.8.0", "`src/prime_rl/orchestrator/algo/grpo.py` at 559b447", "r - mean", spread(0.75, -0.25), "dr_grpo"),
    Reading("oat-llm 0.2.4, `critic_type=grpo`", "`oat/algorithms/ppo.py`", "(r - mean)/(std + 1e-8)", spread(0.75 / 0.50000001, -0.25 / 0.50000001), "grpo", ("algorithm.advantage.eps=1e-8",)),
    Reading("NeMo-RL 0.6.0", "`nemo_rl/algorithms/advantage_estimator.py`, `utils.py` at 7ea279a", "mean *and* std of the others; not divided where that std is 0", spread(1.0, -1 / 3 / (3**-0.5 + 1e-6)), ""),
    Reading("NeMo-RL, `use_leave_one_out_baseline: false`", "the same", "(r - mean)/(std + 1e-6)", spread(0.75 / 0.500001, -0.25 / 0.500001), "grpo"),
]
# fmt: on


def objective_of(preset: str, keys: tuple[str, ...], max_tokens: int = 12) -> Objective:
    """The preset's file with the keys of the command line on top; `+`, for keys it does not have, is not needed here."""
    cfg = OmegaConf.create({"rollout": {"max_tokens": max_tokens}})
    cfg.algorithm = OmegaConf.load(ROOT / "recipes" / "algorithm" / f"{preset}.yaml")
    merged = OmegaConf.merge(cfg, OmegaConf.from_dotlist([key.removeprefix("+") for key in keys]))
    return instantiate(merged.algorithm)


def ours(reading: Reading) -> list[float]:
    objective = objective_of(reading.preset, reading.keys)
    return objective.advantages(Rewards.of_one_group([1, 0, 0, 0]))[0].tolist()


def shown(vector: list[float] | tuple[float, ...]) -> str:
    first, second, *_ = vector
    return f"{first:.6f}, {second:.6f} x3"


def recipe(preset: str, keys: tuple[str, ...]) -> str:
    return " ".join(f"`{word}`" for word in (f"algorithm={preset}", *keys))


def readings(rows: list[dict]) -> Iterator[str]:
    yield "| framework | where | its GRPO | [1,0,0,0] gives | our keys | ours |"
    yield "|---|---|---|---|---|---|"
    for reading in READINGS:
        how = "run" if reading.ran else "read"
        mine = (recipe(reading.preset, reading.keys), shown(ours(reading))) if reading.preset else ("none", "-")
        cells = (reading.framework, f"{reading.source}; {how}", reading.formula, shown(reading.vector), *mine)
        yield f"| {' | '.join(cells)} |"


def measured(rows: list[dict]) -> Iterator[str]:
    """One table a peer; cases that are measured to differ come last."""
    found = {(row["peer"], row["case"]): row for row in rows}
    for peer in dict.fromkeys(case.peer for case in CASES):
        cases = [case for case in CASES if case.peer == peer and (peer, case.name) in found]
        if not cases:
            continue
        yield from ("", f"### {peer} {found[peer, cases[0].name]['version']}", "")
        yield "| its name for it | our recipe keys | advantages | loss | gradient | as trained, float32 |"
        yield "|---|---|---|---|---|---|"
        yield from (line(case, found[peer, case.name]) for case in cases if not case.differs)
        yield from ("", f"Not reproduced, and by how much (largest value of {peer}'s in brackets):", "")
        yield "| its name for it | nearest keys | advantages | loss | gradient | why |"
        yield "|---|---|---|---|---|---|"
        yield from (line(case, found[peer, case.name]) for case in cases if case.differs)


def line(case: Case, row: dict) -> str:
    def cell(name: str) -> str:
        if name not in row["float64"]:
            return "-"
        apart = f"{row['float64'][name]:.0e}" if row["float64"][name] else "0"
        return f"{apart} ({row['largest'][name]:.2g})" if case.differs else apart

    last = case.differs or f"{max(row['float32'].values()):.0e}"
    cells = (case.name, recipe(case.preset, case.keys), cell("advantages"), cell("loss"), cell("gradient"), last)
    return f"| {' | '.join(cells)} |"


PARTS = {"readings": readings, "measured": measured}


def renewed(text: str, rows: list[dict]) -> str:
    """KeyError for a part that nobody makes."""
    return PART.sub(lambda found: found[1] + "\n".join(PARTS[found["name"]](rows)) + "\n" + found[3], text)


def write_page(rows: list[dict]) -> None:
    PAGE.write_text(renewed(PAGE.read_text(), rows))
