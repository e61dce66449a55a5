"""Completions of several turns: a tool is asked between them, and nothing that it says is the policy's."""

from concurrent.futures import Future
from dataclasses import replace
from itertools import compress
from random import Random
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.config import RecipeError, RolloutConfig
from rlvr.rollout import episodes
from rlvr.rollout.engine import Request
from rlvr.rollout.episodes import TURN, Episodes, Tool, Words, joined, shortened
from rlvr.rollout_config import ToolConfig, unsampled
from rlvr.types import Completion, Outcome, Prompt, Sampling, Verdict, sampling_seed
from rlvr.verify.plugin import Sample, sample_of
from tests.rollout.fakes import FakeEngine

MAX_TOKENS = 30
SAMPLING = Sampling(completions=2, temperature=1.0, max_tokens=MAX_TOKENS, seed=3)
END, LETTER = 2, 100
CFG = ToolConfig("test", before="<", after=">")


class Letters:
    """A tokenizer of one token a character; `|end|` is a special token, unless it is told to read it as text."""

    def __call__(self, text, add_special_tokens, split_special_tokens):
        assert not add_special_tokens
        pieces = [text] if split_special_tokens else text.split("|end|")
        ids = [LETTER + ord(character) for character in pieces[0]]
        for piece in pieces[1:]:
            ids += [END, *(LETTER + ord(character) for character in piece)]
        return SimpleNamespace(input_ids=ids)

    def get_added_vocab(self):
        return {"|end|": END, "|more|": 5}

    def decode(self, ids, skip_special_tokens):
        assert skip_special_tokens
        return "".join(chr(t - LETTER) for t in ids if t >= LETTER)


WORDS = Words(Letters(), CFG)


@pytest.fixture(autouse=True, scope="module")
def short_waits():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(episodes, "WAIT_S", 1e-4)
        yield


def mixed(*numbers: int) -> int:
    return sampling_seed(*numbers) % 1000


class Talking(FakeEngine):
    """A turn is a function of its request alone: some letters and an end, or as many as there is room for."""

    def __init__(self, max_num_seqs: int = 4):
        super().__init__(lambda request: min(2 + self.draw(request) % 5, request.sampling.max_tokens))
        self.max_num_seqs = max_num_seqs
        self.closed = False

    def draw(self, request: Request) -> int:
        return mixed(request.sampling.seed, request.prompt.position * 8 + request.index, len(request.prompt.token_ids))

    def completion(self, request, versions):
        draw = self.draw(request)
        letters = [LETTER + 97 + mixed(draw, n, 0) % 26 for n in range(len(versions))]
        full = len(versions) == request.sampling.max_tokens and draw % 2
        ids = tuple(letters) if full else (*letters[:-1], END)
        updates = tuple((n, v) for n, v in enumerate(versions) if n and v != versions[n - 1])
        text = WORDS.tokenizer.decode(ids, skip_special_tokens=True)
        logprobs, reason = tuple(-t / 1000 for t in ids), "length" if full else "eos"
        return Completion(ids, (True,) * len(ids), logprobs, versions[0], text, reason, updates=updates)


def answer_to(sample) -> Verdict:
    """Text for most turns, none for some; a few use up their time, a few break."""
    draw = mixed(len(sample.transcript), sum(map(ord, sample.transcript)), 1)
    if draw % 3 == 0:
        return Verdict(None, Outcome.ABSTAIN)
    if draw % 7 == 1:
        return Verdict(0.0, Outcome.REJECTED, reason="timeout")
    if draw % 11 == 2:
        return Verdict(None, Outcome.ERROR)
    return Verdict(0.0, Outcome.OK, answer="X" * (draw % 4) + "|end|")


