"""A model is evaluated on held-out problems: engines and verifiers, no trainer, nothing is trained.

    evaluations/quickstart-001/
        config.yaml         the resolved recipe, with the model
        environment.json    versions, commit, hardware, command
        summary.json        the result
        problems.jsonl      one line a problem: how often it was solved, and its row
        completions.jsonl   one line a completion, with its verdict
"""

import json
from collections.abc import Iterator, Mapping
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
from rlvr.observe.summary import percent
from rlvr.records import evaluation_records
from rlvr.rollout.evaluation import Evaluation
from rlvr.state import Evaluated
from rlvr.types import Group, Prompt
from rlvr.workers import sampling

PROBLEMS, SUMMARY = "problems.jsonl", "summary.json"
DECODINGS = ("greedy", "sampled")


@dataclass(frozen=True)
class Report:
    """What an evaluation found."""

    cfg: Recipe
    evaluated: Evaluated
    solved: Mapping[str, Mapping[str, Solved]]  # by decoding and problem
    domains: Mapping[str, str]  # of each problem

    @classmethod
    def of(cls, cfg: Recipe, evaluated: Evaluated) -> "Report":
        part = next(iter(cfg.reward.parts))
        solved = {
            decoding: {key_of(group.prompt): solved_of(group, part) for group in groups}
            for decoding, groups in evaluated.groups.items()
        }
        domains = {key_of(g.prompt): g.prompt.domain for groups in evaluated.groups.values() for g in groups}
        return cls(cfg, evaluated, solved, domains)

    def accuracy(self, decoding: str, domain: str | None = None) -> Share | None:
        solved = self.solved[decoding]
        return accuracy([one for key, one in solved.items() if domain in (None, self.domains[key])])

    def summary(self) -> dict[str, Any]:
        found = {decoding: self.accuracy(decoding) for decoding in DECODINGS}
        several = sorted(set(self.domains.values()))
        return {
            "model": self.cfg.model.path,
            "problems": len(self.domains),
            "samples": self.cfg.evaluation.samples,
            "data": self.cfg.data.heldout,
            **{decoding: share and share._asdict() for decoding, share in found.items()},
            "metrics": dict(self.evaluated.metrics),
            "domains": {
                domain: {d: share and share._asdict() for d in DECODINGS for share in [self.accuracy(d, domain)]}
                for domain in (several if len(several) > 1 else [])
            },
        }

    def words(self) -> Iterator[str]:
        """For a person."""
        cfg, metrics = self.cfg, self.evaluated.metrics
        yield f"{cfg.model.path} on {len(self.domains):,} problems of {cfg.data.heldout}"
        several = sorted(set(self.domains.values()))
        for decoding in DECODINGS:
            many = f", {cfg.evaluation.samples} completions a problem" if decoding == "sampled" else ""
            yield f"  {decoding:10} {in_words(self.accuracy(decoding))}{many}"
            for domain in several if len(several) > 1 else []:
                yield f"    {domain:8} {in_words(self.accuracy(decoding, domain))}"
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
            found = difference(self.solved[decoding], theirs.get(decoding, {}))
            if found is None:
                yield f"  {decoding:10} has fewer than two problems in common with {name}"
                continue
            share, problems = found
            yield f"  {decoding:10} {in_points(share)} than {name}, on the {problems:,} problems that both have"


def evaluate(cfg: Recipe, inputs: Inputs, display: Display) -> Report:
    """With the weights of model.path."""
    for note in inputs.notes:
        display.event("warning", note)
    with ExitStack() as stack:
        with display.phase(f"starting {cfg.rollout.engine} and verifiers ({cfg.cluster.kind})"):
            pipeline = stack.enter_context(sampling(cfg))
        pipeline.tell = partial(display.event, "warning")
        evaluation = Evaluation(cfg, pipeline, inputs.heldout, pipeline.tell)
        evaluation.showing = partial(display.phase, f"evaluating on {len(inputs.heldout):,} problems")
        return Report.of(cfg, evaluation.run())


def write(folder: Path, report: Report, config: str) -> None:
    """What `folder` is to hold; what it held of an earlier one is replaced."""
    write_atomic(folder / "config.yaml", config)
    write_atomic(folder / "environment.json", indented(environment()))
    write_atomic(folder / "completions.jsonl", map(json_line, evaluation_records(report.evaluated.groups)))
    write_atomic(folder / PROBLEMS, map(json_line, problem_records(report)))
    write_atomic(folder / SUMMARY, indented(report.summary()))  # last: there is no summary without the rest


def problem_records(report: Report) -> Iterator[dict[str, Any]]:
    for group in report.evaluated.groups["sampled"]:
        prompt, key = group.prompt, key_of(group.prompt)
        record: dict[str, Any] = {"key": key, "prompt": prompt.id, "domain": prompt.domain}
        for decoding, solved in report.solved.items():
            record[decoding] = solved[key]._asdict()
        yield record | {"row": row_of(prompt, report.cfg.data)}


def row_of(prompt: Prompt, data: DataConfig) -> dict[str, Any]:
    """As it stood in the data set."""
    messages = [dict(one) for one in prompt.messages[1 if data.system else 0 :]]
    alone = len(messages) == 1 and messages[0]["role"] == "user"
    asked = {data.prompt: messages[0]["content"] if alone else messages}
    return asked | ({data.answer: prompt.answer} if data.answer else {}) | dict(prompt.row)


def solved_before(folder: Path) -> dict[str, dict[str, Solved]]:
    """What `write` noted of each problem, by decoding."""
    path = folder / PROBLEMS
    found: dict[str, dict[str, Solved]] = {decoding: {} for decoding in DECODINGS}
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            for decoding, solved in found.items():
                solved[record["key"]] = Solved(**record[decoding])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecipeError(f"{path}: no evaluation can be read there: {error}") from error
    return found


def key_of(prompt: Prompt) -> str:
    """The same for the same problem, whatever model, system message or chat template it is put with."""
    asked = [dict(message) for message in prompt.messages if message["role"] != "system"]
    return f"{prompt.id}-{sha256(to_json([asked, prompt.answer]).encode(errors=ESCAPED)).hexdigest()[:16]}"


def solved_of(group: Group, part: str) -> Solved:
    said = [correct(verdict, part) for verdict in group.verdicts if judged(verdict, part)]
    return Solved(sum(said), len(said))


def in_words(share: Share | None) -> str:
    return "nothing could be judged" if share is None else f"{percent(share.value):>6} +- {percent(share.error)}"


def in_points(share: Share) -> str:
    more = "more" if share.value >= 0 else "fewer"
    return f"{100 * abs(share.value):.1f} +- {100 * share.error:.1f} points {more}"


def indented(value: Any) -> str:
    return json.dumps(json.loads(to_json(value)), indent=2) + "\n"
