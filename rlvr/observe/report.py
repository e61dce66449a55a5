"""`<run>/report.html`: what a run did, on one page that needs nothing else and is readable on a phone.

    Record -> outcome, curves, what happened, the verifiers, completions, where the time went -> one HTML file

Judges nothing: it shows what the run wrote. It has no script, and its policy lets a browser load none.
"""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from rlvr.observe.charts import Curve, Mark, chart, colour_of, short
from rlvr.observe.files import write_atomic
from rlvr.observe.html import Child, Children, Markup, tag
from rlvr.observe.metrics import find, spent
from rlvr.observe.record import Record, is_number
from rlvr.observe.summary import duration, gain, percent
from rlvr.observe.verifiers import completions, monitors

NAME = "report.html"
Points = list[tuple[float, float]]

CURVES = (  # title, metrics, shares
    ("Reward", ("reward/mean", "reward/std"), False),
    ("Accuracy", ("accuracy", "eval/accuracy_greedy", "eval/accuracy_sampled"), True),
    ("Entropy, nats", ("policy/entropy",), False),
    ("Gradient norm, before clipping", ("policy/grad_norm",), False),
    ("Length, tokens", ("completions/length_mean", "completions/length_max"), False),
    ("Truncated, masked, groups without signal",
     ("completions/truncated", "completions/masked", "groups/no_signal"), True),
    ("KL and mismatch, nats", ("policy/kl_ref", "policy/kl_anchor", "mismatch/mean_abs"), False),
    ("Clipped tokens; effective sample size", ("policy/clipped", "mismatch/ess"), True),
    ("Learning rate", ("policy/lr",), False),
)  # fmt: skip
PHASES = {"time/rollout": "sampling and verifying", "time/train": "training", "time/publish": "handing over weights"}
LISTED = 300  # events; the first and the last of more

STYLE = """
:root{color-scheme:light dark;--ink:#1c2430;--dim:#6b7785;--page:#f6f7f9;--card:#fff;--line:#dfe3e8}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ee;--dim:#98a2b0;--page:#14181e;--card:#1d232b;--line:#343c47}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1180px;padding:12px;background:var(--page);color:var(--ink);
font:15px/1.45 system-ui,sans-serif}
h1{font-size:1.35rem;margin:.3em 0}h2{font-size:1.1rem;margin:1.6em 0 .5em}
.outcome{font-size:1.05rem}.status{border:1px solid;border-radius:6px;padding:0 8px;margin-right:6px}
.dim,figcaption,svg text{color:var(--dim);fill:var(--dim)}
.grid-of{display:grid;gap:10px;grid-template-columns:repeat(auto-fit,minmax(min(100%,330px),1fr))}
figure,.card{margin:0;padding:10px;background:var(--card);border:1px solid var(--line);border-radius:8px;min-width:0}
svg{width:100%;height:auto;display:block}figure svg{max-width:420px}
svg text{font-size:10px}svg .grid{stroke:var(--line)}
.timeline{margin-bottom:10px;overflow-x:auto}.timeline svg{min-width:560px;max-width:640px}
.legend{font-size:.8rem}p.legend{margin:0 0 8px}.legend span{margin-right:12px;white-space:nowrap}
i{display:inline-block;width:10px;height:10px;border-radius:5px}
i.dashed,i.mark{width:14px;height:3px;border-radius:0;vertical-align:middle}
i.mark{height:0;border-top:2px dashed}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.85rem}table+div{margin-top:12px}td.kind{white-space:nowrap}
td,th{padding:3px 10px 3px 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
pre{margin:6px 0;padding:8px;background:var(--page);border-radius:6px;white-space:pre-wrap;overflow-wrap:anywhere;
max-height:22em;overflow:auto;font-size:.8rem}
bdi{unicode-bidi:isolate}summary{cursor:pointer}
.tool{background:#2f6fde2e;border-radius:3px}
.bad{color:#c0392b}.good{color:#1f9d61}.message{overflow-wrap:anywhere}
@media(prefers-color-scheme:dark){.bad{color:#ff7b6b}}
"""


