"""A trainer on a GPU computes what one on a CPU does, whatever kernels it takes."""

import gc
import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModelForCausalLM

from rlvr.collate import collate
from rlvr.config import ModelConfig, RecipeError, TrainerConfig
from rlvr.objective import Batch, Objective, advantages, kl, ratios, surrogates, weightings
from rlvr.train.logprobs import LogprobHead
from rlvr.train.optimizer import GuardedAdamW
from rlvr.train.policy import Policy, load_policy, pack, scatter
from rlvr.train.saving import load_checkpoint
from rlvr.trainer_config import LoraConfig
from tests.builders import completion, group, prompt

pytestmark = pytest.mark.gpu
GRPO = Objective(
    advantages.standardize, ratios.token, partial(surrogates.clip, low=0.2, high=0.2), weightings.token_mean
)
LEASHED = replace(GRPO, kl=kl.KL(kl.k3, 0.5))
PROBE = [3, 4, 5, 6, 90, 210]
ROWS = [[[5], [3], [1]], [[2], [0]], [[4]]]


def batch(objective: Objective = GRPO) -> Batch:
    generator = torch.Generator().manual_seed(1)

    def tokens(count: int) -> list[int]:
        return torch.randint(1, 500, (count,), generator=generator).tolist()

    first, second = ([completion(tokens(n)) for n in lengths] for lengths in ((50, 190, 1), (41, 73, 2)))
    groups = [
        group([1.0, 0.0, 0.5], first, prompt(0, tokens(30))),
        group([0.0, 0.0, 1.0], second, prompt(1, tokens(7))),
    ]
    return collate(groups, objective, {"math": 1.0})


def policy_of(folder: str, dtype: str, attention: str = "auto", checkpointing: bool = False) -> Policy:
    return load_policy(ModelConfig(path=folder, dtype=dtype, attention=attention), checkpointing)


def logprobs(policy: Policy, of: Batch, rows: list, device: str = "cuda") -> torch.Tensor:
    """[B,T]"""
    packed = pack(of, rows, of.mask_BT).to(torch.device(device))
    return scatter(policy(packed, 1.0, 64)[0], packed, of.to(torch.device(device)))


def gradient(policy: Policy, of: Batch, rows: list) -> torch.Tensor:
    policy.zero_grad()
    (logprobs(policy, of, rows) * of.mask_BT.cuda()).sum().backward()
    return torch.cat([p.grad.float().flatten() for p in policy.parameters()])


def test_in_bfloat16_auto_takes_flash_attention_and_else_not(model_folder):
    assert policy_of(model_folder, "bfloat16").single_row
    assert not policy_of(model_folder, "float32").single_row
    with pytest.raises(RecipeError, match="bfloat16"):
        policy_of(model_folder, "float32", attention="varlen")


