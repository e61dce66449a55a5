"""Compiled extensions, one process at a time. Knows torch's lock file; knows no DeepSpeed.

Torch guards a build with a file that it creates and removes. A process killed in between leaves it behind, and every
later one would wait for ever. The kernel takes our own lock from the dead; who holds it may remove the file.
"""

import fcntl
import hashlib
import os
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def home() -> Path:
    """Within the environment, to live and die with it.

    The path is part of how an extension is compiled: with one folder for an environment that is reached by two, through
    a link, each would compile anew in turn.
    """
    prefix = Path(sys.prefix)
    linked = "" if prefix.resolve() == prefix else "-" + hashlib.sha256(str(prefix).encode()).hexdigest()[:8]
    return prefix / f"torch_extensions{linked}"


def with_own_tools(path: str) -> str:
    """`path` with the programs of this environment first. Another ninja than the one that compiled an extension would
    compile it anew, and one that is only here would not be found."""
    ours = sysconfig.get_path("scripts")
    return path if path.split(os.pathsep)[0] == ours else os.pathsep.join(filter(None, (ours, path)))


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Nobody else that asks is in `folder` meanwhile, and no lock of the dead is left in it."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".alone", "w") as ours:
        fcntl.flock(ours, fcntl.LOCK_EX)
        for left_behind in folder.glob("*/lock"):
            left_behind.unlink(missing_ok=True)
        yield
