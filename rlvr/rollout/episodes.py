"""Completions of several turns: when one ends by itself a tool is asked, and its answer is read. An Engine around one.

    add --> engine: a turn --> ran into a limit, or no call --> Done: turns and answers as one Completion
              ^                  | a call
              +---- its answer --+ a process of its own; meanwhile the engine decodes the others

Token in, token out: what was sampled is never decoded and encoded again. What the tool said is not the
policy's: its `loss_mask` is False.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import Any

import torch

from rlvr.rollout.engine import Done, Engine, Key, Request
from rlvr.rollout_config import ToolConfig
from rlvr.types import Completion, Outcome, Verdict
from rlvr.verify.plan import tool_of
from rlvr.verify.plugin import Sample, sample_of
from rlvr.verify.pool import Pool

WAIT_S = 0.02  # for an answer, when there is nothing to decode
THINK = "<think>"
TURN = 1 << 40  # added to the seed for each turn: no other seed is ever theirs


class Tool:
    """Processes that answer, until `close`."""

    def __init__(self, cfg: ToolConfig):
        """PluginError where it cannot be found, or set up."""
        self.assignment = tool_of(cfg)
        self.pool = Pool([self.assignment], cfg.processes)

    def ask(self, sample: Sample) -> Future[list[Verdict]]:
        return self.pool.submit(self.assignment, [sample])

    def close(self) -> None:
        self.pool.close()


class Words:
    """What a tool said, as the policy reads it."""

    def __init__(self, tokenizer: Any, cfg: ToolConfig):
        self.tokenizer, self.limit = tokenizer, cfg.max_characters
        self.before, self.after = (self._ids(text, plain=False) for text in (cfg.before, cfg.after))
        shown = tokenizer.decode(self.after, skip_special_tokens=True).rstrip()
        self.thinks = shown.endswith(THINK)  # the turn behind an answer begins in thoughts, and shows it
        marks = sorted(tokenizer.get_added_vocab(), key=len, reverse=True)
        self.marks = re.compile(f"({'|'.join(map(re.escape, marks))})") if marks else None

    def _ids(self, text: str, plain: bool) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False, split_special_tokens=plain).input_ids)

    def _letters(self, text: str) -> tuple[int, ...]:
        """Of a text in which a chat template's marks are letters like others: no web page ends a turn."""
        pieces = self.marks.split(text) if self.marks else [text]
        # every second one is a mark, and is cut in two
        cut = [part for n, p in enumerate(pieces) for part in ((p[:1], p[1:]) if n % 2 else (p,)) if part]
        return tuple(token for part in cut for token in self._ids(part, plain=True))

    def observation(self, so_far: Completion, text: str) -> Completion:
        text = text.encode("utf-8", "replace").decode()  # half of a surrogate pair is no text to a tokenizer
        ids = (*self.before, *self._letters(shortened(text, self.limit)), *self.after)
        shown, start = self.tokenizer.decode(ids, skip_special_tokens=True), len(so_far.text)
        # that the next turn begins in thoughts is to be seen in what the policy wrote
        end = shown.rfind(THINK) if self.thinks and THINK in shown else len(shown)
        return replace(
            so_far,
            token_ids=(*so_far.token_ids, *ids),
            loss_mask=(*so_far.loss_mask, *[False] * len(ids)),
            rollout_logprobs=(*so_far.rollout_logprobs, *[0.0] * len(ids)),
            kept_ids=None if so_far.kept_ids is None else (*so_far.kept_ids, *[()] * len(ids)),
            text=so_far.text + shown,
            observed=(*so_far.observed, (start, start + end)),
        )


@dataclass(eq=False)
class Episode:
    """A completion in the making."""

    request: Request
    so_far: Completion | None = None
    answer: "Future[list[Verdict]] | None" = None  # that it waits for


