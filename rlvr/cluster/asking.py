"""Questions that are with the verifier actors, and back-pressure when there are too many. Runs in the pump's loop."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from time import monotonic

from rlvr.cluster.calls import LOST, why
from rlvr.cluster.seats import Say, Seat, Seats
from rlvr.types import Outcome, Provenance, Verdict
from rlvr.verify.assembly import Question, dealt

MOST = 64  # samples asked about in one message, if they can be: all of them wait for the last one's verdict
TRIES = 3  # a question that is there when so many actors die is answered by an ERROR, which is masked


class Asking:
    def __init__(self, verifiers: Seats, max_waiting: int, say: Say, spawn: Callable):
        self.verifiers, self.max_waiting, self.say, self.spawn = verifiers, max_waiting, say, spawn
        self.numbers = count()
        self.changed = asyncio.Condition()  # there is room again, or a verifier is up
        self.waiting = 0  # samples; counted as they come and go: of thousands of shares a sum would be the loop's work
        self._owes: Counter[str] = Counter()  # ... and of each verifier, by its name

    async def room(self) -> None:
        """Until no more are waiting than should."""
        async with self.changed:
            await self.changed.wait_for(lambda: not self.full)

    @property
    def full(self) -> bool:
        return self.waiting > self.max_waiting

    def shares(self, questions: Sequence[Question]) -> list[list[Question]]:
        samples = sum(len(question.samples) for question in questions)
        return dealt(questions, max(len(self.verifiers.all), -(-samples // MOST)))

    async def answers(self, questions: list[Question]) -> list[list[Verdict]]:
        """Of the verifier with the least to do; where it dies, of another. Where one was dead others may be, with the
        same node, and they come first, as they have nothing to do: from then on only who says that it is alive is
        asked."""
        size, number = sum(len(question.samples) for question in questions), next(self.numbers)
        tries = 0
        while tries < TRIES:
            seat = await self._free()
            lives, asked = seat.lives, not tries
            self._owe(seat, number, size)
            try:
                if not asked:
                    await seat.actor.ready.remote()
                    asked = True
                return await seat.actor.answer.remote(questions)
            except LOST as error:
                tries += asked
                reason = why(error)
                self._lost(seat, lives, reason)
            finally:
                await self._settle(seat, number)
        return [[lost(question, reason)] * len(question.samples) for question in questions]

    async def _free(self) -> Seat:
        def up() -> list[Seat]:
            return [seat for seat in self.verifiers.all if seat.up]

        async with self.changed:
            await self.changed.wait_for(up)
        return min(up(), key=lambda seat: self._owes[seat.name])

    def _owe(self, seat: Seat, number: int, size: int) -> None:
        seat.owed[number], seat.heard = size, monotonic()
        self._owes[seat.name] += size
        self.waiting += size

    async def _settle(self, seat: Seat, number: int) -> None:
        """Whoever waits for room is woken when there is some again, not by each answer."""
        size, seat.heard = seat.owed.pop(number), monotonic()
        self._owes[seat.name] -= size
        self.waiting -= size
        if self.waiting <= self.max_waiting < self.waiting + size:
            async with self.changed:
                self.changed.notify_all()

    def _lost(self, seat: Seat, lives: int, reason: str) -> None:
        if seat.fell(lives):
            self.spawn(self._replace(seat, reason))

    async def _replace(self, seat: Seat, reason: str) -> None:
        await self.verifiers.replace(seat, self.say, reason)
        async with self.changed:
            self.changed.notify_all()


def lost(question: Question, reason: str) -> Verdict:
    verifier = question.assignment.verifier
    where = Provenance(verifier.name, verifier.version, attempts=TRIES, part=question.assignment.part)
    return Verdict(None, Outcome.ERROR, reason="verifier_lost", detail=reason, provenance=(where,))
