"""What comes from a program over the wire, and what it is equal to."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rlvr_verifiers.code_compare import same, same_output

from rlvr.sandbox.wire import Frames, Garbled, check, decode, encode, frame


class Int(int):
    pass


@pytest.mark.parametrize(
    ("expected", "value", "equal"),
    [
        (3, 3, True), (3, 3.0, True), (3.0, 3, True), (3, True, False), (True, 1, False), (1, True, False),
        (None, None, True), (None, 0, False), ("3", 3, False), (3, "3", False), (0.3, 0.1 + 0.2, True),
        (0.3, 0.31, False), (1e12, 1e12 + 1, True), (10**400, 10**400, True), (10**400, 10**400 + 1, False),
        (1.5, 10**400, False), (math.nan, math.nan, True), (1.0, math.nan, False), (math.nan, 1.0, False),
        (math.inf, math.inf, True), (math.inf, -math.inf, False), (1.0, math.inf, False),
        ([1, 2], [1, 2], True), ([1, 2], (1, 2), True), ((1, 2), [1, 2], False), ([1, 2], [2, 1], False),
        ([1], [True], False), ([], {}, False), ({"a": [1]}, {"a": [1]}, True), ({"a": 1}, {"a": 1, "b": 2}, False),
        ({1: 2}, {True: 2}, False), ({1, 2}, {2, 1}, True), ({1}, {True}, False), ({1}, frozenset({1}), False),
        (b"ab", b"ab", True), (b"ab", "ab", False), (1j, 1j, True), ({(1, 2): 3}, {(1, 2): 3}, True),
    ],
)  # fmt: skip
def test_values_are_equal_by_type_and_by_content(expected, value, equal):
    assert same(expected, encode(value)) is equal


DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.dictionaries(st.integers(), inner),
)


@given(DATA)
def test_what_json_makes_of_a_value_allows_that_value(value):
    assert same(json.loads(json.dumps(value)), encode(value))


def test_numbers_as_names_in_a_dict_are_texts_in_json_alone():
    assert same({"1": 2}, encode({1: 2})) and same({"1.5": 2}, encode({1.5: 2}))
    for value in ({True: 2}, {2: 2}, {1: 2, "1": 2}, {1: 3}, {10**5000: 2}):
        assert not same({"1": 2}, encode(value))
    assert not same({"1": 2, "2": 2}, encode({1: 2, "1": 2}))
    assert not same({"1": 2}, encode({1: 2}), tuples_are_lists=False)


@pytest.mark.parametrize("value", [Int(3), object(), lambda: 0, [Int(1)], type, (x for x in ()), range(3)])
def test_only_exact_builtin_types_are_plain(value):
    with pytest.raises(TypeError, match="is not plain data"):
        encode(value)


@pytest.mark.parametrize("value", [10**5000, -(1 << 70), [(1, {2: {3}}), b"\x00", "\ud800"], 1e308], ids=range(4))
def test_plain_data_comes_out_as_it_went_in(value):
    (message,) = Frames().feed(frame(encode(value)))
    check(message)
    assert decode(message) == value


def test_hostile_bytes_are_garbled_and_cheap():
    for content in (b"{}", b"[" * 90_000, b"9" * 900_000, b"\xff", b"", b'["d", {"a": 1}]', b"nul"):
        with pytest.raises(Garbled):
            Frames().feed(len(content).to_bytes(4, "big") + content)
    with pytest.raises(Garbled):
        Frames().feed(b"\xff\xff\xff\xff")
    for tree in ([], ["x"], ["d", 1], ["i", "12"], ["b", 1], ["c", 1, 2], [1], {"a": 1}, ["i", 5]):
        with pytest.raises(ValueError):
            check(tree)
    collide = [i * (2**61 - 1) for i in range(20_000)]
    assert not same(dict.fromkeys(range(20_000)), ["d", *[part for key in collide for part in (key, None)]])


@pytest.mark.parametrize(
    ("expected", "output", "equal"),
    [
        ("3\n", b"3", True), ("3\n", b"3  \n\n", True), ("3\r\n4", b"3\n4\n", True), ("3", b" 3", False),
        ("3 4", b"3  4", False), ("3", b"3\n3", False), ("3", "３".encode(), False), ("x", b"\xff", False),
        ("0.5", b"0.50000001", True), ("1", b"1.0", False), ("0.5", b"nan", False), ("a 0.1", b"b 0.1", False),
    ],
)  # fmt: skip
def test_output_is_compared_line_by_line(expected, output, equal):
    assert same_output(expected, output, 1e-6) is equal
