"""The page of a run: whole, hostile, half, empty."""

import json
import math
import re
from dataclasses import replace
from itertools import pairwise
from xml.dom import minidom

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rlvr import cli
from rlvr.config import RecipeError
from rlvr.observe.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    MANY,
    RIGHT,
    TOP,
    WIDTH,
    Curve,
    Mark,
    chart,
    colour_of,
    framed,
    short,
    ticks,
)
from rlvr.observe.console import open_display
from rlvr.observe.html import Markup, tag
from rlvr.observe.record import LONG, Record, of_shortened, shortened, spans
from rlvr.observe.report import evaluations, page, status, throughput, timeline, write_report
from rlvr.observe.report_command import at_end
from rlvr.observe.runfolder import RunFolder
from rlvr.observe.summary import Summary
from rlvr.observe.verifiers import share_of, tinted
from rlvr.types import Completion, Group, Outcome, Prompt, Provenance, Verdict
from rlvr.verify.monitor import metrics
from tests import builders

HOSTILE = (
    "</pre></td><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"' onmouseover='x' <!-- <![CDATA[ ]]> &amp; &#x3c;b&#x3e;",
    "\u202eevil\u202c \u200b\x00\x1b[31m\ud800 \U000e0041",
    "Z" + "\u0301" * 500,
    "</style><style>body{display:none}</style><meta http-equiv=refresh content='0;url=//x'>",
    "x" * 300_000,
)


def verdict(reward, **more):
    outcome = Outcome.OK if reward is not None else Outcome.ERROR
    return Verdict(reward, outcome, {} if reward is None else {"math": reward}, "equal", **more)


def test_shares_are_of_verdicts_and_not_of_steps():
    rows = [
        {"step": 1, "passed/math": 0.0, "outcomes/math/ok/differs": 10},
        {"step": 2, "passed/math": 1.0, "outcomes/math/ok/equal": 30},
    ]
    assert share_of(rows, "passed", "math") == "75.0%"
    assert share_of([{"step": 1, "masked/math": 0.5}], "masked", "math") == "50.0%"
    assert share_of(rows, "fast_path", "math") == ""


WORD = st.sampled_from([("ok", 1.0), ("ok", 0.0), ("rejected", 0.0), ("abstain", None), ("error", None)])
# of a completion: what the first verifier says and, where it cannot say, the second; what the audit says, if it looks
SAID = st.tuples(WORD, WORD, st.none() | WORD, st.booleans(), st.booleans())


def step_of(completions) -> list[Group]:
    """Each a group of its own, of the part `math`; a completion of `hack` looks like one."""
    groups = []
    for first, second, audit, fast, hack in completions:
        chain = [("math", *said) for said in ([first] if first[1] is not None else [first, second])]
        chain += [("audit:math", *audit)] if audit is not None else []
        where = tuple(
            Provenance(name, part=name, outcome=outcome, reason="why", reward=reward, path="fast" if fast else "slow")
            for name, outcome, reward in chain
        )
        one = replace(builders.completion(), text="hack" if hack else "")
        groups.append(Group(builders.prompt(), (one,), (replace(builders.verdict(1.0), provenance=where),)))
    return groups


@given(st.lists(st.lists(SAID, min_size=1, max_size=8), min_size=1, max_size=4))
def test_a_share_of_several_steps_is_that_of_all_their_completions_at_once(steps):
    """Where each step decides something, and what cannot be decided is not audited: else its counts do not tell."""
    steps = [
        [*((a, b, audit if a[1] is not None or b[1] is not None else None, *rest) for a, b, audit, *rest in step),
         (("ok", 1.0), ("ok", 1.0), None, True, False)]
        for step in steps
    ]  # fmt: skip

    def signs(text: str) -> list[str]:
        return [text] if text else []

    rows = [{"step": n, **metrics(step_of(step), signs)} for n, step in enumerate(steps, 1)]
    (together,) = [{"step": 1, **metrics(step_of([said for step in steps for said in step]), signs)}]
    for word in ("passed", "masked", "fast_path", "suspicious", "disagreement"):
        one, other = share_of(rows, word, "math"), share_of([together], word, "math")
        assert one == other or abs(float(one[:-1]) - float(other[:-1])) < 0.11, word  # they are rounded


