"""Both engines keep the promises of the Protocol. vLLM's takes 15 s to start, hence `slow`."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rlvr.rollout.engine import generate, requests_of
from rlvr.types import Group, Prompt, Sampling

TINY = str(Path(__file__).resolve().parents[2] / "recipes" / "tiny")
SAMPLING = Sampling(completions=3, temperature=1.0, max_tokens=24, seed=5)


def slow(name: str):
    return pytest.param(name, marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=["transformers", slow("vllm"), slow("vllm in two parts")])
def engine(request):
    if request.param != "transformers":
        from rlvr.rollout.vllm import VllmEngine

        parts = 1 if request.param == "vllm" else 2
        yield VllmEngine(
            TINY, dtype="float32", max_model_len=128, max_num_seqs=32, max_top_k=8, tensor_parallel=parts
        )
        from vllm.distributed import cleanup_dist_env_and_memory

        cleanup_dist_env_and_memory()  # its process group; the trainers tested in this process make their own
    else:
        from rlvr.rollout.transformers import TransformersEngine

        yield TransformersEngine(TINY, dtype="float32", max_model_len=128, max_num_seqs=32)


def prompts(engine, *texts: str) -> list[Prompt]:
    ids = [
        engine.tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=True, return_dict=False
        )
        for text in texts
    ]
    return [
        Prompt(str(i), i, ({"role": "user", "content": text},), tuple(t), "")
        for i, (text, t) in enumerate(zip(texts, ids, strict=True))
    ]


def generated(engine, asked, sampling=SAMPLING):
    ended = [e for step in generate(engine, asked, sampling) for e in step]
    assert sorted((e.prompt, e.index) for e in ended) == [
        (n, i) for n in range(len(asked)) for i in range(sampling.completions)
    ]
    ended.sort(key=lambda e: e.index)
    return {
        prompt.id: Group(prompt, tuple(e.completion for e in ended if e.prompt == n)) for n, prompt in enumerate(asked)
    }


def test_a_completion_depends_on_its_seed_and_not_on_its_company(engine):
    both = prompts(engine, "(3+4)*2=?", "5*6+1=?")
    together, alone = generated(engine, both), generated(engine, both[:1])
    assert [c.token_ids for c in together["0"].completions] == [c.token_ids for c in alone["0"].completions]
    assert len({tuple(c.token_ids) for g in together.values() for c in g.completions}) > 1


def test_logprobs_are_those_of_the_model_that_sampled(engine):
    (asked,) = prompts(engine, "(3+4)*2=?")
    for completion in generated(engine, [asked])["0"].completions:
        scored = engine.score([*asked.token_ids, *completion.token_ids])[len(asked.token_ids) - 1 :]
        assert completion.rollout_logprobs == pytest.approx(scored, abs=2e-4)
        assert completion.stop_reason == (
            "eos" if completion.token_ids[-1] == engine.tokenizer.eos_token_id else "length"
        )


def test_the_trainer_sees_the_truncated_distribution_that_was_sampled_from(engine):
    from rlvr.collate import collate
    from rlvr.config import ModelConfig
    from rlvr.objective import Objective, advantages, ratios, surrogates, weightings
    from rlvr.train.policy import load_policy, pack
    from tests.builders import verdict

    asked = prompts(engine, "(3+4)*2=?", "5*6+1=?")
    groups = generated(engine, asked, replace(SAMPLING, temperature=1.3, top_p=0.8, top_k=8)).values()
    sizes = {len(ids) for g in groups for c in g.completions for ids in c.kept_ids}
    assert max(sizes) <= 8 and len(sizes) > 2  # top-p cuts off more where the policy is sure
    judged = [replace(g, verdicts=tuple(verdict(float(i)) for i in range(3))) for g in groups]
    objective = Objective(advantages.center, ratios.token, surrogates.unclipped, weightings.token_mean)
    policy = load_policy(ModelConfig(TINY, dtype="float32"), gradient_checkpointing=False)
    for keep, close in ((True, 2e-4), (False, 0.1)):
        batch = collate(judged, replace(objective, keep_sampling_mask=keep), {"math": 1.0})
        packed = pack(batch, [[[n]] for n in range(len(batch))], batch.mask_BT)
        logprobs_N, _ = policy(packed, 1.3, 64)
        worst = (logprobs_N - batch.rollout_logprobs_BT.flatten()[packed.place_N]).abs().max()
        assert (worst < close) if keep else (worst > close)


def test_the_length_limit_is_kept_and_named(engine):
    group = generated(engine, prompts(engine, "5*6+1=?"), Sampling(2, 1.0, 2, seed=1))["0"]
    assert {(len(c.token_ids), c.stop_reason) for c in group.completions} <= {(2, "length"), (2, "eos"), (1, "eos")}


def test_a_special_token_stops_though_no_text_shows_it(engine, monkeypatch):
    asked = prompts(engine, "(3+4)*2=?")
    sampling = replace(SAMPLING, completions=8, stop=("</think>", "<eos>"))
    (end,) = engine.tokenizer("</think>", add_special_tokens=False).input_ids
    by_text = generated(engine, asked, sampling)["0"].completions
    monkeypatch.setitem(engine._special, "</think>", end)
    hides = engine.tokenizer.decode
    monkeypatch.setattr(
        engine.tokenizer, "decode", lambda ids, **how: hides([n for n in ids if n != end], **how)
    )  # fmt: skip
    by_id = generated(engine, asked, sampling)["0"].completions
    assert [(c.token_ids, c.stop_reason) for c in by_id] == [(c.token_ids, c.stop_reason) for c in by_text]
    assert {(c.stop_reason, c.token_ids[-1]) for c in by_id} == {("stop", end), ("eos", engine.tokenizer.eos_token_id)}
    assert not any("</think>" in c.text for c in by_id)


def test_a_prompt_without_room_is_refused_in_words(engine):
    with pytest.raises(ValueError, match="do not fit into"):
        generated(engine, prompts(engine, "5*6+1=?"), Sampling(1, 1.0, 127))


def test_new_weights_are_sampled_from_tied_head_included(engine):
    from transformers import AutoModelForCausalLM

    tokens = [3, 20, 30, 40, 25]
    model = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)
    before = engine.score(tokens)
    original = {name: p.detach().clone() for name, p in model.named_parameters()}
    changed = {name: p * 1.05 for name, p in original.items()}
    engine.load_weights([changed], 7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(changed[name])
        logprobs = model(torch.tensor([tokens])).logits[0, :-1].log_softmax(1)
    expected = logprobs.gather(1, torch.tensor(tokens)[1:, None])[:, 0].tolist()
    assert engine.score(tokens) == pytest.approx(expected, abs=1e-3)
    assert engine.score(tokens) != pytest.approx(before, abs=1e-3)
    assert engine.policy_version == 7
    engine.load_weights([original], 8)
    assert engine.score(tokens) == pytest.approx(before, abs=1e-4)


def model():
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)


def finished(engine) -> dict:
    done = {}
    while engine.running:
        done |= dict(engine.step())
    return done


def test_new_weights_reach_what_is_being_decoded_and_every_token_says_which_they_were(engine):
    from transformers import AutoModelForCausalLM

    original = {n: p.detach() for n, p in AutoModelForCausalLM.from_pretrained(TINY).named_parameters()}
    asked = requests_of(prompts(engine, "(3+4)*2=?", "5*6+1=?"), replace(SAMPLING, temperature=1.2))
    engine.load_weights([original], 20)
    engine.add(asked)
    alone = finished(engine)
    engine.add(asked)
    early = {}
    for _ in range(4):
        early |= dict(engine.step())
    engine.load_weights([{n: p * 1.3 for n, p in original.items()}], 21)
    probe = engine.score([3, 20, 30])  # amid the others, and of none of their business
    engine.add([replace(request, key="later") for request in asked[:1]])
    changed = early | finished(engine)
    assert changed.keys() == {*alone, "later"} and len(early) < len(alone)
    moved: list[float] = []
    for key, completion in alone.items():
        assert (completion.policy_version, completion.updates) == (20, ())
        assert changed[key].token_ids[:4] == completion.token_ids[:4]
        assert changed[key].updates == (() if key in early else ((4, 21),))
        pairs = list(zip(changed[key].rollout_logprobs, completion.rollout_logprobs, strict=False))
        assert all(a == pytest.approx(b, abs=1e-4) for a, b in pairs[:4])
        moved += [abs(a - b) for a, b in pairs[4:]]
    assert max(moved) > 0.01
    assert (changed["later"].policy_version, changed["later"].updates) == (21, ())
    assert engine.score([3, 20, 30]) == pytest.approx(probe, abs=1e-4)
    engine.load_weights([original], 22)


def test_a_probe_waits_for_no_completion_to_end(engine):
    """As many are being decoded as may be: of weights that are not proved yet they see a token at most."""
    original = {n: p.detach().clone() for n, p in model().named_parameters()}
    engine.load_weights([original], 30)
    asked = requests_of(prompts(engine, "(3+4)*2=?"), Sampling(96, 1.5, 24, seed=5))
    engine.add(asked)
    lengths = {key: len(completion.token_ids) for key, completion in finished(engine).items()}
    engine.add(sorted(asked, key=lambda request: -lengths[request.key])[:40])  # none of the first 32 ends soon
    done = {}
    for _ in range(3):
        done |= dict(engine.step())
    engine.load_weights([original], 31)
    engine.score([3, 20, 30])
    engine.load_weights([original], 32)
    done |= finished(engine)
    starts = [dict((version, start) for start, version in c.updates) for c in done.values()]
    assert len(starts) == 40
    assert max(at[32] - at.get(31, at[32]) for at in starts if 32 in at) <= 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there top-k is exact")
def test_what_would_be_sampled_and_not_told_of_is_refused_in_words():
    from rlvr.config import RecipeError
    from rlvr.rollout.vllm import VllmEngine

    with pytest.raises(RecipeError, match=r"rollout.top_k=8: on a CPU .* set rollout.dtype=float32"):
        VllmEngine(TINY, dtype="bfloat16", max_model_len=128, max_num_seqs=32, max_top_k=8)


@pytest.mark.slow
def test_a_shared_prompt_is_read_once_and_never_outlives_its_weights():
    """On a CPU vLLM's blocks have 128 tokens: only prompts longer than that are shared there."""
    from transformers import AutoModelForCausalLM

    from rlvr.rollout.vllm import VllmEngine

    settings = {"dtype": "float32", "max_model_len": 512, "max_num_seqs": 32}
    sharing, alone = (VllmEngine(TINY, **settings, share_prompts=share) for share in (True, False))
    seen: list[int] = []
    take = sharing._take

    def counting(outputs):
        seen.extend(output.num_cached_tokens for output in outputs)
        return take(outputs)

    sharing._take = counting
    asked = prompts(alone, "+".join("1234567") * 20 + "=?")
    assert len(asked[0].token_ids) > 2 * 128
    original = {n: p.detach() for n, p in AutoModelForCausalLM.from_pretrained(TINY).named_parameters()}
    for version, factor in enumerate((1.0, 1.3, 1.0)):
        made = []
        for engine in (sharing, alone):
            engine.load_weights([{name: factor * p for name, p in original.items()}], version)
            made.append(generated(engine, asked, replace(SAMPLING, completions=8))["0"].completions)
            made.append(generated(engine, asked, replace(SAMPLING, completions=8))["0"].completions)
        first, again, *expected = made
        for shared, own in zip([*first, *again], [*expected[0], *expected[1]], strict=True):
            assert shared.token_ids == own.token_ids
            assert shared.rollout_logprobs == pytest.approx(own.rollout_logprobs, abs=1e-4)
        assert seen[-8:] == [256] * 8, "the second time all of it is there"
        assert 0 in seen[-16:-8], "the first reads it anew, with the new weights"


