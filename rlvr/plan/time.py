"""Seconds of a step, phase by phase. Knows no price.

    rollout  = prefill (FLOPs) + decoding (bandwidth) + a tool's answers + the last verdict
               per engine; they work side by side
    train    = FLOPs + gathers and reductions + optimizer                    per rank
    publish  = weights over the slowest link on their way

Decoding steps as vLLM takes them: each reads the weights and the cache of every completion in flight; new completions
take free slots until none is left, and then the long ones finish alone.
"""

from dataclasses import dataclass
from statistics import mean

from rlvr.plan import memory
from rlvr.plan.setting import Setting
from rlvr.plan.work import work

ALL_REDUCE_S = 15e-6  # of an all-reduce in tensor parallelism, however small
STORE = 5e9  # bytes/s through host memory shared with Ray's object store, one process
LENT = 13e9  # bytes/s within a GPU, over CUDA IPC: scripts/bench/transfer.py, 256 MB a bucket on an H200
CPU_ADAM = 5e9  # bytes/s of optimizer state that DeepSpeed's CPU optimizer works through, per rank; one process of many


@dataclass(frozen=True)
class Times:
    """Times(prefill=2.0, decode=61.0, verify=0.1, train=40.0, publish=3.5)"""

    prefill: float
    decode: float
    verify: float
    train: float
    publish: float
    tool: float = 0.0
    overlapped: bool = False

    @property
    def rollout(self) -> float:
        return self.prefill + self.decode + self.tool + self.verify

    @property
    def step(self) -> float:
        longest = max(self.rollout, self.train) if self.overlapped else self.rollout + self.train
        return longest + self.publish


def times(setting: Setting) -> Times:
    completions = setting.completions / setting.cfg.rollout.workers
    return Times(
        prefill=prefill(setting, completions),
        decode=decode(setting, completions),
        verify=verify(setting),
        train=train(setting),
        publish=publish(setting),
        tool=tool(setting, completions),
        overlapped=setting.cfg.rollout.max_staleness > 0,
    )


def prefill(setting: Setting, completions: float) -> float:
    """A prompt is read once for all its completions, which are on one engine, or once for each. Behind a tool's answer
    a completion goes on from the cache, or is read again from its prompt on."""
    prompt, model, cached = setting.prompt_tokens, setting.model, caches_prefixes(setting)
    prompts = completions / setting.cfg.rollout.group_size if cached else completions
    flops = prompts * prompt * model.flops(prompt / 2)
    so_far = prompt + setting.mean_length / 2  # at a call, on average
    a_call = setting.answer_tokens * model.flops(so_far) if cached else so_far * model.flops(so_far / 2)
    flops += completions * setting.calls * a_call
    return flops / setting.tensor_parallel / (setting.device.flops * setting.device.prefill_efficiency)


def caches_prefixes(setting: Setting) -> bool:
    """Whether an engine reads what several sequences begin with only once."""
    share = setting.cfg.rollout.share_prompts
    return not setting.device.cpu if share is None else share


def decoding_step(setting: Setting, active: float, context: float) -> float:
    """One token for each of `active` completions of `context` tokens so far."""
    device, model, tp, b = setting.device, setting.model, setting.tensor_parallel, setting.engine_bytes
    read = model.parameters - (0 if model.tied else model.head_parameters)  # of an embedding only a few rows are read
    moved = (read * b + active * context * memory.cache_bytes(setting)) / tp
    flops = active * model.flops(context) / tp
    reading, computing = device.bandwidth * device.bandwidth_efficiency, device.flops * device.prefill_efficiency
    shared = 0.0
    if tp > 1:
        size = 2 * active * model.hidden * b * (tp - 1) / tp
        shared = 2 * model.layers * (ALL_REDUCE_S + size / (device.link * device.link_efficiency))
    return max(moved / reading, flops / computing) + shared + device.pass_s + active * device.sequence_s


