"""The peers' side of the conformance test: the peers' own code on given tensors. Runs in the peers' interpreter.

    <peer's python> scripts/bench/conformance_peers.py <peer> <questions.pt> <answers.pt>

Knows torch and the peer, nothing of rlvr. What is replaced is only what would need a model, an engine or a verifier:

  trl        a real GRPOTrainer (RLOOTrainer) on a throw-away one-layer model; three of its methods return the given
             completions, rewards and logprobs. `use_vllm` is set after construction, which would want vLLM installed.
             Advantages, corrections and the loss are `_generate_and_score_completions` and `_compute_loss`, unchanged.
  verl       its registered estimators, policy losses, `kl_penalty` and rollout correction. The sum of policy loss and
             KL is written here: in verl it is in a function that wants nested tensors.
  openrlhf   `PolicyLoss`, `compute_approx_kl`, and `RemoteExperienceMaker.compute_advantages_and_returns` on an object
             that has the settings it reads. The sum of policy loss and KL is written here. The __init__ of
             `openrlhf.models` and `openrlhf.trainer.ray` are not run (they import flash_attn and vllm), and
             `RayActorGroup`, named in annotations only, is `object`.
  skyrl      its registered estimators and policy losses; the reduction is its own, applied to the advantages.
"""

import importlib.util
import sys
import tempfile
import traceback
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor

World = dict[str, Any]
Answer = dict[str, Tensor]
PAD, EOS, WORD = 0, 1, 2


def gradient(loss: Tensor, logprobs_BT: Tensor) -> Tensor:
    return torch.autograd.grad(loss, logprobs_BT)[0]


def trl(call: dict, world: World) -> Answer:
    import trl as package

    call = dict(call)
    name, on_vllm, soft = call.pop("trainer", "GRPO"), call.pop("use_vllm", False), call.pop("overlong_buffer", None)
    parent = getattr(package, f"{name}Trainer")
    logprobs_BT = world["logprobs"].clone().requires_grad_()
    lengths, truncated = world["lengths"].tolist(), world["truncated"].tolist()
    ids = [[WORD] * (n - 1) + [WORD if cut else EOS] for n, cut in zip(lengths, truncated, strict=True)]
    holes = [[int(m) for m in row[:n]] for row, n in zip(world["mask"].tolist(), lengths, strict=True)]

    class Given(parent):
        def _generate(self, prompts):
            if name == "RLOO":
                return [[WORD]] * len(ids), ids, [""] * len(ids)
            rollout = [row[:n] for row, n in zip(world["rollout"].tolist(), lengths, strict=True)]
            return [[WORD]] * len(ids), ids, holes, [""] * len(ids), rollout if on_vllm else None, {}, None, None

        def _calculate_rewards(self, *_):
            if soft is None:
                return world["rewards"]
            from trl.rewards import get_soft_overlong_punishment

            punish = get_soft_overlong_punishment(self.max_completion_length, soft)
            return torch.cat([world["rewards"], torch.tensor(punish(completion_ids=ids))[:, None]], dim=1)

        def _get_per_token_logps_and_entropies(self, model, *_, **__):
            if model is self.ref_model:
                return world["ref"], None, None
            return logprobs_BT if torch.is_grad_enabled() else world["old"], torch.zeros_like(logprobs_BT), None

    weights = [*world["weights"].tolist(), *([1.0] if soft is not None else [])]
    torch.set_default_dtype(torch.float32)
    with tempfile.TemporaryDirectory() as folder:
        settings = {"output_dir": folder, "use_cpu": True, "bf16": False, "report_to": "none", "num_iterations": 2}
        settings |= {"per_device_train_batch_size": len(ids), "num_generations": world["group_size"]}
        settings |= {"max_completion_length": world["max_tokens"], "reward_weights": weights}
        args = getattr(package, f"{name}Config")(**settings | call)
        model, tokenizer = tiny_model(folder)
        reward_funcs = [lambda **_: None for _ in weights]
        for i, function in enumerate(reward_funcs):
            function.__name__ = f"part_{i}"
        from datasets import Dataset

        data = Dataset.from_list([{"prompt": "w"}] * len(ids))
        trainer = Given(model, reward_funcs, args=args, train_dataset=data, processing_class=tokenizer)
        trainer.use_vllm = on_vllm
        trainer.current_gradient_accumulation_steps = 1
        trainer.model.train()
        torch.set_default_dtype(torch.float64)
        inputs = trainer._generate_and_score_completions([{"prompt": "w"}] * len(ids))
        loss = trainer._compute_loss(trainer.model, inputs)
    return {"advantages": inputs["advantages"], "loss": loss, "gradient": gradient(loss, logprobs_BT)}


