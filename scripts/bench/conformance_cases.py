"""What is asked of the peers and of us: the same tensors, the peer's settings, and our recipe keys that reproduce them.

Data only. A case is a preset with a few `key=value` of the command line on top, exactly as one would train with; where
no keys of ours reproduce the peer, `differs` says what is missing, and the case is measured all the same.
"""
# ruff: noqa: E501 - a case is a line
# fmt: off

import random
from dataclasses import dataclass, field
from typing import Any

import torch

GROUPS, GROUP_SIZE, MAX_TOKENS = 4, 4, 12
TOLERANCE = 1e-6
Tensors = dict[str, Any]


@dataclass(frozen=True)
class Case:
    peer: str
    name: str
    call: dict[str, Any]
    preset: str
    keys: tuple[str, ...] = ()
    world: str = "plain"
    compare: tuple[str, ...] = ("advantages", "loss", "gradient")
    differs: str = ""
    weights: tuple[float, ...] = field(default=(1.0,))


def world(kind: str, weights: tuple[float, ...]) -> Tensors:
    """Sixteen ragged completions in float64, every number of which float32 can hold; logprobs are junk where masked.

    plain: a group [1,0,0,0], one of mixed rewards, one all equal, one of halves. on_policy: pi = pi_old = pi_rollout.
    missing: some completions have no reward. truncated: some ran into the length limit. whole_mask: for peers that know
    no holes in a completion. far_ref: two tokens that the reference finds far likelier. Several may be named at once.
    """
    rng = random.Random(7)
    B, T = GROUPS * GROUP_SIZE, MAX_TOKENS

    def exact(x: float) -> float:
        return round(x * 2**16) / 2**16

    lengths = [rng.randint(2, T - 1) for _ in range(B)]
    lengths[3], lengths[9] = T, T - 1
    mask = [[float(t < n and (t in (0, n - 1) or rng.random() < 0.85)) for t in range(T)] for n in lengths]
    logprobs = [[exact(-rng.uniform(0.05, 3.0)) for _ in range(T)] for _ in range(B)]

    def near(rows: list[list[float]], spread: float) -> list[list[float]]:
        far = (-2.0, 2.0)  # now and then, so that every clip, cap and bound has something to do

        def moved(x: float) -> float:
            return exact(x + (rng.choice(far) if rng.random() < 0.1 else rng.gauss(0.0, spread)))

        return [[moved(x) for x in row] for row in rows]

    old = logprobs if "on_policy" in kind else near(logprobs, 0.4)
    rollout, ref = (old if "on_policy" in kind else near(old, 0.3)), near(logprobs, 0.4)
    if "far_ref" in kind:
        ref[0][0], ref[5][0] = logprobs[0][0] + 4.0, logprobs[5][0] + 6.0
    firsts = [1.0, 0.0, 0.0, 0.0, 0.75, 0.125, 1.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.5]
    rewards = [[first, *(float(rng.random() < 0.5) for _ in weights[1:])] for first in firsts]
    if "missing" in kind:
        rewards[1], rewards[6], rewards[7] = ([float("nan")] * len(weights) for _ in range(3))
    truncated = ["truncated" in kind and i % 5 == 3 for i in range(B)]
    found = {"logprobs": logprobs, "old": old, "rollout": rollout, "ref": ref, "mask": mask, "rewards": rewards}
    tensors: Tensors = {name: torch.tensor(rows, dtype=torch.float64) for name, rows in found.items()}
    tensors |= {"lengths": torch.tensor(lengths), "truncated": torch.tensor(truncated)}
    tensors |= {"weights": torch.tensor(weights, dtype=torch.float64), "group_size": GROUP_SIZE, "max_tokens": T}
    if "whole_mask" in kind:
        tensors["mask"] = (torch.arange(T) < tensors["lengths"][:, None]).double()
    return tensors


