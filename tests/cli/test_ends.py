"""How a command ends: what its last line, its exit code and its folder say."""

import json
import os
import subprocess
import sys

import pytest

from rlvr import cli
from tests.cli.conftest import launched, refusal


@pytest.mark.parametrize("algorithm", ["dapo", "dr_grpo", "grpo", "grpo_no_kl"])
def test_a_dry_run_shows_the_plan_and_writes_nothing(capsys, tmp_path, inputs, monkeypatch, algorithm):
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    argv = [
        "train",
        "quickstart",
        *inputs,
        "steps=7",
        "trainer.learning_rate=2e-3",
        "--dry-run",
        f"algorithm={algorithm}",
    ]
    assert cli.main(argv) == 0
    said = capsys.readouterr().out
    assert said.startswith("quickstart\n")
    assert "3 prompts; 1 held out" in said
    assert "math x1, format x0.1" in said
    assert "16 prompts x 8 completions of <= 64 tokens at temperature 1" in said
    assert "7, learning rate 0.002 constant, seed 0" in said
    advantage, weighting = {
        "dapo": ("standardize", "token_mean"),
        "dr_grpo": ("center", "constant"),
    }.get(algorithm, ("standardize", "sequence_mean"))
    kl = ", kl KL" if algorithm == "grpo" else ""
    shaping = ", shaping overlong" if algorithm == "dapo" else ""
    assert f"advantage {advantage}, ratio token, surrogate clip, weighting {weighting}{kl}{shaping}\n" in said
    assert list(empty.iterdir()) == []


def test_a_dry_run_says_which_rows_would_be_left_out(capsys, tmp_path, inputs):
    rows = [{"problem": "1 + 1", "answer": "2"}, {"problem": "1 + 2", "answer": ""}]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert cli.main(["train", "quickstart", *inputs, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "1 prompts; 1 held out" in said
    left_out = "1 of 2 rows are left out, as their reference cannot be used"
    assert f"\nwarning: data.train={tmp_path / 'train.jsonl'}: {left_out}" in said


@pytest.mark.parametrize(("status", "code"), [("finished", 0), ("interrupted", 3), ("stopped", 3)])
def test_the_exit_code_says_how_a_run_ended_and_the_last_line_where_it_is(
    capsys, tmp_path, inputs, monkeypatch, status, code
):
    monkeypatch.chdir(tmp_path)
    launch = launched(monkeypatch, status)
    assert cli.main(["train", "quickstart", *inputs, "steps=5"]) == code
    assert launch.cfg.steps == 5
    assert capsys.readouterr().out.splitlines()[-1] == "Run folder: runs/quickstart-001"
    written = {path.name for path in (tmp_path / "runs" / "quickstart-001").iterdir()}
    assert written >= {"config.yaml", "environment.json", "metrics.jsonl", "events.jsonl", "summary.json"}


def test_errors_that_end_a_run_are_one_line_with_their_own_exit_code(capsys, tmp_path, inputs, monkeypatch):
    from rlvr.config import RunError

    monkeypatch.chdir(tmp_path)
    for error, code, line in (
        (RunError("no verdicts"), 1, "rlvr: no verdicts\n"),
        (KeyboardInterrupt(), 130, "rlvr: interrupted\n"),
    ):
        launched(monkeypatch, error)
        assert cli.main(["train", "quickstart", *inputs]) == code
        assert capsys.readouterr().err == line


def test_a_disk_that_fills_up_in_mid_run_is_no_bad_input_and_another_error_keeps_its_traceback(
    capsys, tmp_path, inputs, monkeypatch
):
    from rlvr.observe.files import RunFolderError

    monkeypatch.chdir(tmp_path)
    launched(monkeypatch, RunFolderError("no space left on device"))
    assert cli.main(["train", "quickstart", *inputs]) == 1
    assert capsys.readouterr().err == "rlvr: no space left on device\n"
    launched(monkeypatch, PermissionError(13, "Permission denied", "somewhere"))
    with pytest.raises(RuntimeError, match="PermissionError"):
        cli.main(["train", "quickstart", *inputs])


def test_a_start_that_the_disk_has_no_room_for_can_be_tried_again(tmp_path, inputs, monkeypatch):
    from rlvr.observe.runfolder import RunFolder, RunFolderError

    def full(self, text):
        raise RunFolderError("no space left on device")

    launched(monkeypatch, "finished")
    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "write_config", full)
        assert cli.main(["train", "quickstart", *inputs, f"run.folder={tmp_path / 'run'}"]) == 2
    assert cli.main(["train", "quickstart", *inputs, f"run.folder={tmp_path / 'run'}"]) == 0


@pytest.mark.parametrize(
    "words",
    [
        ["report", "{}"], ["checkpoints", "{}"], ["rescore", "{}"], ["resume", "{}"], ["rollback", "{}", "--to", "1"],
        ["train", "{}.yaml"], ["verifiers", "run", "math", "{}"], ["sentinel", "replay", "{}"],
        ["sentinel", "replay", "x", "--sentinel", "{}.yaml"], ["data", "check", "{}.jsonl", "--verifier", "math"],
        ["plan", "quickstart", "--model-config", "{}"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_the_operating_system_refuses_is_one_line_that_names_the_file(capsys, words):
    line = refusal(capsys, *(word.format("a" * 300) for word in words))
    assert "aaa" in line and "File name too long" in line


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0 and capsys.readouterr().out.startswith("rlvr ")


COMMAND = [sys.executable, "-m", "rlvr.cli"]


def test_a_reader_that_has_seen_enough_ends_a_command_in_silence():
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run([*COMMAND, "verifiers", "list"], stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (1, b"")


def test_an_output_that_cannot_be_written_is_one_line():
    with open("/dev/full", "w") as full:
        ended = subprocess.run([*COMMAND, "verifiers", "list"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert (ended.returncode, ended.stderr) == (2, b"rlvr: No space left on device\n")
