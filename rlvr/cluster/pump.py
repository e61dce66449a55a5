"""Between engines and verifiers: an event loop in a thread of its own, that goes on while the trainer trains.

    order --requests--> waiting --> engine with the least to do --completions--> Assembly --questions--> Asking
                          ^  a dead engine's go back                                |
                                                    events <--whole groups----------+

Two threads: `order`, `flush` and whatever `events` holds are the caller's, everything else is the loop's.
"""

import asyncio
import math
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from queue import Empty, SimpleQueue
from time import monotonic, perf_counter
from typing import Any

from rlvr.cluster.asking import Asking
from rlvr.cluster.calls import LOST, own, ray, why
from rlvr.cluster.seats import Say, Seat, Seats
from rlvr.rollout.engine import Done, Request, requests_of
from rlvr.types import Ended, Group, Prompt, Sampling
from rlvr.verify.assembly import Assembly, Question, merged

AHEAD = 4  # messages that an engine may be ahead of the loop
SILENCE_S = 600.0  # that is told of, and no more: the first of many long completions may take as long


@dataclass
class Order:
    """Prompts whose groups someone waits for."""

    number: int
    assembly: Assembly
    left: int  # groups that have not been handed over
    forming: int = field(init=False)  # ... and those that are not whole: the loop's count
    sampled: float = math.inf  # when its last completion ended, by `perf_counter`
    arrived: deque[Group] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.forming = self.left


