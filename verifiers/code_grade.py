"""A program and a task -> what came of it. Runs programs in a sandbox, and believes only what is compared out here.

    Streams   one run a case; stdout compared here
    Calls     one run, a reply for each case; plain data compared here
    Asserts     the tests run in a second sandbox, the program in the first; only plain data passes between them
              program's sandbox <--call, plain arguments-- relay (here) <-- tests' sandbox
                                --plain result----------->              -->
    shared    tests and program in one process: the weakest, and marked as such

To pass takes a clean end by the kernel's word, every result asked for, and every one of them equal.
"""

import secrets
from dataclasses import dataclass, replace
from typing import Any

from rlvr_verifiers.code_compare import same, same_output
from rlvr_verifiers.code_task import Asserts, Calls, Streams, Task

from rlvr.sandbox.job import Job, Limits, Result, Runner
from rlvr.sandbox.wire import Garbled, check, encode, size

LATE = ("cpu_limit", "timeout")
NO_TESTS = "gold_unparsed"  # the row is to blame: the tests cannot tell programs apart
MOST_IDLE = 1024  # tasks that are remembered
_idle: dict[Asserts, bool] = {}  # tests for one process -> whether they pass without a program
UNUSED = "the tests never call the program, and pass without it"


class MachineFailed(RuntimeError):
    """The sandbox, not the program, is to blame: nobody is graded by that."""


@dataclass(frozen=True)
class Grade:
    """Grade(passed=2, of=3, reason="differs"): reasons are passed, differs, failed, crashed, timeout, NO_TESTS, ..."""

    passed: int
    of: int
    reason: str
    detail: str = ""
    trust: str = "separate"
    level: str = ""

    @property
    def right(self) -> bool:
        return self.reason == "passed" and self.passed == self.of > 0


def grade(program: str, task: Task, sandbox: Runner, limits: Limits, total_s: float, tolerance: float) -> Grade:
    if isinstance(task, Streams):
        found = grade_streams(program, task, sandbox, limits, total_s, tolerance)
    elif isinstance(task, Calls):
        found = grade_calls(program, task, sandbox, limits, tolerance)
    elif task.shared:
        idle = UNUSED if never_call(task, sandbox, limits) else ""
        found = Grade(0, 0, NO_TESTS, idle, "shared") if idle else grade_shared(program, task, sandbox, limits)
    else:
        found = grade_tests(program, task, sandbox, limits)
    return replace(found, level=str(sandbox.level))


def blame(result: Result) -> tuple[str, str]:
    """Reason and detail of an end that is not clean."""
    if result.machine_failed:
        raise MachineFailed(result.detail or result.end)
    last = result.stderr.decode(errors="replace").strip().splitlines()[-1:]
    detail = f"{result.end} after {result.cpu_s:.2f} s of CPU time, {result.wall_s:.2f} s: {''.join(last)}"
    if result.end in LATE:
        return "timeout", detail
    if result.end in ("output_limit", "thread_limit"):
        return result.end, detail
    return ("garbled" if result.garbled else "crashed"), detail


def grade_streams(
    program: str, task: Streams, sandbox: Runner, limits: Limits, total_s: float, tolerance: float
) -> Grade:
    passed, spent, problem = 0, 0.0, ("", "")
    for number, (stdin, stdout) in enumerate(task.cases):
        if spent > total_s:
            return Grade(passed, len(task.cases), "timeout", f"all cases together took more than {total_s:g} s")
        most = max(limits.output_bytes, 2 * len(stdout.encode(errors="replace")) + 65536)
        job = Job({"mode": "script", "program": program}, stdin.encode(), replace(limits, output_bytes=most))
        result = sandbox.run(job)
        spent += result.own_s
        if not result.ok:
            reason, detail = blame(result)
            problem = (problem[0] or reason, problem[1] or f"case {number}: {detail}")
        elif same_output(stdout, result.stdout, tolerance):
            passed += 1
        else:
            said = result.stdout[:200].decode(errors="replace")
            problem = (problem[0] or "differs", problem[1] or f"case {number}: printed {said!r}")
    return Grade(passed, len(task.cases), *(problem if problem[0] else ("passed", "")))


