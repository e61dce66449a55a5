"""How a verifier is found: an installed plugin's name, `package.module:attribute`, or `path/file.py:attribute`.

With `trl:` or `verl:` before one of the two last, it is a reward function of that library. `check:` before any of them
is for ourselves: the references that it can use; `tool:`: what a tool answers.
"""

import difflib
import importlib
import importlib.util
import sys
from functools import cache, lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any
from zlib import crc32

from rlvr.verify.plugin import PluginError, Verifier
from rlvr.verify.tool import TOOL, answering

GROUP = "rlvr.verifiers"  # entry points


@cache
def installed() -> dict[str, EntryPoint]:
    """Name -> entry point of every installed verifier, ours among them. Read once: rows may name verifiers, and there
    may be a million rows."""
    return {point.name: point for point in entry_points(group=GROUP)}


@lru_cache(maxsize=256)
def load(reference: str) -> Verifier:
    """The verifier; a bare function becomes one that is called with a sample. PluginError says what is wrong."""
    kind, colon, rest = reference.partition(":")
    if kind in ("trl", "verl") and colon:
        from rlvr.verify.adapters import KINDS

        theirs = load(rest)
        return KINDS[kind](theirs.function, name=theirs.name)
    if kind in ("check", "setup") and colon:
        from rlvr.verify.rows import checker, only_set_up

        return checker(load(rest)) if kind == "check" else only_set_up(load(rest))
    if kind == TOOL and colon:
        if ":" not in rest:
            raise PluginError(f"no tool {rest!r}: name it as file.py:function or package.module:function")
        return answering(load(rest))
    module, colon, attribute = reference.rpartition(":")
    if not colon:
        plugins = installed()
        if reference not in plugins:
            close = difflib.get_close_matches(reference, plugins, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise PluginError(f"no verifier {reference!r}{hint}; installed: {', '.join(sorted(plugins)) or 'none'}")
        points = [point for point in entry_points(group=GROUP) if point.name == reference]
        if len({(point.module, point.attr) for point in points}) > 1:
            offered = " and ".join(f"{p.dist.name if p.dist else '?'} ({p.module}:{p.attr})" for p in points)
            raise PluginError(f"verifier {reference!r} is offered by {offered}: name it as module:attribute")
        module, attribute = points[0].module, points[0].attr
    try:
        loaded = _file(Path(module).expanduser()) if module.endswith(".py") else importlib.import_module(module)
    except PluginError:
        raise
    except (Exception, SystemExit) as error:
        said = f"{type(error).__name__}: {error}"
        raise PluginError(f"verifier {reference!r}: {module} cannot be imported: {said}") from error
    found = getattr(loaded, attribute, None)
    if isinstance(found, Verifier):
        return found
    if callable(found):
        return Verifier(attribute, found)
    raise PluginError(f"verifier {reference!r}: {module} has no function {attribute!r}")


def _file(path: Path) -> Any:
    if not path.is_file():
        raise PluginError(f"verifier file {path}: no such file (looked in {path.resolve().parent})")
    name = f"rlvr_verifier_{path.stem}_{crc32(bytes(path.resolve())):08x}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert spec is not None and spec.loader is not None, "a .py file always has a loader"
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look for their module there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
