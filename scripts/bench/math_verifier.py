"""Our math verifier against math-verify itself, on whole completions: verifications a CPU second, side by side.

    python scripts/bench/math_verifier.py [--seconds 20] [--shared ../shared/data] [--out docs/measured/math.json]

Both see the same completions: two kilobytes of reasoning with formulas in it, then a boxed answer; half of the answers
are right, in another spelling where there is one. math-verify parses the reference and the completion and verifies, as
its documentation shows, without its alarm. They take turns of 50, so that a busy machine is the same for both. Exit
status 1 where a ratio misses its target.
"""

import argparse
import json
import logging
import random
import sys
from collections.abc import Callable
from pathlib import Path
from time import process_time

ROOT = Path(__file__).resolve().parents[2]
TURN = 50  # completions
TARGETS = {"numbers": 20.0, "math500": 3.0}
SENTENCES = [
    "We start by writing the condition as $x^2 - 5x + 6 = 0$ and look for its factors.",
    "Since $\\frac{a}{b} = \\frac{3}{4}$, it follows that $4a = 3b$ and therefore $a + b = \\frac{7}{4} b$.",
    "The number of ways to choose them is $\\binom{10}{3} = 120$, half of which are counted twice.",
    "Substituting, $\\sqrt{12} + \\sqrt{27} = 2\\sqrt{3} + 3\\sqrt{3} = 5\\sqrt{3}$, as before.",
    "Let me check this again: $17 \\cdot 23 = 391$, and $391 - 20 = 371$, so that is right.",
    "Hence the remaining part costs $\\$12.50$, which is 25\\% of the whole.",
]


def reasoning(draw: random.Random, length: int = 2_000) -> str:
    text = ""
    while len(text) < length:
        text += draw.choice(SENTENCES) + draw.choice([" ", "\n\n"])
    return text


def number_answers(draw: random.Random) -> list[tuple[str, str]]:
    """(reference, answer): integers, decimals and fractions."""
    found = []
    for _ in range(2000):
        kind, right = draw.choice(["integer", "decimal", "fraction"]), draw.random() < 0.5
        a, b = draw.randint(2, 20_000), draw.randint(2, 60)
        off = 0 if right else draw.randint(1, 9)
        if kind == "integer":
            found.append((str(a), draw.choice([f"{a + off}", f"{a + off:,}", f"{a + off}.0"])))
        elif kind == "decimal":
            found.append((f"{a / 8}", draw.choice([f"{(a + off) / 8}", f"\\frac{{{a + off}}}{{8}}"])))
        else:
            found.append((f"\\frac{{{a}}}{{{b}}}", draw.choice(["\\dfrac", "\\frac"]) + f"{{{a + off}}}{{{b}}}"))
    return found


def math500_answers(draw: random.Random, shared: Path) -> list[tuple[str, str]]:
    """The references of MATH-500, answered right, or with another reference of the same subject."""
    path = shared / "math500_test.json"
    if not path.exists():
        sys.exit(f"{path} is not there: --shared names the folder with the MATH-500 problems")
    problems = json.loads(path.read_text())
    found = []
    for row in problems:
        others = [other["answer"] for other in problems if other["subject"] == row["subject"]]
        answer = row["answer"] if draw.random() < 0.5 else draw.choice(others)
        found.append((row["answer"], answer.replace("\\frac", "\\dfrac") if draw.random() < 0.5 else answer))
    draw.shuffle(found)
    return found


def ours(gold: str, completion: str) -> bool:
    from rlvr_verifiers.math import math

    from rlvr.verify import Sample

    return math(Sample("", completion, gold)).reward == 1.0


def theirs(gold: str, completion: str) -> bool:
    from math_verify import parse, verify

    wanted = parse(f"${gold}$", parsing_timeout=None)
    return bool(verify(wanted, parse(completion, parsing_timeout=None), timeout_seconds=None))


def side_by_side(cases: list[tuple[str, str]], seconds: float) -> dict[str, float]:
    """CPU seconds of each over the same cases, until math-verify has had `seconds`."""
    graders: dict[str, Callable[[str, str], bool]] = {"ours": ours, "math_verify": theirs}
    for grade in graders.values():
        grade("x+1", "\\boxed{1+x}")  # slow imports
    spent, said, done = dict.fromkeys(graders, 0.0), {name: [] for name in graders}, 0
    while done < len(cases) and spent["math_verify"] < seconds:
        for name, grade in graders.items():
            started = process_time()
            said[name] += [grade(*case) for case in cases[done : done + TURN]]
            spent[name] += process_time() - started
        done = len(said["ours"])
    agreed = sum(map(bool.__eq__, said["ours"], said["math_verify"]))
    rates = {f"{name}_per_cpu_s": round(done / used, 1) for name, used in spent.items()}
    return rates | {"ratio": round(spent["math_verify"] / spent["ours"], 1), "cases": done, "agreed": agreed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="CPU seconds that math-verify gets for each mix")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "measured" / "math.json")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    draw = random.Random(0)
    mixes = {"numbers": number_answers(draw), "math500": math500_answers(draw, arguments.shared)}
    results, missed = {}, []
    for mix, answers in mixes.items():
        cases = [(gold, f"{reasoning(draw)}\nThe answer is $\\boxed{{{answer}}}$.") for gold, answer in answers]
        results[mix] = found = side_by_side(cases, arguments.seconds) | {"target": TARGETS[mix]}
        print(
            f"{mix:8} ours {found['ours_per_cpu_s']:>9}/s   math-verify {found['math_verify_per_cpu_s']:>7}/s   "
            f"ratio {found['ratio']} (target {TARGETS[mix]:g})   same verdict {found['agreed']}/{found['cases']}",
            flush=True,
        )
        missed += [mix] if found["ratio"] < TARGETS[mix] else []
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(results, indent=2) + "\n")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