def grade_calls(program: str, task: Calls, sandbox: Runner, limits: Limits, tolerance: float) -> Grade:
    calls = [encode((arguments, options)) for arguments, options, _ in task.cases]
    names = [task.entry_point, *([f"Solution.{task.entry_point}"] if task.apps else [])]
    request = {"mode": "calls", "program": program, "entry_points": names, "calls": calls}
    wrapped = task.apps and all(type(expected) is list and len(expected) == 1 for _, _, expected in task.cases)
    most = max(limits.message_bytes, 2 * sum(size(expected) for _, _, expected in task.cases))
    result = sandbox.run(Job(request, limits=replace(limits, message_bytes=most)))
    if not result.ok:
        return Grade(0, len(calls), *blame(result))
    passed, problem = 0, ("", "")
    for number, (_, _, expected) in enumerate(task.cases):
        reply = result.messages[number] if number < len(result.messages) else None
        reason, detail = judge_reply(reply, number, expected, tolerance, task.json)
        if wrapped and reason == "differs":
            reason, detail = judge_reply(reply, number, expected[0], tolerance, task.json)
        passed += reason == "passed"
        if reason != "passed" and not problem[0]:
            problem = (reason, f"case {number}: {detail}")
    if len(result.messages) > len(calls):
        return Grade(0, len(calls), "garbled", f"{len(result.messages)} replies to {len(calls)} calls")
    return Grade(passed, len(calls), *(problem if problem[0] else ("passed", "")))


def judge_reply(reply: Any, number: int, expected: Any, tolerance: float, json: bool) -> tuple[str, str]:
    if reply is None:
        return "no_answer", "the program ended before it was called"
    match reply:
        case [int() as case, "value", tree] if type(case) is int and case == number:
            try:
                check(tree)
            except (Garbled, ValueError):
                return "garbled", "the reply is no plain data"
            equal = same(expected, tree, tolerance, tuples_are_lists=json)
            return ("passed", "") if equal else ("differs", f"returned {str(tree)[:200]}")
        case [int() as case, "raised", str() as kind, str() as text] if type(case) is int and case == number:
            return "raised", f"{kind}: {text}"[:300]
    return "garbled", "not a reply to that call"


class PlainDataRelay:
    """Passes plain data between the two sandboxes; strict about who may say what and when."""

    PROGRAM, TESTS = 0, 1

    def __init__(self, names: tuple[str, ...], token: str):
        self.names, self.token = names, token
        self.passed = self.broken = self.ended = False
        self.uncovered, self.calls = "", 0
        self._asked = False
        self._last: tuple[int, Any] | None = None

    def __call__(self, who: int, message: Any) -> list[tuple[int, Any]]:
        return self._from_tests(message) if who == self.TESTS else self._from_program(message)

    def _from_tests(self, message: Any) -> list[tuple[int, Any]]:
        match message:
            case None:
                return [(self.PROGRAM, None)]
            case ["call", str() as name, list() as arguments, list() as options] if name in self.names:
                self._asked = True
                self.calls += 1
                return [(self.TESTS, ["ended"])] if self.ended else [(self.PROGRAM, [name, arguments, options])]
            case ["uncovered", str() as what]:
                self.uncovered = what
            case ["passed", self.token] if not self._asked:
                self.passed = True
            case _:
                self.broken = True
        return []

    def _from_program(self, message: Any) -> list[tuple[int, Any]]:
        if message is None:
            self.ended = True
            return [(self.TESTS, ["ended"])] if self._asked else []
        if message == ["ready"]:
            return []
        if not self._asked or not plausible(message):
            self.broken = True
            return [(self.TESTS, ["ended"])]
        self._asked = False
        return [(self.TESTS, message)]