IN_A_THREAD = """
import sys, threading
from pathlib import Path
from rlvr.rollout.engine import generate
from rlvr.rollout.vllm import VllmEngine
from rlvr.types import Prompt, Sampling

engine = VllmEngine(sys.argv[1], dtype="float32", max_model_len=128, max_num_seqs=8, threads=2)
def decode():
    steps = generate(engine, [Prompt("0", 0, (), (3, 20, 30), "")], Sampling(4, 1.0, 8, (), 0))
    Path(sys.argv[2]).write_text(str(sum(map(len, steps))))
thread = threading.Thread(target=decode)
thread.start()
thread.join()
"""


@pytest.mark.slow
def test_a_worker_decodes_with_more_than_one_thread(tmp_path):
    """As in a Ray actor: started with one OpenMP thread, it decodes in another thread than the one it was made in."""
    command = [sys.executable, "-c", IN_A_THREAD, TINY, str(tmp_path / "ended")]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert (tmp_path / "ended").exists() and (tmp_path / "ended").read_text() == "4", done.stderr[-2000:]


def test_what_is_aborted_is_never_answered(engine):
    engine.add(requests_of(prompts(engine, "5*6+1=?"), SAMPLING))
    engine.step()
    engine.abort()
    assert engine.running == 0 and finished(engine) == {}
    assert len(generated(engine, prompts(engine, "1+1=?"))) == 1


