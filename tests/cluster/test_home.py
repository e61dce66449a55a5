"""An actor comes to where the driver works."""

import os
import sys
import tempfile
from dataclasses import replace

import pytest

from rlvr.cluster.home import Home


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Two folders, in the first of which the driver works."""
    home, other = tmp_path / "home", tmp_path / "other"
    home.mkdir(), other.mkdir()
    monkeypatch.chdir(home)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("PYTHONPATH", "before")
    monkeypatch.setenv("TMPDIR", str(other))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return other


def test_it_works_and_imports_where_the_driver_does(elsewhere, monkeypatch, tmp_path):
    before, mine = list(sys.path), str(tmp_path)
    sys.path += ["", mine, str(tmp_path / "nowhere")]
    home = Home.here()
    assert not [entry for entry in home.path if "site-packages" in entry]
    monkeypatch.setattr(sys, "path", list(before))
    os.chdir(elsewhere)
    home.enter()
    assert os.getcwd() == str(tmp_path / "home")
    assert sys.path == [*before, str(tmp_path / "home"), mine]
    assert os.environ["PYTHONPATH"] == "before"  # what is there would hide the library from what it starts


def test_what_the_driver_has_behind_the_library_is_behind_it_here_too(elsewhere, monkeypatch, tmp_path):
    """Ray puts the driver's folder first: a random.py there would be the one that everybody imports."""
    before, mine, first = list(sys.path), str(tmp_path / "home"), str(tmp_path)
    monkeypatch.setattr(sys, "path", [first, *before, mine])
    home = Home.here()
    monkeypatch.setattr(sys, "path", [mine, first, *before])
    home.enter()
    assert sys.path == [first, *before, mine]


def test_a_node_without_these_folders_is_left_as_it_is(elsewhere):
    before = list(sys.path)
    Home(str(elsewhere / "nowhere"), (str(elsewhere / "nowhere"),)).enter()
    assert sys.path == before and os.environ["PYTHONPATH"] == "before"
    assert os.getcwd() != str(elsewhere)


def test_what_is_temporary_goes_with_the_run_and_what_was_compiled_does_not(elsewhere, monkeypatch, tmp_path):
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    usual = default_cache_dir()
    Home.here().enter()
    assert tempfile.gettempdir() == str(elsewhere) and "TORCHINDUCTOR_CACHE_DIR" not in os.environ
    of_run = str(tmp_path / "rlvr-1")  # not there yet, as on another node
    replace(Home.here(), temporary=of_run).enter()
    assert tempfile.gettempdir() == os.environ["TMPDIR"] == of_run and os.stat(of_run).st_mode & 0o777 == 0o700
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == usual


def test_a_node_that_has_no_such_place_keeps_its_own(elsewhere, tmp_path):
    (tmp_path / "file").touch()
    replace(Home.here(), temporary=str(tmp_path / "file" / "rlvr-1")).enter()
    assert tempfile.gettempdir() == os.environ["TMPDIR"] == str(elsewhere)
