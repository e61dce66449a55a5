"""The commands `rlvr verifiers`, `rlvr data check` and `rlvr rescore`. Parses words and prints; judges nothing.

`composed(recipe, overrides, folder)` and `saved(run, folder)` give a Recipe: the command line knows Hydra, not this.
"""

import argparse
import difflib
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import compress
from pathlib import Path
from typing import Any, Literal, TextIO

from rlvr.config import DataConfig, Recipe, RecipeError
from rlvr.records import completion_of
from rlvr.reward_config import PartConfig, RewardConfig
from rlvr.verify.discover import installed, load
from rlvr.verify.plan import Plan, assignment, params_of
from rlvr.verify.plugin import PluginError, Sample, Turn, Verifier, turns_of
from rlvr.verify.rows import asked, unusable

Composed = Callable[[str, Sequence[str], str | None], Recipe]
Saved = Callable[[Path, str | None], Recipe]


def add_to(commands: Any, composed: Composed, saved: Saved) -> None:
    """The sub-commands, into argparse's own object."""
    verifiers = commands.add_parser("verifiers", help="list, test and run verifiers")
    what = verifiers.add_subparsers(required=True, metavar="what")
    one = what.add_parser("list", help="list the verifiers that are installed")
    one.set_defaults(command=list_all)
    two = what.add_parser("test", help="check that a verifier stands what every verifier must")
    two.add_argument("verifier", help="an installed name, package.module:attribute, or file.py:attribute")
    two.add_argument("samples", nargs="?", help="a .jsonl file: prompt, reference; completion and reward where known")
    two.add_argument("overrides", nargs="*", metavar="key=value", help="the verifier's options")
    two.add_argument("--form", action="store_true", help="it judges the form of a completion, not the answer in it")
    two.set_defaults(command=test)
    three = what.add_parser("run", help="judge the completions of a file; one verdict a line, as JSON")
    three.add_argument("verifier", help="as for test")
    three.add_argument("samples", help="a .jsonl file with prompt, completion, reference; - is standard input")
    three.add_argument("overrides", nargs="*", metavar="key=value", help="the verifier's options")
    three.add_argument("--processes", type=int, default=2, help="how many processes judge at a time (default 2)")
    three.set_defaults(command=run)
    data = commands.add_parser("data", help="look at data sets").add_subparsers(required=True, metavar="what")
    four = data.add_parser("check", help="whether the verifiers can use each row's reference")
    four.add_argument("source", help="a recipe, or a data file together with --verifier")
    four.add_argument("overrides", nargs="*", metavar="key=value", help="as for train; of a file: prompt=, answer=")
    four.add_argument("--verifier", help="the verifier that is to use the references of a data file")
    four.add_argument("--config-dir", help="a folder with your own recipes and Python modules, as for train")
    four.set_defaults(command=lambda args: check_data(args, composed))
    five = commands.add_parser("rescore", help="judge a run's recorded completions again, and show what changed")
    five.add_argument("run", help="the run folder")
    five.add_argument("overrides", nargs="*", metavar="key=value", help="options of --verifier")
    five.add_argument("--verifier", help="a verifier instead of the main part's (default: the run's own reward)")
    five.add_argument("--part", help="the part that --verifier stands in for (default: the first)")
    five.add_argument("--changes", help="a .jsonl file for every verdict that changed")
    five.add_argument("--config-dir", help="the folder with your own Python modules, as the run had it")
    five.set_defaults(command=lambda args: rescore(args, saved))


def list_all(args: argparse.Namespace) -> int:
    broken = 0
    for name in sorted(installed()):
        try:
            found = load(name)
        except PluginError as error:
            broken += 1
            print(f"{name:16} cannot be loaded: {error}")
            continue
        about = (found.function.__doc__ or "").strip().split("\n")[0]
        words = [found.scope, found.isolation, "async" if found.is_async else "", f"{found.timeout_s:g} s"]
        how = ", ".join(filter(None, words))
        print(f"{name:16} {found.version:6} {how:30} {about}")
    return 1 if broken else 0


def test(args: argparse.Namespace) -> int:
    from rlvr.verify import kit

    words = list(args.overrides)
    if args.samples and "=" in args.samples and not Path(args.samples).exists():
        words, args.samples = [args.samples, *words], None
    rows = list(read_lines(args.samples)) if args.samples else []
    params = checked(args.verifier, words)
    cases = []
    for where, row in rows:
        s = sample_of(where, row, load(args.verifier))
        cases.append(kit.Case(s.prompt, s.answer, row.get("completion"), reward_in(where, row), s.row))
    found = kit.check(args.verifier, cases, params, args.form)
    print("\n".join(map(str, found)))
    failed = sum(finding.passed is False for finding in found)
    print(f"{args.verifier}: {f'{failed} checks failed' if failed else 'sound'}")
    return 1 if failed else 0


