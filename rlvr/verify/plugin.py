"""What a verifier is, and how one is written. Runs nothing; knows no recipe.

from rlvr.verify import Sample, verifier

@verifier("even")
def even(sample: Sample) -> bool:
    text = sample.completion.strip()
    return text.isdecimal() and int(text[-1]) % 2 == 0

A function of one sample is all that most need. The rest of the protocol is said to the decorator:

    batch=32            the function takes a list of up to 32 samples and returns as many answers, in their order
    scope="group"       it takes all completions of one prompt as a list; "batch": those of all prompts at hand
    async def           it is awaited, `concurrency` samples at a time: for what waits on somebody else's answer
    isolation="inline"  it runs beside the caller, where nothing can kill it: only for a few lines that cannot hang.
             "sandbox"  it starts processes of its own (`rlvr.sandbox`): no memory limit on it, and its whole family is
                        killed with it
    setup, close        before the first and after the last call in each process; setup gets the options it names
    check_answer        why a reference answer cannot be used, or None: asked when the data is read
"""

import difflib
import hashlib
import inspect
import json
import math
from array import array
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress, groupby
from operator import itemgetter
from typing import Any, Literal, NamedTuple, get_args

from rlvr.config import RecipeError
from rlvr.reward_config import LARGEST
from rlvr.types import Completion, Group, Outcome, Prompt, Record, Verdict

Scope = Literal["sample", "group", "batch"]
Isolation = Literal["process", "sandbox", "inline"]


class PluginError(RecipeError):
    """A verifier cannot be found, loaded or called with the recipe's options; one line for the user."""


class Turn(NamedTuple):
    """What the policy wrote between two answers of a tool."""

    text: str
    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sample(Record):
    """One completion as verifiers see it.

    Sample(prompt="2+3=?", completion="<think></think>\\\\boxed{5}", answer="5", stop_reason="eos", token_ids=(7, 8, 2))
    """

    prompt: str  # the last message
    completion: str  # what the policy wrote: decoded, without special tokens
    answer: Any  # the reference, as the data set gave it
    stop_reason: str = "eos"  # eos, stop, length, abort
    token_ids: Sequence[int] = field(default=(), hash=False)  # those that the policy sampled; a verifier gets a tuple
    messages: tuple[Mapping[str, str], ...] = ()
    row: Mapping[str, Any] = field(default_factory=dict)  # the data set's other columns
    group: str = ""  # the prompt's id: completions of one prompt share it
    thinking: bool = False  # the prompt ends in `<think>`: what the completion begins with are thoughts
    transcript: str = ""  # where a tool has answered: the completion with what it said
    turns: tuple[Turn, ...] = ()  # and the completion's turns: two or more


def sample_of(prompt: Prompt, completion: Completion) -> Sample:
    question = str(prompt.messages[-1]["content"]) if prompt.messages else ""
    own = completion.token_ids
    if completion.observed:
        own = array("i", compress(own, completion.loss_mask))
    return Sample(
        question, completion.written, prompt.answer, completion.stop_reason, own, prompt.messages,
        prompt.row, prompt.id, prompt.thinking, completion.text if completion.observed else "", turns_of(completion),
    )  # fmt: skip


def shown(sample: Sample) -> Sample:
    """As a verifier gets it. On the way its tokens are the completion's own array, which nobody may change."""
    return replace(sample, token_ids=tuple(sample.token_ids))


def turns_of(completion: Completion) -> tuple[Turn, ...]:
    """None where there is one alone. An answer without a token is none to the policy: it wrote on."""
    if not completion.observed:
        return ()
    tokens = zip(completion.token_ids, completion.loss_mask, strict=True)
    runs = [tuple(token for token, _ in run) for own, run in groupby(tokens, key=itemgetter(1)) if own]
    observed = completion.observed
    if len(runs) <= len(observed):
        observed = [(start, end) for start, end in observed if start < end]
    starts, ends = [0, *(end for _, end in observed)], [*(start for start, _ in observed), len(completion.text)]
    texts = [completion.text[start:end] for start, end in zip(starts, ends, strict=True)]
    if len(runs) != len(texts):  # a record that somebody made without its mask
        runs = [()] * len(texts)
    return tuple(map(Turn, texts, runs)) if len(texts) > 1 else ()


def samples_of(group: Group) -> list[Sample]:
    return [sample_of(group.prompt, completion) for completion in group.completions]


Answer = bool | float | None | Verdict
Answers = Answer | Sequence[Answer]


