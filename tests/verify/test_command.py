"""The commands as a user types them, in this process; what they judge runs in processes of its own."""

import io
import json
import os
import sys
import threading
from pathlib import Path

import pytest

from rlvr.cli import main
from rlvr.compose import recipes_folder
from rlvr.verify import command
from rlvr.verify.plugin import PluginError


def written(path: Path, *rows: dict) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_list_names_every_installed_verifier(capsys):
    assert main(["verifiers", "list"]) == 0
    listed = capsys.readouterr().out
    assert {"math", "format", "code", "judge"} <= {line.split()[0] for line in listed.splitlines()}
    assert "cannot be loaded" not in listed


def test_run_prints_a_verdict_a_line_in_order(own, capsys):
    samples = written(
        own / "samples.jsonl",
        {"prompt": "q", "completion": "so 5", "reference": "5"},
        {"prompt": [{"role": "user", "content": "q"}], "completion": "so 6", "reference": "5"},
        {"prompt": "q", "completion": "so 5!", "reference": 5, "tail": "!"},
    )
    assert main(["verifiers", "run", "mine.py:ends", samples, "scale=0.5", "--processes", "1"]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [v["reward"] for v in said] == [0.5, 0.0, 0.5]
    assert said[0]["provenance"][0]["verifier"] == "ends"


def test_run_keeps_groups_together(own, capsys):
    said = zip("aabba", "11231", strict=True)
    rows = [{"prompt": p, "completion": f"\\boxed{{{c}}}", "reference": ""} for p, c in said]
    words = [written(own / "samples.jsonl", *rows), "unlabelled=true", "least=1", "--processes", "1"]
    assert main(["verifiers", "run", "majority", *words]) == 0
    said = [json.loads(line)["reward"] for line in capsys.readouterr().out.splitlines()]
    assert [said[0], said[1], said[4]] == [1.0, 1.0, 1.0] and len(said) == 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["verifiers", "run", "mahts", "s.jsonl"], "did you mean math"),
        (["verifiers", "run", "math", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["verifiers", "run", "math", "latin1.jsonl"], "latin1.jsonl: cannot be read: 'utf-8' codec"),
        (["verifiers", "test", "math", "latin1.jsonl"], "latin1.jsonl: cannot be read: 'utf-8' codec"),
        (["verifiers", "run", "mine.py:ends", "bad.jsonl"], "bad.jsonl, line 1: not JSON"),
        (["verifiers", "run", "mine.py:ends", "bad.jsonl", "scle=1"], "did you mean scale"),
        (["verifiers", "run", "mine.py:ends", "bad.jsonl", "scale"], "expected key=value"),
        (["rescore", "nowhere"], "nowhere is no run folder"),
        (["data", "check", "rows.jsonl"], "rows.jsonl: a data file goes together with --verifier"),
        (["data", "check", "rows.jsonl", "--verifier", "math", "answer=none"], "no such column"),
    ],
)
def test_a_wrong_word_costs_a_line(own, capsys, words, said):
    (own / "bad.jsonl").write_text("{\n")
    (own / "latin1.jsonl").write_bytes(b'{"prompt": "\xe9"}\n')
    written(own / "rows.jsonl", {"problem": "q", "answer": "5"})
    assert main(words) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"compltion": "5", "reference": "5"}, "no completion; it has compltion, reference"),
        ({"completion": None, "reference": "5"}, "no completion"),
        ({"completion": 5, "reference": "5"}, "completion=5: expected text"),
        ({"completion": "5", "solution": "5"}, "no reference (null, where there is none); it has completion, solution"),
        ({"completion": "5", "reference": "5", "prompt": 5}, "prompt=5 is neither text nor chat messages"),
        ({"completion": "5", "reference": "5", "prompt": None}, "prompt=None is neither text nor chat messages"),
        ({"completion": "5", "reference": "5", "prompt": []}, "prompt=[] is empty"),
        ({"completion": "5", "reference": "5", "prompt": [{"role": "user"}]}, "prompt=[{'role': 'user'}] has no text"),
        ({"completion": "5", "reference": "5", "row": "abc"}, "row='abc': expected an object"),
        ({"completion": "5", "reference": "5", "token_ids": 5}, "token_ids=5: expected a list of numbers"),
        ({"completion": "5", "reference": "5", "token_ids": ["a"]}, "token_ids=['a']: expected a list of numbers"),
        ({"completion": "5", "reference": "5", "stop_reason": 1}, "stop_reason=1: expected text"),
    ],
)
def test_a_line_of_samples_that_says_something_else_is_refused_with_its_number(own, capsys, row, said):
    good = {"prompt": "q", "completion": "5", "reference": None, "token_ids": None}
    path = written(own / "samples.jsonl", good, row)
    assert main(["verifiers", "run", "mine.py:always", path]) == 2
    assert f"samples.jsonl, line 2: {said}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "name", "code"),
    [
        ({"completion": "5", "documents": {}}, "always", 0),
        ({"completion": "5", "documents": {}}, "ends", 2),  # it checks references: it wants one
        ({"completion": "5", "Reference": "5"}, "always", 2),
        ({"completion": "5", "refrence": "5"}, "always", 2),
        ({"completion": "5", "ground_truth": "5"}, "always", 2),
        ({"completion": "5", "ground_truth": "5", "reference": None}, "always", 0),
    ],
)
def test_samples_need_a_reference_where_the_verifier_may_want_one(own, capsys, row, name, code):
    path = written(own / "samples.jsonl", row)
    assert main(["verifiers", "run", f"mine.py:{name}", path, "--processes", "1"]) == code
    words = capsys.readouterr()
    assert ('"reward": 1.0' in words.out) if code == 0 else ("line 1: no reference (null," in words.err)
    assert main(["verifiers", "test", f"mine.py:{name}", path, "--form"]) == code


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"completion": "5", "reward": "1"}, "reward='1': expected a finite number"),
        ({"completion": "5", "reward": float("nan")}, "reward=nan: expected a finite number"),
        ({"reward": 1.0}, "reward=1.0 without a completion that it is for; it has reference, reward"),
    ],
)
def test_a_reward_of_a_line_is_a_number_for_a_completion(own, capsys, row, said):
    path = written(own / "samples.jsonl", {"reference": "5"} | row)
    assert main(["verifiers", "test", "mine.py:always", path]) == 2
    assert f"samples.jsonl, line 1: {said}" in capsys.readouterr().err


