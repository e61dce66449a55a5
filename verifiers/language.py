"""Does a completion stay in its language? By script: what letters are, not what words mean.

Scripts tell Chinese from Russian from English; they cannot tell English from French.
"""

import re
import unicodedata
from collections import Counter
from functools import lru_cache

from rlvr_verifiers.boxes import after_thoughts
from rlvr_verifiers.verdicts import abstained, rejected, said

from rlvr.verify import Sample, Verdict, verifier

# the first word of a letter's Unicode name -> script; other first words are names of scripts themselves
NAMED = {"CJK": "HAN", "IDEOGRAPHIC": "HAN", "HALFWIDTH": "", "FULLWIDTH": "", "MODIFIER": "", "MATHEMATICAL": ""}
NEUTRAL = {"", "SCRIPT", "DOUBLE-STRUCK", "BLACK-LETTER", "OHM", "KELVIN", "ANGSTROM", "MICRO", "FEMININE", "MASCULINE"}
FORMULAS = {"LATIN", "GREEK"}  # the letters of formulas and code
LATIN = """en de fr es it pt nl sv da no nb nn fi pl cs sk sl hr ro hu
tr vi id ms sw tl et lv lt is ga cy eu ca gl af az uz"""
LANGUAGES = {code: {"LATIN"} for code in LATIN.split()} | {
    "zh": {"HAN", "BOPOMOFO"},
    "ja": {"HAN", "HIRAGANA", "KATAKANA"},
    "ko": {"HANGUL", "HAN"},
    **{code: {"CYRILLIC"} for code in ("ru", "uk", "bg", "sr", "mk", "be", "kk", "ky", "mn", "tg")},
    **{code: {"ARABIC"} for code in ("ar", "fa", "ur", "ps")},
    **{code: {"DEVANAGARI"} for code in ("hi", "mr", "ne", "sa")},
    "el": {"GREEK"}, "he": {"HEBREW"}, "yi": {"HEBREW"}, "th": {"THAI"}, "lo": {"LAO"}, "km": {"KHMER"},
    "my": {"MYANMAR"}, "ka": {"GEORGIAN"}, "hy": {"ARMENIAN"}, "am": {"ETHIOPIC"}, "bn": {"BENGALI"},
    "ta": {"TAMIL"}, "te": {"TELUGU"}, "kn": {"KANNADA"}, "ml": {"MALAYALAM"}, "gu": {"GUJARATI"},
    "pa": {"GURMUKHI"}, "si": {"SINHALA"}, "bo": {"TIBETAN"},
}  # fmt: skip
# formulas, code and tags have no language; no opening is searched past the next one: linear
NO_LANGUAGE = re.compile(
    r"```.*?```|`[^`\n]*`|\$\$[^$]*\$\$|\$[^$\n]*\$|\\\((?:(?!\\\().)*?\\\)|\\\[(?:(?!\\\[).)*?\\\]|\\[A-Za-z]+|</?[a-z]+>|https?://\S+",
    re.DOTALL,
)


@verifier("language", version="2")
def language(sample: Sample, language: str = "", thoughts: bool = True, least: float = 0.0) -> Verdict:
    """The share of letters in the scripts of the language (ISO 639-1 code, e.g. "zh").

    The language is the option's, else that of the row's `language` column, else the scripts of the prompt.
    Below `least` the reward is 0. `thoughts=false` looks only at what follows `</think>`.
    """
    wanted = str(language or sample.row.get("language", "") or "").lower().partition("-")[0]
    if wanted and wanted not in LANGUAGES:
        return abstained("language_unknown", f"{wanted!r}; known: {', '.join(sorted(LANGUAGES))}")
    expected = LANGUAGES[wanted] if wanted else scripts_of_prompt(sample.prompt)
    if not expected:
        return abstained("language_unknown", "no option, no column `language`, and no letter in the prompt")
    text = sample.completion if thoughts else after_thoughts(sample.completion, sample.thinking) or ""
    if not text.strip():
        return rejected("empty")
    found = letters(text)
    total = sum(found.values())
    if not total:
        return said(1.0, "no_letters")
    share = sum(count for script, count in found.items() if script in expected) / total
    others = ", ".join(f"{script} {n / total:.0%}" for script, n in found.most_common(4) if script not in expected)
    return said(share if share >= least else 0.0, "kept" if not others else "mixed", others)


def scripts_of_prompt(prompt: str) -> set[str]:
    """Those of at least a fifth of its letters: a name in another script is no change of language."""
    found = letters(prompt)
    scripts = {script for script, count in found.items() if count >= sum(found.values()) / 5}
    return scripts | (LANGUAGES["ja"] if scripts & {"HIRAGANA", "KATAKANA"} else set())


def letters(text: str) -> Counter[str]:
    """Script -> letters; in formulas and code not the Latin and Greek ones: others are no less foreign there."""
    found: Counter[str] = Counter()
    for part, theirs in ((text, False), (NO_LANGUAGE.sub(" ", text), True)):
        for character, count in Counter(part).items():
            if (script := script_of(character)) and (script in FORMULAS) == theirs:
                found[script] += count
    return found


@lru_cache(maxsize=100_000)
def script_of(character: str) -> str:
    """LATIN, HAN, ...; empty for what is no letter, or a letter of no language (mathematics, units)."""
    if not unicodedata.category(character).startswith("L"):
        return ""
    words = unicodedata.name(character, "").split()
    for word in words[:2]:
        script = NAMED.get(word, word)
        if script:
            return "" if script in NEUTRAL or words[0] == "MATHEMATICAL" else script
    return ""
