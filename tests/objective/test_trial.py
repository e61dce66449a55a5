"""An objective that cannot work is found out before a run is paid for."""

from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch

from rlvr.objective import Objective, advantages, corrections, kl, ratios, surrogates, weightings
from rlvr.objective.shaping import overlong
from rlvr.objective.trial import trial

GOOD = Objective(
    advantages.center, ratios.token, partial(surrogates.clip, low=0.2, high=0.2), weightings.token_mean,
    kl=kl.KL(kl.unbiased, {"chat": 0.1}), shaping=partial(overlong, max_tokens=8, buffer=0.25),
)  # fmt: skip


@pytest.mark.parametrize("size", [2, 8])
@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0, 0.5]])
def test_what_works_passes(size, weights):
    trial(GOOD, weights, size)
    trial(replace(GOOD, whitening=advantages.whiten), weights, size)
    trial(replace(GOOD, shaping=None), weights, size)


@pytest.mark.parametrize(
    ("change", "weights", "size", "says"),
    [
        ({"advantage": advantages.decouple}, [1.0], 8, "at least 2 parts"),
        ({"advantage": advantages.decouple, "shaping": None}, [1.0, 0.0], 8, "at least 2 parts"),
        ({"advantage": advantages.leave_one_out}, [1.0], 1, "at least 2"),
        ({"advantage": lambda r: r.total_NG.sum(1)}, [1.0], 4, "Dimension out of range"),
        ({"advantage": lambda r: r.total_NG[:, :1]}, [1.0], 4, r"advantages of one group of 4 .* finite \[1,4\]"),
        ({"advantage": lambda r: r.total_NG / 0}, [1.0], 4, "must be finite"),
        ({"advantage": lambda r: r.total_NG / torch.tensor([1.0, 1.0, 1.0, 0.0])}, [1.0], 4, "must be finite"),
        ({"advantage": partial(advantages.standardize, eps=0.0)}, [1.0], 4, "all of the same reward, must be finite"),
        ({"shaping": lambda lengths: 1 / (64 - lengths)}, [1.0], 4, "must be finite"),
        ({"weighting": lambda mask, counted: mask.sum(1)}, [1.0], 4, "weighting made"),
        ({"surrogate": lambda w, a, lp: (w * a).mean(1, keepdim=True)}, [1.0], 4, r"surrogate made \(4, 1\) of"),
        ({"surrogate": lambda w, a, lp: (w * a).mean()}, [1.0], 4, r"surrogate made \(\) of \(4, 3\)"),
        ({"ratio": lambda log_ratio, mask: log_ratio.mean(1, keepdim=True)}, [1.0], 4, r"ratio made \(4, 1\)"),
        ({"correction": lambda mismatch: mismatch.sum_B1.exp()}, [1.0], 4, r"correction made \(4, 1\) of \(4, 3\)"),
        ({"kl": kl.KL(lambda now, ref, ratio: (now - ref).mean(), 0.1)}, [1.0], 4, r"kl.estimator made \(\)"),
        ({"shaping": lambda lengths: torch.tensor(0.0)}, [1.0], 4, r"shaping made \(\) of \(1, 4\)"),
        ({"whitening": lambda a, valid: a[valid].std()}, [1.0], 4, r"whitening made \(\) of \(1, 4\)"),
        ({"advantage": lambda r: r.total_NG.numpy()}, [1.0], 4, "advantage made a ndarray, no tensor"),
        ({"advantage": lambda r: r.total_NG.tolist()}, [1.0], 4, "advantage made a list, no tensor"),
        ({"advantage": lambda r: None}, [1.0], 4, "advantage made a NoneType, no tensor"),
        ({"weighting": lambda mask, counted: mask * torch.inf}, [1.0], 4, "finite gradient"),
        ({"surrogate": lambda w, a, lp: (a * lp).detach(), "kl": None}, [1.0], 4, "gradient|require grad"),
        ({"surrogate": lambda w, a, lp: w * torch.inf, "kl": None}, [1.0], 4, "finite gradient"),
        ({"surrogate": lambda w, a, lp: w * torch.tensor([1.0, 1.0, torch.inf])}, [1.0], 4, "finite gradient"),
        ({"surrogate": lambda w, a, lp: (w + 1.5).sqrt() * a}, [1.0], 4, "finite gradient"),  # nan far from pi_old
        ({"surrogate": lambda w, a, lp: w.clamp(min=0.1) * a}, [1.0], 4, "would teach nothing"),
        ({"correction": lambda mismatch: torch.zeros_like(mismatch.delta_BT)}, [1.0], 4, "would teach nothing"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(change, weights, size, says):
    with pytest.raises((ValueError, IndexError), match=says):
        trial(replace(GOOD, **change), weights, size, 64)


@pytest.mark.parametrize("advantage", [advantages.decouple, partial(advantages.decouple, ddof=0)])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kl": kl.KL(kl.k1, 0.01, place="reward")}, r"its coefficient means nothing; set algorithm\.kl\.place=loss"),
        ({"shaping": GOOD.shaping}, r"its size means nothing; set algorithm\.shaping=null"),
    ],
)
def test_what_is_added_to_the_reward_would_be_normalised_with_its_parts(advantage, change, says):
    apart = replace(GOOD, advantage=advantage, shaping=None)
    trial(apart, [1.0, 1.0], 8)
    trial(replace(apart, kl=kl.KL(kl.k1, 0.0, place="reward")), [1.0, 1.0], 8)  # no penalty
    with pytest.raises(ValueError, match=says):
        trial(replace(apart, **change), [1.0, 1.0], 8)
    for other in (advantages.center, advantages.standardize, advantages.leave_one_out, advantages.mean_normalize):
        trial(replace(apart, advantage=other, **change), [1.0, 1.0], 8)


@pytest.mark.parametrize("estimator", [kl.k2, kl.k3, kl.unbiased])
def test_a_penalty_in_the_reward_that_knows_no_direction_is_refused(estimator):
    with pytest.raises(ValueError, match=r"kl\.place=reward with .* further from what it has left; use .*kl\.k1"):
        trial(replace(GOOD, kl=kl.KL(estimator, 0.1, place="reward")), [1.0], 4)
    trial(replace(GOOD, kl=kl.KL(estimator, 0.1)), [1.0], 4)
    trial(replace(GOOD, kl=kl.KL(kl.k1, 0.1, place="reward")), [1.0], 4)


def test_a_penalty_in_the_reward_is_tried_on_tokens_that_the_policy_has_left():
    asked = []

    def tried(answer):
        def estimator(now, ref, log_ratio):
            asked.append([each.tolist() for each in (now, ref, log_ratio)])
            return torch.tensor([answer]) if len(asked) == 1 else now - ref

        asked.clear()
        trial(replace(GOOD, kl=kl.KL(estimator, 0.1, place="reward")), [1.0], 4)

    tried([-1.0, -1.0, -1.0])
    assert asked[0] == [[[-2.0] * 3], [[-1.0] * 3], [[0.0] * 3]]
    for paid in ([-1.0, 0.0, -1.0], [0.0, 0.0, 0.0]):
        with pytest.raises(ValueError, match="place=reward"):
            tried(paid)


@pytest.mark.parametrize(("estimator", "holds"), [(kl.k1, True), (kl.k2, False), (kl.k3, False)])
def test_in_the_reward_only_k1_brings_a_policy_back(estimator, holds):
    """Four tokens, rewards that know none of them; exact policy gradients of the penalty alone."""
    ref_4 = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64).log()
    logits_4 = torch.tensor([0.1, 0.5, 0.3, 0.1], dtype=torch.float64).log().requires_grad_()

    def apart() -> float:
        now_4 = logits_4.detach().log_softmax(0)
        return float((now_4.exp() * (now_4 - ref_4)).sum())

    began = apart()
    for _ in range(400):
        now_4 = logits_4.log_softmax(0)
        penalty_4 = estimator(now_4.detach(), ref_4, torch.zeros(4))
        slope_4 = torch.autograd.grad((now_4.exp() * penalty_4).sum(), logits_4)[0]
        logits_4 = (logits_4 - 0.5 * slope_4).detach().requires_grad_()
    assert (apart() < 1e-3) == holds and (apart() > began / 3) != holds


