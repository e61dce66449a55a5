"""The records that flow through a run. Knows nothing but the standard library.

    Prompt -> rollout -> Group(prompt, completions) -> verify -> Group(+ verdicts) -> collate -> Batch -> trainer.step

A Group is the atom: GRPO's baseline is the group mean, so a group is sampled, verified, aged, dropped and checkpointed
whole. Records are frozen; a stage returns a new one with `dataclasses.replace`.
"""

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from operator import attrgetter
from typing import Any, Literal


class Record:
    """Pickled as the arguments that make it: what dataclasses do of themselves takes twice as long, and records travel
    between processes by the thousand."""

    __slots__ = ()
    __match_args__: tuple[str, ...] = ()

    def __reduce__(self) -> tuple[type, tuple]:
        return type(self), attrgetter(*self.__match_args__)(self)


@dataclass(frozen=True, slots=True)
class Prompt(Record):
    """One data-set row, rendered for the model.

    Prompt(id="train-17", position=1017, messages=({"role": "user", "content": "2+3=?"},), token_ids=(5, 9, 6, 3),
           answer="5", domain="math")
    """

    id: str
    position: int  # in the endless prompt stream; with the seed, all the randomness of its completions
    messages: tuple[Mapping[str, str], ...]
    token_ids: tuple[int, ...]  # through the chat template, generation prompt included
    answer: Any  # the reference, as the data set gave it
    domain: str = "default"
    row: Mapping[str, Any] = field(default_factory=dict)  # further columns that verifiers asked for
    thinking: bool = False  # it ends in `<think>`: the chat template has opened the thoughts


COMPACT = {"token_ids": "i", "loss_mask": "b", "rollout_logprobs": "f"}  # of `array`: int32, a byte, float32
StopReason = Literal["eos", "stop", "length", "abort"]  # end token; stop string; ran into a limit; engine gave up


@dataclass(frozen=True, slots=True)
class Completion(Record):
    """One sampled continuation of T tokens, the prompt not included. What it has of each token is kept in arrays,
    whatever it was made of: a step has millions.

    Completion(token_ids=(7, 8, 2), loss_mask=(True, True, True), rollout_logprobs=(-0.1, -2.3, -0.01),
               policy_version=4, text="5", stop_reason="eos")
    """

    token_ids: Sequence[int] = field(hash=False)  # the end token included when the policy sampled it
    loss_mask: Sequence[bool] = field(hash=False)  # True where the policy sampled the token (tool output is False)
    rollout_logprobs: Sequence[float] = field(hash=False)  # as sampled, temperature applied; 0 without loss_mask
    policy_version: int  # the oldest weights that sampled any of these tokens
    text: str  # decoded without special tokens; what tools wrote included
    stop_reason: StopReason
    kept_ids: Sequence[Sequence[int]] | None = None  # of each token: what top-p/top-k left to choose from; None: all
    updates: Sequence[tuple[int, int]] = ()  # (token, policy version) from which on newer weights sampled it
    observed: Sequence[tuple[int, int]] = ()  # (start, end) of the characters of `text` that a tool wrote
    failure: str = ""  # why it was aborted

    def __post_init__(self) -> None:
        for name, kind in COMPACT.items():
            if getattr(values := getattr(self, name), "typecode", None) != kind:
                object.__setattr__(self, name, array(kind, values))
        lengths = {len(self.token_ids), len(self.loss_mask), len(self.rollout_logprobs)}
        if len(lengths) != 1:
            raise ValueError(f"token_ids, loss_mask and rollout_logprobs differ in length: {sorted(lengths)}")
        if self.kept_ids is not None:
            for position, (token, kept) in enumerate(zip(self.token_ids, self.kept_ids, strict=True)):
                if kept and token not in kept:
                    raise ValueError(f"token {token} at {position} is not among those it was sampled from: {kept}")

    @property
    def length(self) -> int:
        """Tokens that the policy wrote."""
        return bytes(self.loss_mask).count(1)

    @property
    def written(self) -> str:
        """What the policy wrote: `text`, with a line break in place of what each tool call brought."""
        parts, at = [], 0
        for start, end in self.observed:
            parts.append(self.text[at:start])
            at = end
        return "\n".join([*parts, self.text[at:]])


class Outcome(StrEnum):
    """OK and REJECTED are trainable, ABSTAIN and ERROR are masked: they leave the group's mean, std and count."""

    OK = "ok"
    REJECTED = "rejected"  # the policy caused it: no box, too long, its program ran out of time
    ABSTAIN = "abstain"  # the verifier cannot say: the reference itself does not parse
    ERROR = "error"  # the machinery failed; never a reward