class Answers:
    """A tool that answers when it is told to."""

    def __init__(self, answer=answer_to):
        self.answer = answer
        self.open: list[tuple] = []
        self.asked: list = []
        self.closed = False

    def ask(self, sample):
        future: Future = Future()
        self.open.append((sample, future))
        self.asked.append(sample)
        return future

    def some(self, count: int) -> None:
        for _ in range(min(count, len(self.open))):
            sample, future = self.open.pop(len(self.open) // 2)
            if not future.cancelled():
                future.set_result([self.answer(sample)])

    def close(self):
        self.closed = True


def requests(count: int) -> list[Request]:
    prompts = [Prompt(str(n), n, (), (7,) * (1 + n % 3), "the reference") for n in range(count)]
    return [Request((prompt.position, i), prompt, i, SAMPLING) for prompt in prompts for i in range(2)]


def run(tool: Answers, asked: Request, max_calls: int = 2):
    """One turn after the other, with nobody else about: the completion, and what its engine was asked."""
    engine = Talking()
    given_to, add = [], engine.add
    engine.add = lambda more: (given_to.extend(more), add(more))  # type: ignore[method-assign]
    tested = Episodes(engine, tool, WORDS, max_calls)
    tested.add([asked])
    for _ in range(200):
        if done := tested.step():
            assert not tested.running and done[0][0] == asked.key
            return done[0][1], given_to
        tool.some(1)
    raise AssertionError("it never ended")


def whole(completion: Completion) -> None:
    """What holds of any completion of several turns."""
    ids, mask = completion.token_ids, completion.loss_mask
    own = [token for token, sampled in zip(ids, mask, strict=True) if sampled]
    assert len(ids) <= MAX_TOKENS and mask[0]
    wanted = [-t / 1000 if sampled else 0.0 for t, sampled in zip(ids, mask, strict=True)]
    assert completion.rollout_logprobs == pytest.approx(wanted, rel=1e-6)
    assert completion.text == WORDS.tokenizer.decode(ids, skip_special_tokens=True)
    assert completion.written.replace("\n", "") == WORDS.tokenizer.decode(own, skip_special_tokens=True)
    assert len(completion.observed) == completion.written.count("\n")
    turns = sample_of(ONE.prompt, completion).turns
    assert len(turns) == (len(completion.observed) + 1 if completion.observed else 0)
    assert all(turn.text == WORDS.tokenizer.decode(turn.token_ids, skip_special_tokens=True) for turn in turns)
    if turns:
        assert [token for turn in turns for token in turn.token_ids] == own
        assert "\n".join(turn.text for turn in turns) == completion.written
    tokens, versions = zip(*[(0, completion.policy_version), *completion.updates], strict=True)
    assert list(tokens) == sorted(set(tokens)) and list(versions) == sorted(set(versions))
    assert all(mask[token] for token in tokens)  # it is the policy's tokens that newer weights sampled


@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 3), st.integers(1, 4))
def test_whatever_the_timing_each_completion_comes_once_and_is_what_it_is_alone(seed, places, max_calls, prompts):
    engine, tool, chance = Talking(max_num_seqs=places), Answers(), Random(seed)
    tested, version, got = Episodes(engine, tool, WORDS, max_calls), 0, {}
    asked = requests(prompts)
    waiting = list(asked)
    tested.load_weights([], 0)
    while waiting or tested.running:
        act = chance.choice(["add", "step", "step", "answer", "load", "abort"])
        if act == "add":
            tested.add([waiting.pop(0) for _ in range(min(2, len(waiting)))])
        elif act == "step" and (engine.running or not tool.open):
            for key, completion in tested.step():
                assert key not in got
                got[key] = completion
        elif act == "answer":
            tool.some(chance.randint(1, 3))
        elif act == "load":
            version += 1
            tested.load_weights([], version)
        elif act == "abort" and not chance.randrange(10):
            tested.abort()
            assert not tested.running and not engine.running
            waiting = [request for request in asked if request.key not in got]
    assert got.keys() == {request.key for request in asked}
    for request in asked:
        whole(one := got[request.key])
        alone, _ = run(Answers(), request, max_calls)
        assert replace(one, policy_version=-1, updates=()) == replace(alone, policy_version=-1, updates=())
        assert len(one.observed) <= max_calls
    for sample in tool.asked:
        assert sample.answer is None and sample.transcript.endswith(sample.completion)


ONE = requests(1)[0]


def said(text: str) -> Answers:
    return Answers(lambda sample: Verdict(0.0, Outcome.OK, answer=text))


def test_what_a_tool_says_is_read_and_neither_trained_on_nor_verified():
    completion, (first, second) = run(said("13"), ONE, max_calls=1)
    ((start, end),), sample = completion.observed, sample_of(ONE.prompt, completion)
    assert completion.text[start:end] == "<13>" and sample.completion == completion.text.replace("<13>", "\n")
    assert sample.transcript == completion.text
    assert list(sample.token_ids) == list(compress(completion.token_ids, completion.loss_mask))
    begins = completion.loss_mask.index(False)
    read = completion.token_ids[: begins + len("<13>")]
    assert second.prompt.token_ids == (*ONE.prompt.token_ids, *read) and second.key == first.key
    assert second.sampling == replace(SAMPLING, max_tokens=MAX_TOKENS - len(read), seed=SAMPLING.seed + TURN)
    ends = [True] * (len(completion.token_ids) - begins - 4)
    assert list(completion.loss_mask) == [True] * begins + [False] * 4 + ends


