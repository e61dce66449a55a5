"""Mutation tests of the pure core: does a test notice when one thing in the code is wrong? `make mutation`.

Every small change of the mathematics and of the loop (a mutant, mutants.py) runs against its file's own tests until one
fails (forks.py): the mutant is dead. That others might notice it does not count. Who survives is listed in
docs/mutation.md with the reason that tests/mutation.yaml gives. Fails for a score below the goal, for a survivor
without a reason, and for a reason whose mutant is dead or gone.

Why not a library. mutmut (3.8) leaves out what is decorated (@property, @torch.no_grad()) and what stands in no
function (defaults of fields, constants), a good part of this core, and has nothing to say about a missing `.detach()`
or `.clamp()`, exchanged arguments, or `min` for `max`. cosmic-ray (8.7) writes each mutant into the source file, and
starts a Python for it that loads torch for seconds. Here no file is touched, and a mutant costs a fraction of a second.
"""

import argparse
import ast
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from forks import OPTIONS, Session, own_tests
from mutants import Mutant, mutants_of

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ["rlvr/objective/*.py", "rlvr/lineage.py", "rlvr/collate.py", "rlvr/loop.py"]
COPIED = ["rlvr", "tests", "recipes", "verifiers", "pyproject.toml"]  # a run sees no edit that is made meanwhile
SKIP = "not kill_minus_nine"  # it starts processes, which would run the code as it is
GOAL = 0.95


def copy(root: Path, names: list[str], to: Path) -> None:
    for name in names:
        if (root / name).is_dir():
            shutil.copytree(root / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(root / name, to / name)


def summary(fates: list[tuple[Mutant, str]], reasons: dict[str, str]) -> dict[str, Any]:
    alive = [(mutant, fate) for mutant, fate in fates if fate == "survived"]
    files = {mutant.file: Counter(f for m, f in fates if m.file == mutant.file) for mutant, _ in fates}
    return {
        "score": round(1 - len(alive) / len(fates), 4),
        "mutants": len(fates),
        "survivors": [
            {"mutant": m.name, "line": m.line, "reason": reasons.get(m.name, "")}
            for m, fate in sorted(alive, key=lambda pair: (pair[0].file, pair[0].line, pair[0].change))
        ],
        "files": {file: dict(files[file]) for file in sorted(files)},
    }


def page(made: dict[str, Any]) -> str:
    """docs/mutation.md"""
    killed = made["mutants"] - len(made["survivors"])
    rows = [
        (file, sum(n.values()), n.get("killed", 0), n.get("endless", 0), n.get("survived", 0))
        for file, n in made["files"].items()
    ]
    lines = [
        "# Mutation tests of the pure core",
        "",
        "Made by `make mutation`; the numbers: [measured/mutation.json](measured/mutation.json). A mutant is the code",
        "with one thing wrong: another operator, number, default or bound, an argument left out or exchanged with its",
        "neighbour, a call such as `.detach()` or `.clamp()` or a statement missing, a condition always true or always",
        "false. It is dead when a test fails, or comes to no end. Survivors that change nothing count as survivors.",
        "",
        f"**{killed} of {made['mutants']} mutants die: {made['score']:.1%}** "
        f"({made['tests']} tests, {made['minutes']} minutes with {made['jobs']} at a time).",
        "",
        "| file | mutants | killed | endless | survived | score |",
        "|---|---:|---:|---:|---:|---:|",
        *(f"| {f} | {n} | {k} | {e} | {s} | {1 - s / n:.1%} |" for f, n, k, e, s in rows),
        "",
        "## Survivors",
    ]
    groups: dict[str, list[str]] = {}
    for survivor in made["survivors"]:
        place, _, change = survivor["mutant"].partition(": ")
        groups.setdefault(survivor["reason"], []).append(f"- {place}, line {survivor['line']}: `{change}`")
    for reason, mutants in groups.items():
        lines += ["", reason or "**No reason is given.**", "", *mutants]
    return "\n".join(lines) + "\n"


def complaints(made: dict[str, Any], reasons: dict[str, str], whole: bool) -> list[str]:
    alive = {survivor["mutant"] for survivor in made["survivors"]}
    said = [f"no reason for {s['mutant']}" for s in made["survivors"] if not s["reason"]]
    if whole:
        said += [f"has a reason to survive, and did not: {name}" for name in reasons if name not in alive]
    if made["score"] < GOAL:
        said.append(f"score {made['score']:.1%} < {GOAL:.0%}")
    return said


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=ROOT)
    parser.add_argument("--sources", nargs="+", default=SOURCES)
    parser.add_argument("--copied", nargs="+", default=COPIED)
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 1) // 2))
    parser.add_argument("--only", default="", help="mutants with this in their name; then no report is written")
    parser.add_argument("--again", action="store_true", help="the survivors of the last report; no new one is written")
    parser.add_argument("--limit", type=float, default=2.0, help="seconds for a test, beyond five times the usual")
    args = parser.parse_args()
    began = time.monotonic()
    report, listed = args.root / "docs" / "measured" / "mutation.json", args.root / "tests" / "mutation.yaml"
    groups = yaml.safe_load(listed.read_text()) if listed.exists() else []
    reasons = {name: group["reason"].strip() for group in groups for name in group["mutants"]}
    fates: list[tuple[Mutant, str]] = []
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        root = Path(folder)
        copy(args.root, args.copied, root)
        files = [str(path.relative_to(root)) for glob in args.sources for path in sorted(root.glob(glob))]
        mutants = [
            mutant
            for file in files
            for mutant in mutants_of(file, ast.parse((root / file).read_text()))
            if args.only in mutant.name
        ]
        if args.again:
            last = {survivor["mutant"] for survivor in json.loads(report.read_text())["survivors"]}
            mutants = [mutant for mutant in mutants if mutant.name in last]

        def work(session: Session) -> None:
            session.baseline()
            say(f"{len(mutants)} mutants, {len(session.items)} tests")
            for mutant, fate in session.fates(mutants, args.jobs):
                fates.append((mutant, fate))
                if fate != "killed" or len(fates) % 50 == 0:
                    say(f"no. {len(fates)} {fate}: {mutant.name}")

        def say(text: str) -> None:
            print(f"{time.monotonic() - began:5.0f} s  {text}", file=sys.__stderr__, flush=True)

        used = dict.fromkeys(path for mutant in mutants for path in own_tests(root, mutant.file))
        os.chdir(root)
        sys.path.insert(0, str(root))
        session = Session(root, work, args.limit)
        if pytest.main([*OPTIONS, "-s", "-k", SKIP, f"--basetemp={root / 'tmp'}", *used], plugins=[session]):
            return 1
    made = summary(fates, reasons)
    made |= {"tests": len(session.items), "minutes": round((time.monotonic() - began) / 60), "jobs": args.jobs}
    whole = not args.only and not args.again
    if whole:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(json.dumps(made, indent=1) + "\n")
        (report.parents[1] / "mutation.md").write_text(page(made))
    said = complaints(made, reasons, whole)
    died = made["mutants"] - len(made["survivors"])
    print(f"{died} of {made['mutants']} mutants die: {made['score']:.1%}", *said, sep="\n")
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
