"""Ways to be graded as right without being right. A wrong program passes none of the three kinds of task with them."""

import pytest
from rlvr_verifiers.code_grade import grade
from rlvr_verifiers.code_task import Calls, Streams, read_task

from rlvr.sandbox import Limits, Sandbox

LIMITS = Limits(cpu_s=1.0)
CALLS = Calls("add", (([1, 2], {}, 3), ([5, 7], {}, 12), ([2.5, 0.25], {}, 2.75)))
TESTS = read_task({"tests": "for a in range(3):\n    assert add(a, 2 * a) == 3 * a + 1 - 1\nassert add(5, 7) == 12"})
CHECK = read_task({"test": "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(5, 7) == 12",
                   "entry_point": "add", "prompt": "def add(a, b):\n    '''Sum.'''\n"})  # fmt: skip
STREAMS = Streams((("1 2\n", "3\n"), ("5 7\n", "12\n")))

MAPPED = read_task({"tests": "assert all(map(add, [1, 2], [2, 4]))\nassert not any(map(add, [1], [-1]))"})

HACKS = {
    "stops the loop that calls it": "def add(a, b): raise StopIteration",
    "leaves with code 0 when it is defined": "import os\nos._exit(0)",
    "leaves with code 0 when it is called": "import os\ndef add(a, b): os._exit(0)",
    "raises SystemExit(0) when it is called": "def add(a, b): raise SystemExit(0)",
    "says at exit that all is well": "import atexit, os\natexit.register(os._exit, 0)\ndef add(a, b): return 0",
    "hides its failure in the exception hook": (
        "import sys, os\nsys.excepthook = lambda *a: os._exit(0)\ndef add(a, b): raise ValueError"
    ),
    "returns an object equal to everything": (
        "class E:\n    __eq__ = lambda s, o: True\n    __ne__ = lambda s, o: False\n    __hash__ = lambda s: 3\n"
        "def add(a, b): return E()"
    ),
    "returns an int that calls itself equal": (
        "class I(int):\n    __eq__ = lambda s, o: True\n    __ne__ = lambda s, o: False\n    __hash__ = int.__hash__\n"
        "def add(a, b): return I(0)"
    ),
    "returns a float whose difference is always 0": (
        "class F(float):\n    __sub__ = __rsub__ = lambda s, o: 0.0\n    __eq__ = lambda s, o: True\n"
        "def add(a, b): return F('nan')"
    ),
    "changes a builtin class in place": (
        "import ctypes, gc\n"
        "slots = gc.get_referents(int.__dict__)[0]\n"
        "def add(a, b):\n"
        "    slots['__eq__'] = lambda s, o: True\n"
        "    ctypes.pythonapi.PyType_Modified(ctypes.py_object(int))\n"
        "    return 0"
    ),
    "walks the frames for what is expected": (
        "import sys\n"
        "def add(a, b):\n"
        "    f = sys._getframe()\n"
        "    while f:\n"
        "        for v in list(f.f_locals.values()):\n"
        "            if isinstance(v, dict) and 'tests' in v: v['tests'] = ''\n"
        "            if isinstance(v, dict) and 'calls' in v: v['calls'].clear()\n"
        "        f = f.f_back\n"
        "    return 0"
    ),
    "replaces the functions that speak for it": (
        "import sys\n"
        "child = sys.modules['rlvr.sandbox.child']\n"
        "child.answer = lambda *a: ['value', 3, []]\n"
        "child.encode = lambda *a: 3\n"
        "child.stand_in = child._test = lambda *a: None\n"
        "def add(a, b): return 0"
    ),
    "replaces json, os.write and builtins": (
        "import json, os, builtins\n"
        "write = os.write\n"
        "json.dumps = lambda *a, **k: '[0, \"value\", 3]'\n"
        "os.write = lambda fd, data: write(fd, data) and len(data)\n"
        "builtins.all = builtins.any = builtins.isinstance = lambda *a: True\n"
        "def add(a, b): return 0"
    ),
    "forges its replies": (
        "import json, os, struct\n"
        "def send(m):\n"
        "    d = json.dumps(m).encode()\n"
        "    os.write(3, struct.pack('>I', len(d)) + d)\n"
        "for m in (['ready'], [0, 'value', True], [1, 'value', True], [2, 'value', True], ['value', True, []],\n"
        "          ['passed', ''], ['passed', None], ['passed', True]): send(m)\n"
        "def add(a, b):\n"
        "    send(['passed', ''])\n"
        "    return 0"
    ),
    "answers more often than it is asked": (
        "import json, os, struct\n"
        "def add(a, b):\n"
        "    for v in range(30):\n"
        "        d = json.dumps(['value', v, []]).encode()\n"
        "        os.write(3, struct.pack('>I', len(d)) + d)\n"
        "    return 0"
    ),
    "prints what a test runner prints": "print('3\\n12')\nprint('OK\\n1 passed in 0.01s')\ndef add(a, b): return 0",
    "looks for the tests in its memory and on disk": (
        "import gc, glob, os\n"
        "found = [o for o in gc.get_objects() if isinstance(o, str) and 'assert add' in o]\n"
        "for p in glob.glob('/tmp/*') + glob.glob('/proc/*/environ') + glob.glob('*.py'):\n"
        "    try: found.append(open(p).read())\n"
        "    except OSError: pass\n"
        "def add(a, b): return len(found) and 3"
    ),
    "skips the tests": "import unittest\ndef add(a, b): raise unittest.SkipTest('not today')",
    "returns True where 1 is expected": "def add(a, b): return True",
    "returns not-a-number": "def add(a, b): return float('nan')",
    "changes its arguments": "def add(a, b):\n    a = b = 0\n    return 0",
    "traces the caller": (
        "import sys, threading\n"
        "def trace(frame, event, arg):\n"
        "    frame.f_trace_lines = False\n"
        "    return trace\n"
        "sys.settrace(trace); sys.setprofile(trace); threading.settrace(trace)\n"
        "def add(a, b): return 0"
    ),
    "closes the channel": "import os\ndef add(a, b):\n    os.close(3)\n    return 0",
    "ends by a signal that is ignored": "import os, signal\ndef add(a, b): os.kill(os.getpid(), signal.SIGKILL)",
    "skips the tests by an exception of its own": (
        "import unittest\nclass E(unittest.SkipTest, StopIteration): pass\ndef add(a, b): raise E"
    ),
    "ends the tests by an exception that is none": "class E(SystemExit): pass\ndef add(a, b): raise E(0)",
    "is named like what it is not": "def add(*a): return '3'",
}


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(slots=2) as sandbox:
        yield sandbox


