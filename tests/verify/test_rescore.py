"""A run's completions judged again: what changed, of which groups at once, and what is left out."""

import json
import re
import sys
from contextlib import suppress
from types import SimpleNamespace

import pytest

from rlvr.cli import main
from rlvr.observe.files import to_json
from rlvr.records import completion_records
from rlvr.reward_config import PartConfig, RewardConfig
from rlvr.types import Completion, Group, Prompt
from rlvr.verify import Judge
from rlvr.verify.discover import load
from rlvr.verify.rescore import TOGETHER, Recorded, together
from tests.verify.conftest import CONFIG


def test_rescore_finds_what_changed_and_nothing_else(run_folder, capsys):
    changes = run_folder / "changes.jsonl"
    assert main(["rescore", str(run_folder), "--changes", str(changes)]) == 0
    said = capsys.readouterr().out
    assert "4 completions of 2 groups judged again; 1 verdicts changed, and 1 rewards\n" in said
    assert "ends: ok right 1 -> ok wrong 0   e.g. step 3, prompt p0, completion 1" in said
    assert [json.loads(line)["part"] for line in changes.read_text().splitlines()] == ["ends", "reward"]


def test_rescore_asks_who_compares_all_completions_about_all_of_a_step(run_folder, own, capsys):
    """Each group's longest completion is not the step's: asked about one at a time, an unchanged verifier changes."""
    config = run_folder / "config.yaml"
    reward = f'reward: {{parts: {{ends: {{verifier: "{own}/mine.py:longest"}}}}}}'
    config.write_text(re.sub(r"reward: .*", reward, CONFIG))
    judge = Judge(RewardConfig({"ends": PartConfig(f"{own}/mine.py:longest")}), 1)
    for step, texts in {3: (("1", "22"), ("333", "4444")), 4: (("55555", "6"), ("7", "8"))}.items():
        groups = [
            Group(
                Prompt(f"p{n}", n, ({"role": "user", "content": "q"},), (1,), "5"),
                tuple(Completion((1,), (True,), (0.0,), 0, text, "eos") for text in of_group),
            )
            for n, of_group in enumerate(texts)
        ]
        lines = [to_json(record) for record in completion_records(judge.verify_groups(groups))]
        (run_folder / "completions" / f"step-{step:06d}.jsonl").write_text("\n".join(lines) + "\n")
    judge.close()
    assert main(["rescore", str(run_folder)]) == 0
    assert "8 completions of 4 groups judged again; 0 verdicts changed" in capsys.readouterr().out


def test_rescore_needs_no_algorithm_and_says_at_once_where_it_cannot_write(run_folder, capsys, monkeypatch):
    config = run_folder / "config.yaml"
    config.write_text(config.read_text().replace("rlvr.objective.advantages.standardize", "no_such_module.advantage"))
    assert main(["rescore", str(run_folder)]) == 0
    monkeypatch.setattr("rlvr.verify.judge.Judge", None)
    assert main(["rescore", str(run_folder), "--changes", "/nowhere/changes.jsonl"]) == 2
    assert "--changes /nowhere/changes.jsonl: cannot be written: No such file" in capsys.readouterr().err


def test_rescore_leaves_an_earlier_file_of_changes_until_it_has_another(run_folder, monkeypatch):
    changes = run_folder / "changes.jsonl"
    changes.write_text("earlier\n")
    with monkeypatch.context() as patched:
        patched.setattr("rlvr.verify.judge.Judge", None)
        with pytest.raises(TypeError):
            main(["rescore", str(run_folder), "--changes", str(changes)])
    assert changes.read_text() == "earlier\n"
    assert main(["rescore", str(run_folder), "--changes", str(changes)]) == 0
    assert len(changes.read_text().splitlines()) == 2


def test_rescore_keeps_what_was_judged_when_it_is_stopped(run_folder, monkeypatch):
    changes, judged, whole = run_folder / "changes.jsonl", [], Judge.verify_groups

    def verify_groups(self, groups):
        if judged:
            raise KeyboardInterrupt
        judged.extend(groups)
        return whole(self, groups)

    monkeypatch.setattr("rlvr.verify.rescore.TOGETHER", 1)
    monkeypatch.setattr(Judge, "verify_groups", verify_groups)
    with suppress(KeyboardInterrupt):
        main(["rescore", str(run_folder), "--changes", str(changes)])
    assert len(judged) == 1 and len(changes.read_text().splitlines()) == 2