def run(args: argparse.Namespace) -> int:
    from rlvr.verify.kit import Kit
    from rlvr.verify.pool import Pool

    if args.processes < 1:
        raise RecipeError(f"--processes {args.processes}: at least 1")
    part = PartConfig(args.verifier, dict(checked(args.verifier, args.overrides)))
    asked = assignment("run", part, args.verifier)
    lines = read_lines(args.samples, needed=("completion",))
    samples = [sample_of(where, row, asked.verifier) for where, row in lines]
    pool = Pool([asked], args.processes)
    try:
        for verdict in Kit(asked, pool, []).verdicts(samples):  # as they come: Ctrl-C keeps what was judged
            print(json.dumps(asdict(verdict)), flush=True)
    finally:
        pool.close()
    return 0


def checked(verifier: str, words: Sequence[str]) -> dict[str, Any]:
    params = dict(params_of(words))
    assignment("x", PartConfig(verifier, params), verifier)
    return params


def read_lines(path: str, needed: Sequence[str] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row with where it stands, for errors. `needed`: keys without which it cannot be judged."""
    if path != "-" and not Path(path).exists():  # it may be a pipe: <(...)
        raise RecipeError(f"{path}: no such file")
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read: {error}") from None
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise RecipeError(f"{path}, line {number}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise RecipeError(f"{path}, line {number}: a {type(row).__name__}, not an object")
        if missing := [key for key in needed if row.get(key) is None]:
            raise RecipeError(f"{path}, line {number}: no {missing[0]}; it has {', '.join(row)}")
        yield f"{path}, line {number}", row


KINDS = {
    "completion": (str, "text"), "row": (dict, "an object"), "token_ids": (list, "a list of numbers"),
    "stop_reason": (str, "text"), "thinking": (bool, "true or false"),
}  # fmt: skip


# what data sets call a reference; here it would be a column, and the reference none
ELSEWHERE = {"expected", "gold", "gold_answer", "ground_truth", "label", "reward_model", "solution", "target"}


def sample_of(where: str, row: dict[str, Any], verifier: Verifier) -> Sample:
    """`prompt` may be text or messages; what is not a sample's own field is a column of the data set. RecipeError for
    what a verifier would take for something else, as no reference where it checks references or another key has it."""
    from rlvr.data.prompts import wrong_messages

    for key, (kind, words) in KINDS.items():
        if row.get(key) is not None and not isinstance(row[key], kind):
            raise RecipeError(f"{where}: {key}={row[key]!r:.80}: expected {words}")
    names = ("reference", "answer")
    alike = any(key in ELSEWHERE or difflib.get_close_matches(key.lower(), names, cutoff=0.8) for key in row)
    if not set(names) & set(row) and (alike or verifier.check_answer is not None):
        raise RecipeError(f"{where}: no reference (null, where there is none); it has {', '.join(row)}")
    ids = row.get("token_ids") or []
    if not all(isinstance(token, int) for token in ids):
        raise RecipeError(f"{where}: token_ids={ids!r:.80}: expected a list of numbers")
    prompt = row.get("prompt", "")
    if not isinstance(prompt, str) and (why := wrong_messages(prompt)):
        raise RecipeError(f"{where}: prompt={prompt!r:.80} {why}")
    messages = ({"role": "user", "content": prompt},) if isinstance(prompt, str) else tuple(prompt)
    own = {*names, "prompt", "completion", "reward", "stop_reason", "token_ids", "row", "thinking", "observed",
           "loss_mask"}  # fmt: skip
    columns = {key: value for key, value in row.items() if key not in own} | (row.get("row") or {})
    question = str(messages[-1]["content"])
    transcript, turns = "", tuple[Turn, ...]()
    if row.get("observed"):  # as a run recorded it: what a tool wrote is no answer
        given = {key: value for key, value in row.items() if value is not None}
        try:
            recorded = completion_of({"policy_version": 0, "stop_reason": "eos", "completion": ""} | given)
            row |= {"completion": recorded.written}
            ids, turns = list(compress(recorded.token_ids, recorded.loss_mask)), turns_of(recorded)
        except (OverflowError, TypeError, ValueError) as error:
            raise RecipeError(f"{where}: observed, token_ids and loss_mask are no run's: {error}") from None
        transcript = recorded.text
    return Sample(
        question, row.get("completion") or "", row.get("reference", row.get("answer")), row.get("stop_reason") or "eos",
        tuple(ids), messages, columns, str(row.get("group", question)), bool(row.get("thinking")),
        transcript, turns,
    )  # fmt: skip


def reward_in(where: str, row: dict[str, Any]) -> float | None:
    """What the completion deserves, where the author says so."""
    reward = row.get("reward")
    if reward is None:
        return None
    if not isinstance(reward, (int, float)) or not math.isfinite(reward):
        raise RecipeError(f"{where}: reward={reward!r:.80}: expected a finite number")
    if row.get("completion") is None:
        raise RecipeError(f"{where}: reward={reward} without a completion that it is for; it has {', '.join(row)}")
    return reward


def check_data(args: argparse.Namespace, composed: Composed) -> int:
    from rlvr.data.prompts import load_prompts
    from rlvr.data.rows import READERS

    if args.verifier:
        options = dict(params_of(args.overrides))
        known = {name: options.pop(name) for name in ("prompt", "answer", "split") if name in options}
        data = DataConfig(train=args.source, **known)
        plan = Plan(RewardConfig({"data": PartConfig(args.verifier, options)}))
    elif Path(args.source).suffix in READERS:
        raise RecipeError(f"{args.source}: a data file goes together with --verifier, or name a recipe")
    else:
        cfg = composed(args.source, args.overrides, args.config_dir)
        data, plan = cfg.data, Plan(cfg.reward)
    usable, read = 0, {}
    for knob, source in (("data.train", data.train), ("data.heldout", data.heldout)):
        if source is not None:
            alive(f"reading {source} ...")
            read[f"{knob}={source}"] = load_prompts(source, knob, data, lambda messages: (), sys.maxsize)
    plan.check_columns(next(iter(read.values())))
    for prompts in read.values():
        plan.check_rows(prompts)
    alive(f"checking {sum(map(len, read.values())):,} rows ...")
    found = unusable(plan, list(read.values()))
    alive("")
    for (knob, prompts), bad in zip(read.items(), found, strict=True):
        usable += len(prompts) - len(bad)
        said = f"{len(bad):,} ({len(bad) / len(prompts):.2%}) with a reference that does not parse"
        print(f"{knob}: {len(prompts):,} rows; {said if asked(plan, prompts)[0] else 'references not checked'}")
        for prompt in [prompt for prompt in prompts if prompt.position in bad][:SHOWN]:
            why = bad[prompt.position]
            print(shown(f"  row {prompt.position}, id {prompt.id}: {why}; reference {str(prompt.answer)!r:.100}"))
    chains = plan.chains.items()
    if blind := [part for part, chain in chains if any(one.verifier.check_answer is None for one in chain)]:
        print(f"not checked: {', '.join(blind)} (a verifier without check_answer)")
    return 0 if usable else 1


SHOWN = 10  # rows a data set


def rescore(args: argparse.Namespace, saved: Saved) -> int:
    from rlvr.verify.judge import Judge
    from rlvr.verify.rescore import Tally, changes, recorded, together

    run = Path(args.run)
    cfg = saved(run, args.config_dir)
    main = next(iter(cfg.reward.parts))
    part = args.part or main
    if part not in cfg.reward.parts:
        raise RecipeError(f"--part {part}: the run's reward has {', '.join(cfg.reward.parts)}")
    reward, renamed = cfg.reward, {}
    if args.verifier:
        reward = RewardConfig({part: PartConfig(args.verifier, checked(args.verifier, args.overrides))})
        renamed = {part: part}
    elif args.overrides or args.part:
        raise RecipeError("options and --part go with --verifier")
    for cfg_part in reward.parts.values():
        cfg_part.audit = None
    if args.changes:
        opened(args.changes, "a").close()  # before hours of judging; what is there stays till something is judged
    judge = Judge(reward, cfg.verify.processes)
    tally, written = Tally(), None
    try:
        every = recorded(run, lambda said: print(f"warning: {said}", file=sys.stderr))
        for entries in together(every, judge.plan):
            found = list(changes(entries, judge, renamed))
            tally.add(entries, found)
            alive(f"step {entries[-1].step}: {tally.completions:,} completions judged again")
            if args.changes:  # as they come: Ctrl-C keeps what was judged
                written = written or opened(args.changes, "w")
                written.writelines(json.dumps(asdict(change)) + "\n" for change in found)
    finally:
        judge.close()
        if written:
            written.close()
    alive("")
    print("\n".join(tally.sentences()))
    return 0


def opened(path: str, mode: Literal["a", "w"]) -> TextIO:
    try:
        return open(path, mode, encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"--changes {path}: cannot be written: {error.strerror}") from None


def alive(text: str) -> None:
    """One line on a terminal, for a person who waits; the next takes its place."""
    if sys.stderr is not None and sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def shown(text: str) -> str:
    """As any terminal takes it: data may hold half of a surrogate pair."""
    return text.encode(errors="backslashreplace").decode()
