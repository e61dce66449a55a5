"""What a recipe may say of the trainer. A docstring under every field: meaning, unit, when to change it."""

from dataclasses import dataclass, field
from math import inf

ALL_LINEAR = "all-linear"


@dataclass
class LoraConfig:
    rank: int = 0
    """Of the adapters; 0: none, the weights themselves are trained."""
    alpha: int = 32
    """The adapters' product is scaled by alpha / rank."""
    dropout: float = 0.0
    """Must be 0: the policy that is trained must be the one that sampled."""
    targets: list[str] = field(default_factory=lambda: [ALL_LINEAR])
    """Names of the linear layers that get an adapter, e.g. [q_proj, v_proj]; `all-linear`: all but the head."""


@dataclass
class TrainerConfig:
    ranks: int = 1
    """Data-parallel DeepSpeed ranks, one process each."""
    zero_stage: int = 0
    """DeepSpeed ZeRO: 0 replicates, 1 shards optimizer state, 2 gradients too, 3 weights too. In bfloat16 0 is 1: the
    float32 weights that the update needs are sharded in any case."""
    learning_rate: float = 1e-6
    """Peak learning rate of AdamW."""
    schedule: str = "constant"
    """After warm-up: `constant`, or `linear` or `cosine` down to where 0 would come one step after the last."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises from 0."""
    weight_decay: float = 0.0
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    """AdamW's decay rates. A second one below 0.99 forgets an outlier gradient sooner."""
    mini_batches: int = 1
    """Optimizer steps that share a batch, a part of it each. Above 1, pi_old is the policy before the first."""
    epochs: int = 1
    """Passes over a batch. More reuse what was sampled, at the price of training off-policy."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    micro_batch_tokens: int = 8192
    """Tokens of one forward and backward pass on one rank. Changes memory and speed, never the gradient."""
    row_tokens: int = 256
    """Short completions are packed into rows of about this many tokens; a longer one has a row of its own length."""
    share_prompts: bool | None = None
    """Completions of one prompt that share a row share its prompt too: it is computed once for all of them. Null: where
    attention is by mask (`sdpa`) and every layer sees all that came before."""
    logprob_chunk_tokens: int = 1024
    """Rows of the [tokens, vocabulary] matrix that exist at a time."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """Train low-rank adapters instead of the weights themselves."""
    offload_optimizer: str = "none"
    """Where the optimizer state and float32 weights live: `none` (with the model) or `cpu`, from zero_stage 1 on.
    Slower by what has to travel; a way to fit. Not on a disk: DeepSpeed does not bring that back from a checkpoint."""
    offload_parameters: str = "none"
    """Where the weights live between their uses: `none`, `cpu` or `nvme`. With zero_stage 3."""
    offload_folder: str | None = None
    """On the disk that `nvme` means."""
    offload_reference: bool = False
    """Keep the reference model of a KL term in CPU memory between its passes."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more time."""
    compile: bool | None = None
    """Compile the model's layers: on a GPU a step takes about half the time, the first one half a minute more. Null: on
    a GPU, where zero_stage is below 3; with 3, weights are gathered in the middle of what would be compiled."""
    threads: int = 1
    """CPU threads of one rank."""
    bucket_mb: int = 256
    """Weights travel to the engines in buckets of this size."""
    probe_tolerance: float | None = None
    """How far apart logprobs may be, in nats: the probe's between trainer and engine after a weight transfer, as their
    root mean square; each of a few tokens' between documents alone and packed when the trainer starts. Null: 3e-4 when
    both compute in float32, else 0.25."""

    def compiles(self, on_gpu: bool) -> bool:
        return on_gpu and self.zero_stage < 3 if self.compile is None else self.compile


def untrainable(cfg: TrainerConfig) -> str | None:
    """The key, its value and the limit, when these settings cannot work."""
    counts = ("ranks", "threads", "mini_batches", "epochs", "micro_batch_tokens", "row_tokens", "logprob_chunk_tokens")
    at_least = [(name, 1) for name in (*counts, "bucket_mb")] + [("warmup_steps", 0)]
    for name, limit in at_least:
        if getattr(cfg, name) < limit:
            return f"{name}={getattr(cfg, name)}: at least {limit}"
    for name in ("learning_rate", "max_grad_norm", "probe_tolerance"):
        if (value := getattr(cfg, name)) is not None and not value > 0:
            return f"{name}={value}: must be above 0"
    for name in ("learning_rate", "probe_tolerance"):  # an infinite max_grad_norm clips nothing
        if getattr(cfg, name) == inf:
            return f"{name}=inf: must be finite"
    if not 0 <= cfg.weight_decay < inf:
        return f"weight_decay={cfg.weight_decay}: at least 0 and finite"
    if len(cfg.betas) != 2 or not all(0 <= beta < 1 for beta in cfg.betas):
        return f"betas={cfg.betas}: two numbers, each at least 0 and below 1"
    one_of = {
        "zero_stage": (0, 1, 2, 3),
        "schedule": ("constant", "linear", "cosine"),
        "offload_optimizer": ("none", "cpu"),
        "offload_parameters": ("none", "cpu", "nvme"),
    }
    for name, allowed in one_of.items():
        if getattr(cfg, name) not in allowed:
            return f"{name}={getattr(cfg, name)}: one of {', '.join(map(str, allowed))}"
    if cfg.compile and cfg.zero_stage == 3:
        return "compile=true needs trainer.zero_stage below 3, which gathers weights in the middle of a layer"
    return _without_a_place(cfg) or _no_adapter(cfg.lora)


def _without_a_place(cfg: TrainerConfig) -> str | None:
    needed = {
        "offload_optimizer": {"none": 0, "cpu": 1},
        "offload_parameters": {"none": 0, "cpu": 3, "nvme": 3},
    }
    for name, stages in needed.items():
        if cfg.zero_stage < (stage := stages[getattr(cfg, name)]):
            return f"{name}={getattr(cfg, name)} needs trainer.zero_stage of at least {stage}, not {cfg.zero_stage}"
    if cfg.offload_parameters == "nvme" and not cfg.offload_folder:
        return "offload_parameters=nvme needs trainer.offload_folder: a folder on that disk"
    return None


def _no_adapter(lora: LoraConfig) -> str | None:
    if lora.rank < 0:
        return f"lora.rank={lora.rank}: at least 0"
    if lora.dropout != 0:
        return f"lora.dropout={lora.dropout}: must be 0: the policy that is trained must be the one that sampled"
    if not lora.alpha > 0:
        return f"lora.alpha={lora.alpha}: must be above 0"
    if len(lora.targets) > 1 and ALL_LINEAR in lora.targets:
        return f"lora.targets={list(lora.targets)}: {ALL_LINEAR} is every linear layer, name it alone"
    return None if lora.targets else "lora.targets is empty: nothing would be trained"