class Episodes:
    """Places of the engine stay taken while a tool is asked."""

    def __init__(self, engine: Engine, tool: Tool, words: Words, max_calls: int):
        self.engine, self.tool, self.words, self.max_calls = engine, tool, words, max_calls
        self.max_model_len, self.max_num_seqs = engine.max_model_len, engine.max_num_seqs
        self._episodes: dict[Key, Episode] = {}  # that have not ended
        self._answers = SimpleQueue[tuple[Episode, Future[list[Verdict]]]]()
        self._ended: list[Done] = []

    @property
    def policy_version(self) -> int:
        return self.engine.policy_version

    def add(self, requests: Sequence[Request]) -> None:
        self._episodes |= {request.key: Episode(request) for request in requests}
        self.engine.add(requests)

    @property
    def running(self) -> int:
        return len(self._episodes)

    def step(self) -> list[Done]:
        decoding = self.engine.running
        for key, turn in self.engine.step() if decoding else ():
            self._turn_ended(self._episodes[key], turn)
        self._read_answers(0 if decoding or self._ended else WAIT_S)
        ended, self._ended = self._ended, []
        return ended

    def _turn_ended(self, episode: Episode, turn: Completion) -> None:
        prompt, first = episode.request.prompt, episode.so_far is None
        so_far = episode.so_far = joined(episode.so_far, turn)
        if turn.stop_reason not in ("eos", "stop") or len(so_far.observed) == self.max_calls:
            self._end(episode, so_far)
            return
        thinking = prompt.thinking if first else self.words.thinks
        sample = replace(sample_of(prompt, turn), transcript=so_far.text, answer=None, thinking=thinking)
        episode.answer = self.tool.ask(sample)
        episode.answer.add_done_callback(lambda answer: self._answers.put((episode, answer)))

    def _read_answers(self, wait_s: float) -> None:
        try:
            while True:
                episode, future = self._answers.get(timeout=wait_s) if wait_s else self._answers.get_nowait()
                wait_s = 0
                if self._episodes.get(episode.request.key) is episode:  # not aborted since
                    self._go_on(episode, *future.result())
        except Empty:
            return

    def _go_on(self, episode: Episode, said: Verdict) -> None:
        request, so_far = episode.request, episode.so_far
        assert so_far is not None, "it was asked at the end of a turn"
        late = said.reason == "no_answer_in_time"
        if said.outcome == Outcome.ABSTAIN:
            self._end(episode, so_far)
            return
        if said.outcome == Outcome.ERROR and not late:
            failure = f"the tool failed: {said.detail or said.reason}"
            self._end(episode, replace(so_far, stop_reason="abort", failure=failure))
            return
        # what used up its time or memory did so by the policy's doing, which is told
        text = (said.answer or "") if said.outcome == Outcome.OK else f"error: {'timeout' if late else said.reason}"
        more = self.words.observation(so_far, text)
        left = request.sampling.max_tokens - len(more.token_ids)
        if left < 1:
            self._end(episode, replace(so_far, stop_reason="length"))
            return
        episode.so_far = more
        seed = request.sampling.seed + len(more.observed) * TURN
        prompt = replace(request.prompt, token_ids=(*request.prompt.token_ids, *more.token_ids))
        sampling = replace(request.sampling, seed=seed, max_tokens=left)
        self.engine.add([replace(request, prompt=prompt, sampling=sampling)])

    def _end(self, episode: Episode, completion: Completion) -> None:
        del self._episodes[episode.request.key]
        self._ended.append((episode.request.key, completion))

    def abort(self) -> None:
        self.engine.abort()
        for episode in self._episodes.values():
            if episode.answer is not None:
                episode.answer.cancel()  # nobody waits for it
        self._episodes, self._ended = {}, []

    def load_weights(self, weights: Iterable[Mapping[str, torch.Tensor]], policy_version: int) -> None:
        self.engine.load_weights(weights, policy_version)

    def score(self, token_ids: list[int]) -> list[float]:
        return self.engine.score(token_ids)

    def sleep(self) -> None:
        self.engine.sleep()

    def wake(self) -> None:
        self.engine.wake()

    def close(self) -> None:
        self.tool.close()
        self.engine.close()


def joined(so_far: Completion | None, turn: Completion) -> Completion:
    """The completion with one more turn behind it."""
    if so_far is None:
        return turn
    at = len(so_far.token_ids)
    newest = so_far.updates[-1][1] if so_far.updates else so_far.policy_version
    newer = [(at, turn.policy_version)] if turn.policy_version != newest else []
    return replace(
        so_far,
        token_ids=(*so_far.token_ids, *turn.token_ids),
        loss_mask=(*so_far.loss_mask, *turn.loss_mask),
        rollout_logprobs=(*so_far.rollout_logprobs, *turn.rollout_logprobs),
        kept_ids=None if turn.kept_ids is None else (*(so_far.kept_ids or ()), *turn.kept_ids),
        text=so_far.text + turn.text,
        stop_reason=turn.stop_reason,
        updates=(*so_far.updates, *newer, *((at + token, version) for token, version in turn.updates)),
    )


def shortened(text: str, limit: int) -> str:
    left_out = len(text) - limit
    return text if left_out <= 0 else f"{text[: limit // 2]}\n[... {left_out} characters ...]\n{text[-limit // 2 :]}"