def test_an_answer_without_a_token_begins_no_turn():
    words = Words(Letters(), replace(CFG, before="", after=""))
    turn = Completion((LETTER + 97, LETTER + 98), (True, True), (-0.1, -0.1), 0, "ab", "eos")
    twice = joined(words.observation(joined(words.observation(turn, ""), turn), "9"), turn)
    assert twice.observed == ((2, 2), (4, 5)) and twice.text == "abab9ab"
    ids = tuple(turn.token_ids)
    assert sample_of(ONE.prompt, twice).turns == (("abab", ids + ids), ("ab", ids))
    once = joined(words.observation(turn, ""), turn)
    assert once.observed and sample_of(ONE.prompt, once).turns == ()


def test_marks_of_a_template_in_what_a_tool_says_are_letters():
    completion, _ = run(said("|end|"), ONE, max_calls=1)
    told = [t for t, own in zip(completion.token_ids, completion.loss_mask, strict=True) if not own]
    assert told == [LETTER + ord(c) for c in "<|end|>"]
    marks = Words(Letters(), replace(CFG, before="|end|", after="")).observation(completion, "a")
    assert tuple(marks.token_ids[len(completion.token_ids) :]) == (END, LETTER + ord("a"))


def test_half_of_a_surrogate_pair_is_read_as_a_question_mark():
    completion, _ = run(said("a\ud83db"), ONE, max_calls=1)
    assert "<a?b>" in completion.text


def test_thoughts_of_a_later_turn_are_seen_to_be_thoughts():
    """The mark that opens them is the recipe's, behind the answer: what is cut off in them holds no answer."""
    words = Words(Letters(), replace(CFG, before="", after="]<think>"))
    assert words.thinks and not WORDS.thinks
    turn = Completion((LETTER + 97,), (True,), (-0.1,), 0, "a", "eos")
    more = words.observation(turn, "12")
    assert more.text == "a12]<think>" and more.written == "a\n<think>" and not any(more.loss_mask[1:])
    tool, engine = said("12"), Talking()
    tested = Episodes(engine, tool, words, 2)
    tested.add([replace(ONE, prompt=replace(ONE.prompt, thinking=False))])
    while len(tool.asked) < 2 and tested.running:
        tested.step()
        tool.some(1)
    assert [sample.thinking for sample in tool.asked] == [False, True]


def test_what_a_tool_says_is_not_the_policys_where_the_mark_of_thoughts_is_a_token_that_is_not_shown():
    class Hidden(Letters):
        def __call__(self, text, add_special_tokens, split_special_tokens):
            text = text if split_special_tokens else text.replace("<think>", "|end|")
            return super().__call__(text, add_special_tokens, split_special_tokens)

    words = Words(Hidden(), replace(CFG, before="", after="<think>"))
    turn = Completion((LETTER + 97,), (True,), (-0.1,), 0, "a", "eos")
    more = words.observation(turn, "<think>9</think>8")
    assert (more.text, more.written, more.token_ids[-1]) == ("a<think>9</think>8", "a\n", END)


def test_calls_that_nobody_waits_for_any_more_are_not_made():
    engine, tool = Talking(), Answers()
    tested = Episodes(engine, tool, WORDS, 2)
    tested.add([ONE])
    while not tool.open:
        tested.step()
    tested.abort()
    assert all(future.cancelled() for _, future in tool.open) and not tested.running
    assert tested.step() == []


def test_an_answer_without_room_for_a_turn_behind_it_ends_the_completion_as_too_long():
    completion, asked = run(said("x" * MAX_TOKENS), ONE)
    assert completion.stop_reason == "length" and not completion.observed and len(asked) == 1
    fits = MAX_TOKENS - len(completion.token_ids) - len("<>") - 1
    assert run(said("x" * fits), ONE, max_calls=1)[0].observed
    assert not run(said("x" * (fits + 1)), ONE, max_calls=1)[0].observed


def test_behind_the_last_call_there_is_one_more_turn():
    tool = said("1")
    completion, asked = run(tool, ONE, max_calls=2)
    assert (len(tool.asked), len(asked), len(completion.observed)) == (2, 3, 2)
    assert completion.stop_reason == "eos" and completion.loss_mask[-1]


