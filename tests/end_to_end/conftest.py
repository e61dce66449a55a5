"""What these tests start goes on by itself."""

from contextlib import suppress

import psutil
import pytest


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
