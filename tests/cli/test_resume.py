"""What a run that goes on takes, keeps and refuses."""

import json
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from rlvr import cli
from rlvr.compose import compose_recipe, escaped, saved_recipe, to_yaml, typed
from rlvr.config import RecipeError
from tests.cli.conftest import launched, refusal
from tests.data.tokenizers import WORDS


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("rollout.grup_size=8", "no such key: rollout.grup_size; did you mean rollout.group_size?"),
        ("steps=many", "steps: Value 'many' of type 'str' could not be converted to Integer"),
        ("steps", "'steps' is no override: expected key=value, e.g. steps=10"),
        ("algorithm=dapo", "algorithm=dapo: expected the content of a file like recipes/algorithm/grpo.yaml"),
        (
            "cluster=inline",
            "cluster=inline: the recipe of a run takes single values and no file, e.g. cluster.kind=...",
        ),
        *(
            (word, f"{word}: the recipe of a run takes key=value and nothing else, e.g. steps=100")
            for word in ("+steps=9", "++steps=9", "~steps", "~steps=3")
        ),
    ],
)
def test_a_wrong_override_of_a_resume_is_one_line_and_changes_nothing(capsys, run_folder, override, line):
    before = (run_folder / "config.yaml").read_text()
    assert refusal(capsys, "resume", str(run_folder), override) == line
    assert (run_folder / "config.yaml").read_text() == before


def test_a_resume_of_no_run_is_one_line(capsys, tmp_path):
    assert refusal(capsys, "resume", str(tmp_path)) == f"{tmp_path} is no run folder: it has no config.yaml"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"name: \xe9\n", "not UTF-8"), (b"", "empty, and no recipe"), (b"- 1\n", "a list, and no recipe"),
        (b"a: 1\n\tb: 1\n", "found character '\\t' that cannot start any token"),
    ],
)  # fmt: skip
def test_a_config_that_no_run_wrote_is_named(capsys, tmp_path, text, said):
    config = tmp_path / "config.yaml"
    config.write_bytes(text)
    for words in (["resume"], ["rescore"], ["train", "quickstart", "--resume"]):
        place = f"run.folder={tmp_path}" if "train" in words else str(tmp_path)
        line = refusal(capsys, *words, place)
        assert str(config) in line and said in line


def test_a_config_that_holds_a_broken_interpolation_is_refused_in_one_line():
    """As runs wrote it before texts with `${` were escaped."""
    with pytest.raises(RecipeError, match=r"config\.yaml: .*"):
        saved_recipe("rollout: {stop: ['${']}")


@given(st.text(st.sampled_from("ab$\\{}:.'\" \n"), max_size=12))
@settings(max_examples=200, deadline=None)
def test_any_text_of_a_recipe_is_read_back_from_what_the_run_keeps(text):
    """`\\${` is how a recipe writes the text `${`: what is kept is resolved, and is resolved again by a resume."""
    kept = saved_recipe(to_yaml(OmegaConf.create(escaped({"data": {"system": text}, "rollout": {"stop": [text]}}))))
    assert (kept.data.system, kept.rollout.stop[0]) == (text, text)


@pytest.mark.parametrize("words", [(), ("--dry-run",)])
def test_a_run_folder_that_holds_a_run_is_refused_before_anything_is_read(capsys, run_folder, words):
    words = ("train", "quickstart", "data.train=nothing.jsonl", f"run.folder={run_folder}", *words)
    assert "already holds a run (config.yaml): continue it with `rlvr resume" in refusal(capsys, *words)


def test_a_dry_run_of_what_would_go_on_finds_its_run_in_order(capsys, tmp_path, inputs, monkeypatch):
    launched(monkeypatch, "finished")
    command = ["train", "quickstart", *inputs, f"run.folder={tmp_path / 'run'}", "--resume"]
    assert cli.main([*command, "--dry-run"]) == 0
    assert not (tmp_path / "run").exists()
    assert cli.main(command) == 0
    assert cli.main([*command, "--dry-run"]) == 0
    (tmp_path / "run" / "config.yaml").unlink()  # what is left is nothing to go on with
    capsys.readouterr()
    assert "already holds a run (metrics.jsonl" in refusal(capsys, *command, "--dry-run")


