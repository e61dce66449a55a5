"""`rlvr compare`: several runs side by side, on the terminal and as a page."""

import argparse
from pathlib import Path
from typing import Any

from rlvr.observe.files import to_json


def add_parser(commands: Any) -> None:
    one = commands.add_parser("compare", help="set runs side by side: what differs, accuracies, speed, their curves")
    one.add_argument("runs", type=Path, nargs="+", metavar="run", help="two run folders or more; they may be going on")
    one.add_argument("--out", type=Path, help="the page (default: compare.html here; with --json none)")
    one.add_argument("--json", action="store_true", help="the table as one JSON object a line")
    one.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    from rlvr.observe import compare  # reads YAML, which takes a while to import

    records = compare.records_of(args.runs)
    if args.json:
        if args.out:
            compare.write_page(records, args.out)
        for record in compare.json_records(records):
            print(to_json(record))
        return 0
    out = compare.write_page(records, args.out or Path(compare.NAME))
    print(*compare.lines(records), "", out, sep="\n")
    return 0
