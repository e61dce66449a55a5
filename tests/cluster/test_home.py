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


def test_it_works_and_imports_where_the_driver_does_and_so_does_what_it_starts(elsewhere, monkeypatch, tmp_path):
    before, mine = list(sys.path), str(tmp_path)
    sys.path += ["", mine, str(tmp_path / "nowhere")]
    home = Home.here()
    assert not [entry for entry in home.path if "site-packages" in entry]
    monkeypatch.setattr(sys, "path", list(before))
    os.chdir(elsewhere)
    home.enter()
    assert os.getcwd() == str(tmp_path / "home")
    assert sys.path == [*before, str(tmp_path / "home"), mine]
    assert os.environ["PYTHONPATH"].split(os.pathsep) == ["before", str(tmp_path / "home"), mine]


def test_a_node_without_these_folders_is_left_as_it_is(elsewhere):
    before = list(sys.path)
    Home(str(elsewhere / "nowhere"), (str(elsewhere / "nowhere"),)).enter()
    assert sys.path == before and os.environ["PYTHONPATH"] == "before"
    assert os.getcwd() != str(elsewhere)
