"""The learning rate as a function of the step alone, so that a resume or a rollback needs no scheduler state."""

import math

from rlvr.config import RecipeError, TrainerConfig

SHAPES = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1.0 - progress,
    "cosine": lambda progress: (1.0 + math.cos(math.pi * progress)) / 2,
}


def learning_rate(cfg: TrainerConfig, step: int, steps: int) -> float:
    """Of the optimizer step that follows `step` finished ones, of `steps` in all."""
    if cfg.schedule not in SHAPES:
        raise RecipeError(f"trainer.schedule={cfg.schedule}: one of {', '.join(SHAPES)}")
    if step < cfg.warmup_steps:
        return cfg.learning_rate * (step + 1) / cfg.warmup_steps
    progress = (step - cfg.warmup_steps) / max(steps - cfg.warmup_steps, 1)
    return cfg.learning_rate * SHAPES[cfg.schedule](progress)
