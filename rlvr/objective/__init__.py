"""The GRPO family as four small functions and one sum. Pure torch: no Ray, no I/O, no config.

    J(theta) = sum over i,t of  u_it * ( c_it * surrogate(log w_it, A_i)  -  beta_i * KL_it )

    A       advantage    rewards of all groups [N,G,K]             -> [N,G], then whitening over the step; optional
    log w   ratio        log pi/pi_old [B,T], mask [B,T]           -> [B,T]
    .       surrogate    log w [B,T], A [B,1], log pi [B,T]        -> [B,T]
    u       weighting    mask, counted [B,T]                       -> [B,T], once per optimizer step
    c       correction   log pi_old/pi_rollout [B,T], ...          -> [B,T], the engine/trainer mismatch; optional
    KL      estimator    log pi, log pi_ref, log pi/pi_old [B,T]   -> [B,T]; optional, or in the reward

Shape letters: N groups, G completions of a group, K reward parts, B completions in the optimizer step, T tokens.
"""

from rlvr.objective.objective import Batch, Objective, Statistics
from rlvr.objective.rewards import Rewards

__all__ = ["Batch", "Objective", "Rewards", "Statistics"]
