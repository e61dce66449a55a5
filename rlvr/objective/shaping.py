"""What the length of a completion adds to its reward [N,G]. Groups are filtered on the reward without it."""

from torch import Tensor


def overlong(lengths_NG: Tensor, max_tokens: int, buffer: float) -> Tensor:
    """DAPO's soft punishment (arXiv:2503.14476): 0 until the last `buffer` share of max_tokens, then down to -1.

    The paper's buffer is 4,096 of 20,480 tokens, a fifth. At max_tokens exactly, the penalty is -1.
    """
    buffer_tokens = buffer * max_tokens
    return (-(lengths_NG - (max_tokens - buffer_tokens)) / buffer_tokens).clamp(-1.0, 0.0)
