"""Which column of somebody's log is which of our metrics. Knows names; reads no file and judges nothing."""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

STEP = "step"
# our name: what others call it, the likeliest first; ours come first of all
KNOWN = {
    STEP: ("step", "_step", "global_step", "iteration", "iter", "update"),
    "reward/mean": (
        "reward", "reward_avg", "avg_reward", "mean_reward", "reward_mean", "rewards", "critic/rewards/mean",
        "critic/score/mean", "objective/rlhf_reward", "rollout/reward", "rollout/raw_reward", "env/all/reward/total",
        "returns/mean",
    ),
    "accuracy": ("train_accuracy", "train_acc", "acc", "rollout/accuracy", "accuracy/mean"),
    "accuracy_rewarded": (),
    "policy/entropy": (
        "entropy", "entropy_avg", "avg_entropy", "mean_entropy", "actor/entropy", "actor/entropy_loss",
        "policy_entropy", "entropy/mean", "optim/entropy", "objective/entropy",
    ),
    "policy/kl_ref": (
        "kl", "kl_avg", "avg_kl", "mean_kl", "kl_ref", "ref_kl", "actor/kl_loss", "actor/kl", "objective/kl",
        "critic/kl", "kl_div", "kl_loss", "actor/reward_kl_penalty",
    ),
    "policy/grad_norm": ("grad_norm", "gradient_norm", "grad_norm_avg", "actor/grad_norm", "optim/grad_norm", "gnorm"),
    "policy/loss": (
        "loss", "policy_loss", "loss_avg", "avg_loss", "actor/pg_loss", "pg_loss", "actor/loss", "loss/mean",
        "loss/policy_avg",
    ),
    "policy/skipped": (),
    "completions/length_mean": (
        "avg_response_len", "response_len", "response_length", "response_length/mean", "completion_length",
        "completions/mean_length", "mean_length", "avg_length", "response_len/mean", "seq_len/all/mean",
        "rollout/response_lengths", "rollout/response_len/mean", "avg_completion_len",
    ),
    "completions/truncated": (
        "truncated", "truncated_ratio", "truncation_rate", "response_length/clip_ratio", "completions/clipped_ratio",
        "rollout/truncated", "rollout/truncated_ratio", "is_truncated/all/mean",
    ),
    "groups/no_signal": ("no_signal", "frac_reward_zero_std", "zero_std_ratio", "no_signal_ratio"),
    "mismatch/mean_abs": ("mismatch", "rollout_probs_diff_mean"),
    "mismatch/ess": ("ess", "ess_ratio", "rollout_corr/rollout_is_eff_sample_size"),
    "eval/accuracy_greedy": (
        "eval_acc", "eval_accuracy", "eval/accuracy", "eval/acc", "val_acc", "val/accuracy", "val/acc", "test_acc",
        "test_accuracy",
    ),
    "eval/problems": (),
    "tokens/trained": (),
    "transfer/probe_rms": (),
}  # fmt: skip
SHORT = {name.rpartition("/")[2]: name for name in KNOWN} | {
    "reward": "reward/mean",
    "kl": "policy/kl_ref",
    "length": "completions/length_mean",
    "mismatch": "mismatch/mean_abs",
    "eval": "eval/accuracy_greedy",
}
PREFIXES = ("train/", "training/", "metrics/", "trainer/", "")


class UnknownColumn(ValueError):
    """A name in --map that is no metric of ours, or no column of theirs."""


@dataclass(frozen=True)
class Columns:
    """Our name -> their column."""

    chosen: Mapping[str, str]

    def read(self, record: Mapping[str, float]) -> dict[str, float]:
        return {ours: record[theirs] for ours, theirs in self.chosen.items() if theirs in record}


def plain(column: str) -> str:
    """`my run - train/Reward` as a chart of Weights & Biases exports it, and `train/reward`, are both `reward`."""
    name = column.rpartition(" - ")[2].strip().lower().replace(" ", "_")
    return next(name.removeprefix(prefix) for prefix in PREFIXES if name.startswith(prefix) and name != prefix)


def find_columns(columns: Iterable[str], wanted: Iterable[str] = ()) -> Columns:
    """By the names that are in use; `wanted` ("reward=reward_avg") goes first."""
    columns = [column for column in columns if not re.search(r"__(MIN|MAX)$", column)]
    chosen = dict(parse(pair, columns) for pair in wanted)
    for ours, names in KNOWN.items():
        candidates = [ours, *names]
        whole = {column.rpartition(" - ")[2].strip().lower(): column for column in reversed(columns)}
        bare = {plain(column): column for column in reversed(columns)}
        found = (group[name] for name in candidates for group in (whole, bare) if name in group)
        column = next((c for c in found if c not in chosen.values()), None)
        if ours not in chosen and column is not None:
            chosen[ours] = column
    return Columns(chosen)


def parse(pair: str, columns: list[str]) -> tuple[str, str]:
    ours, _, theirs = pair.partition("=")
    name = ours if ours in KNOWN else SHORT.get(ours)
    if name is None or not theirs:
        hint = f"{near(ours, [*SHORT, *KNOWN])}; metrics: {', '.join(KNOWN)}"
        raise UnknownColumn(f"--map {pair}: expected metric=column{hint}")
    if theirs not in columns:
        hint = f"{near(theirs, columns)}; there are: {', '.join(columns)}"
        raise UnknownColumn(f"--map {pair}: no column {theirs!r}{hint}")
    return name, theirs


def near(word: str, words: Iterable[str]) -> str:
    found = difflib.get_close_matches(word, list(words), n=1)
    return f"; did you mean {found[0]}?" if found else ""
