"""Is what a program gave back what was expected? Runs outside of the sandbox, on plain trees: nothing is built of them.

A tree is what `rlvr.sandbox.wire` makes of plain data; the expected value is the data set's own. True is not 1, NaN
equals NaN alone, an int may equal a float, and only an expected float has a tolerance.
"""

import math
import re
from typing import Any

from rlvr.sandbox.wire import Tree

TAGS: dict[type, str] = {list: "l", tuple: "t", set: "s", frozenset: "z"}


def same(expected: Any, tree: Tree, tolerance: float = 1e-6, tuples_are_lists: bool = True) -> bool:
    """`tuples_are_lists`: what is expected is JSON's, which knows no tuples, so that an expected list allows either;
    nor numbers as names in a dict, so that the name "1" allows 1."""
    kind = type(expected)
    if expected is None or kind is bool or kind is str:
        return type(tree) is kind and tree == expected
    if kind is int or kind is float:
        return _same_number(expected, _number(tree), tolerance)
    if type(tree) is not list:
        return False
    tag, content = tree[0], tree[1:]
    if kind is bytes:
        return tag == "b" and content[0] == expected.hex()
    if kind is complex:
        parts = zip((expected.real, expected.imag), content, strict=True) if tag == "c" else ()
        return tag == "c" and all(_same_number(one, other, tolerance) for one, other in parts)
    if kind in (list, tuple):
        tags = ("l", "t") if tuples_are_lists and kind is list else (TAGS[kind],)
        pairs = zip(expected, content, strict=False)
        return (
            tag in tags
            and len(content) == len(expected)
            and all(same(one, other, tolerance, tuples_are_lists) for one, other in pairs)
        )
    if kind in (set, frozenset):
        return tag == TAGS[kind] and {key(item) for item in expected} == _keys(content, len(expected))
    if kind is dict:
        return tag == "d" and _same_dict(expected, content, tolerance, tuples_are_lists)
    raise TypeError(f"an expected value may not hold a {kind.__name__}")


def _number(tree: Tree) -> int | float | None:
    if type(tree) is list and tree[0] == "i":
        return int(tree[1], 16)
    return tree if type(tree) in (int, float) else None


def _same_number(expected: int | float, found: int | float | None, tolerance: float) -> bool:
    if found is None:
        return False
    if expected != expected or found != found:
        return expected != expected and found != found  # NaN
    if expected == found:
        return True
    if type(expected) is not float or math.isinf(expected) or math.inf in (found, -found):
        return False
    try:
        return abs(expected - found) <= tolerance * max(1.0, abs(expected))
    except OverflowError:  # an int that is beyond every float
        return False


def _same_dict(expected: dict[Any, Any], content: list[Tree], tolerance: float, tuples_are_lists: bool) -> bool:
    wanted = {key(name): value for name, value in expected.items()}
    if len(content) != 2 * len(wanted):
        return False
    seen = set()
    for name, tree in zip(content[::2], content[1::2], strict=True):
        found = tree_key(name)
        if tuples_are_lists and found not in wanted:
            found = _as_name(name) or found
        # looked up in our own dict: hostile names that all hash alike cost one probe each
        if found not in wanted or not same(wanted[found], tree, tolerance, tuples_are_lists):
            return False
        seen.add(found)
    return len(seen) == len(wanted)


def _as_name(tree: Tree) -> tuple[Any, ...] | None:
    """The key of a number as JSON would write it: all its names are texts."""
    number = _number(tree)
    if number is None or (type(number) is int and number.bit_length() > 1000):
        return None
    return key(repr(number))


def _keys(content: list[Tree], count: int) -> set[Any] | None:
    return {tree_key(item) for item in content} if len(content) == count else None


def key(value: Any) -> tuple[Any, ...]:
    """A member of a set or the name in a dict, so that only the same things are equal: True is not 1."""
    kind = type(value)
    if kind is tuple:
        return ("t", *map(key, value))
    if kind is frozenset:
        return ("z", frozenset(map(key, value)))
    return ("n", value) if kind in (int, float) else (kind.__name__, value)


def tree_key(tree: Tree) -> tuple[Any, ...]:
    if type(tree) is not list:
        return key(tree)
    tag, content = tree[0], tree[1:]
    if tag == "t":
        return ("t", *map(tree_key, content))
    if tag == "z":
        return ("z", frozenset(map(tree_key, content)))
    if tag == "i":
        return ("n", int(content[0], 16))
    if tag == "b":
        return ("bytes", bytes.fromhex(content[0]))
    if tag == "c":
        return ("complex", complex(*content))
    return ("unhashable",)


def same_output(expected: str, output: bytes, tolerance: float | None = None) -> bool:
    """Line by line; blanks at the ends of lines and empty lines at the end do not count.

    With a tolerance, a word of the expected output that is a decimal number may be off by as much.
    """
    try:
        text = output.decode("utf-8")
    except UnicodeDecodeError:
        return False
    wanted, found = _lines(expected), _lines(text)
    if wanted == found:
        return True
    if tolerance is None or len(wanted) != len(found):
        return False
    pairs = zip(wanted, found, strict=True)
    return all(_same_words(re.split(r"(\s+)", one), re.split(r"(\s+)", other), tolerance) for one, other in pairs)


def _lines(text: str) -> list[str]:
    lines = [line.rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _same_words(wanted: list[str], found: list[str], tolerance: float) -> bool:
    if len(wanted) != len(found):
        return False
    for one, other in zip(wanted, found, strict=True):
        if one == other:
            continue
        number, theirs = _decimal(one), _decimal(other)
        if number is None or theirs is None or "." not in one or not _same_number(number, theirs, tolerance):
            return False
    return True


def _decimal(word: str) -> float | None:
    if not word.isascii() or "_" in word or len(word) > 40:
        return None
    try:
        return float(word)
    except ValueError:
        return None
