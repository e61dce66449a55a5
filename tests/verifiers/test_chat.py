"""The client against a server that is slow, garbled, refuses, hangs up, or talks without end."""

import asyncio
import json
import time

import pytest
from rlvr_verifiers import chat
from rlvr_verifiers.chat import Endpoint, NoReply, ask

from tests.verifiers.endpoint import Said, serving, unreachable


@pytest.fixture(autouse=True)
def nothing_remembered():
    chat.forget()


def asked(options: dict, prompt: str = "hello", seed: int = 0, accept=str.upper, **more):
    return asyncio.run(ask(Endpoint.of({**options, **more}), prompt, seed, accept))


def test_the_reply_is_what_the_model_said_and_costs_what_it_costs():
    with serving(lambda prompt: f"you said {prompt}") as server:
        reply = asked(server.options, price_in=3.0, extra={"top_k": 1})
    assert (reply.text, reply.value, reply.attempts) == ("you said hello", "YOU SAID HELLO", 1)
    assert reply.cost == pytest.approx(1000 * 3.0 / 1e6)
    (request,) = server.requests
    assert (request["model"], request["temperature"], request["seed"], request["top_k"]) == ("tiny-judge", 0.0, 0, 1)


def test_what_was_asked_before_is_remembered_by_its_content():
    with serving(lambda prompt: "yes") as server:
        first, again = asked(server.options), asked(server.options)
        asked(server.options, seed=1)
        asked(server.options, prompt="other")
        asked(server.options, temperature=0.5)
    assert (first.attempts, again.attempts, again.text) == (1, 0, "yes")
    assert len(server.requests) == 4


def test_the_same_question_at_the_same_time_is_asked_once():
    async def three(options: dict):
        return await asyncio.gather(*(ask(Endpoint.of(options), "q", 0, str) for _ in range(3)))

    with serving(lambda request, number: Said(f"reply {number}", after_s=0.1)) as server:
        replies = asyncio.run(three(server.options))
    assert {reply.text for reply in replies} == {"reply 0"}
    assert len(server.requests) == 1


def test_a_cache_folder_outlives_the_process_and_a_damaged_entry_is_asked_again(tmp_path):
    with serving(lambda prompt: "yes") as server:
        asked(server.options, cache=str(tmp_path))
        chat.forget()
        assert asked(server.options, cache=str(tmp_path)).attempts == 0
        (entry,) = tmp_path.glob("*/*.json")
        entry.write_text("{")
        chat.forget()
        assert asked(server.options, cache=str(tmp_path)).attempts == 1
        assert json.loads(entry.read_text()) == {"text": "yes"}


def test_a_reply_that_is_not_accepted_is_no_reply_and_not_remembered():
    def refuse(text: str):
        raise ValueError("no verdict")

    with serving(lambda prompt: "hm") as server:
        for _ in range(2):
            with pytest.raises(NoReply, match="cannot be read: no verdict"):
                asked(server.options, accept=refuse)
    assert len(server.requests) == 2


PASSING = [
    Said(status=500, raw=b"oops"),
    Said(status=429, raw=b"slow down", headers={"Retry-After": "0"}),
    Said(hang_up=True),
    Said(raw=b"\xff\xfe not JSON"),
    Said(raw=b"[]"),
    Said(raw=b"[" * 100_000),
    Said(raw=b'{"choices": []}'),
    Said(content=None),
    Said(content=" "),
    Said(raw=b"x" * 1_100_000),
]


@pytest.mark.parametrize("trouble", PASSING, ids=lambda said: str(said.raw or said.content)[:20])
def test_trouble_that_passes_is_tried_again(trouble):
    with serving(lambda request, number: trouble if number < 2 else Said("fine")) as server:
        assert asked(server.options).attempts == 3


@pytest.mark.parametrize("trouble", PASSING, ids=lambda said: str(said.raw or said.content)[:20])
def test_trouble_that_stays_is_no_reply_after_the_attempts_allowed(trouble):
    with serving(lambda request, number: trouble) as server, pytest.raises(NoReply, match="attempts 2 used up"):
        asked(server.options, attempts=2)
    assert len(server.requests) == 2


