"""JSON of the form that a schema asks for."""

import sys

import pytest
from rlvr_verifiers.json_schema import json_schema, load_library, unusable

from rlvr.types import Outcome
from rlvr.verify import Sample

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("completion", "reason"),
    [
        ('{"name": "Ada", "age": 36}', "valid"),
        ('<think>{"no": 1}</think>\n{"name": "Ada"}', "valid"),
        ('Here it is:\n```json\n{"name": "Ada"}\n```\nDone.', "valid"),
        ('```\n{"name": "Ada"}\n```\n```\n{"name": "Eve"}\n```', "several_fences"),
        ('{"age": 36}', "breaks_required"),
        ('{"name": "Ada", "age": -1}', "breaks_minimum"),
        ('{"name": "Ada", "age": true}', "breaks_type"),
        ('{"name": "Ada", "x": 1}', "breaks_additionalProperties"),
        ('The answer is {"name": "Ada"}', "no_json"),
        ('{"name": "Ada", "name": "Eve"}', "no_json"),
        ('{"name": "Ada", "age": NaN}', "no_json"),
        ('{"name": "Ada", "age": 1e999}', "no_json"),
        ('{"name": "Ada", "age": ' + "9" * 5000 + "}", "no_json"),
        ("<think>{}", "no_answer"),
        ("[" * 100_000 + "]" * 100_000, "too_deep"),
    ],
)
def test_valid_or_the_first_thing_that_is_wrong(completion, reason):
    verdict = json_schema(Sample("q", completion, None), schema=PERSON)
    assert (verdict.reason, verdict.reward) == (reason, float(reason == "valid"))


@pytest.mark.parametrize(
    ("completion", "schema"),
    [
        ("1" + "0" * 400, {"type": "number", "multipleOf": 0.01}),
        ('"a{99999999999999}"', {"type": "string", "format": "regex"}),
    ],
)
def test_what_a_check_cannot_compute_is_rejected(completion, schema):
    verdict = json_schema(Sample("q", completion, None), schema=schema)
    assert (verdict.outcome, verdict.reason) == (Outcome.REJECTED, "too_large")


def test_a_schema_that_cannot_be_computed_is_unusable_and_no_error():
    assert unusable(None, {"schema": {"type": "string", "pattern": "a{99999999999999}"}})


def test_the_fence_can_be_asked_for_or_forbidden():
    bare, fenced = Sample("q", "{}", None), Sample("q", "```json\n{}\n```", None)
    assert json_schema(bare, schema={}, bare=False).reason == "no_fence"
    assert json_schema(fenced, schema={}, fenced=False).reason == "no_json"


def test_the_schema_may_stand_in_the_row_as_an_object_or_a_text():
    assert json_schema(Sample("q", "5", None, row={"schema": {"type": "string"}})).reward == 0.0
    assert json_schema(Sample("q", "5", None, row={"schema": '{"type": "integer"}'})).reward == 1.0


@pytest.mark.parametrize("schema", [None, {"type": "nonsense"}, "{", 5, {"$ref": "https://schemas.example/person"}])
def test_a_schema_that_cannot_be_used_abstains_and_nothing_is_fetched(schema):
    verdict = json_schema(Sample("q", "{}", None, row={"schema": schema}))
    assert (verdict.outcome, verdict.reason) == (Outcome.ABSTAIN, "schema_invalid")


def test_without_the_library_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    with pytest.raises(ImportError, match=r"rlvr\[schema\]"):
        load_library()
