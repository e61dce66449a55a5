"""Work beside the loop: one piece at a time, nothing it raises is lost."""

import threading

import pytest

from rlvr.observe.beside import Beside


@pytest.fixture
def beside():
    made = Beside("test")
    yield made
    made.close()


def test_the_caller_goes_on_meanwhile(beside):
    may_end, done = threading.Event(), []
    beside.begin(lambda: done.append(may_end.wait(10)))
    assert done == []
    may_end.set()
    beside.settle()
    assert done == [True]


def test_pieces_are_done_one_after_another_in_order(beside):
    done = []
    for n in range(20):
        beside.begin(lambda n=n: done.append(n))
        assert done[:n] == list(range(n))
    beside.settle()
    assert done == list(range(20))


@pytest.mark.parametrize("next_call", [lambda beside: beside.begin(lambda: None), lambda beside: beside.settle()])
def test_what_it_raises_is_raised_where_the_next_begins_or_it_is_waited_for(beside, next_call):
    def full() -> None:
        raise OSError("the disk is full")

    beside.begin(full)
    with pytest.raises(OSError, match="the disk is full"):
        next_call(beside)
    beside.settle()  # once


def test_closing_waits_for_what_was_begun_and_raises_nothing_above_another_error():
    beside, done = Beside("test"), []

    def late() -> None:
        done.append(True)
        raise OSError("the disk is full")

    beside.begin(late)
    beside.close()
    assert done == [True]
