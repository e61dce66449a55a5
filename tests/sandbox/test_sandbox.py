"""What a job gets, what ends it, and what the level says: each layer taken away shows in what the canaries observe."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from rlvr import cli
from rlvr.sandbox import Job, Level, Limits, Refused, Sandbox
from rlvr.sandbox.seccomp import for_process, program
from rlvr.sandbox.syscalls import ARCHITECTURES
from tests.sandbox.attacks import descendants


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(slots=2) as sandbox:
        yield sandbox


def script(text: str, stdin: bytes = b"", **limits) -> Job:
    return Job({"mode": "script", "program": text}, stdin, Limits(**limits))


def test_a_program_gets_its_input_and_gives_its_output(sandbox):
    result = sandbox.run(script("import sys\nprint(int(input()) + 1)\nprint('noise', file=sys.stderr)", b"41\n"))
    assert (result.end, result.exit_code, result.stdout, result.stderr) == ("ok", 0, b"42\n", b"noise\n")
    assert 0 < result.cpu_s < 1 and result.memory_mb > 1 and result.ok


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("raise ValueError('x')", "nonzero_exit"),
        ("import sys; sys.exit(3)", "nonzero_exit"),
        ("import os; os._exit(0)", "ok"),
        ("while True: pass", "cpu_limit"),
        ("9 ** 9 ** 9", "cpu_limit"),
        ("import time; time.sleep(100)", "timeout"),
        ("while True: print('x' * 1000)", "output_limit"),
        ("import os\nwhile True: os.write(3, b'x' * 10000)", "output_limit"),
        ("import os; os.abort()", "signal_SIGABRT"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "signal_SIGKILL"),
        ("bytearray(1 << 33)", "nonzero_exit"),
        ("import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(9,)).start()", None),
    ],
)
def test_each_end_has_its_name(sandbox, text, end):
    result = sandbox.run(script(text, cpu_s=0.4))
    assert result.end == end or (end is None and result.end in ("thread_limit", "nonzero_exit", "timeout"))
    assert result.ok == (end == "ok")


def test_a_slow_machine_is_not_held_against_a_program(sandbox):
    """With every core busy many times over, a program that needs half of its CPU time gets to its end."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4 * (os.cpu_count() or 1))]
    try:
        text = "import time\nwhile time.process_time() < 0.2: pass\nprint('done')"
        assert sandbox.run(script(text, cpu_s=0.4, wall_factor=2)).stdout == b"done\n"
    finally:
        for process in busy:
            process.kill()
            process.wait()


def test_nothing_of_one_job_is_there_for_the_next(sandbox):
    leave = "import json, sys, builtins\nopen('/tmp/left', 'w').write('x')\njson.x = builtins.x = sys.x = 1"
    look = "import json, sys, builtins, os\nprint(os.listdir('/tmp'), [hasattr(m, 'x') for m in (json, sys, builtins)])"
    if sandbox.level < Level.ISOLATED:
        leave, look = leave.replace("open('/tmp/left', 'w').write('x')", ""), look.replace("os.listdir('/tmp')", "[]")
    for _ in range(3):
        assert sandbox.run(script(leave)).end == "ok"
        assert sandbox.run(script(look)).stdout == b"[] [False, False, False]\n"


def test_two_runs_of_a_program_agree(sandbox):
    text = "import random\nprint(random.random(), hash('x'), list({'a', 'b', 'c'}))"
    assert len({sandbox.run(script(text)).stdout for _ in range(3)}) == 1


def test_what_honest_programs_use_works(sandbox):
    text = """
import asyncio, threading, tempfile, sqlite3, decimal, zoneinfo, concurrent.futures, ctypes, xml.etree.ElementTree
async def main():
    return await asyncio.gather(*(asyncio.sleep(0, i) for i in range(3)))
assert asyncio.run(main()) == [0, 1, 2]
with concurrent.futures.ThreadPoolExecutor(2) as pool:
    assert list(pool.map(abs, [-1, 2])) == [1, 2]
open('/dev/null', 'w').write('x')
assert sqlite3.connect(':memory:').execute('select 1 + 1').fetchone() == (2,)
print('fine')
"""
    result = sandbox.run(script(text, cpu_s=5))
    assert result.stdout == b"fine\n", result.stderr.decode()


