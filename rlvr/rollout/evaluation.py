"""How good a policy is on problems: each decoded greedily, and sampled, and judged by the recipe's main verifier."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from time import perf_counter
from typing import Protocol

from rlvr.config import Recipe
from rlvr.evaluate import accuracy, correct, judged
from rlvr.evaluate.majority import majority
from rlvr.evaluate.pass_at import pass_at
from rlvr.state import Evaluated
from rlvr.types import Group, Outcome, Prompt, Sampling
from rlvr.verify.discover import load
from rlvr.verify.health import FEW, VerifiersFailed

SAMPLED = 2**40  # added to the problems' positions: no training seed is ever theirs

DECODINGS = ("greedy", "sampled")

Tick = Callable[[], None]


class Groups(Protocol):
    def groups(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Group]:
        """Verified groups, each as soon as it is done, in any order."""
        ...


class Evaluation:
    """Of whatever weights the engines hold when it is run."""

    def __init__(self, cfg: Recipe, pipeline: Groups, problems: Sequence[Prompt], warn: Callable[[str], None]):
        self.cfg, self.pipeline, self.problems, self.warn = cfg, pipeline, problems, warn
        self.main_part = next(iter(cfg.reward.parts))
        # around a run of it, which is long: given how many groups will come, and told of each
        self.showing: Callable[[int], AbstractContextManager[Tick]] = lambda total: nullcontext(lambda: None)
        # given all that was written where too much of it could not be judged
        self.failed: Callable[[Mapping[str, Sequence[Group]]], None] = lambda groups: None

    def run(self) -> Evaluated:
        """Greedy and sampled accuracy and pass@k, of what could be judged. Too many that could not be are no wrong
        answers: VerifiersFailed."""
        began, cfg, masked = perf_counter(), self.cfg, []
        result = {"eval/problems": float(len(self.problems))}
        groups = self._groups()
        for decoding, some in groups.items():
            verdicts = [verdict for group in some for verdict in group.verdicts]
            unsaid = [not judged(verdict, self.main_part) for verdict in verdicts]
            if not all(unsaid):
                result[f"eval/accuracy_{decoding}"] = accuracy(verdicts, self.main_part)
            elif self._compares() and all(verdict.outcome != Outcome.ERROR for verdict in verdicts):
                continue  # so few completions of a problem are nothing to compare
            masked += unsaid
        sampled = [completion for group in groups["sampled"] for completion in group.completions]
        right = [
            correct(verdict, self.main_part) if judged(verdict, self.main_part) else None
            for group in groups["sampled"] for verdict in group.verdicts
        ]  # fmt: skip
        result |= pass_at(right, cfg.evaluation.samples)
        if cfg.evaluation.samples > 2:
            voted = majority([group.verdicts for group in groups["sampled"]], self.main_part)
            result |= {} if voted is None else {"eval/majority": voted}
        result["eval/truncated"] = sum(one.stop_reason == "length" for one in sampled) / len(sampled)
        result["eval/length_mean"] = sum(one.length for one in sampled) / len(sampled)
        if masked:
            result["eval/masked"] = self._bearable(masked, groups)
        return Evaluated(result | {"eval/seconds": perf_counter() - began}, groups)

    def _groups(self) -> dict[str, tuple[Group, ...]]:
        """By decoding, in the order of the problems."""
        cfg = self.cfg
        greedy = Sampling(1, 0.0, cfg.rollout.max_tokens, tuple(cfg.rollout.stop), cfg.seed)
        sampled = replace(
            greedy, completions=cfg.evaluation.samples, temperature=cfg.rollout.temperature,
            top_p=cfg.rollout.top_p, top_k=cfg.rollout.top_k,
        )  # fmt: skip
        elsewhere = [replace(problem, position=SAMPLED + problem.position) for problem in self.problems]
        found = {}
        with self.showing(2 * len(self.problems)) as tick:
            for decoding, sampling in zip(DECODINGS, (greedy, sampled), strict=True):
                groups = {}
                for group in self.pipeline.groups(elsewhere, sampling):
                    groups[group.prompt.position - SAMPLED] = lean(group)
                    tick()
                found[decoding] = tuple(replace(groups[p.position], prompt=p) for p in self.problems)
        return found

    def _compares(self) -> bool:
        """Whether the main part judges a completion by the others of its prompt."""
        return load(self.cfg.reward.parts[self.main_part].verifier).scope == "group"

    def _bearable(self, masked: list[bool], groups: Mapping[str, Sequence[Group]]) -> float:
        """The share of masked verdicts of an evaluation, told of where it is large."""
        share, verify = sum(masked) / len(masked), self.cfg.verify
        said = f"{share:.1%} of the {len(masked)} verdicts of an evaluation are masked"
        if share > verify.mask_stop and len(masked) >= FEW:
            self.failed(groups)
            raise VerifiersFailed(f"{said} > verify.mask_stop {verify.mask_stop:.0%}")
        if share > verify.mask_warn:
            self.warn(f"{said} > verify.mask_warn {verify.mask_warn:.0%}: its accuracy is of the others")
        return share


def lean(group: Group) -> Group:
    """Without the tokens that were left to choose from, which only training reads: they may be gigabytes."""
    return replace(group, completions=tuple(replace(one, kept_ids=None) for one in group.completions))