TRAINABLE = (Outcome.OK, Outcome.REJECTED)
DETAIL_LIMIT = 2_000  # characters


@dataclass(frozen=True, slots=True)
class Provenance(Record):
    """Where a verdict comes from, so that it can be judged and computed again."""

    verifier: str
    version: str = ""
    parameters: str = ""  # hash of the parameters
    seconds: float = 0.0
    attempts: int = 1
    trust: Literal["separate", "shared", ""] = ""  # did tests and graded code share a process?
    sandbox_level: str = ""
    judge: str = ""  # judge model and prompt hash
    cost: float = 0.0  # in the judge's currency
    path: str = ""  # how it was decided, where a verifier has several ways: fast, ...
    part: str = ""  # the reward part that asked; `audit:<part>` for the stricter look at a sample
    outcome: str = ""  # what this verifier said, before several parts became one reward
    reason: str = ""
    reward: float | None = None
    parts: Mapping[str, float] = field(default_factory=dict, hash=False)  # further numbers that it gave


@dataclass(frozen=True, slots=True)
class Verdict(Record):
    """What a verifier says about one completion. Never a bare float.

    Verdict(reward=1.0, outcome=Outcome.OK, parts={"math": 1.0}, reason="equal", answer="5",
            provenance=(Provenance("math", "1"),))
    """

    reward: float | None  # finite exactly when the outcome is OK or REJECTED
    outcome: Outcome
    parts: Mapping[str, float] = field(default_factory=dict)  # unweighted; the recipe has the weights
    reason: str = ""  # for machines: equal, differs, no_box, timeout, gold_unparsed, ...
    detail: str = ""  # for people
    answer: str | None = None  # as extracted from the completion
    step_rewards: tuple[tuple[int, int, float], ...] = ()  # (start, end, value) of tokens: recorded only
    provenance: tuple[Provenance, ...] = ()

    def __post_init__(self) -> None:
        if self.trainable != (self.reward is not None and math.isfinite(self.reward)):
            raise ValueError(f"outcome {self.outcome} with reward {self.reward}: finite exactly when ok or rejected")
        if not all(math.isfinite(value) for value in self.parts.values()):
            raise ValueError(f"parts must be finite, got {dict(self.parts)}")
        if len(self.detail) > DETAIL_LIMIT:
            object.__setattr__(self, "detail", self.detail[: DETAIL_LIMIT - 3] + "...")

    @property
    def trainable(self) -> bool:
        return self.outcome in TRAINABLE


@dataclass(frozen=True, slots=True)
class Group(Record):
    """The completions of one prompt, with a verdict for each once verified."""

    prompt: Prompt
    completions: tuple[Completion, ...]
    verdicts: tuple[Verdict, ...] = ()

    @property
    def policy_version(self) -> int:
        return min(completion.policy_version for completion in self.completions)


@dataclass(frozen=True, slots=True)
class Ended(Record):
    """A completion that an engine has just finished. It is verified at once; its group may still be growing.

    Ended(prompt=0, index=3, completion=Completion(...))
    """

    prompt: int  # its place in the list that the engine was given
    index: int  # among the prompt's completions
    completion: Completion


@dataclass(frozen=True, slots=True)
class Sampling(Record):
    """How completions are sampled. `temperature` 0 is greedy."""

    completions: int  # per prompt: the G of a group
    temperature: float
    max_tokens: int  # per completion
    stop: tuple[str, ...] = ()
    seed: int = 0
    top_p: float = 1.0  # the likeliest tokens that together reach this probability ...
    top_k: int = 0  # ... of the `top_k` likeliest; 0: of all

    @property
    def truncated(self) -> bool:
        """Whether tokens are sampled from a part of the vocabulary."""
        return self.temperature > 0 and (self.top_p < 1 or self.top_k > 0)


def sampling_seed(seed: int, position: int, completion: int) -> int:
    """The seed of one completion: a function of its place in the run, never of process history.

    A 63-bit mix (splitmix64's finaliser, Steele et al. 2014) of the three, so that neighbours share nothing.
    """
    x = (seed * 0x9E3779B97F4A7C15 + position * 0xBF58476D1CE4E5B9 + completion * 0x94D049BB133111EB + 1) & (2**64 - 1)
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    return (x ^ (x >> 31)) >> 1