@pytest.mark.parametrize(
    ("verdict", "ends_as", "told"),
    [
        (Verdict(None, Outcome.ERROR, reason="verifier_failed", detail="KeyError: 'x'"), "abort", []),
        (Verdict(None, Outcome.ERROR, reason="no_answer_in_time"), "eos", ["<error: timeout>"]),
        (Verdict(None, Outcome.ABSTAIN, reason="no_call"), "eos", []),
        (Verdict(0.0, Outcome.REJECTED, reason="timeout"), "eos", ["<error: timeout>"]),
        (Verdict(0.0, Outcome.OK, answer=""), "eos", ["<>"]),
    ],
)
def test_how_a_call_can_end(verdict, ends_as, told):
    completion, _ = run(Answers(lambda sample: verdict), ONE, max_calls=1)
    assert completion.stop_reason == ends_as
    assert completion.failure == ("the tool failed: KeyError: 'x'" if ends_as == "abort" else "")
    assert [completion.text[start:end] for start, end in completion.observed] == told


def test_what_runs_into_the_limit_asks_nobody():
    ends = set()
    for request in requests(8):
        short, tool = replace(request, sampling=replace(SAMPLING, max_tokens=1)), Answers()
        run(tool, short)
        ends.add(end := Talking().completion(short, [0]).stop_reason)
        assert bool(tool.asked) == (end == "eos")
    assert ends == {"eos", "length"}


def test_it_ends_what_it_has_started():
    engine, tool = Talking(), Answers()
    Episodes(engine, tool, WORDS, 1).close()
    assert engine.closed and tool.closed


def test_a_long_answer_loses_its_middle():
    assert shortened("abcdef", 6) == "abcdef"
    assert shortened("abcdefgh", 4) == "ab\n[... 4 characters ...]\ngh"


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"max_calls": 0}, "tool.max_calls=0: at least 1"),
        ({"processes": 0}, "tool.processes=0: at least 1"),
        ({"max_characters": 0}, "tool.max_characters=0: at least 1"),
        ({"timeout_s": 0.0}, "tool.timeout_s=0.0: seconds, above 0 and finite"),
    ],
)
def test_values_that_cannot_work_are_named(wrong, text):
    assert unsampled(RolloutConfig(tool=replace(CFG, **wrong))) == text
    assert unsampled(RolloutConfig(tool=CFG)) is None


TOOLS = """
import os
from rlvr.verify import Sample, tool, verifier

def plus(sample, by: int = 1):
    return str(int(sample.completion) + by) if sample.completion.isdecimal() else None

@tool("sleepy", timeout_s=0.2)
def sleepy(sample: Sample) -> str | None:
    while True:
        pass

@tool("later")
async def later(sample: Sample) -> str | None:
    return sample.transcript[::-1]

def dies(sample):
    os._exit(3)

def number(sample):
    return 5

@verifier("referee", check_answer=lambda answer: None)
def referee(sample):
    return True
"""


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """What a tool of the file answers to a turn."""
    path = tmp_path_factory.mktemp("tools") / "tools.py"
    path.write_text(TOOLS)

    def ask(name: str, text: str, **params) -> Verdict:
        tool = Tool(ToolConfig(f"{path}:{name}", params, processes=1))
        try:
            return tool.ask(Sample("", text, None, transcript=text)).result(timeout=60)[0]
        finally:
            tool.close()

    return ask


def test_a_tool_is_a_function_in_a_process_of_its_own(asked):
    assert asked("plus", "41").answer == "42" and asked("plus", "41", by=2).answer == "43"
    assert asked("plus", "what?").outcome == Outcome.ABSTAIN
    assert asked("later", "abc").answer == "cba"
    assert (asked("sleepy", "1").outcome, asked("sleepy", "1").reason) == (Outcome.REJECTED, "timeout")
    assert asked("dies", "1").outcome == Outcome.ERROR
    assert "returned 5: expected text" in asked("number", "1").detail


def test_what_is_no_tool_is_refused_in_words(asked):
    with pytest.raises(RecipeError, match=r"rollout\.tool: 'referee' is a verifier, and no tool"):
        asked("referee", "1")
    with pytest.raises(RecipeError, match=r"rollout\.tool: no tool 'math': name it as file\.py:function or"):
        Tool(ToolConfig("math"))


def test_a_tool_with_wrong_options_is_refused_in_words(asked):
    with pytest.raises(RecipeError, match=r"rollout\.tool\.params\.bye: verifier 'plus' has no such option"):
        asked("plus", "1", bye=3)
