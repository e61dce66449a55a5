"""Who is asked about a completion: by the recipe, by the data row, in turn, and as an audit."""

import sys

import pytest

from rlvr.config import RecipeError
from rlvr.reward_config import AuditConfig, PartConfig, RewardConfig, VerifierChoice
from rlvr.types import Completion, Group, Outcome, Prompt
from rlvr.verify import Judge, Sample
from rlvr.verify.discover import installed, load
from rlvr.verify.plan import Plan, params_of
from rlvr.verify.plugin import PluginError
from rlvr.verify.rows import leave_out, unusable

PLUGIN = """
from rlvr.verify import verifier

def rule(sample):
    return float(sample.completion) if sample.completion.isdigit() else None

def judge(sample, value: float = 0.25):
    return value

def strict(sample):
    return sample.completion == "1"

@verifier("all", scope="group")
def whole(samples):
    return [1.0] * len(samples)
"""


@pytest.fixture
def at(tmp_path):
    (tmp_path / "p.py").write_text(PLUGIN)
    return lambda name: f"{tmp_path}/p.py:{name}"


def prompt(n: int = 0, **row) -> Prompt:
    return Prompt(f"p{n}", n, ({"role": "user", "content": "q"},), (1,), "5", row=row)


def judged(reward: RewardConfig, prompts: list[Prompt], *texts: str) -> list[Group]:
    completions = tuple(Completion((1,), (True,), (0.0,), 0, text, "eos") for text in texts)
    judge = Judge(reward, 1)
    try:
        return judge.verify_groups([Group(p, completions) for p in prompts])
    finally:
        judge.close()


def test_the_next_in_turn_decides_where_the_one_before_cannot(at):
    later = [VerifierChoice(at("judge"), {"value": 0.5})]
    reward = RewardConfig({"answer": PartConfig(at("rule"), first_decided=later)})
    (group,) = judged(reward, [prompt()], "1", "words")
    assert [v.reward for v in group.verdicts] == [1.0, 0.5]
    assert [(p.verifier, p.outcome) for p in group.verdicts[1].provenance] == [("rule", "abstain"), ("judge", "ok")]
    assert all(p.part == "answer" for p in group.verdicts[1].provenance)


def test_only_single_samples_are_asked_about_in_turn(at):
    part = PartConfig(at("rule"), first_decided=[VerifierChoice(at("whole"))])
    with pytest.raises(RecipeError, match=r"reward\.parts\.x\.first_decided: only verifiers of single samples"):
        Plan(RewardConfig({"x": part}))


def test_a_row_names_its_verifier_and_options(at):
    part = PartConfig("math", column="verifier", choices={"fixed": at("judge")})
    rows = [
        prompt(0),
        prompt(1, verifier="fixed", verifier_params={"value": 0.75}),
        prompt(2, verifier="fixed", verifier_params='{"value": 0.5}'),
        prompt(3, verifier="fixed", verifier_params={"value": None}),  # a column of a table: every row has every key
        prompt(4, verifier=None, verifier_params=None),
        prompt(5, verifier=float("nan"), verifier_params=float("nan")),
        prompt(6, verifier="fixed", verifier_params="null"),
        prompt(7, verifier=None, verifier_params="NaN"),
    ]
    said = [group.verdicts[0] for group in judged(RewardConfig({"task": part}), rows, r"\boxed{5}")]
    assert [v.reward for v in said] == [1.0, 0.75, 0.5, 0.25, 1.0, 1.0, 0.25, 1.0]
    names = ["math", "judge", "judge", "judge", "math", "math", "judge", "math"]
    assert [v.provenance[0].verifier for v in said] == names
    assert len({v.provenance[0].parameters for v in said[1:3]}) == 2


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"verifier": "os:system"}, "rows may name .*math"),
        ({"verifier": "mahts"}, "choices has room for more"),
        ({"verifier": 7}, "rows may name"),
        ({"verifier": "format", "verifier_params": "{"}, "is not JSON"),
        ({"verifier": "format", "verifier_params": {"boxd": 1}}, "did you mean boxed"),
        ({"verifier": None, "verifier_params": {"percent": True}}, "nobody, as its column verifier is empty"),
        ({"verifier_params": '{"percent": true}'}, "options for nobody, as its column verifier is empty"),
        ({"verifier_params": "{"}, "is not JSON"),
    ],
)
def test_a_row_that_names_what_it_may_not_is_refused_when_the_data_is_read(row, said):
    plan = Plan(RewardConfig({"task": PartConfig("math", column="verifier")}))
    with pytest.raises(RecipeError, match=said):
        plan.check_rows([prompt(0, **row)])


