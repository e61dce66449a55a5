"""Groups as flat records, one a completion, and back: what a run folder and a checkpoint keep of them. Stdlib only."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from rlvr.types import Completion, Group, Outcome, Prompt, Provenance, Verdict

VERDICT, PROVENANCE = ([field.name for field in fields(kind)] for kind in (Verdict, Provenance))


def completion_records(
    groups: Sequence[Group], advantages: Sequence[Sequence[float] | None] | None = None
) -> Iterator[dict[str, Any]]:
    """One flat record a completion; groups that are not verified yet have no verdict columns. `advantages[n]` is None
    where group n was not trained on."""
    for n, group in enumerate(groups):
        for i, completion in enumerate(group.completions):
            record = {
                "prompt": group.prompt.id,
                "position": group.prompt.position,
                "index": i,
                "domain": group.prompt.domain,
                "messages": group.prompt.messages,
                "reference": group.prompt.answer,
                "completion": completion.text,
                "token_ids": list(completion.token_ids),
                "tokens": completion.length,
                "stop_reason": completion.stop_reason,
                "policy_version": completion.policy_version,
                "updates": completion.updates,
            }
            if completion.observed:
                record["observed"] = completion.observed
                record["loss_mask"] = list(map(bool, completion.loss_mask))
            if group.prompt.thinking:
                record["thinking"] = True
            if i == 0:  # once a group: rows may hold whole documents and tests
                record["row"] = group.prompt.row
            if group.verdicts:
                record |= verdict_record(group.verdicts[i])
            if advantages is not None:
                record["advantage"] = None if (given := advantages[n]) is None else float(given[i])
            yield record


def verdict_record(verdict: Verdict) -> dict[str, Any]:
    """Its fields by name; not by `asdict`, which copies all that it finds, and takes ten times as long."""
    where = [{name: getattr(one, name) for name in PROVENANCE} for one in verdict.provenance]
    return {name: getattr(verdict, name) for name in VERDICT} | {"outcome": verdict.outcome.value, "provenance": where}


def evaluation_records(groups: Mapping[str, Sequence[Group]]) -> Iterator[dict[str, Any]]:
    """Of the groups of each decoding."""
    for decoding, some in groups.items():
        for record in completion_records(some):
            yield {"decoding": decoding} | record


def completion_files(run: Path, folder: str = "completions") -> list[tuple[int, Path]]:
    """(step, file) of each step that a run folder recorded, in order. What else lies beside them is not the run's."""
    found = [(re.fullmatch(r"step-(\d+)\.jsonl", path.name), path) for path in (run / folder).glob("*.jsonl")]
    return sorted((int(match[1]), path) for match, path in found if match)


def group_of(records: Sequence[dict[str, Any]]) -> Group:
    """What `completion_records` wrote, as far as verifiers read it: without logprobs."""
    first = records[0]
    prompt = Prompt(
        first["prompt"], first["position"], tuple(first["messages"]), (), first["reference"], first["domain"],
        first.get("row", {}), first.get("thinking", False),
    )  # fmt: skip
    return Group(prompt, tuple(map(completion_of, records)), tuple(map(verdict_of, records)))


def completion_of(record: dict[str, Any]) -> Completion:
    ids = record.get("token_ids", ())
    mask = record.get("loss_mask", (True,) * len(ids))
    version, reason = record["policy_version"], record["stop_reason"]
    observed = tuple((start, end) for start, end in record.get("observed", ()))
    return Completion(ids, mask, (0.0,) * len(ids), version, record["completion"], reason, observed=observed)


def verdict_of(record: dict[str, Any]) -> Verdict:
    return Verdict(
        record["reward"], Outcome(record["outcome"]), record["parts"], record["reason"], record["detail"],
        record["answer"], tuple(map(tuple, record["step_rewards"])),
        tuple(Provenance(**where) for where in record["provenance"]),
    )  # fmt: skip