def tiny_model(folder: str) -> tuple[str, Any]:
    """A path, because TRL loads its reference model from where the model came from."""
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    vocabulary = {"<pad>": PAD, "<eos>": EOS, "w": WORD}
    bare = Tokenizer(models.WordLevel(vocabulary, unk_token="w"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare, pad_token="<pad>", eos_token="<eos>")
    sizes = {"vocab_size": 3, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    config = LlamaConfig(**sizes, num_attention_heads=1, pad_token_id=PAD, bos_token_id=PAD, eos_token_id=EOS)
    LlamaForCausalLM(config).save_pretrained(f"{folder}/model")
    tokenizer.save_pretrained(f"{folder}/model")
    return f"{folder}/model", tokenizer


def by_estimator(function: Any, call: dict, world: World, **more: Any) -> Tensor:
    """The advantages [B] of an estimator with verl's signature (SkyRL's is the same), rewards at the last token.

    `whole_completions`: asked with one token a completion, so that what it whitens is one value a completion.
    """
    import numpy as np

    mask_BT = world["mask"][:, :1] * 0 + 1 if call.get("whole_completions") else world["mask"]
    last_B = (mask_BT * torch.arange(1, mask_BT.shape[1] + 1)).argmax(1)
    rewards_BT = torch.zeros_like(mask_BT)
    rewards_BT[torch.arange(len(mask_BT)), last_B] = world["rewards"] @ world["weights"]
    index = np.arange(len(mask_BT)) // world["group_size"]
    advantages_BT, _ = function(token_level_rewards=rewards_BT, response_mask=mask_BT, index=index, **more)
    return advantages_BT[torch.arange(len(mask_BT)), last_B].to(mask_BT.dtype)


def verl(call: dict, world: World) -> Answer:
    from verl.trainer.config import AlgoConfig
    from verl.trainer.ppo import core_algos, rollout_corr_helper
    from verl.workers.config import ActorConfig

    logprobs_BT, mask_BT = world["logprobs"].clone().requires_grad_(), world["mask"]
    estimator = core_algos.get_adv_estimator_fn(call["estimator"])
    more = {"config": AlgoConfig(), **call.get("estimator_settings", {})}
    if call["estimator"] == "gdpo":
        names = [f"part_{k}" for k in range(len(world["weights"]))]
        columns = {name: world["rewards"][:, k].numpy() for k, name in enumerate(names)}
        lengths_B1 = world["lengths"][:, None] * 0 + 1 if call.get("whole_completions") else world["lengths"][:, None]
        prompts_and_lengths = (torch.arange(mask_BT.shape[1] + 1) < 1 + lengths_B1).long()
        more["config"] = {"gdpo_reward_keys": names, "gdpo_reward_weights": world["weights"].tolist()}
        batch = {"prompts": mask_BT[:, :1], "attention_mask": prompts_and_lengths}
        more |= {"non_tensor_batch": columns, "batch": batch}
    advantages_B = by_estimator(estimator, call, world, **more)
    if "policy_loss" not in call:
        return {"advantages": advantages_B}
    weights_BT, correction = None, call.get("correction", {})
    kept_BT, counts = mask_BT, {}
    if correction:
        arguments = {"old_log_prob": world["old"], "rollout_log_prob": world["rollout"], "response_mask": mask_BT}
        batch, kept_BT, _ = rollout_corr_helper.compute_rollout_correction_and_rejection_mask(**arguments, **correction)
        weights_BT = None if batch is None else batch.batch["rollout_is_weights"]
        counts = {"batch_num_tokens": mask_BT.sum(), "global_batch_size": (mask_BT.sum(1) > 0).sum()}
    mode = call["agg"]
    counts |= {"loss_scale_factor": world["max_tokens"]} if mode == "seq-mean-token-sum-norm" else {}
    settings = {"strategy": "fsdp", "rollout_n": world["group_size"], "ppo_micro_batch_size_per_gpu": 1}
    config = ActorConfig(**settings, global_batch_info=counts, **call.get("actor", {}))
    policy_loss = core_algos.get_policy_loss_fn(call["policy_loss"])
    given = {"old_log_prob": world["old"], "log_prob": logprobs_BT, "response_mask": kept_BT}
    given |= {"advantages": advantages_B[:, None].expand_as(mask_BT), "rollout_is_weights": weights_BT}
    given |= {"loss_agg_mode": mode, "config": config}
    loss, _ = policy_loss(**given)
    if "kl" in call:
        kl_BT = core_algos.kl_penalty(logprobs_BT, world["ref"], call["kl"])
        loss = loss + call["kl_coef"] * core_algos.agg_loss(kl_BT, kept_BT, mode, **counts)
    return {"advantages": advantages_B, "loss": loss, "gradient": gradient(loss, logprobs_BT)}


def bare(name: str) -> None:
    """A package whose __init__ is not run: it would import what needs a GPU build."""
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.submodule_search_locations is not None, name
    sys.modules[name] = ModuleType(name)
    sys.modules[name].__path__ = list(spec.submodule_search_locations)
    sys.modules[name].__spec__ = spec


def openrlhf(call: dict, world: World) -> Answer:
    if "openrlhf.models" not in sys.modules:
        bare("openrlhf.models")  # would import flash_attn
        bare("openrlhf.trainer.ray")  # would import vllm
        launcher = sys.modules["openrlhf.trainer.ray.launcher"] = ModuleType("openrlhf.trainer.ray.launcher")
        launcher.RayActorGroup = object  # named in annotations only
    from openrlhf.models.loss import PolicyLoss, aggregate_loss
    from openrlhf.models.utils import compute_approx_kl
    from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker

    logprobs_BT, mask_BT = world["logprobs"].clone().requires_grad_(), world["mask"]
    advantage = SimpleNamespace(estimator=call["estimator"], gamma=1.0, lambd=1.0, no_std_norm=False)
    args = SimpleNamespace(
        algo=SimpleNamespace(advantage=advantage),
        rollout=SimpleNamespace(n_samples_per_prompt=world["group_size"]),
        reward=SimpleNamespace(clip_range=None, overlong_buffer_len=None, stop_properly_penalty_coef=None),
    )
    maker = RemoteExperienceMaker.__new__(RemoteExperienceMaker)
    maker.strategy, maker.kl_ctl = SimpleNamespace(args=args), SimpleNamespace(value=0.0)
    maker.advantage_estimator = call["estimator"]
    mask_Bt = mask_BT[:, :1] * 0 + 1 if call.get("whole_completions") else mask_BT
    experience = SimpleNamespace(rewards=world["rewards"] @ world["weights"], index=list(range(len(mask_BT))), info={})
    experience.kl, experience.action_mask = torch.zeros_like(mask_Bt), mask_Bt
    (experience,) = maker.compute_advantages_and_returns([experience])
    advantages_B = experience.advantages[torch.arange(len(mask_Bt)), mask_Bt.argmax(1)]
    if "loss" not in call:
        return {"advantages": advantages_B}
    policy = PolicyLoss(**call["loss"])
    loss, *_ = policy(
        logprobs_BT, world["old"], advantages_B[:, None].expand_as(mask_BT), mask_BT, rollout_log_probs=world["rollout"]
    )
    if "kl" in call:
        kl_BT = compute_approx_kl(logprobs_BT, world["ref"], kl_estimator=call["kl"])
        loss = loss + call["kl_coef"] * aggregate_loss(kl_BT, mask_BT, token_level_loss=policy.token_level_loss)
    return {"advantages": advantages_B, "loss": loss, "gradient": gradient(loss, logprobs_BT)}


def skyrl(call: dict, world: World) -> Answer:
    from skyrl.backends.skyrl_train.utils import ppo_utils
    from skyrl.train.config import config as configs

    logprobs_BT, mask_BT = world["logprobs"].clone().requires_grad_(), world["mask"]
    estimator = getattr(ppo_utils, call["estimator"])
    advantages_B = by_estimator(estimator, call, world, **call.get("estimator_settings", {}))
    if "policy_loss" not in call:
        return {"advantages": advantages_B}
    corrections = configs.OffPolicyCorrectionConfig(**call.get("correction", {}))
    config = configs.AlgorithmConfig(off_policy_correction=corrections, **call.get("algorithm", {}))
    advantages_BT = ppo_utils.apply_loss_reduction_to_advantages_minibatch(
        advantages_B[:, None].expand_as(mask_BT), mask_BT, config.loss_reduction, len(mask_BT), world["max_tokens"]
    )
    policy_loss = getattr(ppo_utils, call["policy_loss"])
    loss, _ = policy_loss(logprobs_BT, world["old"], advantages_BT, config, mask_BT, world["rollout"])
    return {"advantages": advantages_B, "loss": loss, "gradient": gradient(loss, logprobs_BT)}


PEERS = {"trl": trl, "verl": verl, "openrlhf": openrlhf, "skyrl": skyrl}


def version(peer: str) -> str:
    from importlib.metadata import version as installed

    return installed(peer)


def main(peer: str, questions: str, answers: str) -> None:
    """Each question is (call, world); its answer has the tensors, or the peer's exception as text."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    found: list[dict[str, Any]] = []
    for call, world in torch.load(questions):
        try:
            found.append({name: x.detach() for name, x in PEERS[peer](call, world).items()})
        except Exception:
            found.append({"error": traceback.format_exc()})  # shown, and counted as a failure, on the other side
    torch.save({"version": version(peer), "torch": str(torch.__version__), "answers": found}, answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
