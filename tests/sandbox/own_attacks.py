"""Attacks of our own, for a machine without the shared data: one of each kind that matters. Standard library only.

What gets to see or to touch something says `opened /...` or `connected`, or changes a bait of `attacks.py`, which also
replaces HIDDEN, CANARY and PORT. None may pass for the sum of two numbers, but for the honest ones.
"""

from typing import Any

SPENT = ("cpu_limit", "timeout", "signal_SIGXCPU")
BROKEN = ("ok", "nonzero_exit", "signal_SIGSEGV", "signal_SIGKILL", *SPENT)
WRONG = "def add(a, b): return 0\n"
SYSCALL = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def call(x86, arm, *arguments):
    number = {"x86_64": x86, "aarch64": arm}.get(os.uname().machine)
    return -1 if number is None else libc.syscall(number, *arguments)
"""


def tried(body: str) -> str:
    """The body, whatever becomes of it, in front of a wrong answer."""
    lines = "".join(f"    {line}\n" for line in body.strip().splitlines())
    begin = "import functools, os, sys\nprint = functools.partial(print, flush=True)  # a call ends without a flush\n"
    return f"{begin}try:\n{lines}except BaseException as error:\n    print(type(error).__name__)\n{WRONG}"


# they get through where nothing holds them (a test sees to that)
OPEN = {
    "read the tests where they lie": "print(open(HIDDEN).read())",
    "read the tests from above": "[os.chdir('..') for _ in range(40)]; print(open(HIDDEN.lstrip('/')).read())",
    "read the tests by /proc": "print(open('/proc/self/root' + HIDDEN).read())",
    "overwrite a file": "open(CANARY, 'w').write('mine')",
    "write through a mapping": "import mmap\nm = mmap.mmap(os.open(CANARY, os.O_RDWR), 6)\nm[0:6] = b'mapped'",
    "connect to the host": "import socket; socket.create_connection(('127.0.0.1', PORT), 1); print('connected')",
    "send a datagram": "import socket; socket.socket(2, 2).sendto(b'here', ('127.0.0.1', PORT))",
    "wait for connections": "import socket; socket.create_server(('127.0.0.1', 0)); print('connected')",
    "become another program": "os.execv('/bin/echo', ['echo', 'opened /bin/echo'])",
    "ask a shell": "os.system('echo mine > ' + CANARY)",
    "start a program": "import subprocess; print(subprocess.check_output(['/bin/echo', 'opened /']))",
    "leave a process behind": """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open(CANARY, 'w').write('from afar')
    os._exit(0)
import time; time.sleep(0.3)""",
}

HELD = {
    "read the tests through a link": "os.symlink(HIDDEN, '/tmp/seen'); print(open('/tmp/seen').read())",
    "read the environment": "print(dict(os.environ))",
    "read the environment of its parent": "print('opened /proc', open(f'/proc/{os.getppid()}/environ').read())",
    "read the memory of its parent": "open(f'/proc/{os.getppid()}/mem', 'rb'); print('opened /proc')",
    "write the memory of its parent": "os.open(f'/proc/{os.getppid()}/mem', os.O_RDWR); print('opened /proc')",
    "find the tests in its own memory": """
import gc
print([o for o in gc.get_objects() if isinstance(o, (str, bytes, dict)) and 'SECRET' + '-VALUE' in repr(o)])""",
    "put a module where others import from": """
