"""What of a completion is the program, and what verdict comes of how it did. What rows ask: test_code_task.py."""

import gzip
import json
import math
import os
from pathlib import Path

import pytest
from rlvr_verifiers.code import close_sandboxes, code, extracted, last_block, open_sandbox
from rlvr_verifiers.code_grade import MachineFailed, grade, plausible
from rlvr_verifiers.code_task import NoTask, read_task

from rlvr.sandbox import Job, Level, Limits, Result
from rlvr.sandbox.wire import encode
from rlvr.types import Outcome
from rlvr.verify import Sample
from tests.verifiers.test_code_task import CASE

SHARED = Path(os.environ.get("RLVR_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
HUMANEVAL = SHARED / "HumanEval.jsonl.gz"
ADD = {"entry_point": "add", "cases": [{"args": [1, 2], "expected": 3}, {"args": ["a", "b"], "expected": "ab"}]}


@pytest.fixture(scope="module", autouse=True)
def sandbox():
    yield open_sandbox()
    close_sandboxes()


def sample(completion: str, answer, **row) -> Sample:
    return Sample("question", completion, answer, row=row)


def fenced(program: str) -> str:
    return f"<think>```python\nno\n```</think>Here it is:\n```python\n{program}\n```\nDone."


# rows that grade nobody -----------------------------------------------------------------------------------------------


NO_TASKS = [
    None,
    "",
    "42",
    {"cases": []},
    {"cases": [{"stdin": 1}]},
    {"tests": "assert ("},
    {"tests": 5},
    {"tests": {"a": 1}},
    {"tests": "assert f(" + "-" * 20_000 + "1)"},
    {"tests": "assert f()", "preamble": 1},
    '{"a": ' * 100_000,
    {"cases": 5, "entry_point": "f"},
    {"inputs": 1, "outputs": 2},
    {"cases": [[1]], "entry_point": "f"},
    {"test_list": [1, 2], "test_imports": 3},
    {"cases": [{"args": "[" * 5_000, "expected": 1}], "entry_point": "f", "literals": True},
    {"inputs": "5\n", "outputs": "8\n"},
    {"inputs": ["5\n"], "outputs": "8"},
    {"inputs": "12", "outputs": [1, 2], "fn_name": "f"},
    {"test_list": "[1"},
    {"tests": "import pandas\nassert f(1) == 2"},
    {"tests": "from solution import f\ndef test_a():\n    assert f(1) == 2", "entry_point": "f"},
    {"test_list": ["assert f(1) == 2"], "test_setup_code": "import nothing_there"},
    {"tests": "def main():\n    assert f(1) == 2\nif __name__ == '__main__':\n    main()"},
    {"tests": "def main():\n    assert f(1) == 2\nif __name__ == '__main__':\n    main()", "trust": "shared"},
    {"tests": "def check(candidate):\n    assert candidate(1) == 2\ndef other():\n    check(f)"},
    {"tests": "class Tests:\n    def run(self):\n        assert f(1) == 2"},
    {"tests": "def test_a(fixture):\n    assert f(fixture) == 2"},
    {"tests": "async def test_a():\n    assert f(1) == 2"},
    {"tests": "def test_a():\n    assert f(1) == 2\ndef test_b(tmp_path):\n    assert f(2) == 3"},
    {"tests": "def test_a():\n    assert f(1) == 2\ndef test_b(*, n):\n    assert f(n) == 3"},
    {"tests": "def test_a():\n    assert f(1) == 2\nasync def test_b():\n    assert f(2) == 3"},
]


@pytest.mark.parametrize("answer", NO_TASKS, ids=range(len(NO_TASKS)))
def test_a_row_without_tests_abstains_and_says_why(answer):
    with pytest.raises(NoTask):
        read_task(answer)
    verdict = code(sample(fenced("x = 1"), answer))
    assert (verdict.outcome, verdict.reward, verdict.reason) == (Outcome.ABSTAIN, None, "gold_unparsed")
    assert code.unusable(answer, {}, {}) and not code.unusable(ADD, {}, {})


UNITTEST = CASE + "self.assertEqual(f(2), 4)\n"
RUN_BY_A_RUNNER = [
    UNITTEST,
    UNITTEST + "unittest.main()",
    UNITTEST + "if __name__ == '__main__':\n    unittest.main()",
    UNITTEST + "unittest.TextTestRunner().run(unittest.defaultTestLoader.loadTestsFromTestCase(T))",
    UNITTEST.replace("unittest.TestCase", "TestCase").replace("import unittest", "from unittest import TestCase"),
    "def same(x, y):\n    assert x == y\ndef test_a():\n    same(f(2), 4)\ndef test_b(n=3):\n    assert f(n) == n * n",
    "def test_pair(x, y):\n    assert f(x) == y\ndef test_all():\n    test_pair(2, 4)",
    "def test_all():\n    test_pair(2, y=4)\ndef test_pair(x, *, y):\n    assert f(x) == y",
    UNITTEST + "def test_case(x, y):\n    assert f(x) == y\ntest_case(1, 1)",
    UNITTEST + "def test_unused(x, y):\n    assert f(x) == y",
    UNITTEST.replace("self.assertEqual(f(2), 4)", "test_pair(self, 2, 4)")
    + "def test_pair(case, x, y):\n    case.assertEqual(f(x), y)",
    "import asyncio\nasync def test_later(x):\n    assert f(x) == x * x\ndef test_a():\n    asyncio.run(test_later(2))",
]


@pytest.mark.parametrize("trust", ["separate", "shared"])
@pytest.mark.parametrize("tests", RUN_BY_A_RUNNER, ids=range(len(RUN_BY_A_RUNNER)))
def test_what_a_test_runner_would_run_is_run(tests, trust):
    row = {"test": tests, "entry_point": "f", "trust": trust}
    wrong = code(sample(fenced("def f(x): return None"), row))
    right = code(sample(fenced("def f(x): return x * x"), row))
    assert (wrong.reward, wrong.reason, right.reward, right.reason) == (0.0, "failed", 1.0, "passed"), (wrong, right)
    assert right.provenance[0].trust == trust


def test_what_the_module_runs_itself_is_not_run_twice():
    tests = "seen = []\ndef test_a():\n    seen.append(f(1))\n    assert seen == [1]\ntest_a()"
    assert code(sample(fenced("def f(x): return x"), {"tests": tests})).reward == 1.0
    both = UNITTEST + "seen = []\ndef test_once():\n    seen.append(f(1))\n    assert seen == [1]\ntest_once()"
    assert code(sample(fenced("def f(x): return x * x"), {"tests": both})).reward == 1.0
    named = "def other():\n    assert test_f(1) == 2\nother()"  # the program's, not a test
    assert code(sample(fenced("def test_f(x): return 2 * x"), {"tests": named})).reward == 1.0


IDLE = [
    "checks = (f(i) == i for i in range(3))",
    "async def main():\n    assert f(1) == 2\nmain()",
    "def check(candidate):\n    assert candidate(1) == 2\ncheck_f = f",
    UNITTEST.replace("class", "@unittest.skip('later')\nclass"),
]
BROKEN_TESTS = ["assert 1 == 2\nassert f(1) == 2", "import json\njson.nothing\nf(1)", "raise SystemExit(0)\nf(1)"]


@pytest.mark.parametrize("program", ["def f(x): return None", "def f(x): return x", "import os; os._exit(0)"])
@pytest.mark.parametrize("tests", IDLE + BROKEN_TESTS, ids=range(len(IDLE + BROKEN_TESTS)))
def test_tests_that_never_call_the_program_grade_nobody(tests, program):
    verdict = code(sample(fenced(program), {"tests": tests}))
    assert (verdict.outcome, verdict.reward, verdict.reason) == (Outcome.ABSTAIN, None, "gold_unparsed"), verdict
    assert "call the program" in verdict.detail


@pytest.mark.parametrize("tests", IDLE, ids=range(len(IDLE)))
def test_tests_in_one_process_that_pass_without_a_program_grade_nobody(tests):
    for program in ("def f(x): return None", "import os; os._exit(0)", "1 / 0", "raise KeyError"):
        verdict = code(sample(fenced(program), {"tests": tests, "trust": "shared"}))
        assert (verdict.outcome, verdict.reason) == (Outcome.ABSTAIN, "gold_unparsed"), verdict


@pytest.mark.parametrize(
    "program",
    ["def f(x):", "1 / 0", "while True: pass", "import os; os._exit(3)", "import os; os._exit(0)",
     "import os; os.write(3, b'x')", "def g(): pass",
     "from rlvr.sandbox.child import send; send(['value', 3, []]); raise SystemExit"],
)  # fmt: skip
def test_no_program_gets_itself_masked_before_the_first_call(program):
    verdict = code(sample(fenced(program), {"tests": "assert f(1) == 2"}), cpu_s=0.5)
    assert (verdict.reward, verdict.trainable) == (0.0, True), verdict


@pytest.mark.parametrize(
    ("program", "tests"),
    [
        ("class Stack:\n    def __init__(self): self.x = []\n    def push(self, v): self.x.append(v)\n"
         "    def pop(self): return self.x.pop()", "s = Stack()\ns.push(1)\nassert s.pop() == 1"),
        ("class A:\n    def f(self, x): return x + 1", "assert A().f(1) == 2"),
        ("def adder(n): return lambda x: x + n", "assert adder(2)(3) == 5"),
        ("def g(n):\n    for i in range(n): yield i", "assert list(g(3)) == [0, 1, 2] and next(g(1)) == 0"),
        ("def g(n): return map(str, range(n))", "assert ''.join(g(3)) == '012' and g(3) != ['0', '1', '2']"),
    ],
)  # fmt: skip
def test_classes_closures_and_generators_are_tested(program, tests):
    verdict = code(sample(fenced(program), {"tests": tests}))
    assert verdict.reward == 1.0, verdict
    assert code(sample(fenced(program.replace("+ 1", "+ 2").replace("x + n", "x").replace("range(n)", "range(n + 1)")
                              .replace("self.x.pop()", "None")), {"tests": tests})).reward == 0.0  # fmt: skip


def test_an_endless_iterator_is_handed_over_in_part():
    program = "from itertools import count\ndef g(): return count()"
    tests = "it = g()\nassert next(it) == 0 and next(it) == 1"
    assert code(sample(fenced(program), {"tests": tests})).reward == 1.0
    assert code(sample(fenced(program), {"tests": "assert g()\nassert list(g())"})).reason == "failed"


def test_what_is_no_iterators_items_is_no_answer():
    assert plausible(["items", encode([1, 2]), []]) and plausible(["value", encode(5), []])
    for tree in (5, None, encode({1}), encode((1,)), encode({1: 2}), ["l", object]):
        assert not plausible(["items", tree, []]), tree


# programs in completions ---------------------------------------------------------------------------------------------


def test_the_last_closed_block_of_python_counts():
    assert last_block("```\na\n```\n```python\nb\n```\n```bash\nc\n```\n```python\nopen") == "b\n"
    assert last_block("````md\n```python\na\n```\n````") is None
    assert last_block("```python\na\n```\nIt prints:\n```\n3\n```") == "a\n"
    assert last_block("```\na\n```\n```\nb\n```") == "b\n"
    assert last_block("no code") is None
    for info in ('python title="a.py"', "Python 3", "python:a.py", "py{1,3}"):
        assert last_block(f"```{info}\na\n```\n```\n3\n```") == "a\n"
    assert last_block('```bash title="a"\na\n```\n```{.r}\nb\n```') is None


def test_an_indented_block_loses_the_indentation_of_its_fence():
    block = "1. First:\n\n   ```python\n   if x:\n       a\n\n  b\nc\n   ```\n"
    assert last_block(block) == "if x:\n    a\n\nb\nc\n"
    assert last_block("\t```python\n\tif x:\n\t\ta\n\t```") == "if x:\n\ta\n"
    assert last_block("```python\n    a\n  ```") == "    a\n"
    assert last_block("    ```python\n\ndef f():\n    return 1\n    ```") == "\ndef f():\n    return 1\n"
    assert last_block("   ```python\n  if x:\n      a\n   ```") == "if x:\n    a\n"
    assert code(sample(f"- So:\n  {fenced('def add(a, b): return a + b')}".replace("\n", "\n  "), ADD)).reward == 1.0


def test_a_program_may_be_a_block_a_box_everything_or_a_continuation():
    text = "<think>\\boxed{1}</think>\\boxed{2+3}"
    assert extracted(sample(text, ADD), "boxed") == "2+3"
    assert extracted(sample(text, ADD), "all") == "\\boxed{2+3}"
    assert extracted(sample("    return 1", ADD, prompt="def f():\n"), "continued") == "def f():\n    return 1"
    assert extracted(sample("<think>```\nx\n```", ADD), "fenced") is None
    with pytest.raises(ValueError, match="extract=box: one of"):
        extracted(sample(text, ADD), "box")


@pytest.mark.parametrize(
    "options",
    [
        *({"cpu_s": value} for value in (0, -1, 0.01, math.nan, math.inf, 1e9, "2")),
        *({"memory_mb": value} for value in (0, -1, 1, 100.5, math.nan, 1 << 40, None)),
        *({"total_s": value} for value in (0, -1, math.nan, math.inf)),
        *({"tolerance": value} for value in (-1e-9, math.nan, math.inf, "loose")),
        {"template": "print(1)"},
    ],
)
def test_options_by_which_right_programs_would_be_wrong_or_wrong_ones_right_are_refused(options):
    (name,) = options
    with pytest.raises(ValueError, match=name):
        code.setup(**options)


def test_options_at_their_limits_grade_as_ever():
    least = {"cpu_s": 0.1, "memory_mb": 16, "total_s": 0.1, "tolerance": 0}
    code.setup(**least)
    assert code(sample(fenced("def add(a, b): return a + b"), ADD), **least).reward == 1


# verdicts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "reward", "outcome", "reason"),
    [
        ("def add(a, b): return a + b", 1.0, Outcome.OK, "passed"),
        ("def add(a, b): return 3", 0.0, Outcome.OK, "differs"),
        ("def add(a, b): return a - b", 0.0, Outcome.OK, "differs"),
        ("def add(a, b): raise KeyError(a)", 0.0, Outcome.OK, "raised"),
        ("def other(): pass", 0.0, Outcome.OK, "raised"),
        ("def add(a, b):", 0.0, Outcome.REJECTED, "crashed"),
        ("import os; os._exit(0)", 0.0, Outcome.REJECTED, "no_answer"),
        ("while True: pass", 0.0, Outcome.REJECTED, "timeout"),
        ("print('x' * 10_000_000)", 0.0, Outcome.REJECTED, "output_limit"),
    ],
)
def test_what_the_program_did_decides(program, reward, outcome, reason):
    verdict = code(sample(fenced(program), ADD), cpu_s=0.5)
    assert (verdict.reward, verdict.outcome, verdict.reason) == (reward, outcome, reason), verdict
    where = verdict.provenance[0]
    assert (where.verifier, where.trust) == ("code", "separate")
    assert where.sandbox_level in ("confined", "isolated")


def test_partial_credit_is_the_share_of_cases():
    program = fenced("def add(a, b): return 3")
    assert code(sample(program, ADD), partial=True).reward == 0.5
    assert code(sample(program, ADD)).parts == {"passed": 0.5}
    streams = {"cases": [{"stdin": f"{i}\n", "stdout": f"{i % 2}\n"} for i in range(4)]}
    assert code(sample(fenced("print(1)"), streams), partial=True).reward == 0.5


def test_as_much_may_be_printed_and_returned_as_is_expected():
    lines = {"cases": [{"stdin": "150000\n", "stdout": "\n".join(str(10**7 + i) for i in range(150_000))}]}
    program = "n = int(input())\nprint('\\n'.join(str(10**7 + i) for i in range(n)))"
    assert len(lines["cases"][0]["stdout"]) > Limits().output_bytes
    assert code(sample(fenced(program), lines)).reward == 1.0
    assert code(sample(fenced(f"{program}\nwhile True: print('x' * 9999)"), lines)).reason == "output_limit"
    texts = {"entry_point": "f", "cases": [{"args": [i], "expected": chr(97 + i) * 3_000_000} for i in range(3)]}
    assert code(sample(fenced("def f(i): return chr(97 + i) * 3_000_000"), texts)).reward == 1.0
    assert code(sample(fenced("def f(i): return chr(97 + i) * 3_900_000"), texts)).reason == "differs"


def test_an_expected_value_that_no_program_could_return_is_no_task():
    row = {"entry_point": "f", "cases": [{"args": [], "expected": "x" * (4 << 20)}]}
    assert code.unusable(row, {}, {}).startswith("an expected value of 4194306 bytes > 4194204")
    row["cases"][0]["expected"] = "x" * (4_194_204 - 2)
    assert code(sample(fenced("def f(): return 'x' * (4_194_204 - 2)"), row)).reward == 1.0


def test_rows_of_apps_are_graded_by_its_conventions():
    method = "class Solution:\n    def add(self, a, b): return a + b"
    row = {"fn_name": "add", "inputs": [[1, 2], [3, 4]], "outputs": [3, 7]}
    wrapped = row | {"outputs": [[3], [7]]}
    for program in (method, "def add(a, b): return a + b", f"{method} - 1\ndef add(a, b): return a + b"):
        for answer in (row, wrapped, json.dumps(wrapped)):
            assert code(sample(fenced(program), answer)).reward == 1.0, (program, answer)
            assert code(sample(fenced(program.replace("+ b", "- b")), answer)).reward == 0.0
    assert code(sample(fenced("def add(a, b): return [a + b]"), wrapped)).reward == 1.0
    assert code(sample(fenced("def add(a, b): return [a + b]"), row)).reward == 0.0
    mixed = row | {"outputs": [[3], [7, 7]]}  # lists are what it returns
    assert code(sample(fenced("def add(a, b): return a + b if a == 1 else [7, 7]"), mixed)).reward == 0.0
    assert code(sample(fenced("class Other:\n    def add(self, a, b): return a + b"), row)).reason == "raised"
    ours = {"entry_point": "add", "cases": [{"args": [1, 2], "expected": [3]}]}
    assert code(sample(fenced("def add(a, b): return a + b"), ours)).reward == 0.0
    assert code(sample(fenced(method), ours)).reason == "raised"


def test_no_code_and_too_much_of_it_are_rejected():
    assert code(sample("I do not know", ADD)).reason == "no_code"
    assert code(sample(fenced("#" * 200_000), ADD)).reason == "too_long"


def test_a_boxed_expression_is_a_program_by_the_recipes_template():
    answer = {"entry_point": "solve", "cases": [{"args": [], "expected": 42}]}
    template = "def solve():\n    return (\n{code}\n)\n"
    rewards = {"42": 1.0, "6*7": 1.0, "41": 0.0, "True": 0.0, "'42'": 0.0, "42.5": 0.0, "(": 0.0}
    for text, reward in rewards.items():
        verdict = code(sample(f"<think></think>\\boxed{{{text}}}", answer), extract="boxed", template=template)
        assert verdict.reward == reward, text


def test_a_function_that_changes_its_arguments_is_seen_to():
    tests = "x = [3, 1, 2]\nassert f(x) is None\nassert x == [1, 2, 3]\nd = {}\nf(d, 1)\nassert d == {1: 1}"
    program = "def f(x, k=None):\n    x.sort() if k is None else x.update({k: k})"
    assert code(sample(fenced(program), {"tests": tests})).reward == 1.0
    assert code(sample(fenced("def f(x, k=None): pass"), {"tests": tests})).reason == "failed"


def test_an_exception_of_the_program_is_the_same_in_the_tests():
    tests = "try:\n    f(0)\nexcept ZeroDivisionError as e:\n    assert 'division' in str(e)\nelse:\n    assert False"
    assert code(sample(fenced("def f(x): return 1 / x"), {"tests": tests})).reward == 1.0
    assert code(sample(fenced("def f(x): raise SystemExit"), {"tests": tests})).reward == 0.0


ODD = "class Odd(ValueError):\n    def __init__(self, n): super().__init__(n, 'odd')\n"


@pytest.mark.parametrize(
    ("body", "kind", "says"),
    [
        ("raise Odd(1)", "ValueError", "(1, 'odd')"),
        ("raise KeyError('a')", "KeyError", "('a',)"),
        ("raise OSError(2, 'no')", "OSError", "(2, 'no')"),
        ("b'\\xff'.decode()", "UnicodeDecodeError", "('utf-8', b'\\xff', 0, 1, 'invalid start byte')"),
        ("import json; json.loads('{')", "ValueError", None),
        ("raise ValueError(f)", "ValueError", None),
    ],
)
def test_an_exception_travels_as_the_builtin_one_that_it_is(body, kind, says):
    tests = f"try:\n    f()\n    assert False\nexcept {kind} as e:\n    assert {says} in (None, e.args), e.args"
    verdict = code(sample(fenced(f"{ODD}def f():\n    {body}"), {"tests": tests}))
    assert (verdict.reward, verdict.provenance[0].trust) == (1.0, "separate"), verdict


def test_what_is_no_answer_for_an_exception_is_none():
    assert plausible(["raised", "Odd", "1", "ValueError", encode((1,))])
    for arguments in (None, 5, encode([1]), ["t", object], ["t", ["no tag"]]):
        assert not plausible(["raised", "Odd", "1", "ValueError", arguments]), arguments
    assert not plausible(["raised", "Odd", "1"])


@pytest.mark.parametrize(
    ("right", "wrong", "tests"),
    [
        (f"{ODD}def f(): raise Odd(1)", f"{ODD}def f(): raise KeyError(1)", CASE + "with self.assertRaises(Odd): f()"),
        ("LIMIT = 5\ndef f(x): return min(x, LIMIT)", "LIMIT = 6\ndef f(x): return 5",
         "assert f(9) == 5\nassert LIMIT == 5"),
        ("def f(): return int(input()) + 1", "def f(): return int(input())",
         "from unittest.mock import patch\nwith patch('builtins.input', return_value='3'): assert f() == 4"),
        ("def f(x): print(x)", "def f(x): print(x + 1)",
         "import io, sys\nold, sys.stdout = sys.stdout, io.StringIO()\nf(3)\n"
         "assert sys.stdout.getvalue() == '3\\n'\nsys.stdout = old"),
    ],
)  # fmt: skip
def test_exceptions_constants_and_output_of_the_program_are_tested(right, wrong, tests):
    assert code(sample(fenced(right), {"tests": tests})).reward == 1.0
    assert code(sample(fenced(wrong), {"tests": tests})).reward == 0.0


@pytest.mark.parametrize("trust", ["separate", "shared"])
def test_a_program_may_begin_with_an_import_from_the_future(trust):
    program = "from __future__ import annotations\nimport math\ndef f(x: Unknown): return math.floor(x)"
    row = {"tests": "assert f(2.5) == math.floor(2.5)", "preamble": "import math", "trust": trust}
    assert code(sample(fenced(program), row)).reward == 1.0
    assert code(sample(fenced(program.replace("floor", "ceil")), row)).reward == 0.0


class Broken:
    """A runner whose machine fails."""

    level = Level.CONFINED

    def run(self, job: Job) -> Result:
        return Result("machinery", detail="no slot")

    def run_together(self, jobs, relay):
        return [self.run(job) for job in jobs]

    def close(self) -> None: ...


@pytest.mark.parametrize("answer", [ADD, {"tests": "assert f(1)"}, {"cases": [{"stdin": "", "stdout": ""}]}])
def test_a_failure_of_the_machine_grades_nobody(answer):
    with pytest.raises(MachineFailed, match="no slot"):
        grade("x = 1", read_task(answer), Broken(), Limits(), 10, 1e-6)


# HumanEval -----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not HUMANEVAL.is_file(), reason=f"{HUMANEVAL} is absent")
def test_every_canonical_solution_of_humaneval_passes_and_return_none_never_does(sandbox):
    rows = [json.loads(line) for line in gzip.decompress(HUMANEVAL.read_bytes()).splitlines()]
    right, lazy = [], []
    for row in rows:
        task = read_task(None, row)
        assert not task.shared
        solution = row["prompt"] + row["canonical_solution"]
        right.append(grade(solution, task, sandbox, Limits(4.0), 60, 1e-6))
        lazy.append(grade(f"def {row['entry_point']}(*a):\n    return None", task, sandbox, Limits(4.0), 60, 1e-6))
    assert sum(found.right for found in right) == len(rows) == 164
    assert sum(found.right for found in lazy) == 0
    assert {found.trust for found in right} == {"separate"}
