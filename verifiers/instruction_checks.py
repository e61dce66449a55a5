"""The checks that `instructions` knows: each a question about a text, answered by reading it. Pure.

`least` and `most` are inclusive; leave one out for no limit on that side. Every pattern is linear in the text. Options
that no text could satisfy are a ValueError.
"""

import re
from collections.abc import Callable, Iterable
from math import inf

from rlvr_verifiers.json_schema import strict_json

Limit = float | None
CHECKS: dict[str, Callable[..., bool]] = {}

WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
SENTENCE_END = re.compile(r"[.!?](?=[\s\"')\]]|$)|[。！？]")
ABBREVIATION = re.compile(r"\b(?:[A-Z]|Mr|Mrs|Ms|Dr|Prof|St|vs|etc|e\.g|i\.e|No|Fig)\.(?=\s)")
# letters of scripts that put no spaces between words: Han, kana, bopomofo, Thai, Lao, Tibetan, Burmese, Khmer, Yi
SPACELESS = (
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3040-\u312f\u31a0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f"
    "\U00020000-\U0003ffff\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19ff\ua000-\ua4cf\ua9e0-\ua9ff\uaa60-\uaa7f"
)
IN_WORD = re.compile(rf"[^\W{SPACELESS}]")
RULE = re.compile(r"(?:\*\s*){3,}|(?:-\s*){3,}|(?:_\s*){3,}")


def check(function: Callable[..., bool]) -> Callable[..., bool]:
    CHECKS[function.__name__] = function
    return function


def within(count: int, least: Limit, most: Limit) -> bool:
    if least is None and most is None:
        raise ValueError("give `least`, `most`, or both")
    low, high = 0 if least is None else least, inf if most is None else most
    if not low <= high:
        raise ValueError(f"least {least} and most {most}: no text keeps both")
    return low <= count <= high


def words_of(text: str) -> list[str]:
    return WORD.findall(text)


