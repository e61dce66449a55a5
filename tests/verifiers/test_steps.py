"""Steps, their values, and the tokens in which they stand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rlvr_verifiers.arithmetic import calculations
from rlvr_verifiers.steps import characters_after, steps, steps_of, tokenizer_of, tokens_of
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from rlvr.types import Outcome
from rlvr.verify import PluginError, Sample
from tests.verifiers.hostile import HOSTILE


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("(9+7)*5 = 16*5 = 80", [True, True]),
        ("(9+7)*5 = 16*5 = 81", [True, False]),
        ("so 3 + 4 = 7, and 7 - 2 = 4.", [True, False]),
        ("1. 3 + 4 = 7", [True]),
        ("- 3 \u00d7 4 = 12 apples", [True]),
        ("(see 3 + 4 = 7)", [True]),
        ("$3,000 + $500 = $3,500", [True]),
        ("10/3 = 3.33", [True]),
        ("10/3 = 3.4", [False]),
        ("0.1 + 0.2 = 0.3", [True]),
        ("-3 + 5 = 2", [True]),
        ("2*(3 - -1) = 8", [True]),
        ("7 = 7", []),  # calculates nothing
        ("x = 4", []),
        ("2x + 3 = 7", []),
        ("3 + 4 = 7x", []),
        ("2^3 + 1 = 9", []),
        ("f(2+1) = 9", []),
        ("2 + 2 = 50%", []),
        ("\\frac{1}{2} + 1 = 2", []),
        ("1/0 = 5", []),
        ("3 + = 4", []),
        ("((((3 = 4", []),
        ("1 + 1" + " + 1" * 100 + " = 5", []),  # too long to be looked at
        ("no numbers", []),
        ("x - 2*3 = 4", []),
        ("y - 3 + 5 = 9", []),
        ("y -3 + 5 = 9 and 1 + 1 = 3", [False]),
        ("Total cost - 3 * 4 = 12", []),
        ("x \u2212 2*3 = 4 + 6 = 10", [True]),
        ("5% - 2*3 = 4", []),
        ("sqrt 4 + 5 = 7", []),
        ("20% of 5*10 = 10", []),
        ("x plus 3 + 4 = 10", []),
        ("so -3 + 5 = 2", [True]),
        ("we get 3 + 4 = 8", [False]),
        ("result: - 3 + 5 = 3", [False]),
        ("for a total of 3 + 4 = 8", [False]),
        ("The product of 3*4 = 13 and an area of 3*5 = 15", [False, True]),
        ("out of a total of 3 + 4 = 7 she ate 2", [True]),
        ("half of 6 + 4 = 5", []),
        ("2/3 of 6 + 3 = 6", []),
        ("Two thirds of 6 + 3 = 6", []),
        ("20 percent of the total of 50 + 50 = 20", []),
        ("the square root of 5 + 4 = 3", []),
        ("the absolute value of 3 - 5 = 2, a value of 3 - 5 = 2", [False]),
        ("f of 3 + 1 = 9", []),
        ("20 x 1/2 = 10", [True]),
        ("20 x 1/2 = 0.5", [False]),
        ("12 x 5 - 10 = 50 and 20 X 3 + 1 = 4", [True, False]),
        ("2 x 3 x .5 = 3 and $5 x (4 + 1) = $25 and (2+3)x4 = 21", [True, True, False]),
        ("60 minutes x 3/4 = 45", []),
        ("20% x 50 + 5 = 15", []),
        ("3x = 12 and 3x(1 + 2) = 7", []),
        ("5 x - 2*3 = 4", []),
        ("3x 4 + 1 = 14", []),
        ("2 x y + 3 = 4", []),
        ("0x10 + 2 = 18", []),
        ("0x1F x 2 = 62", []),
        ("10x5 = 50 and 0.0x5 = 0", [True, True]),
        ("$2,430 \u2013 ($1,250 + $850) = $330", [True]),
        ("\u2013 3 + 4 = 7", [True]),
    ],
)
def test_what_is_calculated_is_true_or_false_and_the_rest_is_left_alone(line, found):
    assert calculations(line) == found


@given(st.integers(-99, 99), st.sampled_from("+-*"), st.integers(0, 99), st.integers(-3, 3))
def test_a_calculation_holds_exactly_when_python_says_so(a, sign, b, off):
    result = {"+": a + b, "-": a - b, "*": a * b}[sign]
    assert calculations(f"{a} {sign} {b} = {result + off}") == [off == 0]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """Bytes are tokens, and so is `</think>`, which is special: decoded to nothing."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["</think>"])
    path = tmp_path_factory.mktemp("model") / "tokenizer.json"
    made.save(str(path))
    return made, str(path.parent)


