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
import torch
import yaml

from rlvr import config
from rlvr.cli import parser
from rlvr.compose import compose_recipe, typed

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "scripts" / "launch"
STUBS = {
    "scontrol": 'if [ "$1" = show ]; then printf "node1\\nnode2\\n"; else echo "scontrol $*" >> "$SEEN"; fi',
    "srun": 'while [ "${1#--}" != "$1" ]; do case $1 in --nodelist=*) node=${1#*=};; esac; shift; done\n'
    'echo "$node: $*" >> "$SEEN"\nexec "$@"',
    "getent": 'printf "$NAMED"',
    "hostname": 'echo "fe80::1 127.0.1.1 10.0.0.9 172.17.0.1"',
    "ray": 'case $1 in list) echo "ray $*" >> "$SEEN"; cat "$NODES";; *) exec sleep 60;; esac',
    # as rlvr does: SIGTERM ends the step, saves, and exits with 3
    "rlvr": 'echo "rlvr $*" >> "$SEEN"\ntrap "exit $ASKED" TERM\n[ -z "$QUICK" ] || exit $QUICK\n'
    'while :; do sleep 0.1; done',
}


def listed(count: int) -> str:
    """What `ray list nodes --format json` prints of so many."""
    from ray.util.state.common import NodeState
    from ray.util.state.state_cli import AvailableFormat, format_list_api_output

    nodes = [
        NodeState(
            node_id=f"{n:056x}", node_ip=f"10.0.0.{n}", is_head_node=n == 1, state="ALIVE", state_message=None,
            node_name=f"10.0.0.{n}", resources_total={"GPU": 8.0}, labels={"ray.io/node-id": f"{n:056x}"},
        )
        for n in range(1, count + 1)
    ]  # fmt: skip
    return format_list_api_output(nodes, schema=NodeState, format=AvailableFormat.JSON)


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
    bin, seen, nodes = tmp_path / "bin", tmp_path / "seen", tmp_path / "nodes"
    bin.mkdir()
    seen.touch()
    for name, text in STUBS.items():
        (bin / name).write_text(f"#!/bin/bash\n{text}\n")
        (bin / name).chmod(0o755)

    def start(
        quick: str = "", asked: int = 3, joined: int = 2, named: str = "10.0.0.1 STREAM node1\\n", start_s: int = 60
    ) -> tuple[subprocess.Popen, Path]:
        """`quick`: the code with which rlvr ends at once; `asked`: with which it ends on SIGTERM; `joined`: nodes that
        Ray lists; `named`: the addresses of the head's name."""
        nodes.write_text(listed(joined))
        environment = os.environ | {
            "PATH": f"{bin}:{os.environ['PATH']}", "SEEN": str(seen), "QUICK": quick, "ASKED": str(asked),
            "NODES": str(nodes), "NAMED": named, "START_S": str(start_s), "SLURM_JOB_ID": "7",
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


@pytest.mark.parametrize(("code", "ends"), [(15, 0), (130, 0), (143, 0), (0, 0), (1, 1)])
def test_a_job_that_was_stopped_before_it_could_save_is_requeued_too(job, code, ends):
    """SIGTERM before rlvr has its handler, or twice. What ended well, or broke, is not started again."""
    process, seen = job(asked=code)
    wait_for(seen, "rlvr train")
    sleep(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == ends
    assert ("scontrol requeue 7" in seen.read_text()) == (code not in (0, 1))


def test_a_run_waits_until_every_node_has_joined(job):
    process, seen = job(joined=1, start_s=2)
    assert process.wait(60) == 1
    said = seen.read_text()
    assert "ray list nodes" in said and "--limit 10000" in said and "rlvr train" not in said


def test_a_job_that_is_stopped_while_nodes_join_is_requeued(job):
    process, seen = job(joined=1)
    wait_for(seen, "ray list")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert "scontrol requeue 7" in seen.read_text() and "rlvr train" not in seen.read_text()


@pytest.mark.parametrize(
    ("named", "address"),
    [
        ("10.1.2.3 STREAM node1\\n10.1.2.3 DGRAM\\n", "10.1.2.3"),
        ("127.0.1.1 STREAM node1\\n10.1.2.3 STREAM\\n", "10.1.2.3"),
        ("127.0.1.1 STREAM node1\\n", "10.0.0.9"),  # of its interfaces
        ("", "10.0.0.9"),
    ],
)
def test_the_head_has_an_address_that_other_nodes_can_reach(job, named, address):
    process, seen = job(quick="0", named=named)
    assert process.wait(60) == 0
    assert f"node1: ray start --head --node-ip-address={address} --port=6379 --block" in seen.read_text()
    assert "node2: getent ahostsv4 node1" in seen.read_text()


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
    ((place, mount),) = task["file_mounts"].items()
    assert cfg.run.folder.startswith(place) and mount["mode"] == "MOUNT_CACHED"  # a run appends to its files


@pytest.mark.skipif(torch.version.cuda is None, reason="torch is built for CPUs here")
def test_the_gpu_image_has_the_cuda_that_torch_was_built_with():
    base = re.search(r"^FROM nvidia/cuda:(\d+)", (ROOT / "docker" / "Dockerfile").read_text(), re.M)
    assert base and base[1] == str(torch.version.cuda).partition(".")[0]


def test_signals_pass_through_both_images_and_the_probes_of_kuberay_find_their_tool():
    gpu, cpu = ((ROOT / "docker" / name).read_text() for name in ("Dockerfile", "Dockerfile.cpu"))
    for text in (gpu, cpu):
        installed = text.partition("rm -rf")[0].split()
        assert "tini" in installed and 'ENTRYPOINT ["tini", "--", "rlvr"]' in text
    assert "wget" in gpu.partition("rm -rf")[0].split()


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