def decode(setting: Setting, completions: float) -> float:
    """Full slots until no completion waits, then as many as are left. What a tool answered is not decoded."""
    seats, written = max(1, memory.slots(setting)), setting.mean_tokens / setting.mean_length
    lengths = setting.lengths()
    average = mean(lengths)
    full = max(0.0, completions - seats) * average * written / seats
    total = full * decoding_step(setting, seats, setting.prompt_tokens + average / 2)
    alive, before = min(completions, float(seats)), 0.0
    for n, length in enumerate(lengths):
        active = alive * (len(lengths) - n) / len(lengths)
        context = setting.prompt_tokens + (before + length) / 2
        total += (length - before) * written * decoding_step(setting, max(active, 1.0), context)
        before = length
    return total


def tool(setting: Setting, completions: float) -> float:
    """A completion keeps its slot while it waits for an answer, and decoding is taken to be no quicker meanwhile. Or,
    if that is longer, what the tool's processes are behind by when all is decoded."""
    waited = setting.calls * setting.tool_s * max(1.0, completions / max(1, memory.slots(setting)))
    work = completions * setting.calls * setting.tool_s / setting.cfg.rollout.tool.processes
    return max(waited, work - decode(setting, completions))


def verify(setting: Setting) -> float:
    """What is not hidden behind sampling: a verdict at the end, and what the processes are behind by."""
    processes = setting.cfg.verify.workers * setting.cfg.verify.processes
    work = setting.completions * setting.verify_s / processes
    hidden = decode(setting, setting.completions / setting.cfg.rollout.workers)
    return max(setting.verify_s, work - hidden)


def train(setting: Setting) -> float:
    cfg, device = setting.cfg.trainer, setting.device
    once = work(setting)
    forward = setting.model.forward(once.tokens, once.attended) / (device.flops * device.train_efficiency)
    frozen = bool(cfg.lora.rank)  # no gradients of the weights then
    passes = cfg.epochs * (3 - frozen + cfg.gradient_checkpointing)
    passes += (cfg.epochs * cfg.mini_batches > 1 or setting.kl_in_reward) + setting.kl
    a_pass = device.compiled_pass_s if cfg.compiles(not device.cpu) else device.train_pass_s
    fixed = once.micro_batches * a_pass * passes / 3
    moved = shared(setting, once.micro_batches)
    return forward * passes + fixed + moved + optimize(setting) * cfg.mini_batches * cfg.epochs


def shared(setting: Setting, micro_batches: int) -> float:
    """Gathers of ZeRO-3 in every pass, and the reduction of gradients. None of it is hidden: overlap_comm is off.
    `micro_batches`: of an epoch, all its updates together."""
    cfg, b = setting.cfg.trainer, setting.train_bytes
    updates = cfg.mini_batches
    gathers = 2 * micro_batches if setting.zero_stage == 3 else updates * (b == 2)  # forward, backward; or when updated
    reductions = micro_batches if setting.zero_stage >= 2 else updates
    moved = gathers * setting.model.parameters * b + reductions * setting.trainable * b
    return _gathered(setting, moved * cfg.epochs)


def optimize(setting: Setting) -> float:
    """Gradients, weights and two moments are read, the last three written."""
    cfg, device = setting.cfg.trainer, setting.device
    share = setting.trainable / (cfg.ranks if setting.zero_stage else 1)
    if cfg.offload_optimizer == "none":
        return share * 28 / (device.bandwidth * device.bandwidth_efficiency)
    return share * (6 / (device.host * device.link_efficiency) + 28 / CPU_ADAM)


def publish(setting: Setting) -> float:
    """Buckets travel while the next is made, so the slowest leg counts; each node of engines gets one copy. On a GPU
    that engine and rank share they go nowhere: what takes time is to lend and to open them."""
    device, size, cfg = setting.device, setting.model.parameters * setting.train_bytes, setting.cfg
    if cfg.cluster.placement == "colocated" and not device.cpu:
        return size / LENT + _gathered(setting, size) * (setting.zero_stage == 3) + device.transfer_s
    legs = [size / STORE]
    if not device.cpu:
        legs.append(size / (device.host * device.link_efficiency))
    if setting.needed > device.node:
        legs.append(size / (device.network * device.link_efficiency))
    return max(legs) + device.transfer_s


def _gathered(setting: Setting, size: float) -> float:
    """Seconds until `size` bytes that are spread over the ranks have been to all of them."""
    ranks, device = setting.cfg.trainer.ranks, setting.device
    rate = (device.network if ranks > device.node else device.link) * device.link_efficiency
    return size * (ranks - 1) / ranks / rate
