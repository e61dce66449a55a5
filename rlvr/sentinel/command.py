"""`rlvr sentinel replay`: try the sentinel on a run that somebody recorded. Reads, prints, and acts on nothing."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlvr.config import RecipeError
from rlvr.sentinel.columns import STEP, Columns, UnknownColumn, find_columns
from rlvr.sentinel.replay import NoRecord, read_records, replay, starts, steps_of
from rlvr.sentinel.watch import Watch
from rlvr.sentinel_config import SentinelConfig

Settings = Callable[[str, list[str]], SentinelConfig]


def add_parser(commands: Any, settings: Settings) -> None:
    """`settings` reads a file of recipes/sentinel, with overrides."""
    sentinel = commands.add_parser("sentinel", help="try the sentinel on a recorded run")
    one = sentinel.add_subparsers(required=True, metavar="command").add_parser(
        "replay", help="when it would have acted on a run of ours, or on anybody's CSV or JSON lines"
    )
    one.add_argument("record", type=Path, help="a run folder, or a .csv, .jsonl or .json file with a line a step")
    one.add_argument("overrides", nargs="*", help="key=value, e.g. reward.share=0.2 accuracy.problems=500")
    one.add_argument("--map", nargs="+", action="extend", default=[], metavar="METRIC=COLUMN", help="e.g. reward=r_avg")
    one.add_argument("--sentinel", default="default", help="default, strict, or a .yaml file of your own")
    one.add_argument("--json", action="store_true", help="a line an alarm on stdout, for a program to read")
    one.set_defaults(command=lambda args: run(args, settings))


def run(args: argparse.Namespace, settings: Settings) -> int:
    watch = Watch(settings(args.sentinel, args.overrides))
    try:
        records = read_records(args.record)
        columns = find_columns(dict.fromkeys(name for record in records for name in record), args.map)
    except (NoRecord, UnknownColumn) as error:
        raise RecipeError(str(error)) from error
    steps = steps_of(records, columns)
    if not set(columns.chosen) - {STEP} or not steps:
        known = ", ".join(dict.fromkeys(name for record in records for name in record))
        raise RecipeError(f"{args.record}: no column is known as a metric; name them with --map. There are: {known}")
    said = sys.stderr if args.json else sys.stdout
    print(introduction(args, columns, steps, watch), file=said, flush=True)
    alarms = 0
    for alarm in replay(steps, watch):
        alarms += 1
        acts = "" if alarms > 1 else f" -> back to a checkpoint from before step {alarm.onset}"
        print(json.dumps(alarm.fields()) if args.json else f"{alarm.detector}: {alarm}{acts}", flush=True)
    if not alarms:
        print(f"no alarm in {len(steps)} steps", file=said)
    return 0


def introduction(args: argparse.Namespace, columns: Columns, steps: list, watch: Watch) -> str:
    """What was read as what, and what could not be judged."""
    parts = starts(steps)
    lines = [f"{args.record}: {len(steps)} steps, " + " and ".join(f"{first} to {last}" for first, last in parts)]
    if len(parts) > 1:
        lines[0] += " (the step goes back: a new start, or a rollback)"
    if STEP not in columns.chosen:
        lines.append("no column of steps: lines are counted")
    lines.append("read as: " + ", ".join(f"{ours} <- {theirs}" for ours, theirs in columns.chosen.items()))
    silent = [d for d in watch.detectors if set(d.needs) - set(columns.chosen)]
    if silent:
        missing = (f"{d.name} ({', '.join(n for n in d.needs if n not in columns.chosen)})" for d in silent)
        lines.append("silent, for want of a metric: " + ", ".join(missing))
    if not watch.detectors:
        lines.append("sentinel.enabled is false: nothing is watched")
    return "\n".join(lines)