def test_a_step_that_decided_less_counts_for_less():
    rows = [
        {"step": 1, "masked/m": 0.9, "passed/m": 1.0, "outcomes/m/error/x": 9, "outcomes/m/ok/right": 1},
        {"step": 2, "masked/m": 0.0, "passed/m": 0.1, "outcomes/m/ok/wrong": 9, "outcomes/m/ok/right": 1},
        {"step": 3, "masked/m": 1.0, "outcomes/m/error/x": 20},
    ]
    assert share_of(rows, "passed", "m") == "18.2%"
    assert share_of(rows, "masked", "m") == "72.5%"
    chain = [
        {"step": 1, "masked/m": 0.5, "outcomes/m/abstain/a": 10, "outcomes/m/error/b": 5, "outcomes/m/ok/right": 5},
        {"step": 2, "masked/m": 0.0, "outcomes/m/ok/right": 10},
    ]
    assert share_of(chain, "masked", "m") == "25.0%"
    audits = [
        {"step": 1, "disagreement/m": 1.0, "outcomes/m/ok/right": 10, "outcomes/audit:m/ok/r": 1},
        {"step": 2, "disagreement/m": 0.0, "outcomes/m/ok/right": 10, "outcomes/audit:m/ok/r": 9},
    ]
    assert share_of(audits, "disagreement", "m") == "10.0%"
    passes = [
        {"step": 1, "passed/m": 0.1, "suspicious/m": 1.0, "outcomes/m/ok/right": 1, "outcomes/m/ok/wrong": 9},
        {"step": 2, "passed/m": 0.9, "suspicious/m": 0.0, "outcomes/m/ok/right": 9, "outcomes/m/ok/wrong": 1},
    ]
    assert share_of(passes, "suspicious", "m") == "10.0%"


def test_weights_handed_over_before_an_evaluation_take_no_time_of_a_step():
    row = {"step": 1, "time/step": 2.0, "time/rollout": 1.0, "time/train": 0.5, "time/publish": 30.0}
    said = str(throughput([row | {"eval/accuracy_greedy": 0.5}]))
    assert "everything else" in said and "-" not in re.sub("<[^>]*>", "", said.partition("a step")[0])
    assert "at the same time" in str(throughput([row | {"time/publish": 1.0}]))  # they overlapped
    timed = row | {"time/step": 32.0, "eval/accuracy_greedy": 0.5, "eval/seconds": 60.0}
    assert ">30<" in str(throughput([timed])), "an evaluation that was timed is taken out, and nothing else with it"


@pytest.mark.parametrize("value", [-3.456e-07, -1.5e-300, -123456.0, 0.000123456, -0.00123456, 2.5e10, -9.99e9, 1e308])
def test_a_number_of_an_axis_fits_beside_it(value):
    assert len(short(value)) <= 9 and len(short(abs(value))) <= 8


def group(texts, prompt="train-1", answer="4"):
    completions = tuple(Completion((1,), (True,), (-0.1,), 1, text, "eos") for text in texts)
    rewards = [1.0, None, *[0.0] * len(texts)][: len(texts)]
    messages = ({"role": "user", "content": "<b>2+2</b>"},)
    verdicts = tuple(verdict(reward, answer=texts[0][:50]) for reward in rewards)
    return Group(Prompt(prompt, 1, messages, (1,), answer), completions, verdicts)