@dataclass
class Scaled:
    """One's own, and without a hash."""

    by: float = 2.0

    def __call__(self, rewards):
        return self.by * advantages.center(rewards)


def own_correction(mismatch, corrections):
    return torch.ones_like(mismatch.delta_BT)


@pytest.mark.parametrize(
    "change",
    [
        {"advantage": Scaled()},
        {"correction": partial(own_correction, corrections=None)},
        {"surrogate": lambda w, a, lp: w.exp() * a * (1 - lp.exp()).pow(1.5)},  # nan for a logprob above 0
        {"whitening": lambda a, valid: (a - a[valid].mean()) / a[valid].std() * valid},  # nan where all are equal
        {"kl": kl.KL(lambda now, ref, ratio: (now - ref) * (1 - ref.exp()).pow(1.5), 0.1)},  # nan for one above 0
    ],
    ids=["no hash", "a word of ours", "of probabilities", "whitening", "of the reference's probabilities"],
)
def test_what_works_in_training_passes(change):
    trial(replace(GOOD, **change), [1.0], 4)


def test_a_whitening_that_sees_groups_that_agree_must_take_them():
    own = {"whitening": lambda a, valid: (a - a[valid].mean()) / a[valid].std() * valid, "no_signal": "keep"}
    with pytest.raises(ValueError, match="all of the same reward, must be finite"):
        trial(replace(GOOD, **own), [1.0], 4)