def test_nor_is_what_was_waiting_for_room_or_for_others_to_end(engine):
    engine.add(requests_of(prompts(engine, "5*6+1=?"), replace(SAMPLING, completions=40)))
    engine.add([replace(r, key="greedy") for r in requests_of(prompts(engine, "1+1=?"), Sampling(1, 0.0, 8))])
    engine.step()
    engine.abort()
    assert engine.running == 0 and finished(engine) == {}


def test_each_request_is_sampled_in_its_own_way_whatever_it_stands_beside(engine):
    asked = prompts(engine, "(3+4)*2=?", "5*6+1=?")
    temperatures = {"greedy": 0.0, "sampled": 1.0, "hot": 1.7}
    ways = {name: replace(SAMPLING, temperature=t, max_tokens=12) for name, t in temperatures.items()}
    requests = [
        replace(request, key=(name, *request.key)) for name, way in ways.items() for request in requests_of(asked, way)
    ]
    alone = {}
    for name in ways:
        engine.add([request for request in requests if request.key[0] == name])
        alone |= finished(engine)
    engine.add(sorted(requests, key=lambda request: request.key[1:]))  # greedy, hot, sampled, greedy, ...
    together = finished(engine)
    assert together.keys() == alone.keys()
    assert {key: c.token_ids for key, c in together.items()} == {key: c.token_ids for key, c in alone.items()}
    assert len({tuple(alone["greedy", 0, i].token_ids) for i in range(3)}) == 1
    assert len({tuple(alone[name, 0, 0].token_ids) for name in ways}) > 1


