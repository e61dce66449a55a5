"""`rlvr evaluate`: of a recipe's model, and of a run's; what it says, writes and refuses."""

import json
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
    seen = SimpleNamespace(models=[], masked=0, fails=None)

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
    assert "greedy      50.0% +- 25.0%\n" in said
    assert "sampled     62.5% +- 14.0%, 4 completions a problem" in said  # 4, 3, 2 and 1 of 4
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
        assert summary["greedy"] == {"value": 0.5, "error": 0.25} and summary["problems"] == 4
        completions = [json.loads(line) for line in (folder / "completions.jsonl").read_text().splitlines()]
        assert [one["decoding"] for one in completions] == ["greedy"] * 4 + ["sampled"] * 16
        assert "samples: 4" in (folder / "config.yaml").read_text() and (folder / "environment.json").is_file()


def test_a_runs_own_model_is_evaluated_with_what_may_be_changed(capsys, tmp_path, engines, run_folder, heldout):
    (run_folder / "prompts.json").write_text(json.dumps({"day": "2024-02-29", "sha256": "x"}))
    days = []
    argv = ["evaluate", str(run_folder), f"data.heldout={heldout}", "evaluation.samples=4"]
    assert cli.main(argv) == 2
    assert f"rlvr: {run_folder} has no model yet: `rlvr export {run_folder}` makes one" in capsys.readouterr().err
    model_folder(run_folder / "model")
    with pytest.MonkeyPatch.context() as patch:
        from rlvr import inputs

        own = inputs.Renderer
        patch.setattr(inputs, "Renderer", lambda model, day: days.append(day.isoformat()) or own(model, day))
        assert cli.main(argv) == 0
        assert cli.main([*argv, f"model.path={tmp_path / 'model'}"]) == 0
    assert engines.models == [str(run_folder / "model"), str(tmp_path / "model")]
    assert days == ["2024-02-29"] * 2, "a template that tells the date says what it said in the run"
    assert f"path: {run_folder / 'model'}" in (tmp_path / "evaluations/quickstart-001/config.yaml").read_text()


def test_two_evaluations_are_compared_on_the_problems_that_both_have(capsys, tmp_path, engines, inputs, heldout):
    fewer = tmp_path / "fewer.jsonl"
    fewer.write_text("\n".join(heldout.read_text().splitlines()[:3]))
    argv = ["quickstart", *inputs, "evaluation.samples=4"]
    evaluate(capsys, *argv, f"data.heldout={fewer}", "--out", "before")
    said = evaluate(capsys, *argv, f"data.heldout={heldout}", "--against", "before")
    assert "  greedy     0.0 +- 0.0 points more than before, on the 3 problems that both have\n" in said
    heldout.write_text(heldout.read_text().replace('"0"', '"7"').replace('"1"', '"7"'))  # other references
    said = evaluate(capsys, *argv, f"data.heldout={heldout}", "--against", "before")
    assert "greedy     has fewer than two problems in common with before" in said


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


def test_where_nothing_comes_of_it_no_folder_stays(capsys, tmp_path, engines, inputs, heldout):
    engines.fails = RuntimeError("no engine")
    with pytest.raises(RuntimeError, match="no engine"):
        cli.main(["evaluate", "quickstart", *inputs, f"data.heldout={heldout}"])
    assert list((tmp_path / "evaluations").iterdir()) == []


def test_what_cannot_be_evaluated_is_refused_in_a_line(capsys, tmp_path, engines, inputs, heldout):
    full = tmp_path / "full"
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    ours = ["evaluate", "quickstart", *inputs, f"data.heldout={heldout}"]
    assert "there are no problems to evaluate on" in refusal(capsys, *ours, "data.heldout=null")
    assert f"--out {full}: there are files in it already" in refusal(capsys, *ours, "--out", str(full))
    assert "no evaluation can be read there" in refusal(capsys, *ours, "--against", str(full))
    assert "is no override" in refusal(capsys, *ours, "samples")
    assert engines.models == [] and [path.name for path in full.iterdir()] == ["notes.txt"]
