"""What runs inside of a locked-down child: the program, and the little around it that passes data in and out.

    request (first frame on descriptor 3) --> mode
      script   the program is __main__: its stdin and stdout are the job's
      calls    define, then call the entry point on each arguments list; a reply for each
      serve    define, then answer calls as they come, until the channel closes
      tests    run test code; names of the solution are stand-ins that call into another sandbox
               (`collect`: and then the unittest classes that it defines, with `functions` its test functions too)
      shared   define the solution and run test code in this same process

Nothing here is evidence: everything in this process belongs to the program once it has started. It holds no expected
values (but for `shared`, which is why that is marked as such).
"""

import atexit
import builtins
import gc
import json
import os
import random
import site
import struct
import sys
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any, NoReturn

from rlvr.sandbox.wire import NotPlain, decode, encode, frame

CHANNEL = 3
CO_COROUTINE = 0x80  # inspect's; of an `async def`
MOST_ITEMS = 10_000  # of an iterator that is handed over


class SolutionEnded(BaseException):
    """The other sandbox is gone: no test may catch this."""


def read_frame() -> Any:
    """The next message, None when nobody will send any more. The sender is the judge, so it is what it says."""
    head = _read_exactly(4)
    if head is None:
        return None
    content = _read_exactly(struct.unpack(">I", head)[0])
    return None if content is None else json.loads(content)


def _read_exactly(size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        part = os.read(CHANNEL, min(size - len(data), 1 << 20))
        if not part:
            return None
        data += part
    return bytes(data)


def send(message: Any, write: Callable[[int, Any], int] = os.write) -> None:
    data = memoryview(frame(message))
    while data:
        data = data[write(CHANNEL, data) :]


def open_streams() -> None:
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]


def leave(code: int, name: str) -> NoReturn:
    """End as the interpreter would: wait for threads, run exit handlers, flush, drop the module of this name with what
    the program has made, so that files of its own are flushed too. Whoever calls must not hold the module."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        out = getattr(sys, "stdout", None)
        if out is not None and not is_closed(out):
            out.flush()
        flush("stderr", "__stdout__")  # a program that prints elsewhere may have taken these to pieces
        for stream in ("stdout", "stderr"):  # those of the program are dropped too
            setattr(sys, stream, getattr(sys, f"__{stream}__", None))
        sys.unraisablehook = threading.excepthook = say_nothing  # of what is dropped, and of threads that outlive it
        sys.modules.pop(name, None)
        gc.collect()
        flush("stdout", "stderr")
    except BaseException as error:
        report(error)
        code = code or 120
    os._exit(code)


def say_nothing(error: Any) -> None: ...


def is_closed(stream: Any) -> bool:
    """One of the program's own may answer with any error: then it is not, as for the interpreter."""
    with suppress(BaseException):
        return bool(stream.closed)
    return False


def flush(*streams: str) -> None:
    """As far as they are there, and in one piece."""
    for stream in streams:
        with suppress(BaseException):
            getattr(sys, stream).flush()


def report(error: BaseException) -> None:
    """To stderr, as the interpreter would, without our own frame."""
    trace = error.__traceback__
    sys.excepthook(type(error), error.with_traceback(trace and trace.tb_next), trace and trace.tb_next)


def define(program: str, name: str, preamble: str = "") -> dict[str, Any]:
    """The program's namespace once it has run, after the preamble; does not return when it ends itself."""
    module = types.ModuleType(name)
    module.__dict__.update({"__builtins__": builtins, "__file__": "program.py"})
    sys.modules[name] = module
    sys.argv = ["program.py"]
    try:
        for text in (preamble, program):  # each may begin with imports from __future__
            exec(compile(text, "program.py", "exec", dont_inherit=True), module.__dict__)
        return module.__dict__
    except SystemExit as error:
        if error.code is not None and not isinstance(error.code, int):
            print(error.code, file=sys.stderr)
        code = (error.code or 0) & 0xFF if isinstance(error.code, int) else int(error.code is not None)
    except BaseException as error:
        report(error)
        code = 1
    del module
    leave(code, name)  # when the error, which holds on to its frames, is gone


def find(namespace: Mapping[str, Any], name: str) -> Any:
    """`function`, or `Class.method` of a fresh instance."""
    first, *rest = name.split(".")
    found = namespace[first]
    if rest and isinstance(found, type):
        found = found()
    for attribute in rest:
        found = getattr(found, attribute)
    return found


def answer(
    namespace: Mapping[str, Any], name: str, arguments: list[Any], options: dict[str, Any], items: bool = False
) -> list[Any]:
    """["value", tree, [[argument, tree after the call], ...]], or what `raised` says."""
    try:
        before = [encode(argument) for argument in arguments]
        found = find(namespace, name)(*arguments, **options)
        kind = "items" if items and isinstance(found, Iterator) else "value"
        value = encode(list(islice(found, MOST_ITEMS)) if kind == "items" else found)
        pairs = zip(arguments, before, strict=True)
        changed = [[i, encode(a)] for i, (a, b) in enumerate(pairs) if type(a) in (list, dict, set) and encode(a) != b]
        return [kind, value, changed]
    except BaseException as error:
        return raised(error)


def raised(error: BaseException) -> list[Any]:
    """["raised", type, text, the builtin type that it is, arguments by which that has the same text]."""
    text = _text(error)
    kind = next(kind for kind in type(error).__mro__ if getattr(builtins, kind.__name__, None) is kind)
    arguments = encode((text,))
    with suppress(BaseException):  # no plain data, or the program's own code
        if str(kind(*error.args)) == text:
            arguments = encode(error.args)
    return ["raised", type(error).__name__, text, kind.__name__, arguments]