@pytest.mark.parametrize("status", [400, 401, 404, 302])
def test_what_another_attempt_would_not_mend_is_given_up_at_once(status):
    said = Said(status=status, raw=b"no such model", headers={"Location": "http://elsewhere.example/"})
    with serving(lambda request, number: said) as server, pytest.raises(NoReply, match=f"HTTP {status}: no such model"):
        asked(server.options)
    assert len(server.requests) == 1


def test_a_slow_server_is_not_waited_for():
    started = time.monotonic()
    with (
        serving(lambda request, number: Said("late", after_s=30)) as server,
        pytest.raises(NoReply, match=r"timeout_s 0\.2"),
    ):
        asked(server.options, timeout_s=0.2, attempts=2)
    assert time.monotonic() - started < 5


def test_the_wait_between_attempts_doubles():
    times = []

    def answer(request, number):
        times.append(time.monotonic())
        return Said(status=503)

    with serving(answer) as server, pytest.raises(NoReply):
        asked(server.options, backoff_s=0.1, attempts=3)
    assert times[1] - times[0] >= 0.1 and times[2] - times[1] >= 0.2


def test_where_nobody_listens_there_is_no_reply():
    with pytest.raises(NoReply, match="attempts 2 used up"):
        asked(unreachable())


def test_the_key_comes_from_the_environment_and_its_absence_is_said(monkeypatch):
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with serving(lambda prompt: "yes") as server:
        with pytest.raises(NoReply, match="JUDGE_KEY is not set"):
            asked(server.options, key_env="JUDGE_KEY")
        monkeypatch.setenv("JUDGE_KEY", "s3cret")
        asked(server.options, key_env="JUDGE_KEY")
    assert [headers["Authorization"] for headers in server.headers] == ["Bearer s3cret"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": "http://x", "modle": "m"}, "did you mean model"),
        ({"url": "http://x"}, r"endpoint\.model is missing"),
        ({"model": "m"}, r"endpoint\.url is missing"),
        ({"url": "http://x", "model": "m", "attempts": 0}, "must be above 0"),
    ],
)
def test_an_option_that_is_wrong_is_named(options, said):
    with pytest.raises(ValueError, match=said):
        Endpoint.of(options)


def test_what_one_server_said_is_not_what_another_says():
    with serving(lambda prompt: "yes") as one, serving(lambda prompt: "no") as other:
        assert [asked(server.options).text for server in (one, other)] == ["yes", "no"]


def test_the_memory_is_bounded_and_keeps_what_was_asked_for_last(monkeypatch):
    monkeypatch.setattr(chat, "REMEMBERED", 2)
    for key in ("a", "b"):
        chat.remember(key, key, "")
    assert chat.recall("a", "") == "a"
    chat.remember("c", "c", "")
    assert [chat.recall(key, "") for key in "abc"] == ["a", None, "c"]


@pytest.mark.parametrize(("header", "backoff_s"), [("86400", 0.0), ("0", 86_400.0)])
def test_no_wait_is_longer_than_the_longest(monkeypatch, header, backoff_s):
    waits, sleep = [], asyncio.sleep

    async def noted(seconds: float) -> None:
        waits.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", noted)
    busy = Said(status=429, headers={"Retry-After": header})
    with serving(lambda request, number: busy) as server, pytest.raises(NoReply):
        asked(server.options, attempts=2, backoff_s=backoff_s)
    assert max(waits) == chat.LONGEST_WAIT_S


@pytest.mark.parametrize(
    ("header", "wait_s"), [("7.5", 7.5), ("86400", chat.LONGEST_WAIT_S), ("-1", 0.0), ("", 0.0), ("Fri, 1 May", 0.0)]
)
def test_the_wait_that_a_server_asks_for(header, wait_s):
    assert chat.seconds(header) == wait_s
