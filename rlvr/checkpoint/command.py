"""`rlvr checkpoints` lists what a run could go back to; `rlvr rollback` lets a stopped run go back, by hand."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlvr.checkpoint.files import size, what_is_wrong
from rlvr.checkpoint.ledger import Ledger, step_of, version_of
from rlvr.config import RecipeError
from rlvr.state import State

COLUMNS = ("step", "label", "held-out", "reward", "accuracy", "MB", "name")
Locked = Callable[[Path], AbstractContextManager[Any]]  # of a run folder, or it says that a process is running in it


def add_parsers(commands: Any, locked: Locked) -> None:
    one = commands.add_parser("checkpoints", help="a run's checkpoints: step, label, metrics, size")
    one.add_argument("run", type=Path, help="the run folder")
    one.add_argument("--check", action="store_true", help="also read every file, and say what is damaged")
    one.add_argument("--json", action="store_true", help="one line a checkpoint, for a program to read")
    one.set_defaults(command=show)
    two = commands.add_parser("rollback", help="let a stopped run go on from an earlier checkpoint")
    two.add_argument("run", type=Path, help="the run folder")
    two.add_argument("--to", type=int, required=True, metavar="STEP", help="a step that `rlvr checkpoints` lists")
    two.set_defaults(command=lambda args: rollback(args, locked))


def ledger_of(run: Path) -> Ledger:
    if not run.is_dir():
        raise RecipeError(f"{run}: no such folder")
    root = run / "checkpoints"
    ledger = Ledger.open(root, lambda kind, text: print(f"{kind}: {text}", file=sys.stderr)) if root.is_dir() else None
    if not ledger or not ledger.entries:
        raise RecipeError(f"{run} has no checkpoints")
    return ledger


def steps_taken(run: Path) -> int:
    """By the newest checkpoint that a resume would go on from, damage aside; 0 where there is none."""
    root = run / "checkpoints"
    if not root.is_dir():
        return 0
    return Ledger.open(root, lambda kind, text: None).newest_step() or 0  # whoever resumes is told of damage


def show(args: argparse.Namespace) -> int:
    ledger = ledger_of(args.run)
    rows = [row(ledger, name, args.check) for name in sorted(ledger.entries, key=version_of)]
    if args.json:
        for line in rows:
            print(json.dumps(line))
        return 0
    columns = (*COLUMNS, "damage") if args.check else COLUMNS
    table = [columns, *([cell(line[name]) for name in columns] for line in rows)]
    widths = [max(len(texts[i]) for texts in table) for i in range(len(columns))]
    for texts in table:
        print("  ".join(text.ljust(width) for text, width in zip(texts, widths, strict=True)).rstrip())
    return 0


def row(ledger: Ledger, name: str, check: bool) -> dict[str, Any]:
    folder, entry = ledger.path.parent / name, ledger.entries[name]
    damage = what_is_wrong(folder) if check else None
    last: Mapping[str, float] = {}
    try:
        last = last if damage else next(iter(reversed(saved_state(folder).history)), {})
    except RecipeError as error:  # one of them hides no other
        print(f"warning: {error}", file=sys.stderr)
    told = {"step": step_of(name), "label": entry.label, "held-out": entry.score, "name": name}
    told |= {"reward": last.get("reward/mean"), "accuracy": last.get("accuracy"), "MB": round(size(folder) / 2**20, 1)}
    return told | ({"damage": damage} if check else {})


def cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def saved_state(folder: Path) -> State:
    try:
        return State.from_json(json.loads((folder / "state.json").read_text())["state"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecipeError(f"{folder / 'state.json'} cannot be read: {error}") from error


def rollback(args: argparse.Namespace, locked: Locked) -> int:
    """Like the sentinel's, but for the count and the remedies: back in steps, forward in the data."""
    with locked(args.run) as folder:
        ledger = ledger_of(args.run)
        root = ledger.path.parent
        there = {step_of(name): name for name in ledger.usable()}
        if args.to not in there:
            steps = ", ".join(map(str, sorted(there)))
            raise RecipeError(f"--to {args.to}: {args.run} has no checkpoint of that step; it has {steps}")
        name = there[args.to]
        if damage := what_is_wrong(root / name):
            raise RecipeError(f"--to {args.to}: that checkpoint is damaged ({damage})")
        last = ledger.usable()[-1]
        noted = ledger.noted(last)
        newest = State.from_json(noted) if noted else saved_state(root / last)
        back = replace(
            saved_state(root / name),
            cursor=newest.cursor,
            rollbacks=0,
            remedies=(),
            anchor=None,
            until=0,
            lineage=newest.lineage.branch(),
            restored=name,
            rollouts=newest.rollouts,  # what verifiers have said is not undone
        )
        ledger.doubt(name, args.to)  # whoever goes back by hand wants none of what is newer
        left = ledger.abandon_after(name)
        ledger.rollback = back.to_json()
        at = max([newest.step, *(int(row["step"]) for row in folder.read_metrics())])
        ledger.write()  # first: what a crash leaves undone behind it, the next resume does as it begins
        folder.undo_after(args.to, "rollback")
        said = f"by hand: back to step {args.to}, from {at}"
        folder.event("rollback", said, step=at, to=args.to, by_hand=True)
        folder.forget_summary()  # nor is what was exported what the run is now
    print(f"{args.run}: back to step {args.to} ({name}); {len(left)} newer checkpoints are abandoned")
    print(f"go on with: rlvr resume {args.run}")
    return 0
