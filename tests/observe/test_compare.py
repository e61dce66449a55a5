"""Runs side by side: the table, what differs, and the page."""

import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.compose import compose_recipe, to_yaml
from rlvr.config import RecipeError
from rlvr.observe.charts import COLOURS, Curve, Mark, chart
from rlvr.observe.compare import LONG, WIDE, cut, json_records, lines, page, records_of, write_page
from rlvr.observe.differences import Settings, differences
from rlvr.observe.runfolder import RunFolder
from rlvr.observe.runs import names_of
from rlvr.observe.summary import Summary
from tests.observe.pages import parsed, words, write_run

CONFIG = "name: toy\nseed: {seed}\nsteps: 12\nrun: {{folder: {folder}}}\nlog: {{console: {console}}}\n{more}"


def write(path, seed=0, after=0.75, steps=12, status="finished", more="", summary=True, before_resume=0):
    """A run of a recipe of few lines, whose sampled accuracy ends 10 points below the greedy one."""
    folder = RunFolder.create(path)
    folder.write_config(CONFIG.format(seed=seed, folder=path.name, console=seed > 0, more=more))
    folder.event("begin", "from the start", to=0)
    first = {"eval/accuracy_greedy": 0.15, "eval/accuracy_sampled": 0.2, "eval/problems": 200.0}
    folder.event("evaluation", "before", step=0, **first)
    for step in range(1, steps + 1):
        row = {"reward/mean": step / 10, "accuracy": 0.5, "policy/entropy": 1 / step, "time/step": 1.0 + (step == 1)}
        folder.log(step, row | {"tokens/sampled": 100, "tokens/per_s": 100.0})
    if summary:
        shares = (0.15, after, 0.2, after - 0.1)
        said = Summary("toy", seed, status, steps, 75.0, 100.0, 92.5, 200, 1, *shares, steps_before=before_resume)
        folder.write_summary(said)
    folder.close()
    return path


def line_of(found, name):
    return next(re.split(r"  +", line.strip()) for line in found if line.startswith(f"{name} "))


