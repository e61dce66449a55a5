"""`rlvr sweep`: several runs of one recipe, every combination of some values, one after the other.

    sweeps/quickstart-001/
        sweep.json               the recipe, what was asked for, and the name and overrides of each run
        seed=0,algorithm=grpo/   a run folder for each, named after what differs
        compare.html             the runs so far, beside each other

Each run is a `rlvr train --resume` of its own process, so that the same command goes on with a sweep that was cut off.
"""

import argparse
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import IO, Any

from rlvr import config
from rlvr.config import RecipeError
from rlvr.observe.console import silence
from rlvr.observe.files import usable, write_atomic
from rlvr.observe.record import object_of
from rlvr.observe.runfolder import CONFIG, SUMMARY, RunFolder, numbered
from rlvr.observe.summary import duration
from rlvr.signals import Requests

# -P: a file in the current folder may be called as a module of the library
TRAIN = [sys.executable, "-P", "-m", "rlvr.cli", "train"]
SWEEP, LONGEST, LOOK_S = "sweep.json", 100, 0.1
FOLDER = "--folder <folder>"  # the knob
# how a run may end, and in what words; the last two are tried again when the sweep goes on
ENDS = {
    "finished": "finished", "stopped": "stopped by the sentinel", "interrupted": "interrupted", "failed": "failed",
}  # fmt: skip

ImportFrom = Callable[[str | None], None]  # own modules may lie in this folder
Begun = Callable[[Any, Any], bool]  # whether a recipe's run is in its run.folder; RecipeError where another is


@dataclass(frozen=True)
class Planned:
    """A run of the sweep: its folder's name, and the overrides of `rlvr train`."""

    name: str
    overrides: tuple[str, ...]


def add_parser(commands: Any, import_from: ImportFrom, begun: Begun) -> None:
    one = commands.add_parser("sweep", help="several runs of a recipe, one after the other: seed=0,1,2 algorithm=a,b")
    one.add_argument("recipe", help="a recipe's name, or a path to a .yaml file")
    one.add_argument("overrides", nargs="*", help="key=value, and key=a,b,c for each of them; all combinations are run")
    one.add_argument("--folder", type=Path, help="its own (default: sweeps/<recipe>-<number>); a sweep in it goes on")
    one.add_argument("--config-dir", help="a folder with your own recipes, algorithms, Python modules, as for train")
    one.add_argument("--dry-run", action="store_true", help="check every combination, list the runs, and stop")
    one.set_defaults(command=lambda args: sweep(args, import_from, begun))


def sweep(args: argparse.Namespace, import_from: ImportFrom, begun: Begun) -> int:
    """Exit code: 0 all finished, 1 some failed, 3 some were stopped or interrupted, or the sweep was; 130 twice."""
    runs = planned(args.overrides)
    if args.folder:
        refuse_another(args.folder, args, runs)
    import_from(args.config_dir)
    if sys.stderr is not None and sys.stderr.isatty():
        print(f"checking {len(runs)} runs ...", file=sys.stderr, flush=True)
    check(args, runs, begun)
    if args.dry_run:
        tell(*(f"  {run.name}: {ENDS.get(ended(args.folder, run) or '', 'to be run')}" for run in runs))
        return 0
    folder = args.folder or numbered(Path("sweeps"), Path(args.recipe).stem, FOLDER)
    with usable(folder, FOLDER):
        folder.mkdir(parents=True, exist_ok=True)
    with locked(folder) as lock, asked_to_stop() as asked:
        asked_for = {"recipe": args.recipe, "overrides": args.overrides, "runs": list(map(asdict, runs))}
        write_atomic(folder / SWEEP, json.dumps(asked_for, indent=2) + "\n", FOLDER)
        tell(f"{len(runs)} runs in {folder}; a sweep that is cut off goes on with --folder {folder}")
        return run_all(args, runs, folder, lock, asked)


def planned(overrides: Sequence[str]) -> list[Planned]:
    from rlvr.compose import expanded

    for override in overrides:
        if re.match(r"[+~]*run\b", override):
            raise RecipeError(f"{override}: each run of a sweep has a folder of its own; --folder says where they live")
    combinations = expanded(overrides)
    if len(combinations) < 2:
        raise RecipeError("nothing to sweep: give a key several values, e.g. seed=0,1,2; `rlvr train` runs one")
    return [Planned(name, tuple(one)) for name, one in zip(names(combinations), combinations, strict=True)]


