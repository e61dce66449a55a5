"""The record must not fail; everything else may, and is reported once."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from rlvr.config import LogConfig, RecipeError
from rlvr.observe import sinks
from rlvr.observe.plain import PlainDisplay
from rlvr.observe.runfolder import RunFolder
from rlvr.observe.sinks import Fanout, TensorboardSink, open_sinks


class Broken:
    """Works until step 2."""

    calls = closed = 0

    def log(self, step: int, metrics: object) -> None:
        self.calls += 1
        if step >= 2:
            raise ConnectionError("server gone")

    def event(self, kind: str, message: str, **fields: object) -> None: ...

    def close(self) -> None:
        self.closed += 1  # an error raised here would be swallowed, as all that a sink raises is


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    yield folder
    folder.close()


def events(folder: RunFolder) -> list[tuple[str, str]]:
    return [(event["kind"], event["message"]) for event in folder.read_events()]


def test_a_sink_that_fails_is_dropped_with_one_warning_and_the_run_goes_on(folder):
    broken, stream = Broken(), io.StringIO()
    fanout = Fanout(folder, [broken, PlainDisplay(stream)])
    for step in (1, 2, 3):
        fanout.log(step, {"accuracy": 0.5})
    assert broken.calls == 2
    assert [row["step"] for row in folder.read_metrics()] == [1, 2, 3]
    assert events(folder) == [("warning", "Broken dropped: server gone")]
    assert stream.getvalue() == "warning: Broken dropped: server gone\n"
    fanout.event("checkpoint", "saved")
    assert events(folder)[-1] == ("checkpoint", "saved")


def test_a_sink_that_was_dropped_is_not_closed_and_one_that_was_not_is(folder):
    broken, fine = Broken(), Broken()
    fanout = Fanout(folder, [broken])
    fanout.log(1, {"accuracy": 0.5})
    fanout.log(2, {"accuracy": 0.5})
    whole = Fanout(folder, [fine])
    fanout.close(), whole.close()
    assert (broken.calls, broken.closed, fine.closed) == (2, 0, 1)


def test_a_record_that_fails_ends_the_run():
    with pytest.raises(ConnectionError):
        Fanout(Broken(), []).log(2, {})


def test_a_metric_without_a_row_is_logged_and_reported_once(folder):
    fanout = Fanout(folder)
    fanout.log(1, {"policy/mood": 1.0})
    fanout.log(2, {"policy/mood": 2.0})
    assert [row["policy/mood"] for row in folder.read_metrics()] == [1.0, 2.0]
    assert events(folder) == [("warning", "metrics without a row in rlvr.observe.metrics: policy/mood")]


def test_a_sink_that_cannot_start_is_a_warning(folder, monkeypatch):
    def down(*_: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(sinks, "WandbSink", down)
    stream = io.StringIO()
    fanout = open_sinks(folder, PlainDisplay(stream), LogConfig(wandb=True), {})
    fanout.log(1, {"accuracy": 0.5})
    assert events(folder) == [("warning", "log.wandb does not start, going on without: no route to host")]
    assert "no route to host" in stream.getvalue()


@pytest.mark.parametrize(("mode", "hint"), [("onlin", "WANDB_MODE=onlin"), ("online", "API key")])
def test_wandb_settings_that_only_the_user_can_mend_stop_the_run_before_it_begins(folder, monkeypatch, mode, hint):
    monkeypatch.setenv("WANDB_MODE", mode)
    for name in ("WANDB_API_KEY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(folder.path))  # no login of the person who runs the tests
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(folder.path))
    with pytest.raises(RecipeError, match=rf"log\.wandb with .*{hint}.*WANDB_MODE=offline"):
        open_sinks(folder, PlainDisplay(io.StringIO()), LogConfig(wandb=True), {})


def test_tensorboard_hides_a_step_that_is_taken_again_at_once(folder):
    sink = TensorboardSink(folder.path)
    for step, value in ((1, 0.125), (2, 0.25), (2, 0.5)):
        sink.log(step, {"accuracy": value})
    sink.close()
    assert read_tensorboard(folder.path)["accuracy"] == [(1, 0.125), (2, 0.5)]


def test_wandb_goes_on_with_the_run_that_it_began(folder, monkeypatch):
    asked = []

    def init(**settings):
        asked.append((settings["id"], settings["resume"]))
        return SimpleNamespace(id=settings["id"] or f"new-{len(asked)}", define_metric=lambda *_, **__: None)

    errors = SimpleNamespace(UsageError=RuntimeError, AuthenticationError=RuntimeError)
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, errors=errors, Settings=lambda **_: None))
    for _ in range(3):
        sinks.WandbSink(folder.path, "project", {})
    assert asked == [(None, "allow"), ("new-1", "allow"), ("new-1", "allow")]


@pytest.mark.parametrize(("mode", "asked"), [(None, "offline"), ("online", "online")])
def test_wandb_has_the_recipes_project_and_the_environments_mode(folder, monkeypatch, mode, asked):
    seen = []

    def init(**settings):
        seen.append(settings)
        return SimpleNamespace(id="one", define_metric=lambda *_, **__: None, log=lambda row: None, finish=lambda: None)

    errors = SimpleNamespace(UsageError=RuntimeError, AuthenticationError=RuntimeError)
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, errors=errors, Settings=lambda **_: None))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    if mode:
        monkeypatch.setenv("WANDB_MODE", mode)
    log = LogConfig(wandb=True, wandb_project="mine")
    open_sinks(folder, PlainDisplay(io.StringIO()), log, {"steps": 2}).close()
    asked_for = [(s["project"], s["mode"], s["config"], s["dir"]) for s in seen]
    assert asked_for == [("mine", asked, {"steps": 2}, folder.path)]


def test_wandb_sends_word_of_what_needs_somebody_and_of_nothing_else():
    alerts = []
    sink = object.__new__(sinks.WandbSink)
    sink._run = SimpleNamespace(log=lambda row: None, alert=lambda title, text: alerts.append((title, text)))
    for kind in ("begin", "evaluation", "warning", "rollback", "restart", "interrupt", "stopped", "error", "healthy"):
        sink.event(kind, f"of {kind}", step=1)
    assert alerts == [("rollback", "of rollback"), ("stopped", "of stopped"), ("error", "of error")]


def test_tensorboard_without_its_package_is_a_line(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto", None)
    with pytest.raises(RecipeError, match=r"log\.tensorboard needs a package: pip install tensorboard"):
        open_sinks(folder, PlainDisplay(io.StringIO()), LogConfig(tensorboard=True), {})


def read_tensorboard(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder / "tensorboard"))
    reader.Reload()
    return {tag: [(e.step, round(e.value, 6)) for e in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def test_tensorboard_reads_back_what_was_logged_evaluations_included(folder):
    sink = TensorboardSink(folder.path, first_step=1)
    sink.event("evaluation", "held-out", **{"step": 0, "eval/accuracy_greedy": 0.1})
    for step in (1, 2):
        before = {"eval/accuracy_greedy": 0.1} if step == 1 else {}  # travels with the step behind it
        sink.log(step, {"accuracy": step / 4, "reward/mean": 1.0} | before)
    sink.event("evaluation", "held-out", **{"step": 2, "eval/accuracy_greedy": 0.5})
    sink.close()
    assert read_tensorboard(folder.path) == {
        "accuracy": [(1, 0.25), (2, 0.5)],
        "reward/mean": [(1, 1.0), (2, 1.0)],
        "eval/accuracy_greedy": [(0, 0.1), (2, 0.5)],
    }


def test_tensorboard_hides_the_steps_that_a_rollback_or_a_resume_takes_again(folder):
    sink = TensorboardSink(folder.path)
    for step, value in ((1, 0.125), (2, 0.25), (3, 0.0), (2, 0.5), (3, 0.625)):
        sink.log(step, {"accuracy": value})
    sink.close()
    assert read_tensorboard(folder.path)["accuracy"] == [(1, 0.125), (2, 0.5), (3, 0.625)]
    sink = TensorboardSink(folder.path, first_step=3)
    sink.log(3, {"accuracy": 0.75})
    sink.close()
    assert read_tensorboard(folder.path)["accuracy"] == [(1, 0.125), (2, 0.5), (3, 0.75)]


def test_wandb_has_an_evaluation_once_at_the_step_that_it_is_of(monkeypatch):
    logged = []
    sink = object.__new__(sinks.WandbSink)
    sink._run = SimpleNamespace(log=logged.append)
    sink.event("evaluation", "held-out", **{"step": 4, "eval/accuracy_greedy": 0.5})
    sink.log(5, {"accuracy": 0.25, "eval/accuracy_greedy": 0.5, "eval/seconds": 3.0})
    assert logged == [{"step": 4, "eval/accuracy_greedy": 0.5}, {"step": 5, "accuracy": 0.25}]


def evaluated(fanout: Fanout, step: int, accuracy: float, problems: int = 5) -> None:
    fields = {"step": step, "eval/problems": problems, "eval/accuracy_greedy": accuracy}
    fanout.event("evaluation", "held-out", **fields)


def test_an_evaluation_made_again_after_a_rollback_or_a_resume_is_one_point(folder):
    log = LogConfig(tensorboard=True)
    fanout = open_sinks(folder, PlainDisplay(io.StringIO()), log, {}, first_step=1)
    fanout.event("begin", "from the start", to=0)
    evaluated(fanout, 0, 0.125)
    for step in (1, 2, 3, 4):
        fanout.log(step, {"accuracy": step / 8})
        if step % 2 == 0:
            evaluated(fanout, step, step / 8)
    folder.undo_after(2, "rollback")
    fanout.event("rollback", "back", step=5, to=2)
    evaluated(fanout, 2, 0.25)
    for step in (3, 4):
        fanout.log(step, {"accuracy": 0.5})
    evaluated(fanout, 4, 0.75)  # other weights than those of the step 4 before
    fanout._others[-1].close()  # a kill: the folder stays open, as a test has but one
    fanout = open_sinks(folder, PlainDisplay(io.StringIO()), log, {}, first_step=5)
    fanout.event("begin", "going on", to=4)
    evaluated(fanout, 4, 0.75)
    fanout.log(5, {"accuracy": 0.5})
    fanout._others[-1].close()
    points = read_tensorboard(folder.path)["eval/accuracy_greedy"]
    assert points == [(0, 0.125), (2, 0.25), (4, 0.75)]
    assert len([event for event in folder.read_events() if event["kind"] == "evaluation"]) == 6, "the record has all"


def test_an_evaluation_of_other_problems_is_another_point():
    seen = []
    sink = SimpleNamespace(event=lambda kind, message, **fields: seen.append(sinks.measured(fields)))
    fanout = Fanout(SimpleNamespace(event=lambda *_, **__: None), [sink])
    for problems in (5, 5, 9):
        evaluated(fanout, 4, 0.5, problems)
    assert [bool(metrics) for metrics in seen] == [True, False, True]


def test_an_evaluation_that_is_measured_otherwise_is_another_point():
    seen = []
    sink = SimpleNamespace(event=lambda kind, message, **fields: seen.append(sinks.measured(fields)))
    fanout = Fanout(SimpleNamespace(event=lambda *_, **__: None), [sink])
    asked = [(1, {}), (1, {}), (2, {}), (2, {"eval/accuracy_sampled": 0.5}), (2, {"eval/accuracy_sampled": 0.5})]
    for mark, more in asked:
        fields = {"step": 4, "mark": mark, "eval/problems": 5, "eval/accuracy_greedy": 0.5, **more}
        fanout.event("evaluation", "held-out", **fields)
    assert [bool(metrics) for metrics in seen] == [True, False, True, True, False]


def test_a_sink_that_a_resume_switches_on_gets_the_evaluation_that_is_made_again(folder):
    fanout = open_sinks(folder, PlainDisplay(io.StringIO()), LogConfig(), {}, first_step=1)
    evaluated(fanout, 4, 0.75)
    for first, log in enumerate([LogConfig(tensorboard=True)] * 2):
        fanout = open_sinks(folder, PlainDisplay(io.StringIO()), log, {}, first_step=5 + first)
        fanout.event("begin", "going on", to=4)
        evaluated(fanout, 4, 0.75)
        fanout._others[-1].close()
    assert read_tensorboard(folder.path)["eval/accuracy_greedy"] == [(4, 0.75)]


WANDB_RUN = """
import io, sys
from rlvr.config import LogConfig
from rlvr.observe.plain import PlainDisplay
from rlvr.observe.runfolder import RunFolder
from rlvr.observe.sinks import open_sinks

