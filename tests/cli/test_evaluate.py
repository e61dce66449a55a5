"""`rlvr evaluate`: of a recipe's model, and of a run's; what it says, writes and refuses."""

import json
import math
import os
import signal
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from rlvr import cli
from tests import builders
from tests.cli.conftest import refusal
from tests.data.tokenizers import model_folder

PROBLEMS = ("3 + 1", "4 + 1", "5 + 1", "6 + 1")


@pytest.fixture
def heldout(tmp_path):
    rows = [{"problem": asked, "answer": str(n), "level": n} for n, asked in enumerate(PROBLEMS)]
    path = tmp_path / "problems.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture
def engines(monkeypatch, tmp_path):
    """Stand in for the workers: greedily every other problem is solved, sampled the nth completion of the nth too."""
    seen = SimpleNamespace(models=[], masked=0, fails=None, left_out=[])

    def groups(prompts, sampling):
        for n, prompt in enumerate(prompts):
            if seen.fails:
                raise seen.fails
            rewards = [float(n % 2)] if sampling.temperature == 0 else [float(i >= n) for i in range(4)]
            yield builders.group([None if n < seen.masked else reward for reward in rewards], of=prompt)

    @contextmanager
    def sampling(cfg):
        seen.models.append(cfg.model.path)
        yield SimpleNamespace(groups=groups, tell=None)

    # whose verifiers need no process to look at the references
    monkeypatch.setattr("rlvr.inputs.leave_out", lambda plan, data: (list(data.values()), seen.left_out))
    monkeypatch.setattr("rlvr.evaluate_model.sampling", sampling)
    monkeypatch.chdir(tmp_path)
    return seen


def evaluate(capsys, *argv: str) -> str:
    assert cli.main(["evaluate", *argv]) == 0
    return capsys.readouterr().out


def test_it_says_how_good_the_recipes_model_is_and_how_sure_that_is(capsys, tmp_path, engines, inputs, heldout):
    said = evaluate(capsys, "quickstart", *inputs, f"data.heldout={heldout}", "evaluation.samples=4")
    model = tmp_path / "model"
    assert engines.models == [str(model)]
    assert f"{model} on 4 problems of {heldout}" in said
    assert "greedy      50.0% +- 28.9%\n" in said
    assert "sampled     62.5% +- 16.1%, 4 completions a problem" in said  # 4, 3, 2 and 1 of 4
    assert "pass@2      83.3%" in said and "pass@4     100.0%" in said
    assert "truncated    0.0%, 3 tokens a completion" in said and "masked" not in said
    assert said.endswith("Written to evaluations/quickstart-001\n")
    assert "evaluating on 4 problems: 4/8 after" in said


def test_what_it_found_is_written_problem_by_problem_with_their_rows(capsys, tmp_path, engines, inputs, heldout):
    argv = ["quickstart", *inputs, f"data.heldout={heldout}", "evaluation.samples=4"]
    evaluate(capsys, *argv)
    evaluate(capsys, *argv, "--out", "here")
    for folder in (tmp_path / "evaluations" / "quickstart-001", tmp_path / "here"):
        lines = [json.loads(line) for line in (folder / "problems.jsonl").read_text().splitlines()]
        assert [line["row"] for line in lines] == [json.loads(line) for line in heldout.read_text().splitlines()]
        assert [line["greedy"]["right"] for line in lines] == [0, 1, 0, 1]
        assert [line["sampled"] for line in lines] == [{"right": 4 - n, "judged": 4} for n in range(4)]
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["greedy"] == {"value": 0.5, "error": pytest.approx(math.sqrt(0.25 / 3))}
        assert (summary["problems"], summary["of"], summary["left_out"]) == (4, str(tmp_path / "model"), [])
        completions = [json.loads(line) for line in (folder / "completions.jsonl").read_text().splitlines()]
        assert [one["decoding"] for one in completions] == ["greedy"] * 4 + ["sampled"] * 16
        assert "samples: 4" in (folder / "config.yaml").read_text() and (folder / "environment.json").is_file()


def test_a_runs_own_model_is_evaluated_with_what_may_be_changed(capsys, tmp_path, engines, run_folder, heldout):
    (run_folder / "prompts.json").write_text(json.dumps({"day": "2024-02-29", "sha256": "x"}))
    (run_folder / "summary.json").write_text(json.dumps({"steps": 50}))
    config = run_folder / "config.yaml"
    config.write_text(config.read_text().replace("chat_template: null", "chat_template: gone.jinja"))
    model_folder(run_folder / "model")  # with the template that the run had
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        from rlvr import inputs

        own = inputs.Renderer

        def renderer(model, day):
            seen.append((model.chat_template, day.isoformat()))
            return own(model, day)

        patch.setattr(inputs, "Renderer", renderer)
        argv = [str(run_folder), f"data.heldout={heldout}", "evaluation.samples=4"]
        assert f"{run_folder / 'model'} (step 50) on 4 problems" in evaluate(capsys, *argv)
        other = [f"model.path={tmp_path / 'model'}", "model.chat_template=null"]
        assert f"{tmp_path / 'model'} on 4 problems" in evaluate(capsys, *argv, *other)
    assert engines.models == [str(run_folder / "model"), str(tmp_path / "model")]
    assert seen == [(None, "2024-02-29")] * 2, "a template that tells the date says what it said in the run"
    assert f"path: {run_folder / 'model'}" in (tmp_path / "evaluations/quickstart-001/config.yaml").read_text()