SQUARE = "n = int(input())\n"
FAST_IO = """
import os, sys
from io import BytesIO, IOBase
class FastIO(IOBase):
    def __init__(self, file):
        self.fd, self.buffer = file.fileno(), BytesIO()
        self.writable = 'x' in file.mode or 'r' not in file.mode
        self.write = lambda text: self.buffer.write(text.encode())
    def flush(self):
        os.write(self.fd, self.buffer.getvalue())
        self.buffer.truncate(0), self.buffer.seek(0)
FastIO(sys.stdin)
sys.stdout = FastIO(sys.stdout)
print(n * n)
"""
WAYS_TO_PRINT = [
    "print(n * n)\nexit()",
    "print(n * n)\nquit(0)",
    "import sys\nprint(n * n)\nsys.stdout.close()",
    "import sys\nwith sys.stdout as f: f.write(str(n * n))",
    "import atexit, io, sys\nsys.stdout = out = io.StringIO()\n"
    "atexit.register(lambda: sys.__stdout__.write(out.getvalue()))\nprint(n * n)",
    "out = open(1, 'w')\nout.write(str(n * n))",
    "import os\nout = os.fdopen(1, 'wb')\nout.write(str(n * n).encode())",
    "def main():\n    out = open(1, 'w')\n    out.write(str(n * n))\n    exit()\nmain()",
    "print(n - 1, end='')\nout = open(1, 'w')\nout.write(str(n * n)[1:])",
    "import io, sys\nout = sys.stdout\nout.write(str(n * n))\nsys.stdout = io.StringIO()",
    "class Last:\n    def __del__(self): print(81)\nlast = Last()",
    "import sys\nclass Last:\n    def __del__(self): sys.stdout.write(str(total))\nlast, total = Last(), n * n\nexit()",
    "import io, sys\nsys.stdout = io.TextIOWrapper(sys.stdout.detach(), encoding='utf-8')\nprint(n * n)",
    "import codecs, sys\nsys.stdout = codecs.getwriter('utf-8')(sys.stdout.detach())\nsys.stdout.write(str(n * n))",
    "import io, sys\nsys.stderr = io.TextIOWrapper(sys.stderr.detach())\nprint(n * n)",
    "import sys\nprint(n * n)\ndel sys.__stdout__, sys.stderr, sys.__stderr__",
    "import os\nos.path.abspath(__file__)\nprint(n * n)\nassert help",
    "import resource\nresource.setrlimit(resource.RLIMIT_STACK, (-1, -1))\nprint(n * n)",
    FAST_IO,
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS_TO_PRINT, ids=range(len(WAYS_TO_PRINT)))
def test_what_is_printed_in_any_way_arrives_as_from_the_interpreter(sandbox, way):
    result = sandbox.run(script(SQUARE + way, b"9\n"))
    assert (result.end, result.stdout.strip(), result.stderr) == ("ok", b"81", b""), result


def test_an_end_that_is_none_of_the_interpreters_is_said(sandbox):
    """What is dropped at the end says nothing; what could not be flushed ends as in the interpreter."""
    quiet = "import sys, threading\nclass A:\n    def __del__(self): sys.nothing\na = A()\nsys.stderr.write('!')"
    assert sandbox.run(script(quiet)).stderr == b"!"
    lost = sandbox.run(script("import os\nprint(1)\nos.close(1)"))
    assert (lost.end, lost.exit_code) == ("nonzero_exit", 120)


def test_numpy_is_there_where_it_is_installed(sandbox):
    pytest.importorskip("numpy")
    text = "import numpy as np\nimport numpy.testing\nprint(np.linalg.solve(np.eye(2), [3, 4]).sum())"
    assert sandbox.run(script(text, cpu_s=5)).stdout == b"7.0\n"


def test_packages_are_there_wherever_the_environment_lies(monkeypatch):
    """In /tmp, for one: a program gets a /tmp of its own, and that is empty."""
    package = Path(tempfile.mkdtemp(dir="/tmp")) / "elsewhere"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "late.py").write_text("answer = 42")
    monkeypatch.setattr("rlvr.sandbox.sandbox.numpy_packages", lambda: (str(package),))
    try:
        with Sandbox() as own:
            said = own.run(script("import os\nfrom elsewhere.late import answer\nprint(answer, os.listdir('/tmp'))"))
        assert said.stdout == b"42 []\n", said.stderr
    finally:
        shutil.rmtree(package.parent)


def test_other_packages_are_not_there(sandbox):
    for name in ("torch", "rlvr_recipes", "pytest", "yaml"):
        assert b"No module named" in sandbox.run(script(f"import {name}")).stderr


