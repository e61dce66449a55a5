"""The share of letters in the scripts of a language."""

import pytest
from rlvr_verifiers.language import language, script_of

from rlvr.types import Outcome
from rlvr.verify import Sample


def share(completion: str, wanted: str = "", prompt: str = "q", **options) -> float | None:
    return language(Sample(prompt, completion, "5"), language=wanted, **options).reward


@pytest.mark.parametrize(
    ("character", "script"),
    [
        ("a", "LATIN"), ("é", "LATIN"), ("ﬁ", "LATIN"), ("Ａ", "LATIN"), ("я", "CYRILLIC"), ("漢", "HAN"),
        ("々", "HAN"), ("ひ", "HIRAGANA"), ("カ", "KATAKANA"), ("ｶ", "KATAKANA"), ("한", "HANGUL"), ("α", "GREEK"),
        ("ع", "ARABIC"), ("𝑥", ""), ("ℝ", ""), ("ℓ", ""), ("5", ""), ("。", ""), ("µ", ""), ("\ud800", ""),
    ],
)  # fmt: skip
def test_a_letter_has_the_script_of_its_unicode_name(character, script):
    assert script_of(character) == script


def test_the_reward_is_the_share_of_letters_in_the_language():
    assert share("Привет abc", "ru") == pytest.approx(6 / 9)
    assert share("Привет abc", "en") == pytest.approx(3 / 9)
    assert share("ひらがなと漢字とカタカナ", "ja") == 1.0


def test_formulas_code_and_tags_have_no_language():
    formulas = "$x+y$，`code`，\\frac{1}{2}，\\(abc\\)，https://a.example/b ```python\nprint()\n```"
    text = f"<think>解：</think> {formulas} 答案是 \\boxed{{5}}"
    assert share(text, "zh") == 1.0


def test_code_and_formulas_do_not_hide_another_script():
    for hidden in ("`这是中文`", "$这是中文$", "```\n这是中文\n```"):
        assert share(hidden, "en") == 0.0, hidden
        assert share(f"{hidden} four", "en") == 0.5, hidden
    assert share("```\nthis fence never closes", "zh") == 0.0
    assert share("`x_1` $\\alpha$", "en") == 1.0


def test_the_language_may_stand_in_the_row_or_in_the_prompt():
    assert language(Sample("q", "hello", "5", row={"language": "zh-Hans"})).reward == 0.0
    assert share("hello", prompt="一加一等于几？") == 0.0
    assert share("二", prompt="一加一等于几？") == 1.0


def test_thoughts_count_unless_they_are_left_out():
    assert share("<think>думаю</think>ответ abc", "ru") == pytest.approx(10 / 13)
    assert share("<think>thinking</think>ответ", "ru", thoughts=False) == 1.0


def test_below_the_least_share_the_reward_is_nothing():
    assert share("ab я", "en", least=0.9) == 0.0


def test_digits_alone_break_no_language_and_nothing_at_all_is_rejected():
    assert share("42", "ru") == 1.0
    assert language(Sample("q", " ", "5"), language="ru").outcome == Outcome.REJECTED


def test_a_language_that_is_not_known_abstains():
    verdict = language(Sample("q", "hello", "5"), language="xx")
    assert (verdict.outcome, verdict.reason) == (Outcome.ABSTAIN, "language_unknown")
    assert language(Sample("1+1=?", "2", "2")).outcome == Outcome.ABSTAIN


def test_a_script_of_a_fifth_of_the_prompts_letters_is_one_of_its_own():
    assert share("二", prompt="abcdefgh 一二") == 1.0
    assert share("二", prompt="abcdefghi 一二") == 0.0
