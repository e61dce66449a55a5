"""What stands between a recipe and its loop: reading, recording, signals, a second try, and what an end leaves."""

import copy
import errno
import io
import json
import os
import shutil
import signal
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from rlvr.checkpoint.disk import DiskCheckpoints, ResumeRefused
from rlvr.collate import collate
from rlvr.config import PartConfig, RecipeError, RunError
from rlvr.inputs import Inputs, read_inputs
from rlvr.lineage import Lineage
from rlvr.loop import Diverged
from rlvr.objective.kl import KL, k3
from rlvr.observe.console import open_display
from rlvr.observe.plain import PlainDisplay
from rlvr.observe.runfolder import RunFolder, RunFolderError
from rlvr.observe.sinks import Fanout
from rlvr.reward_config import VerifierChoice
from rlvr.run import Recorder, going_on, launch, stop_on_signals
from rlvr.state import State, Taken
from rlvr.workers import workers
from tests import builders, toy
from tests.data.tokenizers import model_folder

SAMPLED_GROUPS = tuple(
    builders.group(rewards, of=builders.prompt(n)) for n, rewards in enumerate([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
)
TAKEN = Taken(SAMPLED_GROUPS[1:2], 3, {}, SAMPLED_GROUPS)
BATCH = collate(TAKEN.groups, toy.GRPO, {"math": 1.0})
SAMPLED = {"tokens/sampled": 6}


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    yield folder
    folder.close()


def events(folder: RunFolder, kind: str) -> list[str]:
    return [event["message"] for event in folder.read_events() if event["kind"] == kind]


# ---- reading --------------------------------------------------------------------------------------------------------


@pytest.fixture
def readable(tmp_path, monkeypatch):
    """A recipe with data of `kind` math whose verifier needs no process to look at them."""
    monkeypatch.setattr("rlvr.inputs.leave_out", lambda plan, data: (list(data.values()), []))
    cfg = toy.recipe(9)
    cfg.model.path = model_folder(tmp_path / "model")
    cfg.reward.parts = {"math": PartConfig("format", column="check")}
    for name, questions in (("train", "12345"), ("heldout", ("1 + 1", "1 + 2", "2 + 2"))):
        rows = [{"problem": question, "answer": "2", "kind": "math", "check": None} for question in questions]
        write_rows(tmp_path / f"{name}.jsonl", rows)
        setattr(cfg.data, name, str(tmp_path / f"{name}.jsonl"))
    return cfg


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(("limit", "read"), [(None, 3), (2, 2), (9, 3)])
def test_an_evaluation_is_of_the_first_so_many_problems(readable, limit, read):
    readable.evaluation.limit = limit
    inputs = read_inputs(readable, toy.GRPO)
    assert [prompt.position for prompt in inputs.heldout] == list(range(read))
    assert len(inputs.train) == 5


@pytest.mark.parametrize("name", ["train", "heldout"])
def test_who_is_to_judge_a_row_is_looked_at_in_all_data(readable, tmp_path, name):
    readable.reward.parts["math"].first_decided = [VerifierChoice("format")]
    read_inputs(readable, toy.GRPO)
    rows = [{"problem": "3 + 3", "answer": "6"}, {"problem": "4 + 4", "answer": "8", "check": "majority"}]
    write_rows(tmp_path / f"{name}.jsonl", rows)
    with pytest.raises(RecipeError, match=r"^prompt 1: reward\.parts\.math\.first_decided is for single samples$"):
        read_inputs(readable, toy.GRPO)


def test_a_coefficient_for_a_domain_that_no_prompt_has_is_refused(readable):
    readable.data.domain = "kind"
    read_inputs(readable, replace(toy.GRPO, kl=KL(k3, {"math": 0.1})))
    with pytest.raises(RecipeError, match=r"no prompt of data\.train is of domain maths \(column data\.domain=kind\)"):
        read_inputs(readable, replace(toy.GRPO, kl=KL(k3, {"math": 0.1, "maths": 0.1})))


# ---- recording ------------------------------------------------------------------------------------------------------


class Late:
    """Work beside the loop at its slowest: nothing is done before somebody waits for it."""

    def __init__(self):
        self.work = lambda: None

    def begin(self, work):
        self.settle()
        self.work = work

    def settle(self):
        work, self.work = self.work, lambda: None
        work()


@pytest.mark.parametrize(("every", "written"), [(0, []), (1, [1, 2, 3, 4, 5]), (2, [2, 4]), (3, [3])])
def test_completions_are_written_as_often_as_the_recipe_says(folder, every, written):
    cfg = toy.recipe(9)
    cfg.log.completions_every = every
    recorder = Recorder(cfg, folder, Fanout(folder))
    for step in range(1, 6):
        recorder.step(State(step=step), TAKEN, BATCH, SAMPLED)
    recorder.writing.settle()
    recorder.writing.close()
    found = sorted(path.name for path in folder.path.glob("completions/*"))
    assert found == [f"step-{step:06d}.jsonl" for step in written]
    assert [row["step"] for row in folder.read_metrics()] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("trained", [(), (1,), (0, 2), (0, 1, 2)])
def test_all_that_was_sampled_is_written_and_only_what_was_trained_on_has_an_advantage(folder, trained):
    """A group that all solve, or that none does, teaches nothing, and is what a broken reward is seen by."""
    taken = replace(TAKEN, groups=tuple(SAMPLED_GROUPS[n] for n in trained))
    recorder = Recorder(toy.recipe(9), folder, Fanout(folder))
    recorder.step(State(step=1), taken, collate(taken.groups, toy.GRPO, {"math": 1.0}), SAMPLED)
    recorder.writing.settle()
    recorder.writing.close()
    records = [json.loads(line) for line in (folder.path / "completions/step-000001.jsonl").read_text().splitlines()]
    assert [(r["position"], r["index"]) for r in records] == [(n, i) for n in range(3) for i in range(2)]
    assert [r["reward"] for r in records] == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    assert {r["position"] for r in records if r["advantage"] is not None} == set(trained)
    right, wrong = (r["advantage"] for r in records[2:4])
    assert right == wrong is None or right > 0 > wrong


@pytest.mark.parametrize("kind", ["begin", "rollback"])
def test_no_completions_of_an_undone_step_are_left_however_long_they_took_to_write(folder, kind):
    recorder = Recorder(toy.recipe(9), folder, Fanout(folder))
    recorder.writing.close()
    recorder.writing = Late()
    for step in (1, 2):
        recorder.step(State(step=step), TAKEN, BATCH, SAMPLED)
    recorder.event(kind, "back to step 1", to=1)
    recorder.writing.settle()
    assert [path.name for path in folder.path.glob("completions/*")] == ["step-000001.jsonl"]
    assert [row["step"] for row in folder.read_metrics()] == [1]


# ---- a second try, and an end ---------------------------------------------------------------------------------------


class Told(list):
    def event(self, kind, message, **fields):
        self.append((kind, message, fields))


def test_a_run_goes_on_as_often_as_ranks_are_revived_and_ends_with_the_error_where_none_was_dead():
    errors = [RuntimeError("gone"), OSError("gone again")]
    revived, told = ["rank 0 is back", "rank 1 is back"], Told()

    def trained():
        if errors:
            raise errors.pop(0)
        return State(step=9)

    assert going_on(trained, lambda: revived.pop(0), told) == State(step=9)
    assert [(kind, said, fields["error"]) for kind, said, fields in told] == [
        ("restart", "rank 0 is back, and go on from the newest checkpoint", "gone"),
        ("restart", "rank 1 is back, and go on from the newest checkpoint", "gone again"),
    ]
    errors, told = [ValueError("a bug")], Told()
    with pytest.raises(ValueError, match="a bug"):
        going_on(trained, lambda: None, told)
    assert not told


def test_a_run_that_diverged_is_not_tried_again():
    def trained():
        raise Diverged("again", 3)

    with pytest.raises(Diverged):
        going_on(trained, lambda: pytest.fail("nobody died"), Told())


@pytest.fixture
def handlers():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_for_an_end_the_second_makes_one_and_then_all_is_as_before(handlers, number, monkeypatch):
    told, now = Told(), [5.0]
    monkeypatch.setattr("rlvr.signals.monotonic", lambda: now[0])
    with stop_on_signals(told.event) as stop:
        assert not stop()
        signal.raise_signal(number)
        assert stop() and stop()
        assert told == [("interrupt", f"{number.name}: stopping after this step", {})], "once"
        signal.raise_signal(number)  # the same, by another way
        now[0] += 1.1
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert {number: signal.getsignal(number) for number in handlers} == handlers


def test_a_signal_is_heard_though_stderr_is_dead(handlers, monkeypatch):
    """Ctrl-C ends the `tee` of `2>&1 | tee` too, and with it the reader of what we say."""

    def dead(fd, text):
        raise BrokenPipeError

    monkeypatch.setattr("rlvr.run.os.write", dead)
    with stop_on_signals(Told().event) as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop()


# ---- a whole run ----------------------------------------------------------------------------------------------------


def launched(folder, cfg, train, monkeypatch, display=None, revive=lambda: None, objective=toy.GRPO):
    """A run of `train` with the toy's trainer, from the checkpoints in `folder`."""

    @contextmanager
    def workers(cfg):
        yield toy.ToyTrainer(set()), SimpleNamespace(verify=None), revive, False

    monkeypatch.setattr("rlvr.run.workers", workers)
    monkeypatch.setattr("rlvr.run.train", train)
    return launch(cfg, objective, Inputs([builders.prompt()], [], 50), folder, display or PlainDisplay(io.StringIO()))


CFG = toy.recipe(9, every=2)
CFG.checkpoint.keep = 9


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Checkpoints of steps 0, 2, 4, 6, 8 and 9, the later the better; the last two are still on probation."""
    done = toy.run(tmp_path_factory.mktemp("made") / "checkpoints", CFG)
    for step in (2, 4, 6):
        done.checkpoints.evaluated(State(step=step), {"eval/accuracy_greedy": step / 10})
    return done.checkpoints.root


@pytest.fixture
def nine_steps(folder, made):
    """A run that has come so far, and its recipe."""
    shutil.copytree(made, folder.path / "checkpoints")
    return copy.deepcopy(CFG)


def finished(cfg, objective, parts):
    return State(step=9, lineage=Lineage(10))


@pytest.mark.parametrize(
    ("to", "before"), [((), 9), ((9,), 9), ((8,), 8), ((9, 4), 4), ((9, 4, 6), 4), ((0,), 0)]
)  # begun there, and gone back since
def test_a_summary_tells_the_steps_of_earlier_starts_from_those_that_its_time_is_of(
    folder, nine_steps, monkeypatch, to, before
):
    def train(cfg, objective, parts):
        for step in to:
            parts.observer.event("begin", "from there", to=step)
        return finished(cfg, objective, parts)

    summary = launched(folder, nine_steps, train, monkeypatch)
    assert (summary.steps, summary.steps_before) == (9, before)


@pytest.mark.parametrize(("lines", "missing"), [(0, 9), (7, 2), (9, 0)])
def test_lines_that_a_kill_kept_from_the_disk_are_told_of(folder, nine_steps, monkeypatch, lines, missing):
    for step in range(1, lines + 1):
        folder.log(step, {"time/step": 1.0} | SAMPLED)
    launched(folder, nine_steps, finished, monkeypatch)
    said = [f"the lines of {missing} steps are missing in metrics.jsonl"] if missing else []
    assert events(folder, "warning") == said


@pytest.mark.parametrize(("onset", "exported"), [(7, 6), (6, 4), (5, 4), (3, 2)])
def test_a_run_that_gives_up_exports_the_best_from_before_the_trouble(folder, nine_steps, monkeypatch, onset, exported):
    def train(cfg, objective, parts):
        raise Diverged("enough", onset)

    summary = launched(folder, nine_steps, train, monkeypatch)
    assert (summary.status, summary.steps) == ("stopped", exported)
    assert events(folder, "stopped") == [f"enough: exporting the best good checkpoint, that of step {exported}"]


class Dying:
    """A rank that dies the first time that `method` is called."""

    def __init__(self, monkeypatch, method: str):
        self.alive, called = True, getattr(toy.ToyTrainer, method)

        def call(trainer, *args):
            if not self.deaths:
                self.alive, self.deaths = False, 1
            if not self.alive:
                raise RuntimeError("the rank is dead")
            return called(trainer, *args)

        self.deaths = 0
        monkeypatch.setattr(toy.ToyTrainer, method, call)

    def revive(self) -> str | None:
        back, self.alive = not self.alive, True
        return "trainer rank 0 died: it was started again" if back else None


@pytest.mark.parametrize("method", ["score", "export"])
def test_a_rank_that_dies_in_the_last_acts_is_revived_and_they_are_done_again(folder, nine_steps, monkeypatch, method):
    tried, rank = [], Dying(monkeypatch, method)

    def train(cfg, objective, parts):
        tried.append(method)
        return finished(cfg, objective, parts)

    summary = launched(folder, nine_steps, train, monkeypatch, revive=rank.revive)
    assert (summary.status, summary.steps, len(tried), rank.deaths) == ("finished", 9, 2, 1)
    assert events(folder, "restart") == [
        "trainer rank 0 died: it was started again, and go on from the newest checkpoint"
    ]
    assert (folder.path / "model" / "weights.json").exists() and (folder.path / "summary.json").exists()


@pytest.mark.parametrize("method", ["load", "export"])
def test_a_rank_that_dies_while_a_run_gives_up_is_revived_and_the_best_is_exported(
    folder, nine_steps, monkeypatch, method
):
    tried, rank = [], Dying(monkeypatch, method)

    def train(cfg, objective, parts):
        tried.append(method)
        raise Diverged("enough", 7)

    summary = launched(folder, nine_steps, train, monkeypatch, revive=rank.revive)
    assert (summary.status, summary.steps, len(tried), rank.deaths) == ("stopped", 6, 1, 1)
    assert events(folder, "restart") == [
        "trainer rank 0 died: it was started again, and go on from the best good checkpoint"
    ]
    assert events(folder, "stopped") == ["enough: exporting the best good checkpoint, that of step 6"]
    assert (folder.path / "model" / "weights.json").exists()


@pytest.mark.parametrize(("coefficient", "held"), [(0.1, True), (0.0, False)])
def test_a_run_that_holds_on_to_the_model_it_began_with_looks_at_it(
    folder, nine_steps, monkeypatch, coefficient, held
):
    """Other weights lie at model.path than those of step 0: what a KL term pulls to would be another model."""

    def train(cfg, objective, parts):
        parts.trainer.weight += 1.0
        return parts.checkpoints.restore(parts.trainer)

    objective = replace(toy.GRPO, kl=KL(k3, coefficient))
    if held:
        with pytest.raises(ResumeRefused, match=r"model\.path holds another model"):
            launched(folder, nine_steps, train, monkeypatch, objective=objective)
    else:
        assert launched(folder, nine_steps, train, monkeypatch, objective=objective).steps == 9


def test_a_run_whose_console_is_gone_exports_all_the_same(folder, nine_steps, monkeypatch):
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as stdout:
        display = open_display(stream=stdout)
        summary = launched(folder, nine_steps, finished, monkeypatch, display)
        display.result(summary, folder.path)
    assert (folder.path / "model").exists() and (folder.path / "summary.json").exists()


def test_an_evaluation_is_a_phase_that_is_shown(folder, nine_steps, monkeypatch):
    def train(cfg, objective, parts):
        with parts.rollouts.evaluation.showing(2) as tick:
            tick()
            return finished(cfg, objective, parts)

    said = io.StringIO()
    launched(folder, nine_steps, train, monkeypatch, PlainDisplay(said))
    assert "evaluating on 0 held-out problems: 1/2 after" in said.getvalue()
    assert "evaluating on 0 held-out problems: done in" in said.getvalue()


def test_a_run_that_was_asked_to_end_says_that_it_was_interrupted(folder, nine_steps, monkeypatch):
    def asked(cfg, objective, parts):
        return State(step=4, lineage=Lineage(10))

    assert launched(folder, nine_steps, asked, monkeypatch).status == "interrupted"


def test_the_error_that_ends_a_run_is_an_event_of_it(folder, nine_steps, monkeypatch):
    def train(cfg, objective, parts):
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        launched(folder, nine_steps, train, monkeypatch)
    assert events(folder, "error") == ["ValueError: a bug"]
    assert not (folder.path / "model").exists()


def full(trainer, folder):
    Path(folder).mkdir()
    Path(folder, "model.safetensors").write_text("half")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), folder)


def test_a_full_disk_at_the_export_is_told_in_words_and_a_resume_exports_again(folder, nine_steps, monkeypatch):
    (folder.path / "model").mkdir()
    (folder.path / "model" / "weights.json").write_text("of an earlier end")
    with monkeypatch.context() as patch, pytest.raises(RunError, match="No space left on device") as caught:
        patch.setattr(toy.ToyTrainer, "export", full)
        launched(folder, nine_steps, finished, patch)
    assert f"exported to {folder.path}/model: " in str(caught.value)
    assert f"make room, `rlvr resume {folder.path}` exports it again" in str(caught.value)
    assert events(folder, "error") == [f"CheckpointFailed: {caught.value}"]
    assert [path.name for path in folder.path.glob("model*")] == ["model"], "no half of a model is left"
    assert (folder.path / "model" / "weights.json").read_text() == "of an earlier end"
    folder.write_config("name: toy\n")
    launched(RunFolder.open(folder.path), nine_steps, finished, monkeypatch)
    assert json.loads((folder.path / "model" / "weights.json").read_text()) == [0.0, 0.0]
    assert (folder.path / "summary.json").exists()


def test_a_run_that_gives_up_and_has_nothing_to_go_back_to_says_so_in_its_events(folder, nine_steps, monkeypatch):
    def train(cfg, objective, parts):
        raise Diverged("enough", 7)

    def best(*_):
        raise ResumeRefused("none is intact")

    monkeypatch.setattr(DiskCheckpoints, "best", best)
    with pytest.raises(ResumeRefused):
        launched(folder, nine_steps, train, monkeypatch)
    assert events(folder, "error") == ["ResumeRefused: none is intact"]


def test_a_run_whose_last_completions_cannot_be_written_has_not_happened(folder, nine_steps, monkeypatch):
    def full(*_):
        raise RunFolderError("no space")

    def train(cfg, objective, parts):
        parts.observer.step(State(step=10), TAKEN, BATCH, SAMPLED)
        return finished(cfg, objective, parts)

    monkeypatch.setattr(folder, "write_completions", full)
    with pytest.raises(RunFolderError, match="no space"):
        launched(folder, nine_steps, train, monkeypatch)
    assert not (folder.path / "summary.json").exists()


@pytest.mark.parametrize(
    ("model", "engine", "knob", "tolerances"),
    [
        ("float32", "auto", None, (0.01, 3e-4)),
        ("float32", "bfloat16", None, (0.01, 0.25)),
        ("bfloat16", "float32", None, (0.25, 0.25)),
        ("bfloat16", "auto", None, (0.25, 0.25)),
        ("float32", "float32", 0.5, (0.5, 0.5)),
    ],
)
def test_how_far_logprobs_may_differ_follows_from_what_trainer_and_engine_compute_in(
    folder, nine_steps, monkeypatch, model, engine, knob, tolerances
):
    """Of a checkpoint's probe the trainer's type alone, of a transfer's both."""
    cfg = nine_steps
    cfg.model.dtype, cfg.rollout.dtype, cfg.trainer.probe_tolerance = model, engine, knob
    seen = []

    def train(cfg, objective, parts):
        seen.append((parts.checkpoints.tolerance, parts.rollouts.probe[1]))
        return finished(cfg, objective, parts)

    launched(folder, nine_steps, train, monkeypatch)
    assert seen == [tolerances]


def test_one_process_gets_what_the_recipe_says_and_is_closed(monkeypatch):
    cfg, made, closed = toy.recipe(9), {}, []
    cfg.cluster.kind, cfg.verify.processes, cfg.verify.max_waiting, cfg.rollout.temperature = "inline", 3, 7, 0.7

    def maker(name):
        def make(*args):
            made[name] = args
            return SimpleNamespace(cuda=False, close=lambda: closed.append(name))

        return make

    monkeypatch.setitem(sys.modules, "rlvr.train.deepspeed", SimpleNamespace(DeepSpeedTrainer=maker("trainer")))
    monkeypatch.setattr("rlvr.rollout.build.build_engine", maker("engine"))
    monkeypatch.setattr("rlvr.rollout.pipeline.InlinePipeline", maker("pipeline"))
    monkeypatch.setattr("rlvr.verify.Judge", maker("judge"))
    with workers(cfg) as found:
        assert found[2]() is None and not closed
    assert made["judge"] == (cfg.reward, 3, 7)
    assert made["trainer"] == (cfg.model, cfg.trainer, 0.7)
    assert closed == ["pipeline"]
