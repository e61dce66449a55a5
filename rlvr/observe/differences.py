"""In what the recipes of several runs differ, from the text of their config.yaml. Judges no value: text is compared.

    differences([config_a, config_b]) == [{"seed": "0", "algorithm.advantage": "standardize"},
                                          {"seed": "3", "algorithm.advantage": "center"}]
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

ELSEWHERE = ("run.folder", "cluster", "log")  # where a run was and what it told, not what it did
TARGET, PARTIAL = "_target_", "_partial_"


@dataclass(frozen=True)
class Settings:
    """A config.yaml as one level of names. `values` of what names a function (`_target_`) are its whole path, under the
    name of the slot that it fills; `targets` are these names."""

    values: Mapping[str, str]
    targets: frozenset[str]

    @classmethod
    def of(cls, text: str) -> "Settings | None":
        """None where the text is no recipe."""
        try:
            found = yaml.load(text, yaml.BaseLoader)  # makes text of every value: no types, no objects
            values, targets = flat(found) if isinstance(found, dict) else ({}, frozenset[str]())
        except (yaml.YAMLError, RecursionError, ValueError):
            return None
        kept = {name: value for name, value in values.items() if not within(name, ELSEWHERE)}
        return cls(kept, targets) if kept else None

    def but_for_the_seed(self) -> tuple[tuple[str, str], ...]:
        """Runs that have this in common are one experiment, done again."""
        return tuple(sorted((name, value) for name, value in self.values.items() if name != "seed"))

    def slots_above(self, name: str) -> dict[str, str]:
        """The functions that `name` is an option of."""
        return {slot: self.values[slot] for slot in self.targets if within(name, (slot,)) and name != slot}


def flat(found: dict[Any, Any]) -> tuple[dict[str, str], frozenset[str]]:
    leaves = list(leaves_of(found, ""))
    targets = frozenset(name.removesuffix(f".{TARGET}") for name, _ in leaves if name.endswith(f".{TARGET}"))
    values = {name.removesuffix(f".{TARGET}"): value for name, value in leaves if not name.endswith(f".{PARTIAL}")}
    return values, targets


def leaves_of(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves_of(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, one_line(value)


def one_line(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(one_line, value))}]"
    return value if isinstance(value, str) else "{}" if value == {} else str(value)


def within(name: str, places: Sequence[str]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


def differences(runs: Sequence[Settings | None]) -> list[dict[str, str]]:
    """For each run its values of the names that are not the same in all, in the order of the recipes. A run that cannot
    be read has none, and is nothing that others differ from."""
    read = [run for run in runs if run is not None]
    names = [name for name in dict.fromkeys(name for run in read for name in run.values) if differs(name, read)]
    said = {name: spelling(name, read) for name in names}
    return [{name: said[name][run.values[name]] for name in names if name in run.values} if run else {} for run in runs]


def differs(name: str, runs: Sequence[Settings]) -> bool:
    """Where one run alone has an option, as it has another function in that place, the function says it all."""
    having = [run for run in runs if name in run.values]
    if len({run.values[name] for run in having}) > 1:
        return True
    lacking = [run.slots_above(name) for run in runs if name not in run.values]
    return any(run.slots_above(name) == slots for run in having for slots in lacking)


def spelling(name: str, runs: Sequence[Settings]) -> dict[str, str]:
    """Value -> how it is said: a function by its last name, where these differ."""
    values = {run.values[name] for run in runs if name in run.values}
    paths = {run.values[name] for run in runs if name in run.targets}
    lasts = {value: value.rpartition(".")[2] if value in paths else value for value in values}
    return lasts if len(set(lasts.values())) == len(values) else {value: value for value in values}
