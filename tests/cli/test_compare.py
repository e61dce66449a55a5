"""`rlvr compare`: a table, a page, or lines for programs; and what it refuses."""

import json

from rlvr import cli
from tests.cli.conftest import refusal
from tests.observe.pages import write_run


def test_runs_are_compared_on_the_terminal_and_in_a_page(capsys, tmp_path, monkeypatch):
    runs = [str(write_run(tmp_path / name, steps=3, summary=name == "a")) for name in "ab"]
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert cli.main(["compare", *runs]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("run") and said[1].startswith("a") and said[2].startswith("b")
    assert said[-1] == "compare.html" and "2 runs side by side" in (tmp_path / "here/compare.html").read_text()
    assert cli.main(["compare", *runs, "--out", str(tmp_path / "page.html")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "page.html")


def test_programs_read_an_object_a_line_and_a_page_is_made_where_it_is_asked_for(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = [str(write_run(tmp_path / name, steps=3, summary=name == "a")) for name in "ab"]
    assert cli.main(["compare", "--json", *runs]) == 0
    a, b = map(json.loads, capsys.readouterr().out.splitlines())
    assert (a["run"], a["status"], a["accuracy_after"]) == (runs[0], "stopped", 0.75)
    assert (b["status"], b["wall_s"], b["accuracy_after_is_newest"]) == ("unfinished", None, True)
    assert not (tmp_path / "compare.html").exists()
    assert cli.main(["compare", "--json", *runs, "--out", "page.html"]) == 0
    assert (tmp_path / "page.html").exists()


def test_one_run_and_a_folder_that_is_none_are_refused_in_a_line(capsys, tmp_path, run_folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "two run folders or more" in refusal(capsys, "compare", str(run_folder))
    assert "nowhere is no run folder" in refusal(capsys, "compare", str(run_folder), "nowhere")
    assert not (tmp_path / "compare.html").exists()
