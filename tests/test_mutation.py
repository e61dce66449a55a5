"""The mutation tests' own test: a toy of ten lines, whose tests miss what they are known to miss."""

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
TOOL = ROOT / "scripts" / "mutation"
CORE = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Box:
    size: int = 3

    @property
    def room(self):
        return self.size * 2

def grown(x, by=1):
    while x < 0:
        x = x + by
    return x

class Named(Exception):
    def __init__(self, name):
        super().__init__(name)

def alone(x):
    return not x
"""
TESTS = """
from core import Box, Named, grown

def test_room():
    assert Box().room == 6

def test_named():
    named = Named("a")
    named.__init__("b")
    assert named.args == ("b",)

def test_grown():
    assert grown(-2) == 0
    assert grown(5) == 5
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict:
    root = tmp_path_factory.mktemp("toy")
    (root / "core.py").write_text(CORE)
    (root / "tests").mkdir()
    (root / "tests" / "test_core.py").write_text(TESTS)
    (root / "pyproject.toml").write_text("[tool.pytest.ini_options]\npythonpath = ['.']\nmarkers = ['slow']\n")
    command = [sys.executable, str(TOOL), "--root", str(root), "--sources", "core.py", "--limit", "0.3"]
    done = subprocess.run([*command, "--copied", "core.py", "tests", "pyproject.toml"], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert (root / "core.py").read_text() == CORE
    return {"said": done.stdout, **json.loads((root / "docs" / "measured" / "mutation.json").read_text())}


def test_exactly_what_the_tests_miss_survives(made):
    assert {survivor["mutant"].removeprefix("core.py ") for survivor in made["survivors"]} == {
        "Box: @dataclass(frozen=True) class Box:  ->  class Box:",
        "Box: dataclass(frozen=True)  ->  dataclass(frozen=False)",
        "grown: def grown(x, by=1):  ->  def grown(x, by=2):",
        "alone: not x  ->  x",  # no test calls it
    }


def test_mutants_of_decorated_functions_and_of_defaults_die(made):
    """`room` is a property, 3 and by=1 are defaults; with by=0, by -1, no step at all, or True there is no end."""
    assert made["files"]["core.py"] == {"killed": 14, "endless": 4, "survived": 4}
    assert made["score"] == round(18 / 22, 4)


def test_survivors_without_a_reason_are_complained_of(made):
    assert made["said"].count("no reason for core.py") == len(made["survivors"])


def test_who_has_a_reason_to_survive_is_still_there():
    spec = importlib.util.spec_from_file_location("mutants", TOOL / "mutants.py")
    mutants = sys.modules["mutants"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mutants)
    groups = yaml.safe_load((ROOT / "tests" / "mutation.yaml").read_text())
    listed = [name for group in groups for name in group["mutants"]]
    for file in {name.partition(" ")[0] for name in listed}:
        there = {mutant.name for mutant in mutants.mutants_of(file, ast.parse((ROOT / file).read_text()))}
        gone = [name for name in listed if name.startswith(f"{file} ") and name not in there]
        assert not gone, "their code has changed: see whether they survive (make mutation), and change the list"
    assert len(set(listed)) == len(listed) and all(group["reason"] for group in groups)