def test_groups_of_a_step_are_judged_together_all_of_them_where_a_verifier_compares_them():
    def entry(step: int, size: int, scope: str) -> Recorded:
        completions = (Completion((1,), (True,), (0.0,), 0, "x", "eos"),) * size
        return Recorded(step, Group(Prompt("p", 0, (), (1,), "", row={"scope": scope}), completions))

    def chain(part, prompt):
        return (SimpleNamespace(verifier=SimpleNamespace(scope=prompt.row["scope"])),)

    kinds = [(0, 2, "sample")] * (TOGETHER + 1) + [(0, 3, "group"), (0, 2, "sample"), (1, 2, "sample")]
    kinds += [(2, 2, "batch")] + [(2, 2, "group")] * (TOGETHER + 1)
    shares = list(together([entry(*kind) for kind in kinds], SimpleNamespace(chains={"x": ()}, chain=chain)))
    assert list(map(len, shares)) == [TOGETHER, 1, 1, 1, 1, TOGETHER, 1, 1]
    kinds = [(0, 2, "batch"), (0, 2, "sample")] * (TOGETHER + 1)
    shares = list(together([entry(*kind) for kind in kinds], SimpleNamespace(chains={"x": ()}, chain=chain)))
    assert list(map(len, shares)) == [TOGETHER, 1, TOGETHER + 1], "all that are compared, and the others in parts"


def test_of_a_step_whose_verifiers_compare_nothing_some_groups_are_read_at_a_time():
    read = []

    def entries():
        for n in range(3 * TOGETHER):
            read.append(n)
            yield Recorded(0, Group(Prompt("p", 0, (), (1,), ""), (Completion((1,), (True,), (0.0,), 0, "x", "eos"),)))

    chain = (SimpleNamespace(verifier=SimpleNamespace(scope="group")),)
    next(together(entries(), SimpleNamespace(chains={"x": ()}, chain=lambda *_: chain)))
    assert len(read) <= TOGETHER + 1


def test_rescore_finds_modules_in_ones_own_folder(run_folder, own, capsys, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (own / "more").mkdir()
    (own / "mine.py").rename(own / "more" / "moved_here.py")
    config = run_folder / "config.yaml"
    config.write_text(config.read_text().replace(f"{own}/mine.py:ends", "moved_here:ends"))
    assert main(["rescore", str(run_folder)]) == 2
    load.cache_clear()
    assert main(["rescore", str(run_folder), "--config-dir", "more"]) == 0
    assert "1 verdicts changed, and 1 rewards" in capsys.readouterr().out


def test_rescore_leaves_out_the_group_of_a_torn_line_and_says_which(run_folder, capsys):
    """The file ends in the middle of a line, as a kill or a full disk leaves it: here within a letter."""
    path = run_folder / "completions" / "step-000003.jsonl"
    lines = path.read_bytes().split(b"\n")
    torn = lines[3].replace(b"differs", b"").replace(b'"6"', '"é"'.encode())
    path.write_bytes(b"\n".join([*lines[:3], torn[: torn.index("é".encode()) + 1]]))
    assert main(["rescore", str(run_folder)]) == 0
    said = capsys.readouterr()
    assert "2 completions of 1 groups judged again; 1 verdicts changed, and 1 rewards\n" in said.out
    assert "step-000003.jsonl, line 4: no record of a completion" in said.err
    path.write_bytes(b"\n".join([lines[0], lines[1][:20], *lines[2:]]))  # or a damaged one further up
    assert main(["rescore", str(run_folder)]) == 0
    said = capsys.readouterr()
    assert "2 completions of 1 groups judged again; 0 verdicts changed" in said.out and "line 2:" in said.err


def test_rescore_with_another_verifier_compares_with_the_part_it_stands_in_for(run_folder, capsys):
    assert main(["rescore", str(run_folder), "--verifier", "mine.py:always"]) == 0
    assert "1 verdicts changed" in capsys.readouterr().out
    assert main(["rescore", str(run_folder), "scale=0.5", "--verifier", "mine.py:ends", "--part", "half"]) == 0
    assert "0 verdicts changed" in capsys.readouterr().out
    assert main(["rescore", str(run_folder), "--verifier", "mine.py:ends", "--part", "nobody"]) == 2


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [("prompt", None, "KeyError: 'prompt'"), ("token_ids", [2**31], "OverflowError"), ("observed", 1, "TypeError")],
)
def test_rescore_passes_over_what_no_run_wrote(run_folder, capsys, key, value, said):
    """A file of one's own beside the run's, and records that lack what a run's have."""
    path = run_folder / "completions" / "step-000003.jsonl"
    first, *rest = path.read_text().splitlines()
    record = json.loads(first)
    path.with_name("step-000003.annotated.jsonl").write_text("notes\n")
    path.with_name("step-000004.jsonl").write_text("")
    record.pop(key, None)
    record |= {} if value is None else {key: value}
    path.write_text("\n".join([json.dumps(record), *rest]))
    assert main(["rescore", str(run_folder)]) == 0
    told = capsys.readouterr()
    assert "2 completions of 1 groups judged again; 0 verdicts changed" in told.out
    assert f"not as a run writes them ({said}" in told.err and "the group is left out" in told.err