@dataclass(frozen=True)
class Verifier:
    """A function of samples (and the recipe's `params`) with the limits it runs under."""

    name: str
    function: Callable[..., Answers | Coroutine[Any, Any, Answers]]
    version: str = "1"
    timeout_s: float = 5.0  # CPU seconds of one call, then its process is killed; of an async one also seconds to wait
    memory_gib: float | None = 2.0  # address space; None for verifiers that load a model
    setup: Callable[..., None] | None = None  # once in each process, before any clock runs: slow imports, models
    close: Callable[[], None] | None = None
    scope: Scope = "sample"
    isolation: Isolation = "process"
    batch: int = 1  # samples of one call; above 1 the function takes a list
    concurrency: int = 16  # samples that an async function of one sample waits for at a time, in each process
    check_answer: Callable[..., str | None] | None = None

    def __post_init__(self) -> None:
        for field_name, value, allowed in (
            ("scope", self.scope, get_args(Scope)),
            ("isolation", self.isolation, get_args(Isolation)),
        ):
            if value not in allowed:
                raise PluginError(f"verifier {self.name!r}: {field_name}={value!r}: one of {', '.join(allowed)}")
        if not self.timeout_s > 0 or self.batch < 1 or self.concurrency < 1:
            raise PluginError(f"verifier {self.name!r}: timeout_s, batch and concurrency must be above 0")

    @property
    def takes_list(self) -> bool:
        return self.scope != "sample" or self.batch > 1

    @property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.function)

    @property
    def at_once(self) -> int:
        """Samples that one call is best given; calls of a plain function are cheap, and each has its own deadline."""
        if self.is_async and not self.takes_list:
            return self.concurrency
        return self.batch if self.takes_list else 32

    def __call__(self, sample: Sample, **params: Any) -> Verdict:
        """What it says of one sample, here and now; an exception passes through."""
        from rlvr.verify.call import verdicts

        return verdicts(self, [sample], params)[0]

    def check_params(self, params: Mapping[str, Any], knob: str) -> None:
        """PluginError unless the function takes exactly such options."""
        known = list(inspect.signature(self.function).parameters.values())[1:]
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known):
            return
        names = [parameter.name for parameter in known]
        for name in params:
            if name not in names:
                close = difflib.get_close_matches(name, names, n=1)
                hint = f"; did you mean {close[0]}?" if close else f"; it has: {', '.join(names) or 'none'}"
                raise PluginError(f"{knob}.{name}: verifier {self.name!r} has no such option{hint}")
        for parameter in known:
            if parameter.default is parameter.empty and parameter.name not in params:
                raise PluginError(f"{knob}: verifier {self.name!r} needs the option {parameter.name!r}")
            value = params.get(parameter.name, False)
            if parameter.annotation in (bool, "bool") and value not in (False, True):  # or 0 and 1, as tables have them
                raise PluginError(f"{knob}.{parameter.name}={value!r}: verifier {self.name!r} wants true or false")

    def unusable(self, answer: Any, params: Mapping[str, Any], row: Mapping[str, Any]) -> str | None:
        """Why the reference `answer` cannot be verified against; None when it can, or when nobody knows."""
        if self.check_answer is None:
            return None
        try:
            return self.check_answer(answer, **named(self.check_answer, {**params, "row": row}))
        except (MemoryError, RecursionError):
            raise  # it is the reference that asks for too much
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            raise PluginError(f"verifier {self.name!r}: check_answer of {answer!r:.100} raised {said}") from error


def verifier(
    name: str,
    *,
    version: str = "1",
    timeout_s: float = 5.0,
    memory_gib: float | None = 2.0,
    setup: Callable[..., None] | None = None,
    close: Callable[[], None] | None = None,
    scope: Scope = "sample",
    isolation: Isolation = "process",
    batch: int = 1,
    concurrency: int = 16,
    check_answer: Callable[..., str | None] | None = None,
) -> Callable[[Callable[..., Any]], Verifier]:
    """Make a verifier of a function `(sample, **options) -> bool | float | None | Verdict`."""
    return lambda function: Verifier(
        name, function, version, timeout_s, memory_gib, setup, close, scope, isolation, batch, concurrency, check_answer
    )


def as_verdict(answer: Any, name: str) -> Verdict:
    """True and False are 1 and 0, a finite number is a reward, None abstains, a Verdict is itself. ValueError for a
    reward beyond LARGEST, TypeError for anything else; a scalar of numpy or torch is the number that it holds."""
    if isinstance(answer, Verdict):
        if answer.reward is not None:
            bounded(answer.reward, name)
            if type(answer.reward) is not float:
                return replace(answer, reward=float(answer.reward))
        return answer
    answer = answer.item() if hasattr(answer, "item") else answer
    if answer is None:
        return Verdict(None, Outcome.ABSTAIN, reason="abstained")
    if isinstance(answer, (bool, int, float)) and math.isfinite(answer):
        bounded(answer, name)
        return Verdict(
            float(answer), Outcome.OK, reason="right" if answer >= 1 else "wrong" if answer <= 0 else "partly"
        )
    raise TypeError(f"verifier {name!r} returned {answer!r:.200}: expected a bool, a finite number, None or a Verdict")


def bounded(reward: float, name: str) -> None:
    if abs(reward) > LARGEST:
        raise ValueError(f"verifier {name!r}: a reward of {reward:g}: at most {LARGEST:g} in magnitude")


def fingerprint(params: Mapping[str, Any]) -> str:
    """Twelve hex digits that tell one set of options from another; empty for none."""
    if not params:
        return ""
    return hashlib.sha256(json.dumps(params, sort_keys=True, default=str).encode()).hexdigest()[:12]


def named(function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `options` that the function's signature names."""
    known = inspect.signature(function).parameters
    return {name: value for name, value in options.items() if name in known}
