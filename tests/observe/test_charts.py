"""Curves, axes and marks of a chart."""

import math
import re
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

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
from tests.observe.pages import parsed


@pytest.mark.parametrize("value", [-3.456e-07, -1.5e-300, -123456.0, 0.000123456, -0.00123456, 2.5e10, -9.99e9, 1e308])
def test_a_number_of_an_axis_fits_beside_it(value):
    assert len(short(value)) <= 9 and len(short(abs(value))) <= 8


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


def test_restarts_have_a_colour_of_their_own():
    assert colour_of("restart") != colour_of("a kind that nobody knows")


def test_a_curve_of_nothing_finite_is_not_drawn():
    assert chart("x", [Curve("x", [(1, float("nan"))]), Curve("y", [])]) is None
    parsed("<!doctype html>\n" + chart("x", [Curve("x", [(1, 0.0)])]))  # one point, no range
