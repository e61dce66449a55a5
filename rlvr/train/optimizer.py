"""AdamW that refuses a gradient that is not finite. Knows no DeepSpeed: ZeRO hands it shards, stage 0 whole tensors."""

import math

import torch
import torch.distributed as dist


class GuardedAdamW(torch.optim.AdamW):
    """A non-finite gradient on any rank skips the step on all of them, before the weights or the moments see it.

    It sits below ZeRO, so that one check serves every stage. ZeRO-3 may step in several sub-groups; the global norm has
    spread a nan to all of them by then, as clipping divides every gradient by it.
    """

    def __init__(self, params, max_norm: float | None = None, device: torch.device | None = None, **kwargs):
        """`max_norm` clips here, for gradients that arrive whole (float32 at stage 0); None: ZeRO has clipped. `device`
        is where the ranks talk to each other: NCCL takes nothing in host memory, where an offloaded optimizer lives.
        None: where the gradients are."""
        super().__init__(params, **kwargs)
        self.max_norm = max_norm
        self.device = device
        self.skipped = False
        self.norm: float | None = None  # of the last gradient before clipping, when it was clipped here

    @torch.no_grad()
    def step(self, closure=None):
        parameters = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        if self.max_norm is not None:
            self.norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.max_norm))
        finite = torch.ones((), device=parameters[0].device if parameters else None)
        for parameter in parameters:
            if parameter.grad.numel():  # the largest is nan where one is; isfinite() would make 7 bytes an element
                finite *= torch.linalg.vector_norm(parameter.grad, math.inf).isfinite()
        if dist.is_initialized() and dist.get_world_size() > 1:
            finite = finite.to(self.device or finite.device)
            dist.all_reduce(finite, op=dist.ReduceOp.MIN)
        self.skipped = not bool(finite)
        return None if self.skipped else super().step(closure)