EPS4, EPS9 = "algorithm.advantage.eps=1e-4", "algorithm.advantage.eps=1e-9"
SEQUENCE = "algorithm.ratio._target_=rlvr.objective.ratios.sequence"
WEIGHTING = "algorithm.weighting._target_=rlvr.objective.weightings."
ADVANTAGE = "algorithm.advantage._target_=rlvr.objective.advantages."
UNBIASED = "algorithm.kl.estimator._target_=rlvr.objective.kl.unbiased"
K2 = "algorithm.kl.estimator._target_=rlvr.objective.kl.k2"
K1 = "algorithm.kl.estimator._target_=rlvr.objective.kl.k1"
NO_SHAPING = "algorithm.shaping=null"
DUAL3 = "+algorithm.surrogate.dual=3.0"


def correction(function: str, **arguments: float) -> str:
    listed = "".join(f", {name}: {value}" for name, value in arguments.items())
    return f"+algorithm.correction={{_partial_: true, _target_: rlvr.objective.corrections.{function}{listed}}}"


def kl_in_loss(estimator: str, coefficient: float) -> str:
    inner = f"{{_partial_: true, _target_: rlvr.objective.kl.{estimator}}}"
    return f"+algorithm.kl={{_target_: rlvr.objective.kl.KL, coefficient: {coefficient}, estimator: {inner}}}"


def trl(name: str, call: dict, preset: str, *keys: str, **more: Any) -> Case:
    defaults = {"beta": 0.0} if call.get("trainer") == "RLOO" else {"beta": 0.0, "loss_type": "grpo"}
    return Case("trl", name, defaults | call, preset, keys, **more)


def on_vllm(mode: str, low: float | None, high: float | None) -> dict[str, Any]:
    bounds = {"vllm_importance_sampling_clip_min": low, "vllm_importance_sampling_clip_max": high}
    return {"use_vllm": True, "vllm_importance_sampling_mode": mode} | bounds


CAP5 = {"loss_type": "cispo", "epsilon": 0.2, "epsilon_high": 5.0}
GSPO = {"importance_sampling_level": "sequence", "epsilon": 3e-4, "epsilon_high": 4e-4}
OFF_POLICY = {"off_policy_mask_threshold": 0.05, "use_vllm": True, "vllm_importance_sampling_correction": False}
NO_STD = {"scale_rewards": "none"}
K3 = {"beta": 0.04, "use_bias_correction_kl": False}

