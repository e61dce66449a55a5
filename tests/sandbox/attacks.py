"""Runs attacks against a sandbox and says which of them got through: our own, and those of a file, where it is there.
Standard library only.

    python -m tests.sandbox.attacks FILE [LAYER TO LEAVE OUT ...]     one line of JSON: level, count, failures

The second form is how the tests run it as another user, whose Python has none of our packages.
"""

import importlib
import json
import os
import socket
import sys
import tempfile
import types
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[2]
try:
    importlib.import_module("rlvr_verifiers")
except ImportError:
    package = types.ModuleType("rlvr_verifiers")
    package.__path__ = [str(ROOT / "verifiers")]
    sys.modules["rlvr_verifiers"] = package

from rlvr_verifiers.code_compare import same_output  # noqa: E402
from rlvr_verifiers.code_grade import judge_reply  # noqa: E402

from rlvr.sandbox import Job, Limits, Result, Sandbox  # noqa: E402
from rlvr.sandbox.wire import encode  # noqa: E402
from tests.sandbox.own_attacks import OWN  # noqa: E402

SECRET = "TOKEN-" + "SECRET-VALUE-0123456789"
LIMITS = Limits(cpu_s=0.6, wall_factor=2.5)
CASES = [((1, 2), 3), ((5, 7), 12)]
HONEST = "def add(a, b): return a + b"


@dataclass
class Baits:
    hidden: str
    canary: str
    port: int
    listening: list[socket.socket]

    def touched(self) -> str | None:
        for server in self.listening:
            try:
                server.accept() if server.type == socket.SOCK_STREAM else server.recv(10)
            except BlockingIOError:
                continue
            return "something arrived at a socket of the host"
        if Path(self.canary).read_text() != "canary":
            return "the canary file was changed"
        return None


@contextmanager
def baits() -> Iterator[Baits]:
    with ExitStack() as stack:
        stack.enter_context(patch.dict(os.environ, {"SECRET_OF_THE_JUDGE": SECRET}))
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        os.chmod(folder, 0o755)
        hidden, canary = os.path.join(folder, "hidden_tests.py"), os.path.join(folder, "canary")
        Path(hidden).write_text(f"# {SECRET}\nassert add(1, 2) == 3\n")
        Path(canary).write_text("canary")
        os.chmod(hidden, 0o644)
        os.chmod(canary, 0o666)
        tcp, udp, named = (stack.enter_context(socket.socket(*kind)) for kind in (
            (socket.AF_INET, socket.SOCK_STREAM), (socket.AF_INET, socket.SOCK_DGRAM), (socket.AF_UNIX,),
        ))  # fmt: skip
        tcp.bind(("127.0.0.1", 0))
        udp.bind(tcp.getsockname())
        try:
            named.bind("\0rlvr-canary")
        except OSError:  # another run of these tests has it
            named.bind(f"\0rlvr-canary-{os.getpid()}")
        tcp.listen()
        named.listen()
        for server in (tcp, udp, named):
            server.setblocking(False)
        yield Baits(hidden, canary, tcp.getsockname()[1], [tcp, udp, named])


def run_attack(sandbox: Sandbox, attack: dict[str, Any], bait: Baits) -> tuple[Result, bool]:
    """How it ended, and whether it passes."""
    program = attack["code"]
    for name, value in (("HIDDEN", bait.hidden), ("CANARY", bait.canary), ("PORT", bait.port)):
        program = program.replace(name, repr(value))
    if attack["mode"] == "func":
        return run_calls(sandbox, program)
    results = [
        sandbox.run(Job({"mode": "script", "program": program}, f"{a} {b}\n".encode(), LIMITS)) for (a, b), _ in CASES
    ]
    right = [same_output(f"{e}\n", r.stdout) for (_, e), r in zip(CASES, results, strict=True)]
    return results[0], all(right) and all(result.ok for result in results)


def run_calls(sandbox: Sandbox, program: str) -> tuple[Result, bool]:
    calls = [encode((list(arguments), {})) for arguments, _ in CASES]
    request = {"mode": "calls", "program": program, "entry_points": ["add"], "calls": calls}
    result = sandbox.run(Job(request, limits=LIMITS))
    replies = [judge_reply(m, i, CASES[i][1], 1e-6, True)[0] for i, m in enumerate(result.messages[: len(CASES)])]
    return result, result.ok and replies == ["passed"] * len(CASES) and len(result.messages) == len(CASES)


def failure(sandbox: Sandbox, attack: dict[str, Any], bait: Baits) -> str | None:
    """What went wrong for us; None when the attack did not get through."""
    before = descendants()
    result, passed = run_attack(sandbox, attack, bait)
    said = (result.stdout + result.stderr).decode(errors="replace") + json.dumps(result.messages)
    must = attack["must"]
    private = str(sandbox.level) == "isolated"
    wanted = must in ("pass", "pass_sep_stderr") or (must == "pass_if_tmp" and private)
    if result.end not in attack["expect"]:
        return f"ended as {result.end}: {result.stderr[-300:].decode(errors='replace')}"
    if passed != wanted and must != "pass_if_tmp":
        return f"passed={passed}, {said[-300:]}"
    if SECRET in said:
        return "it saw a secret"
    if (must == "no_opened" and '"opened"' in said.replace(" ", "")) or "opened /" in said or "connected" in said:
        return said[:300]
    if touched := bait.touched():
        return touched
    if result.own_s > LIMITS.wall_s + 2.5:
        return f"it took {result.own_s:.1f} s"
    if left := descendants() - before:
        return f"processes left: {left}"
    if not run_calls(sandbox, HONEST)[1]:
        return "the next honest program does not pass"
    return None


def descendants() -> set[int]:
    parents = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            parents[int(name)] = int(Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, new = set(), {os.getpid()}
    while new:
        new = {pid for pid, parent in parents.items() if parent in new} - found
        found |= new
    return found


def all_of(file: Path) -> list[dict[str, Any]]:
    return OWN + ([json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else [])


def main() -> None:
    attacks = all_of(Path(sys.argv[1]))
    with baits() as bait, Sandbox(without=sys.argv[2:]) as sandbox:
        found = {attack["id"]: failure(sandbox, attack, bait) for attack in attacks}
        failed = {name: what for name, what in found.items() if what}
        print(json.dumps({"level": str(sandbox.level), "uid": os.getuid(), "count": len(found), "failed": failed}))


if __name__ == "__main__":
    main()
