"""The test kit's checks on the verifiers that need a server, a tokenizer, or both."""

import pytest

from rlvr.verify import kit
from tests.verifiers.endpoint import honest, serving, verdict

RUBRIC = [{"name": "right", "weight": 2, "judge": "It is right."}, {"name": "short", "weight": 1, "regex": "^.{1,40}$"}]


def rigorous(prompt: str) -> str:
    """Finds fault with everything but the reference, and finds such analyses sound."""
    if "<<<ANALYSIS" in prompt:
        return verdict(prompt, 1)
    return verdict(prompt, 2 * int('"score": 1' in honest(prompt)))


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("judge", {"controls": 0.5}),
        ("rubric", {"criteria": RUBRIC, "controls": 0.5}),
        ("meta", {"analyses": 2, "checks": 1}),
    ],
)
def test_a_verifier_with_an_honest_judge_passes(name, params):
    with serving(rigorous if name == "meta" else honest) as server:
        kit.assert_sound(name, [kit.Case("2+3=?", "5")], {"endpoint": server.options, **params})


def test_steps_pass():
    case = kit.Case("2+3=?", "5", "2 + 3 = 5", 1.0)
    kit.assert_sound("steps", [case], {"tokenizer": ""}, form=True)
