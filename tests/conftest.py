"""What tests of a process share: one process group, as DeepSpeed remembers the first and finds no other after it."""

import sys

import pytest


@pytest.fixture(autouse=True, scope="session")
def no_process_group_is_left():
    yield
    torch = sys.modules.get("torch")
    if torch is not None and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
