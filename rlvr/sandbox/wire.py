"""Plain data as JSON, and JSON in frames. Both ends use it; neither trusts the other's bytes.

Only exact builtin types pass: an int that is an int, not a subclass that calls itself equal to everything.

    None True 3 2.5 "x"      as they are (an int beyond 64 bits: ["i", hex])
    [1, 2]  (1, 2)           ["l", 1, 2]  ["t", 1, 2]
    {1, 2}  frozenset        ["s", 1, 2]  ["z", ...]
    {"a": 1, 2: 3}           ["d", "a", 1, 2, 3]
    b"ab"  1j                ["b", "6162"]  ["c", 0.0, 1.0]

A tree is checked (`check`) before anything is built from it, and `verifiers/code_compare.py` reads it without building:
a dict of hostile keys is never made outside of a sandbox.
"""

import json
import struct
from collections import Counter, OrderedDict, defaultdict
from typing import Any

Tree = Any
MAX_DEPTH = 100
MAX_FRAME = 4 << 20  # bytes, from a sandboxed program
CONTAINERS: dict[type, str] = {list: "l", tuple: "t", set: "s", frozenset: "z"}
DICTS = (dict, defaultdict, OrderedDict, Counter)
SMALL = 1 << 63


class NotPlain(TypeError):
    """A value that is not plain data, by its type."""


class Garbled(ValueError):
    """Bytes that no honest child sends."""


def encode(value: Any, depth: int = 0) -> Tree:
    """The tree of a value; NotPlain when it holds anything but plain data, ValueError when nested too deeply."""
    kind = type(value)
    if value is None or kind is bool or kind is float:
        return value
    if kind is str or kind is bytes:
        if len(value) > MAX_FRAME:
            raise ValueError(f"a text of {len(value)} > {MAX_FRAME}")
        return value if kind is str else ["b", value.hex()]
    if kind is int:
        return value if -SMALL <= value < SMALL else ["i", hex(value)]
    if depth >= MAX_DEPTH:
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    if kind in CONTAINERS:
        return [CONTAINERS[kind], *[encode(item, depth + 1) for item in value]]
    if kind in DICTS:
        return ["d", *[encode(part, depth + 1) for pair in dict.items(value) for part in pair]]
    if kind is complex:
        return ["c", value.real, value.imag]
    raise NotPlain(f"a {kind.__name__} is not plain data")


def check(tree: Tree, depth: int = 0) -> None:
    """Garbled unless `encode` could have made it. Builds nothing."""
    kind = type(tree)
    if tree is None or kind in (bool, int, float, str):
        return
    if kind is not list or not tree or depth > MAX_DEPTH:
        raise Garbled("no tree")
    tag, content = tree[0], tree[1:]
    if tag in ("l", "t", "s", "z", "d") and (tag != "d" or len(content) % 2 == 0):
        for item in content:
            check(item, depth + 1)
    elif tag == "i" and len(content) == 1:
        _big(content[0])
    elif tag == "b" and len(content) == 1 and type(content[0]) is str:
        bytes.fromhex(content[0])
    elif not (tag == "c" and [type(part) for part in content] == [float, float]):
        raise Garbled("no tree")


def _big(text: Any) -> int:
    if type(text) is not str or not text.lstrip("-").startswith("0x"):
        raise Garbled("no integer")
    return int(text, 16)  # linear in the digits, unlike decimal


def decode(tree: Tree) -> Any:
    """The value of a checked tree. Hostile keys can make this slow: only inside a sandbox, or on one's own trees."""
    if type(tree) is not list:
        return tree
    tag, content = tree[0], tree[1:]
    if tag == "i":
        return _big(content[0])
    if tag == "b":
        return bytes.fromhex(content[0])
    if tag == "c":
        return complex(*content)
    items = [decode(item) for item in content]
    if tag == "d":
        return dict(zip(items[::2], items[1::2], strict=True))
    return {"l": list, "t": tuple, "s": set, "z": frozenset}[tag](items)


def frame(message: Any) -> bytes:
    content = json.dumps(message).encode()
    return struct.pack(">I", len(content)) + content


def size(value: Any) -> int:
    """Bytes that a value takes in a frame; fails as `encode` does."""
    return len(json.dumps(encode(value)))


def parse(content: bytes) -> Any:
    """A frame's content from a hostile end: lists of plain JSON values, or Garbled."""
    try:
        return json.loads(content, object_pairs_hook=_no_objects)
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, a number of too many digits, nested too deeply
        raise Garbled(f"{type(error).__name__} in a frame of {len(content)} bytes") from None


def _no_objects(pairs: list[Any]) -> Any:
    raise Garbled("an object, where only lists are sent")


class Frames:
    """Bytes in, messages out."""

    def __init__(self, limit: int = MAX_FRAME):
        self.limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Any]:
        self._buffer += data
        messages = []
        while len(self._buffer) >= 4:
            (length,) = struct.unpack_from(">I", self._buffer)
            if length > self.limit:
                raise Garbled(f"a frame of {length} bytes > {self.limit}")
            if len(self._buffer) < 4 + length:
                break
            messages.append(parse(bytes(self._buffer[4 : 4 + length])))
            del self._buffer[: 4 + length]
        return messages