def lines_of(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n") if line.strip()]


def paragraphs_of(text: str, separator: str | None = None) -> list[str]:
    """Parted by `separator` on a line of its own, else by empty lines."""
    paragraphs: list[list[str]] = [[]]
    for line in text.split("\n"):
        if line.strip() == (separator or "").strip():
            paragraphs.append([])
        else:
            paragraphs[-1].append(line)
    return [joined for lines in paragraphs if (joined := "\n".join(lines).strip())]


def occurrences(text: str, phrase: str, ignore_case: bool = True) -> int:
    """Of a phrase as whole words: `cat` is not in `category`. No word ends where the phrase begins or ends with a sign,
    or with a letter of a script without spaces."""
    flags = re.IGNORECASE if ignore_case else 0
    before = rf"(?<!{IN_WORD.pattern})" if IN_WORD.match(phrase[0]) else ""
    after = rf"(?!{IN_WORD.pattern})" if IN_WORD.match(phrase[-1]) else ""
    return len(re.findall(f"{before}{re.escape(phrase)}{after}", text, flags))


def as_words(words: str | Iterable[str]) -> list[str]:
    listed = [words] if isinstance(words, str) else list(words)
    if not listed or not all(isinstance(word, str) and word for word in listed):
        raise ValueError(f"expected words, got {words!r}")
    return listed


# how long


@check
def characters(text: str, least: Limit = None, most: Limit = None) -> bool:
    return within(len(text), least, most)


@check
def words(text: str, least: Limit = None, most: Limit = None) -> bool:
    return within(len(words_of(text)), least, most)


@check
def sentences(text: str, least: Limit = None, most: Limit = None) -> bool:
    """A last sentence without its full stop counts."""
    text = ABBREVIATION.sub(" ", text).strip()
    ends = len(SENTENCE_END.findall(text))
    return within(ends + (not re.search(r"[.!?。！？][\"')\]]{0,3}$", text)), least, most)


@check
def paragraphs(text: str, least: Limit = None, most: Limit = None, separator: str | None = None) -> bool:
    return within(len(paragraphs_of(text, separator)), least, most)


@check
def lines(text: str, least: Limit = None, most: Limit = None) -> bool:
    """Empty ones do not count."""
    return within(len(lines_of(text)), least, most)


# which words


@check
def contains(text: str, words: str | list[str]) -> bool:
    """All of them, as whole words, in any case."""
    return all(occurrences(text, word) > 0 for word in as_words(words))


@check
def avoids(text: str, words: str | list[str]) -> bool:
    return not any(occurrences(text, word) for word in as_words(words))


@check
def word_count(text: str, word: str, least: Limit = None, most: Limit = None) -> bool:
    if not word:
        raise ValueError("word '': expected a word")
    return within(occurrences(text, word), least, most)


@check
def letter_count(text: str, letter: str, least: Limit = None, most: Limit = None) -> bool:
    if len(letter) != 1:
        raise ValueError(f"letter {letter!r}: expected one character")
    return within(text.lower().count(letter.lower()), least, most)


@check
def no_character(text: str, characters: str) -> bool:
    """E.g. no comma: `characters: ","`."""
    return not set(text) & set(characters)


@check
def one_of(text: str, options: list[str]) -> bool:
    """The answer is one of these and nothing else; case and a full stop do not matter."""
    return text.strip().rstrip(".").lower() in {option.strip().rstrip(".").lower() for option in as_words(options)}


@check
def repeats(text: str, phrase: str) -> bool:
    """Begins with the phrase word for word and goes on after it (repeat the request, then answer)."""
    joined = " ".join(text.split())
    phrase = " ".join(phrase.split())
    return joined.startswith(phrase) and len(joined) > len(phrase)


@check
def distinct_words(text: str, least_share: float) -> bool:
    """Share of different words among all of them."""
    found = [word.lower() for word in words_of(text)]
    return bool(found) and len(set(found)) / len(found) >= least_share


# how it begins and ends


@check
def starts_with(text: str, phrase: str) -> bool:
    return text.startswith(phrase)


@check
def ends_with(text: str, phrase: str) -> bool:
    return text.rstrip().endswith(phrase.rstrip())


@check
def first_word(text: str, word: str, paragraph: int = 1) -> bool:
    """Of the numbered paragraph, counted from 1."""
    found = paragraphs_of(text)
    if paragraph < 1:
        raise ValueError(f"paragraph {paragraph}: counted from 1")
    if len(found) < paragraph:
        return False
    return [w.lower() for w in words_of(found[paragraph - 1][:1000])[:1]] == [word.lower()]


@check
def postscript(text: str, marker: str = "P.S.") -> bool:
    """The last paragraph begins with the marker and says something."""
    last = (paragraphs_of(text) or [""])[-1].splitlines()
    begun = [n for n, line in enumerate(last) if line.strip().startswith(marker)]
    return bool(begun) and len(words_of(" ".join(last[begun[-1] :]).strip()[len(marker) :])) > 0


@check
def quoted(text: str) -> bool:
    """All of it stands in double quotes."""
    pairs = {'"': '"', "“": "”", "„": "“", "«": "»"}
    return len(text) > 2 and pairs.get(text[0]) == text[-1]


# which case


@check
def upper_case(text: str) -> bool:
    return text.isupper()


@check
def lower_case(text: str) -> bool:
    return text.islower()


@check
def capital_words(text: str, least: Limit = None, most: Limit = None) -> bool:
    """Words all in capitals, of two letters or more."""
    return within(sum(word.isupper() and len(word) > 1 for word in words_of(text)), least, most)


# which form


@check
def bullets(text: str, least: Limit = None, most: Limit = None) -> bool:
    return within(sum(bool(re.match(r"[*•-]\s+\S", line)) for line in lines_of(text)), least, most)


@check
def numbered(text: str, least: Limit = None, most: Limit = None) -> bool:
    """Items 1, 2, 3, ... in this order, each on its own line."""
    found = [int(m[1]) for line in lines_of(text) if (m := re.match(r"(\d{1,6})[.)]\s+\S", line))]
    return found == list(range(1, len(found) + 1)) and within(len(found), least, most)


@check
def headings(text: str, least: Limit = None, most: Limit = None) -> bool:
    """Markdown headings."""
    return within(sum(bool(re.match(r"#{1,6}\s+\S", line)) for line in lines_of(text)), least, most)


@check
def sections(text: str, marker: str = "Section", least: Limit = None, most: Limit = None) -> bool:
    """Lines that begin with the marker and a number, counting up from 1: `Section 1`."""
    pattern = re.compile(rf"[#*\s]*{re.escape(marker)}\s*(\d{{1,6}})")
    found = [int(m[1]) for line in lines_of(text) if (m := pattern.match(line))]
    return found == list(range(1, len(found) + 1)) and within(len(found), least, most)


@check
def title(text: str) -> bool:
    """The first line is a title in double angle brackets: <<Of mice>>."""
    return re.fullmatch(r"<<\s*[^<>\s][^<>]*>>", (lines_of(text) or [""])[0]) is not None


@check
def highlights(text: str, least: Limit = None, most: Limit = None) -> bool:
    """*So* or **so**, within a line."""
    return within(len(re.findall(r"(\*\*|\*)(?![\s*])[^*\n]+(?<!\s)\1", text)), least, most)


@check
def placeholders(text: str, least: Limit = None, most: Limit = None) -> bool:
    """In square brackets: [address]. The text of a Markdown link is none."""
    return within(len(re.findall(r"\[[^\[\]\n]+\](?!\()", text)), least, most)


@check
def table(text: str, columns: int, least: Limit = 1, most: Limit = None) -> bool:
    """A Markdown table with that many columns; `least` and `most` count its rows below the head."""
    if not columns >= 1:
        raise ValueError(f"columns {columns}: at least 1")
    rows = [line for line in lines_of(text) if line.startswith("|") and line.endswith("|") and len(line) > 1]
    cells = [[cell.strip() for cell in row[1:-1].split("|")] for row in rows]
    ruled = len(cells) > 1 and all(re.fullmatch(r":?-+:?", cell) for cell in cells[1])
    return within(len(cells) - 2, least, most) and ruled and all(len(row) == columns for row in cells)


@check
def code_block(text: str, language: str = "") -> bool:
    """At least one closed ``` fence, of that language where one is named."""
    fences = [line for line in lines_of(text) if line.startswith("```")]
    return len(fences) >= 2 and (not language or f"```{language}" in fences[::2])


@check
def json_text(text: str) -> bool:
    """All of it is strict JSON (no NaN, no key twice), a ``` fence around it allowed."""
    if text.startswith("```") and text.endswith("```") and "\n" in text:
        text = text.partition("\n")[2].removesuffix("```")
    try:
        strict_json(text)
    except (ValueError, RecursionError):
        return False
    return True


@check
def two_answers(text: str, separator: str = "******") -> bool:
    """Exactly two different answers, the separator between them."""
    parts = [part.strip() for part in text.split(separator)]
    return len(parts) == 2 and all(parts) and parts[0] != parts[1]


@check
def no_rules(text: str) -> bool:
    """No Markdown at all: no headings, bullets, emphasis, fences, rules or tables."""
    marks = re.compile(r"#{1,6}\s|[*•-]\s|\d{1,6}[.)]\s|```|\|.*\|$")
    plain = not any(marks.match(line) or RULE.fullmatch(line) for line in lines_of(text))
    return plain and highlights(text, most=0)
