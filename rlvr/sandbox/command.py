"""`rlvr sandbox run` and `rlvr sandbox probe` (`rlvr doctor` for short): a program's end and output as JSON; what the
sandbox is worth here."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rlvr.sandbox.job import Job, Level, Limits, Refused, Result
from rlvr.sandbox.sandbox import Sandbox

LEVELS = [str(level) for level in reversed(Level) if level != Level.BROKEN]


def add_parser(commands: Any) -> None:
    """`commands` is what `ArgumentParser.add_subparsers` gives."""
    top = commands.add_parser("sandbox", help="run a program in the sandbox, or see what it protects here")
    own = top.add_subparsers(required=True, metavar="what")
    one = own.add_parser("run", help="run a Python program; its end and output as JSON")
    one.add_argument("program", help="a Python file, or - for standard input")
    one.add_argument("--stdin", metavar="F", help="a file that the program reads as its standard input")
    one.add_argument("--cpu-s", type=float, default=Limits().cpu_s, help="CPU time (default %(default)g s)")
    one.add_argument("--memory-mb", type=int, default=Limits().memory_mb, help="address space (default %(default)d)")
    two = own.add_parser("probe", help="start a slot, let canaries try to get out, show what was observed")
    short = commands.add_parser("doctor", help="what the sandbox protects on this machine: `rlvr sandbox probe`")
    for part in (one, two, short):
        part.add_argument("--min-level", choices=LEVELS, default="confined", help="refuse below (default %(default)s)")
        part.add_argument("--allow-unsafe", action="store_true", help="accept the level limited: no protection")
        part.add_argument("--without", action="append", default=[], metavar="LAYER", help=argparse.SUPPRESS)
    one.set_defaults(command=run)
    two.set_defaults(command=probe)
    short.set_defaults(command=probe)


def opened(args: argparse.Namespace) -> Sandbox:
    return Sandbox(min_level=args.min_level, allow_unsafe=args.allow_unsafe, without=args.without)


def run(args: argparse.Namespace) -> int:
    """Exit code 0 when the program ended cleanly, 1 when it did not, 2 when it was not run."""
    try:
        program = sys.stdin.read() if args.program == "-" else Path(args.program).read_text(encoding="utf-8")
        stdin = Path(args.stdin).read_bytes() if args.stdin else b""
        limits = Limits(cpu_s=args.cpu_s, memory_mb=args.memory_mb)
        with opened(args) as sandbox:
            result = sandbox.run(Job({"mode": "script", "program": program}, stdin, limits))
    except (OSError, ValueError, Refused) as error:  # ValueError: limits that are none, a text that is no UTF-8
        print(f"rlvr: {error}", file=sys.stderr)
        return 2
    print(json.dumps(described(result, limits), indent=2))
    return 0 if result.ok else 1


def described(result: Result, limits: Limits) -> dict[str, Any]:
    return {
        "end": result.end,
        "exit_code": result.exit_code,
        "stdout": result.stdout.decode("utf-8", "backslashreplace"),
        "stderr": result.stderr.decode("utf-8", "backslashreplace"),
        "cpu_s": round(result.cpu_s, 4),
        "wall_s": round(result.wall_s, 4),
        "memory_mb": round(result.memory_mb, 1),
        "level": str(result.level),
        "limits": {"cpu_s": limits.cpu_s, "wall_s": limits.wall_s, "memory_mb": limits.memory_mb},
        **({"detail": result.detail} if result.detail else {}),
    }


def probe(args: argparse.Namespace) -> int:
    """Exit code 0 when the level suffices, 2 when it does not."""
    try:
        with opened(args) as sandbox:
            print("\n".join(report(sandbox)))
    except Refused as error:
        print(f"rlvr: {error}", file=sys.stderr)
        return 2
    return 0


def report(sandbox: Sandbox) -> list[str]:
    """A started sandbox in words, for this command and for others that look at the machine."""
    assert sandbox.observed is not None
    got = ", ".join(sorted(sandbox.observed.got)) or "nothing"
    layers = [f"  {name:<11} {text}" for name, text in sandbox.said.items()]
    return [f"sandbox level: {sandbox.level}", f"  canaries    could: {got}", *layers]
