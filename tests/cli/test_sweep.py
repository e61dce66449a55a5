"""`rlvr sweep`: what it expands, names, checks, skips, goes on with, and how it ends."""

import json
import re
import subprocess
import sys
from itertools import product
from pathlib import Path
from types import ModuleType

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from rlvr import cli, sweep
from rlvr.compose import compose_recipe, expanded, quoted, to_yaml
from rlvr.config import RecipeError
from tests.cli.conftest import refusal, started, started_names

ROOT = Path(__file__).parents[2]


@pytest.fixture
def compared(monkeypatch):
    """A fake of the page and its lines: which runs were compared, each time."""
    calls: list[list[str]] = []

    def write_page(records, out):
        calls.append([run.name for run in records])
        out.write_text("compared")
        return out

    module = ModuleType("rlvr.observe.compare")
    module.write_page, module.records_of, module.NAME = write_page, list, "compare.html"
    module.lines = lambda records: [f"table of {len(records)}"]
    monkeypatch.setitem(sys.modules, "rlvr.observe.compare", module)
    return calls


@pytest.mark.parametrize(
    ("given", "runs"),
    [
        (["seed=0,1"], [["seed=0"], ["seed=1"]]),
        (["a=x, y", "b=1", "c=2,3"], [[f"a={a}", "b=1", f"c={c}"] for a in "xy" for c in (2, 3)]),
        (["trainer.betas=[0.9,0.95]"], [["trainer.betas=[0.9,0.95]"]]),
        (["trainer.betas=[0.9,0.95],[0.8,0.9]"], [["trainer.betas=[0.9,0.95]"], ["trainer.betas=[0.8,0.9]"]]),
        (["+a={x:1,y:[2,3]},{}"], [["+a={x:1,y:[2,3]}"], ["+a={}"]]),
        (["a='x, y',\"z\""], [["a='x, y'"], ['a="z"']]),
        (["seed=choice(a,b)"], [["seed=a"], ["seed=b"]]),
        (["seed=range(0,3)"], [["seed=0"], ["seed=1"], ["seed=2"]]),
        (["data.system='Be helpful, honest'"], [["data.system='Be helpful, honest'"]]),
        ([r"data.system=a\,b"], [[r"data.system=a\,b"]]),
    ],
)  # fmt: skip
def test_commas_at_the_top_make_runs_and_those_within_do_not(given, runs):
    assert expanded(given) == runs


PLAIN = st.integers(-5, 5).map(str) | st.sampled_from(["dapo", "1e-06", "true", "null", "a/b.jsonl", "x y"])
QUOTED = st.text(st.sampled_from("ab,'\"\\=[]{}() $:"), max_size=6).map(quoted)
VALUES = st.recursive(PLAIN | QUOTED, lambda inner: st.lists(inner, max_size=3).map(lambda v: f"[{','.join(v)}]"))


@given(st.lists(st.lists(VALUES, min_size=1, max_size=3, unique=True), min_size=1, max_size=3))
def test_there_is_a_run_for_every_combination_in_order_and_each_value_means_what_it_meant(values):
    def read(value: str):
        (parsed,) = OverridesParser.create().parse_overrides([f"key={value}"])
        assert not parsed.is_sweep_override()
        return parsed.value()

    runs = expanded([f"key={','.join(one)}" for one in values])
    found = [[read(override.removeprefix("key=")) for override in run] for run in runs]
    assert found == [[read(value) for value in one] for one in product(*values)]


@pytest.mark.parametrize("value", ["interval(0,1)", "glob(*)", "shuffle(1,2)", "shuffle(range(0,3))", "range(3,0)"])
def test_values_that_cannot_be_told_one_by_one_are_refused(value):
    with pytest.raises(RecipeError, match=re.escape(f"a={value}: a sweep takes values one by one: a=a,b or")):
        expanded(["seed=1", f"a={value}"])


def names(*overrides: str) -> list[str]:
    return [run.name for run in sweep.planned(overrides)]


def test_a_run_is_named_after_what_differs():
    found = names("steps=5", "seed=0,1", "algorithm=grpo,dr_grpo", "algorithm.surrogate.high=choice(0.2)")
    assert found == [f"seed={seed},algorithm={algorithm}" for seed in (0, 1) for algorithm in ("grpo", "dr_grpo")]
    assert names("+a.b='x, y (z)',[1,-2]") == ["a.b=x_y_z", "a.b=1_-2"]
    assert names("data.train=/data/my.jsonl,../b") == ["data.train=data_my.jsonl", "data.train=.._b"]


