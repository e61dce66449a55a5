"""What a person sees: lines in a pipe, a panel in a terminal, and the same result in both."""

import io
import os
from pathlib import Path

import pytest
from rich.console import Console

from rlvr.observe.console import Unfailing, open_display
from rlvr.observe.live import LiveDisplay
from rlvr.observe.plain import PlainDisplay
from rlvr.observe.summary import Summary, words
from tests.observe.test_summary import SUMMARY

ROW = {"reward/mean": 0.412, "accuracy": 0.375, "policy/entropy": 1.234, "tokens/per_s": 2310.0, "time/step": 1.5}
FOLDER = Path("runs/quickstart-001")


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def live() -> tuple[LiveDisplay, Console]:
    console = Console(file=Terminal(), force_terminal=True, width=100, height=40, record=True, highlight=False)
    return LiveDisplay(console), console


def test_a_terminal_gets_the_live_display_and_a_pipe_gets_lines(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(open_display(True, Terminal()), LiveDisplay)
    assert isinstance(open_display(True, io.StringIO()), PlainDisplay)
    assert isinstance(open_display(False, Terminal()), PlainDisplay)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(open_display(True, Terminal()), PlainDisplay)


def test_plain_lines_say_step_reward_accuracy_entropy_speed_and_time_left():
    stream = io.StringIO()
    display = PlainDisplay(stream)
    display.start("quickstart", 2)
    display.log(1, ROW)
    display.log(2, ROW)
    first, one, two = stream.getvalue().splitlines()
    assert first == "quickstart: 2 steps"
    assert one.startswith(
        "step 1/2  reward 0.412  accuracy 37.5%  entropy 1.23  tokens/s 2,310  s/step 1.5  elapsed 0:00  left 0:0"
    )
    assert two.startswith("step 2/2") and two.endswith("left 0:00")


def test_plain_lines_are_about_twenty_and_average_the_steps_between():
    stream = io.StringIO()
    display = PlainDisplay(stream)
    display.start("long", 200)
    for step in range(1, 201):
        display.log(step, {"reward/mean": step / 100})
    lines = stream.getvalue().splitlines()[1:]
    assert len(lines) == 21  # the first step too
    assert "reward 0.060" in lines[1]  # the mean of 0.02 ... 0.10


def test_a_resumed_plain_display_says_where_it_goes_on():
    stream = io.StringIO()
    PlainDisplay(stream).start("toy", 50, [{"step": 24}, {"step": 25}])
    assert stream.getvalue() == "toy: 50 steps, going on after step 25\n"


def test_a_quiet_display_shows_trouble_and_the_result_only():
    stream = io.StringIO()
    display = open_display(False, stream)
    with display.phase("loading"):
        pass
    display.start("toy", 5)
    display.log(1, ROW)
    display.event("checkpoint", "saved")
    display.event("rollback", "back to step 0")
    display.result(SUMMARY, FOLDER)
    assert stream.getvalue().splitlines() == ["rollback: back to step 0", *words(SUMMARY, FOLDER)]


def test_a_quiet_display_says_which_phase_failed():
    stream = io.StringIO()
    with pytest.raises(ZeroDivisionError), open_display(False, stream).phase("loading"):
        raise ZeroDivisionError
    assert stream.getvalue().startswith("loading: failed after 0.")


def test_plain_lines_hold_no_escape_codes_and_fit_any_encoding():
    bytes_ = io.BytesIO()
    stream = io.TextIOWrapper(bytes_, encoding="ascii")
    PlainDisplay(stream).event("warning", "\x1b[31mred\x1b[0m → π")
    assert bytes_.getvalue() == rb"warning: red \u2192 \u03c0" + b"\n"


def test_the_live_display_shows_step_readings_curve_events_and_phases():
    display, console = live()
    with display.phase("loading the engine"):
        pass
    display.start("quickstart", 50, [{"step": 1, **ROW}])
    display.log(2, ROW | {"accuracy": 0.5})
    display.event("checkpoint", "step 2 saved")
    console.print(display._picture())
    display.close()
    display.close()
    text = console.export_text()
    for said in ("✓ loading the engine", "checkpoint: step 2 saved", "quickstart", "step 2/50", "left", "0.412",
                 "50.0%", "1.23", "2,310", "reward", "accuracy", "entropy", "tokens/s", "37.5% ▁█ 50.0%"):  # fmt: skip
        assert said in text, said


def test_the_live_display_gives_the_terminal_back_when_a_phase_fails():
    display, console = live()
    with pytest.raises(ZeroDivisionError), display.phase("loading"):
        raise ZeroDivisionError
    assert "✗ loading" in console.export_text()
    assert not display._live.is_started


def test_markup_in_a_message_is_shown_as_it_is():
    display, console = live()
    display.event("warning", "box [bold]x[/] of [1, 2]")
    assert "warning: box [bold]x[/] of [1, 2]" in console.export_text()


def test_the_live_result_is_a_table_and_then_the_words_of_the_summary():
    display, console = live()
    display.start("quickstart", 50)
    folder = Path("runs") / ("a-long-name-" * 12)
    display.result(SUMMARY, folder)
    text = console.export_text()
    table = [line.split() for line in text.splitlines()]
    assert "Accuracy on 200 held-out problems" in text
    assert ["decoding", "before", "after", "gain"] in table
    assert ["greedy", "15.0%", "76.5%", "5.1", "times"] in table
    said = words(SUMMARY, folder)
    assert text.splitlines()[-len(said) :] == said  # the long path is not broken in two


def test_the_last_panel_stays_on_the_screen_also_when_the_display_was_closed_before_the_result():
    display, console = live()
    display.start("quickstart", 50)
    display.log(50, ROW)
    display.close()
    display.result(SUMMARY, FOLDER)
    panel = console.export_text().partition("Accuracy on")[0]
    assert "step 50/50" in panel and "37.5%" in panel


def test_a_result_without_held_out_problems_has_no_table():
    display, console = live()
    summary = Summary("toy", 0, "finished", 5, 10.0, 100.0, 50.0)
    display.result(summary, FOLDER)
    assert console.export_text().splitlines() == words(summary, FOLDER)


ODD = "half \ud83d of a pair, \x1b[31mred\x1b[0m, \x1b]0;TITLE\x07, \u202e"


def test_what_no_terminal_takes_is_shown_as_its_number_and_what_it_would_obey_too():
    display, console = live()
    with display.phase(ODD):
        display.event("warning", ODD)
    display.start(ODD, 5)
    display.log(1, ROW)
    display.result(SUMMARY, Path("runs") / ODD)
    text = console.export_text()
    assert text.count(r"half \ud83d of a pair") >= 4 and "\x07" not in text and "]0;TITLE" in text
    stream = io.StringIO()
    PlainDisplay(stream).event("warning", ODD)
    assert stream.getvalue() == "warning: half \\ud83d of a pair, red, \\u001b]0;TITLE\\u0007, \\u202e\n"


class Dying(Terminal):
    """A pipe whose reader goes away, a disk that is full, a file that is closed."""

    def __init__(self, error: Exception, tty: bool, after: int) -> None:
        super().__init__()
        self.error, self.tty, self.left = error, tty, after

    def isatty(self) -> bool:
        return self.tty

    def write(self, text: str) -> int:
        self.left -= 1
        if self.left < 0:
            raise self.error
        return super().write(text)

    def flush(self) -> None:
        if self.left < 0:
            raise self.error


@pytest.mark.parametrize(
    ("total", "told"),
    [(1, []), (2, ["1/2"]), (8, ["2/8", "4/8", "6/8"]), (1002, ["251/1,002", "501/1,002", "752/1,002"])],
)
def test_a_phase_of_many_pieces_says_how_far_it_is(total, told):
    stream = io.StringIO()
    with PlainDisplay(stream).phase("evaluating", total) as tick:
        for _ in range(total):
            tick()
    begin, *between, end = stream.getvalue().splitlines()
    assert begin == "evaluating ..." and end.startswith("evaluating: done in")
    assert [line.removeprefix("evaluating: ").partition(" after")[0] for line in between] == told
    display, console = live()
    with display.phase("evaluating", total) as tick:
        tick()
        console.print(display._picture())
    assert f"evaluating  1/{total:,}" in console.export_text()


@pytest.mark.parametrize("tty", [True, False])
@pytest.mark.parametrize("after", [0, 1, 3, 7])
@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), OSError(28, "No space"), ValueError("closed")])
def test_a_stream_that_cannot_be_written_costs_what_is_shown_and_nothing_else(monkeypatch, tty, after, error):
    monkeypatch.setenv("TERM", "xterm")
    display = open_display(True, Dying(error, tty, after))
    with display.phase("loading"):
        display.event("warning", "half")
    display.start("toy", 2)
    display.log(1, ROW)
    with pytest.raises(ZeroDivisionError), display.phase("exporting"):
        raise ZeroDivisionError
    display.log(2, ROW)
    display.result(SUMMARY, FOLDER)
    display.close()


