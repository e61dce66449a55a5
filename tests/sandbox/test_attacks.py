"""Our own attacks, and those of the shared data file where it is there, at both levels, as this user and as one without
privileges."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rlvr.sandbox import Level, Sandbox
from tests.sandbox.attacks import ROOT, all_of, baits, failure
from tests.sandbox.own_attacks import LEFT_TO_ITSELF, OWN

SHARED = Path(os.environ.get("RLVR_SHARED_DATA", ROOT.parent / "shared" / "data"))
FILE = SHARED / "attacks.jsonl"
ATTACKS = all_of(FILE)
NOBODY = 65_530  # no such user: no home, no files, no groups

both_levels = pytest.mark.parametrize(
    ("level", "without"), [(Level.ISOLATED, []), (Level.CONFINED, ["namespaces"])], ids=["isolated", "confined"]
)


@pytest.fixture(scope="module")
def strongest():
    with baits() as bait, Sandbox() as sandbox:
        yield sandbox, bait


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack["id"])
def test_no_attack_gets_through_at_the_best_level_of_this_machine(strongest, attack):
    sandbox, bait = strongest
    assert failure(sandbox, attack, bait) is None


@pytest.mark.skipif(not FILE.is_file(), reason=f"{FILE} is absent")
def test_the_attacks_of_the_shared_file_are_among_them():
    assert len(ATTACKS) - len(OWN) == len(FILE.read_text().splitlines()) > 50


@pytest.mark.parametrize("attack", LEFT_TO_ITSELF, ids=lambda attack: attack["id"])
def test_what_is_held_here_gets_through_where_nothing_holds_it(unheld, attack):
    with baits() as bait:
        assert failure(unheld, attack, bait) is not None


@pytest.fixture(scope="module")
def unheld():
    with Sandbox(without=["namespaces", "landlock", "seccomp"], min_level="limited", allow_unsafe=True) as sandbox:
        yield sandbox


@pytest.mark.slow
@both_levels
def test_no_attack_gets_through_as_this_user(level, without):
    with baits() as bait, Sandbox(without=without) as sandbox:
        need(level, sandbox.level)
        assert {a["id"]: what for a in ATTACKS if (what := failure(sandbox, a, bait))} == {}


@pytest.mark.slow
@both_levels
@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("setpriv"), reason="only root can become another user")
def test_no_attack_gets_through_as_a_user_without_privileges(level, without):
    done = subprocess.run(
        [*as_nobody(), "-m", "tests.sandbox.attacks", FILE, *without], cwd=ROOT, capture_output=True, text=True
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    need(level, Level[said["level"].upper()])
    assert (said["uid"], said["count"], said["failed"]) == (NOBODY, len(ATTACKS), {})


def need(level: Level, found: Level) -> None:
    if found < level:
        pytest.skip(f"this machine offers {found}, not {level}")
    assert found == level


def as_nobody() -> list[str]:
    """A Python that such a user can run: ours, or the system's."""
    become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    # setpriv itself still starts what the user may not
    check = "import os, sys; sys.exit(sys.version_info < (3, 11) or not os.access(sys.executable, os.X_OK))"
    for python in (os.path.realpath(sys.executable), "/usr/bin/python3", "/usr/local/bin/python3"):
        words = [*become, python, "-B"]
        if subprocess.run([*words, "-c", check], capture_output=True, check=False, cwd="/").returncode == 0:
            return words
    pytest.skip("no Python of 3.11 or later that another user can run")
