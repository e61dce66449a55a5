"""The command line, killed in the middle. A line of JSON for each run comes in, [PHASE, COUNT, words of rlvr ...]: it
is killed at the COUNTth time that PHASE is reached; PHASE `none` lets it live, and `stop` asks it to end after step
COUNT, or kills it where that was done already. A line with its return code goes out. Each is a process of its own,
forked from this one, which has imported what takes a while and done nothing else. In every run the batch of one place
in the data breaks the run.
"""

import json
import math
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rlvr import cli
from rlvr.checkpoint import writer
from rlvr.checkpoint.ledger import Ledger
from rlvr.rollout.pipeline import InlinePipeline
from rlvr.rollout.rollouts import SampledRollouts
from rlvr.rollout.transformers import TransformersEngine
from rlvr.train.deepspeed import DeepSpeedTrainer

BROKEN_CURSOR = 20  # of four groups a step without refills: the batch of step 6


def main() -> None:
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            os.dup2(2, 1)
            os._exit(run(*json.loads(line)))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def run(phase: str, left: int, *words: str) -> int:

    def reach(name: str) -> None:
        nonlocal left
        if name == phase:
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    def before(name: str, owner: Any, method: str) -> None:
        wrap(owner, method, lambda original, *args, **kw: (reach(name), original(*args, **kw))[1])

    before("sampling", TransformersEngine, "_begin")
    before("verifying", InlinePipeline, "groups")
    before("backward", DeepSpeedTrainer, "_forward_backward")
    before("optimizer", DeepSpeedTrainer, "_step")
    before("transfer", InlinePipeline, "load_weights")
    before("scoring", DeepSpeedTrainer, "score")
    before("note", Ledger, "write")
    before("loading", DeepSpeedTrainer, "load")
    before("writing", writer, "written")

    def take(original: Callable, self: SampledRollouts, state: Any) -> Any:
        if phase == "stop" and state.step + 1 >= left:
            os.kill(os.getpid(), signal.SIGTERM if state.step + 1 == left else signal.SIGKILL)
        taken = original(self, state)
        broken = {"policy/kl_ref": math.nan} if state.cursor == BROKEN_CURSOR else {}
        return replace(taken, metrics=dict(taken.metrics) | broken)

    wrap(SampledRollouts, "take", take)
    return cli.main(words)


def wrap(owner: Any, name: str, around: Callable) -> None:
    original = getattr(owner, name)
    setattr(owner, name, lambda *args, **kw: around(original, *args, **kw))


if __name__ == "__main__":
    main()
