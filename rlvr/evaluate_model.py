"""A model is evaluated on held-out problems: engines and verifiers, no trainer, nothing is trained.

    evaluations/quickstart-001/
        config.yaml         the resolved recipe, with the model
        environment.json    versions, commit, hardware, command
        problems.jsonl      one line a problem: how often it was solved, and its row
        completions.jsonl   one line a completion, with its verdict
        summary.json        the result
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from rlvr.atomic import ESCAPED
from rlvr.config import DataConfig, Recipe, RecipeError
from rlvr.evaluate import correct, judged
from rlvr.evaluate.pass_at import POWERS
from rlvr.evaluate.problems import Share, Solved, accuracy, difference
from rlvr.inputs import Inputs
from rlvr.observe.console import Display
from rlvr.observe.environment import environment
from rlvr.observe.files import json_line, to_json, write_atomic
from rlvr.observe.html import visible
from rlvr.observe.summary import percent
from rlvr.records import evaluation_records
from rlvr.rollout.evaluation import DECODINGS, Evaluation
from rlvr.state import Evaluated
from rlvr.types import Group, Prompt
from rlvr.workers import sampling

PROBLEMS = "problems.jsonl"
OUT = "--out <folder>"  # the knob


@dataclass(frozen=True)
class Report:
    """What an evaluation found. `of` says which model it was, `notes` which rows were left out."""

    cfg: Recipe
    of: str
    notes: Sequence[str]
    evaluated: Evaluated
    solved: Mapping[str, Mapping[str, Solved]]  # by decoding and key of the problem
    prompts: Mapping[str, Prompt]  # by key

    @classmethod
    def made(cls, cfg: Recipe, of: str, notes: Sequence[str], evaluated: Evaluated) -> "Report":
        part = next(iter(cfg.reward.parts))
        prompts = [group.prompt for group in evaluated.groups["greedy"]]
        keys = keys_of(prompts)
        solved = {
            decoding: {key: solved_of(group, part) for key, group in zip(keys, groups, strict=True)}
            for decoding, groups in evaluated.groups.items()
        }
        return cls(cfg, of, notes, evaluated, solved, dict(zip(keys, prompts, strict=True)))

    def accuracy(self, decoding: str, domain: str | None = None) -> Share | None:
        solved = self.solved[decoding]
        return accuracy([one for key, one in solved.items() if domain in (None, self.prompts[key].domain)])

    def domains(self) -> dict[str, dict[str, Share | None]]:
        """Their accuracies by decoding; none where there is only one."""
        names = sorted({prompt.domain for prompt in self.prompts.values()})
        if len(names) == 1:
            return {}
        return {name: {decoding: self.accuracy(decoding, name) for decoding in DECODINGS} for name in names}

    def summary(self) -> dict[str, Any]:
        domains = {name: {d: told(share) for d, share in found.items()} for name, found in self.domains().items()}
        return {
            "model": self.cfg.model.path,
            "of": self.of,
            "data": self.cfg.data.heldout,
            "problems": len(self.prompts),
            "left_out": list(self.notes),
            "samples": self.cfg.evaluation.samples,
            **{decoding: told(self.accuracy(decoding)) for decoding in DECODINGS},
            "metrics": dict(self.evaluated.metrics),
            "domains": domains,
        }

    def words(self) -> Iterator[str]:
        """For a person."""
        cfg, metrics, domains = self.cfg, self.evaluated.metrics, self.domains()
        yield f"{self.of} on {len(self.prompts):,} problems of {cfg.data.heldout}"
        yield from (f"  {note}" for note in self.notes)
        for decoding in DECODINGS:
            many = f", {cfg.evaluation.samples} completions a problem" if decoding == "sampled" else ""
            yield f"  {decoding:10} {in_words(self.accuracy(decoding))}{many}"
            for name, found in domains.items():
                yield f"    {visible(name):8} {in_words(found[decoding])}"
        for name in [f"eval/pass_at_{k}" for k in POWERS if f"eval/pass_at_{k}" in metrics]:
            yield f"  {name.replace('eval/pass_at_', 'pass@'):10} {percent(metrics[name]):>6}"
        if "eval/majority" in metrics:
            yield f"  {f'maj@{cfg.evaluation.samples}':10} {percent(metrics['eval/majority']):>6}"
        length = f"{metrics['eval/length_mean']:.0f} tokens a completion"
        yield f"  {'truncated':10} {percent(metrics['eval/truncated']):>6}, {length}"
        if masked := metrics.get("eval/masked", 0.0):
            yield f"  {'masked':10} {percent(masked):>6} of the verdicts: not in the accuracies"

    def against(self, theirs: Mapping[str, Mapping[str, Solved]], name: str) -> Iterator[str]:
        """How this model compares with another evaluation, problem by problem."""
        for decoding in DECODINGS:
            found = difference(self.solved[decoding], theirs[decoding])
            if found is None:
                yield f"  {decoding:10} has fewer than two problems in common with {name}"
                continue
            share, problems = found
            yield f"  {decoding:10} {in_points(share)} than {name}, on the {problems:,} problems that both have"


def evaluate(cfg: Recipe, of: str, inputs: Inputs, display: Display, folder: Path) -> Report:
    """With the weights of model.path. Where the verifiers fail, what they said is left in `folder`."""
    for note in inputs.notes:
        display.event("warning", note)
    with ExitStack() as stack:
        with display.phase(f"starting {cfg.rollout.engine} and verifiers ({cfg.cluster.kind})"):
            pipeline = stack.enter_context(sampling(cfg))
        pipeline.tell = partial(display.event, "warning")
        evaluation = Evaluation(cfg, pipeline, inputs.heldout, pipeline.tell)
        evaluation.showing = partial(display.phase, f"evaluating on {len(inputs.heldout):,} problems")
        evaluation.failed = partial(write_completions, folder)
        return Report.made(cfg, of, inputs.notes, evaluation.run())


def write(folder: Path, report: Report, config: str) -> None:
    """All but the completions is small: where the disk is full, it is there."""
    write_atomic(folder / "config.yaml", config, OUT)
    write_atomic(folder / "environment.json", indented(environment()), OUT)
    write_atomic(folder / PROBLEMS, map(json_line, problem_records(report)), OUT)
    write_completions(folder, report.evaluated.groups)
    write_atomic(folder / "summary.json", indented(report.summary()), OUT)  # last: it stands for the rest


def write_completions(folder: Path, groups: Mapping[str, Sequence[Group]]) -> None:
    write_atomic(folder / "completions.jsonl", map(json_line, evaluation_records(groups)), OUT)


def problem_records(report: Report) -> Iterator[dict[str, Any]]:
    for key, prompt in report.prompts.items():
        record: dict[str, Any] = {"key": key, "prompt": prompt.id, "domain": prompt.domain}
        for decoding, solved in report.solved.items():
            record[decoding] = solved[key]._asdict()
        yield record | {"row": row_of(prompt, report.cfg.data)}


def row_of(prompt: Prompt, data: DataConfig) -> dict[str, Any]:
    """A row of a data set that gives this prompt."""
    messages = [dict(one) for one in prompt.messages[1 if data.system else 0 :]]
    alone = len(messages) == 1 and messages[0]["role"] == "user"
    asked = {data.prompt: messages[0]["content"] if alone else messages}
    return asked | ({data.answer: prompt.answer} if data.answer else {}) | dict(prompt.row)


def solved_before(folder: Path) -> dict[str, dict[str, Solved]]:
    """What `write` noted of each problem, by decoding."""
    path = folder / PROBLEMS
    found: dict[str, dict[str, Solved]] = {decoding: {} for decoding in DECODINGS}
    try:
        with path.open(encoding="utf-8", newline="\n") as lines:  # texts may hold other ends of lines
            for record in map(json.loads, lines):
                for decoding, solved in found.items():
                    solved[record["key"]] = Solved(**record[decoding])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecipeError(f"{path}: no evaluation can be read there: {error}") from error
    return found


def keys_of(prompts: Sequence[Prompt]) -> list[str]:
    """The same for the same problem, whatever model, system message or chat template it is put with, and wherever it
    stands; one that comes again is another one."""
    seen: Counter[str] = Counter()
    keys = []
    for prompt in prompts:
        asked = [dict(message) for message in prompt.messages if message["role"] != "system"]
        digest = sha256(to_json([asked, prompt.answer]).encode(errors=ESCAPED)).hexdigest()[:16]
        seen[digest] += 1
        keys.append(digest if seen[digest] == 1 else f"{digest}-{seen[digest]}")
    return keys


def solved_of(group: Group, part: str) -> Solved:
    said = [correct(verdict, part) for verdict in group.verdicts if judged(verdict, part)]
    return Solved(sum(said), len(said))


def told(share: Share | None) -> dict[str, float | None] | None:
    return None if share is None else share._asdict()


def in_words(share: Share | None) -> str:
    if share is None:
        return "nothing could be judged"
    return f"{percent(share.value):>6}" + ("" if share.error is None else f" +- {percent(share.error)}")


def in_points(share: Share) -> str:
    more = "more" if share.value >= 0 else "fewer"
    error = "" if share.error is None else f" +- {100 * share.error:.1f}"
    return f"{100 * abs(share.value):.1f}{error} points {more}"


def indented(value: Any) -> str:
    return json.dumps(json.loads(to_json(value)), indent=2) + "\n"
