"""What tests of a process share: no deadlines for examples, and one process group.

An example takes as long as a loaded machine lets it. DeepSpeed remembers the first process group and finds no other
after it.
"""

import sys

import pytest
from hypothesis import settings

settings.register_profile("rlvr", deadline=None)
settings.load_profile("rlvr")


@pytest.fixture(autouse=True, scope="session")
def no_process_group_is_left():
    yield
    torch = sys.modules.get("torch")
    if torch is not None and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
