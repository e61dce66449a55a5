"""Held to what the peers' own code answered when it was last asked; no peer is needed. The page is not stale."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
ROWS = json.loads((ROOT / "docs" / "measured" / "conformance.json").read_text())


@pytest.fixture(scope="module")
def bench():
    """The script and its neighbours, imported as they import each other."""
    sys.path.insert(0, str(ROOT / "scripts" / "bench"))
    try:
        yield importlib.import_module("conformance")
    finally:
        sys.path.remove(str(ROOT / "scripts" / "bench"))


@pytest.fixture(scope="module")
def page(bench):
    return sys.modules["conformance_page"]


def test_every_case_was_measured_and_nothing_else(bench):
    assert {(row["peer"], row["case"]) for row in ROWS} == {(case.peer, case.name) for case in bench.CASES}
    assert len(ROWS) == len(bench.CASES)


def test_our_side_still_answers_what_the_peers_answered(bench):
    measured = {(row["peer"], row["case"]): row for row in ROWS}
    for case in bench.CASES:
        answered = measured[case.peer, case.name]["theirs"]
        ours = bench.ours(case, bench.world(case.world, case.weights), torch.float64)
        apart = {name: abs(bench.fingerprint(ours[name]) - said) for name, said in answered.items()}
        if case.differs:
            assert max(apart.values()) > bench.TOLERANCE, f"{case.peer}, {case.name} is said to differ"
        else:
            assert max(apart.values()) < 5 * bench.TOLERANCE, f"{case.peer}, {case.name}: {apart}"


def test_what_was_measured_is_within_the_limit(bench):
    cases = {(case.peer, case.name): case for case in bench.CASES}
    assert [said for row in ROWS if (said := bench.verdict_on(cases[row["peer"], row["case"]], row))] == []


def test_every_preset_is_compared_but_for_those_no_peer_has(bench):
    presets = {path.stem for path in (ROOT / "recipes" / "algorithm").glob("*.yaml")}
    agreed = {case.preset for case in bench.CASES if not case.differs}
    assert presets - agreed <= {"maxrl"}


def test_the_page_is_what_the_measurements_and_our_functions_say(page):
    text = page.PAGE.read_text()
    assert page.renewed(text, ROWS) == text, "run `python scripts/bench/conformance.py --page`"
    assert all(f"<!-- conformance: {part} -->" in text for part in page.PARTS)


def test_our_keys_give_the_numbers_of_every_framework_read(page):
    for reading in page.READINGS:
        if reading.preset:
            assert page.ours(reading) == pytest.approx(reading.vector, abs=1e-8), reading.framework


def test_the_frameworks_that_were_run_gave_the_numbers_that_the_page_works_out(page):
    for reading in (reading for reading in page.READINGS if reading.ran):
        peer = reading.framework.split()[0].lower()
        (row,) = (row for row in ROWS if (row["peer"], row["case"]) == (peer, reading.ran))
        assert row["first_group"] == pytest.approx(reading.vector, abs=1e-8)


def test_a_drifted_number_is_noticed(page):
    text = page.PAGE.read_text()
    assert page.renewed(text.replace("1.499997", "1.732051", 1), ROWS) == text
    with pytest.raises(KeyError):
        page.renewed("<!-- conformance: nothing -->\n<!-- /conformance -->", ROWS)
