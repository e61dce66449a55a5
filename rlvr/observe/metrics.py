"""The one table of metric names: what each means, its unit, and how the steps of a window become one number.

Whoever logs a name that is not here logs something that nobody can look up: a test compares this table with the names
in the code, and a run that meets an unknown one warns. Knows nothing but the standard library; computes no metric.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Over = Literal["mean", "sum", "max", "last"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the table. A name that ends in `<...>` is a family: any word may stand there.

    Metric("reward/<part>", "reward", "mean", "one part before its weight, as gates and requires leave it")
    """

    name: str
    unit: str  # "" for pure numbers; "share" is between 0 and 1
    over: Over  # how the values of several steps become one
    meaning: str

    @property
    def family(self) -> str:
        """What comes before the `<...>`; empty for an ordinary name."""
        return self.name.partition("<")[0] if self.name.endswith(">") else ""


TABLE = (
    Metric("reward/mean", "reward", "mean", "weighted reward, over the completions with a trainable verdict"),
    Metric("reward/std", "reward", "mean", "standard deviation of that reward over all of the step's completions"),
    Metric("reward/<part>", "reward", "mean", "one part before its weight, as gates and requires leave it"),
    Metric("accuracy", "share", "mean", "sampled completions that the main verifier calls right, of those it judged"),
    Metric("accuracy_rewarded", "share", "mean", "completions right after gates and requires too, of those rewarded"),
    Metric("groups/sampled", "groups", "sum", "groups sampled in the step, those without signal included"),
    Metric("groups/no_signal", "share", "mean", "sampled groups that are not trained on: all completions score alike"),
    Metric("groups/refill_rounds", "rounds", "mean", "further rounds of sampling that replaced groups without signal"),
    Metric("completions/length_mean", "tokens", "mean", "tokens of a completion"),
    Metric("completions/length_max", "tokens", "max", "tokens of the longest completion"),
    Metric("completions/truncated", "share", "mean", "completions that ran into rollout.max_tokens"),
    Metric("completions/masked", "share", "mean", "completions without a trainable verdict: abstain or error"),
    Metric("passed/<part>", "share", "mean", "completions that a reward part gives 1 or more, of those it judged"),
    Metric("masked/<part>", "share", "mean", "completions that a reward part could not judge: abstain or error"),
    Metric("outcomes/<verdict>", "verdicts", "sum", "verdicts that say so: <part>/<outcome>/<reason>, or other"),
    Metric("fast_path/<part>", "share", "mean", "verdicts of a part that needed no more than its fast path"),
    Metric("suspicious/<part>", "share", "mean", "passes of a part with signs of a hack (rlvr/verify/suspicion.py)"),
    Metric("disagreement/<part>", "share", "mean", "audited completions that the stricter verifier judges otherwise"),
    Metric("verify_seconds/<part>", "s", "mean", "a part's time for one verdict, in its process"),
    Metric("policy/entropy", "nats", "mean", "entropy of the policy at temperature, mean over the trained tokens"),
    Metric("policy/grad_norm", "", "mean", "norm of the gradient before it is clipped, mean of the updates"),
    Metric("policy/skipped", "share", "mean", "updates that the optimizer left out, as their gradient was not finite"),
    Metric("policy/lr", "", "last", "learning rate of the step"),
    Metric("policy/loss", "", "mean", "minus the objective, mean of the updates; only a jump of it says something"),
    Metric("policy/ratio_mean", "", "mean", "importance weight pi/pi_old over the trained tokens; 1 on fresh groups"),
    Metric("policy/clipped", "share", "mean", "trained tokens with an advantage that the clip keeps from teaching"),
    Metric("policy/kl_ref", "nats", "mean", "KL estimate of the policy from the reference, over the trained tokens"),
    Metric("policy/kl_anchor", "nats", "mean", "instead of it, where `anchor` holds on to a checkpoint: KL from that"),
    Metric("policy_version", "", "last", "last publication before the step; completions may be staleness/max older"),
    Metric("mismatch/mean_abs", "nats", "mean", "|log pi_old - log pi_rollout| over the trained tokens"),
    Metric("mismatch/max_abs", "nats", "max", "the same at the worst token"),
    Metric("mismatch/ess", "share", "mean", "effective sample size of pi_old/pi_rollout, as a share of the tokens"),
    Metric("mismatch/masked", "share", "mean", "trained tokens that the correction of the mismatch takes out"),
    Metric("staleness/max", "versions", "max", "trainer's version minus that of the oldest completion of the step"),
    Metric("staleness/updated", "share", "mean", "completions that newer weights reached in mid-decoding"),
    Metric("transfer/seconds", "s", "mean", "from the trainer's weights to engines that sample with them"),
    Metric("transfer/bytes_per_s", "bytes/s", "mean", "weights that reached an engine in a second, probe not counted"),
    Metric("transfer/probe_rms", "nats", "max", "engine and trainer apart on the probe, as a root mean square"),
    Metric("time/step", "s", "mean", "from the step before to this one, without the evaluation between"),
    Metric("time/rollout", "s", "mean", "waiting for groups: sampling, and verifying that was not hidden behind it"),
    Metric("time/verify", "s", "mean", "of that, waiting for verdicts when all completions had ended"),
    Metric("time/driver", "s", "mean", "what is left of a step: collating, the sentinel, logs, checkpoints"),
    Metric("time/train", "s", "mean", "the trainer's part of the step: the three below"),
    Metric("time/logprobs", "s", "mean", "old and reference logprobs, where the first optimizer step needs them"),
    Metric("time/gradient", "s", "mean", "forward and backward, over all micro-batches"),
    Metric("time/optimizer", "s", "mean", "clipping and the optimizer's steps"),
    Metric("time/publish", "s", "mean", "handing the new weights to the engines, and the proof that they arrived"),
    Metric("tokens/sampled", "tokens", "sum", "what the policy sampled in the step, dropped groups included"),
    Metric("tokens/trained", "tokens", "sum", "tokens that the loss saw, in all epochs; 0: there was no update"),
    Metric("tokens/per_s", "tokens/s", "mean", "tokens/sampled divided by time/step"),
    Metric("tools/calls", "", "mean", "answers of a tool that a completion read"),
    Metric("tools/failed", "share", "mean", "completions that ended as their tool, or the engine, failed: masked"),
    Metric("packing/padding_waste", "share", "mean", "positions of the trainer's rows that hold padding"),
    Metric("packing/shared", "share", "mean", "tokens not computed, as another completion's row has their prompt"),
    Metric("eval/accuracy_greedy", "share", "last", "held-out problems solved, decoding greedily"),
    Metric("eval/majority", "share", "last", "held-out problems whose most frequent sampled answer is right: maj@k"),
    Metric("eval/truncated", "share", "last", "held-out sampled completions that ran into rollout.max_tokens"),
    Metric("eval/length_mean", "tokens", "last", "that the policy wrote in a held-out sampled completion"),
    Metric("eval/seconds", "s", "last", "an evaluation, sampling and verifying"),
    Metric("eval/problems", "", "last", "held-out problems of an evaluation"),
    Metric("eval/masked", "share", "last", "completions that the main verifier could not judge: not in the accuracies"),
    Metric("eval/accuracy_sampled", "share", "last", "held-out completions that are right, at the rollout temperature"),
    *(
        Metric(f"eval/pass_at_{k}", "share", "last", f"held-out problems that one of {k} sampled completions solves")
        for k in (2, 4, 8, 16, 32, 64)
    ),
)

