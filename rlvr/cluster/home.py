"""Where the driver works. A Ray that was started elsewhere starts its actors there: they come home first, so that the
recipe's relative paths, and modules of the user's own, mean the same to all.
"""

import os
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Home:
    folder: str
    path: tuple[str, ...]  # what is imported from, besides what is installed
    behind: tuple[str, ...] = ()  # of these, those behind the library: no file of the user's own may hide a part of it

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
