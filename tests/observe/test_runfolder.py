"""A run folder tells the truth after any crash."""

import errno
import fcntl
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlvr.observe import files
from rlvr.observe.files import JsonLines, to_json, write_atomic
from rlvr.observe.runfolder import RunFolder, RunFolderError
from rlvr.observe.summary import Summary
from tests.builders import group, prompt


def steps(folder: RunFolder) -> list[int]:
    return [row["step"] for row in folder.read_metrics()]


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    folder.write_config("name: toy\n")
    yield folder
    folder.close()


def test_fresh_takes_the_number_after_the_highest_that_is_there(tmp_path):
    (tmp_path / "toy-007").mkdir()
    (tmp_path / "toy-late-012").mkdir()  # another recipe
    (tmp_path / "toy-x").mkdir()
    made = [RunFolder.fresh("toy", tmp_path) for _ in range(2)]
    assert [folder.path.name for folder in made] == ["toy-008", "toy-009"]
    for folder in made:
        folder.close()


def test_fresh_makes_its_parent(tmp_path):
    folder = RunFolder.fresh("toy", tmp_path / "deep" / "runs")
    assert folder.path == tmp_path / "deep" / "runs" / "toy-001"
    folder.close()


def test_create_refuses_a_folder_with_a_run_and_says_how_to_go_on(folder):
    path = folder.path
    folder.close()
    with pytest.raises(RunFolderError, match=r"already holds a run.*rlvr resume .*run\.folder"):
        RunFolder.create(path)


@pytest.mark.parametrize("name", ["config.yaml", "metrics.jsonl", "events.jsonl", "summary.json"])
def test_any_file_of_a_run_makes_a_folder_one(tmp_path, name):
    (tmp_path / name).write_text("")
    with pytest.raises(RunFolderError, match=rf"already holds a run \({name}\)"):
        RunFolder.create(tmp_path)


def test_create_accepts_a_folder_with_other_files(tmp_path):
    (tmp_path / "slurm-17.out").write_text("hello")
    RunFolder.create(tmp_path).close()
    assert (tmp_path / "slurm-17.out").read_text() == "hello"


def test_open_refuses_a_folder_without_a_run(tmp_path):
    with pytest.raises(RunFolderError, match=r"is no run folder: it has no config\.yaml"):
        RunFolder.open(tmp_path)


def test_a_place_that_cannot_be_made_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match=r"cannot use .*file/run.*run\.folder=<path>"):
        RunFolder.create(tmp_path / "file" / "run")


def test_rows_come_back_as_they_were_logged_nan_and_inf_included(folder):
    folder.log(1, {"accuracy": 0.5, "policy/loss": math.nan, "policy/grad_norm": math.inf, "tokens/sampled": 7})
    row = folder.read_metrics()[0]
    assert math.isnan(row.pop("policy/loss"))
    assert row == {"step": 1, "accuracy": 0.5, "policy/grad_norm": math.inf, "tokens/sampled": 7}
    line = (folder.path / "metrics.jsonl").read_text()
    json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_every_step_is_logged_once(folder):
    folder.log(1, {})
    folder.log(2, {})
    for again in (1, 2):
        with pytest.raises(ValueError, match=f"step {again} is already in .*undo_after\\({again - 1}\\)"):
            folder.log(again, {})
    assert steps(folder) == [1, 2]


def test_steps_after_a_rollback_are_taken_again_and_stay_unique(folder):
    for step in (1, 2, 3, 4):
        folder.log(step, {"accuracy": 0.1})
        folder.write_completions(step, [])
    folder.undo_after(2, "rollback", {"step": 5, "accuracy": 0.0})
    left = sorted(path.name for path in (folder.path / "completions").iterdir())
    assert left == ["step-000001.jsonl", "step-000002.jsonl"]
    folder.log(3, {"accuracy": 0.9})
    assert [(row["step"], row["accuracy"]) for row in folder.read_metrics()] == [(1, 0.1), (2, 0.1), (3, 0.9)]
    undone = [json.loads(line) for line in (folder.path / "undone.jsonl").read_text().splitlines()]
    assert [(row["step"], row["accuracy"]) for row in undone] == [(3, 0.1), (4, 0.1), (5, 0.0)]
    assert {row["undone_by"] for row in undone} == {"rollback"}