open(os.path.join(os.path.dirname(os.__file__), 'rlvr_was_here.py'), 'x'); print('opened /')""",
    "speak to a named socket": "import socket; socket.socket(1).connect('\\0rlvr-canary'); print('connected')",
    "speak to the kernel": "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW); print('connected')",
    "listen to the wire": "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW); print('connected')",
    "kill its parent": "import signal; os.kill(os.getppid(), signal.SIGKILL)",
    "stop its parent": "import signal; os.kill(os.getppid(), signal.SIGSTOP)",
    "share the work with children": "import multiprocessing as m; m.get_context('fork').Process(target=print).start()",
    "set the clock": "import time; time.clock_settime(time.CLOCK_REALTIME, time.time()); print('opened /dev/rtc')",
    "have no more files": "kept = []\nwhile True: kept.append(os.dup(1))",
    "a file without an end": "f = open('/tmp/large', 'wb')\nwhile True: f.write(bytes(1 << 20))",
    "a hole of a terabyte": "f = open('/tmp/hole', 'wb')\nf.seek(1 << 40); f.write(b'x'); f.close(); print('opened /')",
    "shadow modules for the next": "for name in ('json.py', 'random.py'): open(name, 'w').write('1 / 0')",
}

KERNEL = {
    "trace its parent": "if call(101, 117, 16, os.getppid(), 0, 0) == 0: print('opened /proc')",
    "read its parent's memory by a call": """
