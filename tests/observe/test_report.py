"""The page of a run: whole, hostile, half, empty."""

import json
import math
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr import cli
from rlvr.config import RecipeError
from rlvr.observe.console import open_display
from rlvr.observe.html import Markup, tag
from rlvr.observe.record import LONG, Record, of_shortened, shortened, spans
from rlvr.observe.report import evaluations, page, status, throughput, timeline, write_report
from rlvr.observe.report_command import at_end
from rlvr.observe.runfolder import RunFolder
from rlvr.observe.summary import Summary
from rlvr.observe.verifiers import tinted
from tests.observe.pages import group, parsed, verdict, words, write_run

HOSTILE = (
    "</pre></td><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"' onmouseover='x' <!-- <![CDATA[ ]]> &amp; &#x3c;b&#x3e;",
    "\u202eevil\u202c \u200b\x00\x1b[31m\ud800 \U000e0041",
    "Z" + "\u0301" * 500,
    "</style><style>body{display:none}</style><meta http-equiv=refresh content='0;url=//x'>",
    "x" * 300_000,
)


def test_weights_handed_over_before_an_evaluation_take_no_time_of_a_step():
    row = {"step": 1, "time/step": 2.0, "time/rollout": 1.0, "time/train": 0.5, "time/publish": 30.0}
    said = str(throughput([row | {"eval/accuracy_greedy": 0.5}]))
    assert "everything else" in said and "-" not in re.sub("<[^>]*>", "", said.partition("a step")[0])
    assert "at the same time" in str(throughput([row | {"time/publish": 1.0}]))  # they overlapped
    timed = row | {"time/step": 32.0, "eval/accuracy_greedy": 0.5, "eval/seconds": 60.0}
    assert ">30<" in str(throughput([timed])), "an evaluation that was timed is taken out, and nothing else with it"


def test_a_page_tells_the_outcome_the_events_and_what_the_verifiers_did(tmp_path):
    text = write_report(write_run(tmp_path / "run-001")).read_text()
    document, said = parsed(text), words(text)
    assert "toy, seed 7: stopped by the sentinel after 12 steps in 1:15" in said
    assert "run-001 stopped toy, seed 7" in said and 'class="status bad">stopped<' in text
    assert "greedy 15.0% to 75.0% (5.0 times); 2 warnings; 1 rollback" in said
    assert "kl 1.73 &gt; 1.0: rolled back from step 9 to 5" in said
    assert "suspicious 25.0%" in said and "disagreement 12.5%" in said and "masked 6.2%" in said
    assert "error/crashed 36 37.5%" in said  # 12 steps x 3 of 8 verdicts
    assert "sampling and verifying 1 50.0%" in said
    assert "advantage +1.000" in said and "advantage none: its group was not trained on" in said
    titles = {node.firstChild.data for node in document.getElementsByTagName("figcaption")}
    assert {"Reward", "Accuracy", "Entropy, nats", "Length, tokens", "Gradient norm, before clipping"} <= titles


def test_the_time_of_a_resumed_run_is_said_to_be_that_of_its_last_steps(tmp_path):
    path = write_run(tmp_path / "run", summary=False)
    folder = RunFolder.open(path)
    folder.write_summary(Summary("toy", 7, "finished", 12, 75.0, 100.0, 900.0, steps_before=8))
    folder.close()
    assert "toy, seed 7: finished after 12 steps, the last 4 in 1:15" in words(write_report(path).read_text())


def test_a_page_needs_nothing_from_elsewhere_and_runs_nothing(tmp_path):
    text = write_report(write_run(tmp_path / "run", texts=HOSTILE[:6])).read_text()
    document = parsed(text)
    names = {node.tagName for node in document.getElementsByTagName("*")}
    assert not names & {"script", "link", "img", "iframe", "object", "embed", "base", "form", "a", "foreignObject"}
    attributes = {name for node in document.getElementsByTagName("*") for name in node.attributes.keys()}  # noqa: SIM118
    assert not attributes & {"src", "href", "action"} and not any(name.startswith("on") for name in attributes)
    assert len(document.getElementsByTagName("style")) == 1 and "url(" not in text.partition("</style>")[0]
    assert "default-src 'none'" in text.replace("&#x27;", "'")


