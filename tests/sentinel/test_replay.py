"""The sentinel on recorded runs: real ones where they are at hand, and every shape that a log comes in."""

import json
import math
import os
import random
from pathlib import Path

import pytest

from rlvr.cli import main
from rlvr.compose import sentinel_settings
from rlvr.sentinel.columns import STEP, UnknownColumn, find_columns
from rlvr.sentinel.history import Alarm
from rlvr.sentinel.replay import NoRecord, read_records, replay, starts, steps_of
from rlvr.sentinel.watch import Watch

SHARED = Path(os.environ.get("RLVR_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
TRACES = SHARED / "traces"
real = pytest.mark.skipif(not TRACES.is_dir(), reason=f"no recorded runs in {TRACES}")


def alarms(path: Path, sentinel: str = "default", wanted=()):
    records = read_records(path)
    columns = find_columns(dict.fromkeys(name for record in records for name in record), wanted)
    return list(replay(steps_of(records, columns), Watch(sentinel_settings(sentinel, []))))


# ---- real runs -------------------------------------------------------------------------------------------------------


@real
@pytest.mark.parametrize("sentinel", ["default", "strict"])
def test_the_healthy_run_is_left_alone(sentinel):
    assert alarms(TRACES / "healthy_first_250.csv", sentinel) == []


@real
def test_the_collapse_is_seen_within_sixty_steps_of_its_first_sign():
    found = alarms(TRACES / "collapse_entropy_rise.csv")
    assert found[0].detector == "entropy_rise"
    assert 215 <= found[0].step <= 275 and 190 <= found[0].onset <= 230
    assert {"entropy_rise", "loss", "reward", "length"} <= {a.detector for a in found if a.step <= 275}


@real
@pytest.mark.parametrize("without", [(), ("loss",), ("loss", "avg_response_len"), ("loss", "reward_avg", "eval_acc")])
def test_the_collapse_is_seen_without_its_entropy(tmp_path, without):
    records = read_records(TRACES / "late_degradation_no_entropy.csv")
    kept = tmp_path / "kept.jsonl"
    kept.write_text("".join(json.dumps({k: v for k, v in r.items() if k not in without}) + "\n" for r in records))
    found = alarms(kept)
    if "reward_avg" in without:  # lengths alone are no trouble
        assert found == []
    else:
        assert 215 <= found[0].step <= 275 and 190 <= found[0].onset <= 235


# ---- formats ---------------------------------------------------------------------------------------------------------


def collapse(seed: int = 0) -> list[dict]:
    """Steps 1 to 120; from 81 on the reward is gone."""
    rng = random.Random(seed)
    return [
        {"step": t, "reward": (0.7 if t <= 80 else 0.1) + rng.uniform(-0.05, 0.05), "kl": 0.01} for t in range(1, 121)
    ]


def written(path: Path, rows: list[dict]) -> Path:
    if path.suffix == ".csv":
        names = list(dict.fromkeys(name for row in rows for name in row))
        lines = [",".join(names), *(",".join(str(row.get(name, "")) for name in names) for row in rows)]
        path.write_text("\n".join(lines))
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text(json.dumps({"log_history": rows}))
    return path


@pytest.mark.parametrize("name", ["log.csv", "log.jsonl", "trainer_state.json"])
def test_every_format_gives_the_same_alarm(tmp_path, name):
    (alarm,) = alarms(written(tmp_path / name, collapse()))
    assert (alarm.detector, alarm.onset) == ("reward", 81)
    assert 84 <= alarm.step <= 92


def test_a_run_folder_is_a_record(tmp_path):
    written(tmp_path / "metrics.jsonl", collapse())
    assert len(alarms(tmp_path)) == 1


@pytest.mark.parametrize(
    ("column", "metric"),
    [
        ("reward_avg", "reward/mean"), ("critic/rewards/mean", "reward/mean"), ("train/reward", "reward/mean"),
        ("happy-sun-7 - train/reward", "reward/mean"), ("actor/entropy_loss", "policy/entropy"),
        ("actor/grad_norm", "policy/grad_norm"), ("response_length/clip_ratio", "completions/truncated"),
        ("completions/clipped_ratio", "completions/truncated"), ("frac_reward_zero_std", "groups/no_signal"),
        ("train/completions/mean_length", "completions/length_mean"), ("train/global_step", STEP), ("_step", STEP),
        ("eval_acc", "eval/accuracy_greedy"), ("train/kl", "policy/kl_ref"), ("Loss", "policy/loss"),
        ("policy/entropy", "policy/entropy"),
    ],
)  # fmt: skip
def test_names_that_are_in_use_are_known(column, metric):
    assert find_columns(["epoch", column, f"{column}__MIN", "lr"]).chosen == {metric: column}


def test_our_own_name_wins_and_a_wish_wins_over_all():
    assert find_columns(["reward", "reward/mean"]).chosen == {"reward/mean": "reward/mean"}
    assert find_columns(["reward", "r2"], ["reward=r2"]).chosen == {"reward/mean": "r2"}


@pytest.mark.parametrize(
    ("pair", "said"), [("rewad=r", "did you mean reward"), ("reward=reword", "did you mean reward")]
)
def test_a_wish_that_cannot_be_granted_names_the_nearest(pair, said):
    with pytest.raises(UnknownColumn, match=said):
        find_columns(["reward"], [pair])


def test_lines_of_the_same_step_are_one_step_and_lines_without_a_step_are_left_out():
    records = [{"step": 1, "reward": 0.5}, {"step": 1, "eval_acc": 0.4}, {"reward": 9.0}, {"step": 2, "reward": 0.6}]
    steps = steps_of(records, find_columns(["step", "reward", "eval_acc"]))
    assert steps == [
        {"step": 1, "reward/mean": 0.5, "eval/accuracy_greedy": 0.4},
        {"step": 2, "reward/mean": 0.6},
    ]


def test_without_a_column_of_steps_lines_are_counted():
    assert [row[STEP] for row in steps_of([{"reward": 0.5}] * 3, find_columns(["reward"]))] == [1, 2, 3]


def test_percents_become_shares_and_an_evaluation_that_is_nan_was_none():
    records = [{"step": 1, "eval_acc": 45.0}, {"step": 2, "eval_acc": math.nan, "reward": 1.0}]
    steps = steps_of(records, find_columns(["step", "eval_acc", "reward"]))
    assert steps == [{"step": 1, "eval/accuracy_greedy": 0.45}, {"step": 2, "reward/mean": 1.0}]


def test_a_step_that_goes_back_forgets_what_was_recorded_from_there_on(tmp_path):
    """The same collapse behind a first start is found once, with the same numbers; a rollback keeps what was before."""
    alone = alarms(written(tmp_path / "alone.csv", collapse()))
    assert alarms(written(tmp_path / "two.csv", collapse(1)[:60] + collapse())) == alone
    # from the alarm back to step 70 and on, well again: nothing more to say
    again = [row | {"step": t} for t, row in enumerate(collapse(2)[:60], start=71)]
    assert alarms(written(tmp_path / "back.csv", collapse()[:100] + again)) == alone
    assert starts([{"step": 1}, {"step": 2}, {"step": 1}, {"step": 5}]) == [(1, 2), (1, 5)]


def test_a_step_that_goes_back_costs_no_evaluation(monkeypatch):
    """Others evaluate behind a step, not before the next: none is made again."""
    steps = [{"step": 1.0}, {"step": 2.0, "eval/accuracy_greedy": 0.6}, {"step": 3.0}, {"step": 2.0}]
    watch, seen = Watch(sentinel_settings("default", [])), []

    def all_alarms(row, history):
        seen.append([dict(old) for old in history])
        return [Alarm("kl", 3, 3, "policy/kl_ref", 9.0, 1.0, "sentinel.kl.floor", "")] if row["step"] == 3 else []

    monkeypatch.setattr(watch, "all_alarms", all_alarms)
    assert len(list(replay(steps, watch))) == 1 and seen[-1] == steps[:2]


def test_each_trouble_is_told_once(tmp_path):
    long = collapse() + [{"step": t, "reward": 0.1} for t in range(121, 300)]
    assert len(alarms(written(tmp_path / "long.csv", long))) == 1


@pytest.mark.parametrize(
    "text", ["", "a,b\nx,y\n", "[1, 2]", "{broken", '{"log_history": 5}', '{"log_history": null}', "[" * 100_000],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_a_file_that_holds_no_run_says_so(tmp_path, text):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(NoRecord):
        read_records(tmp_path / "x.csv")


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_command_says_what_it_read_what_it_could_not_judge_and_when_it_would_have_acted(tmp_path, capsys):
    path = written(tmp_path / "log.csv", collapse())
    assert main(["sentinel", "replay", str(path)]) == 0
    out = capsys.readouterr().out
    assert "120 steps, 1 to 120" in out and "reward/mean <- reward" in out
    assert "silent, for want of a metric: " in out and "entropy_rise (policy/entropy)" in out
    assert "reward: step 8" in out and "since step 81 -> back to a checkpoint from before step 81" in out


def test_json_is_a_line_an_alarm_and_nothing_else(tmp_path, capsys):
    path = written(tmp_path / "log.jsonl", [row | {"r": row["reward"], "reward": 1.0} for row in collapse()])
    assert main(["sentinel", "replay", str(path), "--json", "--map", "reward=r"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    alarm = json.loads(line)
    assert {"step", "onset", "detector", "value", "limit", "knob", "message", "metric"} == set(alarm)
    assert alarm["detector"] == "reward" and alarm["knob"].startswith("sentinel.reward.")


def test_settings_can_be_chosen_and_changed(tmp_path, capsys):
    path, own = written(tmp_path / "log.csv", collapse()), tmp_path / "own.yaml"
    own.write_text("reward: {enabled: false}\n")
    for arguments in (["--sentinel", "off"], ["--sentinel", str(own)], ["reward.share=0.99"]):
        assert main(["sentinel", "replay", str(path), *arguments]) == 0
        assert "no alarm in 120 steps" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--sentinel", "strickt"], "there are: default, off, strict"),
        (["reward.shar=1"], "did you mean reward.share?"),
        (["--map", "rewad=reward"], "did you mean reward?"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_nearest(tmp_path, capsys, arguments, said):
    assert main(["sentinel", "replay", str(written(tmp_path / "log.csv", collapse())), *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1


def test_a_knob_that_cannot_work_is_one_line(tmp_path, capsys):
    assert main(["sentinel", "replay", str(written(tmp_path / "log.csv", collapse())), "reward.windows=[]"]) == 2
    assert capsys.readouterr().err == "rlvr: sentinel.reward.windows is empty\n"


def test_a_file_without_a_known_column_asks_for_names(tmp_path, capsys):
    assert main(["sentinel", "replay", str(written(tmp_path / "log.csv", [{"foo": 1.0}]))]) == 2
    assert "name them with --map. There are: foo" in capsys.readouterr().err


def test_a_step_that_is_no_number_is_none(tmp_path):
    """As pandas writes a gap; and a number that no float holds is none either."""
    text = "step,reward\n1,0.1\nnan,0.2\ninf,0.3\n2,0.4\n"
    path = tmp_path / "x.csv"
    path.write_text(text)
    records = read_records(path)
    assert [row["step"] for row in steps_of(records, find_columns(records[0]))] == [1, 2]
    path.write_text(json.dumps({"step": 1, "reward": 10**400, "entropy": 1.0}))
    assert read_records(path) == [{"step": 1.0, "entropy": 1.0}]
