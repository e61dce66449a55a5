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

    @classmethod
    def here(cls) -> "Home":
        installed = {"site-packages", "dist-packages"}  # each node has its own
        library = sysconfig.get_path("stdlib")
        folders = [Path(entry).absolute() for entry in sys.path]
        own = [p for p in folders if not installed & set(p.parts) and not p.is_relative_to(library)]
        return cls(os.getcwd(), tuple(dict.fromkeys(map(str, own))))

    def enter(self) -> None:
        """As far as these folders are on this node. For what this process starts, too."""
        if os.path.isdir(self.folder):
            os.chdir(self.folder)
        missing = [entry for entry in self.path if entry not in sys.path and os.path.isdir(entry)]
        sys.path += missing
        if missing:
            os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), *missing)))