def test_the_table_says_of_each_run_what_it_reached_and_in_what_it_differs(tmp_path):
    runs = [write(tmp_path / "a"), write(tmp_path / "b", seed=3, after=1.0, status="stopped", before_resume=4)]
    with (runs[1] / "events.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "rollback", "message": "kl", "fields": {"step": 9, "to": 5}}) + "\n")
    found = lines(records_of(runs))
    # the reward is that of steps 3 to 12, and a step takes its median
    assert line_of(found, "a") == [
        "a", "finished", "12", "15.0% -> 75.0%", "20.0% -> 65.0%", "0.75", "1", "92.5", "0", "1:15", "seed=0",
    ]  # fmt: skip
    assert line_of(found, "b") == [
        "b", "stopped", "12", "15.0% -> 100.0%", "20.0% -> 90.0%", "0.75", "1", "92.5", "1", ">1:15", "seed=3",
    ]  # fmt: skip
    assert ">: the time of the last start alone, as the run was resumed" in found
    assert all(line.isascii() and len(line) <= WIDE and line == line.rstrip() for line in found)


def test_rollbacks_by_hand_are_told_from_those_of_the_sentinel(tmp_path):
    runs = [write(tmp_path / name) for name in "abc"]
    for run, kinds in zip(runs, ((), (False,), (False, True, True)), strict=True):
        folder = RunFolder.open(run)
        for by_hand in kinds:
            folder.event("rollback", "back", step=9, to=5, **({"by_hand": True} if by_hand else {"alarm": {}}))
        folder.close()
    found = lines(records_of(runs))
    assert [line_of(found, name)[8] for name in "abc"] == ["0", "1", "1+2"]
    assert "+: the sentinel's rollbacks, and those by hand" in found
    assert not any(line.startswith("+:") for line in lines(records_of(runs[:2])))
    said = json_records(records_of(runs))
    assert [(row["rollbacks"], row["rollbacks_by_hand"]) for row in said[:3]] == [(0, 0), (1, 0), (1, 2)]


def test_a_run_that_goes_on_died_or_never_began_is_a_line_with_dashes(tmp_path):
    whole, going, died = write(tmp_path / "whole"), tmp_path / "going", tmp_path / "died"
    write(going, summary=False, steps=9)
    with (going / "events.jsonl").open("a") as file:
        fields = {"step": 8, "eval/accuracy_greedy": 0.4, "eval/accuracy_sampled": 0.3, "eval/problems": 200.0}
        file.write(json.dumps({"kind": "evaluation", "message": "", "fields": fields}) + "\n")
    with (going / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 10, "reward/me')
    write(died, summary=False, steps=0)
    with (died / "events.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "error", "message": "out of memory", "fields": {}}) + "\n")
    bare, odd = tmp_path / "bare", tmp_path / "odd"
    bare.mkdir()
    (bare / "config.yaml").write_text("")
    odd.mkdir()
    (odd / "summary.json").write_text('{"status": "finished", "steps": "many", "accuracy_after": [], "wall_s": null}')
    (odd / "metrics.jsonl").write_text('{"step": 1, "reward/mean": "nan", "time/step": "inf"}\n')
    (odd / "config.yaml").write_text("{{{ : \x00")
    records = records_of([whole, going, died, bare, odd])
    found = lines(records)
    assert line_of(found, "going")[:10] == [
        "going", "unfinished", "9", "15.0% -> 40.0%*", "20.0% -> 30.0%*", "0.5", "1", "90", "0", "-",
    ]  # fmt: skip
    assert "*: of the newest evaluation, as there is none of the end" in found
    assert line_of(found, "died")[:10] == ["died", "failed", "-", "15.0% -> -", "20.0% -> -", *"--" "-0-"]
    assert line_of(found, "bare")[:10] == ["bare", "unfinished", *"--" "------"]
    assert line_of(found, "odd")[:10] == ["odd", "finished", "1", "-", "-", "nan", *"-" "---"]
    for record in json_records(records):
        assert record["run"] and "status" in record
    parsed(page(records))
    (died / "events.jsonl").write_text("")
    assert "No step was taken yet." in page(records_of([died, bare]))


def test_an_evaluation_of_other_problems_is_not_what_a_run_began_with(tmp_path):
    going = write(tmp_path / "going", summary=False)
    with (going / "events.jsonl").open("a") as file:
        fields = {"step": 8, "eval/accuracy_greedy": 0.4, "eval/problems": 50.0}
        file.write(json.dumps({"kind": "evaluation", "message": "", "fields": fields}) + "\n")
    assert line_of(lines(records_of([going, write(tmp_path / "b", 1)])), "going")[3] == "- -> 40.0%*"


def test_runs_that_differ_by_their_seed_alone_have_a_mean(tmp_path):
    runs = [write(tmp_path / f"s{n}", n, after) for n, after in enumerate((0.7, 0.8, 0.9))]
    runs.append(write(tmp_path / "going", 3, summary=False))
    runs.append(write(tmp_path / "interrupted", 4, 0.1, status="interrupted"))
    runs.append(write(tmp_path / "other", 5, more="algorithm: {no_signal: drop}\n"))
    records = records_of(runs)
    found = line_of(lines(records), "5 seeds")
    assert found[:4] == ["5 seeds", "n=3", "80.0% +- 10.0%", "70.0% +- 10.0%"]
    assert "of s0, s1, s2, going, interrupted" in " ".join(lines(records))
    *_, last = json_records(records)
    assert last["runs"] == [str(run) for run in runs[:5]] and last["seeds"] == list("01234")
    assert (last["n"], last["n_sampled"]) == (3, 3)
    assert last["accuracy_after_mean"] == pytest.approx(0.8) and last["accuracy_after_std"] == pytest.approx(0.1)
    assert len(json_records(records_of(runs[4:]))) == 2, "one of each recipe"


def test_seeds_that_trained_on_other_prompts_are_no_repetition(tmp_path):
    runs = [write(tmp_path / f"s{n}", n) for n in range(3)]
    for run, digest in zip(runs, ("one", "one", "other"), strict=True):
        (run / "prompts.json").write_text(json.dumps({"sha256": digest}))
    *_, last = json_records(records_of(runs))
    assert last["runs"] == [str(run) for run in runs[:2]]


def test_of_one_that_finished_there_is_no_deviation_and_of_one_seed_no_mean(tmp_path):
    a, b, again = (write(tmp_path / name, n % 2, 0.7, summary=n != 1) for n, name in enumerate("abc"))
    assert line_of(lines(records_of([a, b])), "2 seeds")[1:4] == ["n=1", "70.0% +- -", "60.0% +- -"]
    assert len(lines(records_of([a, again]))) == 5, "a head, two runs and what the columns are"
    assert line_of(lines(records_of([a, b, again])), "3 runs, 2 seeds")[1] == "n=2"


def test_names_are_as_much_of_the_path_as_tells_runs_apart(tmp_path):
    paths = [tmp_path / p for p in ("x/a/run", "x/b/run", "x/c", "y/a/run")]
    assert names_of(paths) == ["x/a/run", "b/run", "c", "y/a/run"]
    for path in paths:
        path.mkdir(parents=True)
        (path / "config.yaml").write_text("name: toy\n")
    (tmp_path / "newest").symlink_to(paths[2])
    assert [record.path for record in records_of([*paths, tmp_path / "newest", paths[0]])] == paths


@pytest.mark.parametrize("algorithm", ["dr_grpo", "grpo", "gspo"])
def test_what_differs_between_algorithms_is_said_in_their_terms(algorithm):
    configs = [to_yaml(compose_recipe("quickstart", [f"algorithm={name}"])) for name in ("dapo", algorithm)]
    dapo, other = differences([Settings.of(text) for text in configs])
    assert {name.split(".")[0] for name in dapo} == {"algorithm"} and not any("_" in name[-1] for name in dapo)
    assert "algorithm.surrogate.high" in dapo and dapo["algorithm.shaping"] == "overlong"
    assert not {"algorithm.shaping.buffer", "algorithm.advantage.eps", "algorithm.kl.coefficient"} & {*dapo, *other}
    if algorithm == "dr_grpo":
        assert (dapo["algorithm.advantage"], other["algorithm.advantage"]) == ("standardize", "center")
        assert "algorithm.advantage.ddof" not in dapo, "an option of the one function alone"


def test_an_option_is_said_where_runs_with_the_same_function_differ_in_it():
    slot = "algorithm: {{advantage: {{_partial_: true, _target_: {}, {}}}}}\n"
    filled = [("x.standardize", "eps: 1"), ("x.standardize", "ddof: 1"), ("x.y", "z: 2")]
    one, two, three = differences([Settings.of(slot.format(*pair)) for pair in filled])
    assert one == {"algorithm.advantage": "standardize", "algorithm.advantage.eps": "1"}
    assert two == {"algorithm.advantage": "standardize", "algorithm.advantage.ddof": "1"}
    assert three == {"algorithm.advantage": "y"}
    mine, ours = differences([Settings.of(slot.format(f"{home}.center", "a: 1")) for home in ("mine", "rlvr")])
    assert mine == {"algorithm.advantage": "mine.center"} and ours == {"algorithm.advantage": "rlvr.center"}


def test_where_a_run_was_is_no_difference():
    texts = ["run: {folder: a}\ncluster: {kind: local}\nlog: {console: true}\nseed: 0\n", "clusters: 3\nseed: 0\n"]
    assert differences([Settings.of(text) for text in texts]) == [{}, {"clusters": "3"}]


NO_RECIPES = ("", "[1, 2]", "a: b: c", "\x00", "[" * 5000, "log: {console: true}", "!!python/x:y z")


@pytest.mark.parametrize("text", NO_RECIPES)
def test_what_is_no_recipe_differs_from_nothing(text):
    assert Settings.of(text) is None
    settings = Settings.of("seed: 1\n")
    assert differences([None, settings, settings]) == [{}, {}, {}]


VALUES = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(["1", "2", "x.y"]), min_size=1)


@given(st.lists(VALUES, min_size=1, max_size=4))
def test_a_value_is_said_exactly_where_it_is_not_the_same_in_all(configs):
    said = differences([Settings.of(json.dumps(config)) for config in configs])
    for config, differs in zip(configs, said, strict=True):
        for name, value in config.items():
            same = all(other.get(name) == value for other in configs)
            assert differs.get(name) == (None if same else value)
        assert differs.keys() <= config.keys()


@given(st.text("abc/", max_size=80), st.integers(12, 50))
def test_what_is_cut_keeps_its_ends(text, width):
    found = cut(text, width)
    assert len(found) == min(len(text), width) and found[0:3] == text[0:3] and found[-4:] == text[-4:]


def test_long_differences_stand_below_the_table(tmp_path):
    more = "data: {{system: '{}', train: {}}}\n"
    runs = [write(tmp_path / ("n" * n), n, more=more.format("\u202eevil" * n, "p" * 300 * n)) for n in (1, 200)]
    found = lines(records_of(runs))
    assert "what differs:" in found
    assert all(line.isascii() and len(line) <= WIDE for line in found)
    assert "\\u202eevil" in " ".join(found) and "seed=200" in " ".join(found)
    assert max(map(len, re.findall(r"data.train=(\S+)", " ".join(found)))) == LONG


def test_a_page_has_the_table_and_a_curve_a_run(tmp_path):
    runs = [write(tmp_path / "one<b>"), write(tmp_path / "two", 1, more="data: {system: <script>}\n")]
    runs.append(write_run(tmp_path / "three"))
    out = write_page(records_of(runs), tmp_path / "page.html")
    assert out == tmp_path / "page.html"
    text = out.read_text()
    document, said = parsed(text), words(text)
    assert "3 runs side by side" in said and "15.0% -&gt; 75.0%" in said and "one&lt;b&gt;" in said
    assert "data.system &lt;script&gt;" in said and "rollback: three: kl 1.73" in text
    assert "upright and dashed: a rollback, in the colour of its run" in said
    names = {node.tagName for node in document.getElementsByTagName("*")}
    assert not names & {"script", "link", "img", "iframe", "a"} and "default-src 'none'" in text.replace("&#x27;", "'")
    titles = [node.firstChild.data for node in document.getElementsByTagName("figcaption")]
    assert titles[:4] == [
        "Reward", "Accuracy of what was sampled", "Held-out accuracy, greedy", "Held-out accuracy, sampled",
    ]  # fmt: skip
    assert "KL from the reference, nats" not in titles, "no run has it"
    [lengths] = [figure for figure in figures(text) if "Mean length" in figure]
    assert COLOURS[2] in lengths and COLOURS[0] not in lengths, "of the third run alone, in its own colour"
    rewards = figures(text)[0]
    assert rewards.count("<polyline") == 3 and all(colour in rewards for colour in COLOURS[:3])
    assert f'stroke="{COLOURS[2]}" stroke-dasharray="3 3"' in rewards, "its rollback"
    entropies = next(figure for figure in figures(text) if "Held-out accuracy, sampled" in figure)
    assert "rollback" not in entropies, "the run that was rolled back has no such curve"


def figures(text):
    return re.findall(r"<figure>.*?</figure>", text, flags=re.DOTALL)


def test_what_was_undone_is_left_out_and_said_so(tmp_path):
    path = write(tmp_path / "a", summary=False)
    folder = RunFolder.open(path)
    folder.undo_after(5, "kl")
    folder.close()
    text = page(records_of([path, write(tmp_path / "b", 1)]))
    assert "steps that were undone are left out" in text and 'stroke-dasharray="4 3"' not in text


def test_a_curve_looks_as_it_is_told_whatever_else_is_drawn():
    def drawn(n):
        return Curve(f"run {n}", [(1, 0.5), (2, 0.7)], look=n)

    figure = chart("x", [Curve("run 0", [], look=0), drawn(1), drawn(8)], [Mark(2, "rollback", "kl", COLOURS[1])])
    assert COLOURS[0] not in figure and figure.count(f'stroke="{COLOURS[1]}"') == 2
    assert re.search(f'stroke="{COLOURS[2]}"[^>]*stroke-dasharray="4 2"', figure)


def test_more_runs_than_looks_are_said_to_look_alike(tmp_path):
    runs = [write(tmp_path / f"r{n}", n, steps=2) for n in range(13)]
    assert "More than 12 runs" in page(records_of(runs)) and "More than" not in page(records_of(runs[:12]))


def test_what_is_not_finite_is_json_all_the_same(tmp_path):
    runs = [write(tmp_path / name, summary=False) for name in "ab"]
    (runs[0] / "metrics.jsonl").write_text('{"step": 1, "reward/mean": "inf"}\n{"step": 2, "reward/mean": "-inf"}\n')
    assert math.isnan(json_records(records_of(runs))[0]["reward"]) and "nan" in lines(records_of(runs))[1]


def test_fewer_than_two_runs_a_folder_that_is_none_and_a_page_that_cannot_be_written(tmp_path):
    run = write(tmp_path / "a")
    for few in ([], [run], [run, tmp_path / "." / "a"]):
        with pytest.raises(RecipeError, match="two run folders or more: got"):
            records_of(few)
    with pytest.raises(RecipeError, match="nowhere is no run folder"):
        records_of([run, tmp_path / "nowhere"])
    with pytest.raises(RecipeError, match=r"--out .*missing/page.html: cannot be written: No such file"):
        write_page(records_of([run, write(tmp_path / "b")]), tmp_path / "missing" / "page.html")
    assert not (tmp_path / "page.html").exists()
