"""The Slurm script really runs, with Slurm's commands stood in for; the manifests say what rlvr takes."""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep

import pytest
import yaml

from rlvr import config
from rlvr.cli import parser
from rlvr.compose import compose_recipe, typed

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "scripts" / "launch"
STUBS = {
    "scontrol": 'if [ "$1" = show ]; then printf "node1\\nnode2\\n"; else echo "scontrol $*" >> "$SEEN"; fi',
    "srun": 'while [ "${1#--}" != "$1" ]; do case $1 in --nodelist=*) node=${1#*=};; esac; shift; done\n'
    'echo "$node: $*" >> "$SEEN"\nif [ "$1" = hostname ]; then echo 10.0.0.1; else exec "$@"; fi',
    "ray": 'case $1 in list) printf \'"node_id"\\n"node_id"\\n\';; *) exec sleep 60;; esac',
    # as rlvr does: SIGTERM ends the step, saves, and exits with 3
    "rlvr": 'echo "rlvr $*" >> "$SEEN"\ntrap "exit 3" TERM\n[ -z "$QUICK" ] || exit $QUICK\n'
    'while :; do sleep 0.1; done',
}


def accepted(words: list[str]) -> config.Recipe:
    """What `rlvr` makes of a command line."""
    args, others = parser().parse_known_args(words)
    cfg, _ = typed(compose_recipe(args.recipe, [*args.overrides, *others]))
    config.check(cfg)
    assert args.resume, "a job that is started again must go on"
    return cfg


@pytest.fixture
def job(tmp_path):
    """Starts the job script; `seen` is what it asked of Slurm, Ray and rlvr."""
    bin, seen = tmp_path / "bin", tmp_path / "seen"
    bin.mkdir()
    seen.touch()
    for name, text in STUBS.items():
        (bin / name).write_text(f"#!/bin/bash\n{text}\n")
        (bin / name).chmod(0o755)

    def start(quick: str = "") -> tuple[subprocess.Popen, Path]:
        environment = os.environ | {
            "PATH": f"{bin}:{os.environ['PATH']}", "SEEN": str(seen), "QUICK": quick, "SLURM_JOB_ID": "7",
            "SLURM_JOB_NAME": "rlvr", "SLURM_JOB_NODELIST": "node[1-2]", "RUN_FOLDER": str(tmp_path / "run"),
        }  # fmt: skip
        words = ["bash", str(LAUNCH / "slurm.sbatch"), "qwen3_32b_math_4nodes", "steps=5"]
        return subprocess.Popen(words, env=environment, start_new_session=True), seen

    return start


def wait_for(path: Path, text: str) -> None:
    limit = monotonic() + 60
    while text not in path.read_text():
        assert monotonic() < limit, path.read_text()
        sleep(0.1)


def test_a_preempted_slurm_job_saves_and_is_requeued(job):
    process, seen = job()
    wait_for(seen, "rlvr train")
    sleep(0.5)  # until the stand-in has set its trap
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    said = seen.read_text().splitlines()
    assert "node1: ray start --head --node-ip-address=10.0.0.1 --port=6379 --block" in said
    assert "node2: ray start --address=10.0.0.1:6379 --block" in said
    assert said[-1] == "scontrol requeue 7"
    (line,) = (line for line in said if line.startswith("rlvr train"))
    cfg = accepted(shlex.split(line)[1:])
    assert cfg.steps == 5 and cfg.cluster.kind == "ray" and cfg.cluster.address == "10.0.0.1:6379"


@pytest.mark.parametrize("code", [0, 1, 3])
def test_a_job_that_ends_by_itself_is_not_requeued_and_says_how_it_ended(job, code):
    process, seen = job(quick=str(code) if code else "0")
    assert process.wait(60) == code
    assert "requeue" not in seen.read_text()


def test_the_kubernetes_and_skypilot_manifests_say_what_rlvr_takes():
    job = yaml.safe_load((LAUNCH / "kuberay.yaml").read_text())
    assert job["kind"] == "RayJob" and job["spec"]["backoffLimit"] > 0
    cluster = job["spec"]["rayClusterSpec"]
    assert f"ray=={cluster['rayVersion']}" in (ROOT / "constraints.txt").read_text()
    cfg = accepted(shlex.split(job["spec"]["entrypoint"])[1:])
    workers = cluster["workerGroupSpecs"]
    pods = [cluster["headGroupSpec"], *(group for group in workers for _ in range(group["replicas"]))]
    containers = [pod["template"]["spec"]["containers"][0] for pod in pods]
    gpus = sum(int(container["resources"]["limits"]["nvidia.com/gpu"]) for container in containers)
    assert gpus == cfg.rollout.workers * cfg.rollout.tensor_parallel + cfg.trainer.ranks
    task = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    cfg = accepted(shlex.split(task["run"].replace("$RECIPE", task["envs"]["RECIPE"]))[1:])
    assert int(task["resources"]["accelerators"].partition(":")[2]) == cfg.rollout.workers + cfg.trainer.ranks
    assert cfg.run.folder.startswith(next(iter(task["file_mounts"])))


def test_images_are_pinned():
    named = [one for path in LAUNCH.glob("*.yaml") for one in re.findall(r"image\w*: (.+)", path.read_text())]
    named += [one for path in (ROOT / "docker").iterdir() for one in re.findall(r"^FROM (.+)", path.read_text(), re.M)]
    assert len(named) >= 4
    for image in named:
        assert re.search(r":[^/]*\d", image.removeprefix("docker:")) and not image.endswith("latest"), image


def scripts() -> dict[str, str]:
    job = yaml.safe_load((LAUNCH / "kuberay.yaml").read_text())
    task = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    given = "".join(f"{name}={value!r}\n" for name, value in task["envs"].items())
    return {
        "slurm.sbatch": (LAUNCH / "slurm.sbatch").read_text(),
        "kuberay.yaml": "#!/bin/bash\n" + job["spec"]["entrypoint"],
        "skypilot.yaml": "#!/bin/bash\n" + given + task["run"],
        ".ci/run": (ROOT / ".ci" / "run").read_text(),
    }


@pytest.mark.parametrize("name", scripts())
def test_shellcheck_has_nothing_to_say_of_a_script(name):
    shellcheck = str(Path(sys.executable).with_name("shellcheck"))
    done = subprocess.run([shellcheck, "-"], input=scripts()[name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