def test_a_string_may_end_a_completion(engine):
    (asked,) = prompts(engine, "(3+4)*2=?")
    hot = replace(SAMPLING, temperature=1.7, completions=8)
    completions = generated(engine, [asked], hot)["0"].completions
    longest = max(range(8), key=lambda i: len(completions[i].token_ids))
    token_ids = completions[longest].token_ids
    text = [engine.tokenizer.decode(token_ids[:n], skip_special_tokens=True) for n in range(len(token_ids))]
    stop = text[len(text) // 2][-2:]
    place = next(n for n, said in enumerate(text) if stop in said)
    stopped = generated(engine, [asked], replace(hot, stop=("never said", stop)))["0"].completions[longest]
    assert len(stop) == 2 and 0 < place < len(token_ids)
    assert (stopped.stop_reason, stopped.token_ids, stopped.text) == ("stop", token_ids[:place], text[place])


def test_the_tokenizers_end_is_one_also_where_the_model_names_another(tmp_path):
    from transformers import AutoTokenizer

    from rlvr.rollout.transformers import TransformersEngine

    shutil.copytree(TINY, tmp_path, dirs_exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    (other,) = tokenizer.encode("\\boxed{")
    named = json.loads((tmp_path / "generation_config.json").read_text()) | {"eos_token_id": [other]}
    (tmp_path / "generation_config.json").write_text(json.dumps(named))
    both = TransformersEngine(str(tmp_path), dtype="float32", max_model_len=128, max_num_seqs=32)
    said = generated(both, prompts(both, "5*6+1=?"), Sampling(32, 1.5, 24, seed=5))["0"].completions
    ends = {tokenizer.eos_token_id, other}
    assert {c.token_ids[-1] for c in said if c.stop_reason == "eos"} == ends
    assert not any(token in ends for c in said for token in c.token_ids[:-1])


def test_top_k_then_top_p_by_hand():
    from rlvr.rollout.transformers import truncated

    # probabilities 0.1, 0.4, 0.3, 0.2: the top 3, as shares of 0.9: 0.44, 0.33, 0.22
    logits = torch.tensor([[0.1, 0.4, 0.3, 0.2]]).log()

    def left(top_p: float, top_k: int) -> list[int]:
        return truncated(logits, top_p, top_k).isfinite()[0].nonzero()[:, 0].tolist()

    assert left(1.0, 3) == [1, 2, 3]
    assert left(0.75, 3) == [1, 2]  # 0.44 + 0.33 reach it
    assert left(0.8, 3) == [1, 2, 3]
    assert left(0.75, 0) == [1, 2, 3]  # of all: 0.4 + 0.3 do not
    assert left(0.01, 0) == [1]


@pytest.mark.slow
@torch._dynamo.config.patch(disable=True)  # as the vLLM engine has it on a CPU
def test_a_compiled_step_samples_what_an_uncompiled_one_does_also_with_new_weights():
    from rlvr.rollout.transformers import TransformersEngine

    counters = torch._dynamo.utils.counters
    counters.clear()
    plain, compiled = (
        TransformersEngine(TINY, dtype="float32", max_model_len=128, max_num_seqs=32, compiled=choice)
        for choice in (False, True)
    )
    asked = prompts(plain, "(3+4)*2=?", "5*6+1=?", "(8+1)*2=?")
    changed = {name: p * 1.05 for name, p in plain.model.named_parameters()}
    said = []
    for version in range(2):
        for engine in (plain, compiled):
            if version:
                engine.load_weights([changed], version)
            groups = generated(engine, asked, replace(SAMPLING, max_tokens=64))  # more than once the room
            said.append([c for g in groups.values() for c in g.completions])
    for wanted, got in zip(said[::2], said[1::2], strict=True):
        assert [c.token_ids for c in got] == [c.token_ids for c in wanted]
        for a, b in zip(wanted, got, strict=True):
            assert b.rollout_logprobs == pytest.approx(a.rollout_logprobs, abs=1e-4)
    assert [c.token_ids for c in said[0]] != [c.token_ids for c in said[2]]
    assert counters["stats"]["unique_graphs"] > 0 and not counters["graph_break"]


def test_the_error_of_an_engine_that_lost_a_process_is_its_death():
    from types import SimpleNamespace

    from rlvr.rollout.vllm import VllmEngine

    told = []
    engine = object.__new__(VllmEngine)  # it takes a death at the worst moment to see this in a real one
    engine._on_death, engine._executor = (lambda: told.append("died")), SimpleNamespace(is_failed=False)
    for failed, expected in ((False, []), (True, ["died"])):
        engine._executor.is_failed = failed
        with pytest.raises(RuntimeError, match="cancelled"), engine._whole():
            raise RuntimeError("cancelled")
        assert told == expected