def test_a_run_that_is_not_at_an_end_has_no_model_of_what_it_is(capsys, engines, run_folder, heldout):
    """One that goes on, or was rolled back, has still the model of its earlier end."""
    argv = ["evaluate", str(run_folder), f"data.heldout={heldout}"]
    wanted = f"{run_folder} has not come to an end, and has no model of what it is now: `rlvr export {run_folder}`"
    assert refusal(capsys, *argv).startswith(wanted)
    model_folder(run_folder / "model")
    assert refusal(capsys, *argv).startswith(wanted)
    (run_folder / "summary.json").write_text(json.dumps({"steps": 50}))
    (run_folder / "prompts.json").write_text(json.dumps({"day": "zzz"}))
    assert "prompts.json: not as a run writes it: mend or remove it" in refusal(capsys, *argv)
    for damaged in ("{", "[1]", '{"steps": null}'):
        (run_folder / "summary.json").write_text(damaged)
        assert "summary.json: not as a run writes it: mend or remove it" in refusal(capsys, *argv)
    assert engines.models == []


def test_a_template_that_is_asked_for_is_not_the_runs_own(capsys, engines, run_folder, heldout):
    (run_folder / "summary.json").write_text(json.dumps({"steps": 50}))
    model_folder(run_folder / "model")
    argv = ["evaluate", str(run_folder), f"data.heldout={heldout}"]
    assert "model.chat_template=/nowhere.jinja: no such file" in refusal(
        capsys, *argv, "model.chat_template=/nowhere.jinja"
    )


def test_what_a_recipe_says_of_training_does_not_matter(capsys, engines, inputs, heldout):
    ours = ["cluster=inline", "rollout.max_staleness=1", "trainer.ranks=4", f"data.heldout={heldout}"]
    evaluate(capsys, "quickstart", *inputs, *ours, "evaluation.samples=4")
    assert "cluster=inline is one process" in refusal(
        capsys, "evaluate", "quickstart", *inputs, *ours, "rollout.workers=2"
    )


def test_two_evaluations_are_compared_on_the_problems_that_both_have(capsys, tmp_path, engines, inputs, heldout):
    fewer = tmp_path / "fewer.jsonl"
    fewer.write_text("\n".join(heldout.read_text().splitlines()[:3]))
    argv = ["quickstart", *inputs, "evaluation.samples=4"]
    evaluate(capsys, *argv, f"data.heldout={fewer}", "--out", "before")
    said = evaluate(capsys, *argv, f"data.heldout={heldout}", "--against", "before")
    assert "  greedy     0.0 points more than before, on the 3 problems that both have\n" in said
    heldout.write_text(heldout.read_text().replace('"0"', '"7"').replace('"1"', '"7"'))  # other references
    said = evaluate(capsys, *argv, f"data.heldout={heldout}", "--against", "before")
    assert "greedy     has fewer than two problems in common with before" in said


def test_a_problem_is_known_wherever_it_stands_and_each_time_that_it_does(capsys, tmp_path, engines, inputs, heldout):
    """Ids may be of many rows, or of none; texts may hold what other tools take for an end of a line."""
    rows = [{"problem": f"\u2028{n % 3}\x85?", "answer": "2", "id": "same"} for n in range(6)]  # each of three twice
    heldout.write_text("\n".join(map(json.dumps, rows)))
    argv = ["quickstart", *inputs, "evaluation.samples=4"]
    assert "on 6 problems of" in evaluate(capsys, *argv, f"data.heldout={heldout}", "--out", "before")
    lines = [json.loads(line) for line in (tmp_path / "before/problems.jsonl").read_text().split("\n") if line]
    assert len({line["key"] for line in lines}) == 6
    turned = tmp_path / "turned.jsonl"
    turned.write_text("\n".join(json.dumps({**row, "id": str(n)}) for n, row in enumerate(reversed(rows))))
    said = evaluate(capsys, *argv, f"data.heldout={turned}", "--against", "before")
    assert "on the 6 problems that both have" in said