@given(st.lists(st.text(max_size=300).map(quoted), min_size=2, max_size=8, unique=True), st.text("ab", max_size=200))
def test_names_are_unique_short_and_safe(values, key):
    found = sweep.names([["steps=3", f"key{key}={value}"] for value in values])
    assert len(set(found)) == len(values)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.,=+-]{0,99}", name) for name in found)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["seed=0", "algorithm=dapo"], "nothing to sweep: give a key several values, e.g. seed=0,1,2; `rlvr train`"),
        (["seed=0,1", "steps"], "'steps' is no override: expected key=value"),
        (["seed=0,1", "run.folder=x"], "run.folder=x: each run of a sweep has a folder of its own; --folder says"),
        (["seed=0,1", "trainer.betas=[1"], "trainer.betas=[1: no viable alternative"),
        (["seed=0,1", "algorithm=grpo,grop"], "seed=0,algorithm=grop: no algorithm 'grop'; did you mean grpo?"),
        (["seed=0,1,-1"], "seed=-1: seed=-1: from 0 to 4294967295"),
        (["seed=0,1", "stesp=3"], "seed=0: no such key: stesp; did you mean steps?"),
        (["rollout.group_size=4,8,1"], "rollout.group_size=1: rollout.group_size=1: at least 2"),
        (["seed=1,2,1"], "seed=1,2,1: a value is there twice"),
        (["trainer.learning_rate=1e-6,0.000001"], "trainer.learning_rate=1e-6,0.000001: a value is there twice"),
        (["seed=1,2", "seed=3"], "seed=2: the same run as seed=1"),
        (["rollout.stop=['a'],[a]"], "rollout.stop=a-2: the same run as rollout.stop=a"),
    ],
)  # fmt: skip
def test_a_wrong_word_is_one_line_that_names_the_run_before_anything_starts(
    capsys, tmp_path, inputs, train, words, said
):
    assert refusal(capsys, "sweep", "quickstart", *inputs, *words).startswith(said)
    assert started(tmp_path) == [] and not (tmp_path / "sweeps").exists()


def test_data_is_read_once_for_all_seeds_and_a_bad_one_names_its_run(capsys, tmp_path, inputs, train, monkeypatch):
    from rlvr import inputs as reading

    read, real = [], reading.read_inputs
    monkeypatch.setattr(reading, "read_inputs", lambda cfg, *rest: read.append(cfg.data.train) or real(cfg, *rest))
    words = ["sweep", "quickstart", "seed=0,1,2", "algorithm=grpo,dr_grpo", *inputs[:1], inputs[2]]
    train_set = tmp_path / "train.jsonl"
    assert cli.main([*words, f"data.train={train_set}", "--dry-run"]) == 0
    assert read == [str(train_set)]
    assert capsys.readouterr().out.splitlines()[0] == "  seed=0,algorithm=grpo: to be run"
    said = refusal(capsys, *words, f"data.train={train_set},nothing.jsonl")
    assert said.startswith("seed=0,algorithm=grpo,data.train=nothing.jsonl: data.train=nothing.jsonl: no such file")
    assert not (tmp_path / "sweeps").exists() and started(tmp_path) == []


def test_each_run_is_a_train_of_its_own_folder_and_the_runs_so_far_are_compared(
    capfd, tmp_path, inputs, train, compared
):
    assert cli.main(["sweep", "quickstart", "seed=0,1", *inputs]) == 0
    folder = tmp_path / "sweeps" / "quickstart-001"
    for seed, words in enumerate(started(tmp_path)):
        place = f"run.folder='sweeps/quickstart-001/seed={seed}'"
        assert words == ["quickstart", f"seed={seed}", *inputs, place, "--resume"]
    assert compared == [["seed=0", "seed=1"]]
    assert (folder / "compare.html").read_text() == "compared"
    said = capfd.readouterr().out.splitlines()
    assert said[0].startswith("2 runs in sweeps/quickstart-001; ")
    assert said[1:3] == ["run 1 of 2, seed=0", "seed=0 runs"]
    assert re.fullmatch(r"run 2 of 2, seed=1; about 0:0\d for the 1 left", said[3])
    assert said[4:7] == ["seed=1 runs", "table of 2", "Compared in sweeps/quickstart-001/compare.html"]
    assert said[-1] == "2 of 2 runs finished in sweeps/quickstart-001"
    written = json.loads((folder / "sweep.json").read_text())
    assert written["recipe"] == "quickstart" and written["overrides"] == ["seed=0,1", *inputs]
    assert written["runs"][1] == {"name": "seed=1", "overrides": ["seed=1", *inputs]}


