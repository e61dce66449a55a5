"""Every completion is computed once, within the budget, with little padding; every rank makes as many passes."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr.train.packing import Layout, _first_fit, layout

lengths_lists = st.lists(st.integers(1, 300), min_size=1, max_size=60)
widths = st.sampled_from([math.inf, 1000.0, 100.0, 1.0])  # of a row, where attention costs as much as all else
many = settings(max_examples=100, deadline=None, derandomize=True)


def micro_batches(made: Layout) -> list[list[list[int]]]:
    """Rows without their documents."""
    return [[[i for one in row for i in one] for row in micro] for rank in made.micro_batches for micro in rank]


def used(row: list[int], lengths: list[int]) -> int:
    return sum(lengths[i] for i in row)


@many
@given(lengths=lengths_lists, ranks=st.integers(1, 4), row=st.integers(1, 400), budget=st.integers(1, 2000), att=widths)
def test_every_completion_is_in_exactly_one_row(lengths, ranks, row, budget, att):
    placed = [i for micro in micro_batches(layout(lengths, ranks, row, budget, att)) for r in micro for i in r]
    assert sorted(placed) == list(range(len(lengths)))


@many
@given(lengths=lengths_lists, ranks=st.integers(1, 4), row=st.integers(1, 400), budget=st.integers(1, 2000))
def test_every_rank_has_the_same_number_of_micro_batches(lengths, ranks, row, budget):
    made = layout(lengths, ranks, row, budget)
    assert len(made.micro_batches) == ranks
    assert len({len(rank) for rank in made.micro_batches}) == 1


@many
@given(lengths=lengths_lists, row=st.integers(1, 400), att=widths)
def test_a_row_is_no_wider_than_asked_for_or_than_the_longest_completion(lengths, row, att):
    width = max(row, max(lengths))
    assert all(used(r, lengths) <= width for micro in micro_batches(layout(lengths, 1, row, 1000, att)) for r in micro)


@many
@given(lengths=lengths_lists, ranks=st.integers(1, 3), row=st.integers(1, 400), budget=st.integers(1, 2000))
def test_a_micro_batch_exceeds_the_budget_only_as_one_row_no_wider_than_the_longest_completion(
    lengths, ranks, row, budget
):
    for micro in micro_batches(layout(lengths, ranks, row, budget)):
        computed = len(micro) * max((used(r, lengths) for r in micro), default=0)
        assert computed <= budget or (len(micro) == 1 and computed <= max(lengths))


@many
@given(lengths=lengths_lists, ranks=st.integers(1, 4), row=st.integers(1, 400), budget=st.integers(1, 2000))
def test_the_waste_is_the_share_of_computed_tokens_that_belong_to_nothing(lengths, ranks, row, budget):
    made = layout(lengths, ranks, row, budget)
    computed = sum(len(micro) * max(used(r, lengths) for r in micro) for micro in micro_batches(made) if micro)
    assert made.padding_waste == pytest.approx(1 - sum(lengths) / computed)


def test_little_is_wasted_on_completions_of_many_lengths():
    rng = random.Random(0)
    lengths = [rng.randint(20, 250) for _ in range(512)]
    assert layout(lengths, ranks=2, row_tokens=1024, micro_batch_tokens=8192).padding_waste < 0.02
    # one row a completion would waste more than a third
    assert 1 - sum(lengths) / (len(lengths) * max(lengths)) > 0.33


def test_short_completions_share_a_row_and_rows_are_about_as_full_as_one_another():
    # first fit, longest first, rows of 10: [6, 4] [5, 5] [3], so three rows; dealt to the emptiest: [6] [5, 4] [5, 3]
    made = layout([5, 3, 6, 5, 4], ranks=1, row_tokens=10, micro_batch_tokens=1000)
    assert made.micro_batches == [[[[[0], [4]], [[3], [1]], [[2]]]]]
    assert made.padding_waste == pytest.approx(1 - 23 / 27)


def test_rows_that_only_first_fit_has_room_in_stay_as_they_are():
    # first fit, rows of 10: [6, 4] [5, 3, 2]; to the emptiest of two rows: [6, 3, 2] is too long
    made = layout([6, 5, 4, 3, 2], ranks=1, row_tokens=10, micro_batch_tokens=1000)
    assert made.micro_batches == [[[[[0], [2]], [[1], [3], [4]]]]]


def test_a_row_that_would_be_mostly_padding_beside_wider_ones_is_computed_alone():
    # 500 and 450 cannot share a row with the 100
    made = layout([500, 450, 100], ranks=1, row_tokens=500, micro_batch_tokens=8000)
    assert made.micro_batches == [[[[[0]], [[1]]], [[[2]]]]]
    assert made.padding_waste == pytest.approx(50 / 1100)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("seed", range(5))
def test_less_than_5_percent_is_padding_when_most_are_short_and_a_few_are_long(seed, ranks):
    rng = random.Random(seed)
    lengths = [512 if rng.random() < 0.05 else min(512, max(16, int(rng.lognormvariate(3.5, 0.8)))) for _ in range(128)]
    for budget in (2048, 8192):
        for attention in (math.inf, 768):  # of the tiny model
            assert layout(lengths, ranks, 256, budget, attention).padding_waste < 0.05


def test_rows_are_narrow_where_attention_is_dear():
    def made(attention):
        return layout([35] * 8, ranks=1, row_tokens=256, micro_batch_tokens=8192, attention_tokens=attention)

    assert [len(row) for row in made(math.inf).micro_batches[0][0]] == [4, 4]
    assert [len(row) for row in made(20).micro_batches[0][0]] == [1] * 8
    assert made(20).padding_waste == 0


def test_a_narrow_row_is_not_worth_much_padding():
    # 40 + 30 in pairs waste nothing and cost 280 x (1 + 70 / 10); alone each 30 is beside a 40: 320 x (1 + 40 / 10)
    lengths = [40, 30] * 4
    made = layout(lengths, ranks=1, row_tokens=70, micro_batch_tokens=8192, attention_tokens=10)
    assert {used(row, lengths) for row in micro_batches(made)[0]} == {70}


def test_ranks_share_the_work_evenly():
    made = layout([10] * 8, ranks=4, row_tokens=10, micro_batch_tokens=10)
    assert [len([r for micro in rank for r in micro]) for rank in made.micro_batches] == [2, 2, 2, 2]


def test_a_rank_without_work_gets_empty_micro_batches():
    made = layout([10], ranks=3, row_tokens=10, micro_batch_tokens=10)
    assert made.micro_batches == [[[[[0]]]], [[]], [[]]]


def test_a_completion_longer_than_the_budget_has_a_micro_batch_of_its_own():
    made = layout([100, 10, 10], ranks=1, row_tokens=10, micro_batch_tokens=20)
    assert [[[0]]] in made.micro_batches[0]


def test_a_micro_batch_may_be_as_large_as_the_budget():
    made = layout([10] * 4, ranks=1, row_tokens=10, micro_batch_tokens=20)
    assert [len(micro) for micro in made.micro_batches[0]] == [2, 2]


def test_nothing_to_train_on_is_an_empty_layout_for_every_rank():
    assert layout([], ranks=2, row_tokens=10, micro_batch_tokens=10) == Layout([[], []], 0.0, 0.0)


def test_the_layout_is_a_function_of_its_arguments():
    lengths = [7, 3, 7, 7, 1, 3]
    assert layout(lengths, 2, 10, 20) == layout(list(lengths), 2, 10, 20)


families = st.lists(  # a prompt's length and those of its completions
    st.tuples(st.integers(0, 60), st.lists(st.integers(0, 120), min_size=1, max_size=9)), min_size=1, max_size=9
)


def asked(of: list[tuple[int, list[int]]]) -> tuple[list[int], list[tuple[int, ...]]]:
    """Lengths with their prompts, and the prompts: each family's is another one. Behind no prompt there is a token."""
    pairs = [(max(count + own, 1), (n,) * count) for n, (count, owns) in enumerate(of) for own in owns]
    return [length for length, _ in pairs], [prompt for _, prompt in pairs]


