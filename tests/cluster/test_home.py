"""An actor comes to where the driver works."""

import os
import sys

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
