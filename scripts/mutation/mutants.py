"""What could be wrong in a source file: every small change of its syntax tree, one at a time. Knows of no test.

Not changed: annotations, docstrings, imports, `__all__`, and `assert`, which tells the type checker what is known.
"""

import ast
import builtins
import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

COMPARISONS: dict[type, list[type]] = {
    ast.Lt: [ast.LtE, ast.GtE], ast.LtE: [ast.Lt, ast.Gt], ast.Gt: [ast.GtE, ast.LtE], ast.GtE: [ast.Gt, ast.Lt],
    ast.Eq: [ast.NotEq], ast.NotEq: [ast.Eq], ast.Is: [ast.IsNot], ast.IsNot: [ast.Is], ast.In: [ast.NotIn],
    ast.NotIn: [ast.In],
}  # fmt: skip
OPERATORS: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult, ast.Mod: ast.FloorDiv,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.MatMult: ast.Mult, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
PAIRS = "min max, amin amax, minimum maximum, any all, ones zeros, ones_like zeros_like, float double, sum mean"
NAMES = dict(pair for text in PAIRS.split(", ") for pair in (text.split(), text.split()[::-1]))


@dataclass
class Mutant:
    file: str
    where: str
    line: int
    function: ast.FunctionDef | None  # None for what has its effect when the module is imported
    tree: ast.Module
    change: str
    holder: Any  # the node, or list, that holds what is replaced, in the tree
    slot: str | int
    replacement: ast.AST

    @property
    def name(self) -> str:
        return f"{self.file} {self.where}: {self.change}"


def with_(node: Any, **fields: Any) -> Any:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def variants(node: Any) -> Iterator[ast.AST]:
    """What could stand in the place of `node` by mistake."""
    match node:
        case ast.Constant(value=bool(value)):
            yield with_(node, value=not value)
        case ast.Constant(value=int(value)):
            yield from (with_(node, value=value + 1), with_(node, value=value - 1))
        case ast.Constant(value=float(value)):
            yield with_(node, value=value * 2 if value else 1.0)
        case ast.Constant(value=str(value)) if value:
            yield with_(node, value="")
        case ast.JoinedStr():
            yield ast.Constant("")
        case ast.Compare(ops=[op]):
            yield from (with_(node, ops=[other()]) for other in COMPARISONS[type(op)])
        case ast.BinOp(op=op) | ast.BoolOp(op=op) if type(op) in OPERATORS:
            yield with_(node, op=OPERATORS[type(op)]())
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield node.operand
        case ast.IfExp():
            yield from (node.body, node.orelse)
        case ast.If() | ast.While():
            yield from (with_(node, test=ast.Constant(value)) for value in (True, False))
        case ast.comprehension(ifs=[_, *_]):
            yield with_(node, ifs=[])
        case ast.Name(id=name) if name in NAMES and hasattr(builtins, NAMES[name]):
            yield with_(node, id=NAMES[name])
        case ast.Attribute(attr=name) if name in NAMES:
            yield with_(node, attr=NAMES[name])
        case ast.keyword(arg=name) if name in NAMES:
            yield with_(node, arg=NAMES[name])
        case ast.Call():
            yield from calls(node)
        case ast.AugAssign() | ast.Expr(value=ast.Call()) | ast.Raise() | ast.Continue():
            yield ast.Pass()
        case ast.Return(value=ast.Name() | ast.Attribute()):
            yield with_(node, value=ast.Constant(None))
        case ast.FunctionDef() | ast.ClassDef():
            for i in range(len(node.decorator_list)):
                yield with_(node, decorator_list=node.decorator_list[:i] + node.decorator_list[i + 1 :])


def calls(node: ast.Call) -> Iterator[ast.AST]:
    """Without the call, without an argument, with two of them exchanged."""
    args, commutes = node.args, ast.unparse(node.func) in ("max", "min", "torch.maximum", "torch.minimum")
    if isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) not in ("torch", "self", "torch.autograd"):
        yield node.func.value
    for i in range(len(args) - 1):
        if not isinstance(args[i], ast.Starred) and not isinstance(args[i + 1], ast.Starred) and not commutes:
            yield with_(node, args=[*args[:i], args[i + 1], args[i], *args[i + 2 :]])
    if len(args) > 1:
        yield with_(node, args=args[:-1])
    for i, keyword in enumerate(node.keywords):
        if isinstance(keyword.value, ast.Constant) and isinstance(keyword.value.value, bool):
            continue  # the other value of a switch is a variant of its own
        yield with_(node, keywords=node.keywords[:i] + node.keywords[i + 1 :])