@many
@given(of=families, ranks=st.integers(1, 3), row=st.integers(1, 400), budget=st.integers(1, 2000), att=widths)
def test_what_shares_a_prompt_has_it_and_every_token_is_accounted_for(of, ranks, row, budget, att):
    lengths, prompts = asked(of)
    made = layout(lengths, ranks, row, budget, att, prompts)
    documents = [one for rank in made.micro_batches for micro in rank for row in micro for one in row]
    assert sorted(i for one in documents for i in one) == list(range(len(lengths)))
    assert all(len({prompts[i] for i in one}) == 1 for one in documents)

    def tokens(document):
        return sum(lengths[i] for i in document) - (len(document) - 1) * len(prompts[document[0]])

    assert made.shared == pytest.approx(1 - sum(map(tokens, documents)) / sum(lengths))
    computed = 0
    for micro in (micro for rank in made.micro_batches for micro in rank if micro):
        used = [sum(map(tokens, row)) for row in micro]
        assert min(used) > 0
        computed += len(micro) * max(used)
        assert len(micro) * max(used) <= budget or (len(micro) == 1 and used[0] <= max(lengths))
    assert made.padding_waste == pytest.approx(1 - sum(map(tokens, documents)) / computed)


@many
@given(of=families, ranks=st.integers(1, 3), row=st.integers(1, 400), budget=st.integers(1, 2000))
def test_sharing_never_computes_more_where_it_wastes_no_more(of, ranks, row, budget):
    lengths, prompts = asked(of)
    alone, together = layout(lengths, ranks, row, budget), layout(lengths, ranks, row, budget, prompts=prompts)
    if alone.padding_waste <= 0.05:

        def slowest(made, of):
            return max(
                sum(256 + len(micro) * max(sum(map(of, row)) for row in micro) for micro in rank if micro)
                for rank in made.micro_batches
            )

        def tokens(document):
            return sum(lengths[i] for i in document) - (len(document) - 1) * len(prompts[document[0]])

        assert slowest(together, tokens) <= slowest(alone, tokens)


