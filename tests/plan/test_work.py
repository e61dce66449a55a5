"""What a rank computes, by hand and against the trainer that does it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from rlvr.plan.model import read
from rlvr.plan.time import train
from rlvr.plan.work import Work, work, work_of
from rlvr.train.packing import Layout
from rlvr.train.policy import Policy
from tests.plan.test_plan import TINY, setting


def test_behind_a_mask_a_token_attends_to_the_whole_row():
    # [a: 5 + 3 | c: 7] and [b: 9], in rows as wide as the widest, 15; then [d: 4] alone. Prompts have 2 tokens, and
    # a is two completions behind one of them
    lengths, rows = [5, 5, 9, 7, 4], [[[[0, 1], [3]], [[2]]], [[[4]]]]
    masked, flash = (work_of(Layout([rows], 0.0), lengths, 2, hidden) for hidden in (True, False))
    assert masked == Work(30 + 4, 2 * 15**2 + 4**2, 2)
    assert flash == Work(8 + 7 + 9 + 4, (8**2 + 7**2 + 9**2 + 4**2) / 2, 2)


def test_rows_are_as_wide_as_the_trainer_makes_them():
    with torch.device("meta"):
        lm = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(TINY), attn_implementation="sdpa")
    # the last norm is counted there, and not here
    assert Policy(lm).attention_tokens == pytest.approx(read(str(TINY)).attention_tokens, rel=1e-3)


def test_a_prompt_that_is_shared_is_trained_on_once():
    def of(attention, choice):
        return setting(tokens=100, model__attention=attention, trainer__share_prompts=choice)

    own, shared = of("sdpa", False), of("sdpa", True)
    assert work(of("sdpa", None)) == work(shared)
    for attention in ("eager", "auto", "varlen"):  # on a GPU `auto` is flash attention
        assert work(of(attention, None)) == work(of(attention, False))
    group = own.cfg.rollout.group_size
    saved = own.completions * own.prompt_tokens * (1 - 1 / group)
    assert work(own).tokens - work(shared).tokens == pytest.approx(saved, rel=0.1)
    assert train(shared) < train(own)


@given(
    st.sampled_from(["sdpa", "flash_attention_2"]), st.sampled_from([1, 2, 3, 8]), st.sampled_from([1, 4]),
    st.integers(1, 64), st.floats(8, 400),
)  # fmt: skip
@settings(max_examples=50, deadline=None)
def test_no_token_is_lost_or_computed_twice(attention, ranks, mini_batches, groups, tokens):
    shape = {"trainer__ranks": ranks, "trainer__mini_batches": mini_batches, "rollout__groups_per_step": groups}
    one = setting(tokens=tokens, model__attention=attention, trainer__share_prompts=False, **shape)
    once = work(one)
    whole = max(round(one.completions / ranks / mini_batches), 1) * mini_batches * (one.prompt_tokens + tokens)
    assert 0.99 * whole < once.tokens  # with a mask and few rows there is padding, as much as the trainer would have
    assert attention == "sdpa" or once.tokens < 1.01 * whole
    assert once.micro_batches >= once.tokens / 8192
    assert once.attended >= once.tokens * (one.prompt_tokens + 1) / 2
