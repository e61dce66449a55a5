"""Before anything is compiled because a recipe says so: what would silently leave it as it is."""

import torch

RECOMPILED = 32  # times that one piece of code may be; after torch's 8 it would run as it is


def enable() -> None:
    """Of this process. On a CPU the vLLM engine switches compilation off for its own helpers."""
    torch._dynamo.config.disable = False
    torch._dynamo.config.recompile_limit = RECOMPILED
    torch._dynamo.config.specialize_float = True  # a scale never changes; else all is traced twice to find that out
