"""Reward functions of TRL and verl as verifiers, and verifiers as theirs.

    in    a recipe or a command names them: trl:rewards.py:accuracy, verl:my.module:compute_score
    out   reward_funcs=[to_trl("math")]                  TRL's GRPOTrainer; what is masked becomes None
          compute_score = to_verl("math")                verl's custom_reward_function; it cannot mask: see `masked`

What they raise is an error here, never 0. Knows neither library: only what their functions take and return.
"""

import atexit
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rlvr.types import Outcome, Verdict
from rlvr.verify.plugin import Answer, PluginError, Sample, Verifier
from rlvr.verify.pool import Pool
from rlvr.verify.process import Assignment

PASSED = {"prompts", "completions", "completion_ids"}  # by TRL, besides the data set's columns
EXTRAS = {"trainer_state", "log_extra", "log_metric"}  # of TRL's trainer, of which there is none here


def from_trl(function: Callable[..., Any], name: str = "", batch: int = 64, timeout_s: float = 30.0) -> Verifier:
    """A TRL reward function: lists in, a list of numbers out, None where it has nothing to say.

    The reference goes to the one argument without a default that no column of the row fills, e.g. `solution`, else to
    the one whose default is None, else into `answer` where the function takes **kwargs. TypeError where there are
    several of either: `answer_column` says which. `conversational`: completions are lists of messages.
    """
    wanted = inspect.signature(function).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in wanted.values())
    named = {
        name: parameter.default
        for name, parameter in wanted.items()
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL) and name not in PASSED | EXTRAS
    }

    def reference_column(columns: Mapping[str, Any], answer_column: str) -> str:
        """What the reference is called; a default that no column fills stays, as in TRL."""
        if answer_column:
            if not takes_all and answer_column not in wanted:
                raise TypeError(f"answer_column={answer_column}: the function takes {', '.join(wanted)}")
            return answer_column
        left = {name: default for name, default in named.items() if name not in columns}
        may = [name for name, default in left.items() if default is inspect.Parameter.empty]
        may = may or [name for name, default in left.items() if default is None] or ["answer"]
        if len(may) > 1:
            raise TypeError(
                f"no column fills {', '.join(may)}: say with params.answer_column which is the reference, or under "
                "which name **kwargs has it"
            )
        return may[0]

    def arguments(samples: Sequence[Sample], answer_column: str, conversational: bool) -> dict[str, Any]:
        columns = {key: [sample.row.get(key) for sample in samples] for sample in samples for key in sample.row}
        column = reference_column(columns, answer_column)
        if answer_column or column not in columns:  # a column of the row that is called `answer` is what it is
            columns[column] = [sample.answer for sample in samples]
        talk = [{"role": "assistant", "content": sample.completion} for sample in samples]
        columns |= {
            "prompts": [list(s.messages) if conversational else s.prompt for s in samples],
            "completions": [[message] for message in talk] if conversational else [s.completion for s in samples],
            "completion_ids": [list(sample.token_ids) for sample in samples],
        }
        return columns if takes_all else {key: value for key, value in columns.items() if key in wanted}

    limits: dict[str, Any] = {"version": "trl", "timeout_s": timeout_s, "batch": max(2, batch)}
    if inspect.iscoroutinefunction(function):

        async def called_later(
            samples: list[Sample], answer_column: str = "", conversational: bool = False
        ) -> list[Answer]:
            return as_list(await function(**arguments(samples, answer_column, conversational)))

        return Verifier(name or function.__name__, called_later, **limits)

    def called(samples: list[Sample], answer_column: str = "", conversational: bool = False) -> list[Answer]:
        return as_list(function(**arguments(samples, answer_column, conversational)))

    return Verifier(name or function.__name__, called, **limits)


def as_list(rewards: Any) -> list[Answer]:
    """Tensors and arrays know `tolist`; numbers in them `item`."""
    rewards = rewards.tolist() if hasattr(rewards, "tolist") else rewards
    return [reward.item() if hasattr(reward, "item") else reward for reward in rewards]


def from_verl(function: Callable[..., Any], name: str = "", timeout_s: float = 30.0) -> Verifier:
    """A verl `compute_score(data_source, solution_str, ground_truth, extra_info, **options)`: a number, or a dict with
    `score`, whose other numbers become parts and whose `pred` is the answer."""

    def called(sample: Sample, data_source: str = "", **options: Any) -> Answer:
        answer = sample.answer
        if isinstance(answer, Mapping) and "ground_truth" in answer:  # verl's own column, `reward_model`
            answer = answer["ground_truth"]
        source = data_source or sample.row.get("data_source", "")
        said = function(
            data_source=source, solution_str=sample.completion, ground_truth=answer,
            extra_info=sample.row.get("extra_info"), **options,
        )  # fmt: skip
        if not isinstance(said, Mapping):
            return said.item() if hasattr(said, "item") else said
        score, outcome = float(said["score"]), Outcome.OK
        numbers = {k: float(v) for k, v in said.items() if k != "score" and isinstance(v, (bool, int, float))}
        pred = said.get("pred")
        reason = "right" if score >= 1 else "wrong" if score <= 0 else "partly"
        return Verdict(score, outcome, numbers, reason, answer=None if pred is None else str(pred))

    return Verifier(name or function.__name__, called, version="verl", timeout_s=timeout_s)


