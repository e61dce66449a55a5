"""One process group for all trainers of this process: DeepSpeed remembers the first one and finds no other after it."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def no_process_group_is_left():
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