TRL = [
    trl("grpo", K3, "grpo", EPS4),
    trl("grpo_no_kl", {}, "grpo_no_kl", EPS4),
    trl("bnpo", {"loss_type": "bnpo"}, "grpo_no_kl", EPS4, f"{WEIGHTING}token_mean"),
    trl("dapo, no overlong", {"loss_type": "dapo", "epsilon_high": 0.28}, "dapo", EPS4, NO_SHAPING),
    trl("dapo", {"loss_type": "dapo", "epsilon_high": 0.28, "overlong_buffer": 3}, "dapo", EPS4, "algorithm.shaping.buffer=0.25", world="whole_mask"),
    trl("dr_grpo", {"loss_type": "dr_grpo"} | NO_STD, "dr_grpo"),
    trl("cispo", CAP5, "cispo", EPS4),
    trl("gspo", GSPO, "gspo", EPS4),
    trl("sapo", {"loss_type": "sapo"}, "sapo", EPS4),
    trl("luspo", {"loss_type": "luspo"} | GSPO, "gspo", EPS4, f"{WEIGHTING}sequence_sum"),
    trl("two-sided clip (delta)", {"delta": 3.0}, "grpo_no_kl", EPS4, DUAL3),
    trl("TIS token_truncate", on_vllm("token_truncate", None, 1.2), "grpo_no_kl", EPS4, correction("token_truncate", cap=1.2)),
    trl("MIS token_mask", on_vllm("token_mask", 0.8, 1.25), "grpo_no_kl", EPS4, correction("token_mask", low=0.8, high=1.25)),
    trl("TIS sequence_truncate", on_vllm("sequence_truncate", None, 1.2), "grpo_no_kl", EPS4, correction("sequence_truncate", cap=1.2)),
    trl("MIS sequence_mask", on_vllm("sequence_mask", 0.5, 2.0), "grpo_no_kl", EPS4, correction("sequence_mask", low=0.5, high=2.0)),
    trl("KL unbiased (use_bias_correction_kl)", {"beta": 0.04}, "grpo", EPS4, UNBIASED),
    trl("off-policy mask", OFF_POLICY, "grpo_no_kl", EPS4, correction("off_policy_mask", threshold=0.05)),
    trl("deepseek_v32", {"beta": 0.01} | NO_STD | OFF_POLICY, "deepseek_v32", "algorithm.correction.threshold=0.05"),
    trl("olmo3", {"loss_type": "dapo", "epsilon_high": 0.28} | NO_STD | on_vllm("token_truncate", None, 2.0), "olmo3"),
    trl("olmo3 with the two-sided clip", {"loss_type": "dapo", "epsilon_high": 0.28, "delta": 3.0} | NO_STD | on_vllm("token_truncate", None, 2.0), "olmo3", DUAL3),
    trl("stable, no overlong", {"loss_type": "dapo", "epsilon_high": 0.28, "delta": 3.0} | on_vllm("token_truncate", None, 2.0), "stable", EPS4, NO_SHAPING),
    trl("gdpo", {"loss_type": "dapo", "epsilon_high": 0.28, "multi_objective_aggregation": "normalize_then_sum"}, "gdpo", weights=(1.0, 0.5)),
    trl("two reward parts", {}, "grpo_no_kl", EPS4, weights=(1.0, 0.5)),
    trl("rewards missing", {}, "grpo_no_kl", EPS4, "+algorithm.count_masked=true", world="missing"),
    trl("truncated masked, grpo", {"mask_truncated_completions": True}, "grpo_no_kl", EPS4, "+algorithm.train_on_truncated=false", "+algorithm.count_masked=true", world="truncated"),
    trl("truncated masked, dapo", {"mask_truncated_completions": True, "loss_type": "dapo"}, "grpo_no_kl", EPS4, f"{WEIGHTING}token_mean", "+algorithm.train_on_truncated=false", world="truncated"),
    trl("rloo, advantages", {"trainer": "RLOO"}, "rloo", world="whole_mask", compare=("advantages",)),
    trl("rloo, on-policy gradient", {"trainer": "RLOO"}, "rloo", f"{WEIGHTING}sequence_sum", world="on_policy whole_mask", compare=("advantages", "gradient")),
    trl("rloo, k1 in the reward", {"trainer": "RLOO", "beta": 0.05}, "rloo", kl_in_loss("k1", 0.05), "+algorithm.kl.place=reward", world="whole_mask", compare=("advantages",)),
    trl("scale_rewards=batch", {"scale_rewards": "batch"}, "reinforce_pp", "algorithm.kl.coefficient=0.0", f"{WEIGHTING}sequence_mean", differs="divides by the std of the raw rewards of the step; ours, as REINFORCE++-baseline, by that of the centred ones. No key"),
    trl("gspo + TIS token_truncate", GSPO | on_vllm("token_truncate", None, 1.2), "gspo", EPS4, correction("token_truncate", cap=1.2), differs="same loss; TRL's gradient of the completion's ratio spreads the tokens' weights evenly, ours (GSPO-token) keeps each with its token. Use sequence_truncate with gspo: equal"),
    trl("gspo + TIS sequence_truncate", GSPO | on_vllm("sequence_truncate", None, 1.2), "gspo", EPS4, correction("sequence_truncate", cap=1.2)),
    trl("gspo with k3", GSPO | K3, "gspo", EPS4, kl_in_loss("k3", 0.04)),
    trl("gspo with KL unbiased", GSPO | {"beta": 0.04}, "gspo", EPS4, kl_in_loss("unbiased", 0.04), differs="the KL term carries the completion's ratio too, ours the token's. No key; with k3 equal"),
    trl("rloo, off-policy loss", {"trainer": "RLOO"}, "rloo", SEQUENCE, world="whole_mask", differs="clips the *product* of the tokens' ratios; ours have the token's or the geometric mean. No key"),
    trl("vespo", {"loss_type": "vespo"}, "cispo", EPS4, differs="a gamma weight on the product of ratios. No key; a surrogate of one's own sees one token"),
]


