"""Where metrics and events go, all at once. The only home of wandb and tensorboard; each is imported when switched on.

    loop --> Fanout --> RunFolder           the record: if it cannot be written, the run ends with a clear line
                    --> Display             \\
                    --> WandbSink            >  conveniences: one that fails is reported once, as an event of kind
                    --> TensorboardSink     /   `warning` in the others, and dropped; training goes on

What only the user can mend (no package, no account) stops the run before it has begun; a server that is down does not.
A metric that is not in the table is logged all the same, and reported once as a warning.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from rlvr.config import LogConfig, RecipeError
from rlvr.observe.console import Display
from rlvr.observe.metrics import NAMES, unknown
from rlvr.observe.runfolder import RunFolder

ALERTS = ("error", "stopped", "rollback")  # kinds of event that Weights & Biases may send by mail or Slack
WANDB_RUN_ID = "wandb_run_id"


class Sink(Protocol):
    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """The metrics of one step; steps go back only after a rollback."""
        ...

    def event(self, kind: str, message: str, **fields: Any) -> None:
        """Something that happened: `kind` is one word, `message` a line for people, `fields` the same for machines."""
        ...

    def close(self) -> None: ...


class Fanout:
    """Itself a sink. `record` must not fail, the others may."""

    def __init__(
        self,
        record: Sink,
        others: Sequence[Sink] = (),
        history: Sequence[Mapping[str, Any]] = (),
        new: Sequence[Sink] = (),
    ) -> None:
        """`history`: the events of the run's earlier starts; `new`: those of the others that have seen none of them."""
        self._record = record
        self._others = list(others)
        self._unknown: set[str] = set()
        self._evaluated: dict[int, dict[int, Any]] = {id(sink): {} for sink in others}  # each: step -> what was asked
        for sink in (sink for sink in others if not any(sink is one for one in new)):
            for event in history:  # a line of somebody's own may lack what ours have
                self._fresh(sink, event.get("kind", ""), event.get("fields") or {})

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._record.log(step, metrics)
        self._each(lambda sink: sink.log(step, metrics))
        new = set(unknown(metrics)) - self._unknown
        self._unknown |= new
        if new:
            self.event("warning", f"metrics without a row in rlvr.observe.metrics: {', '.join(sorted(new))}", step=step)

    def event(self, kind: str, message: str, **fields: Any) -> None:
        self._record.event(kind, message, **fields)
        self._each(lambda sink: sink.event(kind, message, **self._fresh(sink, kind, fields)))

    def close(self) -> None:
        self._each(lambda sink: sink.close())
        self._record.close()

    def _fresh(self, sink: Sink, kind: str, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """Without the metrics of an evaluation that this sink has seen, and that is made again after a resume or a
        rollback: of the same weights and problems, measured alike, it is no second point of a curve."""
        seen = self._evaluated[id(sink)]
        if kind in ("begin", "rollback"):
            for step in [step for step in seen if step > fields.get("to", step)]:
                del seen[step]
        if kind != "evaluation" or "step" not in fields:
            return fields
        asked = fields.get("eval/problems"), fields.get("mark"), sorted(measured(fields))
        known = seen.get(fields["step"]) == asked
        seen[fields["step"]] = asked
        return {name: value for name, value in fields.items() if name not in NAMES} if known else fields

    def _each(self, tell: Callable[[Sink], None]) -> None:
        for sink in list(self._others):
            try:
                tell(sink)
            except Exception as error:
                self._others.remove(sink)
                self.event("warning", f"{type(sink).__name__} dropped: {error}", error=type(error).__name__)


class WandbSink:
    """Weights & Biases. Offline unless WANDB_MODE says otherwise: `wandb sync <run folder>/wandb/offline-*` uploads it.

    A resume continues the same wandb run: its id lies in the run folder. The x axis is our step, not wandb's own,
    which may never go back.
    """

    def __init__(self, folder: Path, project: str, config: Mapping[str, Any]) -> None:
        import wandb

        id_file = folder / WANDB_RUN_ID
        mode = os.environ.get("WANDB_MODE", "offline")
        try:
            self._run = wandb.init(
                project=project,
                name=folder.name,
                dir=folder,
                config=dict(config),
                id=id_file.read_text().strip() if id_file.exists() else None,
                resume="allow",
                mode=mode,  # type: ignore[arg-type]
                # console="off": wandb would wrap stdout, under the live display
                settings=wandb.Settings(silent=True, console="off", save_code=False),
            )
        except (wandb.errors.UsageError, wandb.errors.AuthenticationError, ValueError) as error:
            # ValueError: a WANDB_ variable that it does not understand
            raise RecipeError(
                f"log.wandb with WANDB_MODE={mode} does not start: {' '.join(str(error).split())}. "
                "Use WANDB_MODE=offline (needs no account), or log.wandb=false"
            ) from error
        id_file.write_text(self._run.id + "\n")
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log({"step": step, **own(metrics)})

    def event(self, kind: str, message: str, **fields: Any) -> None:
        if kind in ALERTS:
            self._run.alert(title=kind, text=message)
        if metrics := measured(fields):
            self._run.log({"step": fields["step"], **metrics})

    def close(self) -> None:
        self._run.finish()


class TensorboardSink:
    """Event files under <run folder>/tensorboard, written without torch: scalars, and events as the text `events`."""

    def __init__(self, folder: Path, first_step: int = 0) -> None:
        """`first_step` hides what an earlier start of the run wrote from there on."""
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError as error:
            raise RecipeError(
                "log.tensorboard needs a package: pip install tensorboard, or log.tensorboard=false"
            ) from error
        self._event, self._summary, self._session = event_pb2.Event, summary_pb2.Summary, event_pb2.SessionLog
        self._writer = EventFileWriter(str(folder / "tensorboard"), flush_secs=10)
        self._step = first_step
        self._add(first_step, session_log=self._session(status=self._session.START))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        if step <= self._step:  # a rollback: what was abandoned is hidden
            self._add(step, session_log=self._session(status=self._session.START))
        self._add(step, summary=self._scalars(own(metrics)))
        self._step = step

    def event(self, kind: str, message: str, **fields: Any) -> None:
        from tensorboard.plugins.text.metadata import create_summary_metadata
        from tensorboard.util.tensor_util import make_tensor_proto

        value = self._summary.Value(
            tag="events",
            metadata=create_summary_metadata(display_name="events", description=""),
            tensor=make_tensor_proto([f"{kind}: {message}".encode()]),
        )
        self._add(self._step, summary=self._summary(value=[value]))
        if metrics := measured(fields):
            self._add(fields["step"], summary=self._scalars(metrics))

    def close(self) -> None:
        self._writer.close()

    def _scalars(self, metrics: Mapping[str, float]) -> Any:
        return self._summary(
            value=[self._summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        )

    def _add(self, step: int, **content: Any) -> None:
        self._writer.add_event(self._event(wall_time=time.time(), step=step, **content))


def own(metrics: Mapping[str, float]) -> dict[str, float]:
    """Without what the evaluation before the step said: it was an event of its own, at the step that it is of."""
    return {name: value for name, value in metrics.items() if not name.startswith("eval/")}


def measured(fields: Mapping[str, Any]) -> dict[str, float]:
    """The metrics among an event's fields: an evaluation's accuracies become curves too. Such an event has a `step`."""
    return {name: value for name, value in fields.items() if name in NAMES}


def open_sinks(
    folder: RunFolder, display: Display, log: LogConfig, config: Mapping[str, Any], first_step: int = 0
) -> Fanout:
    """All that the recipe's `log` section asks for; `first_step` is the first that this start of the run will take."""
    wanted: dict[str, Callable[[], Sink]] = {}
    if log.tensorboard:
        wanted["tensorboard"] = lambda: TensorboardSink(folder.path, first_step)
    if log.wandb:
        wanted["wandb"] = lambda: WandbSink(folder.path, log.wandb_project, config)
    traces = {"tensorboard": folder.path / "tensorboard", "wandb": folder.path / WANDB_RUN_ID}
    others: list[Sink] = [display]
    new: list[Sink] = []
    failed = {}
    for name, make in wanted.items():
        known = traces[name].exists()
        try:
            others.append(make())
            if not known:  # switched on by a resume
                new.append(others[-1])
        except RecipeError:
            raise
        except Exception as error:
            failed[name] = error
    fanout = Fanout(folder, others, folder.read_events(), new)
    for name, reason in failed.items():
        fanout.event("warning", f"log.{name} does not start, going on without: {reason}", error=type(reason).__name__)
    return fanout