def test_test_says_what_fails_and_exits_with_one(own, capsys):
    assert main(["verifiers", "test", "mine.py:always"]) == 1
    said = capsys.readouterr().out
    assert "FAIL refuses other answers" in said and "1 checks failed" in said
    assert main(["verifiers", "test", "mine.py:always", "--form"]) == 0


def test_data_check_counts_the_references_that_do_not_parse(own, capsys):
    rows = written(own / "rows.jsonl", *({"q": "1+1", "a": a} for a in ("2", "four", "3", "four")))
    assert main(["data", "check", rows, "--verifier", "mine.py:ends", "prompt=q", "answer=a"]) == 0
    said = capsys.readouterr().out
    assert "4 rows; 2 (50.00%) with a reference that does not parse" in said
    assert "row 1, id 1: ends: it says four; reference 'four'" in said
    assert main(["data", "check", rows, "--verifier", "mine.py:always", "prompt=q", "answer=a"]) == 0
    said = capsys.readouterr().out
    assert "4 rows; references not checked" in said and "not checked: data" in said


def test_data_check_shows_what_no_terminal_takes(own, capsysbinary):
    bad, good = {"problem": "q", "answer": "four", "id": "\ud800"}, {"problem": "q", "answer": "2"}
    rows = written(own / "rows.jsonl", bad, good)
    assert main(["data", "check", rows, "--verifier", "mine.py:ends"]) == 0
    assert rb"id \ud800: ends: it says four" in capsysbinary.readouterr().out


def test_data_check_refuses_a_column_that_no_row_has(own, capsys):
    written(own / "rows.jsonl", {"problem": "q", "answer": "5", "verifier": "regex"})
    text = (recipes_folder() / "quickstart.yaml").read_text()
    (own / "r.yaml").write_text(text)
    words = ["data.train=rows.jsonl", "data.heldout=null", "reward.parts.math.column=verifer"]
    assert main(["data", "check", "r.yaml", *words]) == 2
    assert "reward.parts.math.column=verifer: no such column in data.train" in capsys.readouterr().err


def test_samples_may_come_through_a_pipe_and_with_a_byte_order_mark(own, capsys):
    line = json.dumps({"prompt": "q", "completion": "5", "reference": "5"}) + "\n"
    (own / "marked.jsonl").write_text(line, encoding="utf-8-sig")
    os.mkfifo(own / "pipe")
    writer = threading.Thread(target=lambda: (own / "pipe").write_text(line))
    writer.start()
    for name in ("marked.jsonl", "pipe"):
        assert main(["verifiers", "run", "mine.py:always", name, "--processes", "1"]) == 0
        assert '"reward": 1.0' in capsys.readouterr().out
    writer.join()


def test_list_takes_no_other_word(capsys):
    with pytest.raises(SystemExit) as end:
        main(["verifiers", "list", "nonsense"])
    assert end.value.code == 2


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_whoever_waits_at_a_terminal_sees_that_something_goes_on(own, run_folder, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Tty())
    rows = written(own / "rows.jsonl", {"problem": "q", "answer": "2"})
    assert main(["data", "check", rows, "--verifier", "mine.py:ends"]) == 0
    assert main(["rescore", str(run_folder)]) == 0
    said = sys.stderr.getvalue()
    assert "reading " in said and "checking 1 rows ..." in said and "step 3: 4 completions judged again" in said
    assert said.endswith("\r\x1b[K")


