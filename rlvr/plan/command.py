"""`rlvr plan`: what a recipe needs and costs on named devices. Starts nothing, reads no data and no weights."""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf
from typing import Any

from rlvr import config
from rlvr.config import Recipe, RecipeError
from rlvr.plan.devices import DEVICES, find
from rlvr.plan.model import read
from rlvr.plan.report import Report, as_json, in_words, report
from rlvr.plan.setting import Setting

OF_A_TOOL = ("calls", "answer_tokens", "tool_s")
MAY_BE_0 = ("verify_s", "calls", "tool_s", "price")
Compose = Callable[[str, Sequence[str], str | None], Recipe]


def add_parser(commands: Any, recipe_of: Compose) -> None:
    one = commands.add_parser("plan", help="what a recipe needs and costs on named GPUs, before anything is paid for")
    one.add_argument("recipe", help="a recipe's name, or a path to a .yaml file")
    one.add_argument("overrides", nargs="*", help="key=value, e.g. trainer.zero_stage=3")
    one.add_argument("--gpu", default="h100", help=f"{', '.join(DEVICES)}, or a .json file of scripts/bench/device.py")
    one.add_argument("--count", type=int, help="how many devices there are (default: as many as the recipe uses)")
    one.add_argument("--price", type=float, help="what a device costs, in USD an hour (default: the list's)")
    one.add_argument(
        "--tokens", type=float, help="mean that the policy writes in a completion (default: half of rollout.max_tokens)"
    )
    one.add_argument("--prompt-tokens", type=float, help="mean length of a prompt (default: 200, where there is room)")
    one.add_argument("--sampled", type=float, default=1.0, help="groups sampled for each that is wanted (1)")
    one.add_argument("--trained", type=float, default=1.0, help="groups trained on for each that is wanted (1)")
    one.add_argument("--verify-s", type=float, default=0.01, help="seconds that a verdict takes (0.01)")
    one.add_argument(
        "--calls", type=float, help="answers of rollout.tool in a completion (default: half of rollout.tool.max_calls)"
    )
    one.add_argument("--answer-tokens", type=float, help="mean length of one (default: 100, where there is room)")
    one.add_argument("--tool-s", type=float, help="seconds that one takes (default: 0.01)")
    one.add_argument("--model-config", help="a config.json, where model.path is neither here nor known")
    one.add_argument("--config-dir", help="a folder with your own recipes")
    one.add_argument("--json", action="store_true", help="all numbers, for a program to read")
    one.set_defaults(command=lambda args: run(args, recipe_of))


def run(args: argparse.Namespace, recipe_of: Compose) -> int:
    """Exit code 3 when the recipe does not fit the devices."""
    cfg = recipe_of(args.recipe, args.overrides, args.config_dir)
    made = plan(cfg, args)
    print(json.dumps(as_json(made), indent=2) if args.json else in_words(made))
    return 3 if made.problems else 0


def plan(cfg: Recipe, args: argparse.Namespace) -> Report:
    config.check(cfg)
    for name in ("count", "tokens", "prompt_tokens", "sampled", "trained", "verify_s", *OF_A_TOOL, "price"):
        value = getattr(args, name)
        if value is not None and not (0 < value < inf or (value == 0 and name in MAY_BE_0)):
            least = "at least" if name in MAY_BE_0 else "above"
            raise RecipeError(f"--{name.replace('_', '-')} {value}: must be {least} 0, and finite")
    device = find(args.gpu)
    if args.price is not None:
        device = replace(device, price=args.price)
    tokens = args.tokens or cfg.rollout.max_tokens / 2
    if tokens > cfg.rollout.max_tokens:
        raise RecipeError(f"--tokens {tokens:g} > rollout.max_tokens={cfg.rollout.max_tokens}")
    room = cfg.model.max_context - cfg.rollout.max_tokens
    prompt_tokens = args.prompt_tokens or min(200.0, room)
    if prompt_tokens > room:
        raise RecipeError(f"--prompt-tokens {prompt_tokens:g} > {room} = model.max_context - rollout.max_tokens")
    model = read(args.model_config or cfg.model.path)
    setting = Setting(
        cfg, device, model, 0, prompt_tokens, tokens, args.sampled, args.trained, args.verify_s,
        *calls(cfg, tokens, args),
    )  # fmt: skip
    return report(replace(setting, count=args.count or (1 if device.cpu else setting.needed)))


def calls(cfg: Recipe, tokens: float, args: argparse.Namespace) -> tuple[float, float, float]:
    """Of a completion in which the policy writes so many tokens: answers of a tool, tokens and seconds of one."""
    tool, limit = cfg.rollout.tool, cfg.rollout.max_tokens
    if tool.name is None:
        for name in OF_A_TOOL:
            if (value := getattr(args, name)) is not None:
                raise RecipeError(f"--{name.replace('_', '-')} {value:g}: the recipe has no rollout.tool.name")
        return 0.0, 0.0, 0.0
    asked = tool.max_calls / 2 if args.calls is None else args.calls
    if asked > tool.max_calls:
        raise RecipeError(f"--calls {asked:g} > rollout.tool.max_calls={tool.max_calls}")
    room = (limit - tokens) / asked if asked else limit
    answer_tokens = args.answer_tokens or min(100.0, room / 2)
    if answer_tokens > room:
        raise RecipeError(
            f"--answer-tokens {answer_tokens:g} > {room:g}: with --tokens {tokens:g}, --calls {asked:g} of them must "
            f"fit into rollout.max_tokens={limit}"
        )
    return asked, answer_tokens, 0.01 if args.tool_s is None else args.tool_s
