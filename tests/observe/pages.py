"""A run to make a page of, and what a page says."""

import re
from xml.dom import minidom

from rlvr.observe.runfolder import RunFolder
from rlvr.observe.summary import Summary
from rlvr.types import Completion, Group, Outcome, Prompt, Verdict


def verdict(reward, **more):
    outcome = Outcome.OK if reward is not None else Outcome.ERROR
    return Verdict(reward, outcome, {} if reward is None else {"math": reward}, "equal", **more)


def group(texts, prompt="train-1", answer="4"):
    completions = tuple(Completion((1,), (True,), (-0.1,), 1, text, "eos") for text in texts)
    rewards = [1.0, None, *[0.0] * len(texts)][: len(texts)]
    messages = ({"role": "user", "content": "<b>2+2</b>"},)
    verdicts = tuple(verdict(reward, answer=texts[0][:50]) for reward in rewards)
    return Group(Prompt(prompt, 1, messages, (1,), answer), completions, verdicts)


def write_run(path, steps=12, texts=("4", "5", "6"), summary=True):
    folder = RunFolder.create(path)
    folder.write_config("name: <i>toy</i>\n")
    folder.write_environment()
    folder.event("begin", "from the start", to=0)
    folder.event("evaluation", "held-out accuracy after step 0: greedy 15.0%", step=0, **{"eval/accuracy_greedy": 0.15})
    for step in range(1, steps + 1):
        row = {"reward/mean": step / 20, "reward/math": step / 20, "accuracy": step / 20, "policy/entropy": 1 / step}
        row |= {"policy/grad_norm": 0.5, "completions/length_mean": 30.0 + step, "time/step": 2.0, "time/rollout": 1.0}
        row |= {"passed/math": step / 20, "suspicious/math": 0.25, "fast_path/math": 0.9, "disagreement/math": 0.125}
        row |= {
            "masked/math": 0.0625,
            "outcomes/math/ok/equal": 5,
            "outcomes/math/error/crashed": 3,
            "tokens/per_s": 900.0,
        }
        folder.log(step, row)
        folder.write_completions(step, [group(texts), group(texts, "train-2")], [[1.0] * len(texts), None])
    folder.event("rollback", "kl 1.73 > 1.0: rolled back from step 9 to 5", step=9, to=5, alarm={})
    folder.event("warning", "one")
    folder.event("warning", "two")
    folder.event("evaluation", "held-out accuracy", step=steps, **{"eval/accuracy_greedy": 0.75})
    if summary:
        folder.write_summary(Summary("toy", 7, "stopped", steps, 75.0, 100.0, 900.0, 200, 1, 0.15, 0.75))
    folder.close()
    return path


def parsed(text):
    """A page must be well-formed; the elements it has."""
    assert text.startswith("<!doctype html>\n")
    return minidom.parseString(text.partition("\n")[2].encode(errors="backslashreplace"))


def words(text):
    return re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]*>", " ", text, flags=re.DOTALL))