def test_domains_are_told_apart(capsys, tmp_path, engines, inputs, heldout):
    train = tmp_path / "train.jsonl"
    train.write_text("\n".join(json.dumps(json.loads(row) | {"level": 1}) for row in train.read_text().splitlines()))
    rows = [json.loads(line) | {"level": f"level {n // 2}"} for n, line in enumerate(heldout.read_text().splitlines())]
    heldout.write_text("\n".join(map(json.dumps, rows)))
    argv = ["quickstart", *inputs, f"data.heldout={heldout}", "evaluation.samples=4", "data.domain=level"]
    said = evaluate(capsys, *argv)
    assert "    level 0   87.5% +- " in said and "    level 1   37.5% +- " in said
    found = json.loads((tmp_path / "evaluations/quickstart-001/summary.json").read_text())["domains"]
    assert {domain: one["greedy"]["value"] for domain, one in found.items()} == {"level 0": 0.5, "level 1": 0.5}


def test_what_could_not_be_judged_is_said(capsys, engines, inputs, heldout):
    engines.masked = 1
    said = evaluate(capsys, "quickstart", *inputs, f"data.heldout={heldout}", "evaluation.samples=4")
    assert "masked      25.0% of the verdicts: not in the accuracies" in said
    assert "verify.mask_warn" in said
    engines.masked = 4
    said = evaluate(capsys, "quickstart", *inputs, f"data.heldout={heldout}", "evaluation.samples=4")
    assert "greedy     nothing could be judged" in said


def test_rows_that_were_left_out_are_named_with_the_result(capsys, tmp_path, engines, inputs, heldout):
    engines.left_out = ["1 of 5 rows is left out"]
    said = evaluate(capsys, "quickstart", *inputs, f"data.heldout={heldout}", "evaluation.samples=4")
    assert f"problems of {heldout}\n  1 of 5 rows is left out\n  greedy" in said
    summary = json.loads((tmp_path / "evaluations/quickstart-001/summary.json").read_text())
    assert summary["left_out"] == ["1 of 5 rows is left out"]


def test_where_nothing_comes_of_it_no_folder_stays(capsys, tmp_path, engines, inputs, heldout):
    engines.fails = RuntimeError("no engine")
    with pytest.raises(RuntimeError, match="no engine"):
        cli.main(["evaluate", "quickstart", *inputs, f"data.heldout={heldout}"])
    assert list((tmp_path / "evaluations").iterdir()) == []


def test_verifiers_that_fail_leave_what_they_said(capsys, tmp_path, engines, inputs, heldout):
    heldout.write_text("\n".join(json.dumps({"problem": f"{n}?", "answer": "1"}) for n in range(60)))
    engines.masked = 60
    assert cli.main(["evaluate", "quickstart", *inputs, f"data.heldout={heldout}", "evaluation.samples=4"]) == 1
    assert "of an evaluation are masked > verify.mask_stop" in capsys.readouterr().err
    (written,) = (tmp_path / "evaluations" / "quickstart-001").iterdir()
    assert written.name == "completions.jsonl" and len(written.read_text().splitlines()) == 5 * 60


def test_where_it_cannot_be_written_it_is_said_all_the_same(capsys, tmp_path, engines, inputs, heldout, monkeypatch):
    def full(*_):
        yield {"completion": "the first"}
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rlvr.evaluate_model.evaluation_records", full)
    assert cli.main(["evaluate", "quickstart", *inputs, f"data.heldout={heldout}", "evaluation.samples=4"]) == 1
    said = capsys.readouterr()
    assert "greedy      50.0% +- 28.9%" in said.out
    assert "No space left on device" in said.err and "choose another place with --out <folder>" in said.err
    assert (tmp_path / "evaluations" / "quickstart-001" / "problems.jsonl").is_file()


def test_sigterm_ends_it_as_ctrl_c_does(capsys, tmp_path, engines, inputs, heldout, monkeypatch):
    ended = []

    @contextmanager
    def sampling(cfg):
        try:
            yield SimpleNamespace(groups=lambda *_: os.kill(os.getpid(), signal.SIGTERM), tell=None)
        finally:
            ended.append("workers")

    monkeypatch.setattr("rlvr.evaluate_model.sampling", sampling)
    before = signal.getsignal(signal.SIGTERM)
    assert cli.main(["evaluate", "quickstart", *inputs, f"data.heldout={heldout}"]) == 130
    assert capsys.readouterr().err == "rlvr: interrupted\n"
    assert ended == ["workers"] and list((tmp_path / "evaluations").iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_cannot_be_evaluated_is_refused_in_a_line(capsys, tmp_path, engines, inputs, heldout):
    full = tmp_path / "full"
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    ours = ["evaluate", "quickstart", *inputs, f"data.heldout={heldout}"]
    assert "there are no problems to evaluate on" in refusal(capsys, *ours, "data.heldout=null")
    assert f"--out {full}: there are files in it already" in refusal(capsys, *ours, "--out", str(full))
    assert "no evaluation can be read there" in refusal(capsys, *ours, "--against", str(full))
    assert "is no override" in refusal(capsys, *ours, "samples")
    assert f"{full} is no run folder: it has no config.yaml" in refusal(capsys, "evaluate", str(full))
    assert engines.models == [] and [path.name for path in full.iterdir()] == ["notes.txt"]
