"""Does a policy say of packed documents what its model says of each alone? Found out on a few tokens, before a step.

    alone    [ b ]          what all others must say of b, up to rounding
    whole    [ b ]          by the model's own forward pass: its logits, whatever is done to them behind the head
    packed   [ a | b ]      a state that runs along the row, as in linear attention, would carry a into b
    shared   [ prompt | rest of a | rest of b ]

Nothing else would tell: engines score the probe one document at a time.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rlvr.config import RecipeError
from rlvr.objective import Batch
from rlvr.probe import tolerated
from rlvr.train.packing import Row
from rlvr.train.policy import pack

PROMPT, LENGTH = 2, 16  # tokens of each document


@torch.no_grad()
def prove(policy: Any, named: str, tolerance: float | None, device: torch.device, shares: bool) -> None:
    """RecipeError, with `named` (key=value of the recipe) and the reason, where the logprobs of a token differ by more
    than `tolerance` nats (None: `tolerated`). Collective: all ranks of a sharded policy call it."""
    lm = getattr(policy, "module", policy).lm  # a DeepSpeed engine holds the policy
    limit = tolerated(tolerance, exact=lm.dtype == torch.float32)
    generator = torch.Generator().manual_seed(0)
    token_ids_BT = torch.randint(lm.config.get_text_config().vocab_size, (2, LENGTH), generator=generator)
    token_ids_BT[1, :PROMPT] = token_ids_BT[0, :PROMPT]
    batch = replace(Batch.of_tokens(token_ids_BT), prompts_B=torch.tensor([PROMPT, PROMPT]))

    def of_b(row: Row, begin: int = 1, whole: bool = False) -> Tensor:
        select_BT = torch.zeros(2, LENGTH)
        select_BT[1, begin:] = 1.0
        packed = pack(batch, [row], select_BT).to(device)
        logprobs_N, _ = policy(packed, 1.0, LENGTH, whole=whole)
        return logprobs_N.float().cpu()

    def agree(said_N: Tensor, why: str) -> None:
        off = float((said_N - alone_N[-len(said_N) :]).abs().max())
        if not off <= limit:
            raise RecipeError(f"{named}: {why}; logprobs differ by {off:.3g} > {limit:g} (trainer.probe_tolerance)")

    with torch.compiler.set_stance("force_eager"):  # not worth what compiling takes
        alone_N = of_b([[1]])
        if not alone_N.isfinite().all():
            raise RecipeError(f"{named}: its logprobs are no numbers")
        agree(
            of_b([[1]], whole=True),
            "this model scales or caps its logits, which the trainer's head does not: Llama, Mistral and Qwen models "
            "can be trained",
        )
        agree(
            of_b([[0], [1]]),
            "in this model a completion sees the one before it in its row, as where layers of linear attention, "
            "convolutions or state spaces run along it, or attention has sinks: it cannot be trained on packed rows",
        )
        if shares:
            agree(
                of_b([[0, 1]], PROMPT),
                "in this model completions behind one prompt see one another: trainer.share_prompts=false",
            )
