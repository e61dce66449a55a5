"""The part of the report that watches those who give rewards: their metrics by part, and completions to read."""

import json
from collections import Counter
from collections.abc import Sequence
from math import isfinite
from statistics import fmean
from typing import Any

from rlvr.observe.charts import Curve, Mark, chart
from rlvr.observe.html import Markup, tag
from rlvr.observe.metrics import find
from rlvr.observe.record import is_number
from rlvr.observe.summary import percent

WATCHED = ("passed", "fast_path", "suspicious", "disagreement", "masked")
AUDIT = "audit:"  # before a part's name, as in `rlvr.verify.plan`
RECENT = 20  # steps of "lately"
MOST = 20  # outcomes that are listed


def monitors(
    rows: Sequence[dict[str, float]], marks: Sequence[Mark], undone: Sequence[Sequence[dict[str, float]]] = ()
) -> Markup:
    """For each reward part: its shares in the whole run and lately, their curves, and what its verdicts said."""
    names = (name for row in rows for name in row if name.startswith(("passed/", "masked/")))
    parts = list(dict.fromkeys(name.partition("/")[2] for name in names))
    if not parts:
        return tag("p", "No verdict was recorded.", class_="dim")
    return tag("div", [of_part(part, rows, marks, undone) for part in parts])


def of_part(
    part: str, rows: Sequence[dict[str, float]], marks: Sequence[Mark], undone: Sequence[Sequence[dict[str, float]]]
) -> Markup:
    lately = f"last {RECENT} steps"
    lines = [tag("tr", tag("th", "share"), tag("th", "whole run", class_="n"), tag("th", lately, class_="n"))]
    drawn = []
    for word in WATCHED:
        name = f"{word}/{part}"
        curve = Curve.of(name, rows, undone, label=word.replace("_", " "))
        if not curve.points:
            continue
        metric = find(name)
        lines.append(tag(
            "tr", tag("td", curve.name, title=metric.meaning if metric else ""),
            tag("td", share_of(rows, word, part), class_="n"),
            tag("td", share_of(rows[-RECENT:], word, part), class_="n"),
        ))  # fmt: skip
        drawn.append(curve)
    table = tag("div", tag("table", lines), outcomes(part, rows), class_="card scroll")
    figure = chart(f"{part}: shares", drawn, marks, True)
    return tag("div", tag("h3", part), tag("div", table, figure, class_="grid-of"))


def share_of(rows: Sequence[dict[str, float]], word: str, part: str) -> str:
    """Of all that it is a share of in these steps: a step with more of them counts for more."""
    counted = [(row[f"{word}/{part}"], whole(word, part, row)) for row in rows if f"{word}/{part}" in row]
    if total := sum(count for _, count in counted):
        return percent(sum(share * count for share, count in counted) / total)
    return percent(fmean(share for share, _ in counted)) if counted else ""


def whole(word: str, part: str, row: dict[str, float]) -> float:
    """How many completions of a step the share is taken of; see `rlvr.verify.monitor`."""
    if word == "disagreement":
        return judged(AUDIT + part, row)
    decided = judged(part, row)  # once a completion: of several verifiers that are asked in turn only the last decides
    if word == "passed":
        return decided
    if word == "suspicious":
        return decided * row.get(f"passed/{part}", 0.0)
    masked = row.get(f"masked/{part}", 0.0)
    return decided / (1 - masked) if masked < 1 else counts(part, [row]).total()


def judged(part: str, row: dict[str, float]) -> int:
    found = counts(part, [row])
    return sum(count for said, count in found.items() if said.startswith(("ok/", "rejected/")))


def counts(part: str, rows: Sequence[dict[str, float]]) -> Counter[str]:
    """How often its verdicts said what."""
    prefix = f"outcomes/{part}/"
    found: Counter[str] = Counter()
    for row in rows:
        said = {name: value for name, value in row.items() if name.startswith(prefix) and isfinite(value)}
        found.update({name.removeprefix(prefix): int(value) for name, value in said.items()})
    return found


def outcomes(part: str, rows: Sequence[dict[str, float]]) -> Markup | None:
    said_how_often = counts(part, rows)
    total = said_how_often.total()
    if not total:
        return None
    lines = [
        tag("tr", tag("td", said), tag("td", f"{count:,}", class_="n"), tag("td", percent(count / total), class_="n"))
        for said, count in said_how_often.most_common(MOST)
    ]
    further = len(said_how_often) - len(lines)
    note = tag("p", f"{further} rarer ones are left out", class_="dim") if further else None
    head = tag("tr", tag("th", "outcome / reason"), tag("th", "verdicts", class_="n"), tag("th", "share", class_="n"))
    return tag("div", tag("table", head, lines), note)


def completions(chosen: Sequence[tuple[int, dict[str, Any]]]) -> Markup:
    if not chosen:
        return tag("p", "No completion was recorded.", class_="dim")
    return tag("div", [completion(step, record) for step, record in chosen], class_="grid-of")


def advantage_of(record: dict[str, Any]) -> str:
    if "advantage" in record and record["advantage"] is None:
        return "none: its group was not trained on"
    return f"{advantage:+.3f}" if is_number(advantage := record.get("advantage")) else ""


def completion(step: int, record: dict[str, Any]) -> Markup:
    reward = record.get("reward")
    verdict = f"{reward:.4g}" if is_number(reward) else "no reward"
    said = " ".join(str(record.get(name) or "") for name in ("outcome", "reason"))
    facts = {
        "parts": json.dumps(record.get("parts"))[:500] if record.get("parts") else "",
        "answer": record.get("answer"),
        "reference": record.get("reference"),
        "detail": record.get("detail"),
        "tokens": f"{record.get('tokens')}, ended by {record.get('stop_reason')}",
        "advantage": advantage_of(record),
    }
    listed = [
        tag("tr", tag("th", name), tag("td", tag("bdi", str(value)[:1000]), class_="message"))
        for name, value in facts.items()
        if value not in (None, "")
    ]
    colour = "good" if is_number(reward) and reward > 0 else "bad"
    who = tag("bdi", str(record.get("prompt"))[:100])
    by_tools = record.get("observed") or ()
    note = tag("p", tag("span", "Tinted", class_="tool"), ": what a tool said.", class_="dim") if by_tools else None
    return tag(
        "div",
        tag("div", tag("b", verdict, class_=colour), f" {said}, step {step}, prompt ", who),
        tag("details", tag("summary", "prompt"), tag("pre", tag("bdi", record["question"])), open=""),
        tag("pre", tag("bdi", tinted(record["completion"], by_tools))), note,
        tag("table", listed),
        class_="card",
    )


def tinted(text: str, spans: Sequence[tuple[int, int]]) -> list[Markup | str]:
    """What the policy wrote, and what tools wrote between: the (start, end) in `spans`, in order."""
    found: list[Markup | str] = []
    place = 0
    for start, end in spans:
        found += [text[place:start], tag("span", text[start:end], class_="tool", title="what a tool said")]
        place = end
    return [*found, text[place:]]
