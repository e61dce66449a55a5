"""Does a group cost the same however many are begun? The buffer of groups sampled ahead, from 100 to 100,000 of them.

    python scripts/bench/buffer.py [--out buffer.json]

No engine: groups are there at once, in random order, so that all that is measured is the bookkeeping of a group.
"""

import argparse
import json
import random
from pathlib import Path
from time import process_time

from rlvr.rollout.ahead import Ahead
from rlvr.types import Completion, Group, Prompt

STEP = 50


def group(position: int) -> Group:
    return Group(Prompt(str(position), position, (), (1,), ""), (Completion((1,), (True,), (0.0,), 0, "", "eos"),))


def microseconds(begun: int) -> float:
    """Of a group, with so many begun all the time; each is taken several times over, or its start would count."""
    taken = max(20_000, 4 * begun)
    rng = random.Random(0)

    def begin(position: int, count: int):
        groups = [group(n) for n in range(position, position + count)]
        rng.shuffle(groups)
        return iter(groups)

    ahead = Ahead(begin, begun)
    ahead.fill()
    started = process_time()
    for _ in range(taken // STEP):
        ahead.take(STEP)
        ahead.fill()
    return (process_time() - started) / taken * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    out = parser.parse_args().out
    done = {begun: microseconds(begun) for begun in (100, 1_000, 10_000, 100_000)}
    for begun, each in done.items():
        print(f"{begun:7,} groups begun: {each:6.1f} us a group, {each / done[100]:.2f} of the smallest")
    if out:
        out.write_text(json.dumps({"us_per_group": done}, indent=1) + "\n")


if __name__ == "__main__":
    main()