def test_truncating_to_where_it_is_changes_nothing(folder):
    folder.log(1, {"accuracy": 0.1})
    before = (folder.path / "metrics.jsonl").stat().st_ino
    folder.undo_after(1, "begin")
    assert (folder.path / "metrics.jsonl").stat().st_ino == before


def test_truncating_to_step_0_forgets_all_steps_and_no_event(folder):
    folder.log(1, {})
    folder.event("rollback", "gone", step=1, to=0)
    folder.undo_after(0, "rollback")
    folder.log(1, {})
    assert steps(folder) == [1]
    assert [event["kind"] for event in folder.read_events()] == ["rollback"]


@pytest.mark.parametrize("torn", ['{"step": 3, "accu', '{"step": 3}', "\xff"])
def test_a_last_line_without_its_end_is_cut_when_the_run_is_opened(folder, torn):
    for step in (1, 2):
        folder.log(step, {})
    folder.event("evaluation", "half", step=0)
    folder.close()
    for name in ("metrics.jsonl", "events.jsonl"):
        with (folder.path / name).open("ab") as file:
            file.write(torn.encode("latin-1"))
    again = RunFolder.open(folder.path)
    assert steps(again) == [1, 2]
    again.log(3, {"accuracy": 1.0})
    assert steps(again) == [1, 2, 3]
    assert len(again.read_events()) == 1
    again.close()


def test_a_resume_goes_on_after_the_last_logged_step(folder):
    folder.log(5, {})
    folder.close()
    again = RunFolder.open(folder.path)
    with pytest.raises(ValueError, match="step 5 is already"):
        again.log(5, {})
    again.close()


def test_a_second_process_is_refused_and_let_in_once_the_first_has_gone(folder):
    script = f"from rlvr.observe.runfolder import RunFolder; RunFolder.open({str(folder.path)!r})"
    refused = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert refused.returncode != 0
    assert "another process is running in this run folder" in refused.stderr.splitlines()[-1]
    folder.close()
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_two_runs_that_start_together_get_two_folders(tmp_path, monkeypatch):
    mkdir = Path.mkdir

    def raced(path, *args, **kw):
        if path.name == "toy-001" and not path.exists():
            mkdir(path)  # the other one was a moment faster
        return mkdir(path, *args, **kw)

    monkeypatch.setattr(Path, "mkdir", raced)
    folder = RunFolder.fresh("toy", tmp_path)
    folder.close()
    assert folder.path.name == "toy-002"