def plausible(message: Any) -> bool:
    """What an honest program's sandbox answers to a call."""
    try:
        match message:
            case ["value" | "items" as kind, tree, list() as changed]:
                check(tree)
                if kind == "items" and (type(tree) is not list or tree[0] != "l"):
                    return False
                for index, after in changed:
                    check(after)
                    if type(index) is not int or not 0 <= index < 1000:
                        return False
                return True
            case ["raised", str(), str(), str(), ["t", *_] as arguments]:
                check(arguments)
                return True
    except (Garbled, ValueError, TypeError):
        return False
    return False


def run_tests(
    program: str, task: Asserts, sandbox: Runner, limits: Limits
) -> tuple[PlainDataRelay, Result, Result]:
    """What passed between program and tests, and how each of them ended."""
    token = secrets.token_hex(16)
    relay = PlainDataRelay(task.names, token)
    request = {"mode": "tests", "preamble": task.preamble, **request_of(task, token)}
    jobs = [Job(one, limits=limits) for one in ({"mode": "serve", "program": program}, request)]
    ran, tested = sandbox.run_together(jobs, relay)
    return relay, ran, tested


def request_of(task: Asserts, token: str) -> dict[str, Any]:
    return {
        "tests": task.code, "entry_points": list(task.names), "check": task.check, "collect": task.collect,
        "functions": task.functions, "token": token,
    }  # fmt: skip


def never_call(task: Asserts, sandbox: Runner, limits: Limits) -> bool:
    """Whether tests that are to run in one process with the program pass without it. It is asked without any program,
    or programs would find a way to be masked."""
    if (known := _idle.get(task)) is not None:
        return known
    relay, ran, tested = run_tests("", task, sandbox, limits)
    if ran.machine_failed or tested.machine_failed:
        blame(ran if ran.machine_failed else tested)
    if len(_idle) >= MOST_IDLE:
        _idle.clear()
    _idle[task] = found = relay.passed and tested.ok and not (relay.calls or relay.uncovered)
    return found


def grade_tests(program: str, task: Asserts, sandbox: Runner, limits: Limits) -> Grade:
    relay, ran, tested = run_tests(program, task, sandbox, limits)
    if ran.machine_failed or tested.machine_failed:
        blame(ran if ran.machine_failed else tested)
    if relay.uncovered:
        return replace(grade_shared(program, task, sandbox, limits), detail=relay.uncovered)
    if not ran.ok:
        return Grade(0, 1, *blame(ran))
    if relay.broken:
        return Grade(0, 1, "garbled", "it sent something that is no answer to a call")
    if not relay.calls:  # no program can cause that
        why = UNUSED if tested.ok else f"the tests end before they call the program: {blame(tested)[1]}"
        return Grade(0, 0, NO_TESTS, why)
    if relay.passed and tested.ok:
        return Grade(1, 1, "passed")
    reason, detail = blame(tested)
    return Grade(0, 1, {"crashed": "failed", "timeout": "tests_timeout"}.get(reason, reason), detail)


def grade_shared(program: str, task: Asserts, sandbox: Runner, limits: Limits) -> Grade:
    token = secrets.token_hex(16)
    request = {"mode": "shared", "program": program, "preamble": task.preamble}
    tests = request_of(task, token)

    def hand_over_the_tests(who: int, message: Any) -> list[tuple[int, Any]]:
        return [(0, tests)] if message == ["ready"] else []

    result = sandbox.run_together([Job(request, limits=limits)], hand_over_the_tests)[0]
    if not result.ok:
        reason, detail = blame(result)
        return Grade(0, 1, "failed" if reason == "crashed" else reason, detail, "shared")
    if list(result.messages) == [["ready"], ["passed", token]]:
        return Grade(1, 1, "passed", trust="shared")
    return Grade(0, 1, "no_answer", "it ended before its tests did", "shared")