def names(combinations: Sequence[Sequence[str]]) -> list[str]:
    """A folder name for each, of what differs: unique, at most LONGEST characters that no shell or disk minds."""
    differ = [place for place, values in enumerate(zip(*combinations, strict=True)) if len(set(values)) > 1]
    found: dict[str, None] = {}
    for overrides in combinations:
        said = ",".join(safe(overrides[place]) for place in differ)
        name, number = said[:LONGEST], 1
        while name in found:
            number += 1
            name = f"{said[: LONGEST - 8]}-{number}"
        found[name] = None
    return list(found)


def safe(override: str) -> str:
    key, _, value = override.lstrip("+~").partition("=")
    return "=".join(re.sub(r"[^A-Za-z0-9.+-]+", "_", text).strip("_") for text in (key, value))


def refuse_another(folder: Path, args: argparse.Namespace, runs: Sequence[Planned]) -> None:
    if (folder / CONFIG).exists():
        raise RecipeError(f"--folder {folder}: it holds a run, not a sweep: choose another")
    if not (folder / SWEEP).exists():
        return
    try:
        before = json.loads((folder / SWEEP).read_text(encoding="utf-8"))
        recipe, overrides, there = before["recipe"], before["overrides"], before["runs"]
        same = (recipe, [one["name"] for one in there]) == (args.recipe, [run.name for run in runs]) and all(
            decisive(one["overrides"]) == decisive(run.overrides) for one, run in zip(there, runs, strict=True)
        )
        asked_for = " ".join(["rlvr sweep", recipe, *overrides])
    except (ValueError, KeyError, TypeError) as error:
        raise RecipeError(f"{folder / SWEEP}: no sweep wrote this: mend or remove it ({error})") from None
    if not same:
        raise RecipeError(f"--folder {folder}: it holds another sweep, `{asked_for}`: choose another")


def decisive(overrides: Sequence[str]) -> list[str]:
    """Without those of where it runs: a job that is requeued may find itself on other nodes."""
    return [override for override in overrides if not re.match(r"\+*(cluster|log)\b", override)]


def check(args: argparse.Namespace, runs: Sequence[Planned], begun: Begun) -> None:
    """All that can be wrong with any of them, before the first begins. RecipeError names the run."""
    from rlvr.compose import compose_recipe, to_yaml, typed
    from rlvr.inputs import check_objective, read_inputs

    alike: dict[str, str] = {}
    to_read: dict[str, tuple[Planned, Any, Any, str | None]] = {}
    of_run: dict[Planned, str] = {}
    for run in runs:
        with named(run):
            composed = compose_recipe(args.recipe, run.overrides, args.config_dir)
            if (other := alike.setdefault(to_yaml(composed), run.name)) != run.name:
                raise RecipeError(f"the same run as {other}")
            if args.folder:
                composed.run.folder = str(args.folder / run.name)
            cfg, objective = typed(composed)
            config.check(cfg)
            check_objective(cfg, objective)
            if args.folder and not ended(args.folder, run):  # those may have been gone on with by hand
                begun(composed, cfg)
            kl = objective.kl
            of_kl = (kl.reference if kl.on else None, sorted(kl.domains)) if kl else (None, [])
            # a large data set is not read once more for each seed
            day = RunFolder.prompts_of(args.folder / run.name).get("day") if args.folder else None
            read = repr((cfg.model, cfg.data, cfg.reward, cfg.rollout, cfg.evaluation.limit, of_kl, day))
            to_read.setdefault(read, (run, cfg, objective, day))
            of_run[run] = read
    prompts = {}
    for read, (run, cfg, objective, day) in to_read.items():
        with named(run):
            prompts[read] = read_inputs(cfg, objective, day).known_by["sha256"]
    if args.folder:
        for run, read in of_run.items():
            with named(run):
                same_prompts(args.folder / run.name, prompts[read])


def same_prompts(folder: Path, now: str) -> None:
    """A run that was begun on other prompts could not be gone on with, nor be set beside the others."""
    before = RunFolder.prompts_of(folder).get("sha256", now)
    if before != now:
        raise RecipeError(
            "it began with other prompts than there are now: the data, the tokenizer or the chat template have changed "
            "since; put back what it was, or sweep into another --folder"
        )


@contextmanager
def named(run: Planned) -> Iterator[None]:
    try:
        yield
    except RecipeError as error:
        raise RecipeError(f"{run.name}: {error}") from error


def summary_of(folder: Path) -> dict[str, Any]:
    """Empty where there is none."""
    return object_of(folder / SUMMARY) or {}


def ended(folder: Path | None, run: Planned) -> str | None:
    """How, where there is nothing left to do: a run that its sentinel gave up would be given up again."""
    status = summary_of(folder / run.name).get("status") if folder else None
    return status if status in ("finished", "stopped") else None


