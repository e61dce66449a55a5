"""`rlvr report`: a run's page, made again from what it wrote. Every run makes its own when it ends."""

import argparse
from pathlib import Path
from typing import Any

from rlvr.observe.console import Display
from rlvr.observe.report import write_report


def add_parser(commands: Any) -> None:
    one = commands.add_parser("report", help="write a run's report.html: curves, events, verifiers, completions")
    one.add_argument("run", type=Path, help="the run folder; the run may still be going on")
    one.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    print(write_report(args.run))
    return 0


def at_end(folder: Path, display: Display) -> None:
    """However the run ended. What the run itself has to say matters more than a page that could not be made."""
    try:
        write_report(folder)
    except Exception as error:
        display.event("warning", f"no report, `rlvr report {folder}` makes one: {type(error).__name__}: {error}")
