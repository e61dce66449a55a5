"""Which policy versions may still be trained on. Pure bookkeeping: no torch, no Ray."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Lineage:
    """A version names one publication of weights, and only ever grows.

    A rollback moves the *step* back, never the version: otherwise a completion sampled by the abandoned policy could
    pass for a fresh one once the counter came round to its number again.
    """

    version: int = 0
    floor: int = 0  # the oldest version that descends from the weights we now hold

    def publish(self) -> "Lineage":
        return replace(self, version=self.version + 1)

    def branch(self, above: int = 0) -> "Lineage":
        """A new branch, above every version ever published, `above` included (engines may outlive the driver)."""
        version = max(self.version, above) + 1
        return Lineage(version=version, floor=version)

    def admits(self, version: int, max_staleness: int) -> bool:
        return version >= max(self.floor, self.version - max_staleness)
