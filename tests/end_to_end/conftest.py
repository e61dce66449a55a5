"""Several nodes on this machine."""

import importlib

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