ESCAPES = {
    "signals by file ownership": "import fcntl, os\nr, w = os.pipe()\nfcntl.fcntl(r, 8, os.getppid())",
    "another signal than SIGIO": "import fcntl, os\nr, w = os.pipe()\nfcntl.fcntl(r, 10, 9)",
    "a new mode for a file of the host": "import os\nos.chmod(os.__file__, 0o777)",
    "another time for a file of the host": "import os\nos.utime(os.__file__, (0, 0))",
    "cutting off a file": "import os\nos.truncate(os.__file__, 0)",
    "opening and cutting off": "import os\nos.open(os.__file__, os.O_RDONLY | os.O_TRUNC)",
    "a datagram to a named socket": (
        "import socket\na, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\na.sendto(b'x', '/dev/log')"
    ),
    "memory without a limit": "import os\nos.memfd_create('x')",
    "limits of the parent": "import os, resource\nresource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (0, 0))",
    "limits that rise": "import resource\nresource.setrlimit(resource.RLIMIT_AS, (1 << 50, 1 << 50))",
    "a child by vfork": "import subprocess\nsubprocess.Popen(['/bin/true'])",
    "a child by posix_spawn": "import os\nos.posix_spawn('/bin/true', ['true'], {})",
    "an inotify watch on the host": (
        "import ctypes\nif ctypes.CDLL(None, use_errno=True).inotify_init() < 0: raise OSError(ctypes.get_errno(), '')"
    ),
    "the group of the parent": "import os\nos.setpgid(0, os.getpgid(os.getppid()))",
    "a lower priority, to look starved": "import os\nos.nice(19)",
    "the interpreter's sources": "import os\nopen(os.__file__, 'r+')",
    "the tests of this project": f"open({__file__!r})",
    "descriptors of the server": (
        "import os\nfor d in range(4, 300):\n    try: os.fstat(d)\n    except OSError: continue\n    print(d)\n"
        "raise PermissionError"
    ),
    "process information": "open('/proc/self/status')",
}


@pytest.mark.parametrize("way", ESCAPES)
@pytest.mark.parametrize("private", [True, False], ids=["isolated", "confined"])
def test_no_way_out(sandbox, confined, way, private):
    result = (sandbox if private else confined).run(script(ESCAPES[way]))
    assert (result.end, result.stdout) == ("nonzero_exit", b""), result
    assert any(word in result.stderr for word in (b"PermissionError", b"OSError", b"FileNotFoundError", b"ValueError"))


@pytest.fixture(scope="module")
def confined():
    with Sandbox(without=["namespaces"]) as sandbox:
        assert sandbox.level == Level.CONFINED
        yield sandbox


@pytest.mark.parametrize(
    ("without", "level"),
    [
        (["namespaces"], Level.CONFINED),
        (["namespaces", "landlock"], Level.FILTERED),
        (["namespaces", "landlock", "seccomp"], Level.LIMITED),
        (["seccomp"], Level.LIMITED),
    ],
    ids=["confined", "filtered", "limited", "limited by no seccomp"],
)
def test_the_level_is_what_canaries_observe(without, level):
    with Sandbox(without=without, min_level="limited", allow_unsafe=True) as weaker:
        assert weaker.level == level
        assert weaker.run(script("print(1 + 1)")).level == level
        assert weaker.run(script("import os\nif os.fork(): print(os.getpid())\nos._exit(0)")).end != "machinery"
        assert len(descendants()) < 40


@pytest.mark.parametrize(
    ("without", "options", "said"),
    [
        (["namespaces", "landlock"], {}, "filtered below min_level=confined; programs could: read"),
        (["namespaces"], {"min_level": "isolated"}, "confined below min_level=isolated"),
        (["namespaces", "landlock", "seccomp"], {"min_level": "limited"}, "needs allow_unsafe=true"),
    ],
    ids=["filtered", "confined", "limited"],
)
def test_a_level_that_is_too_low_is_refused_with_what_was_observed(without, options, said):
    before = descendants()
    with pytest.raises(Refused, match=said):
        Sandbox(without=without, **options).start()
    assert descendants() == before


def test_an_unknown_level_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match="min_level=hermetic: one of limited, filtered, confined, isolated"):
        Sandbox(min_level="hermetic")


def test_a_slot_that_is_killed_is_replaced(sandbox):
    assert sandbox.run(script("print(1)")).ok
    for slot in sandbox._idle:
        slot._process.send_signal(signal.SIGKILL)
        slot._process.wait()
    assert sandbox.run(script("print(2)")).stdout == b"2\n"


def test_a_slot_that_is_lost_leaves_no_descriptor(sandbox):
    assert sandbox.run(script("print(1)")).ok
    before = len(os.listdir("/proc/self/fd"))
    for slot in sandbox._idle:
        os.killpg(slot._process.pid, signal.SIGKILL)
        slot._process.wait()
    assert sandbox.run(script("print(2)")).ok
    assert len(os.listdir("/proc/self/fd")) <= before


def test_the_time_that_we_take_ourselves_is_not_the_programs(sandbox):
    def slow(who: int, message: object) -> list[tuple[int, object]]:
        while message == ["ready"] and time.monotonic() < end:
            pass
        return [(0, None)] if message == ["ready"] else []

    end = time.monotonic() + 0.3
    job = Job({"mode": "serve", "program": ""}, limits=Limits(cpu_s=0.1, wall_factor=1.0))
    result = sandbox.run_together([job], slow)[0]
    assert result.end == "ok" and result.own_s < 0.1 and time.monotonic() > end, result


