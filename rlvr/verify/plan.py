"""Which verifier a recipe's reward asks about which completion. Starts nothing.

A data row may name its own: `reward.parts.<part>.column` says in which column, `<column>_params` holds its options.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rlvr.config import RecipeError
from rlvr.data.rows import is_missing
from rlvr.reward_config import RewardConfig, VerifierChoice
from rlvr.rollout_config import ToolConfig
from rlvr.types import Prompt, sampling_seed
from rlvr.verify.discover import installed, load
from rlvr.verify.plugin import PluginError
from rlvr.verify.process import Assignment
from rlvr.verify.tool import TOOL

AUDIT = "audit:"  # before a part's name: the stricter verifier that looks at a share of its completions


class Plan:
    """The recipe's reward, its verifiers found and their options checked; RecipeError says what is wrong."""

    def __init__(self, reward: RewardConfig):
        self.reward = reward
        self.chains: dict[str, tuple[Assignment, ...]] = {}
        self.audits: dict[str, Assignment] = {}
        for name, part in reward.parts.items():
            knob = f"reward.parts.{name}"
            later = [assignment(name, c, f"{knob}.first_decided") for c in part.first_decided]
            self.chains[name] = (assignment(name, part, knob), *later)
            if later and any(a.verifier.scope != "sample" for a in self.chains[name]):
                raise RecipeError(f"{knob}.first_decided: only verifiers of single samples can be asked in turn")
            for choice, reference in part.choices.items():
                assignment(name, VerifierChoice(reference), f"{knob}.choices.{choice}", params=False)
            if part.audit is not None:
                self.audits[name] = assignment(AUDIT + name, part.audit, f"{knob}.audit")
                if self.audits[name].verifier.scope != "sample":
                    raise RecipeError(f"{knob}.audit: {part.audit.verifier} does not judge single samples")

    def assignments(self) -> list[Assignment]:
        """What the recipe itself names; rows may name more."""
        return [*(a for chain in self.chains.values() for a in chain), *self.audits.values()]

    def chain(self, part: str, prompt: Prompt) -> tuple[Assignment, ...]:
        """Who is asked about this prompt's completions, in turn."""
        column = self.reward.parts[part].column
        if column is None:
            return self.chains[part]
        if not prompt.row.get(column) or is_missing(prompt.row[column]):
            if options := params_of_row(column, prompt):
                raise RecipeError(
                    f"prompt {prompt.id}, column {column}_params={options!s:.80}: options for nobody, as its column "
                    f"{column} is empty: name the verifier there, or the options in reward.parts.{part}.params"
                )
            return self.chains[part]
        return (self._of_row(part, column, prompt), *self.chains[part][1:])

    def _of_row(self, part: str, column: str, prompt: Prompt) -> Assignment:
        cfg, name = self.reward.parts[part], prompt.row[column]
        where = f"prompt {prompt.id}, column {column}={name!r:.80}"
        if not isinstance(name, str) or (name not in cfg.choices and name not in installed()):
            known = ", ".join(sorted({*cfg.choices, *installed()}))
            raise RecipeError(f"{where}: rows may name {known}; reward.parts.{part}.choices has room for more")
        params = params_of_row(column, prompt)
        return assignment(part, VerifierChoice(cfg.choices.get(name, name), params, cfg.timeout_s), where)

    def check_columns(self, prompts: Sequence[Prompt]) -> None:
        """RecipeError for a `column` that none of these rows has: all would silently get the part's own verifier."""
        for name, part in self.reward.parts.items():
            if part.column is not None and not any(part.column in prompt.row for prompt in prompts):
                there = ", ".join(sorted({str(key) for prompt in prompts for key in prompt.row}))
                knob = f"reward.parts.{name}.column={part.column}"
                raise RecipeError(f"{knob}: no such column in data.train; besides question and answer it has {there}")

    def check_rows(self, prompts: Iterable[Prompt]) -> None:
        """RecipeError for the first row that names what it may not, or options that its verifier does not have."""
        for prompt in prompts:
            for part in self.chains:
                chain = self.chain(part, prompt)
                if len(chain) > 1 and chain[0].verifier.scope != "sample":
                    raise RecipeError(f"prompt {prompt.id}: reward.parts.{part}.first_decided is for single samples")

    def audited(self, part: str, position: int, index: int) -> bool:
        """The same completions in every repetition of a run."""
        audit = self.reward.parts[part].audit
        return audit is not None and sampling_seed(SHARES, position, index) < audit.share * 2**63


def params_of_row(column: str, prompt: Prompt) -> dict[str, Any]:
    """The options that its column `<column>_params` holds, without those that are null: a table of many rows has every
    option in every row, most of them empty."""
    where, params = f"prompt {prompt.id}, column {column}_params", prompt.row.get(f"{column}_params") or {}
    try:
        params = json.loads(params) if isinstance(params, str) else params
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{where} is not JSON: {error}") from None
    if is_missing(params):
        return {}
    if not isinstance(params, Mapping):
        raise RecipeError(f"{where} holds a {type(params).__name__}, not options")
    return {key: value for key, value in params.items() if value is not None}


SHARES = 77  # any number that is no run's seed by habit


def assignment(part: str, choice: VerifierChoice, knob: str, params: bool = True) -> Assignment:
    """The verifier, found and its options checked; RecipeError says what is wrong."""
    try:
        verifier = load(choice.verifier)
        if params:
            verifier.check_params(choice.params, f"{knob}.params")
    except PluginError as error:
        raise RecipeError(str(error) if str(error).startswith(knob) else f"{knob}: {error}") from error
    return Assignment(part, choice.verifier, dict(choice.params), choice.timeout_s)


def tool_of(cfg: ToolConfig) -> Assignment:
    """The tool that completions may call, found and its options checked; RecipeError says what is wrong."""
    return assignment("tool", VerifierChoice(f"{TOOL}:{cfg.name}", cfg.params, cfg.timeout_s), "rollout.tool")


def params_of(words: Iterable[str]) -> Mapping[str, Any]:
    """`key=value` words as a verifier's options; a value that is JSON, or True or False, is that, any other is text."""
    options: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key.isidentifier():
            raise RecipeError(f"{word!r}: expected key=value")
        try:
            options[key] = json.loads(value.lower() if value.lower() in ("true", "false") else value)
        except ValueError:
            options[key] = value
    return options