def test_float32_gives_the_logprobs_of_a_cpu(model_folder):
    of = batch()
    with torch.no_grad():
        wanted = logprobs(policy_of(model_folder, "float32"), of, ROWS, "cpu")
        assert_close(logprobs(policy_of(model_folder, "float32").cuda(), of, ROWS).cpu(), wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_flash_attention_gives_the_logprobs_and_the_gradient_of_a_mask(model_folder, checkpointing):
    of = batch()
    exact = policy_of(model_folder, "float32").cuda()
    masked = policy_of(model_folder, "bfloat16", "sdpa").cuda()
    flash = policy_of(model_folder, "bfloat16", "varlen", checkpointing).cuda()
    wanted, right = logprobs(exact, of, ROWS).detach(), gradient(exact, of, ROWS)
    off = {p: float((logprobs(p, of, ROWS).detach() - wanted).abs().max()) for p in (masked, flash)}
    assert off[flash] < 2 * off[masked] + 1e-3  # no further off than rounding takes the other one
    wrong = {p: float((gradient(p, of, ROWS) - right).norm() / right.norm()) for p in (masked, flash)}
    assert wrong[flash] < 2 * wrong[masked] + 1e-3
    assert wrong[flash] < 0.05


def test_with_flash_attention_documents_of_a_row_do_not_see_each_other(model_folder):
    policy, of = policy_of(model_folder, "bfloat16").cuda(), batch()
    one_row = [[[i] for i in range(6)]]
    with torch.no_grad():
        before = logprobs(policy, of, one_row)
        others = of.token_ids_BT.clone()
        others[[0, 2, 3, 4, 5]] = torch.randint(1, 500, others[[0, 2, 3, 4, 5]].shape)
        after = logprobs(policy, replace(of, token_ids_BT=others), one_row)
    assert torch.equal(before[1], after[1]) and not torch.equal(before[0], after[0])


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kept", [False, True])
def test_the_fused_head_is_the_plain_one(dtype, temperature, kept):
    torch.manual_seed(0)
    head = torch.nn.Linear(64, 5003, dtype=dtype, device="cuda")
    hidden = torch.randn(300, 64, dtype=dtype, device="cuda", requires_grad=True)
    targets = torch.randint(5003, (300,), device="cuda")
    weights = torch.randn(300, device="cuda")
    kept_NC = None
    logits = head(hidden).float() / temperature
    if kept:
        kept_NC = torch.cat([targets[:, None], torch.randint(-1, 5003, (300, 7), device="cuda")], 1)
        allowed = torch.zeros(300, 5004, dtype=torch.bool, device="cuda").scatter_(1, kept_NC % 5004, True)[:, :5003]
        logits = logits.masked_fill(~allowed, -torch.inf)
    plain = logits.log_softmax(1)
    wanted = plain.gather(1, targets[:, None])[:, 0]
    wanted_entropy = -(plain.exp() * plain.clamp(min=-1e30)).sum(1)
    wanted_grads = torch.autograd.grad((wanted * weights).sum(), [hidden, *head.parameters()])
    got, entropy = LogprobHead(head)(hidden, targets, temperature, 128, kept_NC)
    grads = torch.autograd.grad((got * weights).sum(), [hidden, *head.parameters()])
    near = {"atol": 1e-4, "rtol": 1e-4} if dtype == torch.float32 else {"atol": 2e-2, "rtol": 2e-2}
    assert_close(got, wanted, **near)
    assert_close(entropy, wanted_entropy, **near)
    for grad, wanted_grad in zip(grads, wanted_grads, strict=True):
        assert float((grad - wanted_grad).float().norm() / wanted_grad.float().norm()) < (
            1e-4 if dtype == torch.float32 else 2e-2
        )


@pytest.fixture(scope="module")
def build(model_folder):
    from rlvr.train.deepspeed import DeepSpeedTrainer

    def make(dtype: str, **cfg) -> DeepSpeedTrainer:
        gc.collect()  # while a ZeRO-3 trainer lives on, transformers loads every model in shards
        settings = TrainerConfig(**{"micro_batch_tokens": 400, "row_tokens": 256, "max_grad_norm": 1e9} | cfg)
        return DeepSpeedTrainer(ModelConfig(path=model_folder, dtype=dtype), settings, temperature=1.0)

    return make


@pytest.mark.parametrize(
    "cfg",
    [
        {"dtype": "float32"},
        {"dtype": "bfloat16"},
        {"dtype": "bfloat16", "zero_stage": 2, "gradient_checkpointing": True},
        {"dtype": "bfloat16", "zero_stage": 3},
        {"dtype": "bfloat16", "zero_stage": 2, "offload_optimizer": "cpu"},
    ],
    ids=lambda cfg: " ".join(map(str, cfg.values())),
)
def test_a_step_has_the_gradient_of_plain_autograd_and_resumes(build, model_folder, cfg, tmp_path):
    of = batch()
    policy = policy_of(model_folder, "float32").cuda()
    loss, _ = GRPO.loss(logprobs(policy, of, ROWS), of.to(torch.device("cuda")))
    loss.backward()
    norm = float(torch.cat([p.grad.flatten() for p in policy.parameters()]).norm())
    trainer = build(**cfg)
    metrics = trainer.step(of, GRPO, 1e-4)
    near = 1e-3 if cfg["dtype"] == "float32" else 0.05
    assert metrics["policy/grad_norm"] == pytest.approx(norm, rel=near)
    assert metrics["policy/loss"] == pytest.approx(float(loss), abs=near)
    trainer.save(str(tmp_path))
    trainer.saved(wait=True)
    then, probe = trainer.step(of, GRPO, 1e-4), trainer.score([3, 4, 5, 6])
    trainer.load(str(tmp_path))
    again = trainer.step(of, GRPO, 1e-4)
    assert again["policy/loss"] == pytest.approx(then["policy/loss"], abs=1e-3)
    assert trainer.score([3, 4, 5, 6]) == pytest.approx(probe, abs=0.02)


@pytest.mark.parametrize("zero_stage", [2, 3])
@pytest.mark.parametrize(("then", "now"), [("none", "none"), ("cpu", "none"), ("none", "cpu")])
def test_another_number_of_ranks_or_another_place_of_the_optimizer_goes_on(build, tmp_path, zero_stage, then, now):
    """Each wants its counts of steps on another device. Two ranks are pretended: what one saved is converted."""
    of, folder = batch(), tmp_path / "step" / "trainer"
    saver = build("bfloat16", zero_stage=zero_stage, offload_optimizer=then)
    saver.step(of, GRPO, 1e-4)
    saver.save(str(folder))
    saver.saved(wait=True)
    wanted = saver.step(of, GRPO, 1e-4)["policy/loss"]
    for ranks in (1, 2):
        trainer = build("bfloat16", zero_stage=zero_stage, offload_optimizer=now)
        load_checkpoint(trainer.engine, folder, 0, ranks)
        assert trainer.step(of, GRPO, 1e-4)["policy/loss"] == pytest.approx(wanted, abs=1e-3)


FAULT = """
import torch
from rlvr.cluster.faults import gpu_has_failed
try:
    torch.empty(2**50, device="cuda")
except torch.OutOfMemoryError:
    assert not gpu_has_failed()
try:
    torch.zeros(4, device="cuda")[torch.tensor([1000], device="cuda")]
    torch.cuda.synchronize()
except torch.AcceleratorError:
    print("failed" if gpu_has_failed() else "works")
"""


def test_a_gpu_that_has_failed_is_told_from_one_that_is_full():
    done = subprocess.run([sys.executable, "-c", FAULT], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "failed"), done.stderr[-2000:]


@pytest.mark.parametrize("finite", [True, False])
def test_ranks_of_an_offloaded_optimizer_agree_over_nccl(build, finite, monkeypatch):
    """With the group of the trainer, of one rank, which takes no tensor in host memory either."""
    device = build("bfloat16", zero_stage=2, offload_optimizer="cpu").device
    parameter = torch.nn.Parameter(torch.ones(3))
    parameter.grad = torch.ones(3) if finite else torch.full((3,), torch.nan)
    guarded = GuardedAdamW([parameter], device=device, lr=0.1)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    guarded.step()
    assert guarded.skipped is not finite


@pytest.mark.parametrize("zero_stage", [1, 3])
def test_adapters_are_what_is_trained_and_engines_get_the_merged_weights(build, model_folder, zero_stage):
    """Held to float32 on the same GPU. The reference is the model below the adapters, no second one."""
    gc.collect()  # a ZeRO-3 trainer that lives on would have this model loaded in shards
    engine = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.bfloat16).cuda()

    def said() -> list[float]:
        with torch.no_grad():
            logits = engine(input_ids=torch.tensor([PROBE], device="cuda"), use_cache=False).logits[0, :-1].float()
        return logits.log_softmax(1).gather(1, torch.tensor(PROBE, device="cuda")[1:, None])[:, 0].tolist()

    of, lora = batch(LEASHED), LoraConfig(rank=8)
    exact, trainer = (build(dtype, zero_stage=zero_stage, lora=lora) for dtype in ("float32", "bfloat16"))
    before = trainer.score(PROBE)
    start, right = (each._logprobs(each.engine, of) for each in (trainer, exact))
    assert before == pytest.approx(said(), abs=0.1)
    wanted, got = exact.step(of, LEASHED, 1e-2), trainer.step(of, LEASHED, 1e-2)
    assert got["policy/grad_norm"] == pytest.approx(wanted["policy/grad_norm"], rel=0.05)
    assert got["policy/loss"] == pytest.approx(wanted["policy/loss"], abs=0.05)
    off = [float((found - right).abs().max()) for found in (start, trainer._reference_logprobs(of, None))]
    assert off[1] < 2 * off[0] + 1e-3 and trainer._reference is None  # no further off than rounding takes the start
    with torch.no_grad():
        for bucket in trainer.weights():
            for name, weight in bucket.items():
                engine.get_parameter(name).copy_(weight)
    after = trainer.score(PROBE)
    assert after == pytest.approx(said(), abs=0.1)
    assert max(abs(a - b) for a, b in zip(before, after, strict=True)) > 0.2


@pytest.mark.parametrize("zero_stage", [1, 3])
@pytest.mark.parametrize("offload", [False, True])
def test_a_kl_term_asks_the_model_before_training(build, zero_stage, offload):
    of = batch(LEASHED)
    trainer = build("bfloat16", zero_stage=zero_stage, offload_reference=offload)
    start = trainer._logprobs(trainer.engine, of)
    first = trainer.step(of, LEASHED, 1e-3)
    assert first["policy/kl_ref"] == pytest.approx(0, abs=1e-3)
    assert trainer.step(of, LEASHED, 1e-3)["policy/kl_ref"] > first["policy/kl_ref"] + 1e-3
    now, reference = trainer._logprobs(trainer.engine, of), trainer._reference_logprobs(of, None)
    off, moved = (float((found - start).abs().max()) for found in (reference, now))
    assert off < min(0.1, moved / 4)
    if zero_stage < 3:
        assert {p.device.type for p in trainer._reference.parameters()} == {"cpu" if offload else "cuda"}
