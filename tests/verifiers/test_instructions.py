"""Each check holds where it should and breaks where it should; rows that make no sense abstain."""

import json

import pytest
from rlvr_verifiers.instruction_checks import CHECKS
from rlvr_verifiers.instructions import instructions

from rlvr.types import Outcome
from rlvr.verify import Sample

LETTER = "Dear [name],\n\nI *really* like it.\n\nP.S. Write soon."
TABLE = "| a | b |\n|---|:-:|\n| 1 | 2 |\n| 3 | 4 |"
CASES = [  # check, its options, texts that keep it, texts that break it
    ("characters", {"most": 5}, ["12345"], ["123456"]),
    ("words", {"least": 3, "most": 4}, ["don't stop now", "a b c d"], ["well-known fact", "a b c d e"]),
    ("sentences", {"least": 2, "most": 2}, ["One. Two!", "Dr. No is in. So?", "好。是吗？"], ["One", "So? Ah. Oh."]),
    ("paragraphs", {"least": 3, "most": 3}, [LETTER], ["a\n\nb", "a\nb\nc"]),
    ("paragraphs", {"least": 2, "most": 2, "separator": "***"}, ["a\n\nb\n***\nc"], ["a\n\nb", "a *** b"]),
    ("lines", {"most": 2}, ["a\n\nb"], ["a\nb\nc"]),
    ("contains", {"words": ["cat", "New York"]}, ["A Cat in New York."], ["A category in New York", "cat"]),
    ("avoids", {"words": "very"}, ["every day"], ["Very good"]),
    ("contains", {"words": ["猫", "C++"]}, ["我有一只猫。C++11", "猫c++"], ["我有一只狗。C++", "猫 C"]),
    ("avoids", {"words": ["猫", "ไทย", "!"]}, ["我有一只狗。"], ["我有一只猫。", "ภาษาไทยดี", "So!yes", "Great!"]),
    ("avoids", {"words": "cat"}, ["category", "cat5"], ["我的cat很好", "x cat"]),
    ("avoids", {"words": "кот"}, ["который"], ["кот"]),
    ("word_count", {"word": "猫", "least": 2, "most": 2}, ["猫和猫"], ["猫", "猫猫猫"]),
    ("word_count", {"word": "go", "least": 2, "most": 2}, ["Go, go!"], ["go", "go going gone"]),
    ("letter_count", {"letter": "e", "most": 1}, ["Echo"], ["Eve"]),
    ("no_character", {"characters": ",;"}, ["a b"], ["a, b"]),
    ("one_of", {"options": ["My answer is yes.", "no"]}, ["my answer is yes", "No."], ["yes", "no, yes", "nope"]),
    ("repeats", {"phrase": "Say it."}, ["Say  it.\nDone"], ["Say it.", "Done. Say it."]),
    ("distinct_words", {"least_share": 0.75}, ["a b c C"], ["a a a b", "..."]),
    ("starts_with", {"phrase": "Well"}, ["Well, no"], ["well", "Oh Well"]),
    ("ends_with", {"phrase": "Is that all?"}, ["No. Is that all?"], ["Is that all? No"]),
    ("first_word", {"word": "second", "paragraph": 2}, ["First.\n\nSecond one."], ["second", "second\n\nfirst"]),
    ("postscript", {}, [LETTER], ["P.S. first\n\nlast", "Hi\n\nP.S."]),
    ("quoted", {}, ['"so"', "“so”", "«so»"], ['"so', 'so "so"', '""']),
    ("upper_case", {}, ["SO 5"], ["So", "5"]),
    ("lower_case", {}, ["so 5"], ["So", "5"]),
    ("capital_words", {"least": 2}, ["NASA and ESA"], ["I am A", "NASA"]),
    ("bullets", {"least": 2, "most": 2}, ["Two:\n* a\n- b"], ["* a", "*a\n*b"]),
    ("numbered", {"least": 2}, ["1. a\n2. b\ntext\n3) c"], ["1. a\n3. b", "2. a\n3. b", "1. a"]),
    ("headings", {"least": 1}, ["# Top\ntext"], ["#hashtag", "text # no"]),
    ("sections", {"marker": "Part", "least": 2}, ["Part 1\na\n## Part 2\nb"], ["Part 1\nPart 3", "see Part 1, Part 2"]),
    ("title", {}, ["<<Of mice>>\nOnce"], ["Once <<Of mice>>", "<< >>", "<<a"]),
    ("highlights", {"least": 2, "most": 2}, ["*a b* and **c**"], ["*a*", "* a\n* b", "2 * 3 * 4"]),
    ("placeholders", {"least": 1, "most": 1}, [LETTER], ["[a](http://b)", "[a] [b]", "[]"]),
    ("table", {"columns": 2, "least": 2}, [TABLE], [TABLE + "\n| 5 |", TABLE.replace("---", "x"), "| a | b |"]),
    ("code_block", {"language": "python"}, ["```python\n1\n```"], ["```\n1\n```", "```python\n1"]),
    ("json_text", {}, ['{"a": 1}', '```json\n{"a": 1}\n```'], ["{a: 1}", "so: {}", "[" * 100_000, "NaN", "[Infinity]",
                                                                     '{"a": 1, "a": 2}']),
    ("two_answers", {}, ["a\n******\nb"], ["a", "a******a", "a******b******c", "******b"]),
    ("no_rules", {}, ["Plain text. 2 * 3"], ["# a", "- a", "so *b*", "```", "a\n---\nb"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options", "keep", "broken"), CASES)
def test_a_check_holds_and_breaks_where_it_should(name, options, keep, broken):
    assert [CHECKS[name](text, **options) for text in keep] == [True] * len(keep)
    assert [CHECKS[name](text, **options) for text in broken] == [False] * len(broken)


def test_every_check_has_its_case_and_there_are_enough_of_them():
    assert {name for name, *_ in CASES} == set(CHECKS)
    assert len(CHECKS) >= 25


def judged(completion: str, wanted: object, **options):
    return instructions(Sample("q", completion, None, row={"instructions": wanted}), **options)


BOTH = [{"check": "words", "most": 3}, {"check": "no_character", "characters": ","}]


def test_all_must_be_kept_unless_a_share_is_asked_for():
    assert (judged("a b c", BOTH).reward, judged("a b c", BOTH).reason) == (1.0, "kept")
    assert (judged("a b c d", BOTH).reward, judged("a b c d", BOTH).reason) == (0.0, "broke_words")
    assert judged("a b c d", BOTH, strict=False).reward == 0.5
    assert judged("a, b c d", BOTH, strict=False).detail == "words, no_character"


def test_the_thoughts_are_free_unless_they_are_asked_about():
    assert judged("<think>well, let me think about it</think>a b c", BOTH).reward == 1.0
    assert judged("<think>well, let me think about it</think>a b c", BOTH, thoughts=True).reward == 0.0
    assert judged("<think>a b c", BOTH).reason == "no_answer"


def test_instructions_may_be_json_text_with_empty_options_as_parquet_columns_have_them():
    wanted = json.dumps([{"check": "words", "least": None, "most": 3, "letter": None}])
    assert judged("a b c", wanted).reward == 1.0


def test_the_recipes_checks_stand_before_the_rows():
    assert judged("a b c d", BOTH, checks=[{"check": "lower_case"}]).reward == 1.0


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (None, "neither"),
        ([], "neither"),
        ("[", "Expecting"),
        (["words"], "expected an object"),
        ([{"check": "wrods", "most": 3}], "did you mean words"),
        ([{"check": "words", "more": 3}], "check words"),
        ([{"check": "words"}], "give `least`"),
        ([{"check": "words", "most": "3"}], "TypeError"),
        ([{"check": "letter_count", "letter": "ab", "most": 1}], "one character"),
        ([{"check": "contains", "words": []}], "expected words"),
        ([{"check": "word_count", "word": "", "least": 1}], "expected a word"),
        ([{"check": "table", "columns": "3"}], "TypeError"),
        ([{"check": "table", "columns": 0}], "at least 1"),
        ([{"check": "table", "columns": 2, "least": 3, "most": 2}], "no text keeps both"),
        ([{"check": "words", "least": 150, "most": 100}], "least 150 and most 100: no text keeps both"),
        ([{"check": "numbered", "least": 2, "most": 1}], "no text keeps both"),
    ],
)
def test_a_row_that_makes_no_sense_abstains_and_says_why(wanted, said):
    verdict = judged("a b c", wanted)
    assert (verdict.outcome, verdict.reason) == (Outcome.ABSTAIN, "instructions_invalid")
    assert said in verdict.detail


def test_blank_space_around_the_text_breaks_nothing():
    wanted = [{"check": "starts_with", "phrase": "Well"}, {"check": "characters", "most": 8}]
    assert judged("<think>so</think>\n\nWell, no\n", wanted).reason == "kept"
