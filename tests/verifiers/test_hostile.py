"""Every verifier that needs no server, no model and no group, against every hostile completion."""

from time import process_time

import pytest
from rlvr_verifiers.citation import citation
from rlvr_verifiers.format import format
from rlvr_verifiers.instructions import instructions
from rlvr_verifiers.json_schema import json_schema
from rlvr_verifiers.language import language
from rlvr_verifiers.regex import regex
from rlvr_verifiers.repetition import repetition

from rlvr.types import Outcome
from rlvr.verify import Sample
from tests.verifiers.hostile import HOSTILE

LIMIT_S = 3.0  # of CPU time: the machine may have other work to do
EVERY_CHECK = [
    {"check": "words", "least": 5, "most": 10},
    {"check": "sentences", "least": 2},
    {"check": "paragraphs", "least": 2},
    {"check": "contains", "words": "crane"},
    {"check": "letter_count", "letter": "z", "least": 3},
    {"check": "postscript"},
    {"check": "numbered", "least": 1},
    {"check": "sections", "least": 1},
    {"check": "highlights", "least": 1},
    {"check": "placeholders", "least": 1},
    {"check": "table", "columns": 2},
    {"check": "json_text"},
]
ASKED = {
    "citation": (citation, {}, {"documents": {"a": "The crane is a bird of the marsh."}}),
    "format": (format, {"answer_tags": True, "partial": True}, {}),
    "instructions": (instructions, {}, {"instructions": EVERY_CHECK}),
    "json_schema": (json_schema, {"schema": {"type": "object"}}, {}),
    "language": (language, {"language": "ja", "least": 0.5}, {}),
    "regex": (regex, {"pattern": r"(?:\w+\s?)+crane$"}, {}),
    "repetition": (repetition, {}, {}),
}


@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_completion_gets_a_trainable_verdict_in_time(name, kind):
    verifier, options, row = ASKED[name]
    started = process_time()
    verdict = verifier(Sample("Name a bird.", HOSTILE[kind], "crane", row=row), **options)
    assert process_time() - started < LIMIT_S
    assert verdict.outcome in (Outcome.OK, Outcome.REJECTED)  # whatever it writes, the policy cannot have it masked


@pytest.mark.parametrize("name", ["citation", "instructions", "json_schema", "regex"])
def test_thoughts_that_the_prompt_opened_and_nothing_closes_hold_no_answer(name):
    verifier, options, row = ASKED[name]
    sample = Sample("Name a bird.", "It might be a crane", "crane", row=row, thinking=True)
    assert verifier(sample, **options).reason == "no_answer"
    done = Sample("Name a bird.", "It might be a</think>crane", "crane", row=row, thinking=True)
    assert verifier(done, **options).reason != "no_answer"


@pytest.mark.parametrize("name", sorted(set(ASKED) - {"repetition", "language", "format"}))
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_completion_earns_nothing_where_content_is_judged(name, kind):
    verifier, options, row = ASKED[name]
    assert verifier(Sample("Name a bird.", HOSTILE[kind], "crane", row=row), **options).reward == 0