def judged(text: str, tokenizer, **options):
    made, folder = tokenizer
    token_ids = tuple(made.encode(text).ids)
    return steps(Sample("q", made.decode(list(token_ids)), "5", token_ids=token_ids), tokenizer=folder, **options)


WORK = "2 + 3 = 5\nlet us go on\n5 * 2 = 11\n11 - 1 = 10"


@pytest.mark.parametrize(("total", "reward"), [("mean", 2 / 3), ("min", 0.0), ("until_wrong", 1 / 3)])
def test_the_reward_is_made_of_the_steps_that_calculate(tokenizer, total, reward):
    verdict = judged(WORK, tokenizer, total=total)
    assert (verdict.reward, verdict.reason, verdict.detail) == (pytest.approx(reward), "wrong_step", "1, 0, 1")


def test_each_step_has_its_value_on_its_own_tokens(tokenizer):
    verdict = judged(WORK, tokenizer)
    third = len("2 + 3 = 5\nlet us go on\n")
    assert verdict.step_rewards == ((0, 9, 1.0), (third, third + 10, 0.0), (third + 11, third + 22, 1.0))


def test_spans_are_right_where_characters_and_tokens_differ(tokenizer):
    made, _ = tokenizer
    text = "\u6f22\U0001f600 2 + 3 = 5\n</think>\u00e9 1 + 1 = 3"
    verdict = judged(text, tokenizer)
    token_ids = made.encode(text).ids
    decoded = [made.decode(token_ids[start:end]) for start, end, _ in verdict.step_rewards]
    assert decoded == ["\u6f22\U0001f600 2 + 3 = 5", "\u00e9 1 + 1 = 3"]
    assert [value for *_, value in verdict.step_rewards] == [1.0, 0.0]


def test_a_step_that_begins_within_a_token_has_that_token():
    words = ["1 + 1 = 2", "\n2", " + 2 = 4"]
    sample = Sample("q", "".join(words), "5", token_ids=(0, 1, 2))
    valued = [(start, end, 1.0) for start, end in steps_of(sample.completion, r"\n+")]
    spans = tokens_of(valued, sample, lambda token_ids: "".join(words[i] for i in token_ids))
    assert spans == ((0, 1, 1.0), (1, 3, 1.0))


@settings(max_examples=50)
@given(st.text(max_size=60))
def test_characters_are_counted_as_the_whole_text_is_decoded(tokenizer, text):
    made, folder = tokenizer
    token_ids, decode = made.encode(text).ids, tokenizer_of(folder)
    ends = characters_after(token_ids, decode)
    assert ends == sorted(ends) and len(ends) == len(token_ids)
    if token_ids and "\ufffd" not in text:
        assert ends[-1] == len(decode(token_ids))


def test_another_verifier_can_judge_the_steps(tokenizer):
    verdict = judged("a cat\na dog\na catfish", tokenizer, by="regex", params={"pattern": "cat"}, separator="\n")
    assert [value for *_, value in verdict.step_rewards] == [1.0, 0.0, 1.0]


def test_where_a_step_cannot_be_judged_nothing_is_said(tokenizer, tmp_path):
    verdict = judged("a cat", tokenizer, by="regex", params={"pattern": "("})
    assert (verdict.outcome, verdict.reason) == (Outcome.ABSTAIN, "step_pattern_invalid")
    (tmp_path / "odd.py").write_text("def odd(sample):\n    return None if 'b' in sample.completion else 1.0\n")
    assert judged("a\nb", tokenizer, by=f"{tmp_path}/odd.py:odd").outcome == Outcome.ABSTAIN


