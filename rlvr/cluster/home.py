"""Where the driver works. A Ray that was started elsewhere starts its actors there: they come home first, so that the
recipe's relative paths, and modules of the user's own, mean the same to all.
"""

import getpass
import os
import re
import sys
import sysconfig
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Home:
    folder: str
    path: tuple[str, ...]  # what is imported from, besides what is installed
    behind: tuple[str, ...] = ()  # of these, those behind the library: no file of the user's own may hide a part of it
    temporary: str = ""  # for what libraries leave behind where their process is killed, as an actor's always is

    @classmethod
    def here(cls) -> "Home":
        installed = {"site-packages", "dist-packages"}  # each node has its own
        library = sysconfig.get_path("stdlib")
        folders = [Path(entry).absolute() for entry in sys.path]
        ours = [not installed & set(p.parts) and not p.is_relative_to(library) for p in folders]
        own = list(dict.fromkeys(str(p) for p, mine in zip(folders, ours, strict=True) if mine))
        first = next((n for n, p in enumerate(folders) if p.is_relative_to(library)), 0)
        return cls(os.getcwd(), tuple(own), tuple(entry for entry in own if entry not in map(str, folders[:first])))

    def enter(self) -> None:
        """As far as these folders are on this node."""
        if os.path.isdir(self.folder):
            os.chdir(self.folder)
        there = [entry for entry in sys.path if entry not in self.behind]  # Ray puts the driver's folder first
        sys.path[:] = [*there, *(entry for entry in self.path if entry not in there and os.path.exists(entry))]
        if self.temporary:
            with suppress(OSError):  # another node may have no such place: then its own
                os.makedirs(self.temporary, mode=0o700, exist_ok=True)
                os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", inductor_cache())  # what is compiled outlives a run
                os.environ["TMPDIR"] = tempfile.tempdir = self.temporary


def inductor_cache() -> str:
    """Where torch keeps what it has compiled, unless it is told. Without torch, which not every actor imports."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = f"uid_{os.getuid()}"
    return os.path.join(tempfile.gettempdir(), "torchinductor_" + re.sub(r'[\\/:*?"<>|]', "_", user))
