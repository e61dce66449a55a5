"""What a step's verdicts say about those who gave them, as metrics. Pure; each part's words are in the provenance."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

from rlvr.types import Completion, Group, Provenance
from rlvr.verify.plan import AUDIT
from rlvr.verify.suspicion import signs

TRAINABLE = ("ok", "rejected")


def words(groups: Iterable[Group]) -> Iterator[tuple[Completion, dict[str, list[Provenance]]]]:
    """Each completion, and by part what its verifiers said in turn; the last one decided."""
    for group in groups:
        for completion, verdict in zip(group.completions, group.verdicts, strict=True):
            said: dict[str, list[Provenance]] = defaultdict(list)
            for record in verdict.provenance:
                if record.part:
                    said[record.part].append(record)
            yield completion, dict(said)


def passes(record: Provenance) -> bool:
    return record.outcome in TRAINABLE and record.reward is not None and record.reward >= 1.0


def disagrees(training: Provenance, audit: Provenance) -> bool | None:
    """None when one of them could not say."""
    if training.outcome not in TRAINABLE or audit.outcome not in TRAINABLE:
        return None
    return passes(training) != passes(audit)


def share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags)


def metrics(groups: Sequence[Group], signs_of: Callable[[str], list[str]] = signs) -> dict[str, float]:
    """Shares of one step for each part, and how often each outcome and reason occurred."""
    columns: dict[str, list[tuple[Completion, Provenance]]] = defaultdict(list)
    audits: dict[str, list[bool]] = defaultdict(list)
    counts: Counter[str] = Counter()
    for completion, said in words(groups):
        for part, records in said.items():
            counts.update(f"{part}/{r.outcome}/{r.reason}" for r in records)
            if not part.startswith(AUDIT):
                columns[part].append((completion, records[-1]))
            elif (differs := disagrees(said[part.removeprefix(AUDIT)][-1], records[-1])) is not None:
                audits[part.removeprefix(AUDIT)].append(differs)
    row: dict[str, float] = {}
    for part, column in columns.items():
        records = [record for _, record in column]
        row[f"masked/{part}"] = share([r.outcome not in TRAINABLE for r in records])
        row[f"verify_seconds/{part}"] = sum(r.seconds for r in records) / len(records)
        if any(r.path for r in records):
            row[f"fast_path/{part}"] = share([r.path == "fast" for r in records])
        if any(r.outcome in TRAINABLE for r in records):
            row[f"passed/{part}"] = share([passes(r) for r in records if r.outcome in TRAINABLE])
        if passing := [completion for completion, r in column if passes(r)]:
            row[f"suspicious/{part}"] = share([bool(signs_of(completion.written)) for completion in passing])
    for part, differ in audits.items():
        row[f"disagreement/{part}"] = share(differ)
    for said_so, count in counts.items():
        row[f"outcomes/{said_so}"] = count
    return row
