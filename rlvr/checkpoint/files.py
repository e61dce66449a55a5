"""Files that are whole or missed: fingerprints, what is wrong with a folder, writes that survive a power cut.

Standard library only; knows bytes, and nothing of what they mean.
"""

import hashlib
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Any

from rlvr.atomic import replace_text

Fingerprint = dict[str, Any]  # {"bytes": 1234, "sha256": "9f86..."}
MANIFEST = "manifest.json"


def fingerprint(path: Path) -> Fingerprint:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def write_manifest(folder: Path, known: dict[str, Fingerprint]) -> None:
    """Size and SHA-256 of every file in `folder`; those in `known`, by their path in it, are not read again. OSError
    when one of them is not there: it was written, but elsewhere."""
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    if elsewhere := sorted(set(known) - set(names)):
        raise OSError(
            f"{len(elsewhere)} of {len(known)} files that the trainer wrote are not in {folder} ({elsewhere[0]} ...): "
            "every node must see run.folder at the same place"
        )
    files = {name: known.get(name) or fingerprint(folder / name) for name in names}
    (folder / MANIFEST).write_text(json.dumps(files, indent=1))
    sync_all(folder)


def what_is_wrong(folder: Path) -> str | None:
    """The first damage found in a folder with a manifest, in words."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        return f"{MANIFEST}: {error}"
    with ThreadPoolExecutor() as threads:  # SHA-256 needs no lock of Python's: all cores, and whatever the disks can do
        found = next(filter(None, threads.map(damage, repeat(folder), manifest, manifest.values())), None)
        threads.shutdown(cancel_futures=True)  # the first is enough
    return found


def damage(folder: Path, name: str, expected: Fingerprint) -> str | None:
    """Of one file, in words."""
    try:
        found = fingerprint(folder / name)
    except FileNotFoundError:
        return f"{name} is missing"
    except (OSError, ValueError) as error:  # a bad block, or a name that a flipped bit made impossible
        return f"{name!r} cannot be read: {error}"
    if found["bytes"] != expected.get("bytes"):
        return f"{name} has {found['bytes']} bytes, not {expected.get('bytes')}"
    return f"{name} has other content than was written" if found != expected else None


def write_whole(path: Path, text: str) -> None:
    """`path` holds either what it held before, or all of `text`: that for good, once this returns."""
    replace_text(path, text)
    sync(path.parent)


def size(folder: Path) -> int:
    """Bytes of the files in it."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def sync_all(folder: Path) -> None:
    """All that is in it, and itself; it may then be renamed."""
    for path in (*folder.rglob("*"), folder):
        sync(path)


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
