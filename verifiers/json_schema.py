"""Is the answer JSON, and of the form that a JSON Schema asks for? Needs `jsonschema`: `pip install 'rlvr[schema]'`.

Strict JSON: no NaN, no key twice. A schema may refer to itself and to the schemas of JSON Schema, and to nothing else:
nothing is fetched. `multipleOf` is exact for decimal numbers.
"""

import json
import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any
from urllib.parse import urldefrag

from rlvr_verifiers.boxes import after_thoughts
from rlvr_verifiers.verdicts import abstained, rejected, said

from rlvr.verify import Sample, Verdict, verifier

MAX_CHARACTERS = 200_000


def load_library() -> None:
    try:
        import jsonschema  # noqa: F401
    except ImportError as error:
        raise ImportError("json_schema needs the package jsonschema: pip install 'rlvr[schema]'") from error


def unusable(answer: Any, row: Mapping[str, Any], schema: dict[str, Any] | None = None) -> str | None:
    try:
        validator_for(row, schema)
    except (ValueError, TypeError, ArithmeticError) as error:  # a pattern may count further than any number
        return str(error)
    return None


@verifier("json_schema", version="3", timeout_s=3.0, setup=load_library, check_answer=unusable)
def json_schema(
    sample: Sample, schema: dict[str, Any] | None = None, fenced: bool = True, bare: bool = True
) -> Verdict:
    """1 when the text after the thoughts is JSON that the schema allows, else 0 and the first thing that is wrong.

    The schema is the option's, else the row's `schema` column (an object, or a text with one). The JSON is all of the
    text (`bare`) or its only ``` fence (`fenced`).
    """
    if why := unusable(sample.answer, sample.row, schema):
        return abstained("schema_invalid", why)
    region = after_thoughts(sample.completion, sample.thinking)
    if region is None:
        return rejected("no_answer", "the thoughts are never closed")
    if len(region) > MAX_CHARACTERS:
        return rejected("too_long", f"{len(region)} characters > {MAX_CHARACTERS}")
    fences = fences_of(region) if fenced else []
    if len(fences) > 1:
        return said(0.0, "several_fences")
    if not fences and not bare:
        return said(0.0, "no_fence")
    try:
        value = strict_json(fences[0] if fences else region)
    except ValueError as error:
        return said(0.0, "no_json", str(error))
    except RecursionError:
        return rejected("too_deep", "nested too deeply")
    from referencing.exceptions import Unresolvable

    try:
        broken = next(validator_for(sample.row, schema).iter_errors(value), None)
    except Unresolvable as error:
        return abstained("schema_invalid", f"a reference leads nowhere: {error}")
    except ArithmeticError as error:  # a number that no float holds; a pattern that counts too far
        return rejected("too_large", str(error))
    if broken is None:
        return said(1.0, "valid", answer=json.dumps(value, sort_keys=True)[:2000])
    return said(0.0, f"breaks_{broken.validator}", f"{broken.json_path}: {broken.message}")


def fences_of(text: str) -> list[str]:
    """The contents of ``` fences, each fence on lines of its own."""
    found: list[str] = []
    inside: list[str] | None = None
    for line in text.split("\n"):
        mark = line.strip()
        if inside is None and mark in ("```", "```json"):
            inside = []
        elif inside is not None and mark == "```":
            found.append("\n".join(inside))
            inside = None
        elif inside is not None:
            inside.append(line)
    return found


def strict_json(text: str) -> Any:
    return json.loads(text, parse_constant=refuse, parse_float=finite, object_pairs_hook=once)


def finite(number: str) -> float:
    if math.isinf(value := float(number)):
        raise ValueError(f"{number[:20]} is no finite number")
    return value


def refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        raise ValueError("a key stands twice in one object")
    return dict(pairs)


def validator_for(row: Mapping[str, Any], schema: dict[str, Any] | None) -> Any:
    """ValueError or TypeError says why there is none."""
    wanted = schema if schema is not None else row.get("schema")
    return validator_of(json.dumps(json.loads(wanted) if isinstance(wanted, str) else wanted))


@lru_cache(maxsize=1024)
def validator_of(schema: str) -> Any:
    from jsonschema import SchemaError, validators
    from jsonschema.validators import SPECIFICATIONS
    from referencing.exceptions import Unresolvable

    loaded = json.loads(schema)
    if not isinstance(loaded, (dict, bool)):
        raise TypeError("no schema: neither the option `schema` nor a column `schema`")
    kind = validators.validator_for(loaded, default=validators.Draft202012Validator)
    try:
        kind.check_schema(loaded)
    except SchemaError as error:
        raise ValueError(f"not a JSON Schema: {error.message}") from error
    try:
        follow_references(loaded, kind.META_SCHEMA["$schema"])
    except Unresolvable as error:
        raise ValueError(f"a reference leads nowhere: {error}") from error
    kind = validators.extend(kind, {"multipleOf": multiple_of})
    if isinstance(loaded, dict):
        loaded.pop("$schema", None)  # known by now; named once more, it would bring back the library's own multipleOf
    return kind(loaded, registry=SPECIFICATIONS, format_checker=kind.FORMAT_CHECKER)


def follow_references(schema: Any, dialect: str) -> None:
    """Unresolvable names one that leads nowhere, also one that few texts would come to."""
    from jsonschema.validators import SPECIFICATIONS
    from referencing.jsonschema import specification_with

    kind = specification_with(dialect)
    root = kind.create_resource(schema)
    waiting = [(root, SPECIFICATIONS.resolver_with_root(root))]
    seen: set[int] = set()
    while waiting:
        here, resolver = waiting.pop()
        if id(here.contents) in seen or not isinstance(here.contents, dict):
            continue
        seen.add(id(here.contents))
        for word in ("$ref", "$dynamicRef"):
            if isinstance(target := here.contents.get(word), str):
                found = resolver.lookup(target)
                if urldefrag(target).url not in SPECIFICATIONS:  # those of JSON Schema have no loose ends
                    waiting.append((kind.create_resource(found.contents), found.resolver))
        waiting += [(part, resolver.in_subresource(part)) for part in here.subresources()]


def multiple_of(validator: Any, wanted: float, value: Any, schema: Any) -> Iterator[Any]:
    """Of the decimal numbers, not of the floats next to them: 19.99 is a multiple of 0.01. OverflowError where no float
    holds the number."""
    from jsonschema import ValidationError

    if validator.is_type(value, "number") and exact(value, wanted) % exact(wanted, wanted):
        yield ValidationError(f"{value!r} is not a multiple of {wanted}")


def exact(number: float, beside: float) -> Fraction:
    if isinstance(beside, float):
        float(number)
    return Fraction(repr(number))