NAMES = {metric.name: metric for metric in TABLE if not metric.family}
FAMILIES = {metric.family: metric for metric in TABLE if metric.family}


def find(name: str) -> Metric | None:
    """The row of a logged name; an exact name wins over a family."""
    if name in NAMES:
        return NAMES[name]
    prefix, slash, rest = name.partition("/")
    return FAMILIES.get(prefix + slash) if rest else None


def spent(row: Mapping[str, float], name: str) -> float:
    """Seconds of a step that a phase took. In older runs, whose evaluations were not timed, a step began behind one:
    weights that were handed over before it were so outside of the step."""
    outside = name == "time/publish" and "eval/seconds" not in row and any(key.startswith("eval/") for key in row)
    return 0.0 if outside else row.get(name, 0.0)


def unknown(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if find(name) is None)


def aggregate(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Several steps as one row, each metric its own way; a step that lacks a metric does not count for it.

    aggregate([{"accuracy": 0.2, "tokens/sampled": 900}, {"accuracy": 0.4, "tokens/sampled": 1100}])
        == {"accuracy": 0.3, "tokens/sampled": 2000}
    """
    reduce: dict[Over, Callable[[list[float]], float]] = {
        "mean": lambda values: sum(values) / len(values),
        "sum": sum,
        "max": max,
        "last": lambda values: values[-1],
    }
    window: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            window.setdefault(name, []).append(value)
    return {name: reduce[metric.over if (metric := find(name)) else "mean"](values) for name, values in window.items()}