def droppable(function: ast.AST) -> set[ast.AST]:
    """Assignments without which the function is still whole: their target has a value already."""
    born = {arg.arg: 0 for arg in ast.walk(function) if isinstance(arg, ast.arg)}
    for node in sorted((n for n in ast.walk(function) if isinstance(n, ast.Name)), key=lambda n: n.lineno):
        if isinstance(node.ctx, ast.Store):
            born.setdefault(node.id, node.lineno)
    return {
        node
        for node in ast.walk(function)
        if isinstance(node, ast.Assign)
        for names in [[n for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)]]
        if all(isinstance(n.ctx, ast.Load) or born[n.id] < node.lineno for n in names)
    }


def mutants_of(file: str, tree: ast.Module) -> list[Mutant]:
    found: list[Mutant] = []
    seen: Counter[str] = Counter()

    def visit(node: Any, holder: Any, slot: Any, shown: Any, where: str, function: Any, free: set[ast.AST]) -> None:
        """`shown` is the expression or statement around `node`, `function` the outermost one that it stands in."""
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            where = f"{where}.{node.name}".lstrip(".")
        if isinstance(node, ast.expr | ast.stmt) and not isinstance(node, ast.Constant | ast.Name):
            shown = node
        for new in [*variants(node), *([ast.Pass()] if node in free else [])]:
            before = head(shown)
            put(holder, slot, new)
            after = head(new if shown is node else shown)
            put(holder, slot, node)
            if after == before:
                continue  # two equal arguments exchanged
            change = difference(before, after)
            seen[f"{where} {change}"] += 1
            nth = seen[f"{where} {change}"]
            change += f" (no. {nth})" if nth > 1 else ""
            line = getattr(node, "lineno", getattr(shown, "lineno", 0))
            found.append(Mutant(file, where or "(module)", line, function, tree, change, holder, slot, new))
        if isinstance(node, ast.FunctionDef) and function is None:
            function, free = node, droppable(node)
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns"):
                continue
            inside = None if name == "decorator_list" else function
            children = enumerate(value) if isinstance(value, list) else [(name, value)]
            for place, child in children:
                if isinstance(child, ast.AST) and not skipped(child, node):
                    visit(child, value if isinstance(value, list) else node, place, shown, where, inside, free)

    visit(tree, [tree], 0, tree, "", None, set())
    return found


def put(holder: Any, slot: Any, node: ast.AST) -> None:
    if isinstance(holder, list):
        holder[slot] = node
    else:
        setattr(holder, slot, node)


def skipped(node: ast.AST, parent: ast.AST) -> bool:
    match node:
        case ast.Constant() if isinstance(parent, ast.JoinedStr):
            return True  # one variant for the whole text
        case ast.Import() | ast.ImportFrom() | ast.Assert() | ast.Expr(value=ast.Constant()):
            return True
        case ast.Assign(targets=[ast.Name(id="__all__")]) | ast.ClassDef(bases=[ast.Name(id="Protocol")]):
            return True
    return False


def head(node: ast.AST) -> str:
    """The source of an expression or a statement on one line, without its body."""
    lines = ast.unparse(node).splitlines()
    if hasattr(node, "body") and isinstance(node.body, list):
        lines = lines[: next(i for i, line in enumerate(lines) if line.endswith(":")) + 1]
    return " ".join(line.strip() for line in lines)


def alike(one: str, other: str) -> int:
    """The characters at the start of both."""
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))))


def difference(before: str, after: str, around: int = 30) -> str:
    """`before -> after`, cut to what differs and a little around it."""
    start = alike(before, after)
    end = alike(before[start:][::-1], after[start:][::-1])
    start, end = (start - around if start > around + 3 else 0), (end - around if end > around + 3 else 0)

    def cut(text: str) -> str:
        return ("..." if start else "") + text[start : len(text) - end] + ("..." if end else "")

    return f"{cut(before)}  ->  {cut(after)}"