def test_a_run_folder_in_the_home_folder_is_found_again(tmp_path, inputs, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    launch = launched(monkeypatch, "finished")
    command = ["train", "quickstart", *inputs, "run.folder='~/mine/run'"]
    assert cli.main(command) == 0
    assert launch.folder.path == tmp_path / "mine" / "run"
    launch.folder = None
    assert cli.main([*command, "--resume"]) == 0
    assert cli.main(["resume", "~/mine/run", "steps=99"]) == 0
    assert launch.folder.path == tmp_path / "mine" / "run" and not (tmp_path / "~").exists()


def test_a_home_folder_of_nobody_is_refused(capsys):
    said = refusal(capsys, "train", "quickstart", "run.folder='~nobody_of_this_name/run'", "--dry-run")
    assert said.startswith("run.folder: ~nobody_of_this_name/run: Could not determine home directory")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("~", "/home/me"), ("~/a b.yaml", "/home/me/a b.yaml"), ("~/x~/y", "/home/me/x~/y"),
        ("--out=~/x", "--out=/home/me/x"), ("--config-dir=~", "--config-dir=/home/me"),
        *((word, word) for word in ("~steps", "~trainer.betas", "a~/x", "data.train=~/x")),
    ],
)  # fmt: skip
def test_a_quoted_path_or_one_behind_an_option_is_of_the_home_folder_and_an_override_is_left_alone(
    monkeypatch, word, said
):
    monkeypatch.setenv("HOME", "/home/me")
    assert cli.expanded(word) == said


@pytest.mark.parametrize("steps", [0, 1])
def test_fewer_steps_than_were_taken_are_refused_and_change_nothing(capsys, run_folder, monkeypatch, steps):
    launch = launched(monkeypatch, "finished")
    for name in ("step-00000000-v00000001", "step-00000002-v00000003"):
        (run_folder / "checkpoints" / name).mkdir(parents=True)
    before = (run_folder / "config.yaml").read_text()
    assert refusal(capsys, "resume", str(run_folder), f"steps={steps}") == (
        f"steps={steps}: the run in {run_folder} has taken 2 already; "
        f"`rlvr rollback {run_folder} --to <step>` goes back"
    )
    assert (run_folder / "config.yaml").read_text() == before
    assert cli.main(["resume", str(run_folder), "steps=2"]) == 0, "as many as were taken: a run that is at its end"
    assert launch.cfg.steps == 2


def test_a_resume_takes_new_values_and_remembers_them(capsys, run_folder, monkeypatch):
    launch = launched(monkeypatch, "finished")
    assert cli.main(["resume", str(run_folder), "steps=99"]) == 0
    assert (launch.cfg.steps, launch.folder.path) == (99, run_folder)
    assert "steps: 99" in (run_folder / "config.yaml").read_text()
    assert capsys.readouterr().out.splitlines()[-1] == f"Run folder: {run_folder}"


def test_a_resume_with_other_prompts_is_refused_unless_they_are_named(capsys, tmp_path, inputs, monkeypatch):
    from rlvr.config import RunError

    launch = launched(monkeypatch, "finished")
    run, data = tmp_path / "run", tmp_path / "train.jsonl"
    command = ["train", "quickstart", *inputs, f"run.folder={run}", "--resume"]
    assert cli.main(command) == 0
    assert cli.main(["resume", str(run), "steps=99"]) == 0
    assert cli.main([*command, "steps=99"]) == 0
    rows = data.read_text()
    data.write_text(rows.replace('"answer": "2"', '"answer": "1"', 1))
    asked = ["resume", str(run), f"data.train={data}"]
    for words in (asked[:2], [*command, "steps=99"]):
        capsys.readouterr()
        said = refusal(capsys, *words)
        assert said.startswith(f"data.train={data}: the run in {run} began with other prompts: this data has changed")
        assert said.endswith(f"`rlvr {' '.join(asked)}`")
    known = (run / "prompts.json").read_text()
    with monkeypatch.context() as patched:
        launched(patched, RunError("no verdicts"))
        assert cli.main(asked) == 1
    assert (run / "prompts.json").read_text() == known  # nothing was trained on them
    assert cli.main(asked) == 0
    assert cli.main(asked[:2]) == 0
    assert launch.inputs.train[0].answer == "1"


