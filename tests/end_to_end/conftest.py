"""Several nodes on this machine; and what these tests start goes on by itself, so that it is ended."""

import importlib
from contextlib import suppress

import psutil
import pytest


@pytest.fixture
def nodes():
    """A head and two more, and the address to join them by."""
    from rlvr.cluster.calls import ray  # sets Ray's environment before it is imported

    Cluster = importlib.import_module("ray.cluster_utils").Cluster

    assert not ray.is_initialized()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    cluster.add_node(num_cpus=2)
    cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    yield cluster
    cluster.shutdown()


@pytest.fixture(autouse=True)
def no_run_goes_on():
    """A test that fails would leave its run, with all that it has started, to those behind it."""
    ours = psutil.Process()
    before = set(ours.children())
    yield
    for run in set(ours.children()) - before:
        with suppress(psutil.NoSuchProcess):
            if "rlvr.cli" in run.cmdline():
                for process in (run, *run.children(recursive=True)):
                    with suppress(psutil.NoSuchProcess):
                        process.kill()
