"""What a data row asks of a program: assert tests, function cases or stdin/stdout cases. Reads rows; runs nothing.

The columns are looked for in the answer (an object, or JSON text of one) and then in the row:

    {"tests": "assert f(2) == 3", "entry_point": "f", "preamble": "import math"}          assert tests
    {"test": "def check(candidate): ...", "entry_point": "f", "prompt": "def f(x): ..."}  the same, HumanEval's way
    {"test_list": ["assert f(2) == 3"], "test_setup_code": "import math"}                 the same, MBPP's way
    {"entry_point": "f", "cases": [{"args": [2], "kwargs": {}, "expected": 3}]}           function cases
    {"entry_point": "f", "cases": [{"args": "[(1, 2)]", "expected": "{1}"}], "literals": true}  Python's, not JSON's
    {"cases": [{"stdin": "1 2\\n", "stdout": "3\\n"}]}                                     stdin/stdout cases
    {"inputs": ["1 2\\n"], "outputs": ["3\\n"]}                                            the same, APPS's way
    {"inputs": [[1, 2]], "outputs": [3], "fn_name": "add"}                                function cases, APPS's way

Tests run as a module that is imported: `if __name__ == "__main__"` does not hold. Classes of unittest, and functions
`test_...()` where the module itself calls nothing of the program, are run then; a function that needs arguments is the
other tests' helper. Tests in which nothing comes to the program are none.

`"trust": "shared"` in a row says that its tests need live objects of the program (a class, a closure, a callback).
It is the row that says so, or the look of its tests; never what a program does.
"""

import ast
import builtins
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rlvr_verifiers.code_look import needs_one_process

from rlvr.sandbox.wire import MAX_FRAME, size

INSTALLED = {*sys.stdlib_module_names, "numpy"}  # what the sandbox has
MOST_EXPECTED = MAX_FRAME - 100  # bytes: an answer says which call it is for
ANYTHING = {"exec", "eval", "globals", "locals", "vars"}  # by these, tests may come to names that they do not hold


class NoTask(ValueError):
    """The row does not say what to test, or says it wrongly; one line."""


@dataclass(frozen=True)
class Asserts:
    """Assert-style test code. `names` are those of the program that the tests use; `check`: call `check(names[0])`;
    `collect`: run its unittest classes, and with `functions` its functions `test...()`."""

    code: str
    names: tuple[str, ...]
    preamble: str = ""
    check: bool = False
    shared: bool = False
    collect: bool = False
    functions: bool = False


@dataclass(frozen=True)
class Calls:
    """Calls("f", cases=(([2], {}, 3), ...)): arguments, keyword arguments, what is expected. `apps`: the function may
    be a method of a class `Solution`, and where each expected value is a list of one item, that item will do too."""

    entry_point: str
    cases: tuple[tuple[list[Any], dict[str, Any], Any], ...]
    json: bool = True  # expected values came as JSON, which has lists where Python may have tuples
    apps: bool = False


@dataclass(frozen=True)
class Streams:
    """Streams(cases=(("1 2\\n", "3\\n"),)): standard input, standard output."""

    cases: tuple[tuple[str, str], ...]


Task = Asserts | Calls | Streams


def read_task(answer: Any, row: Mapping[str, Any] | None = None) -> Task:
    """NoTask, whatever is wrong with the row: a text where a list should be, tests nested too deeply to be read."""
    try:
        return _task({**(row or {}), **_object(answer)})
    except NoTask:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, SyntaxError, RecursionError, MemoryError) as error:
        raise NoTask(f"the row does not say what it should: {type(error).__name__} {error}") from None


def _task(columns: dict[str, Any]) -> Task:
    if text := columns.get("tests") or columns.get("test") or columns.get("test_list"):
        return _tests(columns, text)
    if "inputs" in columns and "outputs" in columns:
        columns |= {"cases": _from_lists(columns), "entry_point": columns.get("fn_name")}
    cases = columns.get("cases")
    if not isinstance(cases, (list, tuple)) or not cases:
        raise NoTask("the row has no tests: none of tests, test, test_list, cases, inputs and outputs")
    if columns.get("entry_point"):
        return _calls(columns, cases)
    return Streams(tuple((_text(case["stdin"]), _text(case["stdout"])) for case in cases))


def _object(answer: Any) -> dict[str, Any]:
    if isinstance(answer, Mapping):
        return dict(answer)
    if isinstance(answer, str) and answer.lstrip().startswith("{"):
        try:
            return json.loads(answer)
        except ValueError as error:
            raise NoTask(f"the answer looks like JSON and is none: {error}") from None
    return {"tests": answer} if isinstance(answer, str) and "assert" in answer else {}


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "\n".join(map(str, value))
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {type(value).__name__}")
    return value


