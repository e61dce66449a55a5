"""What rows ask, what of a completion is the program, and what verdict comes of how it did."""

import gzip
import json
import math
import os
from pathlib import Path

import pytest
from rlvr_verifiers.code import close_sandboxes, code, extracted, last_block, open_sandbox
from rlvr_verifiers.code_compare import same, same_output
from rlvr_verifiers.code_grade import MachineFailed, grade
from rlvr_verifiers.code_task import Asserts, Calls, NoTask, Streams, read_task

from rlvr.sandbox import Job, Level, Limits, Result
from rlvr.sandbox.wire import Frames, Garbled, check, decode, encode, frame
from rlvr.types import Outcome
from rlvr.verify import Sample

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


# rows ----------------------------------------------------------------------------------------------------------------


def test_each_form_of_row_is_read():
    assert read_task({"cases": [{"stdin": "1\n", "stdout": "2\n"}]}) == Streams((("1\n", "2\n"),))
    assert read_task(None, {"inputs": ["1\n"], "outputs": ["2\n"]}) == Streams((("1\n", "2\n"),))
    assert read_task({"inputs": [[1, 2]], "outputs": [3], "fn_name": "f"}) == Calls("f", (([1, 2], {}, 3),))
    literal = {"entry_point": "f", "literals": True, "cases": [{"args": "[(1, 2)]", "expected": "{1}"}]}
    assert read_task(json.dumps(literal)) == Calls("f", (([(1, 2)], {}, {1}),), json=False)
    mbpp = {"test_list": ["assert f(2) == math.floor(3.5)"], "test_setup_code": "import math"}
    assert read_task("", mbpp) == Asserts(mbpp["test_list"][0], ("f",), "import math")
    humaneval = {"test": "def check(candidate):\n    assert candidate(1)", "entry_point": "f", "prompt": "import re\n"}
    assert read_task("", humaneval) == Asserts(humaneval["test"], ("f",), "import re\n", check=True)
    assert read_task("assert f(1) == 2").names == ("f",)


def test_names_that_tests_define_themselves_are_not_the_programs():
    tests = "def helper(x):\n    return [y for y in x]\nfor i in range(3):\n    assert helper(f(i)) == g(i)"
    assert read_task({"tests": tests}).names == ("f", "g")


@pytest.mark.parametrize(
    ("tests", "shared"),
    [
        ("assert f([1, 2]) == {'a': (1, 2)}", False),
        ("assert list(map(f, [1])) == [2]", False),
        ("assert f(lambda x: x) == 1", True),
        ("def g(x): return x\nassert f(g) == 1", True),
        ("assert Stack.size == 1", True),
        ("class Own(Base): pass\nassert Own()", True),
        ("assert isinstance(x(), Stack)", True),
    ],
)
def test_tests_that_need_live_objects_are_told_by_their_look(tests, shared):
    assert read_task({"tests": tests}).shared is shared


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
]


@pytest.mark.parametrize("answer", NO_TASKS, ids=range(len(NO_TASKS)))
def test_a_row_without_tests_abstains_and_says_why(answer):
    with pytest.raises(NoTask):
        read_task(answer)
    verdict = code(sample(fenced("x = 1"), answer))
    assert (verdict.outcome, verdict.reward, verdict.reason) == (Outcome.ABSTAIN, None, "gold_unparsed")
    assert code.unusable(answer, {}, {}) and not code.unusable(ADD, {}, {})


# programs in completions ---------------------------------------------------------------------------------------------


def test_the_last_closed_block_of_python_counts():
    assert last_block("```\na\n```\n```python\nb\n```\n```bash\nc\n```\n```python\nopen") == "b\n"
    assert last_block("````md\n```python\na\n```\n````") is None
    assert last_block("```python\na\n```\nIt prints:\n```\n3\n```") == "a\n"
    assert last_block("```\na\n```\n```\nb\n```") == "b\n"
    assert last_block("no code") is None


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


# equality ------------------------------------------------------------------------------------------------------------


class Int(int):
    pass


@pytest.mark.parametrize(
    ("expected", "value", "equal"),
    [
        (3, 3, True), (3, 3.0, True), (3.0, 3, True), (3, True, False), (True, 1, False), (1, True, False),
        (None, None, True), (None, 0, False), ("3", 3, False), (3, "3", False), (0.3, 0.1 + 0.2, True),
        (0.3, 0.31, False), (1e12, 1e12 + 1, True), (10**400, 10**400, True), (10**400, 10**400 + 1, False),
        (1.5, 10**400, False), (math.nan, math.nan, True), (1.0, math.nan, False), (math.nan, 1.0, False),
        (math.inf, math.inf, True), (math.inf, -math.inf, False), (1.0, math.inf, False),
        ([1, 2], [1, 2], True), ([1, 2], (1, 2), True), ((1, 2), [1, 2], False), ([1, 2], [2, 1], False),
        ([1], [True], False), ([], {}, False), ({"a": [1]}, {"a": [1]}, True), ({"a": 1}, {"a": 1, "b": 2}, False),
        ({1: 2}, {True: 2}, False), ({1, 2}, {2, 1}, True), ({1}, {True}, False), ({1}, frozenset({1}), False),
        (b"ab", b"ab", True), (b"ab", "ab", False), (1j, 1j, True), ({(1, 2): 3}, {(1, 2): 3}, True),
    ],
)  # fmt: skip
def test_values_are_equal_by_type_and_by_content(expected, value, equal):
    assert same(expected, encode(value)) is equal


@pytest.mark.parametrize("value", [Int(3), object(), lambda: 0, [Int(1)], type, (x for x in ()), range(3)])
def test_only_exact_builtin_types_are_plain(value):
    with pytest.raises(TypeError, match="is not plain data"):
        encode(value)


@pytest.mark.parametrize("value", [10**5000, -(1 << 70), [(1, {2: {3}}), b"\x00", "\ud800"], 1e308], ids=range(4))
def test_plain_data_comes_out_as_it_went_in(value):
    (message,) = Frames().feed(frame(encode(value)))
    check(message)
    assert decode(message) == value


def test_hostile_bytes_are_garbled_and_cheap():
    for content in (b"{}", b"[" * 90_000, b"9" * 900_000, b"\xff", b"", b'["d", {"a": 1}]', b"nul"):
        with pytest.raises(Garbled):
            Frames().feed(len(content).to_bytes(4, "big") + content)
    with pytest.raises(Garbled):
        Frames().feed(b"\xff\xff\xff\xff")
    for tree in ([], ["x"], ["d", 1], ["i", "12"], ["b", 1], ["c", 1, 2], [1], {"a": 1}, ["i", 5]):
        with pytest.raises(ValueError):
            check(tree)
    collide = [i * (2**61 - 1) for i in range(20_000)]
    assert not same(dict.fromkeys(range(20_000)), ["d", *[part for key in collide for part in (key, None)]])


@pytest.mark.parametrize(
    ("expected", "output", "equal"),
    [
        ("3\n", b"3", True), ("3\n", b"3  \n\n", True), ("3\r\n4", b"3\n4\n", True), ("3", b" 3", False),
        ("3 4", b"3  4", False), ("3", b"3\n3", False), ("3", "３".encode(), False), ("x", b"\xff", False),
        ("0.5", b"0.50000001", True), ("1", b"1.0", False), ("0.5", b"nan", False), ("a 0.1", b"b 0.1", False),
    ],
)  # fmt: skip
def test_output_is_compared_line_by_line(expected, output, equal):
    assert same_output(expected, output, 1e-6) is equal


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
