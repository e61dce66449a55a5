"""What rows ask, and whether their tests need live objects of the program, by their look."""

import json

import pytest
from rlvr_verifiers.code_task import Asserts, Calls, Streams, read_task


def test_each_form_of_row_is_read():
    assert read_task({"cases": [{"stdin": "1\n", "stdout": "2\n"}]}) == Streams((("1\n", "2\n"),))
    assert read_task(None, {"inputs": ["1\n"], "outputs": ["2\n"]}) == Streams((("1\n", "2\n"),))
    assert read_task({"inputs": [[1, 2]], "outputs": [3], "fn_name": "f"}) == Calls("f", (([1, 2], {}, 3),), apps=True)
    literal = {"entry_point": "f", "literals": True, "cases": [{"args": "[(1, 2)]", "expected": "{1}"}]}
    assert read_task(json.dumps(literal)) == Calls("f", (([(1, 2)], {}, {1}),), json=False)
    mbpp = {"test_list": ["assert f(2) == math.floor(3.5)"], "test_setup_code": "import math"}
    assert read_task("", mbpp) == Asserts(mbpp["test_list"][0], ("f",), "import math")
    humaneval = {"test": "def check(candidate):\n    assert candidate(1)", "entry_point": "f", "prompt": "import re\n"}
    assert read_task("", humaneval) == Asserts(humaneval["test"], ("f",), "import re\n", check=True)
    assert read_task("assert f(1) == 2").names == ("f",)
    assert read_task({"test_list": '["assert f(1) == 2", "assert f(2)"]'}).code == "assert f(1) == 2\nassert f(2)"


def test_names_that_tests_define_themselves_are_not_the_programs():
    tests = "def helper(x):\n    return [y for y in x]\nfor i in range(3):\n    assert helper(f(i)) == g(i)"
    assert read_task({"tests": tests}).names == ("f", "g")


CASE = "import unittest\nclass T(unittest.TestCase):\n    def test_a(self):\n        "


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
        ("s = Stack()\ns.push(1)\nassert s.pop() == 1", True),
        ("s = Stack()\nassert s.pop() == 1", True),
        ("assert A().f(1) == 2", True),
        ("class T:\n    def m(self):\n        self.s = make()\n        assert self.s.size == 0\nT().m()", True),
        ("assert adder(2)(3) == 5", True),
        ("add = adder(2)\nassert add(3) == 5", True),
        ("assert f('a').upper() == 'A'", False),
        ("x = f([2, 1])\nx.sort()\nassert x == [1, 2]", False),
        ("assert Diff([1], [2]) == [1]", False),
        ("assert list(g(3)) == sorted(set(g(3))) and next(g(1)) == 0", False),
        ("try:\n    f(-1)\nexcept Odd:\n    pass", True),
        ("try:\n    f(-1)\nexcept (ValueError, Odd):\n    pass", True),
        ("try:\n    f(-1)\nexcept ValueError as error:\n    assert error.args", False),
        (CASE + "with self.assertRaises(Odd): f(-1)", True),
        (CASE + "with self.assertRaisesRegex((Odd, ValueError), 'x'): f(-1)", True),
        (CASE + "self.assertRaises(ValueError, f, -1)", False),
        (CASE + "self.assertEqual(f(1), odd)", True),
        (CASE + "self.assertIsInstance(f(1), Odd)", True),
        (CASE + "self.assertIsInstance(f(1), (int, Odd))", True),
        (CASE + "self.assertIsInstance(f(1), int)", False),
        ("from contextlib import suppress\nwith suppress(Odd): f(-1)", True),
        ("assert f(9) == 5\nassert limit == 5", True),
        ("assert f(9) == f(LIMIT)", True),
        ("assert len(table) == f(1)", True),
        ("assert table[0] == f(1)", True),
        ("assert all(f(x) for x in table)", True),
        ("assert f is not None and callable(f)\nfor g in [f]: assert g(1) == 1", False),
        ("def same(g, x): assert g(x) == x\nsame(f, 1)", False),
        ("import io, sys\nsys.stdout = io.StringIO()\nf(1)", True),
        ("import builtins as b\nb.input = lambda: '1'\nassert f()", True),
        ("import sys\nprint(f(1), file=sys.stderr)", False),
        ("import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()): f(1)", True),
        ("from unittest.mock import patch\nwith patch('builtins.input', return_value='3'): f()", True),
        ("from unittest import mock\nwith mock.patch('time.sleep'): f()", True),
        ("assert patch('a') == 'b'", False),
        ("import re\npatch = re.compile('1')\nassert f('1', patch.pattern)", False),
        ("import unittest.mock\nwith unittest.mock.patch('time.sleep'): f()", True),
        ("from unittest.mock import patch\nwith patch.object(str, 'a'): f()", True),
        ("assert list(map(F, [1])) == list(filter(G, [2]))", False),
        ("import asyncio\nassert asyncio.run(f(1)) == 2", True),
        ("import asyncio\nasync def test():\n    assert await f(1) == 2\nasyncio.run(test())", True),
    ],
)
def test_tests_that_need_live_objects_are_told_by_their_look(tests, shared):
    assert read_task({"tests": tests}).shared is shared


def test_a_module_of_the_preamble_may_be_changed_by_the_tests():
    row = {"tests": "sys.stdin = io.StringIO('1')\nassert f() == '1'", "preamble": "import io, sys"}
    assert read_task(row).shared