def _from_lists(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    names = ("args", "expected") if columns.get("fn_name") else ("stdin", "stdout")
    for name in ("inputs", "outputs"):
        if isinstance(columns[name], str):
            raise NoTask(f"{name}={columns[name]!r:.80}: a list with one entry a case, not a text")
    try:
        return [dict(zip(names, pair, strict=True)) for pair in zip(columns["inputs"], columns["outputs"], strict=True)]
    except ValueError:
        raise NoTask(f"{len(columns['inputs'])} inputs and {len(columns['outputs'])} outputs") from None


def _calls(columns: Mapping[str, Any], cases: Any) -> Calls:
    literals = bool(columns.get("literals"))
    read = ast.literal_eval if literals else lambda value: value
    found = []
    for case in cases:
        arguments = read(case["args"])
        if not isinstance(arguments, (list, tuple)):
            raise TypeError("args: expected a list")
        options = read(case["kwargs"]) if case.get("kwargs") else {}
        if (needed := size(expected := read(case["expected"]))) > MOST_EXPECTED:
            raise NoTask(f"an expected value of {needed} bytes > {MOST_EXPECTED}: no answer may be longer")
        found.append((list(arguments), dict(options), expected))
    return Calls(str(columns["entry_point"]), tuple(found), not literals, bool(columns.get("fn_name")))


# assert tests --------------------------------------------------------------------------------------------------------


def _tests(columns: Mapping[str, Any], text: Any) -> Asserts:
    if isinstance(text, str) and text.lstrip().startswith("["):  # a list as JSON text
        text = json.loads(text)
    code = _text(text)
    setup = columns.get("test_setup_code") or ""
    imports = "\n".join(columns.get("test_imports") or ())
    humaneval = "test" in columns and not columns.get("tests")
    preamble = columns.get("preamble") or (columns.get("prompt") if humaneval else "") or ""
    preamble = "\n".join(part for part in (imports, setup, preamble) if part)
    try:
        test_tree, preamble_tree = ast.parse(code), ast.parse(preamble)
    except (SyntaxError, ValueError) as error:
        raise NoTask(f"the tests are no Python: {error}") from None
    check = "check" in defined(test_tree) and bool(columns.get("entry_point"))
    names = unknown_names(test_tree, preamble_tree)
    if entry := columns.get("entry_point"):
        names = (str(entry), *(name for name in names if name != entry))
    if not names:
        raise NoTask("the tests use nothing of the program, and the row has no entry_point")
    alive = {*names, "candidate"} if check else set(names)
    if missing := [name for tree in (preamble_tree, test_tree) for name in imported(tree) if name not in INSTALLED]:
        raise NoTask(f"the tests import {missing[0]}: there is the standard library and numpy, and the program's names "
                     "are there without an import")  # fmt: skip
    come_to = reached(test_tree) & {*names, *ANYTHING}
    functions = not check and not come_to  # else the module runs them itself
    collect = collectable(test_tree, functions)
    if not check and not come_to and not collect:
        raise NoTask(f"nothing in the tests comes to {', '.join(names)} when they are imported (`if __name__ == "
                     "\"__main__\"` does not hold then): call it in an assert, or a function check(candidate) with an "
                     "entry_point, a unittest class, functions test_...()")  # fmt: skip
    shared = columns.get("trust") == "shared" or needs_one_process(test_tree, alive, preamble_tree)
    return Asserts(code, names, preamble, check, shared, collect, collect and functions)


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
GUARDS = ("__name__ == '__main__'", "'__main__' == __name__")


def imported(tree: ast.Module) -> Iterator[str]:
    """The modules that it needs: those of imports that stand in no `try`, and in no function."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or ".").partition(".")[0]


def executed(tree: ast.Module) -> Iterator[ast.AST]:
    """What runs when the module is imported, and a little more (lambdas, both sides of an `if`)."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and ast.unparse(node.test) in GUARDS:
            waiting += node.orelse
        elif isinstance(node, FUNCTIONS):  # whoever decorates it may call it
            waiting += [*node.decorator_list, node.args, *(node.body if node.decorator_list else ())]
        else:
            waiting += ast.iter_child_nodes(node)


def loaded(nodes: Iterable[ast.AST]) -> set[str]:
    return {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}


def reached(tree: ast.Module) -> set[str]:
    """The names that the module uses when it is imported, and those that functions and classes of these names use."""
    bodies = [node for node in ast.walk(tree) if isinstance(node, (*FUNCTIONS, ast.ClassDef))]
    found: set[str] = set()
    new = loaded(executed(tree))
    while new:
        found |= new
        new = loaded(part for node in bodies if node.name in new for part in ast.walk(node)) - found
    return found


def collectable(tree: ast.Module, functions: bool) -> bool:
    """Is there a unittest class, or, with `functions`, a function of pytest's kind? NoTask where one of several such
    functions could not be run."""
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    if any(ast.unparse(base).endswith("TestCase") for node in classes for base in node.bases):
        return True
    tests = [node for node in tree.body if isinstance(node, FUNCTIONS) and node.name.startswith("test")]
    if not functions or not any(map(stands_alone, tests)):
        return False
    used = loaded(ast.walk(tree))
    for node in tests:
        if not (stands_alone(node) or node.decorator_list or node.name in used):
            raise NoTask(f"nothing calls {node.name}() of the tests, and it cannot be run as it is: it is asynchronous "
                         "or needs arguments, and there are no fixtures")  # fmt: skip
    return True


def stands_alone(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Can it be called without arguments, and is it then done?"""
    arguments = node.args
    needed = len(arguments.posonlyargs + arguments.args) - len(arguments.defaults)
    return isinstance(node, ast.FunctionDef) and needed <= 0 and None not in arguments.kw_defaults


def defined(tree: ast.AST) -> set[str]:
    """Every name that is bound anywhere."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            found.add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            found.add(node.name)
        elif isinstance(node, ast.alias):
            found.add(node.asname or node.name.partition(".")[0])
    return found


def unknown_names(tests: ast.AST, preamble: ast.AST) -> tuple[str, ...]:
    """Names that the tests use and neither they nor the preamble nor Python define: the program's, in order."""
    known = defined(tests) | defined(preamble) | set(dir(builtins)) | {"__name__", "__file__", "__doc__"}
    used = [node for node in ast.walk(tests) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
    used.sort(key=lambda node: (node.lineno, node.col_offset))
    return tuple(dict.fromkeys(node.id for node in used if node.id not in known))