b = ctypes.create_string_buffer(8)
here = (ctypes.c_size_t * 2)(ctypes.addressof(b), 8)
if call(310, 270, os.getppid(), here, 1, here, 1, 0) > 0: print('opened /proc')""",
    "mount something": "if libc.mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0: print('opened /tmp')",
    "new namespaces": "if libc.unshare(0x10000000) == 0: print('opened /')",
    "a ring that the filter does not see": "if call(425, 425, 8, bytes(120)) >= 0: print('opened /')",
    "a program in the kernel": "if call(321, 280, 0, bytes(72), 72) >= 0: print('opened /')",
    "keys of the session": "if call(250, 219, 0, -3, 0) >= 0: print('opened /proc/keys')",
    "a handle instead of a path": "if call(303, 264, -100, b'/', bytes(136), bytes(4), 0) == 0: print('opened /')",
    "calls of another ABI": "if libc.syscall(0x40000000 + 41, 2, 1, 0) >= 0: print('connected')",
}

SPIN = "\nwhile True: pass\n"
ENDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "deaf to every signal": (
        "import signal\nfor s in set(range(1, 32)) - {9, 19}:\n    signal.signal(s, signal.SIG_IGN)\n" + SPIN, SPENT,
    ),
    "without an alarm": (f"import signal\nsignal.alarm(0); signal.setitimer(signal.ITIMER_PROF, 0){SPIN}", SPENT),
    "with a clock of its own": (f"import time\ntime.time = time.process_time = lambda: 0.0{SPIN}", SPENT),
    "with more time than it has": (
        f"import resource as r\ntry: r.setrlimit(r.RLIMIT_CPU, (999, 999))\nexcept Exception: pass{SPIN}", SPENT,
    ),
    "in many threads": (
        "import threading\ndef f():\n    while True: pass\nfor _ in range(4): threading.Thread(target=f).start()\nf()",
        SPENT,
    ),
    "in one match": ("import re\nre.match(r'(\\w+\\s?)+$', 'a' * 60 + '!')\n", SPENT),
    "standing still": ("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)\n", ("timeout",)),
    "a thread that outlives the answer": (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\n" + WRONG, ("ok", "timeout"),
    ),
    "a bomb of forks": ("import os\nwhile True: os.fork()\n", BROKEN),
    "all memory at once": ("kept = bytearray(1 << 40)\n" + WRONG, BROKEN),
    "all memory by and by": ("kept = []\nwhile True: kept.append(bytearray(1 << 20))\n", BROKEN),
    "memory that is mapped": ("import mmap\nkept = [mmap.mmap(-1, 1 << 30) for _ in range(64)]\n" + WRONG, BROKEN),
    "a number without an end": ("kept = str(7 ** (7 ** 8))\n" + WRONG, BROKEN),
    "deeper than the stack": ("import sys\nsys.setrecursionlimit(1 << 30)\ndef f(x): return f([x])\nf(1)\n", BROKEN),
    "nothing at address 0": ("import ctypes\nctypes.string_at(0)\n", BROKEN),
    "more brackets than a parser takes": ("(" * 100_000 + ")" * 100_000, BROKEN),
    "an answer without an end": ("def add(a, b): return 'x' * (1 << 28)\n", ("output_limit", *BROKEN)),
    "an answer in itself": ("def add(a, b):\n    x = []\n    x.append(x)\n    return x\n", BROKEN),
    "an answer too deep to read": (
        "def add(a, b):\n    x = 3\n    for _ in range(100_000): x = [x]\n    return x\n", BROKEN,
    ),
    "a number too long to read": ("def add(a, b): return 10 ** 100_000\n", BROKEN),
    "an answer that is code to whom unpickles it": (
        "class Sum:\n    def __init__(s, a, b): s.of = (a, b)\n"
        "    def __reduce__(s): return sum, (s.of,)\ndef add(a, b): return Sum(a, b)\n", ("ok",),
    ),
    "half a character": ("def add(a, b): return '\\ud800' + chr(0)\n", ("ok", "nonzero_exit")),
}  # fmt: skip

STREAMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "one answer for all": ("print(3)", ("ok",)),
    "the question for an answer": ("import sys; print(sys.stdin.read())", ("ok",)),
    "every number there is": ("for n in range(30): print(n)", ("ok",)),
    "right, and failed": ("a, b = map(int, input().split()); print(a + b); raise SystemExit(1)", ("nonzero_exit",)),
    "right, and killed": (
        "import os\na, b = map(int, input().split()); print(a + b, flush=True); os.kill(os.getpid(), 9)",
        ("signal_SIGKILL",),
    ),
    "right, and more": ("a, b = map(int, input().split()); print(a + b); print(a - b)", ("ok",)),
    "right in other digits": ("a, b = map(int, input().split()); print(chr(0xFF10 + (a + b) % 10))", ("ok",)),
    "no text at all": ("import os; os.write(1, bytes(range(128, 256)))", ("ok",)),
    "right on the other stream": ("import os\na, b = map(int, input().split()); os.write(2, b'%d' % (a + b))", ("ok",)),
    "written to its own input": ("import os\ntry: os.write(0, b'3')\nexcept OSError: pass\nprint(input())", ("ok",)),
}  # fmt: skip

HONEST = {
    "threads": (
        "func",
        "import threading\ndef add(a, b):\n    r = []\n    t = threading.Thread(target=lambda: r.append(a + b))\n"
        "    t.start(); t.join()\n    return r[0]\n",
    ),
    "a deep recursion": (
        "func",
        "import sys\nsys.setrecursionlimit(20_000)\ndef f(n): return n and 1 + f(n - 1)\n"
        "def add(a, b): return a + b + f(9_000) - 9_000\n",
    ),
    "an early end": ("stdio", "import sys\na, b = map(int, input().split()); print(a + b); sys.exit(0)"),
    "noise beside": ("stdio", "import os\nos.write(2, b'\\xff' * 999)\na, b = map(int, input().split()); print(a + b)"),
}


def attack(
    name: str, program: str, expect: tuple[str, ...], mode: str = "func", must: str = "not_pass"
) -> dict[str, Any]:
    return {"id": f"own: {name}", "mode": mode, "code": program, "expect": list(expect), "must": must}


LEFT_TO_ITSELF = [attack(name, tried(body), ("ok",)) for name, body in OPEN.items()]
OWN = [
    *LEFT_TO_ITSELF,
    *(attack(name, tried(body), (*BROKEN, "output_limit")) for name, body in HELD.items()),
    *(attack(name, SYSCALL + tried(body), ("ok", "signal_SIGSYS")) for name, body in KERNEL.items()),
    *(attack(name, *of) for name, of in ENDS.items()),
    *(attack(name, *of, mode="stdio") for name, of in STREAMS.items()),
    *(attack(f"honest with {name}", code, ("ok",), mode, "pass") for name, (mode, code) in HONEST.items()),
]
