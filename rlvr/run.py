"""A recipe becomes a run: check, read the data, start the workers, train, evaluate, export, summarise.

inputs (recipe, model, data) --fail here, before anything is written--> run folder --> workers --> loop --> summary
"""

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from functools import partial
from math import isfinite
from pathlib import Path
from time import perf_counter
from typing import Any

from rlvr.checkpoint.disk import DiskCheckpoints, export
from rlvr.config import Recipe, RecipeError
from rlvr.data.prompts import PromptStream
from rlvr.inputs import Inputs
from rlvr.loop import Diverged, train
from rlvr.measure import mark
from rlvr.objective import Batch, Objective
from rlvr.observe.beside import Beside
from rlvr.observe.console import Display
from rlvr.observe.memory import PeakMemory
from rlvr.observe.metrics import spent
from rlvr.observe.runfolder import RunFolder
from rlvr.observe.sinks import Fanout, open_sinks
from rlvr.observe.summary import Summary
from rlvr.parts import Parts
from rlvr.probe import LEAST_RESUMED
from rlvr.rollout.rollouts import SampledRollouts
from rlvr.sentinel.watch import Watch
from rlvr.signals import Requests
from rlvr.state import Evaluated, State, Taken
from rlvr.train.schedule import learning_rate
from rlvr.weights import probe_tokens
from rlvr.workers import probe_tolerance, workers


class Recorder:
    """The loop's Observer: everything into the run folder first, then to display, wandb, tensorboard. The completions
    of a step are written while the next one goes on, as many long ones take a while: a kill may lose the last ones."""

    def __init__(self, cfg: Recipe, folder: RunFolder, sinks: Fanout, done: int = 0):
        """`done`: steps that earlier starts of the run took."""
        self.cfg, self.folder, self.sinks = cfg, folder, sinks
        self.done = done  # and that were not taken again since
        self.last = perf_counter()
        self.writing = Beside("completions")

    def step(self, state: State, taken: Taken, batch: Batch, metrics: Mapping[str, float]) -> None:
        now = perf_counter()
        seconds, self.last = now - self.last, now
        named = sum(spent(metrics, name) for name in ("time/rollout", "time/train", "time/publish"))
        row = {**metrics, "time/step": seconds, "tokens/per_s": metrics["tokens/sampled"] / seconds}
        row["time/driver"] = seconds - named
        every = self.cfg.log.completions_every
        if every and state.step % every == 0:
            sizes = [len(group.completions) for group in taken.groups]
            parts = batch.advantages_B1.split(sizes) if sizes else ()
            places = [group.prompt.position for group in taken.groups]
            trained = {place: part.flatten().tolist() for place, part in zip(places, parts, strict=True)}
            advantages = [trained.get(group.prompt.position) for group in taken.sampled]
            self.writing.begin(partial(self.folder.write_completions, state.step, taken.sampled, advantages))
        self.sinks.log(state.step, row)

    def evaluation(self, state: State, evaluated: Evaluated) -> None:
        if metrics := evaluated.metrics:
            shares = [(n, x) for name, x in metrics.items() if (n := name.removeprefix("eval/accuracy_")) != name]
            said = ", ".join(f"{name} {value:.1%}" for name, value in shares) or "nothing could be judged"
            where = {"step": state.step, "version": state.lineage.version, "mark": mark(self.cfg)}
            self.event("evaluation", f"held-out accuracy after step {state.step}: {said}", **where, **metrics)
            if self.cfg.log.evaluations:
                self.writing.begin(partial(self.folder.write_evaluation, state.step, evaluated.groups))
            self.last += metrics.get("eval/seconds", 0.0)  # not step time; what lay before it, a checkpoint's copy, is

    def event(self, kind: str, message: str, **fields: Any) -> None:
        if kind in ("begin", "rollback"):  # steps behind it are taken again
            self.writing.settle()
            self.folder.undo_after(fields["to"], kind, fields.get("metrics"))
            self.done = min(self.done, fields["to"])
            self.last = perf_counter()
        self.sinks.event(kind, message, **fields)


