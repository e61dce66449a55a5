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

`"trust": "shared"` in a row says that its tests need live objects of the program (a class, a generator, a callback).
It is the row that says so, or the look of its tests; never what a program does.
"""

import ast
import builtins
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class NoTask(ValueError):
    """The row does not say what to test, or says it wrongly; one line."""


@dataclass(frozen=True)
class Asserts:
    """Assert-style test code. `names` are those of the program that the tests use; `check`: call `check(names[0])`."""

    code: str
    names: tuple[str, ...]
    preamble: str = ""
    check: bool = False
    shared: bool = False


@dataclass(frozen=True)
class Calls:
    """Calls({"f"}, cases=(((2,), {}, 3), ...)): arguments, keyword arguments, what is expected."""

    entry_point: str
    cases: tuple[tuple[list[Any], dict[str, Any], Any], ...]
    json: bool = True  # expected values came as JSON, which has lists where Python may have tuples


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
        found.append((list(arguments), dict(options), read(case["expected"])))
    return Calls(str(columns["entry_point"]), tuple(found), not literals)


# assert tests --------------------------------------------------------------------------------------------------------


def _tests(columns: Mapping[str, Any], text: Any) -> Asserts:
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
    shared = columns.get("trust") == "shared" or needs_one_process(test_tree, alive)
    return Asserts(code, names, preamble, check, shared)


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


def needs_one_process(tests: ast.AST, names: set[str]) -> bool:
    """Do the tests use the program's names other than by calling them with data?"""
    functions = {node.name for node in ast.walk(tests) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    for node in ast.walk(tests):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names:
            return True
        if isinstance(node, ast.ClassDef) and any(isinstance(b, ast.Name) and b.id in names for b in node.bases):
            return True
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
            used = {a.id for a in arguments if isinstance(a, ast.Name)}
            if node.func.id in ("isinstance", "issubclass") and used & names:
                return True
            callbacks = used & functions or any(isinstance(a, ast.Lambda) for a in arguments)
            if node.func.id in names and callbacks:
                return True
    return False