@contextmanager
def locked(folder: Path) -> Iterator[IO[str]]:
    """Each run inherits the lock: it is held for as long as one goes on, be its sweep killed."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RecipeError(f"--folder {folder}: another process is running this sweep, or a run of it") from None
        except OSError:
            pass  # the file system knows no locks; each run has one of its own as well
        yield lock


@contextmanager
def asked_to_stop() -> Iterator[list[int]]:
    """The signals that came: Ctrl-C, SIGTERM, and the end of the terminal, unless that is to be survived (nohup)."""
    requests = Requests()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    previous = {number: signal.signal(number, lambda number, _: requests.hear(number)) for number in numbers}
    try:
        yield requests.numbers
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def run_all(args: argparse.Namespace, runs: Sequence[Planned], folder: Path, lock: IO[str], asked: list[int]) -> int:
    ends: dict[str, str] = {run.name: end for run in runs if (end := ended(folder, run))}
    left = [run for run in runs if run.name not in ends]
    seconds = [float(of["wall_s"]) for name in ends if (of := whole(folder / name))]
    for name, end in ends.items():
        tell(f"{name}: {ENDS[end]} before" + (f"; `rlvr resume {folder / name}` goes on" if end == "stopped" else ""))
    if not left:
        compare(folder, runs)
    for done, run in enumerate(left):
        if asked:
            break
        rest = len(left) - done
        how_long = f"; about {duration(median(seconds) * rest)} for the {rest} left" if seconds else ""
        tell(f"run {runs.index(run) + 1} of {len(runs)}, {run.name}{how_long}")
        again, began = (folder / run.name / CONFIG).exists(), perf_counter()
        code = run_one(command(args, run, folder / run.name), lock, asked)
        ends[run.name] = end = end_of(code, folder / run.name, bool(asked))
        if end == "finished" and not again:
            seconds.append(perf_counter() - began)
        if end != "finished":
            tell(f"{run.name}: {ENDS[end]} (exit code {code})")
        compare(folder, runs)
    ends = {run.name: ends.get(run.name, "not begun") for run in runs}
    counts = Counter(ends.values())
    others = [f"  {name}: {ENDS.get(end, end)}" for name, end in ends.items() if end != "finished"]
    tell(f"{counts['finished']} of {len(runs)} runs finished in {folder}", *others)
    if asked and counts["finished"] + counts["stopped"] < len(runs):
        return 130 if len(asked) > 1 else 3
    return 1 if counts["failed"] else 3 if others else 0


def whole(folder: Path) -> dict[str, Any]:
    """The summary of a run that finished in one go, so that its time is that of all its steps."""
    found = summary_of(folder)
    return found if found.get("status") == "finished" and not found.get("steps_before") else {}


def command(args: argparse.Namespace, run: Planned, folder: Path) -> list[str]:
    from rlvr.compose import quoted

    words = [*TRAIN, args.recipe, *run.overrides, f"run.folder={quoted(str(folder))}", "--resume"]
    return words + (["--config-dir", args.config_dir] if args.config_dir else [])


def run_one(words: Sequence[str], lock: IO[str], asked: list[int]) -> int:
    """Its exit code, negative for a signal. It has a process group of its own, or Ctrl-C in a terminal would reach it
    twice, which means at once; what we are asked we tell it, the first time to save, the second time to end."""
    run = subprocess.Popen(words, stdin=subprocess.DEVNULL, process_group=0, pass_fds=[lock.fileno()])
    told = 0
    try:
        while True:
            with suppress(subprocess.TimeoutExpired):
                return run.wait(LOOK_S)
            for number in asked[told:]:
                told += 1
                if told > 2:
                    os.killpg(run.pid, signal.SIGKILL)
                else:
                    run.send_signal(signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()


def end_of(code: int, folder: Path, asked: bool) -> str:
    if code == 0:
        return "finished"
    if code == 3 and summary_of(folder).get("status") == "stopped":
        return "stopped"
    return "interrupted" if asked or code in (3, 130) else "failed"


def compare(folder: Path, runs: Sequence[Planned]) -> None:
    """The runs so far, from two on, as a page and as lines. What cannot be compared does not end the sweep."""
    there = [path for run in runs if (path := folder / run.name) and (path / SUMMARY).exists()]
    if len(there) < 2:
        return
    try:
        from rlvr.observe.compare import NAME, lines, records_of, write_page

        records = records_of(there)
        page = write_page(records, folder / NAME)
        tell(*lines(records), f"Compared in {page}")
    except Exception as error:
        tell(f"no comparison: {type(error).__name__}: {error}")


def tell(*lines: str) -> None:
    """To whoever still reads: `| tee` dies of the same Ctrl-C, and a terminal may be closed."""
    try:
        for line in lines:
            print(line, flush=True)
    except OSError:
        silence(sys.stdout)