def test_a_column_that_no_row_has_is_refused_when_the_data_is_read():
    plan = Plan(RewardConfig({"task": PartConfig("math", column="verifer")}))
    rows = [prompt(n, verifier="regex", level=n) for n in range(2)]
    with pytest.raises(RecipeError, match=r"parts\.task\.column=verifer: no such column in data.train; .* verifier"):
        plan.check_columns(rows)
    plan.check_columns([rows[0], prompt(2, verifer=None)])  # in lines of JSON a row may leave it out


def test_an_audit_looks_at_its_share_and_changes_no_reward(at):
    lenient = PartConfig(at("judge"), {"value": 1.0}, audit=AuditConfig(at("strict"), share=0.5))
    groups = judged(RewardConfig({"a": lenient}), [prompt(n) for n in range(40)], "1", "2")
    assert {v.reward for g in groups for v in g.verdicts} == {1.0}
    audits = [(p, v) for g in groups for v in g.verdicts for p in v.provenance if p.part == "audit:a"]
    assert 20 < len(audits) < 60
    assert {p.reward for p, _ in audits} == {0.0, 1.0}
    assert all(v.outcome == Outcome.OK and "audit:a" not in v.parts for _, v in audits)


def test_words_become_options():
    assert params_of(["a=1", "b=true", "c=text", 'd=["x"]', "e=a=b"]) == {
        "a": 1, "b": True, "c": "text", "d": ["x"], "e": "a=b",
    }  # fmt: skip
    with pytest.raises(RecipeError, match="expected key=value"):
        params_of(["--fast"])
    assert params_of(["a=False", "b=TRUE", "c=None"]) == {"a": False, "b": True, "c": "None"}


def test_an_option_that_is_true_or_false_takes_nothing_else(tmp_path):
    (tmp_path / "f.py").write_text(
        "from __future__ import annotations\ndef flag(sample, strict: bool = True): return strict\n"
    )
    for name in (f"{tmp_path}/f.py:flag", "math"):
        option = "strict" if name != "math" else "ordered"
        Plan(RewardConfig({"x": PartConfig(name, {option: False})}))
        Plan(RewardConfig({"x": PartConfig(name, {option: 1})}))  # as tables have it
        with pytest.raises(RecipeError, match=rf"reward\.parts\.x\.params\.{option}='no': .* wants true or false"):
            Plan(RewardConfig({"x": PartConfig(name, {option: "no"})}))


def test_rows_whose_reference_cannot_be_used_are_left_out_and_said(tmp_path):
    (tmp_path / "c.py").write_text(
        "from rlvr.verify import verifier\n"
        "def odd(answer, row): return None if int(answer) % 2 else f'even, row {row}'\n"
        "@verifier('c', check_answer=odd)\n"
        "def c(sample): return True\n"
    )
    rows = [Prompt(f"p{n}", n, (), (1,), str(n), row={"n": n}) for n in range(4)]
    plan = Plan(RewardConfig({"c": PartConfig(f"{tmp_path}/c.py:c")}))
    (left,), (said,) = leave_out(plan, {"data.train=x": rows})
    assert [p.id for p in left] == ["p1", "p3"]
    assert said.startswith("data.train=x: 2 of 4 rows are left out, as their reference cannot be used")
    assert said.endswith("; the first is p0: c: even, row {'n': 0}")
    with pytest.raises(RecipeError, match="no row has a reference that can be used"):
        leave_out(plan, {"data.train=x": rows[:1]})
    watched = {"c": PartConfig(f"{tmp_path}/c.py:c", weight=0.0)}
    assert leave_out(Plan(RewardConfig(watched)), {"data.train=x": rows}) == ([rows], [])
    required = Plan(RewardConfig({**watched, "form": PartConfig("format", requires={"c": 1.0})}))
    assert leave_out(required, {"data.train=x": rows})[0] == [[rows[1], rows[3]]]


