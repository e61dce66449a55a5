"""Ray between engines and verifiers: what a completion waits for, and who waits for whom."""

from time import monotonic, sleep

import pytest

from rlvr.types import Sampling
from tests.cluster.conftest import prompts

pytestmark = pytest.mark.slow


def test_a_completion_is_verified_while_its_group_is_sampled(pipeline, seen):
    pipe = pipeline(nap_engine=0.4)
    groups = sorted(pipe.groups(prompts(3), Sampling(4, 1.0, 8)), key=lambda group: group.prompt.position)
    assert [[v.parts["look"] for v in g.verdicts] for g in groups] == [[n + i for i in range(4)] for n in range(3)]
    assert [[v.parts["rank"] for v in g.verdicts] for g in groups] == [[0.0, 0.1, 0.2, 0.3]] * 3
    assert {c.policy_version for g in groups for c in g.completions} == {7}
    assert seen.looked_at()["0.0"] < seen.sampled()["0.0/3"]
    again = pipe.verify(groups)
    assert [[v.reward for v in g.verdicts] for g in again] == [[v.reward for v in g.verdicts] for g in groups]


def test_engines_wait_for_verifiers_that_cannot_keep_up(pipeline, seen):
    from rlvr.cluster.pump import AHEAD
    from rlvr.rollout.serving import MOST

    pipe = pipeline(nap=0.02, max_waiting=4, verifiers=2)
    stream = pipe.groups(prompts(24), Sampling(16, 1.0, 8))
    next(stream)
    sampled, verified = len(seen.sampled()), len((seen.folder / "seen").read_text().splitlines())
    assert sampled - verified <= 4 + 2 * (AHEAD + 2) * MOST < 24 * 16 - verified
    assert len(list(stream)) == 23


def test_sampling_goes_on_while_nobody_waits_for_it(pipeline, seen):
    pipe = pipeline(nap_engine=0.01)
    first = pipe.groups(prompts(2), Sampling(4, 1.0, 8))
    second = pipe.groups(prompts(2, start=50), Sampling(4, 1.0, 8))
    assert {g.prompt.id for g in second} == {"50", "51"}
    deadline = monotonic() + 30
    while len((seen.folder / "seen").read_text().splitlines()) < 16:  # those of the first order are not left for later
        assert monotonic() < deadline
        sleep(0.05)
    assert {g.prompt.id for g in first} == {"0.0", "1.0"}


def test_what_is_flushed_never_comes(pipeline, seen):
    pipe = pipeline(nap_engine=0.2, engines=1)
    pipe.groups(prompts(8), Sampling(4, 1.0, 8))
    pipe.flush()
    groups = list(pipe.groups(prompts(1, start=50), Sampling(2, 1.0, 8)))
    assert [g.prompt.id for g in groups] == ["50"]
    assert len(seen.sampled()) < 8 * 4
