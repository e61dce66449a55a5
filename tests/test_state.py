"""A State goes through JSON unchanged, and advances by exactly one step."""

import json
from dataclasses import asdict, fields

from rlvr.lineage import Lineage
from rlvr.state import State

FULL = State(
    step=7,
    cursor=131,
    rollbacks=2,
    lineage=Lineage(version=12, floor=9),
    restored="step-00000004-v00000009",
    remedies=("skip_data", "anchor"),
    until=60,
    anchor="checkpoints/anchor",
    rollouts={"buffer": [1, 2]},
    history=({"policy/grad_norm": 0.1 + 0.2}, {}, {"policy/grad_norm": 1e-300}),
)


def test_a_state_survives_json_bit_for_bit():
    assert State.from_json(json.loads(json.dumps(FULL.to_json()))) == FULL
    assert State.from_json(json.loads(json.dumps(State().to_json()))) == State()


def test_the_round_trip_is_tried_with_every_field():
    assert all(getattr(FULL, f.name) != getattr(State(), f.name) for f in fields(State))


def test_what_the_rollouts_remember_is_written_and_not_copied():
    """It may be millions of token ids, and the loop waits."""
    assert FULL.to_json() == asdict(FULL)
    assert FULL.to_json()["rollouts"] is FULL.rollouts


def test_what_comes_back_from_json_is_typed():
    back = State.from_json(json.loads(json.dumps(FULL.to_json())))
    assert isinstance(back.lineage, Lineage) and isinstance(back.history, tuple)


def test_advancing_is_one_step_and_one_publication():
    after = FULL.advance(cursor=140, seen={"policy/grad_norm": 0.5}, window=16)
    assert (after.step, after.cursor, after.rollbacks) == (8, 140, 2)
    assert after.lineage == Lineage(version=13, floor=9)
    assert after.restored == FULL.restored
    assert after.history == (*FULL.history, {"policy/grad_norm": 0.5})


def test_history_forgets_all_but_the_window():
    state = State()
    for step in range(5):
        state = state.advance(cursor=step, seen={"policy/grad_norm": float(step)}, window=3)
    assert [seen["policy/grad_norm"] for seen in state.history] == [2.0, 3.0, 4.0]


def test_an_older_state_is_not_changed_by_advancing():
    before = State(step=3)
    before.advance(cursor=9, seen={}, window=2)
    assert before == State(step=3)