def test_a_file_system_without_locks_is_gone_on_with(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", none)
    folder = RunFolder.create(tmp_path / "run")
    folder.log(1, {"accuracy": 0.5})
    folder.close()
    assert steps(folder) == [1]


def test_a_killed_process_leaves_no_lock(folder):
    folder.close()
    script = (
        f"import os, signal; from rlvr.observe.runfolder import RunFolder; f = RunFolder.open({str(folder.path)!r}); "
        "f.log(1, {}); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9
    again = RunFolder.open(folder.path)
    assert steps(again) == [1]
    again.close()


def test_completions_are_recorded_with_prompt_verdict_and_advantage(folder):
    verified = group([1.0, None], of=prompt(4))
    folder.write_completions(12, [verified], [[0.5, 0.0]])
    lines = (folder.path / "completions" / "step-000012.jsonl").read_text().splitlines()
    first, second = map(json.loads, lines)
    assert (first["prompt"], first["position"], first["index"], second["index"]) == ("train-4", 4, 0, 1)
    assert first["messages"] == [{"role": "user", "content": "question 4"}]
    assert first["reference"] == "5"
    assert (first["completion"], first["tokens"], first["stop_reason"]) == ("7 8 2", 3, "eos")
    assert (first["outcome"], first["reward"], first["parts"], first["advantage"]) == ("ok", 1.0, {"math": 1.0}, 0.5)
    assert (second["outcome"], second["reward"], second["advantage"]) == ("abstain", None, 0.0)
    assert first["provenance"][0]["verifier"] == "math"


def test_completions_that_nobody_judged_have_no_verdict(folder):
    bare = group([])
    unjudged = type(bare)(bare.prompt, group([1.0]).completions)
    folder.write_completions(1, [unjudged])
    record = json.loads((folder.path / "completions" / "step-000001.jsonl").read_text())
    assert "outcome" not in record
    assert "advantage" not in record


def test_the_summary_is_the_record_in_json(folder):
    summary = Summary("toy", 3, "finished", 50, 61.5, 900.0, math.nan, problems=10, accuracy_before=0.1)
    folder.write_summary(summary)
    saved = json.loads((folder.path / "summary.json").read_text())
    assert (saved["recipe"], saved["seed"], saved["steps"], saved["wall_s"]) == ("toy", 3, 50, 61.5)
    assert (saved["accuracy_before"], saved["accuracy_after"], saved["tokens_per_s"]) == (0.1, None, "nan")


def test_each_start_of_a_run_has_its_own_environment(folder):
    folder.write_environment()
    folder.write_environment()
    first = json.loads((folder.path / "environment.json").read_text())
    assert first["versions"]["torch"].startswith("2.")
    assert first["cores"] >= 1
    assert (folder.path / "environment-2.json").exists()


def test_a_large_file_is_written_piece_by_piece_and_replaces_the_old_one_only_whole(tmp_path):
    path, sizes = tmp_path / "step-000001.jsonl", []
    write_atomic(path, "old")

    def pieces(fails: bool):
        for n in range(10):
            sizes.append(sum(p.stat().st_size for p in tmp_path.iterdir() if p != path))
            yield str(n) * 100_000
        if fails:
            raise ValueError("no JSON")

    with pytest.raises(ValueError, match="no JSON"):
        write_atomic(path, pieces(fails=True))
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    assert sizes[0] == 0 and sizes[-1] >= 800_000
    write_atomic(path, pieces(fails=False))
    assert path.read_text() == "".join(str(n) * 100_000 for n in range(10))


def test_an_interrupted_replacement_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "config.yaml"
    write_atomic(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFolderError, match=r"No space left on device \(\d+ MB free there\)"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["config.yaml"]


def test_a_line_that_a_full_disk_cuts_short_leaves_no_trace(tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(files, "sleep", waits.append)
    log = JsonLines(tmp_path / "log.jsonl")
    log.append({"n": 1})
    whole = log._file

    class Full:
        def write(self, line: bytes) -> int:
            return whole.write(line[:4])

    log._file = Full()
    with pytest.raises(RunFolderError, match="No space left on device"):
        log.append({"n": 2})
    assert waits == [1] * (files.PATIENCE - 1)
    log._file = whole
    log.append({"n": 3})
    assert log.read() == [{"n": 1}, {"n": 3}]
    log.close()


def test_a_disk_that_is_full_for_a_moment_costs_no_line(tmp_path, monkeypatch):
    """A checkpoint that was being written is taken back meanwhile."""
    log = JsonLines(tmp_path / "log.jsonl")
    whole, waits = log._file, []

    class Full:
        def write(self, line: bytes) -> int:
            return whole.write(line[:4])

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            log._file = whole

    monkeypatch.setattr(files, "sleep", sleep)
    log._file = Full()
    log.append({"n": 1})
    assert log.read() == [{"n": 1}] and waits == [1, 1]
    log.close()


def test_any_other_error_of_the_disk_is_said_at_once(tmp_path, monkeypatch):
    class Broken:
        def write(self, line: bytes) -> int:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files, "sleep", lambda seconds: pytest.fail("nothing to wait for"))
    log = JsonLines(tmp_path / "log.jsonl")
    whole, log._file = log._file, Broken()
    with pytest.raises(RunFolderError, match="Input/output error"):
        log.append({"n": 1})
    whole.close()


def test_half_a_surrogate_pair_is_written_as_its_escape(tmp_path):
    write_atomic(tmp_path / "report.html", "half \ud800, whole \U0001f600")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == "half \\ud800, whole \U0001f600"


def test_anything_a_data_set_holds_can_be_written(tmp_path):
    import numpy

    log = JsonLines(tmp_path / "log.jsonl")
    log.append({"half": "\ud800", "path": Path("a/b"), "int": numpy.int64(3), "share": numpy.float32(0.5), "set": (1,)})
    assert log.read() == [{"half": "\ud800", "path": "a/b", "int": 3, "share": 0.5, "set": [1]}]
    assert to_json({"x": math.inf}) == '{"x": "inf"}'
    log.close()


def test_a_run_that_never_began_leaves_nothing_and_touches_nothing_else(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "slurm.log").write_text("mine")
    for name in ("run", "other"):
        folder = RunFolder.create(tmp_path / name)
        folder.write_config("steps: 1")
        folder.write_environment()
        folder.event("error", "no such GPU")
        folder.close()
        folder.remove_unused()
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "slurm.log"]


def test_nor_does_it_leave_its_report(tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    write_atomic(folder.path / "report.html", "<!doctype html>")
    folder.close()
    folder.remove_unused()
    assert list(tmp_path.iterdir()) == []


def test_a_run_with_a_checkpoint_is_never_removed(tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    folder.write_config("steps: 1")
    (tmp_path / "run" / "checkpoints" / "step-00000000").mkdir(parents=True)
    folder.remove_unused()
    assert folder.config_text() == "steps: 1"


def test_a_file_of_ones_own_beside_the_completions_is_left_alone(folder):
    folder.write_completions(1, [])
    folder.write_completions(2, [])
    beside = folder.path / "completions"
    for name in ("step-000002.annotated.jsonl", "step-best.jsonl", "notes.jsonl"):
        (beside / name).write_text("mine\n")
    folder.undo_after(1, "rollback")
    assert {path.name for path in beside.iterdir()} == {
        "step-000001.jsonl", "step-000002.annotated.jsonl", "step-best.jsonl", "notes.jsonl"
    }  # fmt: skip


@pytest.mark.parametrize("line", ['{"step": 2', "5", "[" * 100_000])
def test_a_line_that_is_none_of_ours_is_named(folder, line):
    folder.close()
    path = folder.path / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 3}}\n')
    (folder.path / "config.yaml").write_text("")
    with pytest.raises(RunFolderError, match=r"metrics\.jsonl, line 2: no JSON object: mend or remove it"):
        RunFolder.open(folder.path)


def test_the_result_of_an_earlier_end_is_gone_once_the_run_goes_on(folder):
    folder.log(1, {"reward/mean": 0.5})
    folder.write_summary(Summary("toy", 0, "finished", 1, 1.0, 2.0, 3.0))
    folder.undo_after(1, "begin")
    (folder.path / "config.yaml").write_text("")
    folder.close()
    folder = RunFolder.open(folder.path)
    folder.undo_after(1, "begin")
    assert (folder.path / "summary.json").exists(), "until it has taken a step"
    folder.log(2, {"reward/mean": 0.5})
    assert not (folder.path / "summary.json").exists()
    folder.write_summary(Summary("toy", 0, "finished", 2, 1.0, 2.0, 3.0))
    folder.undo_after(0, "begin")
    assert not (folder.path / "summary.json").exists()
    folder.close()
