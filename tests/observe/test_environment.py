"""What a run was made with, as far as this machine tells."""

import os
import re
import subprocess
from pathlib import Path

from rlvr.observe import environment


def program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def test_gpus_are_those_that_nvidia_smi_lists_and_a_broken_driver_has_none(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    program(tmp_path, "nvidia-smi", "echo 'NVIDIA H100, 81559, 580.1'; echo 'NVIDIA H100, 81559, 580.1'")
    assert environment.gpus() == [{"name": "NVIDIA H100", "memory_mb": "81559", "driver": "580.1"}] * 2
    program(tmp_path, "nvidia-smi", "echo failed; exit 9")
    assert environment.gpus() == []

    def hangs(*_, **__):
        raise subprocess.TimeoutExpired("nvidia-smi", 20)

    monkeypatch.setattr(environment.subprocess, "run", hangs)
    assert environment.gpus() == []


def test_the_commit_is_that_of_the_checkout_and_changes_of_tracked_files_show(tmp_path):
    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=b"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True)

    assert environment.checkout(tmp_path) is None
    git("init")
    assert environment.checkout(tmp_path) is None, "without a commit"
    (tmp_path / "a").write_text("1")
    git("add", "a"), git("commit", "-m", "one")
    found = environment.checkout(tmp_path)
    assert re.fullmatch("[0-9a-f]{40}", found["commit"]) and found["dirty"] is False
    (tmp_path / "untracked").write_text("")
    assert environment.checkout(tmp_path)["dirty"] is False
    (tmp_path / "a").write_text("2")
    assert environment.checkout(tmp_path)["dirty"] is True