def write_run(path, steps=12, texts=("4", "5", "6"), summary=True):
    folder = RunFolder.create(path)
    folder.write_config("name: <i>toy</i>\n")
    folder.write_environment()
    folder.event("begin", "from the start", to=0)
    folder.event("evaluation", "held-out accuracy after step 0: greedy 15.0%", step=0, **{"eval/accuracy_greedy": 0.15})
    for step in range(1, steps + 1):
        row = {"reward/mean": step / 20, "reward/math": step / 20, "accuracy": step / 20, "policy/entropy": 1 / step}
        row |= {"policy/grad_norm": 0.5, "completions/length_mean": 30.0 + step, "time/step": 2.0, "time/rollout": 1.0}
        row |= {"passed/math": step / 20, "suspicious/math": 0.25, "fast_path/math": 0.9, "disagreement/math": 0.125}
        row |= {
            "masked/math": 0.0625,
            "outcomes/math/ok/equal": 5,
            "outcomes/math/error/crashed": 3,
            "tokens/per_s": 900.0,
        }
        folder.log(step, row)
        folder.write_completions(step, [group(texts), group(texts, "train-2")], [[1.0] * len(texts), None])
    folder.event("rollback", "kl 1.73 > 1.0: rolled back from step 9 to 5", step=9, to=5, alarm={})
    folder.event("warning", "one")
    folder.event("warning", "two")
    folder.event("evaluation", "held-out accuracy", step=steps, **{"eval/accuracy_greedy": 0.75})
    if summary:
        folder.write_summary(Summary("toy", 7, "stopped", steps, 75.0, 100.0, 900.0, 200, 1, 0.15, 0.75))
    folder.close()
    return path


def parsed(text):
    """A page must be well-formed; the elements it has."""
    assert text.startswith("<!doctype html>\n")
    return minidom.parseString(text.partition("\n")[2].encode(errors="backslashreplace"))


def words(text):
    return re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]*>", " ", text, flags=re.DOTALL))


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


def test_a_long_run_is_drawn_with_few_points():
    points = [(float(n), float(n % 2)) for n in range(100_000)]
    points[5_000] = (5_000.0, float("nan"))
    figure = chart("alternating", [Curve("x", points)])
    assert len(figure) < 60_000
    assert "polygon" in figure and figure.count("l6 6m0 -6") == 1  # the range of the values, and one cross
    assert chart("short", [Curve("x", points[:MANY])]).count("polygon") == 0


def test_marks_stand_on_the_curve_and_say_what_they_are():
    figure = chart("x", [Curve("x", [(1, 1.0), (3, 2.0)])], [Mark(2, "rollback", "a < b")])
    assert "<title>rollback: a &lt; b</title>" in figure


def test_a_mark_beyond_the_curve_widens_the_axis():
    """A rollback stands where the run broke, and its curve may end where it went back to."""
    marks = [Mark(9, "rollback", "kl"), Mark(math.inf, "odd", "nowhere")]
    figure = chart("x", [Curve("x", [(1, 1.0), (3, 2.0)])], marks)
    assert "<title>rollback: kl</title>" in figure and "nowhere" not in figure
    assert f'x1="{WIDTH - RIGHT}.0"' in figure, "at the right end"
    assert f'points="{LEFT},' in figure and max(x for x, _ in places(figure)) < (LEFT + WIDTH) / 2


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


def places(figure):
    """Of the points of all lines."""
    lines = re.findall(r'points="([^"]*)"', figure)
    return [tuple(map(float, pair.split(","))) for line in lines for pair in line.split()]


def test_from_the_seventh_curve_on_colours_come_again_dashed():
    figure = chart("parts", [Curve(str(n), [(1, n), (2, n)]) for n in range(10)])
    assert figure.count('stroke-dasharray="4 2"') == 4 == figure.count('class="dashed"')
    looks = re.findall(r'<polyline points="[^"]*" (.*?)/>', figure)
    assert len(set(looks)) == len(looks) == 10


@given(st.lists(st.floats(0.1, 2.0), min_size=20, max_size=400), st.floats(10.0, 1e12), st.data())
def test_one_spike_flattens_no_curve(usual, spike, data):
    at = data.draw(st.integers(0, len(usual)))
    values = [*usual[:at], spike, *usual[at:]]
    figure = chart("grad_norm", [Curve("grad_norm", list(enumerate(values)))])
    assert f"<title>step {at}: {short(spike)}</title>" in figure and f"\u25b2 up to {short(spike)}" in figure
    frame = framed([Curve("grad_norm", list(enumerate(values)))], [], False)
    assert frame.high_y <= 4 * max(usual) and frame.low_y == min(values)
    assert all(TOP <= y <= HEIGHT - BOTTOM for _, y in places(figure))