def test_many_threads_may_share_a_sandbox(sandbox):
    said: list[bytes] = []

    def run(number: int) -> None:
        said.append(sandbox.run(script(f"print({number})")).stdout)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(int(text) for text in said) == list(range(12))


def test_a_closed_sandbox_leaves_no_process():
    before = descendants()
    with Sandbox() as own:
        own.run(script("print(1)"))
        assert descendants() > before
    assert descendants() == before


def test_slots_end_with_the_process_that_asked(tmp_path):
    """However it ends: here by SIGKILL, in the middle of a job."""
    text = (
        "import os, threading, time\nfrom rlvr.sandbox import *\nbox = Sandbox().__enter__()\n"
        "job = Job({'mode': 'script', 'program': 'while True: pass'}, limits=Limits(cpu_s=100))\n"
        "threading.Thread(target=box.run, args=(job,), daemon=True).start()\ntime.sleep(0.5)\nprint('up', flush=True)\n"
        "time.sleep(100)\n"
    )
    before = descendants()
    judge = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE)
    assert judge.stdout is not None and judge.stdout.readline() == b"up\n"
    family = descendants() - before - {judge.pid}
    judge.kill()
    judge.wait()
    judge.stdout.close()
    deadline = time.monotonic() + 20
    while alive := [pid for pid in family if is_fork_server(pid)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.05)


def is_fork_server(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return b"rlvr.sandbox.zygote" in file.read()
    except OSError:
        return False


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_filter_is_well_formed_on_every_architecture_we_know(name):
    arch = ARCHITECTURES[name]
    for own_files in (True, False):
        for governed in (True, False):
            code = program(arch, own_files, governed)
            assert len(code) % 8 == 0 and len(code) // 8 < 4096
            assert for_process(code, 4242).count((4242).to_bytes(4, "little")) == 3  # kill, tgkill, prlimit64
    for name_of_call in ("fork", "execve", "socket", "ptrace", "bpf", "mount", "io_uring_setup", "memfd_create"):
        assert name_of_call not in arch.allowed


@pytest.mark.parametrize(
    "words",
    [
        *(["--cpu-s", value] for value in ("0", "-1", "nan", "inf", "1e9")),
        *(["--memory-mb", value] for value in ("0", "-1", "99999999999")),
    ],
)
def test_limits_that_are_none_are_refused_in_one_line(tmp_path, capsys, words):
    (tmp_path / "a.py").write_text("print(1)")
    assert cli.main(["sandbox", "run", str(tmp_path / "a.py"), *words]) == 2
    said = capsys.readouterr().err
    knob = words[0].removeprefix("--").replace("-", "_")
    assert said.startswith(f"rlvr: {knob}=") and said.count("\n") == 1


@pytest.mark.parametrize(("words", "code"), [([], 0), (["--without", "namespaces", "--min-level", "isolated"], 2)])
def test_the_doctor_says_what_the_probe_says(capsys, words, code):
    said = []
    for command in (["doctor"], ["sandbox", "probe"]):
        assert cli.main([*command, *words]) == code
        said.append(capsys.readouterr())
    assert said[0] == said[1]
    assert said[0].out.startswith("sandbox level: ") or "below min_level=isolated" in said[0].err


@pytest.mark.parametrize(("code", "ended", "end"), [(0, 0, "ok"), (3, 1, "nonzero_exit")])
@pytest.mark.parametrize("piped", [False, True])
def test_a_program_is_run_from_the_command_line(tmp_path, capsys, monkeypatch, code, ended, end, piped):
    text = "import sys\nprint(input()[::-1])\nsys.exit(int(input()))\n"
    (tmp_path / "a.py").write_text(text)
    (tmp_path / "in").write_text(f"abc\n{code}\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    source = "-" if piped else str(tmp_path / "a.py")
    assert cli.main(["sandbox", "run", source, "--stdin", str(tmp_path / "in"), "--cpu-s", "1"]) == ended
    said = json.loads(capsys.readouterr().out)
    assert (said["end"], said["exit_code"], said["stdout"]) == (end, code, "cba\n")
    assert said["limits"]["cpu_s"] == 1 and said["level"] in ("confined", "isolated")


def test_a_program_that_is_not_there_is_a_line(tmp_path, capsys):
    (tmp_path / "a.py").touch()
    for words in (["nowhere.py"], [str(tmp_path / "a.py"), "--stdin", "nowhere"]):
        assert cli.main(["sandbox", "run", *words]) == 2
        assert capsys.readouterr().err.startswith("rlvr: ")
