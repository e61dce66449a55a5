"""The tool that runs the Python of a turn."""

import pytest
from rlvr_verifiers.code import close_sandboxes
from rlvr_verifiers.python_tool import python, set_up

from rlvr.verify import Sample


@pytest.fixture(scope="module", autouse=True)
def sandbox():
    set_up()
    yield
    close_sandboxes()


def ran(program: str, **options) -> str | None:
    turn = f"Let me compute.\n```python\n{program}\n```\n"
    return python.function(Sample("", turn, None, transcript=f"earlier\n{turn}"), **options)


@pytest.mark.parametrize(
    ("program", "printed"),
    [
        ("print(6 * 7)", "42"),
        ("x = 1", ""),
        ("print(1)\nexit()", "1"),
        ("import sys\nprint(1)\nsys.stderr.write('2')\nsys.stdout.close()", "1\n2"),
        ("import sys\nprint(1)\nprint(2, file=sys.stderr)", "1\n2"),
        ("import sys\nsys.exit('no')", "no"),
    ],
)
def test_a_program_says_what_it_prints(program, printed):
    assert ran(program) == printed


def test_a_program_may_stand_in_a_list():
    turn = "1. Compute:\n   ```python\n   x = 6 * 7\n   print(x)\n   ```\n"
    assert python.function(Sample("", turn, None)) == "42"


def test_what_goes_wrong_is_told_to_the_policy():
    assert ran("1 / 0").endswith("ZeroDivisionError: division by zero")
    assert ran("while True: pass", cpu_s=0.2) == "error: cpu_limit"
    assert ran("print('x' * 200_000)".replace("x", "y" * 99_999)).startswith("error: ")


def test_without_a_program_there_is_no_call():
    assert python.function(Sample("", "The answer is 5.", None)) is None
    assert python.function(Sample("", "```python\nprint(1)", None)) is None
