"""A bucket reaches another process as it was, and each engine of a colocated run its own rank's."""

import multiprocessing

import pytest
import torch

from rlvr.cluster.buckets import lend, opened, ship

SPAWN = multiprocessing.get_context("spawn")
BUCKET = {
    "a": torch.arange(6.0).view(2, 3),
    "half": torch.tensor([1.5, -2.25], dtype=torch.bfloat16),
    "columns": torch.arange(6.0).view(2, 3).t(),
    "none": torch.empty(0, 4),
}


def test_what_is_shipped_is_what_arrives():
    arrived = opened(ship(BUCKET))
    assert list(arrived) == list(BUCKET)
    assert all(torch.equal(arrived[n], BUCKET[n]) and arrived[n].dtype == BUCKET[n].dtype for n in BUCKET)


def read_then_write(lent: bytes, answers) -> None:
    bucket = opened(lent)
    answers.put({name: (tensor.dtype, tensor.tolist()) for name, tensor in bucket.items()})
    bucket["a"].fill_(7.0)
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def lend_and_look(device: str, said) -> None:
    """What another process reads, and what is there when that has written."""
    owned = {name: tensor.clone().to(device) for name, tensor in BUCKET.items()}
    answers = SPAWN.SimpleQueue()
    other = SPAWN.Process(target=read_then_write, args=(lend(owned), answers))
    other.start()
    read = answers.get()
    other.join()
    said.put((read, owned["a"].tolist()))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_what_is_lent_is_read_where_it_lies(device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU here")
    said = SPAWN.SimpleQueue()
    # torch forks to lend memory, and this process may hold more from other tests than can be forked
    owner = SPAWN.Process(target=lend_and_look, args=(device, said))
    owner.start()
    read, left = said.get()
    owner.join()
    assert read == {name: (tensor.dtype, tensor.tolist()) for name, tensor in BUCKET.items()}
    assert left == [[7.0] * 3] * 2  # it was no copy


@pytest.mark.slow
def test_each_engine_of_a_colocated_run_reads_what_its_own_rank_holds(ray):
    from rlvr.cluster.actors import TrainerRank
    from rlvr.cluster.trainer import Weights

    class Rank(TrainerRank):
        """Three buckets; all of their numbers are the rank's own."""

        def __init__(self, rank: int):
            self.rank, self.trainer = rank, self

        def weights(self, everywhere: bool):
            assert everywhere
            for n in range(3):
                yield {f"w{n}": torch.full((4,), float(self.rank * 10 + n))}

        def lent_now(self) -> int:
            return len(self.lent)

    ranks = [ray.remote(Rank).options(num_cpus=0).remote(n) for n in range(3)]
    weights = Weights(ranks, colocated=True)
    for _ in range(2):  # a transfer after another
        read = []
        for refs in weights.to([2, 0]):  # engine 1 is dead
            read.append([{n: t.tolist() for n, t in opened(lent).items()} for lent in ray.get(refs)])
            assert ray.get([rank.lent_now.remote() for rank in ranks]) == [1, 0, 1]
        assert read == [[{f"w{n}": [20.0 + n] * 4}, {f"w{n}": [0.0 + n] * 4}] for n in range(3)]
        assert ray.get([rank.lent_now.remote() for rank in ranks]) == [0, 0, 0]
    for rank in ranks:
        ray.kill(rank)
