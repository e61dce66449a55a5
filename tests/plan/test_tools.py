"""What a tool adds to a plan: tokens that are read and not decoded, and the time of its answers."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr.cli import main
from rlvr.plan import memory
from rlvr.plan.setting import Setting
from rlvr.plan.time import decode, prefill, times
from rlvr.plan.work import work
from rlvr.rollout_config import ToolConfig
from tests.plan.test_plan import CALCULATOR, setting


def with_tool(calls=2.0, answer_tokens=100.0, tool_s=1e-9, **overrides) -> Setting:
    return replace(setting(**overrides), calls=calls, answer_tokens=answer_tokens, tool_s=tool_s)


def test_what_a_tool_answers_is_in_the_context_and_in_the_row_and_is_not_decoded():
    """1,000 tokens of the policy and twice 100 of a tool are in context as 1,200 of the policy are."""
    places = {"rollout__max_sequences": 1000}  # more than there is cache for
    apart, whole = with_tool(**places), setting(tokens=1200, **places)
    assert memory.slots(apart) == memory.slots(whole) < memory.slots(setting(**places))
    assert apart.lengths() == whole.lengths() and work(apart) == work(whole)
    assert times(apart).train == times(whole).train
    assert decode(apart, 500) == pytest.approx(decode(whole, 500) * 1000 / 1200)


@pytest.mark.parametrize("cached", [None, True, False])
def test_behind_an_answer_the_engine_reads_on_or_once_more_from_the_prompt(cached):
    one, bare = with_tool(calls=3, rollout__share_prompts=cached), setting(rollout__share_prompts=cached)
    rate = one.device.flops * one.device.prefill_efficiency
    context = 200 + (1000 + 3 * 100) / 2  # of an average call
    read = context * one.model.flops(context / 2) if cached is False else 100 * one.model.flops(context)
    found = prefill(one, 256) - prefill(bare, 256)
    assert found == pytest.approx(256 * 3 * read / rate)


def test_a_completion_that_waits_for_its_tool_keeps_its_place():
    few = {"rollout__max_sequences": 64, "rollout__groups_per_step": 8, "rollout__group_size": 8}  # 64, all at a time
    free = few | {"rollout__tool": ToolConfig(name="a:b", processes=64)}
    assert times(with_tool(tool_s=3, **free)).tool == pytest.approx(2 * 3)
    four = free | {"rollout__groups_per_step": 32}  # one after the other in each place
    assert times(with_tool(tool_s=3, **four)).tool == pytest.approx(4 * 2 * 3)
    crowded = with_tool(tool_s=3, **few | {"rollout__tool": ToolConfig(name="a:b", processes=2)})
    made = times(crowded)
    assert made.decode + made.tool == pytest.approx(64 * 2 * 3 / 2), "its processes are what all wait for"
    assert made.rollout == made.prefill + made.decode + made.tool + made.verify
    assert times(setting(**free)).tool == 0


@given(st.floats(0.1, 4), st.floats(1, 250), st.floats(0.001, 10), st.floats(1.01, 3))
@settings(max_examples=30, deadline=None)
def test_more_longer_and_slower_answers_are_never_cheaper(calls, answer_tokens, tool_s, more):
    base = with_tool(calls, answer_tokens, tool_s, rollout__max_tokens=65536, model__max_context=70_000)  # none is cut
    for name in ("calls", "answer_tokens", "tool_s"):
        changed = replace(base, **{name: more * getattr(base, name)})
        assert times(changed).step >= times(base).step * (1 - 1e-9)
        assert memory.slots(changed) <= memory.slots(base)


def test_a_plan_says_what_it_assumes_of_a_tool(capsys):
    words = ["plan", "quickstart", "--gpu", "h100"]
    assert main(words) == 0
    assert "\n  tool " not in capsys.readouterr().out
    assert main([*words, CALCULATOR]) == 0
    assert (
        "\n  tool       rlvr_verifiers.calculator:calculator: 2 answers a completion besides, of 8 tokens and 0.01 s "
        "in 2 processes an engine: 1.1 s of the rollout; what stands before an answer is in the cache still\n"
    ) in capsys.readouterr().out
    told = ["--calls", "0.5", "--answer-tokens", "3", "--tool-s", "2", "--json"]
    assert main([*words, CALCULATOR, "rollout.share_prompts=false", *told]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [said["assumed"][name] for name in ("calls", "answer_tokens", "tool_s")] == [0.5, 3, 2]
    assert said["seconds"]["tool"] > 60  # 128 completions, half a call each, in two processes


def test_a_policy_that_calls_no_tool_is_planned_as_without_one(capsys):
    found = []
    for tool in ([], [CALCULATOR, "--calls", "0", "--tool-s", "0"]):
        assert main(["plan", "quickstart", "--gpu", "h100", "--json", "--verify-s", "0", "--price", "0", *tool]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0]["seconds"] == found[1]["seconds"] and found[0]["cost_usd"] == found[1]["cost_usd"] == 0
