"""Our objective against the peers' own code: the same tensors to both, loss and gradient compared.

    python scripts/bench/conformance.py --peer trl=/path/to/venv/bin/python --peer verl=/path/to/another/bin/python

Each peer runs in the interpreter that has it installed (`pip install trl==1.16.0` in an environment of its own);
tensors travel through files. Prints a table; writes docs/measured/conformance.json and, from it, the generated parts of
docs/conformance.md (`--page` does only that). Exit status 1 where a case that should agree differs by more than 1e-6,
or one that is listed as different does not.

Our side is what training runs: recipe -> `collate` -> `Objective.loss`. Compared twice: in float64, and as collated, in
float32. docs/conformance.md says how the cases are to be read, conformance_peers.py what of a peer is stood in for.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))

from conformance_cases import CASES, GROUP_SIZE, MAX_TOKENS, TOLERANCE, Case, Tensors, world
from conformance_page import objective_of, write_page

from rlvr.collate import collate, rewards_of, shaped
from rlvr.types import Completion, Group, Outcome, Prompt, Verdict

ROOT = Path(__file__).resolve().parents[2]
MEASURED = ROOT / "docs" / "measured" / "conformance.json"
PROMPT_TOKENS = 2


def groups_of(tensors: Tensors) -> list[Group]:
    """The records that a rollout and its verifiers would have made of these tensors."""

    def completion(i: int) -> Completion:
        n = int(tensors["lengths"][i])
        return Completion(
            token_ids=[7] * n,
            loss_mask=[bool(m) for m in tensors["mask"][i, :n]],
            rollout_logprobs=tensors["rollout"][i, :n].tolist(),
            policy_version=0,
            text="",
            stop_reason="length" if tensors["truncated"][i] else "eos",
        )

    def verdict(i: int) -> Verdict:
        parts = tensors["rewards"][i]
        if parts.isnan().any():
            return Verdict(None, Outcome.ABSTAIN)
        total = float(parts @ tensors["weights"])
        return Verdict(total, Outcome.OK, {f"part_{k}": float(x) for k, x in enumerate(parts)})

    B, G = len(tensors["lengths"]), GROUP_SIZE
    found = [range(start, start + G) for start in range(0, B, G)]
    prompts = [Prompt(f"{start}", start, (), (5,) * PROMPT_TOKENS, None) for start in range(0, B, G)]
    pairs = zip(prompts, found, strict=True)
    return [Group(p, tuple(map(completion, rows)), tuple(map(verdict, rows))) for p, rows in pairs]


def ours(case: Case, tensors: Tensors, dtype: torch.dtype) -> Tensors:
    """Our advantages [B], loss and gradient [B,T] over the completions' tokens."""
    objective, groups = objective_of(case.preset, case.keys, MAX_TOKENS), groups_of(tensors)
    weights = {f"part_{k}": float(w) for k, w in enumerate(tensors["weights"])}
    batch = collate(groups, objective, weights)
    T = batch.mask_BT.shape[1]

    def placed(x_BT: Tensor) -> Tensor:
        junk_BT = x_BT.new_full((len(x_BT), PROMPT_TOKENS), float("nan"))
        known_BT = x_BT.masked_fill(tensors["mask"] == 0, float("nan"))
        return torch.cat([junk_BT, known_BT], dim=1)[:, :T].to(dtype)

    batch = replace(batch, old_logprobs_BT=placed(tensors["old"]), ref_logprobs_BT=placed(tensors["ref"]))
    if dtype == torch.float64:
        rewards = shaped(rewards_of(groups, weights), groups, objective)
        advantages_B1 = objective.advantages(rewards).reshape(-1, 1)
        mask_BT, counted_BT = batch.mask_BT.double(), batch.counted_BT.double()
        batch = replace(batch, advantages_B1=advantages_B1, mask_BT=mask_BT, counted_BT=counted_BT)
        batch = replace(batch, weights_BT=objective.weighting(mask_BT, counted_BT))
        batch = replace(batch, rollout_logprobs_BT=placed(tensors["rollout"]))
        coefficient = objective.kl.of("") if objective.kl else 0.0
        batch = replace(batch, kl_coefficients_B1=torch.full_like(advantages_B1, coefficient))
    if objective.kl_in_reward:
        batch = objective.penalised(batch)
    logprobs_BT = placed(tensors["logprobs"]).requires_grad_()
    loss, _ = objective.loss(logprobs_BT, batch)
    (gradient_BT,) = torch.autograd.grad(loss, logprobs_BT)
    return {"advantages": batch.advantages_B1[:, 0], "loss": loss.detach(), "gradient": gradient_BT[:, PROMPT_TOKENS:]}