def verl(name: str, call: dict, preset: str, *keys: str, **more: Any) -> Case:
    return Case("verl", name, {"estimator": "grpo", "agg": "token-mean"} | call, preset, keys, **more)


VANILLA = {"policy_loss": "vanilla"}
BY_SEQUENCE = {"agg": "seq-mean-token-mean"}
NOT_STD = {"estimator_settings": {"norm_adv_by_std_in_grpo": False}}
TOKEN_MEAN = f"{WEIGHTING}token_mean"
CUT = "cuts the estimate at 10, where its gradient ends; ours goes on to exp(20). No key"
LEAKS = "whitened per token, so a long completion counts more in mean and std, and an all-equal group gets an advantage"


def corrected(**settings: Any) -> dict[str, Any]:
    return VANILLA | BY_SEQUENCE | {"correction": settings}


VERL = [
    verl("grpo, token-mean (its default)", VANILLA, "grpo_no_kl", DUAL3, TOKEN_MEAN),
    verl("grpo, seq-mean-token-mean", VANILLA | BY_SEQUENCE, "grpo_no_kl", DUAL3),
    verl("grpo, seq-mean-token-sum", VANILLA | {"agg": "seq-mean-token-sum"}, "grpo_no_kl", DUAL3, f"{WEIGHTING}sequence_sum"),
    verl("dr_grpo, seq-mean-token-sum-norm", VANILLA | NOT_STD | {"agg": "seq-mean-token-sum-norm"}, "dr_grpo", DUAL3),
    verl("grpo with k3 (low_var_kl)", VANILLA | BY_SEQUENCE | {"kl": "low_var_kl", "kl_coef": 0.04}, "grpo", DUAL3),
    verl("grpo with k3, tokens far from the reference", VANILLA | BY_SEQUENCE | {"kl": "low_var_kl", "kl_coef": 0.04}, "grpo", DUAL3, world="far_ref", differs=CUT),
    verl("grpo with k2", VANILLA | BY_SEQUENCE | {"kl": "k2", "kl_coef": 0.04}, "grpo", DUAL3, K2),
    verl("grpo with k1", VANILLA | BY_SEQUENCE | {"kl": "k1", "kl_coef": 0.04}, "grpo", DUAL3, K1),
    verl("grpo with k3+", VANILLA | BY_SEQUENCE | {"kl": "k3+", "kl_coef": 0.04}, "grpo", DUAL3, K2, compare=("advantages", "gradient")),
    verl("dapo, no overlong", VANILLA | {"actor": {"clip_ratio_high": 0.28}}, "dapo", DUAL3, NO_SHAPING),
    verl("gspo", BY_SEQUENCE | {"policy_loss": "gspo", "actor": {"clip_ratio_low": 3e-4, "clip_ratio_high": 4e-4}}, "gspo"),
    verl("sapo", {"policy_loss": "sapo"}, "sapo"),
    verl("cispo", {"policy_loss": "cispo", "actor": {"clip_ratio_low": 1.0, "clip_ratio_high": 4.0}}, "cispo"),
    verl("gpg loss (REINFORCE)", {"policy_loss": "gpg"}, "cispo", "algorithm.surrogate.low=0.0", "algorithm.surrogate.high=0.0"),
    verl("rloo, on-policy gradient", {"estimator": "rloo"} | VANILLA | BY_SEQUENCE, "rloo", world="on_policy"),
    verl("rloo_vectorized", {"estimator": "rloo_vectorized"}, "rloo", compare=("advantages",)),
    verl("grpo_vectorized", {"estimator": "grpo_vectorized"}, "grpo_no_kl", compare=("advantages",)),
    verl("TIS token", corrected(rollout_is="token", rollout_is_threshold=1.2), "grpo_no_kl", DUAL3, correction("token_truncate", cap=1.2)),
    verl("TIS sequence", corrected(rollout_is="sequence", rollout_is_threshold=1.2), "grpo_no_kl", DUAL3, correction("sequence_truncate", cap=1.2)),
    verl("IcePop token", corrected(rollout_is="token", rollout_is_threshold="0.8_1.25"), "grpo_no_kl", DUAL3, correction("token_mask", low=0.8, high=1.25)),
    verl("IcePop sequence", corrected(rollout_is="sequence", rollout_is_threshold="0.5_2.0"), "grpo_no_kl", DUAL3, correction("sequence_mask", low=0.5, high=2.0)),
    verl("seq_mean_k1 rejection", {"agg": "token-mean"} | VANILLA | {"correction": {"rollout_rs": "seq_mean_k1", "rollout_rs_threshold": f"{1 / 1.05}_{1 / 0.9}"}}, "grpo_no_kl", DUAL3, TOKEN_MEAN, correction("geometric_mask", low=0.9, high=1.05)),
    verl("olmo3", VANILLA | NOT_STD | {"actor": {"clip_ratio_high": 0.28}, "correction": {"rollout_is": "token", "rollout_is_threshold": 2.0}}, "olmo3", DUAL3),
    verl("reinforce_plus_plus_baseline, one token a completion", {"estimator": "reinforce_plus_plus_baseline", "whole_completions": True}, "reinforce_pp", "algorithm.kl.coefficient=0.0", "algorithm.whitening.eps=0", compare=("advantages",), weights=(1.0,)),
    verl("gdpo, one token a completion", {"estimator": "gdpo", "whole_completions": True}, "gdpo", "algorithm.advantage.eps=1e-6", "algorithm.whitening.eps=0", weights=(1.0, 0.5), compare=("advantages",)),
    verl("reinforce_plus_plus_baseline", {"estimator": "reinforce_plus_plus_baseline"}, "reinforce_pp", "algorithm.kl.coefficient=0.0", "algorithm.whitening.eps=0", compare=("advantages",), differs=LEAKS),
    verl("gdpo", {"estimator": "gdpo"}, "gdpo", "algorithm.advantage.eps=1e-6", "algorithm.whitening.eps=0", weights=(1.0, 0.5), compare=("advantages",), differs=LEAKS),
    verl("geo_mean (GMPO)", {"policy_loss": "geo_mean"}, "gspo", differs="clips tokens before it takes their geometric mean. No key"),
    verl("dppo_tv", {"policy_loss": "dppo_tv"}, "cispo", differs="masks by the difference of probabilities. No key"),
    verl("clip_cov", {"policy_loss": "clip_cov"}, "grpo_no_kl", TOKEN_MEAN, differs="drops random tokens of high covariance of advantage and logprob. No key"),
]


