"""Runs the tests against mutants, each in a process forked from one that has collected them. Knows of no report.

    collect --> baseline: how long a test takes
       +--fork--> one mutant: its function gets the changed code, in place, so that no `from x import f` holds on to the
                  original; then its tests, quickest first, until one fails

No file is touched. What stands in no function (a default of a field, a constant, a decorator) has had its effect when
the module was imported: there the fork forgets the project and imports it anew, with the one module compiled from the
changed tree. Limits are of processor time, so that a busy machine kills nobody.
"""

import ast
import gc
import importlib
import importlib.util
import inspect
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any, NoReturn

import pytest
from mutants import Mutant, put

ENDLESS = {-signal.SIGPROF, -signal.SIGALRM}
OPTIONS = ["-q", "-p", "no:cacheprovider", "-m", "not slow", "-o", "tmp_path_retention_policy=none"]
DEAD, BROKEN = 1, 70


class Session:
    """The pytest plugin that works on the collected tests instead of running them."""

    def __init__(self, root: Path, work: Callable[["Session"], None], limit: float) -> None:
        self.root, self.work, self.limit = root, work, limit
        self.items: dict[str, pytest.Item] = {}
        self.seconds: dict[str, float] = {}  # of processor time

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self.items = {item.nodeid: item for item in session.items}
        self.work(self)
        return True

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo) -> None:
        """Before the report is made: to print a traceback through torch takes seconds."""
        if call.excinfo is not None and not call.excinfo.errisinstance(pytest.skip.Exception):
            print(item.nodeid, call.excinfo.exconly())
            leave(DEAD)

    def run(self, test: str) -> None:
        item = self.items[test]
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)

    def run_all(self, limits: dict[str, float]) -> None:
        for test, limit in limits.items():
            signal.setitimer(signal.ITIMER_PROF, limit)
            self.run(test)
        leave(0)

    def baseline(self) -> None:
        """Everything once, unchanged, in a fork; and load what that loaded (torch.testing loads sympy, for seconds), so
        that no mutant has to. RuntimeError where a test fails."""
        saved, log = self.root / "baseline.json", self.root / "baseline.log"

        def work() -> None:
            seconds = {}
            for test in self.items:
                began = time.process_time()
                self.run(test)
                seconds[test] = time.process_time() - began
            loaded = [name for name, module in sys.modules.items() if getattr(module, "__spec__", None)]
            saved.write_text(json.dumps([seconds, loaded]))

        if os.waitpid(fork(work, log), 0)[1]:
            raise RuntimeError(f"a test fails without any mutant:\n{log.read_text()}")
        self.seconds, loaded = json.loads(saved.read_text())
        for name in loaded:
            importlib.import_module(name)
        gc.collect()
        gc.freeze()  # the garbage collector of a fork would copy every page

    def fates(self, mutants: list[Mutant], jobs: int) -> Iterator[tuple[Mutant, str]]:
        """Of each mutant, as it is known: killed, endless or survived."""
        running: dict[int, tuple[Mutant, Path]] = {}
        for number in range(len(mutants) + jobs):
            if number < len(mutants):
                mutant, log = mutants[number], self.root / f"mutant-{number}.log"
                running[self.start(mutant, log)] = mutant, log
            if running and (len(running) == jobs or number >= len(mutants)):
                child, status = os.wait()
                (mutant, log), code = running.pop(child), os.waitstatus_to_exitcode(status)
                if code == BROKEN:
                    raise RuntimeError(f"{mutant.name}: neither dead nor alive\n{log.read_text()}")
                log.unlink()
                yield mutant, "survived" if code == 0 else "endless" if code in ENDLESS else "killed"

    def start(self, mutant: Mutant, log: Path) -> int:
        own = tuple(f"{path}::" for path in own_tests(self.root, mutant.file))
        tests = [test for test in self.seconds if test.startswith(own)]
        limits = {test: self.limit + 5 * self.seconds[test] for test in sorted(tests, key=self.seconds.__getitem__)}

        def work() -> None:
            signal.alarm(900)  # a mutant that waits for ever uses no processor time
            put(mutant.holder, mutant.slot, mutant.replacement)
            module = mutant.file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            if mutant.function is None:
                self.run_anew(module, self.root / mutant.file, mutant.tree, limits)
            else:
                exchange(mutant.function, vars(sys.modules[module]), mutant.where.split("."))
                self.run_all(limits)

        return fork(work, log)

    def run_anew(self, module: str, path: Path, tree: ast.Module, limits: dict[str, float]) -> None:
        for name, loaded in list(sys.modules.items()):
            if str(getattr(loaded, "__file__", None)).startswith(f"{self.root}/"):
                del sys.modules[name]
        sys.meta_path.insert(0, Changed(module, path, tree))
        anew = Session(self.root, lambda session: session.run_all(limits), self.limit)
        files = dict.fromkeys(test.partition("::")[0] for test in limits)
        signal.setitimer(signal.ITIMER_PROF, 60)
        if pytest.main([*OPTIONS, *files], plugins=[anew]):
            leave(DEAD)  # not even collected


def own_tests(root: Path, file: str) -> list[str]:
    """tests/ mirrors the project: rlvr/objective/kl.py has tests/objective/test_kl.py; rlvr/loop.py has
    tests/test_loop.py, and tests/test_loop_crashes.py as well."""
    place, stem = root.joinpath("tests", *Path(file).parts[1:-1]), Path(file).stem
    return [str(p.relative_to(root)) for p in (place / f"test_{stem}.py", *sorted(place.glob(f"test_{stem}_*.py")))]


class Changed(SourceFileLoader):
    """Serves one module of the project from a changed tree; stands on `sys.meta_path`."""

    def __init__(self, module: str, path: Path, tree: ast.Module) -> None:
        super().__init__(module, str(path))
        self.code = compile(ast.fix_missing_locations(tree), str(path), "exec")

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return importlib.util.spec_from_file_location(name, self.path, loader=self) if name == self.name else None

    def get_code(self, fullname: str) -> CodeType:
        return self.code


def exchange(changed: ast.FunctionDef, module: dict[str, Any], where: list[str]) -> None:
    """The function that everybody refers to does from now on what `changed` says."""
    changed.decorator_list = []
    old = module[where[0]]
    for name in where[1:] if inspect.isclass(old) else ():
        old = inspect.getattr_static(old, name)
        if name == changed.name:
            break  # the rest stands inside
    if isinstance(old, property):
        old = old.fget
    old = inspect.unwrap(getattr(old, "__func__", old))
    here, body = dict(module), [changed]
    if with_class := old.__code__.co_freevars == ("__class__",):  # of `super()`: the cell stays, whatever becomes of it
        changed.body.insert(0, ast.Expr(ast.Name("__class__", ast.Load())))
        body = [ast.ClassDef("Around", [], [], [changed], [], type_params=[])]
    exec(compile(ast.fix_missing_locations(ast.Module(body, [])), str(module["__file__"]), "exec"), here)
    new = vars(here["Around"])[changed.name] if with_class else here[changed.name]
    old.__code__, old.__defaults__, old.__kwdefaults__ = new.__code__, new.__defaults__, new.__kwdefaults__


def leave(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def fork(work: Callable[[], None], log: Path) -> int:
    sys.stdout.flush()
    if child := os.fork():
        return child
    try:
        with log.open("wb") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        work()
    except BaseException:
        traceback.print_exc()
        leave(BROKEN)
    leave(0)
