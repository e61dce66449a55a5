import pytest

from rlvr.checkpoint.disk import DiskCheckpoints
from rlvr.config import CheckpointConfig
from tests.checkpoint.fakes import Told, Trainer, at, save


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def checkpoints(tmp_path, told) -> DiskCheckpoints:
    cfg = CheckpointConfig(keep=3, probation=2)
    return DiskCheckpoints(tmp_path / "checkpoints", cfg, probe=[1, 2], tell=told)


@pytest.fixture
def three(checkpoints) -> DiskCheckpoints:
    """Steps 1, 2, 3; the weight is a tenth of the step."""
    for step in (1, 2, 3):
        save(checkpoints, Trainer(step / 10), at(step))
    return checkpoints
