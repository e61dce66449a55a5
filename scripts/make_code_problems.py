"""Make the code problems of recipes/quickstart_code.yaml out of the tiny model's arithmetic problems.

The model knows arithmetic and how to box an answer. What it boxes is taken as a one-line Python expression: the body of
`solve`, which runs in the sandbox and whose value a unit test checks. Same questions, same split.

    python scripts/make_code_problems.py [--folder recipes/tiny]
"""

import argparse
import json
from pathlib import Path

ROWS = {"train": 1000, "heldout": 100}


def code_row(row: dict[str, str]) -> dict[str, object]:
    """{"problem": "2+3=?", "answer": "5"} -> a case: solve() returns the int 5, not True, not "5"."""
    return {
        "problem": row["problem"],
        "answer": {"entry_point": "solve", "cases": [{"args": [], "expected": int(row["answer"])}]},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Make code problems of arithmetic ones.")
    parser.add_argument("--folder", type=Path, default=Path(__file__).resolve().parents[1] / "recipes" / "tiny")
    folder = parser.parse_args().folder
    for name, count in ROWS.items():
        rows = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()[:count]]
        (folder / f"code_{name}.jsonl").write_text("".join(json.dumps(code_row(row)) + "\n" for row in rows))


if __name__ == "__main__":
    main()