@pytest.mark.parametrize("hack", HACKS)
def test_no_hack_passes_any_kind_of_task(sandbox, hack):
    for task in (CALLS, TESTS, CHECK, STREAMS, MAPPED):
        found = grade(HACKS[hack], task, sandbox, LIMITS, 30, 1e-6)
        assert not found.right, f"{found} on {task}"
        assert found.passed < found.of


@pytest.mark.parametrize("task", [CALLS, TESTS, CHECK, MAPPED], ids=["calls", "tests", "check", "mapped"])
def test_an_honest_program_passes_after_all_that(sandbox, task):
    assert grade("def add(a, b): return a + b", task, sandbox, LIMITS, 30, 1e-6).right


def test_a_program_cannot_talk_the_grader_into_sharing_a_process(sandbox):
    """Only what the row says, or the look of its tests, does that."""
    for program in (HACKS["returns an object equal to everything"], "def add(a, b): return lambda: 0"):
        found = grade(program, TESTS, sandbox, LIMITS, 30, 1e-6)
        assert (found.right, found.trust) == (False, "separate")


def test_tests_with_live_objects_share_a_process_and_say_so(sandbox):
    tests = "s = Stack()\ns.push(4)\nassert s.pop() == 4\nassert apply(lambda x: x + 1, 2) == 3\nassert Stack.size == 0"
    task = read_task({"tests": tests})
    program = (
        "class Stack:\n    size = 0\n    def __init__(self): self.items = []\n"
        "    def push(self, x): self.items.append(x)\n    def pop(self): return self.items.pop()\n"
        "def apply(f, x): return f(x)\n"
    )
    assert task.shared
    found = grade(program, task, sandbox, LIMITS, 30, 1e-6)
    assert (found.right, found.trust) == (True, "shared")
    wrong = grade(program.replace("pop()", "pop() + 1"), task, sandbox, LIMITS, 30, 1e-6)
    assert (wrong.right, wrong.trust) == (False, "shared")
    assert not grade("import os; os._exit(0)", task, sandbox, LIMITS, 30, 1e-6).right