def openrlhf(name: str, call: dict, preset: str, *keys: str, **more: Any) -> Case:
    return Case("openrlhf", name, {"estimator": "group_norm"} | call, preset, keys, **more)


def ppo(**settings: Any) -> dict[str, Any]:
    return {"loss": {"token_level_loss": False} | settings}


def is_correction(level: str, mode: str, low: float, high: float) -> dict[str, Any]:
    named = {"is_correction_level": level, "is_correction_mode": mode, "is_correction_threshold": (low, high)}
    return ppo(**named)


OPENRLHF = [
    openrlhf("group_norm, per token (its default)", ppo(token_level_loss=True), "grpo_no_kl", EPS9, TOKEN_MEAN),
    openrlhf("group_norm, per completion", ppo(), "grpo_no_kl", EPS9),
    openrlhf("group_norm with k3", ppo() | {"kl": "k3", "kl_coef": 0.04}, "grpo", EPS9),
    openrlhf("group_norm with k3, tokens far from the reference", ppo() | {"kl": "k3", "kl_coef": 0.04}, "grpo", EPS9, world="far_ref", differs=CUT),
    openrlhf("group_norm with k2", ppo() | {"kl": "k2", "kl_coef": 0.04}, "grpo", EPS9, K2),
    openrlhf("clip-higher and dual clip", ppo(clip_eps_high=0.28, dual_clip=3.0), "grpo_no_kl", EPS9, "algorithm.surrogate.high=0.28", DUAL3),
    openrlhf("dr_grpo", {"estimator": "dr_grpo"} | ppo(token_level_loss=True), "olmo3", "algorithm.surrogate.high=0.2", "algorithm.correction=null"),
    openrlhf("gspo", ppo(policy_loss_type="gspo", clip_eps_low=3e-4, clip_eps_high=4e-4), "gspo", EPS9),
    openrlhf("rloo, on-policy gradient", {"estimator": "rloo"} | ppo(), "rloo", world="on_policy"),
    openrlhf("TIS token clip", is_correction("token", "clip", 0.0, 1.2), "grpo_no_kl", EPS9, correction("token_truncate", cap=1.2)),
    openrlhf("IcePop token mask", is_correction("token", "mask", 0.8, 1.25), "grpo_no_kl", EPS9, correction("token_mask", low=0.8, high=1.25)),
    openrlhf("reinforce_baseline, one token a completion", {"estimator": "reinforce_baseline", "whole_completions": True}, "reinforce_pp", "algorithm.kl.coefficient=0.0", "algorithm.whitening.eps=0", "algorithm.whitening.ddof=0", compare=("advantages",)),
    openrlhf("reinforce_baseline", {"estimator": "reinforce_baseline"}, "reinforce_pp", "algorithm.kl.coefficient=0.0", "algorithm.whitening.eps=0", "algorithm.whitening.ddof=0", compare=("advantages",), differs=LEAKS),
]


