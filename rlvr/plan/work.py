"""What one trainer rank computes for a step: the trainer's own packing, of lengths that a plan supposes. Knows no time.

Behind a mask every token of a row attends to the whole row, what is hidden from it included; with flash attention to
what stands before it in its own document.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rlvr.plan.setting import Setting
from rlvr.train.packing import Layout, layout

GOLDEN = (math.sqrt(5) - 1) / 2  # whose multiples, in order, mix long and short ones evenly


@dataclass(frozen=True)
class Work:
    """A forward pass over everything once. Work(tokens=4096, attended=1e6, micro_batches=2)"""

    tokens: int
    """Of all rows, padding included."""
    attended: float
    """Positions that they attend to, all together."""
    micro_batches: int


def masked(setting: Setting) -> bool:
    """Whether a mask keeps the documents of a row apart, and not flash attention."""
    attention = setting.cfg.model.attention
    return attention in ("sdpa", "eager") or (attention == "auto" and (setting.device.cpu or setting.train_bytes == 4))


def shares_prompts(setting: Setting) -> bool:
    """Whether the trainer computes a prompt once for a group, as far as rows allow."""
    asked = setting.cfg.trainer.share_prompts
    return masked(setting) and setting.cfg.model.attention != "eager" if asked is None else asked


def work(setting: Setting) -> Work:
    """Of one rank, in one epoch of one step."""
    cfg, rollout, hidden = setting.cfg.trainer, setting.cfg.rollout, masked(setting)
    completions = rollout.groups_per_step * rollout.group_size * setting.trained
    count = max(round(completions / cfg.ranks / cfg.mini_batches), 1)
    prompt, sorted_lengths = max(round(setting.prompt_tokens), 1), setting.lengths(count)
    order = sorted(range(count), key=lambda n: n * GOLDEN % 1)
    lengths = [prompt + max(round(sorted_lengths[n]), 1) for n in order]
    prompts = [(n // rollout.group_size,) * prompt for n in range(count)]
    packed = layout(
        lengths,
        ranks=1,
        row_tokens=cfg.row_tokens if hidden else cfg.micro_batch_tokens,
        micro_batch_tokens=cfg.micro_batch_tokens,
        attention_tokens=setting.model.attention_tokens if hidden else math.inf,
        prompts=prompts if shares_prompts(setting) else (),
    )
    one = work_of(packed, lengths, prompt, hidden)
    n = cfg.mini_batches
    return Work(n * one.tokens, n * one.attended, n * one.micro_batches)


def work_of(packed: Layout, lengths: Sequence[int], prompt: int, hidden: bool) -> Work:
    """Of the first rank. `prompt`: tokens of each prompt; `hidden`: by a mask."""
    tokens, attended = 0, 0.0
    for rows in packed.micro_batches[0]:
        documents = [[sum(lengths[i] for i in one) - prompt * (len(one) - 1) for one in row] for row in rows]
        widths = [sum(row) for row in documents]
        if hidden:
            tokens += len(rows) * max(widths)
            attended += len(rows) * max(widths) ** 2
        else:
            tokens += sum(widths)
            attended += sum(length**2 / 2 for row in documents for length in row)
    return Work(tokens, attended, len(packed.micro_batches[0]))