def test_samples_may_come_by_standard_input(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.py").write_text("def is_a(sample):\n    return sample.completion == 'a'\n")
    rows = [{"prompt": "q", "completion": c, "reference": None} for c in "ab"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(json.dumps(row) + "\n" for row in rows)))
    assert main(["verifiers", "run", f"{tmp_path}/mine.py:is_a", "-", "--processes", "1"]) == 0
    assert [json.loads(line)["reward"] for line in capsys.readouterr().out.splitlines()] == [1.0, 0.0]
    assert main(["verifiers", "run", f"{tmp_path}/mine.py:is_a", "-", "--processes", "0"]) == 2
    assert "--processes 0: at least 1" in capsys.readouterr().err


def test_a_verifier_that_cannot_be_loaded_is_listed_as_that_and_is_a_failure(monkeypatch, capsys):
    def load(name):
        raise PluginError("no such module")

    monkeypatch.setattr(command, "installed", lambda: ["mine"])
    monkeypatch.setattr(command, "load", load)
    assert main(["verifiers", "list"]) == 1
    assert "mine             cannot be loaded: no such module" in capsys.readouterr().out


def test_options_may_stand_where_samples_would(tmp_path, capsys):
    (tmp_path / "mine.py").write_text("def is_a(sample, word='b'):\n    return sample.completion == word\n")
    assert main(["verifiers", "test", f"{tmp_path}/mine.py:is_a", "word=a", "--form"]) == 0
    assert "sound" in capsys.readouterr().out
    assert main(["verifiers", "test", f"{tmp_path}/mine.py:is_a", "wrod=a", "--form"]) == 2
    assert "did you mean word" in capsys.readouterr().err


def test_a_line_of_samples_that_is_no_object_is_named(tmp_path, capsys):
    (tmp_path / "mine.py").write_text("def is_a(sample):\n    return True\n")
    (tmp_path / "s.jsonl").write_text("[1]\n")
    assert main(["verifiers", "run", f"{tmp_path}/mine.py:is_a", f"{tmp_path}/s.jsonl"]) == 2
    assert "s.jsonl, line 1: a list, not an object" in capsys.readouterr().err


def test_what_a_tool_wrote_into_a_recorded_completion_is_no_answer(tmp_path, capsys):
    (tmp_path / "mine.py").write_text("def boxed(sample):\n    return 'box' in sample.completion\n")
    row = {"prompt": "q", "completion": "look: box. none", "reference": None, "observed": [[6, 10]],
           "token_ids": [1, 2, 3], "loss_mask": [True, False, True]}  # fmt: skip
    (tmp_path / "s.jsonl").write_text(json.dumps(row) + "\n")
    assert main(["verifiers", "run", f"{tmp_path}/mine.py:boxed", f"{tmp_path}/s.jsonl", "--processes", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["reward"] == 0.0


@pytest.mark.parametrize(("mask", "tokens"), [([True, False, True], [[1], [3]]), ([True] * 3, [[], []])])
def test_turns_of_a_recorded_completion_are_seen(tmp_path, capsys, mask, tokens):
    (tmp_path / "mine.py").write_text(
        f"def turns(sample):\n    return [list(t.token_ids) for t in sample.turns] == {tokens}"
        " and [t.text for t in sample.turns] == ['look: ', '. none'] and sample.transcript == 'look: box. none'\n"
    )
    row = {"prompt": "q", "completion": "look: box. none", "reference": None, "observed": [[6, 9]],
           "token_ids": [1, 2, 3], "loss_mask": mask}  # fmt: skip
    (tmp_path / "s.jsonl").write_text(json.dumps(row) + "\n")
    assert main(["verifiers", "run", f"{tmp_path}/mine.py:turns", f"{tmp_path}/s.jsonl", "--processes", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["reward"] == 1.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"observed": [[0, 1]], "token_ids": [1], "loss_mask": [True, False]}, {"observed": [[0]]}, {"observed": 5},
        {"observed": [["a", "b"]]}, {"observed": [[0, 1]], "loss_mask": 3},
    ],
)  # fmt: skip
def test_a_recorded_completion_that_no_run_wrote_is_said_in_a_line(tmp_path, capsys, wrong):
    row = {"prompt": "q", "completion": "a\\boxed{5}", "reference": "5"}
    (tmp_path / "s.jsonl").write_text(json.dumps(row | wrong) + "\n")
    assert main(["verifiers", "run", "math", f"{tmp_path}/s.jsonl"]) == 2
    said = capsys.readouterr().err
    assert "line 1: observed, token_ids and loss_mask are no run's" in said and "Traceback" not in said


def test_a_recorded_completion_may_have_no_tokens(tmp_path, capsys):
    row = {"prompt": "q", "completion": "a\\boxed{5}", "reference": "5", "observed": [[0, 1]], "token_ids": None}
    (tmp_path / "s.jsonl").write_text(json.dumps(row) + "\n")
    assert main(["verifiers", "run", "math", f"{tmp_path}/s.jsonl", "--processes", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["reward"] == 1.0
