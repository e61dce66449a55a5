"""What a recipe may say. Plain dataclasses, a docstring under every field: meaning, unit, when to change it.

Read once, typed, never written to. Defaults live here and nowhere else; recipes only say what differs. Knows no Hydra.
"""

from dataclasses import dataclass, field
from typing import Any

from rlvr.reward_config import MISSING, RewardConfig, VerifyConfig, unworkable
from rlvr.reward_config import PartConfig as PartConfig  # a recipe's reader need not know that they have their own file
from rlvr.rollout_config import RolloutConfig, unsampled
from rlvr.sentinel_config import SentinelConfig, what_is_wrong
from rlvr.trainer_config import TrainerConfig, untrainable


@dataclass
class ModelConfig:
    path: str = MISSING
    """A local Hugging Face folder or a hub name. The policy starts from it; it is also the KL reference."""
    dtype: str = "auto"
    """What the trainer computes in: `float32`, `bfloat16`, or `auto` (bfloat16 on GPU, float32 on CPU)."""
    max_context: int = 4096
    """Tokens of prompt and completion together, at most what the model was built for. Longer prompts are refused when
    the data is read."""
    chat_template: str | None = None
    """A Jinja file that replaces the tokenizer's chat template, e.g. for a base model that has none; `plain` is the
    bare text, behind the token that begins a text where the tokenizer puts one there (Llama's does)."""
    attention: str = "auto"
    """The trainer's. `varlen` is PyTorch's own flash attention for packed rows, on a GPU in bfloat16; `auto` takes it
    there, and `sdpa` elsewhere. Others are transformers': `eager`, or `flash_attention_2` or `_3`, which need a GPU
    and their packages."""


@dataclass
class DataConfig:
    train: str = MISSING
    """A .jsonl, .json or .parquet file, all that a pattern fits (`part-*.parquet`), or a `datasets` hub name: name,
    name:split or name:configuration:split."""
    heldout: str | None = None
    """Problems that no training step sees, for evaluation; null: no evaluation. Overlap with `train` is refused."""
    prompt: str = "problem"
    """The column with the question: text, or a list of chat messages. The assistant goes on with a last one of its
    own."""
    answer: str | None = "answer"
    """The column with the reference answer, handed to the verifiers as it is; null: there are no references."""
    domain: str | None = None
    """A column that names each prompt's domain (per-domain KL); null: all are `default`."""
    system: str | None = None
    """A system message put before every question. Rows that have one of their own are refused."""
    split: str = "train"
    """The split of a hub data set whose name does not say one."""
    shuffle: bool = True
    """A fresh order in every epoch, a function of the seed and the epoch."""


@dataclass
class CheckpointConfig:
    every: int = 25
    """Steps between checkpoints. Step 0 and the last step are always saved."""
    keep: int = 3
    """Newest checkpoints that stay on disk. So do step 0, the best by evaluation, the two newest good ones, and a good
    one from 64 steps before: all in all about 5 more."""
    keep_every: int = 0
    """Checkpoints of steps that this divides stay too; 0: none."""
    probation: int = 20
    """Steps without an alarm after which a checkpoint is good: the sentinel goes back to good ones only."""


@dataclass
class EvaluationConfig:
    every: int = 0
    """Steps between evaluations on the held-out problems; 0: only before the first and after the last step."""
    limit: int | None = None
    """Held-out problems to use, the first so many; null: all."""
    samples: int = 1
    """Completions a problem for the sampled accuracy, at the rollout temperature; and for pass@k, k the powers of two
    up to it, at most 64; above 2 also for the most frequent answer (maj@k)."""


@dataclass
class LogConfig:
    console: bool = True
    """The live display; false: only errors and the result."""
    completions_every: int = 1
    """Steps between records of all sampled completions, trained on or not, with their verdicts; 0: never."""
    evaluations: bool = True
    """Record all completions of every evaluation, with their verdicts."""
    wandb: bool = False
    """Log to Weights & Biases; `WANDB_MODE` decides between offline (default here) and online."""
    wandb_project: str = "rlvr"
    tensorboard: bool = False
    """Write TensorBoard event files into the run folder."""


@dataclass
class RunConfig:
    folder: str | None = None
    """Where the run lives. Null: runs/<recipe>-<number>. A folder with a run in it is refused: `rlvr resume` it."""