def test_a_prompt_is_computed_once_for_all_its_completions():
    made = layout([30] * 8, 1, 256, 8192, prompts=[(1,) * 20] * 8)
    assert [sorted(one) for row in made.micro_batches[0][0] for one in row] == [list(range(8))]
    assert made.shared == 1 - (20 + 8 * 10) / (8 * 30) and made.padding_waste == 0


def test_a_document_is_wider_than_a_row_where_that_is_cheaper_and_never_than_the_budget():
    def held(prompt: int, budget: int, attention: float) -> set[int]:
        made = layout([prompt + 100] * 8, 1, 256, budget, attention, [(1,) * prompt] * 8)
        return {len(one) for micro in made.micro_batches[0] for row in micro for one in row}

    assert held(1000, 8192, math.inf) == {8}
    assert held(1000, 1300, math.inf) == {2, 3}
    assert held(10, 8192, 10.0) == {1}  # little to share, and attention is dear


def test_none_of_several_documents_of_a_prompt_is_beyond_the_budget():
    # two of 60 behind 30 would be 150, though the third would have room
    made = layout([90] * 3, 1, 256, 100, prompts=[(1,) * 30] * 3)
    assert {len(one) for micro in made.micro_batches[0] for row in micro for one in row} == {1}


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_completions_without_a_token_fill_no_row_of_their_own(ranks):
    """Behind a prompt that is shared they add nothing to it: a row of them would be of no width."""
    lengths, prompts = [12, 12, 3, 3, 1, 1, 1, 1], [(3,) * 3] * 4 + [(1,)] * 4
    made = layout(lengths, ranks, 16, 64, 100.0, prompts)
    documents = [one for rank in made.micro_batches for micro in rank for row in micro for one in row]
    assert sorted(i for one in documents for i in one) == list(range(8)) and all(documents)


def test_different_prompts_are_never_one_document():
    made = layout([30] * 4, 1, 256, 8192, prompts=[(1,) * 20, (2,) * 20, (1,) * 20, (3,) * 20])
    assert sorted(sorted(one) for row in made.micro_batches[0][0] for one in row) == [[0, 2], [1], [3]]


@pytest.mark.parametrize("seed", range(5))
def test_a_shared_prompt_costs_no_padding(seed):
    rng = random.Random(seed)
    lengths = [21 + rng.randint(12, 28) for _ in range(128)]  # the quickstart's
    made = layout(lengths, 1, 256, 8192, 768, [(i // 8,) * 21 for i in range(128)])
    assert made.padding_waste < 0.05 and made.shared > 0.35


def test_sharing_is_not_refused_for_padding_when_it_computes_half_as_much():
    rng = random.Random(0)
    lengths = [200 + min(800, max(1, int(rng.lognormvariate(4.4, 0.7)))) for _ in range(128)]
    alone, together = (layout(lengths, 1, 256, 8192, 23_553, prompts) for prompts in ((), [
        (i // 8,) * 200 for i in range(128)
    ]))  # fmt: skip
    rows = sum(lengths) / (1 - alone.padding_waste)
    assert together.shared > 0.5
    assert sum(lengths) * (1 - together.shared) / (1 - together.padding_waste) < 0.5 * rows


@many
@given(tokens=st.lists(st.integers(0, 40), min_size=1, max_size=80), spare=st.integers(0, 60), data=st.data())
def test_first_fit_takes_the_first_row_that_fits(tokens, spare, data):
    """As a look at one row after the other does, in any order of documents."""
    order, width = data.draw(st.permutations(range(len(tokens)))), max(tokens) + spare
    rows: list[tuple[int, list[int]]] = []
    for d in order:
        fits = next((r for r, (used, _) in enumerate(rows) if used + tokens[d] <= width), len(rows))
        used, row = rows[fits] if fits < len(rows) else (0, [])
        rows[fits : fits + 1] = [(used + tokens[d], [*row, d])]
    assert _first_fit(order, tokens, width) == rows
