"""Bytes on one device, item by item. Knows no time.

    trainer rank:  weights, gathered (ZeRO-3), gradients, optimizer, reference, activations, logits
    engine device: weights, activations, KV cache (what remains of rollout.gpu_memory_utilization)
"""

from rlvr.plan.devices import GIB
from rlvr.plan.setting import Setting

LIVE = 1_000_000_000  # parameters that ZeRO-3 holds gathered at a time: DeepSpeed's stage3_max_live_parameters
ENGINE_PASS = 2 * GIB  # vLLM's profile of one pass, with its CUDA graphs; of this order for 8k tokens a pass
Items = dict[str, float]


def trainer(setting: Setting) -> Items:
    """Of the largest rank, in the middle of a backward pass."""
    cfg, model, b = setting.cfg.trainer, setting.model, setting.train_bytes
    stage, ranks = setting.zero_stage, cfg.ranks
    weights = model.parameters * b / (ranks if stage == 3 else 1)
    # accumulated in float32; in bfloat16 a backward pass makes its own before they are added
    gradients = setting.trainable * 4 / (ranks if stage >= 2 else 1)
    if b == 2 and stage < 2:
        gradients += setting.trainable * 2
    optimizer = setting.trainable * (12 if b == 2 else 8) / (ranks if stage >= 1 else 1)
    items = {
        "weights": weights * (cfg.offload_parameters == "none"),
        "gathered": min(model.parameters, LIVE) * b * (stage == 3),
        "gradients": gradients,
        "optimizer": optimizer * (cfg.offload_optimizer == "none"),
        "reference": weights * setting.reference * (not cfg.offload_reference),
        "activations": activations(setting),
        "logits": logits(setting),
    }
    return {name: size for name, size in items.items() if size}


def activations(setting: Setting) -> float:
    """What a backward pass needs of the forward pass, for one micro-batch."""
    model, cfg, b = setting.model, setting.cfg.trainer, setting.train_bytes
    longest = min(setting.cfg.model.max_context, setting.prompt_tokens + setting.cfg.rollout.max_tokens)
    tokens = max(cfg.micro_batch_tokens, longest)
    h, q, k, i = model.hidden, model.queries, model.keys, model.intermediate
    # a layer keeps: 2 residuals, 2 norms (input in float32, output), q k v before and after rotation, attention's
    # output, gate, up, gate's activation, their product
    layer = b * (2 * h + 2 * h + 2 * (q + 2 * k) + q + 4 * i) + 4 * 2 * h
    if cfg.gradient_checkpointing:
        return tokens * (model.layers * h * b + layer)
    return tokens * model.layers * layer


def logits(setting: Setting) -> float:
    """One chunk of [tokens, vocabulary], and the gradient of the head that the chunks add to."""
    b = setting.train_bytes
    return setting.cfg.trainer.logprob_chunk_tokens * setting.model.vocabulary * b + setting.model.head_parameters * b


def standing(items: Items) -> float:
    """What a rank keeps while an engine on the same device samples."""
    return sum(items.get(name, 0.0) for name in ("weights", "gradients", "optimizer", "reference"))


def engine(setting: Setting) -> Items:
    """Of one device of an engine."""
    tp = setting.tensor_parallel
    weights = setting.model.parameters * setting.engine_bytes / tp
    if setting.device.cpu:
        return {"weights": weights, "cache": setting.cfg.rollout.memory_gib * GIB}
    budget = setting.device.memory_gib * GIB * setting.cfg.rollout.gpu_memory_utilization
    return {"weights": weights, "activations": float(ENGINE_PASS), "cache": max(0.0, budget - weights - ENGINE_PASS)}


def slots(setting: Setting) -> int:
    """Completions that an engine decodes at a time: as many as max_sequences, or as its cache holds."""
    cache = engine(setting)["cache"] * setting.tensor_parallel
    context = setting.prompt_tokens + setting.mean_length
    return min(setting.cfg.rollout.max_sequences, int(cache / (context * cache_bytes(setting))))


def cache_bytes(setting: Setting) -> int:
    """Keys and values of a token in the engine."""
    return setting.model.cache_bytes(setting.engine_bytes)


def host(setting: Setting) -> float:
    """Bytes that one rank keeps in its node's memory."""
    cfg, b = setting.cfg.trainer, setting.train_bytes
    share = cfg.ranks if setting.zero_stage == 3 else 1
    optimizer = setting.trainable * (12 if b == 2 else 8) / cfg.ranks * (cfg.offload_optimizer == "cpu")
    weights = setting.model.parameters * b / share
    return optimizer + weights * ((cfg.offload_parameters == "cpu") + (setting.reference and cfg.offload_reference))
