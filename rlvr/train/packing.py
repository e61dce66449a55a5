"""Which completion goes where: ranks, micro-batches, rows. Pure integers: knows no tensors.

lengths --longest first--> rows of <= width tokens --dealt evenly--> ranks x micro-batches

Several ways to fill rows are tried; the best has the least to do for the rank that has the most.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

PASS_TOKENS = 256  # what a forward and backward pass costs however short it is, as a number of tokens; about
NARROW = 8  # rows that hold as many completions on average, or fewer, are tried beside the fullest,
WASTE = 0.03  # and taken if no more than this is padding: by measurement, more of it gains nothing
Row = list[int]  # the completions that share one row, by their index in the batch


@dataclass(frozen=True)
class Layout:
    """`micro_batches[rank][i]` is a list of rows. Every rank has the same number, or its collectives would hang."""

    micro_batches: list[list[list[Row]]]
    padding_waste: float  # share of the tokens computed that belong to no completion


def layout(
    lengths: Sequence[int],
    ranks: int,
    row_tokens: int,
    micro_batch_tokens: int,
    attention_tokens: float = math.inf,
) -> Layout:
    """Pack completions into rows, and rows into micro-batches of at most `micro_batch_tokens` tokens.

    A row is at most `row_tokens` wide, or as wide as the longest completion; one that alone exceeds the budget still
    gets a micro-batch of its own. Each token of a row costs attention to all of the row, other documents included, as
    much as all else at a width of `attention_tokens`: the smaller that is, the narrower rows are the best. No choice
    can change the gradient: weights are per token over the whole step.
    """
    if not lengths:
        return Layout([[] for _ in range(ranks)], 0.0)
    width = max(min(row_tokens, micro_batch_tokens), max(lengths))
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))

    def dealt(choices: Iterable[list[Row]]) -> list[Layout]:
        fitting = [rows for rows in choices if max(_tokens(row, lengths) for row in rows) <= width]
        return [_deal(rows, [_tokens(row, lengths) for row in rows], ranks, micro_batch_tokens) for rows in fitting]

    filled = _first_fit(order, lengths, width)
    fewest = len(filled)
    made = dealt([filled, *(_evenly(order, lengths, count) for count in {fewest, _rounded(fewest, ranks)})])
    if math.isfinite(attention_tokens):
        counts = {_rounded(-(-len(lengths) // held), ranks) for held in range(1, NARROW + 1)}
        narrow = dealt(_evenly(order, lengths, count) for count in sorted(counts) if count > fewest)
        bound = max(WASTE, min(one.padding_waste for one in made))
        made += [one for one in narrow if one.padding_waste <= bound]
    return min(made, key=lambda one: (_slowest(one, lengths, attention_tokens), one.padding_waste))


def _rounded(count: int, ranks: int) -> int:
    """Up to a multiple of the ranks."""
    return -(-count // ranks) * ranks


def _slowest(made: Layout, lengths: Sequence[int], attention_tokens: float) -> float:
    """What the rank with the most to do has to do, in tokens: the others wait for it."""
    widths = [[[_tokens(row, lengths) for row in micro] for micro in rank if micro] for rank in made.micro_batches]

    def cost(micro: list[int]) -> float:
        return PASS_TOKENS + len(micro) * max(micro) * (1 + max(micro) / attention_tokens)

    return max(sum(map(cost, rank)) for rank in widths)


def _tokens(row: Row, lengths: Sequence[int]) -> int:
    return sum(lengths[i] for i in row)


def _first_fit(order: Row, lengths: Sequence[int], width: int) -> list[Row]:
    """As few rows as first fit, longest first, can do with. The last one is as empty as chance has it."""
    rows: list[Row] = []
    room: list[int] = []
    for i in order:
        fits = next((r for r, free in enumerate(room) if free >= lengths[i]), None)
        if fits is None:
            rows.append([])
            room.append(width)
            fits = len(rows) - 1
        rows[fits].append(i)
        room[fits] -= lengths[i]
    return rows


def _evenly(order: Row, lengths: Sequence[int], count: int) -> list[Row]:
    """`count` rows that are about as full as one another: the longest first, each to the emptiest row."""
    rows: list[Row] = [[] for _ in range(min(count, len(order)))]
    emptiest = [(0, r) for r in range(len(rows))]
    for i in order:
        used, r = heappop(emptiest)
        rows[r].append(i)
        heappush(emptiest, (used + lengths[i], r))
    return rows


def _deal(rows: list[Row], used: list[int], ranks: int, budget: int) -> Layout:
    """Rows of like width share a micro-batch (its width is its widest row's); the fullest go round the ranks first."""
    by_width = sorted(range(len(rows)), key=lambda r: (-used[r], r))
    per_rank = [by_width[rank::ranks] for rank in range(ranks)]
    cut = [_cut(mine, used, budget) for mine in per_rank]
    count = max(map(len, cut))
    computed = sum(max(used[r] for r in micro) * len(micro) for rank in cut for micro in rank)
    micro_batches = [[[rows[r] for r in micro] for micro in rank] + [[]] * (count - len(rank)) for rank in cut]
    return Layout(micro_batches, 1.0 - sum(used) / computed)


def _cut(rows: list[int], used: list[int], budget: int) -> list[list[int]]:
    micros: list[list[int]] = []
    for r in rows:  # widest first, so the first row of a micro-batch sets its width
        width = used[micros[-1][0]] if micros else 0
        if micros and width * (len(micros[-1]) + 1) <= budget and width - used[r] <= PASS_TOKENS:
            micros[-1].append(r)
        else:
            micros.append([r])
    return micros