def test_a_closed_stream_costs_no_descriptors(tmp_path):
    stream = (tmp_path / "log").open("w")
    stream.close()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        Unfailing(stream).write("a line")
        Unfailing(stream).flush()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_text_that_a_stream_cannot_encode_does_not_silence_it():
    bytes_ = io.BytesIO()
    stream = open_display(True, io.TextIOWrapper(bytes_, encoding="ascii"))._stream
    print("\u03c0", file=stream)
    print("and on", file=stream, flush=True)
    assert bytes_.getvalue().endswith(b"and on\n")


def test_without_a_stdout_nothing_is_shown(monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    display = open_display()
    display.event("warning", "nobody reads it")
    display.close()


@pytest.mark.parametrize("width", [24, 40, 50, 60, 80, 100])
def test_what_has_no_room_is_left_out_and_nothing_is_cut(width):
    console = Console(file=Terminal(), force_terminal=True, width=width, height=40, record=True, highlight=False)
    display = LiveDisplay(console)
    display.start("quickstart", 50, [{"step": 1, **ROW}])
    display.log(23, ROW)
    console.print(display._picture())
    display.close()
    text = console.export_text()
    assert "step 23/50" in text and "reward" in text and "\u2026" not in text
    assert ("tokens/s" in text) == ("elapsed" in text) == (width >= 50)