@dataclass
class ClusterConfig:
    kind: str = "local"
    """`local` starts Ray on this machine, `ray` joins a running cluster, `inline` runs everything in one process."""
    address: str | None = None
    """Of the cluster to join with kind `ray`, e.g. `auto` or `head:6379`. The driver runs on one of its nodes."""
    placement: str = "disaggregated"
    """`disaggregated`: engines and trainer ranks on devices of their own. `colocated`: engine n and rank n share a GPU,
    and the engine sleeps while it trains; needs as many engines as ranks, and `rollout.max_staleness` 0."""
    gpus_per_engine: float | None = None
    """GPUs reserved for an engine; null: tensor_parallel, or half a GPU when colocated; 0 on machines without."""
    gpus_per_rank: float | None = None
    """GPUs reserved for a trainer rank; null: 1, or half a GPU when colocated; 0 on machines without."""
    restarts: int = 5
    """Deaths that are made good, of engines, of verifier workers and of trainer ranks each so many within
    `restart_hours`; one more ends the run. 0: none is. Of different workers those within a minute are one, as where a
    node is lost."""
    restart_hours: float = 6.0
    """After so many a death is forgotten."""
    restart_wait_s: float = 600.0
    """Seconds for a worker to come up again, e.g. until there is a node in place of one that was lost."""


@dataclass
class Recipe:
    """A complete run."""

    name: str = MISSING
    """Of the run's folder too, where `run.folder` names none."""
    seed: int = 0
    """From 0 to 4294967295."""
    steps: int = MISSING
    """Steps of the run: sample, judge, train, publish. Each makes `trainer.epochs` x `trainer.mini_batches` optimizer
    steps."""
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    verify: VerifyConfig = field(default_factory=VerifyConfig)
    algorithm: Any = MISSING
    """A file of recipes/algorithm: the objective's slots."""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    sentinel: SentinelConfig = field(default_factory=SentinelConfig)
    """When to distrust the run; a file of recipes/sentinel, its knobs in `rlvr/sentinel_config.py`."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    log: LogConfig = field(default_factory=LogConfig)
    run: RunConfig = field(default_factory=RunConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)

    @property
    def engine_dtype(self) -> str:
        """What engines compute in; `auto` where the model's is."""
        return self.model.dtype if self.rollout.dtype == "auto" else self.rollout.dtype


PROBE_TOKENS = 32  # that engines and trainer score after each transfer of weights


class RecipeError(ValueError):
    """The recipe or its data cannot work; one clear line for the user."""


class RunError(RuntimeError):
    """The run cannot go on; one clear line for the user. What was saved can be resumed."""


