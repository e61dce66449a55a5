"""Are the sources there, and do they say so? Each citation is a quotation and an identifier: "the words" [id].

in the documents? --the quoted words, word for word--> found? --optionally a judge--> does it support the sentence?
"""

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from rlvr_verifiers.boxes import after_thoughts
from rlvr_verifiers.chat import Endpoint, prepare
from rlvr_verifiers.judging import Case, settled, signature, silence, voted
from rlvr_verifiers.verdicts import abstained, failed, rejected, said

from rlvr.verify import Provenance, Sample, Verdict, verifier

MAX_CHARACTERS, MAX_CITATIONS = 100_000, 200
IDENTIFIER = re.compile(r"\[([^\[\]\n]{1,100})\](?!\()")
MARKS = r'"\u201c\u201d\u201e\u00ab\u00bb'  # any of them opens, and any closes: languages differ
QUOTATION = re.compile(rf"[{MARKS}]([^{MARKS}]{{1,2000}})[{MARKS}][\s.,]{{0,3}}$")
SUPPORTS = "The source supports the claim: what the claim says follows from the source alone."


@dataclass(frozen=True)
class Citation:
    identifier: str
    quotation: str | None
    claim: str  # the sentence in which it stands


def prepare_citation(corpus: str = "", endpoint: Mapping[str, Any] | None = None) -> None:
    if corpus:
        read_corpus(corpus)
    if endpoint is not None:
        prepare(endpoint)


def unusable(answer: Any, row: Mapping[str, Any], corpus: str = "") -> str | None:
    try:
        documents_for(row, corpus)
    except (ValueError, TypeError, KeyError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return None


@verifier("citation", version="3", timeout_s=300.0, memory_gib=8.0, setup=prepare_citation, check_answer=unusable)
async def citation(
    sample: Sample,
    corpus: str = "",
    least: int = 1,
    quotes: bool = True,
    min_words: int = 4,
    endpoint: Mapping[str, Any] | None = None,
    votes: int = 1,
) -> Verdict:
    """The share of citations that hold; 0 with fewer than `least` different ones.

    Documents are the row's `documents` ({id: text}, a list of {id, text}, or JSON text of either), else those of
    `corpus`, a JSON lines file of {id, text}. A citation holds when its identifier is one of theirs and the quotation
    before it, of at least `min_words` words, stands in that document; with `quotes=false` an identifier is enough.
    With an `endpoint` a judge must also find that the quotation supports the sentence.
    """
    if why := unusable(sample.answer, sample.row, corpus):
        return abstained("documents_invalid", why)
    documents = documents_for(sample.row, corpus)
    text = after_thoughts(sample.completion, sample.thinking)
    if text is None:
        return rejected("no_answer", "the thoughts are never closed")
    if len(text) > MAX_CHARACTERS:
        return rejected("too_long", f"{len(text)} characters > {MAX_CHARACTERS}")
    found = citations(text)
    if len(found) > MAX_CITATIONS:
        return rejected("too_many", f"more than {MAX_CITATIONS} citations")
    distinct = {(one.identifier, plain(one.quotation or "")): one for one in found}
    # the same one twice is one; a judge looks at each sentence in which it stands
    found = list(distinct.values()) if endpoint is None else list(dict.fromkeys(found))
    if len(distinct) < least:
        return said(0.0, "too_few", f"{len(distinct)} different citations, {least} asked for")
    wrong = {one: fault for one in found if (fault := fault_of(one, documents, quotes, min_words))}
    where: tuple[Provenance, ...] = ()
    if endpoint is not None and (left := [one for one in found if one not in wrong]):
        chosen = Endpoint.of(endpoint)
        ballots = await asyncio.gather(*(supported(chosen, one, documents, votes) for one in left))
        every = [vote for ballot in ballots for vote in ballot]
        where = (signature(chosen, SUPPORTS, 1, every, votes),)
        for one, ballot in zip(left, ballots, strict=True):
            share = settled(ballot, 1)
            if share is None:
                return failed("no_verdict", silence(ballot), provenance=where)
            if share < 1:
                wrong[one] = "unsupported"
    if not wrong:
        return said(1.0, "all_hold", f"{len(found)} citations", provenance=where)
    one, fault = next(iter(wrong.items()))
    detail = f"{len(wrong)} of {len(found)} do not hold, first [{one.identifier}] {one.quotation or ''!r}"
    return said(1 - len(wrong) / len(found), fault, detail, provenance=where)


def citations(text: str) -> list[Citation]:
    """At most one more than MAX_CITATIONS."""
    found = []
    for mark in islice(IDENTIFIER.finditer(text), MAX_CITATIONS + 1):
        quotation = QUOTATION.search(text[max(0, mark.start() - 2010) : mark.start()])
        begin = mark.start() - len(quotation[0] if quotation else "")
        claim = text[max(text.rfind(stop, 0, begin) for stop in (". ", "? ", "! ", "\n")) + 1 : mark.start()].strip()
        found.append(Citation(mark[1].strip(), quotation[1] if quotation else None, claim))
    return found


def fault_of(one: Citation, documents: Mapping[str, str], quotes: bool, min_words: int) -> str:
    """Why it does not hold; empty when it does as far as reading goes."""
    if one.identifier not in documents:
        return "unknown_source"
    if one.quotation is None:
        return "no_quotation" if quotes else ""
    words = plain(one.quotation)
    if len(words.split()) < min_words:
        return "too_short"
    return "" if f" {words} " in f" {plain(documents[one.identifier])} " else "not_in_source"


@lru_cache(maxsize=512)
def plain(text: str) -> str:
    """Words in lower case with single spaces: line breaks, case and punctuation do not make another quotation."""
    return " ".join(re.findall(r"\w+", text.lower()))


async def supported(endpoint: Endpoint, one: Citation, documents: Mapping[str, str], votes: int) -> Any:
    source = one.quotation if one.quotation is not None else documents[one.identifier][:20_000]
    return await voted(endpoint, Case(SUPPORTS, {"SOURCE": source, "CLAIM": one.claim}), votes)


def documents_for(row: Mapping[str, Any], corpus: str) -> dict[str, str]:
    return documents_of(row["documents"]) if "documents" in row else read_corpus(corpus)


def documents_of(given: Any) -> dict[str, str]:
    loaded = json.loads(given) if isinstance(given, str) else given
    if isinstance(loaded, Mapping):
        loaded = [{"id": name, "text": text} for name, text in loaded.items() if text is not None]
    made = {str(one["id"]): one["text"] for one in loaded}
    if not made or not all(isinstance(text, str) for text in made.values()):
        raise ValueError("expected documents with an id and a text each")
    return made


@lru_cache(maxsize=4)
def read_corpus(path: str) -> dict[str, str]:
    if not path:
        raise ValueError("neither a column `documents` nor the option `corpus`")
    lines = Path(path).expanduser().read_text(encoding="utf-8").split("\n")
    return documents_of([json.loads(line) for line in lines if line.strip()])