def launch(cfg: Recipe, objective: Objective, inputs: Inputs, folder: RunFolder, display: Display) -> Summary:
    """Train `cfg` in `folder`, from its newest checkpoint if it has one."""
    started = perf_counter()
    with ExitStack() as stack:
        memory = stack.enter_context(PeakMemory())
        probe = probe_tokens(inputs.vocabulary)
        checkpoints = DiskCheckpoints(
            folder.path / "checkpoints", cfg.checkpoint, probe, lambda kind, text: recorder.event(kind, text)
        )
        done = checkpoints.newest_step() or 0
        folder.undo_after(done, "begin")
        sinks = open_sinks(folder, display, cfg.log, asdict(cfg), first_step=done + 1)
        stack.callback(sinks.close)
        recorder = Recorder(cfg, folder, sinks, done)
        stack.callback(recorder.writing.close)
        lost = done - len(folder.read_metrics())  # a checkpoint is on the disk before its step's line may be
        for note in (*inputs.notes, *([f"the lines of {lost} steps are missing in metrics.jsonl"] if lost > 0 else [])):
            recorder.event("warning", note)
        stop = stack.enter_context(stop_on_signals(recorder.event))
        with display.phase(f"starting {cfg.rollout.engine}, verifiers and DeepSpeed ({cfg.cluster.kind})"):
            trainer, pipeline, revive, on_gpu = stack.enter_context(workers(cfg))
        checkpoints.tolerance = max(LEAST_RESUMED, probe_tolerance(cfg, on_gpu, cfg.model.dtype))
        checkpoints.start_is_reference = objective.start_is_reference
        rollouts = SampledRollouts(
            cfg, objective, pipeline, PromptStream(inputs.train, cfg.seed, cfg.data.shuffle), inputs.heldout,
            (probe, probe_tolerance(cfg, on_gpu, cfg.model.dtype, cfg.engine_dtype)),
            lambda text: recorder.event("warning", text),
        )  # fmt: skip
        rollouts.evaluation.showing = partial(
            display.phase, f"evaluating on {len(inputs.heldout):,} held-out problems"
        )
        display.start(cfg.name, cfg.steps, folder.read_metrics())
        parts = Parts(
            trainer, rollouts, checkpoints, Watch(cfg.sentinel, mark(cfg)), recorder,
            lambda step: learning_rate(cfg.trainer, step, cfg.steps), stop,
        )  # fmt: skip
        stack.enter_context(recorded(recorder))

        def exported(state: State) -> State:
            recorder.writing.settle()
            with display.phase("exporting the model"):
                # trainers may stand in another folder
                export(trainer, (folder.path / "model").resolve(), f"rlvr resume {folder.path}")
            return state

        def trained() -> State:
            state = train(cfg, objective, parts)
            if not all(map(isfinite, trainer.score(probe))):  # no step follows whose metrics would tell
                raise Diverged(f"step {state.step} left weights that give logprobs that are no numbers", state.step)
            return exported(state)

        told: list[str] = []

        def gave_up(why: Diverged) -> State:
            state = checkpoints.best(trainer, why.onset)
            said = f"{why}: exporting the best good checkpoint, that of step {state.step}"
            if said not in told:  # when a rank died in this act before
                told.append(said)
                recorder.event("stopped", said, step=state.step)
            return exported(state)

        try:
            state = going_on(trained, revive, recorder)
            status = "interrupted" if state.step < cfg.steps else "finished"
        except Diverged as diverged:
            state, status = going_on(partial(gave_up, diverged), revive, recorder, "best good"), "stopped"
        wall_s, problems = perf_counter() - started, len(inputs.heldout)
        summary = summarise(cfg, folder, status, state, problems, wall_s, memory, recorder.done)
        folder.write_summary(summary)
    return summary


@contextmanager
def recorded(recorder: "Recorder") -> Iterator[None]:
    """The error that ends a run, be it of its last act, is an event of it."""
    try:
        yield
    except BaseException as error:
        recorder.event("error", f"{type(error).__name__}: {error}")
        raise


def going_on(
    act: Callable[[], State], revive: Callable[[], str | None], recorder: "Recorder", which: str = "newest"
) -> State:
    """As often as it takes, with whatever the ranks hold in the end. Whatever error the death of one shows itself by:
    once they are there again `act` is done anew, which begins with the `which` checkpoint."""
    while True:
        try:
            return act()
        except Diverged:
            raise
        except Exception as error:
            done = revive()
            if done is None:
                raise
            recorder.event("restart", f"{done}, and go on from the {which} checkpoint", error=str(error)[:500])


def summarise(
    cfg: Recipe, folder: RunFolder, status: Any, state: State, problems: int, wall_s: float, memory: PeakMemory,
    steps_before: int = 0,
) -> Summary:  # fmt: skip
    rows = folder.read_metrics()
    seconds = sum(row["time/step"] for row in rows)
    evaluations = [event["fields"] for event in folder.read_events() if event["kind"] == "evaluation"]
    before: dict[str, Any] = next((e for e in evaluations if e["step"] == 0), {})
    of_step = [e for e in reversed(evaluations) if e["step"] == state.step and state.step > 0]
    # after a rollback there are several of a step, and a run that gave up may go back to the first
    same = [e for e in of_step if e.get("version") == state.lineage.version]
    after: dict[str, Any] = next(iter(same + of_step), {})
    if before.get("eval/problems") != after.get("eval/problems", before.get("eval/problems")):
        before = {}  # evaluation.limit was changed between them
    memory.sample()
    return Summary(
        recipe=cfg.name,
        seed=cfg.seed,
        status=status,
        steps=state.step,
        wall_s=wall_s,
        peak_rss_mb=memory.peak_mb,
        tokens_per_s=sum(row["tokens/sampled"] for row in rows) / seconds if seconds else 0.0,
        problems=problems,
        samples=cfg.evaluation.samples,
        accuracy_before=before.get("eval/accuracy_greedy"),
        accuracy_after=after.get("eval/accuracy_greedy"),
        accuracy_before_sampled=before.get("eval/accuracy_sampled"),
        accuracy_after_sampled=after.get("eval/accuracy_sampled"),
        steps_before=min(steps_before, state.step),  # a run that gives up may export the model of an earlier one
    )


@contextmanager
def stop_on_signals(event: Callable[..., None]) -> Iterator[Callable[[], bool]]:
    """Ctrl-C or SIGTERM asks for an end after the current step, with a checkpoint; a second one ends at once."""
    requests = Requests()
    asked = requests.numbers
    told: list[int] = []

    def ask(number: int, _: Any) -> None:  # sets a mark and prints nothing: it may interrupt a print
        if not requests.hear(number):
            return
        if len(asked) > 1:
            raise KeyboardInterrupt
        with suppress(OSError):  # `2>&1 | tee` has died of the same Ctrl-C
            os.write(2, b"rlvr: asked to stop: after this step, or once all is up; once more to stop at once\n")

    def stop() -> bool:
        if asked and not told:
            told.append(asked[0])
            event("interrupt", f"{signal.Signals(asked[0]).name}: stopping after this step")
        return bool(asked)

    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def open_folder(cfg: Recipe) -> RunFolder:
    try:
        return RunFolder.create(cfg.run.folder) if cfg.run.folder else RunFolder.fresh(cfg.name, Path("runs"))
    except OSError as error:
        raise RecipeError(f"run.folder={cfg.run.folder}: {error}") from error
