"""Several nodes: Ray's own cluster utility runs them as processes of this machine. One of them is lost in mid-run."""

import psutil
import pytest

from tests.end_to_end.test_deaths import events, finish, start, steps, until

pytestmark = pytest.mark.slow


def raylet(node) -> psutil.Process:
    (found,) = node.all_processes["raylet"]
    return psutil.Process(found.process.pid)


def workers(node, kind: str) -> list[psutil.Process]:
    children = raylet(node).children(recursive=True)
    return [process for process in children if f"ray::{kind}" in " ".join(process.cmdline())]


def test_a_node_is_lost_in_mid_run_and_its_engine_comes_back_on_another(nodes, tmp_path):
    folder = tmp_path / "run"
    joined = ["cluster=ray", f"cluster.address={nodes.address}", "rollout.workers=2", "trainer.ranks=1"]
    run = start(folder, *joined, "trainer.zero_stage=0", "rollout.engine=transformers")
    until(run, lambda: len(steps(folder)) >= 2)
    hosts = [node for node in nodes.list_all_nodes() if workers(node, "RolloutWorker")]
    assert len(hosts) == 2  # engines are spread
    lost = next(node for node in hosts if node is not nodes.head_node)
    with_it = [kind for kind in ("RolloutWorker", "TrainerRank", "VerifierWorker") if workers(lost, kind)]
    nodes.remove_node(lost, allow_graceful=False)
    finish(run)
    assert [row["step"] for row in steps(folder)] == list(range(1, 9))
    warned = events(folder, "warning")
    assert any("engine" in text and "died" in text for text in warned)
    assert bool(events(folder, "restart")) == ("TrainerRank" in with_it)