folder = RunFolder.create(sys.argv[1])
fanout = open_sinks(folder, PlainDisplay(io.StringIO()), LogConfig(wandb=True), {"steps": 2})
fanout.log(1, {"accuracy": 0.25})
fanout.event("rollback", "back")
fanout.event("evaluation", "held-out", **{"step": 1, "eval/accuracy_greedy": 0.5})
fanout.close()
print([event["message"] for event in folder.read_events()])
"""


def test_wandb_is_offline_by_default_and_writes_into_the_run_folder(tmp_path):
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    done = subprocess.run(
        [sys.executable, "-c", WANDB_RUN, "run"], cwd=tmp_path, env=quiet, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "['back', 'held-out']\n"), done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["run"]  # nothing beside it
    records = list((tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(records) == 1
    run_id = (tmp_path / "run" / "wandb_run_id").read_text().strip()
    assert records[0].name == f"run-{run_id}.wandb"
    data = records[0].read_bytes()
    assert b"accuracy" in data and json.dumps(0.25).encode() in data and b"eval/accuracy_greedy" in data


def test_a_line_of_somebodys_own_among_the_events_ends_no_resume():
    told: list[str] = []
    sink = SimpleNamespace(event=lambda kind, message, **fields: told.append(message))
    history = [{"message": "seen"}, {"kind": "note", "fields": None}]
    Fanout(sink, [sink], history).event("note", "x")
    assert told == ["x", "x"]
