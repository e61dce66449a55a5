"""Which completion goes where: ranks, micro-batches, rows. Pure integers: knows no tensors.

lengths --first fit, longest first--> rows of <= width tokens --dealt evenly--> ranks x micro-batches
"""

from collections.abc import Sequence
from dataclasses import dataclass

Row = list[int]  # the completions that share one row, by their index in the batch


@dataclass(frozen=True)
class Layout:
    """`micro_batches[rank][i]` is a list of rows. Every rank has the same number, or its collectives would hang."""

    micro_batches: list[list[list[Row]]]
    padding_waste: float  # share of the tokens computed that belong to no completion


def layout(lengths: Sequence[int], ranks: int, row_tokens: int, micro_batch_tokens: int) -> Layout:
    """Pack completions into rows, and rows into micro-batches of at most `micro_batch_tokens` tokens.

    A row is `row_tokens` wide, or as wide as the longest completion; one that alone exceeds the budget still gets a
    micro-batch of its own. Neither choice can change the gradient: weights are per token over the whole step.
    """
    if not lengths:
        return Layout([[] for _ in range(ranks)], 0.0)
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    rows: list[Row] = []
    room: list[int] = []
    width = max(min(row_tokens, micro_batch_tokens), lengths[order[0]])
    for i in order:
        fits = next((r for r, free in enumerate(room) if free >= lengths[i]), None)
        if fits is None:
            rows.append([])
            room.append(width)
            fits = len(rows) - 1
        rows[fits].append(i)
        room[fits] -= lengths[i]
    used = [width - free for free in room]
    return _deal(rows, used, ranks, micro_batch_tokens)


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
        if micros and used[micros[-1][0]] * (len(micros[-1]) + 1) <= budget:
            micros[-1].append(r)
        else:
            micros.append([r])
    return micros
