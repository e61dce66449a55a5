"""What a run says of itself in the end, and what it leaves."""

import io
import json
from contextlib import contextmanager
from math import isfinite
from types import SimpleNamespace

import pytest

from rlvr.inputs import Inputs
from rlvr.lineage import Lineage
from rlvr.measure import mark
from rlvr.observe.memory import PeakMemory
from rlvr.observe.plain import PlainDisplay
from rlvr.observe.runfolder import RunFolder
from rlvr.observe.sinks import Fanout
from rlvr.run import Recorder, launch, summarise
from rlvr.state import Evaluated, State
from rlvr.workers import probe_tolerance
from tests import builders, toy


def summarised(tmp_path, state: State, *evaluations: dict):
    folder = RunFolder.create(tmp_path / "run")
    for fields in evaluations:
        folder.event("evaluation", "held-out accuracy", **fields)
    with PeakMemory() as memory:
        summary = summarise(toy.recipe(9), folder, "finished", state, 5, 1.0, memory)
    folder.close()
    return summary


def of(step: int, version: int, accuracy: float, problems: int = 5) -> dict:
    return {"step": step, "version": version, "eval/problems": problems, "eval/accuracy_greedy": accuracy}


def test_the_accuracy_is_that_of_the_weights_that_are_exported(tmp_path):
    """A run that gave up exports its best, of a branch that it has left; the same step came again on another one."""
    state = State(step=4, lineage=Lineage(5))
    summary = summarised(tmp_path, state, of(0, 1, 0.1), of(4, 5, 0.8), of(4, 9, 0.3))
    assert (summary.accuracy_before, summary.accuracy_after) == (0.1, 0.8)


def test_an_accuracy_of_other_problems_is_not_set_beside_it(tmp_path):
    summary = summarised(tmp_path, State(step=4, lineage=Lineage(5)), of(0, 1, 0.1, problems=3), of(4, 5, 0.8))
    assert (summary.accuracy_before, summary.accuracy_after) == (None, 0.8)


def test_a_run_that_was_never_evaluated_claims_nothing(tmp_path):
    summary = summarised(tmp_path, State(step=4))
    assert summary.accuracy_before is None and summary.accuracy_after is None


