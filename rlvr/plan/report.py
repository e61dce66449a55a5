"""The plan in words and as JSON: does it fit, which key to change, who waits, what it costs."""

import copy
from dataclasses import asdict, dataclass, replace
from typing import Any

from rlvr.plan import memory
from rlvr.plan.devices import GIB
from rlvr.plan.setting import Setting
from rlvr.plan.time import Times, caches_prefixes, times


@dataclass(frozen=True)
class Report:
    """All numbers of a plan; `problems` are what keeps it from running, each with the keys to change."""

    setting: Setting
    trainer: memory.Items
    engine: memory.Items
    rank_gib: float
    limit_gib: float
    slots: int
    times: Times
    problems: list[str]

    @property
    def gpu_hours(self) -> float:
        return self.setting.count * self.setting.cfg.steps * self.times.step / 3600

    @property
    def cost(self) -> float:
        return self.gpu_hours * self.setting.device.price


def report(setting: Setting) -> Report:
    items, device = memory.trainer(setting), setting.device
    rank = rank_bytes(setting)
    return Report(
        setting=setting,
        trainer=items,
        engine=memory.engine(setting),
        rank_gib=rank / GIB,
        limit_gib=device.memory_gib - device.reserved_gib,
        slots=memory.slots(setting),
        times=times(setting),
        problems=problems(setting),
    )


def rank_bytes(setting: Setting) -> float:
    """The most that one trainer device holds at a time. On a CPU all processes share the memory."""
    items = memory.trainer(setting)
    if setting.device.cpu:
        engines = sum(memory.engine(setting).values()) * setting.cfg.rollout.workers
        return sum(items.values()) * setting.cfg.trainer.ranks + engines
    if setting.colocated:
        engine = memory.engine(setting)
        return max(sum(items.values()), memory.standing(items) + sum(engine.values()))
    return sum(items.values())


def fits(setting: Setting) -> bool:
    return rank_bytes(setting) <= (setting.device.memory_gib - setting.device.reserved_gib) * GIB


def problems(setting: Setting) -> list[str]:
    cfg, device, found = setting.cfg, setting.device, []
    if not device.cpu and setting.needed != setting.count:
        kind = "more than" if setting.needed > setting.count else "less than"
        found.append(
            f"the recipe uses {setting.needed} devices ({setting.engine_devices} for engines, {cfg.trainer.ranks} for "
            f"the trainer), {kind} --count {setting.count}: rollout.workers, rollout.tensor_parallel, trainer.ranks"
        )
    if not fits(setting):
        need, limit = rank_bytes(setting) / GIB, device.memory_gib - device.reserved_gib
        found.append(f"a trainer rank needs {need:,.1f} GiB > {limit:,.1f} GiB of {device.name}: {advice(setting)}")
    if memory.slots(setting) < 1:
        weights = memory.engine(setting)["weights"] / GIB
        found.append(
            f"an engine's device has {weights:,.1f} GiB of weights and no room for one completion's cache: raise "
            "rollout.tensor_parallel, or rollout.gpu_memory_utilization"
        )
    return found


def advice(setting: Setting) -> str:
    """The fewest changes, the cheapest first, after which it fits: each is tried."""
    tried: list[str] = []
    changes: list[tuple[str, Any]] = [
        ("gradient_checkpointing", True),
        ("zero_stage", 3),
        ("logprob_chunk_tokens", 256),
        ("micro_batch_tokens", max(1024, int(setting.prompt_tokens + setting.cfg.rollout.max_tokens))),
        ("offload_optimizer", "cpu"),
        ("offload_parameters", "cpu"),
    ]
    for key, value in changes:
        if getattr(setting.cfg.trainer, key) == value:
            continue
        if key == "micro_batch_tokens" and value >= setting.cfg.trainer.micro_batch_tokens:
            continue
        cfg = copy.deepcopy(setting.cfg)
        setattr(cfg.trainer, key, value)
        changed = replace(setting, cfg=cfg)
        if rank_bytes(changed) < rank_bytes(setting):
            tried.append(f"trainer.{key}={str(value).lower()}")
            setting = changed
        if fits(setting):
            return " ".join(tried)
    more = "more trainer.ranks, " if setting.zero_stage == 3 else ""
    return f"{' '.join(tried)} does not suffice: {more}trainer.lora.rank=32, or a device with more memory".strip()