def test_references_are_checked_by_whoever_judges_the_steps():
    assert steps.unusable("\\frac{1}{", {"tokenizer": "", "by": "math"}, {})
    assert steps.unusable("5", {"tokenizer": "", "by": "math"}, {}) is None
    assert steps.unusable("\\frac{1}{", {"tokenizer": ""}, {}) is None


def test_an_error_on_one_step_is_an_error(tokenizer, tmp_path):
    (tmp_path / "silent.py").write_text(
        "from rlvr.verify import Outcome, Verdict\n"
        "def silent(sample):\n"
        "    return Verdict(None, Outcome.ERROR, reason='gone') if 'b' in sample.completion else 1.0\n"
    )
    verdict = judged("a\nb", tokenizer, by=f"{tmp_path}/silent.py:silent")
    assert (verdict.outcome, verdict.reward, verdict.reason) == (Outcome.ERROR, None, "step_gone")


def test_a_completion_without_steps_earns_nothing(tokenizer):
    for text in ("", "the answer is 5", "\n\n"):
        verdict = judged(text, tokenizer)
        assert (verdict.outcome, verdict.reason, verdict.reward) == (Outcome.REJECTED, "no_steps", 0.0)


def test_another_models_tokenizer_is_an_error_not_a_wrong_span(tokenizer):
    _, folder = tokenizer
    with pytest.raises(ValueError, match="another model's"):
        steps(Sample("q", "1 + 1 = 2", "5", token_ids=(1, 2, 3)), tokenizer=folder)
    with pytest.raises(PluginError, match=r"no .*tokenizer\.json"):
        tokenizer_of(folder + "/nowhere/tokenizer.json")


def test_without_token_ids_there_is_a_reward_and_no_span(tokenizer):
    verdict = steps(Sample("q", WORK, "5"), tokenizer="")
    assert (verdict.reward, verdict.step_rewards) == (pytest.approx(2 / 3), ())


def test_where_a_tool_has_answered_there_is_a_reward_and_no_span(tokenizer):
    """The policy's tokens are then no one text, and a completion that called a tool is not to be masked for it."""
    made, folder = tokenizer
    sample = Sample("q", WORK, "5", token_ids=tuple(made.encode(WORK).ids[:-3]), transcript=f"{WORK} ...")
    verdict = steps(sample, tokenizer=folder)
    assert (verdict.reward, verdict.step_rewards) == (pytest.approx(2 / 3), ())


def test_steps_stand_between_separators():
    assert steps_of("a\n\n b\nc\n", r"\n+") == [(0, 1), (3, 5), (6, 7)]
    assert steps_of("ab", "x*") == [(0, 2)]


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_completion_earns_nothing(kind):
    verdict = steps(Sample("q", HOSTILE[kind], "5"), tokenizer="")
    assert (verdict.reward, verdict.outcome) == (0.0, Outcome.REJECTED)


def test_of_two_steps_in_one_token_the_earlier_has_it():
    words = ["1 + 1 = 2\n2 + 2", " = 4\n3", "\n4"]
    sample = Sample("q", "".join(words), "5", token_ids=(0, 1, 2))
    valued = [(start, end, 1.0) for start, end in steps_of(sample.completion, r"\n+")]
    spans = tokens_of(valued, sample, lambda token_ids: "".join(words[i] for i in token_ids))
    assert spans == ((0, 1, 1.0), (1, 2, 1.0), (2, 3, 1.0))


def test_a_step_is_judged_alone_and_not_as_thoughts(tmp_path):
    (tmp_path / "alone.py").write_text(
        "def alone(sample):\n    return not sample.thinking and not sample.token_ids and sample.completion in 'ab'\n"
    )
    sample = Sample("q", "a\nb", "5", token_ids=(1, 2, 3), thinking=True)
    assert steps(sample, tokenizer="", by=f"{tmp_path}/alone.py:alone").reward == 1.0