def check(cfg: Recipe) -> None:
    """What no type can say: values that cannot work, alone or together. RecipeError names the key and the limit."""
    at_least: dict[str, tuple[float, float]] = {
        "steps": (cfg.steps, 1),
        "verify.workers": (cfg.verify.workers, 1),
        "verify.processes": (cfg.verify.processes, 1),
        "verify.max_waiting": (cfg.verify.max_waiting, 1),
        "verify.window": (cfg.verify.window, 20),  # below, chance looks like a change
        "checkpoint.every": (cfg.checkpoint.every, 1),
        "checkpoint.keep": (cfg.checkpoint.keep, 1),
        "checkpoint.keep_every": (cfg.checkpoint.keep_every, 0),
        "checkpoint.probation": (cfg.checkpoint.probation, 1),
        "evaluation.samples": (cfg.evaluation.samples, 1),
        "evaluation.every": (cfg.evaluation.every, 0),
        "evaluation.limit": (1 if cfg.evaluation.limit is None else cfg.evaluation.limit, 1),
        "log.completions_every": (cfg.log.completions_every, 0),
        "cluster.restarts": (cfg.cluster.restarts, 0),
        "cluster.restart_hours": (cfg.cluster.restart_hours, 0),
        "cluster.restart_wait_s": (cfg.cluster.restart_wait_s, 1),
    }
    for key, (value, limit) in at_least.items():
        if not value >= limit:  # nor is nan
            raise RecipeError(f"{key}={value}: at least {limit}")
    if not 0 <= cfg.seed < 2**32:
        raise RecipeError(f"seed={cfg.seed}: from 0 to {2**32 - 1}")  # numpy's, which vLLM seeds, takes no other
    if not cfg.name.strip() or not cfg.name.isprintable() or "/" in cfg.name or cfg.name.startswith("."):
        raise RecipeError(
            f"name={cfg.name!r:.80}: names a folder, so it is not empty, has only printable characters, no / "
            "and no dot in front"
        )
    for key, gpus in {"engine": cfg.cluster.gpus_per_engine, "rank": cfg.cluster.gpus_per_rank}.items():
        if gpus is not None and not (0 <= gpus <= 1 or (gpus > 1 and gpus % 1 == 0)):
            raise RecipeError(f"cluster.gpus_per_{key}={gpus}: at least 0, above 1 a whole number")
    if cfg.rollout.engine == "vllm" and cfg.model.max_context <= PROBE_TOKENS:
        raise RecipeError(
            f"model.max_context={cfg.model.max_context}: above {PROBE_TOKENS} with rollout.engine=vllm, which scores "
            "so many tokens to prove each transfer of weights"
        )
    if wrong := unsampled(cfg.rollout):
        raise RecipeError(f"rollout.{wrong}")
    if wrong := untrainable(cfg.trainer):
        raise RecipeError(f"trainer.{wrong}")
    if wrong := what_is_wrong(cfg.sentinel):
        raise RecipeError(f"sentinel.{wrong}")
    one_of = {
        "cluster.kind": (cfg.cluster.kind, ("local", "ray", "inline")),
        "model.attention": (
            cfg.model.attention,
            ("auto", "sdpa", "varlen", "eager", "flash_attention_2", "flash_attention_3"),
        ),
        "model.dtype": (cfg.model.dtype, ("auto", "float32", "bfloat16")),
        "reward.combine": (cfg.reward.combine, ("sum", "product", "min")),
        "verify.sudden": (cfg.verify.sudden, ("stop", "warn")),
        "cluster.placement": (cfg.cluster.placement, ("disaggregated", "colocated")),
    }
    for key, (choice, allowed) in one_of.items():
        if choice not in allowed:
            raise RecipeError(f"{key}={choice}: one of {', '.join(map(str, allowed))}")
    parts = cfg.rollout.tensor_parallel
    if parts > 1 and cfg.cluster.gpus_per_engine not in (None, 0, parts):
        raise RecipeError(
            f"cluster.gpus_per_engine={cfg.cluster.gpus_per_engine:g}: one for each of "
            f"rollout.tensor_parallel={parts}, so set it to null"
        )
    if not cfg.reward.parts:
        raise RecipeError("reward.parts is empty: a run needs at least one verifier")
    if wrong := unworkable(cfg.reward, cfg.verify):
        raise RecipeError(wrong)
    for name, part in cfg.reward.parts.items():
        for other in part.requires:
            if other == name or other not in cfg.reward.parts:
                others = ", ".join(sorted(set(cfg.reward.parts) - {name})) or "none"
                raise RecipeError(f"reward.parts.{name}.requires: no other part {other!r}; there are: {others}")
    if not any(part.weight for part in cfg.reward.parts.values()):
        raise RecipeError("reward.parts: every weight is 0, so every reward would be")
    if cfg.model.max_context <= cfg.rollout.max_tokens:
        raise RecipeError(
            f"model.max_context={cfg.model.max_context} leaves no room for a prompt beside "
            f"rollout.max_tokens={cfg.rollout.max_tokens}"
        )
    if cfg.cluster.kind == "inline" and (cfg.trainer.ranks, cfg.rollout.workers, cfg.verify.workers) != (1, 1, 1):
        raise RecipeError(
            f"cluster=inline is one process: trainer.ranks={cfg.trainer.ranks}, rollout.workers={cfg.rollout.workers} "
            f"and verify.workers={cfg.verify.workers} must be 1; cluster=local has more"
        )
    alternating = "inline" if cfg.cluster.kind == "inline" else cfg.cluster.placement
    if cfg.rollout.max_staleness and alternating in ("inline", "colocated"):
        raise RecipeError(
            f"rollout.max_staleness={cfg.rollout.max_staleness}: sampling and training take turns with "
            f"cluster={alternating}, nothing could be gained; set it to 0, or use cluster.placement=disaggregated"
        )
    if alternating == "colocated" and (cfg.rollout.workers, cfg.rollout.tensor_parallel) != (cfg.trainer.ranks, 1):
        raise RecipeError(
            f"cluster.placement=colocated: an engine and a rank share each GPU, but there are rollout.workers="
            f"{cfg.rollout.workers} of rollout.tensor_parallel={cfg.rollout.tensor_parallel} and trainer.ranks="
            f"{cfg.trainer.ranks}; make them as many, of 1 GPU each"
        )