def test_a_row_stays_while_anybody_in_turn_can_use_its_reference(tmp_path):
    (tmp_path / "c.py").write_text(
        "from rlvr.verify import verifier\n"
        "def odd(answer): return None if int(answer) % 2 else 'even'\n"
        "def small(answer): return None if int(answer) < 2 else 'large'\n"
        "@verifier('a', check_answer=odd)\n"
        "def a(sample): return True\n"
        "@verifier('b', check_answer=small)\n"
        "def b(sample): return True\n"
        "@verifier('anything')\n"
        "def anything(sample): return True\n"
    )
    rows = [Prompt(f"p{n}", n, (), (1,), str(n)) for n in range(4)]
    for names, bad in ((["b"], {2: "a: even"}), (["b", "anything"], {})):
        later = [VerifierChoice(f"{tmp_path}/c.py:{name}") for name in names]
        plan = Plan(RewardConfig({"x": PartConfig(f"{tmp_path}/c.py:a", first_decided=later)}))
        assert unusable(plan, [rows]) == [bad]


def package(folder, name: str, module: str) -> str:
    """An installed package that offers the verifier `twice`."""
    about = folder / f"{name}-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[rlvr.verifiers]\ntwice = {module}:judge.inner [extra]\n")
    (folder / f"{module}.py").write_text("def judge(sample): return True\n")
    return str(folder)


def test_a_name_that_two_packages_offer_is_nobodys(tmp_path, monkeypatch):
    installed.cache_clear()
    monkeypatch.syspath_prepend(package(tmp_path / "a", "first-rewards", "module_of_first"))
    with pytest.raises(PluginError, match=r"module_of_first has no function 'judge\.inner'"):
        load("twice")
    monkeypatch.syspath_prepend(package(tmp_path / "b", "other-rewards", "module_of_other"))
    load.cache_clear()
    with pytest.raises(PluginError, match=r"'twice' is offered by .*-rewards .* and .*-rewards") as refused:
        load("twice")
    assert "first-rewards" in str(refused.value) and "other-rewards" in str(refused.value)
    assert load("module_of_other:judge")(Sample("q", "a", None)).reward == 1.0
    assert load("math").name == "math"
    installed.cache_clear()


def test_what_is_installed_is_read_once_however_many_rows_name_a_verifier(at, monkeypatch):
    plan = Plan(RewardConfig({"x": PartConfig(at("rule"), column="verifier")}))
    plan.chain("x", prompt(verifier="format", verifier_params=None))

    def read_again(**_):
        raise AssertionError("the entry points are read for a row")

    monkeypatch.setattr("rlvr.verify.discover.entry_points", read_again)
    for name in ("format", "math"):
        assert plan.chain("x", prompt(verifier=name, verifier_params=None))[0].reference == name


def test_a_file_may_hold_a_dataclass_and_what_breaks_in_it_is_said(tmp_path):
    (tmp_path / "good.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "@dataclass\n"
        "class Row:\n"
        "    a: int = 1\n"
        "def good(sample): return Row().a\n"
    )
    assert load(f"{tmp_path}/good.py:good").function(None) == 1
    for text, said in (("open('/nowhere/vocabulary')", "FileNotFoundError"), ("raise SystemExit(3)", "SystemExit: 3")):
        (tmp_path / f"{said[:4]}.py").write_text(text)
        with pytest.raises(PluginError, match=rf"{said[:4]}\.py cannot be imported: {said}"):
            load(f"{tmp_path}/{said[:4]}.py:x")
    assert not [name for name in sys.modules if name.startswith(("rlvr_verifier_File", "rlvr_verifier_Syst"))]


def test_what_a_row_names_has_the_parts_limit_and_its_successors(at):
    part = PartConfig(at("rule"), timeout_s=7.0, column="verifier", first_decided=[VerifierChoice(at("judge"))])
    plan = Plan(RewardConfig({"x": part}))
    named, later = plan.chain("x", prompt(verifier="format", verifier_params={"think": False}))
    assert (named.reference, named.params, named.limit_s) == ("format", {"think": False}, 7.0)
    assert later == plan.chains["x"][1] and plan.chain("x", prompt(verifier=None)) == plan.chains["x"]


@pytest.mark.parametrize("kind", ["", "trl:", "check:", "tool:"])
def test_a_file_of_the_home_folder_is_found(tmp_path, monkeypatch, kind):
    (tmp_path / "mine.py").write_text("def judged(*_, **__):\n    return [1.0]\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    load.cache_clear()
    assert load(f"{kind}~/mine.py:judged").name


def test_a_file_of_nobodys_home_folder_is_said_to_be_out_of_reach():
    with pytest.raises(PluginError, match="Could not determine home directory"):
        load("~nobody_of_this_name/mine.py:judged")