def write_report(run: Path) -> Path:
    path = run / NAME
    write_atomic(path, page(Record.of(run)))
    return path


def page(record: Record) -> str:
    name = record.path.resolve().name
    marks = marks_of(record)
    sections = [
        ("Curves", [key(record, marks), curves(record, marks)]),
        ("What happened", [timeline(record.events), event_table(record.events)]),
        ("Verifiers", monitors(record.metrics, marks, record.undone)),
        ("Completions", completions(record.completions)),
        ("Held-out problems, the worst answers", completions(record.missed) if record.missed else None),
        ("Where the time went", throughput(record.metrics)),
        ("The run", machine(record)),
    ]
    return document(
        f"{name}: rlvr report", tag("h1", name),
        tag("p", status(record), outcome(record), counted(record), class_="outcome"), unreadable(record),
        [(tag("h2", title), content) for title, content in sections if content],
    )  # fmt: skip


def document(title: str, *body: Child | Children) -> str:
    """A whole page, which needs nothing else."""
    # belt and braces behind the escaping: what a completion smuggles in cannot load, run or send anything
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    head = tag(
        "head", tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width,initial-scale=1"),
        tag("title", title), tag("style", Markup(STYLE)),
    )  # fmt: skip
    return "<!doctype html>\n" + tag("html", head, tag("body", *body), lang="en") + "\n"


def word(record: Record) -> str:
    """How it ended. Nothing follows an error but a resume, or a rollback by hand: an event of its own."""
    return "failed" if failed(record) else str(record.summary.get("status", "unfinished"))


def status(record: Record) -> Markup:
    ended = word(record)
    colour = {"finished": "good", "failed": "bad", "stopped": "bad"}.get(ended, "dim")
    return tag("b", ended, class_=f"status {colour}")


def failed(record: Record) -> bool:
    return bool(record.events) and record.events[-1].get("kind") == "error"


def counted(record: Record) -> str:
    """How often something happened that somebody should know of."""
    kinds = [event.get("kind") for event in record.events]
    sentinel, by_hand = rolled_back(record)
    often = [(kinds.count("warning"), "warning", ""), (kinds.count("restart"), "restart", "")]
    often += [(sentinel, "rollback", ""), (by_hand, "rollback", " by hand")]
    return "".join(f"; {n} {kind}{'s' * (n != 1)}{how}" for n, kind, how in often if n)


def rolled_back(record: Record) -> tuple[int, int]:
    """The sentinel's, and those by hand (`rlvr rollback`)."""
    by_hand = [bool(event["fields"].get("by_hand")) for event in record.events if event.get("kind") == "rollback"]
    return by_hand.count(False), by_hand.count(True)


def outcome(record: Record) -> str:
    """In one line. Without summary.json: how far it came, and what was last heard of it."""
    said = record.summary
    steps = int(record.metrics[-1]["step"]) if record.metrics else 0
    if not is_number(said.get("steps")) or not is_number(said.get("wall_s")):
        heard = [e for e in record.events if e.get("kind") in ("error", "stopped", "interrupt", "rollback")]
        why = f"; the last it said: {heard[-1].get('message')}" if heard else ""
        what = "the run failed" if failed(record) else "the run is going on, or ended without one,"
        return f"No result: {what} after {steps} steps{why}"
    how = {"finished": "finished", "interrupted": "interrupted", "stopped": "stopped by the sentinel"}
    status = str(said.get("status"))
    resumed = is_number(before := said.get("steps_before")) and before > 0
    last = f", the last {said['steps'] - before}" if resumed else ""
    begin = f"{how.get(status, status)} after {said['steps']} steps{last} in {duration(said['wall_s'])}"
    found = []
    for decoding in ("greedy", "sampled"):
        suffix = "" if decoding == "greedy" else "_sampled"
        before, after = said.get(f"accuracy_before{suffix}"), said.get(f"accuracy_after{suffix}")
        if is_number(before) and is_number(after):
            times = f" ({gain(before, after)})" if before > 0 else ""
            found.append(f"{decoding} {percent(before)} to {percent(after)}{times}")
    parts = [begin, *([f"held-out accuracy: {', '.join(found)}"] if found else [])]
    return f"{said.get('recipe')}, seed {said.get('seed')}: " + "; ".join(parts)