def test_a_template_that_asks_for_the_date_is_told_the_day_of_the_beginning(tmp_path, inputs, monkeypatch):
    launch = launched(monkeypatch, "finished")
    (tmp_path / "own.jinja").write_text("{{ strftime_now('%d')[1] }} {{ messages[-1]['content'] }}")
    run = tmp_path / "run"
    template = f"model.chat_template={tmp_path / 'own.jinja'}"
    before = date.today()
    assert cli.main(["train", "quickstart", *inputs, template, f"run.folder={run}"]) == 0
    began = json.loads((run / "prompts.json").read_text())
    assert before.isoformat() <= began["day"] <= date.today().isoformat()
    (run / "prompts.json").write_text(json.dumps(began | {"day": "2024-01-02"}))
    assert cli.main(["resume", str(run), "data.split=train"]) == 0
    assert launch.inputs.train[0].token_ids[0] == WORDS.index("2")
    assert cli.main(["resume", str(run)]) == 0  # whatever day it is


@pytest.mark.parametrize(
    ("override", "told"), [("steps=99", 0), ("sentinel.max_rollbacks=3", 0), ("rollout.temperature=0.7", 1)]
)
def test_a_resume_says_when_the_sentinel_can_no_longer_compare(run_folder, monkeypatch, override, told):
    launch = launched(monkeypatch, "finished")
    assert cli.main(["resume", str(run_folder), override]) == 0
    assert launch.inputs.notes == (
        "rollout.temperature changed: the sentinel compares with no step before, whose numbers meant another",
    )[:told]


def test_what_a_run_cannot_go_on_with_does_not_become_its_recipe(capsys, run_folder, monkeypatch):
    from rlvr.config import RunError

    before = (run_folder / "config.yaml").read_text()
    (run_folder / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n')

    def launch(cfg, objective, inputs, folder, display):
        folder.undo_after(1, "begin")  # its newest checkpoint is older than its last step
        raise RunError("other weights")

    monkeypatch.setattr("rlvr.run.launch", launch)
    assert cli.main(["resume", str(run_folder), "trainer.lora.rank=8"]) == 1
    assert (run_folder / "config.yaml").read_text() == before


def test_what_went_on_for_a_step_keeps_what_it_was_told(run_folder, monkeypatch):
    from rlvr.config import RunError

    (run_folder / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n')

    def launch(cfg, objective, inputs, folder, display):
        folder.undo_after(1, "begin")
        folder.log(2, {"reward/mean": 0.5})  # as far as before
        raise RunError("the node went away")

    monkeypatch.setattr("rlvr.run.launch", launch)
    assert cli.main(["resume", str(run_folder), "steps=99"]) == 1
    assert "steps: 99" in (run_folder / "config.yaml").read_text()


def test_a_command_that_is_started_again_goes_on_with_its_own_run_and_no_other(own, tmp_path, capsys, monkeypatch):
    def again(*words: str) -> bool:
        composed = compose_recipe("mine", words, str(own))
        return cli.begun(composed, typed(composed)[0])

    assert cli.main(["train", "mine", "--config-dir", str(own), "--resume"]) == 2
    assert "--resume needs run.folder" in capsys.readouterr().err
    run = tmp_path / "run"
    here = f"run.folder={run}"
    assert not again(here)
    run.mkdir()
    (run / "config.yaml").write_text(to_yaml(compose_recipe("mine", [here], str(own))))
    assert again(here)
    assert again(here, "cluster.kind=ray", "cluster.address=10.0.0.9:6379")  # a requeued job may be somewhere else
    monkeypatch.chdir(tmp_path)
    assert again("run.folder=run")
    assert cli.main(["train", "mine", "--config-dir", str(own), "--resume", here, "steps=4", "trainer.ranks=2"]) == 2
    assert f"the run in {run} was begun with another steps, trainer;" in capsys.readouterr().err