def test_a_comparison_that_cannot_be_made_does_not_end_the_sweep(capfd, inputs, train, monkeypatch):
    monkeypatch.setitem(sys.modules, "rlvr.observe.compare", None)
    assert cli.main(["sweep", "quickstart", "seed=0,1", *inputs]) == 0
    assert "no comparison: ModuleNotFoundError" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("does", "code", "last"),
    [
        ({"seed=0": "1"}, 1, "  seed=0: failed"),
        ({"seed=0": "2", "seed=1": "stopped"}, 1, "  seed=1: stopped by the sentinel"),
        ({"seed=1": "killed"}, 1, "  seed=1: failed"),
        ({"seed=1": "stopped"}, 3, "  seed=1: stopped by the sentinel"),
        ({"seed=0": "interrupted"}, 3, "  seed=0: interrupted"),
        ({"seed=0": "130"}, 3, "  seed=0: interrupted"),
        ({}, 0, "3 of 3 runs finished in here"),
    ],
)
def test_a_run_that_fails_or_is_stopped_ends_no_sweep_and_the_exit_code_says_it(
    capfd, tmp_path, inputs, train, compared, does, code, last
):
    train(does)
    assert cli.main(["sweep", "quickstart", "seed=0,1,2", "--folder", "here", *inputs]) == code
    assert started_names(tmp_path) == ["seed=0", "seed=1", "seed=2"]
    assert capfd.readouterr().out.splitlines()[-1] == last
    without_result = [name for name, did in does.items() if did not in ("stopped", "interrupted")]
    there = [f"seed={n}" for n in range(3) if f"seed={n}" not in without_result]
    assert compared[-1] == there, "those that left a summary"


def test_a_sweep_goes_on_with_what_is_not_done_and_then_has_nothing_to_do(capfd, tmp_path, inputs, train, compared):
    words = ["sweep", "quickstart", *inputs, "seed=0,1,2,3", "--folder", "here"]
    train({"seed=1": "interrupted", "seed=2": "stopped", "seed=3": "1"})
    assert cli.main(words) == 1
    (tmp_path / "log").unlink()
    capfd.readouterr()
    train({})
    assert cli.main([*words, "log.console=false", "cluster=inline"]) == 3  # where it runs may differ
    assert started_names(tmp_path) == ["seed=1", "seed=3"]
    said = capfd.readouterr().out.splitlines()
    assert "seed=0: finished before" in said
    assert "seed=2: stopped by the sentinel before; `rlvr resume here/seed=2` goes on" in said
    assert "run 2 of 4, seed=1; about 2:00 for the 2 left" in said
    (tmp_path / "here" / "seed=2" / "summary.json").write_text('{"status": "finished", "wall_s": 1}')
    assert cli.main(words) == 0
    assert len(started(tmp_path)) == 2 and compared[-1] == [f"seed={n}" for n in range(4)]
    assert "table of 4" in capfd.readouterr().out


