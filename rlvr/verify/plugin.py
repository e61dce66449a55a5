"""What a verifier is, how one is written, and how one is found. Runs nothing; knows no recipe.

from rlvr.verify import Sample, verifier

@verifier("even")
def even(sample: Sample) -> bool:
    return int(sample.completion) % 2 == 0
"""

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from pathlib import Path
from time import perf_counter
from typing import Any

from rlvr.types import Group, Outcome, Provenance, Verdict

GROUP = "rlvr.verifiers"  # entry points


class PluginError(ValueError):
    """A verifier cannot be found, loaded or called with the recipe's options; one line for the user."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion as verifiers see it.

    Sample(prompt="2+3=?", completion="<think></think>\\\\boxed{5}", answer="5", stop_reason="eos", token_ids=(7, 8, 2))
    """

    prompt: str  # the last message
    completion: str  # decoded, without special tokens
    answer: Any  # the reference, as the data set gave it
    stop_reason: str = "eos"  # eos, stop, length, abort
    token_ids: tuple[int, ...] = ()
    messages: tuple[Mapping[str, str], ...] = ()
    row: Mapping[str, Any] = field(default_factory=dict)  # the data set's other columns


def samples_of(group: Group) -> list[Sample]:
    prompt = group.prompt
    question = str(prompt.messages[-1]["content"]) if prompt.messages else ""
    return [
        Sample(question, c.text, prompt.answer, c.stop_reason, tuple(c.token_ids), prompt.messages, prompt.row)
        for c in group.completions
    ]


Answer = bool | float | None | Verdict


@dataclass(frozen=True)
class Verifier:
    """A function of one sample (and the recipe's `params`) with the limits it runs under."""

    name: str
    function: Callable[..., Answer]
    version: str = "1"
    timeout_s: float = 5.0  # CPU seconds of one call, then the process is killed
    memory_gib: float | None = 2.0  # address space; None for verifiers that load a model
    setup: Callable[[], None] | None = None  # once in each process, before any clock runs: slow imports, models

    def __call__(self, sample: Sample, **params: Any) -> Verdict:
        """True and False are 1 and 0, a finite number is a reward, None abstains, a Verdict is itself."""
        started = perf_counter()
        verdict = as_verdict(self.function(sample, **params), self.name)
        where = Provenance(self.name, self.version, fingerprint(params), perf_counter() - started)
        return replace(verdict, provenance=(where,))

    def check_params(self, params: Mapping[str, Any], knob: str) -> None:
        """PluginError unless the function takes exactly such options."""
        known = list(inspect.signature(self.function).parameters.values())[1:]
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known):
            return
        names = [parameter.name for parameter in known]
        for name in params:
            if name not in names:
                close = difflib.get_close_matches(name, names, n=1)
                hint = f"; did you mean {close[0]}?" if close else f"; it has: {', '.join(names) or 'none'}"
                raise PluginError(f"{knob}.{name}: verifier {self.name!r} has no such option{hint}")
        for parameter in known:
            if parameter.default is parameter.empty and parameter.name not in params:
                raise PluginError(f"{knob}: verifier {self.name!r} needs the option {parameter.name!r}")


def verifier(
    name: str,
    *,
    version: str = "1",
    timeout_s: float = 5.0,
    memory_gib: float | None = 2.0,
    setup: Callable[[], None] | None = None,
) -> Callable[[Callable[..., Answer]], Verifier]:
    """Make a verifier of a function `(sample, **options) -> bool | float | None | Verdict`."""
    return lambda function: Verifier(name, function, version, timeout_s, memory_gib, setup)


def as_verdict(answer: Any, name: str) -> Verdict:
    if isinstance(answer, Verdict):
        return answer
    if answer is None:
        return Verdict(None, Outcome.ABSTAIN, reason="abstained")
    if isinstance(answer, (bool, int, float)) and math.isfinite(answer):
        return Verdict(
            float(answer), Outcome.OK, reason="right" if answer >= 1 else "wrong" if answer <= 0 else "partly"
        )
    raise TypeError(f"verifier {name!r} returned {answer!r}: expected a bool, a finite number, None or a Verdict")


def fingerprint(params: Mapping[str, Any]) -> str:
    """Twelve hex digits that tell one set of options from another; empty for none."""
    if not params:
        return ""
    return hashlib.sha256(json.dumps(params, sort_keys=True, default=str).encode()).hexdigest()[:12]


def installed() -> dict[str, Any]:
    """Name -> entry point of every installed verifier, ours among them."""
    return {point.name: point for point in entry_points(group=GROUP)}


def load(reference: str) -> Verifier:
    """An installed plugin's name, `package.module:attribute`, or `path/file.py:attribute`."""
    module, colon, attribute = reference.rpartition(":")
    if not colon:
        plugins = installed()
        if reference not in plugins:
            close = difflib.get_close_matches(reference, plugins, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise PluginError(f"no verifier {reference!r}{hint}; installed: {', '.join(sorted(plugins)) or 'none'}")
        module, _, attribute = plugins[reference].value.rpartition(":")
    try:
        loaded = _file(Path(module)) if module.endswith(".py") else importlib.import_module(module)
    except ImportError as error:
        raise PluginError(f"verifier {reference!r}: {module} cannot be imported: {error}") from error
    found = getattr(loaded, attribute, None)
    if isinstance(found, Verifier):
        return found
    if callable(found):
        return Verifier(attribute, found)
    raise PluginError(f"verifier {reference!r}: {module} has no function {attribute!r}")


def _file(path: Path) -> Any:
    if not path.is_file():
        raise PluginError(f"verifier file {path}: no such file (looked in {path.resolve().parent})")
    spec = importlib.util.spec_from_file_location(f"rlvr_verifier_{path.stem}", path.resolve())
    assert spec is not None and spec.loader is not None, "a .py file always has a loader"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