def difference(x: Tensor, y: Tensor) -> float:
    return float((x.double() - y.double()).abs().max())


def fingerprint(x: Tensor) -> float:
    """One number that no two vectors are likely to share, to remember what the peer said."""
    flat = x.double().flatten()
    return float(flat @ torch.cos(torch.arange(1, len(flat) + 1, dtype=torch.float64)))


def asked(peer: str, interpreter: str, cases: list[Case]) -> dict:
    """The peer's version and its answers, in the order of the cases."""
    with tempfile.TemporaryDirectory() as folder:
        questions, answers = f"{folder}/questions.pt", f"{folder}/answers.pt"
        torch.save([(case.call, world(case.world, case.weights)) for case in cases], questions)
        script = str(Path(__file__).with_name("conformance_peers.py"))
        subprocess.run([interpreter, script, peer, questions, answers], check=True)
        return torch.load(answers)


def compared(case: Case, answer: dict, versions: dict[str, str]) -> dict:
    """A row of the JSON."""
    tensors = world(case.world, case.weights)
    exact, trained = ours(case, tensors, torch.float64), ours(case, tensors, torch.float32)
    theirs = {name: answer[name] for name in case.compare if name in answer}
    theirs = {name: x[:, : exact["gradient"].shape[1]] if name == "gradient" else x for name, x in theirs.items()}
    return {
        "peer": case.peer,
        "version": versions["version"],
        "torch": versions["torch"],
        "case": case.name,
        "float64": {name: difference(exact[name], x) for name, x in theirs.items()},
        "float32": {name: difference(trained[name], x) for name, x in theirs.items()},
        "theirs": {name: fingerprint(x) for name, x in theirs.items()},
        "first_group": answer["advantages"][:GROUP_SIZE].tolist(),
        "largest": {name: float(x.abs().max()) for name, x in theirs.items()},
    }


def verdict_on(case: Case, row: dict) -> str:
    """'' where all is as it should be."""
    apart = max(max(row["float64"].values()), max(row["float32"].values()))
    if case.differs:
        return "" if apart > TOLERANCE else "is listed as different, and agrees"
    return "" if apart <= TOLERANCE else f"differs by {apart:.1e} > {TOLERANCE:.0e}"


def measured() -> list[dict]:
    return json.loads(MEASURED.read_text()) if MEASURED.exists() else []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON", help="may be repeated")
    parser.add_argument("--page", action="store_true", help="only write the page anew from the measured numbers")
    arguments = parser.parse_args()
    if not arguments.peer and not arguments.page:
        parser.error("nothing to do: name a --peer, or --page")
    rows = measured()
    wrong = []
    for peer, _, interpreter in (one.partition("=") for one in arguments.peer):
        cases = [case for case in CASES if case.peer == peer]
        if not cases or not interpreter:
            parser.error(f"--peer {peer}={interpreter}: NAME one of {', '.join(sorted({c.peer for c in CASES}))}")
        found = asked(peer, interpreter, cases)
        fresh = []
        for case, answer in zip(cases, found["answers"], strict=True):
            if "error" in answer:
                wrong.append(f"{peer}, {case.name}: {answer['error']}")
                continue
            fresh.append(row := compared(case, answer, found))
            apart = [f"{name} {row['float64'][name]:.1e} {row['float32'][name]:.1e}" for name in row["float64"]]
            print(f"{peer:9} {case.name:50} {'  '.join(apart)}", flush=True)
            if said := verdict_on(case, row):
                wrong.append(f"{peer}, {case.name}: {said}")
        rows = [row for row in measured() if row["peer"] != peer] + fresh
        MEASURED.parent.mkdir(parents=True, exist_ok=True)
        MEASURED.write_text(json.dumps(sorted(rows, key=lambda row: row["peer"]), indent=1) + "\n")
    if not wrong:
        write_page(rows)
    print(*wrong, sep="\n", file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
