"""A file that is replaced whole, or not at all. Standard library only; knows text, and nothing of what it means."""

import os
from collections.abc import Iterable
from pathlib import Path

ESCAPED = "backslashreplace"  # half a surrogate pair has no UTF-8; in JSON the backslash escape means the same


def replace_text(path: Path, text: str | Iterable[str]) -> None:
    """The file holds all of `text`, or of its pieces, or what it held before, even after a power cut; which of the two
    then, only a sync of its folder makes sure. What cannot be written leaves nothing behind."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # several processes may write the same report
    try:
        with aside.open("w", encoding="utf-8", errors=ESCAPED, newline="\n") as file:
            file.writelines([text] if isinstance(text, str) else text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