class Pump:
    def __init__(self, engines: Seats, verifiers: Seats, max_waiting: int, max_sequences: int, tell: Say):
        """`tell`: what happened, in words, in the caller's thread."""
        self.engines, self.max_sequences = engines, max_sequences
        self.events = SimpleQueue[Callable[[], None]]()  # what the caller's thread is to do
        self.welcome: Callable[[Seat], None] = lambda seat: None  # of an engine that is new, by the caller
        self._numbers = count()
        self._orders: dict[int, Order] = {}  # of which some group is not whole
        self._waiting = deque[list[Request]]()  # of one prompt each
        self._listening: set[tuple[str, int]] = set()  # to which life of which seat
        self._tasks: set[asyncio.Task] = set()
        self._unasked: dict[int, tuple[Order, list[Question]]] = {}  # of this round, by the order's number
        self._loop = asyncio.new_event_loop()

        def say(text: str) -> None:
            self.events.put(partial(tell, text))

        self._say = say
        self._asking = Asking(verifiers, max_waiting, say, self._spawn)
        self._told: set[tuple[str, int]] = set()  # of whose silence
        self._thread = threading.Thread(target=self._loop.run_forever, name="pump", daemon=True)
        self._thread.start()

    # ---- from the caller's thread -------------------------------------------------------------------------------

    def order(self, assembly: Assembly, prompts: Sequence[Prompt], sampling: Sampling) -> Order:
        """Begin to sample these prompts, and to verify what ends."""
        order = Order(next(self._numbers), assembly, len(prompts))
        self._soon(self._take, order, requests_of(prompts, sampling), sampling.completions)
        return order

    def judge(self, assembly: Assembly, completions: Sequence[Ended], groups: int) -> Order:
        """Verify what has been sampled already."""
        order = Order(next(self._numbers), assembly, groups)

        def begin() -> None:
            self._remember(order)
            self._ask(order, assembly.ended(completions))

        self._soon(begin)
        return order

    def due(self) -> Callable[[], None]:
        """What the caller is to do, once there is something. Who keeps it waiting is told of, once: a worker that hangs
        looks like one that has much to do, so it is waited for all the same."""
        while True:
            try:
                return self.events.get(timeout=SILENCE_S)
            except Empty:
                self._soon(self._tell_of_silence)

    def flush(self) -> None:
        """Nothing that was ordered will come any more."""

        async def forget() -> None:
            self._orders.clear()
            self._waiting.clear()
            self._unasked.clear()
            for seat in self.engines.all:
                seat.owed = {}
                if seat.up:
                    seat.actor.abort.remote()

        asyncio.run_coroutine_threadsafe(forget(), self._loop).result()

    def died(self, seat: Seat, lives: int, reason: str) -> None:
        """The caller found an engine dead, the `lives`th in its seat."""
        self._soon(self._lost, seat, lives, reason)

    def joined(self, seat: Seat, lives: int) -> None:
        """An engine holds the weights: it may be given work."""

        def give() -> None:
            seat.ready = seat.ready or (seat.up and seat.lives == lives)
            self._hand_out()

        self._soon(give)

    def close(self) -> None:
        async def stop() -> None:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _soon(self, work: Callable[..., None], *args: Any) -> None:
        """In the loop. What goes wrong there is the end, as it is of a task."""

        def done() -> None:
            try:
                work(*args)
            except Exception as error:
                self._fail(error)

        self._loop.call_soon_threadsafe(done)

    # ---- in the loop --------------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)

        def done(task: "asyncio.Task | Future") -> None:
            self._tasks.discard(task)  # type: ignore[arg-type]
            if not task.cancelled() and (error := task.exception()):
                self._fail(error)

        task.add_done_callback(done)

    def _fail(self, error: BaseException) -> None:
        """Whoever waits is told, and whoever waits after that too: nothing that the caller mends meanwhile, as trainer
        ranks that are dead as well, mends this."""

        def fail() -> None:
            self.events.put(fail)
            raise error

        self.events.put(fail)

    def _tell_of_silence(self) -> None:
        every = [(self._asking.verifiers, "messages of verdicts")]
        if not self._asking.full:  # else it is we who do not listen to engines
            every.append((self.engines, "completions"))
        for seats, what in every:
            for seat in seats.all:
                if seat.silent(SILENCE_S) and (seat.name, seat.lives) not in self._told:
                    self._told.add((seat.name, seat.lives))
                    self._say(
                        f"{seat.name} owes {len(seat.owed)} {what}, and nothing has been heard of it for "
                        f"{SILENCE_S / 60:g} minutes: if it hangs, the run waits until that process is killed"
                    )

    def _remember(self, order: Order) -> None:
        if order.forming:
            self._orders[order.number] = order

    def _take(self, order: Order, requests: list[Request], size: int) -> None:
        self._remember(order)
        keyed = [Request((order.number, *r.key), r.prompt, r.index, r.sampling) for r in requests]
        self._waiting.extend(keyed[at : at + size] for at in range(0, len(keyed), size))
        self._hand_out()

    def _hand_out(self) -> None:
        """Whole prompts, to whoever has the least to do. What nobody has room for stays here, for whoever is done
        first."""
        given: dict[str, list[Request]] = {}
        seats = {seat.name: seat for seat in self.engines.all if seat.up and seat.ready}
        while self._waiting and seats:
            seat = min(seats.values(), key=lambda seat: len(seat.owed))
            if len(seat.owed) > self.max_sequences:
                break
            share = self._waiting.popleft()
            seat.owed |= {request.key: request for request in share}
            seat.heard = monotonic()
            given.setdefault(seat.name, []).extend(share)
        for name, requests in given.items():
            seat = seats[name]
            self._spawn(self._given(seat, seat.lives, seat.actor.add.remote(requests)))
            # whoever listens to the one before may still wait for room, and will not listen to this one
            if (name, seat.lives) not in self._listening:
                self._listening.add((name, seat.lives))
                self._spawn(self._listen(seat, seat.lives))

    async def _given(self, seat: Seat, lives: int, added: Any) -> None:
        """What an engine refuses it would owe for ever."""
        try:
            await added
        except LOST as error:
            self._lost(seat, lives, why(error))
        except ray.exceptions.RayTaskError as error:
            raise own(error) from None

    async def _listen(self, seat: Seat, lives: int) -> None:
        try:
            while seat.owed and seat.lives == lives:
                stream = seat.actor.serve.options(
                    num_returns="streaming", _generator_backpressure_num_objects=AHEAD
                ).remote()
                async for ref in stream:
                    self._ended(seat, await ref)
                    self._hand_out()
                    await self._asking.room()
        except LOST as error:
            self._lost(seat, lives, why(error))
        except ray.exceptions.RayTaskError as error:
            raise own(error) from None
        finally:
            self._listening.discard((seat.name, lives))

    def _ended(self, seat: Seat, done: Sequence[Done]) -> None:
        """What ended; but not what was flushed, or went to another engine."""
        seat.heard = monotonic()
        ended: dict[int, list[Ended]] = {}
        for key, completion in done:
            if seat.owed.pop(key, None):
                number, n, i = key
                ended.setdefault(number, []).append(Ended(n, i, completion))
        for number, completions in ended.items():
            order = self._orders[number]
            self._ask(order, order.assembly.ended(completions))
            if not order.assembly.to_end:
                order.sampled = perf_counter()

    def _ask(self, order: Order, questions: Sequence[Question]) -> None:
        """In the loop's next round, with what else has ended by then: where it is behind it sends fewer messages."""
        if not questions:
            return
        if not self._unasked:
            self._spawn(self._ask_all())
        self._unasked.setdefault(order.number, (order, []))[1].extend(questions)

    async def _ask_all(self) -> None:
        unasked, self._unasked = self._unasked, {}
        for order, questions in unasked.values():
            for share in self._asking.shares(merged(questions)):
                self._spawn(self._answered(order, share))

    async def _answered(self, order: Order, questions: list[Question]) -> None:
        answers = await self._asking.answers(questions)
        if order.number not in self._orders:
            return
        for question, verdicts in zip(questions, answers, strict=True):
            further, whole = order.assembly.answered(question, verdicts)
            self._ask(order, further)
            for group in whole:
                self.events.put(partial(order.arrived.append, group))
            order.forming -= len(whole)
        if not order.forming:
            self._orders.pop(order.number, None)

    def _lost(self, seat: Seat, lives: int, reason: str) -> None:
        """An engine died: others take over what it owes, and another one takes its place."""
        if not seat.fell(lives):
            return
        again: dict[tuple, list[Request]] = {}
        for request in seat.owed.values():
            again.setdefault(request.key[:2], []).append(request)
        seat.owed = {}
        self._waiting.extendleft(reversed(again.values()))
        self._spawn(self._replace(seat, reason))
        self._hand_out()

    async def _replace(self, seat: Seat, reason: str) -> None:
        await self.engines.replace(seat, self._say, reason)
        self.events.put(partial(self.welcome, seat))