KINDS: dict[str, Callable[..., Verifier]] = {"trl": from_trl, "verl": from_verl}


_pools: dict[tuple[int, str, str], Pool] = {}


def _pool(processes: int, reference: str, params: str) -> Pool:
    """Started at the first use, in whatever process that is; ends with it. `params` as JSON."""
    key = processes, reference, params
    if key not in _pools:
        _pools[key] = Pool([Assignment("reward", reference, json.loads(params))], processes)
    return _pools[key]


@atexit.register
def close_pools() -> None:
    """End the processes that `to_trl` and `to_verl` functions have started; the next call starts new ones."""
    while _pools:
        _pools.popitem()[1].close()


def _judged(reference: str, params: Mapping[str, Any], samples: Sequence[Sample], processes: int) -> list[Verdict]:
    assignment = Assignment("reward", reference, dict(params))
    assignment.verifier.check_params(params, reference)
    pool = _pool(processes, reference, json.dumps(params, sort_keys=True))
    if assignment.verifier.scope != "group":
        return pool.submit(assignment, samples).result()
    groups: dict[str, list[int]] = {}
    for place, sample in enumerate(samples):
        groups.setdefault(sample.group, []).append(place)
    asked = [(places, pool.submit(assignment, [samples[n] for n in places])) for places in groups.values()]
    said = {place: verdict for places, future in asked for place, verdict in zip(places, future.result(), strict=True)}
    return [said[place] for place in range(len(samples))]


def text_of(completion: Any) -> str:
    """Of a text, or of the last of several messages."""
    return completion if isinstance(completion, str) else str(completion[-1]["content"]) if completion else ""


def to_trl(
    reference: str, answer: str = "answer", processes: int = 2, **params: Any
) -> Callable[..., list[float | None]]:
    """A reward function for TRL. `answer`: the data set's column with the reference. Masked completions are None."""

    def reward(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        if answer not in columns:
            raise PluginError(f"to_trl({reference!r}, answer={answer!r}): the data set has no such column")
        ids = columns.pop("completion_ids", None) or [()] * len(completions)
        lists = {k: v for k, v in columns.items() if isinstance(v, Sequence) and len(v) == len(completions)}
        samples = [
            Sample(
                prompt=text_of(prompt), completion=text_of(completion), answer=lists[answer][n],
                token_ids=tuple(ids[n]), messages=() if isinstance(prompt, str) else tuple(prompt),
                row={key: value[n] for key, value in lists.items() if key != answer},
                group=prompt if isinstance(prompt, str) else json.dumps(prompt, default=str),
                thinking=isinstance(prompt, str) and prompt.rstrip().endswith("<think>"),
            )
            for n, (prompt, completion) in enumerate(zip(prompts, completions, strict=True))
        ]  # fmt: skip
        return [verdict.reward for verdict in _judged(reference, params, samples, processes)]

    reward.__name__ = reference.rpartition(":")[2]
    return reward


class Masked(RuntimeError):
    """The verifier could not say. verl has no way to leave a completion out, and an error is never a reward."""


def to_verl(
    reference: str, masked: float | None = None, processes: int = 1, **params: Any
) -> Callable[..., dict[str, Any]]:
    """A verl `compute_score`. `masked`: the score of what cannot be judged; None raises Masked."""

    def compute_score(
        data_source: Any, solution_str: str, ground_truth: Any, extra_info: Any = None, **_: Any
    ) -> dict[str, Any]:
        extra = dict(extra_info) if isinstance(extra_info, Mapping) else {}
        row = extra | {"data_source": data_source, "extra_info": extra_info}
        sample = Sample(str(extra.get("question", "")), solution_str, ground_truth, row=row)
        (verdict,) = _judged(reference, params, [sample], processes)
        score = verdict.reward if verdict.reward is not None else masked
        if score is None:
            raise Masked(f"{reference}: {verdict.outcome} {verdict.reason}: {verdict.detail}")
        return {"score": score, "acc": score >= 1, "pred": verdict.answer or "", "outcome": verdict.outcome.value,
                "reason": verdict.reason}  # fmt: skip

    return compute_score