def test_a_step_is_timed_without_the_evaluation_and_with_the_copy_of_the_checkpoint_before_it(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("rlvr.run.perf_counter", lambda: now[0])
    folder = RunFolder.create(tmp_path / "run")
    recorder = Recorder(toy.recipe(9), folder, Fanout(folder))
    recorder.cfg.log.completions_every = 0
    now[0] += 7  # copying a checkpoint and handing weights over took 7 s, then evaluating 60
    now[0] += 60
    evaluation = {"eval/accuracy_greedy": 0.5, "eval/problems": 5, "eval/seconds": 60.0}
    recorder.evaluation(State(), Evaluated(evaluation))
    now[0] += 10
    row = {"tokens/sampled": 170, "time/rollout": 8.0, "time/train": 1.0, "time/publish": 3.0}
    recorder.step(State(step=1), None, None, evaluation | row)
    (said,) = folder.read_metrics()
    (event,) = folder.read_events()
    assert event["fields"]["mark"] == mark(recorder.cfg)
    recorder.writing.close()
    folder.close()
    assert (said["time/step"], said["time/driver"], said["tokens/per_s"]) == (17.0, 5.0, 10.0)


@pytest.mark.parametrize(
    ("dtypes", "knob", "expected"),
    [
        (["float32"], None, 3e-4), (["float32", "float32"], None, 3e-4), (["float32", "bfloat16"], None, 0.25),
        (["bfloat16"], None, 0.25), (["bfloat16"], 0.5, 0.5),
    ],
)  # fmt: skip
def test_two_that_do_not_both_compute_in_float32_may_differ_by_more(dtypes, knob, expected):
    cfg = toy.recipe(3)
    cfg.trainer.probe_tolerance = knob
    assert probe_tolerance(cfg, False, *dtypes) == probe_tolerance(cfg, True, *dtypes) == expected


@pytest.mark.parametrize(("there", "tolerances"), [(True, (0.25, 0.25)), (False, (0.01, 3e-4))])
@pytest.mark.parametrize("here", [True, False])
def test_what_auto_is_is_decided_where_it_is_computed(tmp_path, monkeypatch, there, here, tolerances):
    """The driver may be on a node of another kind, as the head of a Ray cluster is."""
    cfg, trainer, folder = toy.recipe(9), toy.ToyTrainer(set()), RunFolder.create(tmp_path / "run")
    toy.run(folder.path / "checkpoints", cfg)
    cfg.model.dtype = cfg.rollout.dtype = "auto"
    seen = []

    @contextmanager
    def workers(cfg):
        yield trainer, SimpleNamespace(verify=None), lambda: None, there

    def train(cfg, objective, parts):
        seen.append((parts.checkpoints.tolerance, parts.rollouts.probe[1]))
        return State(step=9, lineage=Lineage(20))

    monkeypatch.setattr("torch.cuda.is_available", lambda: here)
    monkeypatch.setattr("rlvr.run.workers", workers)
    monkeypatch.setattr("rlvr.run.train", train)
    launch(cfg, toy.GRPO, Inputs([builders.prompt()], [], 50), folder, PlainDisplay(io.StringIO()))
    folder.close()
    assert seen == [tolerances]


@pytest.mark.parametrize(("weight", "status"), [(float("nan"), "stopped"), (0.5, "finished")])
def test_no_model_is_exported_that_gives_no_numbers(tmp_path, monkeypatch, weight, status):
    """The metrics of a step tell of the one before it, and nobody tells of the last one."""
    cfg, trainer = toy.recipe(9), toy.ToyTrainer(set())
    folder = RunFolder.create(tmp_path / "run")
    toy.run(folder.path / "checkpoints", cfg)

    @contextmanager
    def workers(cfg):
        yield trainer, SimpleNamespace(verify=None), lambda: None, False

    def train(cfg, objective, parts):
        trainer.weight = weight
        return State(step=9, lineage=Lineage(20))

    monkeypatch.setattr("rlvr.run.workers", workers)
    monkeypatch.setattr("rlvr.run.train", train)
    display = PlainDisplay(io.StringIO())
    summary = launch(cfg, toy.GRPO, Inputs([builders.prompt()], [], 50), folder, display)
    folder.close()
    exported, _ = json.loads((folder.path / "model" / "weights.json").read_text())
    assert summary.status == status and isfinite(exported)
    assert exported == weight or status == "stopped"


@pytest.mark.parametrize("kept", [True, False])
def test_the_completions_of_an_evaluation_are_recorded(tmp_path, kept):
    folder = RunFolder.create(tmp_path / "run")
    recorder = Recorder(toy.recipe(9), folder, Fanout(folder))
    recorder.cfg.log.evaluations = kept
    groups = {"greedy": (builders.group([1.0]),), "sampled": (builders.group([0.0, 1.0]),)}
    recorder.evaluation(State(step=4), Evaluated({"eval/accuracy_greedy": 1.0}, groups))
    recorder.evaluation(State(step=8), Evaluated({"eval/accuracy_greedy": 1.0}, groups))
    recorder.writing.settle()
    files = sorted(path.name for path in (folder.path / "evaluations").glob("*"))
    assert files == (["step-000004.jsonl", "step-000008.jsonl"] if kept else [])
    if kept:
        records = [json.loads(line) for line in (folder.path / "evaluations" / files[0]).read_text().splitlines()]
        assert [(r["decoding"], r["index"], r["reward"]) for r in records] == [
            ("greedy", 0, 1.0), ("sampled", 0, 0.0), ("sampled", 1, 1.0)
        ]  # fmt: skip
        recorder.event("rollback", "back", to=4)
        assert [path.name for path in (folder.path / "evaluations").glob("*")] == ["step-000004.jsonl"]
    folder.close()