def unreadable(record: Record) -> Markup | None:
    if not record.unreadable:
        return None
    return tag("p", f"{record.unreadable} lines or files of this run cannot be read and are left out.", class_="bad")


def key(record: Record, marks: Sequence[Mark]) -> Markup | None:
    """What lines mean that are no curve."""
    kinds = dict.fromkeys(mark.kind for mark in marks)
    said = [tag("span", tag("i", "", class_="mark", style=f"color:{colour_of(k)}"), f" {k}") for k in kinds]
    if record.undone:
        said.append(tag("span", "dashed and pale: steps that were undone"))
    return tag("p", said, class_="legend") if said else None


def curves(record: Record, marks: Sequence[Mark]) -> Markup:
    evaluated = evaluations(record.events)
    figures = []
    for title, names, share in CURVES:
        lines = [Curve.of(name, record.metrics, record.undone) for name in names if name not in evaluated]
        lines += [Curve(name, evaluated[name], dots=True) for name in names if name in evaluated]
        figures.append(chart(title, lines, marks, share))
    rewards = {name for row in record.all_rows() for name in row if name.startswith("reward/")}
    parts = sorted(rewards - {"reward/mean", "reward/std"})
    figures.insert(1, chart("Reward by part", [Curve.of(n, record.metrics, record.undone) for n in parts], marks))
    drawn = [figure for figure in figures if figure is not None]
    return tag("div", drawn, class_="grid-of") if drawn else tag("p", "No step was taken yet.", class_="dim")


def evaluations(events: Sequence[dict[str, Any]]) -> dict[str, Points]:
    """Metric -> points, by step; a step that was evaluated again (after a rollback) counts as it was last, and one that
    was undone, and was not evaluated again, not at all."""
    found: dict[str, dict[float, float]] = defaultdict(dict)
    for event in events:
        fields = event["fields"]
        if event.get("kind") in ("begin", "rollback") and is_number(to := fields.get("to")):
            for name, points in found.items():
                found[name] = {step: value for step, value in points.items() if step <= to}
        if event.get("kind") == "evaluation" and is_number(step := fields.get("step")):
            for name, value in fields.items():
                if find(name) is not None and is_number(value):
                    found[name][step] = value
    return {name: sorted(points.items()) for name, points in found.items() if points}


def marks_of(record: Record) -> list[Mark]:
    """Events that happened at a step, on its place in the curves. Evaluations are dots already."""
    found = []
    for event in record.events:
        step = event["fields"].get("step", event["fields"].get("to"))
        if event.get("kind") not in ("evaluation", "checkpoint") and is_number(step) and step > 0:
            found.append(Mark(step, str(event.get("kind")), str(event.get("message"))))
    return found


