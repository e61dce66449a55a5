"""Small records for tests: every field that a test does not care about has a value that works."""

from collections.abc import Mapping, Sequence

from rlvr.types import Completion, Group, Outcome, Prompt, Provenance, StopReason, Verdict


def prompt(position: int = 0, token_ids: Sequence[int] = (1, 2), domain: str = "default") -> Prompt:
    question = ({"role": "user", "content": f"question {position}"},)
    return Prompt(f"train-{position}", position, question, tuple(token_ids), answer="5", domain=domain)


def completion(
    token_ids: Sequence[int] = (7, 8, 2),
    loss_mask: Sequence[bool] | None = None,
    rollout_logprobs: Sequence[float] | None = None,
    policy_version: int = 0,
    stop_reason: StopReason = "eos",
) -> Completion:
    return Completion(
        token_ids=tuple(token_ids),
        loss_mask=tuple(loss_mask) if loss_mask is not None else (True,) * len(token_ids),
        rollout_logprobs=tuple(rollout_logprobs) if rollout_logprobs is not None else (-0.5,) * len(token_ids),
        policy_version=policy_version,
        text=" ".join(map(str, token_ids)),
        stop_reason=stop_reason,
    )


def verdict(reward: float | None = 1.0, parts: Mapping[str, float] | None = None) -> Verdict:
    """`reward` None is a verifier that could not say."""
    provenance = (Provenance("math", "1"),)
    if reward is None:
        return Verdict(None, Outcome.ABSTAIN, provenance=provenance)
    return Verdict(reward, Outcome.OK, parts if parts is not None else {"math": reward}, provenance=provenance)


def group(
    rewards: Sequence[float | None], completions: Sequence[Completion] | None = None, of: Prompt | None = None
) -> Group:
    """One completion and one verdict for each reward."""
    completions = tuple(completions) if completions is not None else tuple(completion() for _ in rewards)
    return Group(of or prompt(), completions, tuple(verdict(reward) for reward in rewards))
