"""docs/plugins.md has a section for every verifier of ours, and each section names every option."""

import inspect
import re
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from rlvr.verify.discover import load

PAGE = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text()
SECTIONS = {title: text for title, text in re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)}
ELSEWHERE = {"math", "code", "length"}  # pages, or docstrings, of their own
OURS = {point.name for point in entry_points(group="rlvr.verifiers") if point.module.startswith("rlvr_verifiers.")}


@pytest.mark.parametrize("name", sorted(OURS - ELSEWHERE))
def test_the_page_names_every_option_of_a_verifier(name):
    options = list(inspect.signature(load(name).function).parameters)[1:]
    assert [option for option in options if f"`{option}`" not in SECTIONS[name]] == []


def test_the_page_has_a_section_for_nothing_else():
    assert set(SECTIONS) - OURS == set()
