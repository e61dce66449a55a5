"""JSON of the form that a schema asks for."""

import sys
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
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


NOWHERE = {"$ref": "#/$defs/nowhere"}
LEADS_NOWHERE = [
    {"$ref": "https://schemas.example/person"},
    {"properties": {"a": NOWHERE}},
    {"properties": {"a": {"anyOf": [{"type": "null"}, {"items": NOWHERE}]}}},
    {"properties": {"a": {"$ref": "#/elsewhere/a"}}, "elsewhere": {"a": {"items": {"$ref": "#/elsewhere/b"}}}},
    {"$schema": "http://json-schema.org/draft-07/schema#", "additionalProperties": {"$ref": "#/definitions/x"}},
    {"$id": "https://one.example/a", "properties": {"a": {"$ref": "b"}}},
    {"properties": {"a": {"$ref": "http://json-schema.org/draft-07/schema#/definitions/nothing"}}},
]


@pytest.mark.parametrize("schema", LEADS_NOWHERE)
def test_a_reference_to_nowhere_is_found_before_any_text_comes_to_it(schema):
    assert "a reference leads nowhere" in unusable(None, {"schema": schema})
    for completion in ('{"a": 1}', '{"b": 1}', "5"):
        verdict = json_schema(Sample("q", completion, None, row={"schema": schema}))
        assert (verdict.outcome, verdict.reason) == (Outcome.ABSTAIN, "schema_invalid")


@pytest.mark.parametrize(
    "schema",
    [
        {"$defs": {"n": {"type": "integer"}}, "properties": {"a": {"$ref": "#/$defs/n"}}},
        {"properties": {"a": {"type": "integer"}, "next": {"$ref": "#"}}},
        {"$defs": {"n": {"$anchor": "whole", "type": "integer"}}, "properties": {"a": {"$ref": "#whole"}}},
        {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"n": {"type": "integer"}},
         "properties": {"a": {"$ref": "#/definitions/n"}, "next": {"$ref": "#"}}},
        {"properties": {"$ref": {"type": "string"}, "a": {"type": "integer"}}},
        {"elsewhere": {"n": {"type": "integer"}}, "properties": {"a": {"$ref": "#/elsewhere/n"}}},
        {"$id": "https://one.example/a", "$defs": {"b": {"$id": "b", "type": "integer"}},
         "properties": {"a": {"$ref": "b"}}},
    ],
)  # fmt: skip
def test_a_reference_that_leads_somewhere_is_followed(schema):
    assert unusable(None, {"schema": schema}) is None
    assert json_schema(Sample("q", '{"a": 1}', None), schema=schema).reason == "valid"
    assert json_schema(Sample("q", '{"a": "x"}', None), schema=schema).reason == "breaks_type"


@pytest.mark.parametrize("dialect", ["2020-12", "2019-09", "draft-07", "draft-06", "draft-04"])
@pytest.mark.parametrize("own", [{}, *({"$schema": f"http://json-schema.org/draft-0{n}/schema#"} for n in (7, 4))])
def test_a_reference_to_the_schemas_of_json_schema_needs_nothing_fetched(dialect, own):
    older = dialect.startswith("draft")
    meta = f"http://json-schema.org/{dialect}/schema#" if older else f"https://json-schema.org/draft/{dialect}/schema"
    schema = {**own, "properties": {"parameters": {"$ref": meta}}}
    assert unusable(None, {"schema": schema}) is None
    for kind, reward in (("object", 1.0), ("nonsense", 0.0)):
        verdict = json_schema(Sample("q", f'{{"parameters": {{"type": "{kind}"}}}}', None), schema=schema)
        assert verdict.reward == reward, verdict


@pytest.mark.parametrize("dialect", ["https://json-schema.org/draft/2020-12/schema", "http://json-schema.org/draft-07/schema#"])
def test_a_multiple_is_one_of_the_decimal_numbers(dialect):
    schema = {"$schema": dialect, "properties": {"price": {"multipleOf": 0.01}, "next": {"$ref": "#"}}}
    for price, reason in (("19.99", "valid"), ("0.07", "valid"), ("19.995", "breaks_multipleOf"), ("1e30", "valid")):
        for text in (f'{{"price": {price}}}', f'{{"next": {{"price": {price}}}}}'):
            assert json_schema(Sample("q", text, None), schema=schema).reason == reason, text
    assert json_schema(Sample("q", "3" + "0" * 400, None), schema={"multipleOf": 3}).reason == "valid"


@given(st.integers(-(10**6), 10**6), st.sampled_from([0.01, 0.1, 0.001, 0.5, 3, 1e-7]), st.booleans())
def test_a_multiple_is_what_decimal_arithmetic_says(count, unit, off):
    number = count * Decimal(str(unit)) + (Decimal(str(unit)) / 2 if off else 0)
    found = json_schema(Sample("q", str(number), None), schema={"multipleOf": unit}).reason
    assert found == ("breaks_multipleOf" if off else "valid")


@pytest.mark.parametrize("schema", [None, {"type": "nonsense"}, "{", 5, {"$ref": "https://schemas.example/person"}])
def test_a_schema_that_cannot_be_used_abstains_and_nothing_is_fetched(schema):
    verdict = json_schema(Sample("q", "{}", None, row={"schema": schema}))
    assert (verdict.outcome, verdict.reason) == (Outcome.ABSTAIN, "schema_invalid")


def test_without_the_library_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    with pytest.raises(ImportError, match=r"rlvr\[schema\]"):
        load_library()