@given(st.lists(st.floats(-10.0, 10.0), min_size=1, max_size=60))
def test_an_axis_without_a_spike_ends_where_its_curve_does(values):
    values = sorted(values)
    frame = framed([Curve("x", list(enumerate(values)))], [], False)
    far = min(values[0], 0.0)
    if len(values) < 8 or max(values) - far <= 4 * (values[int(0.98 * (len(values) - 1))] - far):
        assert frame.low_y <= min(values) and frame.high_y >= max(values)
        assert "\u25b2" not in chart("x", [Curve("x", list(enumerate(values)))])


@given(
    st.lists(st.floats(0.1, 2.0), min_size=20, max_size=400), st.lists(st.floats(100.0, 200.0), min_size=1, max_size=30)
)
def test_no_curve_is_cut_off_as_the_spike_of_another(usual, above):
    """Few points, or many fewer than the other has."""
    curves = [Curve("usual", list(enumerate(usual))), Curve("above", list(enumerate(above)))]
    assert framed(curves, [], False).high_y == max(above) and "\u25b2" not in chart("both", curves)
    spiky = [*above, *[100.0] * 8, 1e6]
    curves[1] = Curve("above", list(enumerate(spiky)))
    assert max(above) <= framed(curves, [], False).high_y <= 4 * 200 and "\u25b2 up to 1e+6" in chart("both", curves)


FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(FINITE, FINITE)
@example(0.0, 5e-324)
@example(1.0, 1.0 + 2**-52)
@example(-1.7e308, 1.7e308)
def test_an_axis_has_a_few_round_numbers(one, other):
    frame = framed([Curve("x", [(1, one), (2, other)])], [], False)
    found = ticks(frame.low_y, frame.high_y)
    assert 2 <= len(found) <= 7
    assert all(f"{b - a:.0e}"[0] in "125" for a, b in pairwise(found))
    slack = 1e-6 * (frame.high_y - frame.low_y)
    assert all(frame.low_y - slack <= tick <= frame.high_y + slack for tick in found)


def test_an_axis_says_what_it_is_and_numbers_of_it_differ():
    assert ticks(1, 100, least=1) == [20, 40, 60, 80, 100] and ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert ticks(1, 2, least=1) == [1, 2]
    figure = chart("x", [Curve("x", [(1, 1000.1), (2, 1000.4)])])
    said = re.findall(r"<text[^>]*>([^<]*)</text>", figure)
    assert "step" in said and len(set(said)) == len(said) and "1000.2" in said


def test_marks_are_explained_without_a_mouse(tmp_path):
    said = words(write_report(write_run(tmp_path / "run")).read_text())
    assert "Curves rollback Reward" in said and "undone" not in said


def test_names_of_events_do_not_run_into_their_dots():
    names = ("checkpoint_failed", "evaluation")
    events = [{"time": f"2026-01-01T00:00:0{n}", "kind": kind, "fields": {}} for n, kind in enumerate(names)]
    drawn = parsed("<!doctype html>\n" + timeline(events))
    dots = [float(dot.getAttribute("cx")) for dot in drawn.getElementsByTagName("circle")]
    assert min(dots) > 6 * len("checkpoint_failed") and max(dots) < 640  # letters of 6 units


def test_restarts_have_a_colour_of_their_own():
    assert colour_of("restart") != colour_of("a kind that nobody knows")


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


def test_a_curve_of_nothing_finite_is_not_drawn():
    assert chart("x", [Curve("x", [(1, float("nan"))]), Curve("y", [])]) is None
    parsed("<!doctype html>\n" + chart("x", [Curve("x", [(1, 0.0)])]))  # one point, no range


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
