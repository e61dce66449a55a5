"""Logprobs, loss and gradient of a large vocabulary: chunked against the naive version that holds all logits.

    python scripts/bench/logprobs.py [--out logprobs.json] [--vocabulary 152000] [--tokens 4096] [--repeats 3]
    python scripts/bench/logprobs.py --device cuda --dtype bfloat16

Each measurement has a process of its own, the two versions in turn; its memory is the most that it ever held above what
hidden states and head take: resident, as the kernel counted it, or allocated on the GPU, where times are those of the
third pass (the second version is compiled in the first). Both give logprobs, entropy, and the gradient of a
clipped loss with respect to hidden states and head. Reported are the ratios of neighbours in time. Both computed the
same: the largest difference is reported too.
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from statistics import median
from time import perf_counter

import torch

from rlvr.train.logprobs import LogprobHead

LEAST_MEMORY, MOST_TIME = 1 / 4, 1.1  # of the naive version's: the goal


def naive(head: torch.nn.Linear, hidden_NH: torch.Tensor, targets_N: torch.Tensor, chunk: int):
    logprobs_NV = head(hidden_NH).float().log_softmax(1)
    with torch.no_grad():
        entropy_N = -(logprobs_NV.exp() * logprobs_NV).sum(1)
    return logprobs_NV.gather(1, targets_N[:, None])[:, 0], entropy_N


def chunked(head: torch.nn.Linear, hidden_NH: torch.Tensor, targets_N: torch.Tensor, chunk: int):
    return LogprobHead(head)(hidden_NH, targets_N, 1.0, chunk)


def one(version: str, a: argparse.Namespace) -> dict:
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    dtype = getattr(torch, a.dtype)
    on_gpu = a.device == "cuda"
    with torch.device(a.device):
        head = torch.nn.Linear(a.hidden, a.vocabulary, bias=False, dtype=dtype)
        hidden_NH = torch.randn(a.tokens, a.hidden, dtype=dtype, requires_grad=True)
        targets_N, advantages_N = torch.randint(a.vocabulary, (a.tokens,)), torch.randn(a.tokens)
    with torch.no_grad():
        head(hidden_NH[:64])  # the threads and the libraries are there
    for _ in range(3 if on_gpu else 1):
        hidden_NH.grad = head.weight.grad = None
        before = held(on_gpu)
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        started = now(on_gpu)
        logprobs_N, entropy_N = {"naive": naive, "chunked": chunked}[version](head, hidden_NH, targets_N, a.chunk)
        forward = now(on_gpu) - started
        ratio_N = (logprobs_N - logprobs_N.detach()).exp()
        gain_N = torch.minimum(ratio_N * advantages_N, ratio_N.clamp(0.8, 1.2) * advantages_N)
        (-gain_N.mean()).backward()
        seconds = now(on_gpu) - started
        peak = most_held(on_gpu) - before
        del ratio_N, gain_N
    assert hidden_NH.grad is not None and head.weight.grad is not None
    numbers = [logprobs_N.detach().sum(), entropy_N.sum(), hidden_NH.grad.norm(), head.weight.grad.norm()]
    numbers += [*hidden_NH.grad[:: max(1, a.tokens // 16), 0], *head.weight.grad[:: max(1, a.vocabulary // 16), 0]]
    return {"seconds": seconds, "forward": forward, "peak_mb": peak, "numbers": [float(x) for x in numbers]}


def held(on_gpu: bool) -> float:
    """MB, now; of a CPU's memory the most so far, as no pass came before."""
    return torch.cuda.memory_allocated() / 2**20 if on_gpu else most_held(on_gpu)


def most_held(on_gpu: bool) -> float:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return torch.cuda.max_memory_allocated() / 2**20 if on_gpu else most


def now(on_gpu: bool) -> float:
    if on_gpu:
        torch.cuda.synchronize()
    return perf_counter()


def measured(version: str, arguments: list[str]) -> dict:
    command = [sys.executable, __file__, "--one", version, *arguments]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=int, default=152_000)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--chunk", type=int, default=1024, help="trainer.logprob_chunk_tokens")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", choices=("naive", "chunked"), help="measure one version in this process")
    a = parser.parse_args()
    if a.one:
        print(json.dumps(one(a.one, a)))
        return
    names = ("vocabulary", "tokens", "hidden", "chunk", "dtype", "device", "threads")
    passed_on = [word for name in names for word in (f"--{name}", str(getattr(a, name)))]
    pairs = [(measured("naive", passed_on), measured("chunked", passed_on)) for _ in range(a.repeats)]
    times = [ours["seconds"] / plain["seconds"] for plain, ours in pairs]
    memory = [ours["peak_mb"] / plain["peak_mb"] for plain, ours in pairs]
    off = max(
        abs(x - y) / max(abs(x), 1e-6)
        for plain, ours in pairs
        for x, y in zip(*(p["numbers"] for p in (plain, ours)), strict=True)
    )
    for version, runs in zip(("naive", "chunked"), zip(*pairs, strict=True), strict=True):
        seconds, peak = median(r["seconds"] for r in runs), median(r["peak_mb"] for r in runs)
        print(f"{version:8} {seconds:8.4g} s, {peak:6.0f} MB at most")
    print(f"memory   {median(memory):.3f} of the naive version's (goal: at most {LEAST_MEMORY})")
    print(f"time     {median(times):.2f} ({min(times):.2f} to {max(times):.2f}) of it (goal: at most {MOST_TIME})")
    print(f"largest relative difference of the results: {off:.1e}")
    if a.out:
        settings = {name: getattr(a, name) for name in names}
        runs = [{"naive": plain | {"numbers": None}, "chunked": ours | {"numbers": None}} for plain, ours in pairs]
        summary = {"memory_ratio": median(memory), "time_ratio": median(times), "time_ratios": times, "difference": off}
        a.out.write_text(json.dumps(settings | summary | {"runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
