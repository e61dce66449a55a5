"""Quotations that stand where they are said to stand, and judges that say whether they support anything."""

import json

import pytest
from rlvr_verifiers import chat
from rlvr_verifiers.citation import citation, citations

from rlvr.types import Outcome
from rlvr.verify import Sample
from tests.verifiers.endpoint import serving, text_in, unreachable, verdict

DOCUMENTS = {
    "birds": "The crane is a large bird.\nIt  feeds in marshes, and sleeps standing.",
    "fish-2": "A pike waits in the reeds until prey comes near.",
}


@pytest.fixture(autouse=True)
def nothing_remembered():
    chat.forget()


def judged(completion: str, documents: object = DOCUMENTS, **options):
    return citation(Sample("q", completion, None, row={"documents": documents}), **options)


@pytest.mark.parametrize(
    ("completion", "reward", "reason"),
    [
        ('It wades: "It feeds in marshes, and sleeps standing" [birds].', 1.0, "all_hold"),
        ("“The Crane is a large bird. It feeds” [birds]", 1.0, "all_hold"),
        ('"feeds in marshes and sleeps" [birds] but "waits in the reeds until" [fish-2]', 1.0, "all_hold"),
        ("„The Crane is a large bird“ [birds]", 1.0, "all_hold"),
        ("»The Crane is a large bird« [birds] und „waits in the sea until“ [fish-2]", 0.5, "not_in_source"),
        ('"feeds in marshes and sleeps" [birds] but "waits in the sea until" [fish-2]', 0.5, "not_in_source"),
        ('"waits in the reeds until" [birds]', 0.0, "not_in_source"),
        ('"waits in the reeds until" [fish-3]', 0.0, "unknown_source"),
        ('"the crane" [birds]', 0.0, "too_short"),
        ('"rane is a large bir" [birds]', 0.0, "not_in_source"),
        ("It is a large bird [birds].", 0.0, "no_quotation"),
        ("It is a large bird.", 0.0, "too_few"),
        ("", 0.0, "too_few"),
        ('<think>"The crane is a large bird" [birds]</think>So.', 0.0, "too_few"),
        ('<think>"The crane is a large bird" [birds]', 0.0, "no_answer"),
        ("[a] " * 201, 0.0, "too_many"),
        ("a" * 100_001, 0.0, "too_long"),
    ],
)
def test_a_citation_holds_or_what_is_wrong_with_it_is_named(completion, reward, reason):
    verdict = judged(completion)
    assert (verdict.reward, verdict.reason) == (reward, reason)


def test_the_same_citation_twice_is_one():
    once = '"The crane is a large bird" [birds]. '
    assert judged(once * 3, least=2).reason == "too_few"
    assert judged(once + '"feeds in marshes and sleeps" [birds]', least=2).reward == 1.0


def test_a_true_quotation_in_many_sentences_does_not_outweigh_a_false_one():
    true = '"feeds in marshes, and sleeps" [birds]'
    false = 'It swims: "the moon is made of cheese" [birds]. '
    assert judged(false + " ".join(f"Point {n}: {true}." for n in range(50))).reward == 0.5


def test_an_identifier_alone_can_be_allowed():
    assert judged("It is a large bird [birds].", quotes=False).reward == 1.0
    assert judged("It is a large bird [bees].", quotes=False).reason == "unknown_source"
    assert judged("See [birds](http://x).", quotes=False).reason == "too_few"


@pytest.mark.parametrize("documents", [list({"id": k, "text": v} for k, v in DOCUMENTS.items()), json.dumps(DOCUMENTS)])
def test_documents_may_be_a_list_or_json_text(documents):
    assert judged('"The crane is a large bird" [birds]', documents).reward == 1.0


def test_documents_may_stand_in_a_corpus(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"id": k, "text": v}) + "\n" for k, v in DOCUMENTS.items()))
    sample = Sample("q", '"The crane is a large bird" [birds]', None)
    assert citation(sample, corpus=str(path)).reward == 1.0
    assert citation(sample, corpus=str(tmp_path / "none.jsonl")).outcome == Outcome.ABSTAIN


@pytest.mark.parametrize("documents", [None, {}, [], "x", [{"text": "a"}], {"a": 5}, 7])
def test_documents_that_are_none_abstain(documents):
    verdict = judged('"The crane is a large bird" [birds]', documents)
    assert (verdict.outcome, verdict.reason) == (Outcome.ABSTAIN, "documents_invalid")


CLAIM = 'Cranes are big. Cranes sleep on one leg: "and sleeps standing" [birds], I think.'


def test_the_claim_is_the_sentence_in_which_the_citation_stands():
    (one,) = citations(CLAIM)
    assert (one.identifier, one.quotation) == ("birds", "and sleeps standing")
    assert one.claim == 'Cranes sleep on one leg: "and sleeps standing"'


def test_a_judge_says_whether_the_quotation_supports_the_claim():
    with serving(lambda prompt: verdict(prompt, int("one leg" not in text_in(prompt, "CLAIM")))) as server:
        options = {"endpoint": server.options, "min_words": 3}
        assert (judged(CLAIM, **options).reward, judged(CLAIM, **options).reason) == (0.0, "unsupported")
        fine = judged('They stand while they sleep: "and sleeps standing" [birds]', **options)
        assert (fine.reward, fine.provenance[0].judge.split()[0]) == (1.0, "tiny-judge")
        before = len(server.requests)
        assert judged('They swim: "and swims standing" [birds]', **options).reason == "not_in_source"
        assert len(server.requests) == before  # what is not there need not be judged
    assert text_in(server.prompts[0], "SOURCE") == "and sleeps standing"


def test_a_judge_that_is_silent_is_an_error():
    verdict = judged('"The crane is a large bird" [birds]', endpoint=unreachable())
    assert (verdict.outcome, verdict.reason) == (Outcome.ERROR, "no_verdict")


def test_the_same_citation_in_many_sentences_is_one_to_a_judge_too():
    twice = 'It stands: "and sleeps standing" [birds]. It sleeps: "and sleeps standing" [birds].'
    assert judged(twice, least=2, min_words=3, endpoint=unreachable()).reason == "too_few"
