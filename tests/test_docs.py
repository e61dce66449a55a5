"""The docs cannot drift: tables are up to date, links lead somewhere, and every YAML shown is a working choice."""

import importlib.util
import re
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from rlvr.config import Recipe
from rlvr.objective import Objective

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
NAMES = {"ids": lambda page: str(page.relative_to(ROOT))}
every_page = pytest.mark.parametrize("page", PAGES, **NAMES)


@pytest.fixture(scope="module")
def docs():
    spec = importlib.util.spec_from_file_location("docs", ROOT / "scripts" / "docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@every_page
def test_the_generated_tables_are_those_of_the_recipes_the_code_and_the_measurements(docs, page):
    assert docs.renewed(page.read_text()) == page.read_text(), "run `python scripts/docs.py`"


def test_a_table_follows_the_recipes(docs, monkeypatch):
    text = "<!-- docs: used_by cispo -->\nPresets: `grpo`.\n<!-- /docs -->\n"
    assert "`cispo`" in docs.renewed(text) and "`grpo`" not in docs.renewed(text)
    made = {"mine": OmegaConf.create({"surrogate": {"_target_": "rlvr.objective.surrogates.cispo", "low": 1.0}})}
    monkeypatch.setattr(docs, "algorithms", lambda: made)
    assert docs.renewed(text).splitlines()[1] == "Presets: `mine`."
    with pytest.raises(KeyError):
        docs.renewed("<!-- docs: nothing_of_this_name -->\n<!-- /docs -->\n")


def test_the_worst_drop_is_from_the_best_so_far(docs):
    assert docs.worst_drop([0.5, 0.4, 0.9, 0.6, 0.8]) == pytest.approx(0.3)
    assert docs.worst_drop([0.1, 0.2]) == 0.0


def anchors(text: str) -> set[str]:
    """Of its headings, as they are shown on the web."""
    heads = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], **NAMES)
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\(([^):]+)\)", page.read_text()):
        path, _, heading = target.partition("#")
        there = page.parent / path if path else page
        assert there.exists(), f"{page.name}: {target}"
        assert not heading or heading in anchors(there.read_text()), f"{page.name}: {target}"


def test_every_idea_has_its_parts_and_is_linked():
    linked = (ROOT / "docs" / "algorithms.md").read_text()
    for page in (ROOT / "docs" / "ideas").glob("*.md"):
        text = page.read_text()
        assert f"ideas/{page.name}" in linked
        for part in ("**What.**", "**Formula.**", "**Helps", "**Hurts"):
            assert part in text, f"{page.name}: {part}"


def blocks() -> list[tuple[str, str]]:
    ideas = (ROOT / "docs" / "ideas").glob("*.md")
    found = [(p.name, block) for p in sorted(ideas) for block in re.findall(r"```yaml\n(.*?)```", p.read_text(), re.S)]
    assert len(found) >= 18
    return found


@pytest.mark.parametrize(("page", "block"), blocks())
def test_every_yaml_shown_is_a_working_choice(page, block):
    shown = OmegaConf.create(block)
    with_recipe = OmegaConf.create({"rollout": {"max_tokens": 64}, "shown": shown})
    for key, value in with_recipe.shown.items():
        if key in {f.name for f in fields(Recipe)}:
            OmegaConf.merge(OmegaConf.structured(Recipe), {key: value})
        else:
            assert key in {f.name for f in fields(Objective)}, f"{page}: an Objective has no {key}"
            if isinstance(value, DictConfig):
                assert instantiate(value) is not None


def test_the_own_variant_of_the_docs_runs_as_it_is_written(tmp_path, capsys, monkeypatch):
    from rlvr import cli

    text = (ROOT / "docs" / "own_variant.md").read_text()
    (tmp_path / "mine" / "algorithm").mkdir(parents=True)
    for kind, name in (("python", "my_objective.py"), ("yaml", "algorithm/hardest_first.yaml")):
        (tmp_path / "mine" / name).write_text(re.search(rf"```{kind}\n(.*?)```", text, re.S)[1])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # processes that it starts run the same code
    argv = ["train", "quickstart", "--config-dir", "mine", "algorithm=hardest_first", "--dry-run"]
    sys.modules.pop("my_objective", None)  # other tests have one of the same name
    try:
        assert cli.main(argv) == 0
    finally:
        sys.modules.pop("my_objective", None)
    assert "advantage hardest_first" in capsys.readouterr().out
