"""An engine that is given more to do, and other weights, while it decodes. Knows threads; no Ray, no prompt stream.

    add(requests) --> waiting --as there is room--> engine.step, step, ... --> serve() yields what ended
    begin_update, load, end_update              between two steps, or once what runs has ended

One thread iterates `serve`; another one calls everything else.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Condition
from time import monotonic

import torch

from rlvr.rollout.engine import Done, Engine, Request, check_room

IDLE_S = 1.0  # that `serve` waits for something to do before it ends
# with a message a decoding step the driver's time would go into messages: one holds what ends within a while
WHILE_S = 0.05
MOST = 16  # completions; then it goes at once, so that a reader who cannot keep up is known soon


class Server:
    def __init__(self, engine: Engine):
        self.engine = engine
        self._waiting = deque[Request]()
        self._untold: list[Done] = []
        self._turn = Condition()  # whose turn it is with the engine
        self._guests = 0  # that want it between two steps
        self._draining = False  # nothing more is begun ...
        self._updating = False  # ... and nothing decoded
        self._failed: Exception | None = None  # what ended `serve`

    def serve(self) -> Iterator[list[Done]]:
        """Completions soon after they end, until nothing is left to do."""
        try:
            yield from self._serve()
        except Exception as error:
            with self._turn:
                self._failed = error
                self._turn.notify_all()
            raise

    def _serve(self) -> Iterator[list[Done]]:
        told = monotonic()
        while True:
            with self._turn:
                self._turn.wait_for(lambda: not (self._guests or self._updating))
                self._admit()
                if not self.engine.running:
                    self._turn.notify_all()  # of those who waited for that
                    if not self._turn.wait_for(self._may_go_on, timeout=IDLE_S) and not self._waiting:
                        return
                    continue
                self._untold += self.engine.step()
                last_ones = self.engine.running + len(self._waiting) < MOST  # someone may be waiting for no other
                late = last_ones or monotonic() - told >= WHILE_S or len(self._untold) >= MOST
                if self.engine.running and not late and not self._guests:
                    continue
                done, self._untold = self._untold, []
            if done:
                yield done
                told = monotonic()

    def add(self, requests: Sequence[Request]) -> None:
        for request in requests:
            check_room([request.prompt], request.sampling, self.engine.max_model_len)
        with self._between_steps():
            self._waiting.extend(requests)

    def abort(self) -> None:
        """Forget every request."""
        with self._between_steps():
            self._waiting.clear()
            self._untold = []
            self.engine.abort()

    def begin_update(self, in_flight: bool) -> None:
        """No step from now on until `end_update`. What is being decoded stays where it is, or is decoded first. Where
        `serve` has failed nobody decodes any more: its error is raised."""
        self._draining = True
        self.engine.wake()
        with self._between_steps():
            if not in_flight:
                self._guests -= 1  # the others may go on meanwhile
                self._turn.notify_all()
                self._turn.wait_for(lambda: self._failed is not None or not self.engine.running)
                self._guests += 1
            if self._failed is not None:
                raise self._failed
            self._updating = True

    def load(self, bucket: Mapping[str, torch.Tensor], policy_version: int) -> None:
        self.engine.load_weights([bucket], policy_version)

    def end_update(self) -> None:
        """All of them are loaded: decode, and begin what waits."""
        with self._turn:
            self._draining = self._updating = False
            self._turn.notify_all()

    def score(self, token_ids: list[int]) -> list[float]:
        with self._between_steps():
            return self.engine.score(token_ids)

    @contextmanager
    def _between_steps(self) -> Iterator[None]:
        """A lock alone is not fair: whoever steps in a loop would take it again before anybody else."""
        self._guests += 1
        with self._turn:
            try:
                yield
            finally:
                self._guests -= 1
                self._turn.notify_all()

    def _admit(self) -> None:
        if self._draining:
            return
        room = self.engine.max_num_seqs - self.engine.running
        self.engine.add([self._waiting.popleft() for _ in range(min(room, len(self._waiting)))])

    def _may_go_on(self) -> bool:
        return bool(self._waiting) and not (self._draining or self._guests or self._updating)