def test_what_teaches_a_part_of_the_tokens_passes():
    trial(replace(GOOD, surrogate=lambda w, a, lp: w * a.clamp(min=0), kl=None), [1.0], 4)
    trial(replace(GOOD, correction=corrections.geometric_mask), [1.0], 4)  # engine and trainer agree there


def test_an_advantage_of_nothing_for_some_does_not_excuse_the_others():
    pair = torch.tensor([[1.0, -1.0, 0.0, 0.0]])
    with pytest.raises(ValueError, match="would teach nothing"):
        trial(replace(GOOD, advantage=lambda r: pair, surrogate=lambda w, a, lp: w.clamp(min=0.1) * a), [1.0], 4)


def test_an_advantage_of_nothing_need_not_teach():
    """MaxRL with penalties alone: every mean is below 0, every advantage 0."""
    trial(replace(GOOD, advantage=advantages.mean_normalize, shaping=None), [-1.0], 4)


def test_a_slot_that_takes_other_arguments_is_a_type_error():
    with pytest.raises(TypeError) as refused:
        trial(replace(GOOD, ratio=lambda log_ratio: log_ratio), [1.0], 4)
    assert refused.value.__notes__ == ["algorithm.ratio"]


def test_an_advantage_that_breaks_the_judging_of_groups_is_named():
    with pytest.raises(IndexError) as refused:
        trial(replace(GOOD, advantage=lambda r: r.total_NG.sum(1)), [1.0], 4)
    assert refused.value.__notes__ == ["algorithm.advantage"]


def test_a_trial_leaves_the_streams_of_random_numbers_alone():
    before = torch.get_rng_state()
    trial(GOOD, [1.0], 4)
    assert torch.equal(torch.get_rng_state(), before)


@dataclass(frozen=True)
class ByName(Objective):
    """A user's own, which calls its slots by the names of their arguments."""

    def signal(self, rewards):
        return (self.advantage(rewards=rewards) != 0).any(1)

    def advantages(self, rewards):
        return self.whitening(advantages_NG=self.advantage(rewards), valid_NG=rewards.valid_NG)


def test_a_slot_may_be_called_by_the_names_of_its_arguments():
    trial(ByName(**vars(replace(GOOD, whitening=advantages.whiten))), [1.0], 4)
    one = {"whitening": lambda advantages_NG, valid_NG: advantages_NG.sum()}
    with pytest.raises(ValueError, match=r"whitening made \(\) of \(1, 4\)"):
        trial(ByName(**vars(replace(GOOD, **one))), [1.0], 4)


def test_every_slot_is_called_with_what_it_is_called_with_in_training():
    seen: dict[str, list] = {}

    def spied(name, function):
        def call(*arguments):
            seen.setdefault(name, []).append(arguments)
            return function(*arguments)

        return call

    slots = {
        name: spied(name, getattr(GOOD, name)) for name in ("advantage", "ratio", "surrogate", "weighting", "shaping")
    }
    trial(replace(GOOD, **slots, kl=kl.KL(spied("kl", kl.k3), 0.1)), [0.9, 0.1], 4, 64)
    (plain,), (more,) = seen["advantage"][0], seen["advantage"][-1]
    assert plain.parts_NGK.shape == (1, 4, 2) and plain.weights_K.tolist() == [0.9, 0.1] and plain.valid_NG.all()
    assert len(plain.parts_NGK.unique()) == 8, "rewards that differ, or there would be no advantage"
    assert more.weights_K.tolist() == [0.9, 0.1, 1.0]  # the shaping joined
    (lengths_NG,) = seen["shaping"][0]
    T = int(lengths_NG[0, 0])
    assert (lengths_NG == T).all() and lengths_NG.shape == (1, 4)
    (others_NG,) = seen["shaping"][1]
    assert others_NG.tolist() == [[1.0, 22.0, 43.0, 64.0]] and others_NG.dtype == torch.float64
    for mask_BT in (*seen["weighting"][0], seen["ratio"][0][1]):
        assert torch.equal(mask_BT, torch.ones(4, T))
    log_ratio_BT, (_, advantages_B1, logprobs_BT) = seen["ratio"][0][0], seen["surrogate"][0]
    assert torch.equal(log_ratio_BT, logprobs_BT) and (logprobs_BT != 0).all()  # the old ones are 0
    assert advantages_B1.shape == (4, 1) and advantages_B1.dtype == torch.float32 and advantages_B1.all()
    assert torch.equal(seen["kl"][0][1], torch.zeros(4, T))
