"""Which completion goes where: ranks, micro-batches, rows. Pure integers: knows no tensors.

completions --behind one prompt--> documents --longest first--> rows --dealt evenly--> ranks x micro-batches

Several ways to make documents and to fill rows are tried; the best has the least to do for the rank with the most.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapreplace
from operator import itemgetter
from typing import NamedTuple

PASS_TOKENS = 256  # what a forward and backward pass costs however short it is, as a number of tokens; about
NARROW = 8  # rows that hold as many documents on average, or fewer, are tried beside the fullest
WASTE = 0.05  # more padding than this is taken only if there is no choice with less,
WORTH = 0.8  # or if sharing prompts then costs less than this share of the best with less
Document = list[int]  # completions by their index in the batch, behind one prompt; one, if prompts are not shared
Row = list[Document]
Filled = list[tuple[int, list[int]]]  # rows in the making: how many tokens, and which documents


@dataclass(frozen=True)
class Layout:
    """`micro_batches[rank][i]` is a list of rows. Every rank has the same number, or its collectives would hang."""

    micro_batches: list[list[list[Row]]]
    padding_waste: float  # share of the tokens computed that belong to no completion
    shared: float = 0.0  # share of all completions' tokens that need not be computed: their prompt is, for another one


@dataclass(frozen=True)
class Shape:
    """What rows and micro-batches may be, and what they cost: the arguments of `layout`."""

    ranks: int
    row_tokens: int
    micro_batch_tokens: int
    attention_tokens: float


class Dealt(NamedTuple):
    """Documents in their places. The least of several is the best."""

    cost: float  # what the rank with the most to do has to do, in tokens: the others wait for it
    padding_waste: float
    micro_batches: list[list[list[list[int]]]]  # of documents


def layout(
    lengths: Sequence[int],
    ranks: int,
    row_tokens: int,
    micro_batch_tokens: int,
    attention_tokens: float = math.inf,
    prompts: Sequence[tuple[int, ...]] = (),
) -> Layout:
    """Pack completions into rows, and rows into micro-batches of at most `micro_batch_tokens` tokens.

    A row is at most `row_tokens` wide, or as wide as the longest document; one that alone exceeds the budget still
    gets a micro-batch of its own. Each token of a row costs attention to all of the row, other documents included, as
    much as all else at a width of `attention_tokens`: the smaller that is, the narrower rows are the best. A document
    is a completion behind its prompt, or, where `prompts` (the tokens that each of `lengths` begins with) are given,
    several behind the one prompt they have in common, if that costs less. No choice can change the gradient: weights
    are per token over the whole step.
    """
    if not lengths:
        return Layout([[] for _ in range(ranks)], 0.0)
    shape = Shape(ranks, row_tokens, micro_batch_tokens, attention_tokens)
    choices: list[tuple[Dealt, list[Document], float]] = []
    for documents in ([[i] for i in range(len(lengths))], *_bundles(lengths, prompts, micro_batch_tokens)):
        tokens = [sum(lengths[i] for i in one) - sum(len(prompts[i]) for i in one[1:]) for one in documents]
        shared = 1 - sum(tokens) / sum(lengths)
        choices += [(dealt, documents, shared) for dealt in _arrangements(tokens, shape)]
    bound = max(WASTE, min(dealt.padding_waste for dealt, *_ in choices))
    frugal = min((choice for choice in choices if choice[0].padding_waste <= bound), key=itemgetter(0))
    sharing = min((choice for choice in choices if choice[2] > frugal[2]), key=itemgetter(0), default=frugal)
    best, documents, shared = sharing if sharing[0].cost < WORTH * frugal[0].cost else frugal
    micro_batches = [[[[documents[d] for d in row] for row in micro] for micro in rank] for rank in best.micro_batches]
    return Layout(micro_batches, best.padding_waste, shared)


def _bundles(lengths: Sequence[int], prompts: Sequence[tuple[int, ...]], most_tokens: int) -> Iterator[list[Document]]:
    """Ways to put completions of one prompt together: 2, 4, 8, ... and in the end all of them, as far as the budget
    allows, with about as many tokens in one bundle of a prompt as in another."""
    families: dict[tuple[int, ...], list[int]] = {}
    for i in sorted(range(len(prompts)), key=lambda i: (-lengths[i], i)):
        families.setdefault(prompts[i], []).append(i)
    largest = max(map(len, families.values()), default=1)
    for power in range(1, (largest - 1).bit_length() + 1):
        bundles: list[Document] = []
        for prompt, family in families.items():
            own = {i: lengths[i] - len(prompt) for i in family}
            for count in range(-(-len(family) // 2**power), len(family) + 1):
                parts = _evenly(family, own, count)
                if len(prompt) + max(tokens for tokens, _ in parts) <= most_tokens:
                    break
            bundles += [part for _, part in parts]
        yield bundles


def _arrangements(tokens: Sequence[int], shape: Shape) -> list[Dealt]:
    """Documents of so many tokens, in as few rows as can be and, where attention costs something, in more."""
    width = max(min(shape.row_tokens, shape.micro_batch_tokens), max(tokens))
    order = sorted(range(len(tokens)), key=lambda d: (-tokens[d], d))
    filled = _first_fit(order, tokens, width)
    counts = {len(filled), _rounded(len(filled), shape.ranks)}
    if math.isfinite(shape.attention_tokens):
        narrow = {_rounded(-(-len(tokens) // held), shape.ranks) for held in range(1, NARROW + 1)}
        counts |= {count for count in narrow if count > len(filled)}
    choices = [filled, *(_evenly(order, tokens, count) for count in sorted(counts))]
    return [_deal(rows, shape) for rows in choices if max(rows)[0] <= width]


def _rounded(count: int, ranks: int) -> int:
    """Up to a multiple of the ranks."""
    return -(-count // ranks) * ranks


def _first_fit(order: Sequence[int], tokens: Sequence[int], width: int) -> Filled:
    """As few rows as first fit, longest first, can do with. The last one is as empty as chance has it."""
    leaves = 1 << max(len(order) - 1, 0).bit_length()
    rows: list[list[int]] = [[] for _ in range(leaves)]
    room = [width] * (2 * leaves)  # a tree: [1] is the most that any row has, [n] of those under [2n] and [2n + 1]
    for d in order:
        at, need = 1, tokens[d]
        while at < leaves:  # to the first row with so much room
            at = 2 * at + (room[2 * at] < need)
        rows[at - leaves].append(d)
        room[at] -= need
        while at > 1:
            at //= 2
            room[at] = max(room[2 * at], room[2 * at + 1])
    return [(width - free, row) for free, row in zip(room[leaves:], rows, strict=True) if row]


def _evenly(order: Sequence[int], tokens: Sequence[int] | Mapping[int, int], count: int) -> Filled:
    """At most `count` rows, none of them empty, that are about as full as one another: the longest first, each to the
    emptiest row. What has no tokens fills none: then there are fewer."""
    rows: list[list[int]] = [[] for _ in range(min(count, len(order)))]
    emptiest = [(0, r) for r in range(len(rows))]
    for d in order:
        used, r = emptiest[0]
        rows[r].append(d)
        heapreplace(emptiest, (used + tokens[d], r))
    return [(used, rows[r]) for used, r in sorted(emptiest, key=itemgetter(1)) if rows[r]]


def _deal(rows: Filled, shape: Shape) -> Dealt:
    """Rows of like width share a micro-batch (its width is its widest row's); the fullest go round the ranks first."""
    by_width = sorted(rows, key=lambda row: -row[0])
    cut = [_cut(by_width[rank :: shape.ranks], shape.micro_batch_tokens) for rank in range(shape.ranks)]
    computed, costs = 0, []
    for rank in cut:
        sizes = [(len(micro), micro[0][0]) for micro in rank]
        computed += sum(count * width for count, width in sizes)
        costs.append(sum(PASS_TOKENS + n * width * (1 + width / shape.attention_tokens) for n, width in sizes))
    passes = max(map(len, cut))
    places = [[[row for _, row in micro] for micro in rank] + [[]] * (passes - len(rank)) for rank in cut]
    return Dealt(max(costs), 1.0 - sum(used for used, _ in rows) / computed, places)


def _cut(rows: Filled, budget: int) -> list[Filled]:
    micros: list[Filled] = []
    for row in rows:  # widest first, so the first row of a micro-batch sets its width
        width = micros[-1][0][0] if micros else 0
        if micros and width * (len(micros[-1]) + 1) <= budget and width - row[0] <= PASS_TOKENS:
            micros[-1].append(row)
        else:
            micros.append([row])
    return micros