def skyrl(name: str, call: dict, preset: str, *keys: str, **more: Any) -> Case:
    return Case("skyrl", name, {"estimator": "compute_grpo_outcome_advantage"} | call, preset, keys, **more)


def regular(reduction: str = "sequence_mean", **settings: Any) -> dict[str, Any]:
    return {"policy_loss": "ppo_policy_loss", "algorithm": {"loss_reduction": reduction} | settings}


MEAN_EPS = "adds 1e-6 to the mean it divides by. No key; prime-rl's, as read, adds nothing, like ours"

SKYRL = [
    skyrl("grpo, token_mean (its default)", regular("token_mean"), "grpo_no_kl", TOKEN_MEAN),
    skyrl("grpo, sequence_mean", regular(), "grpo_no_kl"),
    skyrl("dr_grpo, seq_mean_token_sum_norm", regular("seq_mean_token_sum_norm") | {"estimator_settings": {"grpo_norm_by_std": False}}, "dr_grpo"),
    skyrl("dual_clip", regular(policy_loss_type="dual_clip", eps_clip_high=0.28), "grpo_no_kl", "algorithm.surrogate.high=0.28", DUAL3),
    skyrl("gspo", regular(eps_clip_low=3e-4, eps_clip_high=4e-4) | {"policy_loss": "gspo_policy_loss"}, "gspo"),
    skyrl("sapo", regular() | {"policy_loss": "sapo_policy_loss"}, "sapo"),
    skyrl("cispo", regular("token_mean") | {"policy_loss": "compute_policy_loss_cispo"}, "cispo"),
    skyrl("TIS token", regular() | {"correction": {"tis_ratio_type": "token", "token_tis_ratio_clip_high": 1.2}}, "grpo_no_kl", correction("token_truncate", cap=1.2)),
    skyrl("TIS sequence", regular() | {"correction": {"tis_ratio_type": "sequence", "sequence_tis_ratio_clip_high": 1.2}}, "grpo_no_kl", correction("sequence_truncate", cap=1.2)),
    skyrl("geometric mask", regular() | {"correction": {"sequence_mask_metric": "geometric", "geo_mask_low": 0.9, "geo_mask_high": 1.05}}, "grpo_no_kl", correction("geometric_mask", low=0.9, high=1.05)),
    skyrl("rloo, advantages", {"estimator": "compute_rloo_outcome_advantage"}, "rloo", compare=("advantages",)),
    skyrl("maxrl, advantages", {"estimator": "compute_maxrl_advantage"}, "maxrl", compare=("advantages",), differs=MEAN_EPS),
]

CASES = [*TRL, *VERL, *OPENRLHF, *SKYRL]
