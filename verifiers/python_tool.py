"""A tool: it runs the Python of the last turn in a sandbox, and answers with what the program printed.

    rollout:
      stop: ["\\n```\\n"]
      tool: {name: "rlvr_verifiers.python_tool:python", before: "```output\\n", after: "\\n```\\n"}
"""

from rlvr_verifiers.code import MAX_PROGRAM, close_sandboxes, last_block, open_sandbox

from rlvr.sandbox import Job, Limits
from rlvr.verify import Sample, tool


def set_up(
    cpu_s: float = 2.0, memory_mb: int = 1024, min_level: str = "confined", allow_unsafe: bool = False
) -> None:
    """Refuses limits that cannot be kept, and a machine that protects itself less than `min_level`."""
    Limits(cpu_s=cpu_s, memory_mb=memory_mb)
    open_sandbox(min_level, allow_unsafe)


@tool("python", timeout_s=60.0, isolation="sandbox", setup=set_up, close=close_sandboxes)
def python(
    sample: Sample, cpu_s: float = 2.0, memory_mb: int = 1024, min_level: str = "confined", allow_unsafe: bool = False
) -> str | None:
    """What the last fenced block of Python prints, on stdout and then stderr, and how it ended unless that was well.
    Each call is a process of its own: nothing is remembered from one to the next. `cpu_s`, `memory_mb`: of a run.
    `min_level`: what the sandbox must be worth, as for the verifier `code`."""
    program = last_block(sample.completion)
    if program is None:
        return None
    if len(program) > MAX_PROGRAM:
        return f"error: {len(program)} characters > {MAX_PROGRAM}"
    limits = Limits(cpu_s=cpu_s, memory_mb=memory_mb)
    done = open_sandbox(min_level, allow_unsafe).run(Job({"mode": "script", "program": program}, limits=limits))
    if done.machine_failed:
        raise RuntimeError(f"the sandbox failed: {done.end} {done.detail}")
    printed = "".join(stream.decode(errors="replace") for stream in (done.stdout, done.stderr)).rstrip()
    return printed if done.end in ("ok", "nonzero_exit") else f"{printed}\nerror: {done.end}".lstrip()