def as_json(report: Report) -> dict[str, Any]:
    setting, spent = report.setting, report.times
    return {
        "recipe": setting.cfg.name,
        "device": asdict(setting.device),
        "count": setting.count,
        "parameters": setting.model.parameters,
        "assumed": {
            "prompt_tokens": setting.prompt_tokens,
            "mean_tokens": setting.mean_tokens,
            "sampled": setting.sampled,
            "trained": setting.trained,
            "verify_s": setting.verify_s,
            "calls": setting.calls,
            "answer_tokens": setting.answer_tokens,
            "tool_s": setting.tool_s,
        },
        "trainer_bytes": report.trainer,
        "engine_bytes": report.engine,
        "rank_gib": report.rank_gib,
        "limit_gib": report.limit_gib,
        "host_bytes": memory.host(setting),
        "sequences_at_a_time": report.slots,
        "seconds": asdict(spent) | {"rollout": spent.rollout, "step": spent.step},
        "gpu_hours": report.gpu_hours,
        "cost_usd": report.cost,
        "problems": report.problems,
    }


def in_words(report: Report) -> str:
    setting, spent = report.setting, report.times
    cfg, device = setting.cfg, setting.device
    step = {"rollout": spent.rollout, "train": spent.train, "publish": spent.publish}
    lines = {
        "model": f"{cfg.model.path}: {setting.model.parameters:,} parameters, "
        f"{memory.cache_bytes(setting):,} bytes of cache a token",
        "devices": f"{setting.count} x {device.name}: {cfg.rollout.workers} engines of {setting.tensor_parallel}, "
        f"{cfg.trainer.ranks} trainer ranks, ZeRO-{setting.zero_stage}",
        "assumed": f"{setting.prompt_tokens:,.0f} tokens a prompt, {setting.mean_tokens:,.0f} a completion (of at most "
        f"{cfg.rollout.max_tokens:,}), {setting.sampled:g} groups sampled and {setting.trained:g} trained on for one",
        "tool": tool(report) if setting.calls else "",
        "trainer": f"{report.rank_gib:,.1f} of {report.limit_gib:,.1f} GiB: {sizes(report.trainer)}"
        + (f"; {memory.host(setting) / GIB:,.1f} GiB of host memory a rank" if memory.host(setting) else ""),
        "engine": f"{sizes(report.engine)}; {report.slots:,} completions at a time",
        "a step": f"{spent.step:,.1f} s: " + ", ".join(f"{name} {seconds:,.1f}" for name, seconds in step.items()),
        "waits": waits(report),
        "staleness": staleness(report),
        "the run": f"{cfg.steps:,} steps, {cfg.steps * spent.step / 3600:,.1f} h, {report.gpu_hours:,.0f} GPU-hours, "
        f"{report.cost:,.0f} USD at {device.price:g} an hour; start, evaluations and checkpoints not counted",
    }
    said = "\n".join(f"  {name:10} {text}" for name, text in lines.items() if text)
    verdict = "\n".join(f"  DOES NOT FIT: {problem}" for problem in report.problems) or "  fits"
    return f"{cfg.name} on {setting.count} x {device.name}\n{said}\n{verdict}"


def tool(report: Report) -> str:
    """What is assumed of it, and what it takes."""
    setting, cfg = report.setting, report.setting.cfg.rollout.tool
    before = "in the cache still" if caches_prefixes(setting) else "read again, as the engine caches no prompts"
    return (
        f"{cfg.name}: {setting.calls:g} answers a completion besides, of {setting.answer_tokens:,.0f} tokens and "
        f"{setting.tool_s:g} s in {cfg.processes} processes an engine: {report.times.tool:,.1f} s of the rollout; what "
        f"stands before an answer is {before}"
    )


def sizes(items: memory.Items) -> str:
    return ", ".join(f"{name} {size / GIB:,.1f}" for name, size in items.items())


def waits(report: Report) -> str:
    spent = report.times
    if not spent.overlapped:
        return (
            f"the trainer {spent.rollout / spent.step:.0%} and the engines {spent.train / spent.step:.0%} of a step, "
            "for each other: rollout.max_staleness=1 would overlap them"
            if report.setting.needed > 1 and not report.setting.colocated
            else "nothing overlaps on one device"
        )
    side, other = ("trainer", spent.train) if spent.rollout > spent.train else ("engines", spent.rollout)
    longest = max(spent.rollout, spent.train)
    better = "fewer" if side == "engines" else "more"
    return f"the {side} {1 - other / longest:.0%} of the time: {better} engines would balance the two"


def staleness(report: Report) -> str:
    bound = report.setting.cfg.rollout.max_staleness
    if not bound:
        return "none: every completion is of the policy that trains on it"
    spent = report.times
    behind = min(float(bound), max(1.0, spent.rollout / max(spent.train, 1e-9)))
    return f"about {behind:.1f} versions, at most {bound} (rollout.max_staleness)"
