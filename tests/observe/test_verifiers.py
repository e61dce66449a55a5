"""What verifiers did, over the steps of a run."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from rlvr.observe.verifiers import share_of
from rlvr.types import Group, Provenance
from rlvr.verify.monitor import metrics
from tests import builders


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
