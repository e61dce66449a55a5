"""Engines and verifier workers that die: what they had to do is done by others, and they are replaced."""

import os
import signal
import time

import pytest

from rlvr.types import Outcome, Sampling
from tests.cluster.conftest import NOTHING, prompts

pytestmark = pytest.mark.slow


def kill(ray, seat) -> None:
    os.kill(ray.get(seat.actor.process.remote()), signal.SIGKILL)


def looked(groups) -> list[list[float]]:
    return [[v.parts["look"] for v in g.verdicts] for g in sorted(groups, key=lambda g: g.prompt.position)]


@pytest.mark.parametrize("engines", [1, 2])
def test_an_engine_that_dies_in_mid_sampling_costs_nothing_but_time(ray, pipeline, seen, engines):
    pipe = pipeline(nap_engine=0.05, engines=engines)
    arriving = pipe.groups(prompts(6), Sampling(4, 1.0, 8))
    first = next(arriving)
    kill(ray, pipe.seats.all[0])
    assert looked([first, *arriving]) == [[n + i for i in range(4)] for n in range(6)]
    assert any("engine 0 died" in text and "replaced" in text for text in pipe.told)


def test_its_successor_samples_only_once_it_holds_the_weights(ray, pipeline):
    pipe = pipeline(nap_engine=0.05, engines=1)
    brought = []
    bring = pipe.bring

    def later(destination):
        brought.append(destination)
        return bring(destination)

    pipe.bring = later
    arriving = pipe.groups(prompts(4), Sampling(4, 1.0, 8))
    kill(ray, pipe.seats.all[0])
    assert {c.policy_version for group in arriving for c in group.completions} == {7}
    assert len(brought) == 1


def test_an_engine_that_dies_before_a_publication_is_found_by_it(ray, pipeline):
    pipe = pipeline(engines=2)
    kill(ray, pipe.seats.all[1])
    time.sleep(1)
    loaded = pipe.load_weights(NOTHING, 8, [1, 2])
    assert loaded.nbytes == 0 and loaded.scores() == {"engine 0": [8.0]}  # of the one that is there
    pipe.bring = lambda destination: destination.load_weights(NOTHING, 8, [1, 2])
    assert {c.policy_version for g in pipe.groups(prompts(4), Sampling(4, 1.0, 8)) for c in g.completions} == {8}


@pytest.mark.parametrize("noticed", [True, False])
def test_where_it_shares_a_gpu_training_waits_until_its_successor_is_there_and_asleep(ray, pipeline, noticed):
    pipe = pipeline(engines=2)
    pipe.cfg.cluster.placement = "colocated"
    kill(ray, pipe.seats.all[1])
    time.sleep(1)
    if noticed:
        assert list(pipe.of(pipe.seats.all, "policy_version")) == ["engine 0"]
    pipe.rest()
    assert [(seat.up, seat.lives) for seat in pipe.seats.all] == [(True, 0), (True, 1)]
    assert ray.get([seat.actor.asleep.remote() for seat in pipe.seats.all]) == [True, True]
    assert any("engine 1 died" in text for text in pipe.told)
    pipe.bring(pipe)
    assert len(list(pipe.groups(prompts(4), Sampling(4, 1.0, 8)))) == 4


def test_deaths_without_end_are_the_end_in_words(ray, pipeline):
    from rlvr.cluster.calls import WorkerLost

    pipe = pipeline(nap_engine=0.1, engines=1, restarts=0)
    arriving = pipe.groups(prompts(4), Sampling(4, 1.0, 8))
    kill(ray, pipe.seats.all[0])
    with pytest.raises(WorkerLost, match=r"engine 0 died .* no more than cluster.restarts=0"):
        list(arriving)


def test_an_actor_that_finds_the_recipe_wrong_when_it_is_made_says_so_itself(ray):
    from rlvr.cluster.calls import WorkerLost, get
    from rlvr.config import RecipeError

    @ray.remote(num_cpus=0)
    class Picky:
        def __init__(self, error):
            raise error

        def ready(self):
            return True

    with pytest.raises(RecipeError) as caught:
        get(Picky.remote(RecipeError("rollout.top_k=8: " + 50 * "on and on ")).ready.remote())
    assert str(caught.value).startswith("rollout.top_k=8: on") and len(str(caught.value)) > 500
    with pytest.raises(WorkerLost, match=r"^OSError: disk full$"):
        get(Picky.remote(OSError("disk full")).ready.remote())


def test_questions_of_a_dead_verifier_worker_are_asked_elsewhere(pipeline, seen):
    pipe = pipeline(verifiers=2)
    groups = list(pipe.groups(prompts(2, start=0.5), Sampling(2, 1.0, 8)))
    assert (seen.folder / "killed").exists()
    assert {v.outcome for g in groups for v in g.verdicts} == {Outcome.OK}
    assert looked(groups) == [[0.5, 1.5], [1.5, 2.5]]
    assert any("verifier worker" in text for text in pipe.told)


def test_the_only_verifier_worker_is_replaced_too(pipeline):
    pipe = pipeline()
    assert looked(pipe.groups(prompts(2, start=0.5), Sampling(2, 1.0, 8))) == [[0.5, 1.5], [1.5, 2.5]]


def test_a_question_that_kills_whoever_it_is_asked_is_masked(pipeline):
    pipe = pipeline(deadly="3.0")
    groups = list(pipe.groups(prompts(1, start=2.0), Sampling(2, 1.0, 8)))
    (harmless, deadly) = groups[0].verdicts
    assert deadly.outcome is Outcome.ERROR and deadly.reward is None
    assert "verifier_lost" in deadly.reason
    assert harmless.outcome in (Outcome.OK, Outcome.ERROR)  # it may have been with the same worker
