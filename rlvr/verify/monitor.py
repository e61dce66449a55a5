"""What a step's verdicts say about those who gave them, as metrics. Pure; each part's words are in the provenance."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

from rlvr.types import Completion, Group, Provenance
from rlvr.verify.plan import AUDIT
from rlvr.verify.suspicion import signs

TRAINABLE = ("ok", "rejected")
MOST_REASONS = 20  # of a part, by name, in the metrics of a step


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


def metrics(
    groups: Sequence[Group], signs_of: Callable[[str], list[str]] = signs, most: int | None = None
) -> dict[str, float]:
    """Shares of one step for each part, and how often each outcome and reason occurred. Signs are looked for in the
    last `most` passes of a part."""
    columns: dict[str, list[tuple[Completion, Provenance]]] = defaultdict(list)
    audits: dict[str, list[bool]] = defaultdict(list)
    counts: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    for completion, said in words(groups):
        for part, records in said.items():
            counts[part].update((r.outcome, r.reason) for r in records)
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
            looked_at = passing[-most:] if most else passing
            row[f"suspicious/{part}"] = share([bool(signs_of(completion.written)) for completion in looked_at])
    for part, differ in audits.items():
        row[f"disagreement/{part}"] = share(differ)
    for part, of_part in counts.items():
        for said_so, count in commonest(of_part).items():
            verdict = f"{part}/{said_so}"
            row[f"outcomes/{verdict}"] = count
    return row


def commonest(counts: Counter[tuple[str, str]]) -> Counter[str]:
    """<outcome>/<reason> of the MOST_REASONS commonest; the rest of each outcome as `other`, or a reason that holds a
    number would make a metric of its own each time."""
    common = dict(counts.most_common(MOST_REASONS))
    found: Counter[str] = Counter()
    for (outcome, reason), count in counts.items():
        found[f"{outcome}/{reason if (outcome, reason) in common else 'other'}"] += count
    return found