def timeline(events: Sequence[dict[str, Any]]) -> Markup | None:
    """The events as dots over wall-clock time, in a row for each kind."""
    timed = [(at, e) for e in events if (at := seconds(e)) is not None]
    if len(timed) < 2:
        return None
    begin, end = min(at for at, _ in timed), max(at for at, _ in timed)
    kinds = list(dict.fromkeys(str(e.get("kind")) for _, e in timed))
    height, left, right = 16 * len(kinds) + 22, 110, 632
    drawn = [tag("text", kind, x=0, y=16 * n + 14) for n, kind in enumerate(kinds)]
    for at, event in timed:
        n = kinds.index(str(event.get("kind")))
        x = round(left + (at - begin) / max(end - begin, 1) * (right - left), 1)
        dot = tag("circle", cx=x, cy=16 * n + 10, r=3.5, fill=colour_of(kinds[n]))
        drawn.append(tag("g", tag("title", f"{duration(at - begin)} {event.get('message')}"), dot))
    drawn += [tag("text", "0:00", x=left, y=height - 4)]
    drawn += [tag("text", duration(end - begin), x=right, y=height - 4, text_anchor="end")]
    svg = tag("svg", drawn, viewBox=f"0 0 640 {height}", role="img", aria_label="events over time")
    return tag("figure", svg, class_="timeline")


def seconds(event: dict[str, Any]) -> float | None:
    try:
        return datetime.fromisoformat(str(event.get("time"))).timestamp()
    except (ValueError, OverflowError):
        return None


def event_table(events: Sequence[dict[str, Any]]) -> Markup:
    if not events:
        return tag("p", "Nothing was recorded.", class_="dim")
    shown = list(events) if len(events) <= LISTED else [*events[: LISTED // 2], *events[-LISTED // 2 :]]
    first = next((at for e in events if (at := seconds(e)) is not None), 0.0)
    rows = []
    for event in shown:
        at = seconds(event)
        dot = tag("i", "", style=f"background:{colour_of(str(event.get('kind')))}")
        when = duration(at - first) if at is not None and at >= first else ""
        rows.append(tag("tr", tag("td", when, class_="n"), tag("td", dot, " ", str(event.get("kind")), class_="kind"),
                        tag("td", str(event.get("message"))[:1000], class_="message")))  # fmt: skip
    left_out = len(events) - len(shown)
    note = tag("p", f"{left_out} events in the middle are left out: events.jsonl has them.") if left_out else None
    return tag("div", tag("table", rows), note, class_="card scroll")


def throughput(rows: Sequence[dict[str, float]]) -> Markup:
    timed = [row for row in rows if row.get("time/step", 0) > 0]
    if not timed:
        return tag("p", "No step was timed.", class_="dim")
    whole = fmean(row["time/step"] for row in timed)
    means = {label: fmean(spent(row, name) for row in timed) for name, label in PHASES.items()}
    rest = whole - sum(means.values())
    means["everything else" if rest >= 0 else "at the same time"] = rest
    lines = [tag("tr", tag("th", "phase"), tag("th", "s/step", class_="n"), tag("th", "share", class_="n"))]
    for label, value in {**means, "a step": whole}.items():
        cells = tag("td", label), tag("td", short(value), class_="n"), tag("td", percent(value / whole), class_="n")
        lines.append(tag("tr", *cells))
    figures = [
        chart("Seconds a step", [Curve.of(name, timed, label=label) for name, label in PHASES.items()]),
        chart("Sampled tokens per second", [Curve.of("tokens/per_s", timed)]),
    ]
    return tag("div", tag("div", tag("table", lines), class_="card scroll"), figures, class_="grid-of")


def machine(record: Record) -> Markup:
    said = record.environment
    lines = {name: said.get(name) for name in ("time", "command", "cpu", "cores", "memory_mb", "platform", "git")}
    lines |= {"gpus": said.get("gpus") or "none", "versions": said.get("versions")}
    lines |= {name: record.summary.get(name) for name in ("tokens_per_s", "peak_rss_mb")}
    rows = [tag("tr", tag("th", name), tag("td", text_of(value), class_="message")) for name, value in lines.items()
            if value is not None]  # fmt: skip
    config = tag("details", tag("summary", "config.yaml"), tag("pre", record.config)) if record.config else None
    return tag("div", tag("table", rows), config, class_="card scroll")


def text_of(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {text_of(item)}" for name, item in value.items() if item is not None)
    if isinstance(value, list):
        return ", ".join(map(text_of, value))
    return short(value) if isinstance(value, float) else str(value)