def _text(error: BaseException) -> str:
    try:
        return str(error)[:500]
    except BaseException:  # the program's own exception: its text is the program's code
        return ""


def script(request: Mapping[str, Any]) -> None:
    define(request["program"], "__main__")
    leave(0, "__main__")


def calls(request: Mapping[str, Any]) -> None:
    namespace = define(request["program"], "__main__" if request.get("main") else "solution")
    names = request["entry_points"]  # the first that is there
    name = next((name for name in names if name.partition(".")[0] in namespace), names[0])
    for number, call in enumerate(request["calls"]):
        arguments, options = decode(call)
        reply = answer(namespace, name, arguments, options)
        send([number, *reply[: 2 if reply[0] == "value" else 3]])
    os._exit(0)


def serve(request: Mapping[str, Any]) -> None:
    namespace = define(request["program"], "solution")
    send(["ready"])
    while (call := read_frame()) is not None:
        name, arguments, options = call[0], decode(call[1]), decode(call[2])
        send(answer(namespace, name, arguments, options, items=True))
    os._exit(0)


def stand_in(name: str) -> Callable[..., Any]:
    """A function that is called here and answered by the solution's sandbox."""

    def called(*arguments: Any, **options: Any) -> Any:
        try:
            message = ["call", name, encode(list(arguments)), encode(options)]
        except NotPlain as error:
            send(["uncovered", f"{name}() is given something that only exists in one process: {error}"])
            os._exit(3)
        send(message)
        reply = read_frame()
        if reply is None or reply[0] == "ended":
            raise SolutionEnded(name)
        if reply[0] == "raised":
            raise _exception(*reply[1:])
        for index, tree in reply[2]:
            _overwrite(arguments[index], decode(tree))
        return _iterator(decode(reply[1])) if reply[0] == "items" else decode(reply[1])

    called.__name__ = called.__qualname__ = name
    return called


def _iterator(items: list[Any]) -> Iterator[Any]:
    """What the solution's iterator would give, computed ahead of time."""
    yield from items
    if len(items) == MOST_ITEMS:
        raise RuntimeError(f"an iterator is handed over up to {MOST_ITEMS} items")


def _exception(name: str, text: str, kind: str, arguments: Any) -> Exception:
    """The builtin exception that it is; but StopIteration would end the tests' own loops early, as in all(map(f, ...)):
    it is what a generator makes of it."""
    found = getattr(builtins, kind, None)
    if isinstance(found, type) and issubclass(found, Exception) and found is not StopIteration:
        try:
            return found(*decode(arguments))
        except TypeError:  # ExceptionGroup and its like want more
            pass
    return RuntimeError(f"{name}: {text}")


def _overwrite(target: Any, value: Any) -> None:
    if type(target) is type(value) is list:
        target[:] = value
    elif type(target) is type(value) and isinstance(target, (dict, set)):
        target.clear()
        target.update(value)


def tests(request: Mapping[str, Any]) -> None:
    names = request["entry_points"]
    stand_ins = {name: stand_in(name) for name in names}
    namespace = define(request["preamble"], "tests")
    namespace.update(stand_ins)
    _test(request, namespace)


def shared(request: Mapping[str, Any]) -> None:
    namespace = define(request["program"], "__main__", request["preamble"])
    send(["ready"])
    request = {**request, **read_frame()}  # the tests come when the solution has been defined
    sys.modules["tests"] = sys.modules["__main__"]
    namespace["__name__"] = "tests"  # as where they run apart: `if __name__ == "__main__"` is nothing of theirs
    _test(request, namespace)


def _test(request: Mapping[str, Any], namespace: dict[str, Any]) -> None:
    try:
        if request["collect"]:
            import unittest

            unittest.main = lambda *_, **__: None  # type: ignore[misc,assignment]  # it looks in another module, and exits
        exec(compile(request["tests"], "tests.py", "exec", dont_inherit=True), namespace)
        if request["collect"]:
            _collected(namespace, request["functions"])
        if request["check"]:
            namespace["check"](find(namespace, request["entry_points"][0]))
        send(["passed", request["token"]])
        os._exit(0)
    except SolutionEnded:
        os._exit(4)
    except BaseException as error:
        report(error)
        os._exit(1)


def _collected(namespace: dict[str, Any], functions: bool) -> None:
    """Run what a test runner would find; the first failure is raised."""
    import unittest

    for name, found in list(namespace.items()):
        if isinstance(found, type) and issubclass(found, unittest.TestCase) and found.__module__ == "tests":
            seen = unittest.TestResult()
            unittest.defaultTestLoader.loadTestsFromTestCase(found).run(seen)
            if not seen.wasSuccessful():
                raise AssertionError([text[-300:] for _, text in seen.errors + seen.failures][:1])
        elif functions and name.startswith("test") and _stands_alone(found):
            found()


def _stands_alone(found: Any) -> bool:
    """Is it a function of the tests that needs no arguments? One that does helps the others."""
    code: Any = getattr(found, "__code__", None)
    if getattr(code, "co_filename", "") != "tests.py" or code.co_flags & CO_COROUTINE:
        return False
    given = len(found.__defaults__ or ()) + len(found.__kwdefaults__ or ())
    return bool(code.co_argcount + code.co_kwonlyargcount <= given)


MODES = {"script": script, "calls": calls, "serve": serve, "tests": tests, "shared": shared}


def main() -> None:
    open_streams()
    site.setquit()  # exit, quit and help are no builtins where site is left out
    site.sethelper()
    random.seed(0)  # forking has seeded it anew; two runs of the same program agree
    request = read_frame()
    MODES[request["mode"]](request)