@pytest.mark.parametrize(
    "others",
    [
        ["quickstart", "seed=0,2"], ["quickstart", "seed=0,1,2"], ["quickstart", "seed=0,1", "steps=3"],
        ["quickstart_gdpo", "seed=0,1"], ["quickstart", "seed=0,1", "algorithm=dapo,grpo"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_folder_that_holds_another_sweep_is_refused(capsys, tmp_path, inputs, train, others):
    assert cli.main(["sweep", "quickstart", *inputs, "seed=0,1", "--folder", "here"]) == 0
    capsys.readouterr()
    before = (tmp_path / "here" / "sweep.json").read_text()
    said = refusal(capsys, "sweep", others[0], *inputs, *others[1:], "--folder", "here")
    assert said == f"--folder here: it holds another sweep, `rlvr sweep quickstart {' '.join(inputs)} seed=0,1`: " \
        "choose another"
    assert len(started(tmp_path)) == 2 and (tmp_path / "here" / "sweep.json").read_text() == before


def test_a_folder_that_holds_a_run_or_a_broken_sweep_is_refused(capsys, run_folder, inputs, tmp_path, train):
    words = ["sweep", "quickstart", *inputs, "seed=0,1", "--folder"]
    assert refusal(capsys, *words, str(run_folder)).startswith(f"--folder {run_folder}: it holds a run, not a sweep")
    for text in ("", "[]", "{}", '{"recipe": 1, "overrides": [], "runs": [1]}'):
        (tmp_path / "sweep.json").write_text(text)
        assert refusal(capsys, *words, str(tmp_path)).startswith(f"{tmp_path / 'sweep.json'}: no sweep wrote this")


def test_a_run_whose_recipe_has_changed_since_is_no_part_of_the_sweep(capsys, tmp_path, inputs, train):
    words = ["sweep", "quickstart", *inputs, "seed=0,1", "--folder", "here"]
    begun = tmp_path / "here" / "seed=1"
    begun.mkdir(parents=True)
    for override, refused in (("log.console=false", False), ("steps=99", True)):
        (begun / "config.yaml").write_text(to_yaml(compose_recipe("quickstart", [*inputs, "seed=1", override])))
        if refused:
            said = refusal(capsys, *words, "--dry-run")
            assert said.startswith("seed=1: --resume: the run in here/seed=1 was begun with another steps;")
        else:
            assert cli.main([*words, "--dry-run"]) == 0
            capsys.readouterr()


def test_a_run_that_was_gone_on_with_by_hand_does_not_lock_the_sweep(capsys, tmp_path, inputs, train, compared):
    """As a run that its sentinel stopped may be."""
    words = ["sweep", "quickstart", *inputs, "seed=0,1", "--folder", "here"]
    train({"seed=0": "stopped"})
    assert cli.main(words) == 3
    composed = compose_recipe("quickstart", [*inputs, "seed=0", "steps=77"])
    (tmp_path / "here" / "seed=0" / "config.yaml").write_text(to_yaml(composed))
    assert cli.main(words) == 3
    assert "seed=0: stopped by the sentinel before" in capsys.readouterr().out


def test_a_sweep_does_not_go_on_with_other_prompts(capsys, tmp_path, inputs, train):
    words = ["sweep", "quickstart", *inputs, "seed=0,1", "--folder", "here"]
    train({"seed=1": "interrupted"})
    assert cli.main(words) == 3
    capsys.readouterr()
    begun = tmp_path / "here" / "seed=1"
    (begun / "prompts.json").write_text(json.dumps({"sha256": "of others"}))
    assert refusal(capsys, *words).startswith("seed=1: it began with other prompts than there are now")


def test_a_place_that_cannot_be_written_names_its_knob(capsys, tmp_path, inputs, train):
    (tmp_path / "file").write_text("")
    said = refusal(capsys, "sweep", "quickstart", *inputs, "seed=0,1", "--folder", "file/in")
    assert "cannot use file/in" in said and said.endswith("choose another place with --folder <folder>")
    (tmp_path / "sweeps").write_text("")
    assert refusal(capsys, "sweep", "quickstart", *inputs, "seed=0,1").endswith("with --folder <folder>")


@pytest.mark.slow
def test_two_tiny_runs_of_a_sweep(tmp_path):
    words = ["cluster=inline", "rollout.engine=transformers", "steps=2", "evaluation.limit=8", "trainer.threads=1"]
    (tmp_path / "transformers.py").write_text("raise ImportError('the wrong one')")  # in the current folder
    command = [sys.executable, "-P", "-m", "rlvr.cli", "sweep", "quickstart", "seed=0,1", *words, "--folder", "here"]
    for again in (False, True):
        run = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=False)
        assert run.returncode == 0, run.stdout
        assert ("seed=1: finished before" in run.stdout) == again
        for seed in (0, 1):
            summary = json.loads((tmp_path / "here" / f"seed={seed}" / "summary.json").read_text())
            assert (summary["seed"], summary["status"], summary["steps"]) == (seed, "finished", 2)
