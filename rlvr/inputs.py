"""What a recipe names, read and found good, before anything is written or started."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

from rlvr import config
from rlvr.config import Recipe, RecipeError
from rlvr.data.prompts import Renderer, fingerprint, load_prompts, refuse_overlap
from rlvr.data.tokenizer import check_stop
from rlvr.objective import Objective
from rlvr.objective.trial import trial
from rlvr.train.models import check_policy, check_reference
from rlvr.types import Prompt
from rlvr.verify.plan import Plan, tool_of
from rlvr.verify.rows import leave_out


@dataclass(frozen=True)
class Inputs:
    """What a recipe names, read and found good."""

    train: list[Prompt]
    heldout: list[Prompt]
    vocabulary: int
    notes: tuple[str, ...] = ()  # of what was left out
    known_by: Mapping[str, str] = field(default_factory=dict)  # what a resume knows data and chat template by


def read_inputs(cfg: Recipe, objective: Objective, day: str | None = None) -> Inputs:
    """Everything that can be wrong with a recipe, its model's tokenizer and its data is found here. `day`: on which the
    run began, in ISO format; none: today."""
    config.check(cfg)
    check_objective(cfg, objective)
    reader = Reader(cfg, day)
    check_reference(objective, reader.vocabulary, cfg.model.max_context)
    prompts = reader.prompts(cfg.data.train, "data.train")
    known_by = {"day": reader.render.day.isoformat(), "sha256": fingerprint(prompts)}
    reader.plan.check_columns(prompts)
    reader.plan.check_rows(prompts)
    heldout = reader.heldout()
    data = {f"data.train={cfg.data.train}": prompts, f"data.heldout={cfg.data.heldout}": heldout}
    (prompts, heldout), notes = leave_out(reader.plan, data)
    check_domains(cfg, objective, prompts)
    refuse_overlap(prompts, heldout)
    return Inputs(prompts, heldout, reader.vocabulary, tuple(notes), known_by)


def read_problems(cfg: Recipe, day: str | None = None) -> Inputs:
    """The held-out problems alone, for who does not train: RecipeError where there are none."""
    config.check(cfg)
    if not cfg.data.heldout:
        raise RecipeError("data.heldout=null: there are no problems to evaluate on; name a file, or a data set")
    reader = Reader(cfg, day)
    problems = reader.heldout()
    (problems,), notes = leave_out(reader.plan, {f"data.heldout={cfg.data.heldout}": problems})
    return Inputs([], problems, reader.vocabulary, tuple(notes))


class Reader:
    """Of data sets, as the recipe's model is to see them."""

    def __init__(self, cfg: Recipe, day: str | None):
        self.cfg, self.plan = cfg, Plan(cfg.reward)
        if cfg.rollout.tool.name is not None:
            tool_of(cfg.rollout.tool)
        self.render = Renderer(cfg.model, date.fromisoformat(day) if day else None)
        check_stop(self.render.tokenizer, cfg.rollout.stop)
        # a tokenizer may know tokens that its model does not, and a model more
        self.rows = check_policy(cfg.model)
        self.vocabulary = min(len(self.render.tokenizer), self.rows)
        if cfg.rollout.top_k > self.vocabulary:  # vLLM would say so when it begins to sample
            raise RecipeError(
                f"rollout.top_k={cfg.rollout.top_k} > {self.vocabulary}, the tokens of model.path={cfg.model.path}; "
                "0 samples from all"
            )

    def prompts(self, source: str, knob: str) -> list[Prompt]:
        room = self.cfg.model.max_context - self.cfg.rollout.max_tokens
        return load_prompts(source, knob, self.cfg.data, self.render, room, self.rows)

    def heldout(self) -> list[Prompt]:
        """As many as are to be used; none where the recipe names none."""
        if not self.cfg.data.heldout:
            return []
        problems = self.prompts(self.cfg.data.heldout, "data.heldout")[: self.cfg.evaluation.limit]
        self.plan.check_rows(problems)
        return problems


def check_objective(cfg: Recipe, objective: Objective) -> None:
    """Whether the algorithm can work with the rest of the recipe."""
    parts = list(cfg.reward.weights().values())
    try:
        trial(objective, parts, cfg.rollout.group_size, cfg.rollout.max_tokens)
    except Exception as error:  # slots may be anybody's
        where = "".join(f"{note}: " for note in getattr(error, "__notes__", [])[:1])
        said = f"{error}" if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise RecipeError(
            f"algorithm does not fit reward.parts={','.join(cfg.reward.parts)} and "
            f"rollout.group_size={cfg.rollout.group_size}: {where}{said}"
        ) from error
    if (cfg.rollout.top_p < 1 or cfg.rollout.top_k) and not objective.keep_sampling_mask:
        raise RecipeError(
            f"rollout.top_p={cfg.rollout.top_p:g}, rollout.top_k={cfg.rollout.top_k}: completions are then sampled "
            "from a part of the policy, which this algorithm does not train; set +algorithm.keep_sampling_mask=true "
            "(in a resume without the +)"
        )
    if objective.kl and objective.kl.domains and cfg.data.domain is None:
        domains = ", ".join(sorted(objective.kl.domains))
        raise RecipeError(f"algorithm.kl.coefficient is per domain ({domains}): data.domain must name their column")


def check_domains(cfg: Recipe, objective: Objective, prompts: list[Prompt]) -> None:
    if objective.kl and (unknown := objective.kl.domains - {prompt.domain for prompt in prompts}):
        raise RecipeError(
            f"algorithm.kl.coefficient: no prompt of data.train is of domain {', '.join(sorted(unknown))} "
            f"(column data.domain={cfg.data.domain})"
        )
