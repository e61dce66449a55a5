"""The accidents of scripts/divergences do what they say, once, and no more."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from rlvr.objective import Objective, advantages, ratios, surrogates, weightings

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def accidents():
    path = ROOT / "scripts" / "divergences" / "accidents.py"
    spec = importlib.util.spec_from_file_location("accidents_of_the_docs", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks there
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


class Steps:
    """A trainer that only remembers the learning rates and objectives that it was given."""

    def __init__(self):
        self.rates, self.objectives = [], []

    def step(self, batch, objective, learning_rate):
        self.rates.append(learning_rate)
        self.objectives.append(objective)
        return {}


def test_the_learning_rate_is_a_hundred_times_too_high_for_five_steps_and_never_again(accidents, parts_of):
    trainer = Steps()
    _, parts = accidents.hundredfold((None, parts_of(trainer)), Path())
    for _ in range(40):  # the trainer may be taken back to older weights in between: steps are counted all the same
        parts.trainer.step(None, None, 1.0)
    wrong = [accidents.HEALTHY + 1 + n for n, rate in enumerate(trainer.rates) if rate != 1.0]
    assert wrong == list(range(accidents.FROM, accidents.FROM + 5)) and max(trainer.rates) == 100.0


@pytest.fixture
def parts_of():
    from rlvr.parts import Parts

    def made(trainer):
        rest = [SimpleNamespace() for _ in range(4)]
        return Parts(trainer, *rest, lambda step: 1.0)

    return made


def test_a_bad_release_is_out_between_two_steps(accidents, parts_of, tmp_path):
    _, parts = accidents.bad_release((None, parts_of(Steps())), tmp_path, steps=3)
    out = []
    for taken in range(accidents.HEALTHY + 1, accidents.HEALTHY + 10):
        if (tmp_path / "bad_release").exists():  # as the groups of this step are judged
            out.append(taken)
        parts.trainer.step(None, None, 1.0)
    assert out == [accidents.FROM, accidents.FROM + 1, accidents.FROM + 2]


def test_a_flipped_bit_makes_one_weight_absurd(accidents):
    weight = torch.full((40, 40), 0.02)
    accidents.flip(weight)
    assert (weight != 0.02).sum() == 1 and weight.max() > 1e36


def test_the_poisoned_stretch_is_off_by_ten_and_the_rest_is_untouched(accidents, tmp_path):
    setting = accidents.off_by_ten(tmp_path, steps=2)
    assert setting == (f"data.train={tmp_path / 'train.jsonl'}", "trainer.learning_rate=2.4e-3")
    read = [(ROOT / "recipes" / "tiny" / "train.jsonl"), tmp_path / "train.jsonl"]
    good, bad = ([json.loads(line) for line in path.read_text().splitlines()] for path in read)
    begin = (accidents.FROM - 1) * accidents.GROUPS
    for i in range(begin, begin + 16):
        good[i]["answer"] = str(int(good[i]["answer"]) + 10)
    assert bad == good


def test_the_clip_is_gone_for_some_steps_and_comes_back(accidents, parts_of):
    algorithm = Objective(advantages.standardize, ratios.token, surrogates.clip, weightings.token_mean)
    trainer = Steps()
    _, parts = accidents.without_clip((algorithm, parts_of(trainer)), Path(), steps=3)
    for _ in range(9):
        parts.trainer.step(None, algorithm, 1.0)
    gone = [accidents.HEALTHY + 1 + n for n, o in enumerate(trainer.objectives) if o.surrogate is surrogates.unclipped]
    assert gone == [accidents.FROM, accidents.FROM + 1, accidents.FROM + 2]


def test_the_bonus_has_the_gradient_of_the_entropy(accidents):
    """Over all tokens, each weighted with its probability."""
    logits = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64, requires_grad=True)
    p = logits.softmax(0)
    (expected,) = torch.autograd.grad(-(p * p.log()).sum(), logits, retain_graph=True)
    none = lambda log_w, advantages, logprobs: torch.zeros_like(logprobs)  # noqa: E731
    gain = accidents.bonus(none, 1.0, None, None, logits.log_softmax(0))
    (found,) = torch.autograd.grad((p.detach() * gain).sum(), logits)
    assert torch.allclose(found, expected)


@pytest.mark.slow
def test_a_run_with_a_flipped_bit_comes_back_by_itself_and_is_ruined_without_the_sentinel(tmp_path):
    """The real command line, trainer, engine and verifiers; a minute or two."""
    out = tmp_path / "results.json"
    script = [sys.executable, str(ROOT / "scripts" / "divergences"), "--accidents", "nan", "--seeds", "0"]
    subprocess.run([*script, "--steps", "60", "--out", str(out)], check=True, cwd=tmp_path, timeout=900)
    off, on = json.loads(out.read_text())
    assert off["sentinel"] == "off" and off["end"] < off["best"] / 2
    assert on["end"] >= on["best"] - 0.02 and on["steps_taken"] <= 1.5 * on["last_step"]
    assert on["rollbacks"] == [off["first_alarm"]["detector"]]