def test_hostile_completions_are_text(tmp_path):
    for n, hostile in enumerate(HOSTILE):
        path = write_run(tmp_path / f"run-{n}", steps=2, texts=(hostile, "fine", hostile))
        text = write_report(path).read_text()
        parsed(text)
        assert len(text) < 200_000
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", text)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in (tmp_path / "run-0" / "report.html").read_text()
    assert "\\u202eevil" in (tmp_path / "run-3" / "report.html").read_text()
    assert "\u0301" * 5 not in (tmp_path / "run-4" / "report.html").read_text()


def test_a_run_that_was_killed_has_a_page_too(tmp_path):
    path = write_run(tmp_path / "run", summary=False)
    with (path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 13, "reward/me')
    with (path / "events.jsonl").open("ab") as file:
        file.write(b'{"time": 3, "kind": "error", "message": "RuntimeError: out of <memory>", "fields": {}}\n[1]\n')
    (path / "completions" / "step-000012.jsonl").write_bytes(b'{"completion": 3}\n\xff\xfe\n' + b"[" * 100_000 + b"\n")
    (path / "environment.json").write_text("{")
    text = write_report(path).read_text()
    parsed(text)
    said = words(text)
    assert "failed No result: the run failed after 12 steps" in said
    assert "the last it said: RuntimeError: out of &lt;memory&gt;" in said
    assert "6 lines or files of this run cannot be read" in said


def test_what_the_last_evaluation_answered_worst_is_shown(tmp_path):
    path = write_run(tmp_path / "run", steps=2)
    assert "worst answers" not in write_report(path).read_text()
    folder = RunFolder.open(path)
    greedy = [group([f"right {n}"], f"held-{n}") for n in range(3)] + [group(["masked", "right", "wrong"], "held-3")]
    wrong = [replace(g, verdicts=(verdict(0.1 * n, answer="9"),)) for n, g in enumerate([group(["nine"], "bad")] * 6)]
    folder.write_evaluation(1, {"greedy": [group(["earlier", "x", "long ago"])], "sampled": []})
    folder.write_evaluation(2, {"greedy": [*greedy, *wrong], "sampled": [group(["a", "b", "sampled"])]})
    folder.close()
    missed = Record.of(path).missed
    assert [(step, record["reward"]) for step, record in missed] == [(2, 0.0), (2, 0.0), (2, 0.1), (2, 0.2)]
    assert [record["prompt"] for _, record in missed] == ["held-3", "bad", "bad", "bad"]
    text = write_report(path).read_text()
    parsed(text)
    shown = words(text).partition("worst answers")[2]
    assert "step 2, prompt held-3" in shown and "sampled" not in shown and "long ago" not in shown


def test_where_all_held_out_answers_are_paid_alike_none_is_the_worst(tmp_path):
    path = write_run(tmp_path / "run", steps=2)
    folder = RunFolder.open(path)
    folder.write_evaluation(2, {"greedy": [group(["right"]), group(["right too"])], "sampled": []})
    folder.close()
    assert Record.of(path).missed == []
    folder = RunFolder.open(path)
    none = [replace(group([text]), verdicts=(verdict(0.0),)) for text in ("wrong", "wrong too")]
    folder.write_evaluation(2, {"greedy": none, "sampled": []})
    folder.close()
    assert [record["completion"] for _, record in Record.of(path).missed] == ["wrong", "wrong too"], "none is right"


def test_an_evaluation_is_no_run(tmp_path):
    (tmp_path / "problems.jsonl").write_text("")
    (tmp_path / "config.yaml").write_text("")
    with pytest.raises(RecipeError, match="is an evaluation, and no run folder"):
        write_report(tmp_path)


def test_a_step_that_was_evaluated_again_counts_as_it_was_last():
    said = [(0, 0.1), (4, 0.2), (8, 0.0), (4, 0.5), (8, 0.75)]  # a rollback after the third
    events = [
        {"kind": "evaluation", "fields": {"step": step, "eval/accuracy_greedy": accuracy}} for step, accuracy in said
    ]
    assert evaluations(events) == {"eval/accuracy_greedy": [(0, 0.1), (4, 0.5), (8, 0.75)]}


@pytest.mark.parametrize("kind", ["rollback", "begin"])
def test_an_evaluation_of_a_step_that_was_undone_is_not_drawn(kind):
    first, again = (
        {"kind": "evaluation", "fields": {"step": n, "eval/accuracy_greedy": x}} for n, x in ((50, 0.9), (40, 0.5))
    )
    back = {"kind": kind, "fields": {"step": 54, "to": 40}}
    assert evaluations([again, first, back, again]) == {"eval/accuracy_greedy": [(40, 0.5)]}
    assert evaluations([first, back]) == {}
    assert evaluations([again, first, {"kind": kind, "fields": {"to": 50}}])["eval/accuracy_greedy"][-1] == (50, 0.9)


def test_the_machine_is_that_of_the_last_start(tmp_path):
    for n in range(1, 12):
        name = "environment.json" if n == 1 else f"environment-{n}.json"
        (tmp_path / name).write_text(json.dumps({"command": f"start {n}"}))
    (tmp_path / "config.yaml").write_text("")
    assert Record.of(tmp_path).environment == {"command": "start 11"}


def test_the_kl_from_an_anchor_is_drawn_where_that_from_the_reference_is_missing(tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    folder.write_config("name: toy\n")
    for step in range(1, 9):
        folder.log(step, {"policy/kl_ref" if step < 5 else "policy/kl_anchor": step / 100})
    folder.close()
    said = words(write_report(tmp_path / "run").read_text())
    assert "policy/kl_ref" in said and "policy/kl_anchor" in said


def test_a_run_that_has_not_begun_has_a_page(tmp_path):
    RunFolder.create(tmp_path / "run").close()
    said = words(write_report(tmp_path / "run").read_text())
    assert "after 0 steps" in said and "No step was taken yet." in said and "No verdict was recorded." in said


def test_what_is_not_a_run_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="is no run folder"):
        write_report(tmp_path)
    with pytest.raises(RecipeError, match="is no run folder"):
        write_report(tmp_path / "nowhere")


def test_odd_values_in_the_record_break_nothing(tmp_path):
    path = write_run(tmp_path / "run", steps=1)
    rows = [
        {"step": 2, "reward/mean": "nan", "policy/grad_norm": "inf", "accuracy": 1e308, "policy/entropy": -1e308},
        {"step": 3, "reward/mean": 1e308, "policy/grad_norm": 10**400, "accuracy": True, "outcomes/math/x": "inf"},
        {"step": 4, "policy/entropy": 1e308, "time/step": "nan", "accuracy": None, "reward/<b>": 1},
        {"no step": 1},
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    events = [{"kind": "<i>", "message": None, "fields": {"step": "x"}}, {"fields": {"step": 1e308}, "time": "-"}]
    (path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    (path / "summary.json").write_text('{"steps": "<b>", "wall_s": 1}')
    parsed(write_report(path).read_text())


def test_what_was_undone_is_drawn_pale_and_dashed(tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    folder.write_config("name: toy\n")
    for step in range(1, 8):
        folder.log(step, {"policy/entropy": 0.5, "passed/math": 0.5})
    folder.undo_after(4, "rollback", {"step": 8, "policy/entropy": math.nan, "passed/math": 0.0})
    for step in (5, 6):
        folder.log(step, {"policy/entropy": 0.5, "passed/math": 0.5})
    folder.undo_after(5, "begin")
    folder.close()
    record = Record.of(tmp_path / "run")
    assert [[row["step"] for row in stretch] for stretch in record.undone] == [[5, 6, 7, 8], [6]]
    text = page(record)
    parsed(text)
    for title in ("Entropy, nats", "math: shares"):
        figure = text.partition(f"<figcaption>{title}</figcaption>")[2].partition("</figure>")[0]
        pale = figure.partition('<g opacity="0.65">')[2].partition("</g>")[0]
        assert pale.count("stroke-dasharray") == 1 and pale.count("<circle") == 1, title  # steps 5 to 7 or 8; and 6
    assert "dashed and pale: steps that were undone" in text


def test_a_run_of_which_all_was_undone_shows_what_it_was(tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    folder.write_config("name: toy\n")
    for step in (1, 2, 3):
        folder.log(step, {"reward/mean": 0.5, "reward/math": step})
    folder.undo_after(0, "rollback")
    folder.event("rollback", "back to the start", step=3, to=0)
    folder.close()
    text = write_report(tmp_path / "run").read_text()
    parsed(text)
    assert "<figcaption>Reward by part</figcaption>" in text and "No step was taken yet." not in text


@pytest.mark.parametrize(
    ("events", "summary", "word"),
    [
        (["begin"], {}, "unfinished"),
        (["begin", "error"], {}, "failed"),
        (["begin", "error", "begin"], {}, "unfinished"),
        (["begin", "error"], {"status": "finished"}, "failed"),  # resumed after its end
        (["begin"], {"status": "finished"}, "finished"),
        (["begin", "interrupt"], {"status": "interrupted"}, "interrupted"),
        ([], {}, "unfinished"),
    ],
)
def test_how_a_run_ended_is_the_first_word_of_its_page(tmp_path, events, summary, word):
    record = replace(
        Record.of(write_run(tmp_path / "run")), summary=summary,
        events=[{"kind": kind, "message": "", "fields": {}} for kind in events],
    )  # fmt: skip
    colour = {"finished": "good", "failed": "bad"}.get(word, "dim")
    assert status(record) == f'<b class="status {colour}">{word}</b>'
    assert ("the run is going on" in page(record)) == (word in ("unfinished", "interrupted", "finished"))


def test_marks_are_explained_without_a_mouse(tmp_path):
    said = words(write_report(write_run(tmp_path / "run")).read_text())
    assert "Curves rollback Reward" in said and "undone" not in said


def test_names_of_events_do_not_run_into_their_dots():
    names = ("checkpoint_failed", "evaluation")
    events = [{"time": f"2026-01-01T00:00:0{n}", "kind": kind, "fields": {}} for n, kind in enumerate(names)]
    drawn = parsed("<!doctype html>\n" + timeline(events))
    dots = [float(dot.getAttribute("cx")) for dot in drawn.getElementsByTagName("circle")]
    assert min(dots) > 6 * len("checkpoint_failed") and max(dots) < 640  # letters of 6 units


# ---- completions that called a tool ---------------------------------------------------------------------------------


def test_what_a_tool_said_is_set_apart(tmp_path):
    path = write_run(tmp_path / "run", steps=1)
    (path / "completions" / "step-000001.jsonl").write_text(
        json.dumps({"prompt": "7", "completion": "2*3=<6>, so 6", "observed": [[4, 7], [12, 13]], "reward": 1.0}) + "\n"
    )
    text = write_report(path).read_text()
    parsed(text)
    assert re.findall('<span class="tool" title[^>]*>([^<]*)</span>', text) == ["&lt;6&gt;", "6"]
    assert "prompt <bdi>7</bdi>" in text and '<details open="">' in text and ": what a tool said." in text
    assert 'class="tool"' not in page(replace(Record.of(path), completions=[]))


@pytest.mark.parametrize("odd", [None, 3, "ab", [[1]], [[0, "x"]], [[5, 2]], [[0, 99]], [[-1, 2]], [[0, 2], [1, 3]]])
def test_spans_that_are_none_set_nothing_apart(odd):
    assert spans(odd, 10) == []


@given(st.integers(0, 3 * LONG), st.lists(st.integers(0, 3 * LONG), max_size=8))
def test_what_a_tool_said_is_the_same_in_a_text_that_is_shortened(length, cuts):
    """Each character tells whether a tool wrote it; the note in the gap is nobody's."""
    places = sorted(min(cut, length) for cut in cuts[: len(cuts) // 2 * 2])
    found = spans(list(zip(places[::2], places[1::2], strict=True)), length)
    text = ["p"] * length
    for start, end in found:
        text[start:end] = "t" * (end - start)
    short_text = shortened("".join(text))
    pieces = tinted(short_text, of_shortened(found, length))
    kept = re.sub("<[^>]*>", "", "".join(pieces))
    assert kept == short_text
    for piece in pieces:
        said = re.sub(r"<[^>]*>|\n\[\.\.\. [\d,]+ characters \.\.\.\]\n", "", piece)
        assert set(said) <= {"t" if isinstance(piece, Markup) else "p"}


def test_only_markup_is_markup():
    assert tag("p", "1<2", tag("b", 3), None, [" &", Markup("<br/>")]) == "<p>1&lt;2<b>3</b> &amp;<br/></p>"
    assert tag("p", class_='">', stroke_width=2) == '<p class="&quot;&gt;" stroke-width="2"></p>'


def test_the_command_writes_it_and_says_where(tmp_path, capsys):
    assert cli.main(["report", str(write_run(tmp_path / "run"))]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/run/report.html\n"
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "is no run folder" in capsys.readouterr().err


def test_a_page_that_cannot_be_made_does_not_end_a_run(tmp_path, capsys):
    at_end(tmp_path, open_display())
    assert "no report" in capsys.readouterr().out


def test_a_pages_text_is_the_records(tmp_path):
    record = replace(Record.of(write_run(tmp_path / "run")), completions=[], events=[], metrics=[])
    assert "Nothing was recorded." in page(record) and "name: &lt;i&gt;toy&lt;/i&gt;" in page(record)
