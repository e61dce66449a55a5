"""Do tests need live objects of the program, by their look? Reads their syntax; knows no rows and no programs.

    f([1, 2]) == {"a": 1}, map(f, xs), check(f)            names that are called: calls travel as plain data
    s = Stack(); s.push(1), asyncio.run(f(1))              a method of what a call returns, a coroutine
    f(lambda x: x), class Own(Base), isinstance(x, Stack)  a callback, a class
    except Odd:, assertRaises(Odd), suppress(Odd)          the program's own exception
    LIMIT == 5, TABLE[0], assertEqual(f(9), LIMIT)         the program's own data
    sys.stdout = ..., redirect_stdout, patch("...")        what the tests change around the program
"""

import ast
from collections.abc import Iterator

PLAIN = {None.__class__, bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict}
PLAIN_ATTRIBUTES = {name for kind in PLAIN for name in dir(kind)}
CLASSES = {"isinstance", "issubclass", "assertIsInstance", "assertNotIsInstance"}
RAISED = {"assertRaises", "assertRaisesRegex", "raises", "suppress"}  # the exception is the first argument
DATA = {"len", "assertEqual", "assertAlmostEqual", "assertIn", "assertListEqual", "assertDictEqual"}
AROUND = {"redirect_stdout", "redirect_stderr", "patch"}


def needs_one_process(tests: ast.AST, names: set[str], preamble: ast.AST) -> bool:
    """Do the tests use the program's names other than by calling them with data, what these return other than as data,
    or change what is around the program?"""
    used = {node.id for node in used_as_they_are(tests) if isinstance(node, ast.Name)}
    return bool(used & names) or uses_objects(tests, names) or changes_modules(tests, preamble)


def uses_objects(tests: ast.AST, names: set[str]) -> bool:
    """A method that plain data has as well counts for a class alone, by its capital letter."""
    held: dict[str, str] = {}  # what a call's result is put into -> whose
    for node in ast.walk(tests):
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.NamedExpr)) and (name := called(node.value, names)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            held |= {dotted(target): name for target in targets}
    held.pop("", None)
    functions = {node.name for node in ast.walk(tests) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    for node in ast.walk(tests):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names:
            return True
        if isinstance(node, (ast.Attribute, ast.Call)):
            owner = node.value if isinstance(node, ast.Attribute) else node.func
            made_by = called(owner, names) or held.get(dotted(owner), "")
            plain = isinstance(node, ast.Attribute) and node.attr in PLAIN_ATTRIBUTES
            if made_by and not (plain and not made_by[0].isupper()):
                return True
        match node:
            case ast.Await(value=made) | ast.Call(func=ast.Attribute(attr="run"), args=[made]) if called(made, names):
                return True
        if isinstance(node, ast.Call) and called(node, names):
            arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
            if any(isinstance(a, ast.Lambda) or (isinstance(a, ast.Name) and a.id in functions) for a in arguments):
                return True
    return False


def used_as_they_are(tests: ast.AST) -> Iterator[ast.AST]:
    """Whatever stands where a class, an exception or data is wanted, and a function is not; and names in capitals,
    which are constants, wherever they are not called."""
    calls = [node for node in ast.walk(tests) if isinstance(node, ast.Call)]
    functions = {id(node.func) for node in calls}
    functions |= {id(node.args[0]) for node in calls if called(node, {"map", "filter"}) and node.args}
    for node in ast.walk(tests):
        match node:
            case ast.Name() if node.id.isupper() and id(node) not in functions:
                yield node
            case ast.ClassDef():
                yield from node.bases
            case ast.ExceptHandler(type=ast.AST() as kinds):
                yield from ast.walk(kinds)
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=[first, *others]):
                if name in CLASSES:
                    yield first
                    yield from (part for other in others for part in ast.walk(other))
                elif name in RAISED:
                    yield from ast.walk(first)
                elif name in DATA:
                    yield from (first, *others)
            case ast.Compare() if not all(isinstance(sign, (ast.Is, ast.IsNot)) for sign in node.ops):
                yield from (node.left, *node.comparators)
            case ast.BinOp():
                yield from (node.left, node.right)
            case ast.Subscript():
                yield node.value
            case ast.For() | ast.comprehension():
                yield node.iter


def changes_modules(tests: ast.AST, preamble: ast.AST) -> bool:
    """`sys.stdout = ...`, `builtins.input = ...`, and what does the same and puts it back."""
    every = [node for tree in (preamble, tests) for node in ast.walk(tree)]
    modules = {name for node in every if isinstance(node, ast.Import) for name in bound_by(node)}
    imported = {name for node in every if isinstance(node, ast.ImportFrom) for name in bound_by(node)} | modules
    for node in ast.walk(tests):
        match node:
            case ast.Attribute(value=ast.Name(id=module), ctx=ast.Store()) if module in modules:
                return True
            case ast.Name(id=name) if name in AROUND & imported:
                return True
            case ast.Attribute(attr=name) if name in AROUND and root(node) in imported:
                return True
    return False


def root(node: ast.AST) -> str:
    """`a` of `a.b.c`, or nothing."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def bound_by(imports: ast.Import | ast.ImportFrom) -> list[str]:
    return [(alias.asname or alias.name).partition(".")[0] for alias in imports.names]


def called(node: ast.AST | None, names: set[str]) -> str:
    """The one of the names that is called here, or nothing."""
    name = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
    return name if name in names else ""


def dotted(node: ast.AST) -> str:
    """`x` or `self.x`, or nothing."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return f"{node.value.id}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""
