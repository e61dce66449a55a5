"""The math verifier as a service that is released anew: while the marker file is there, a bad version is out."""

from dataclasses import replace
from pathlib import Path

from rlvr_verifiers.math import math

from rlvr.verify import Sample, Verdict, verifier


@verifier("released")
def released(sample: Sample, marker: str, evaluated: bool = True) -> Verdict:
    verdict = math.function(sample, evaluated=evaluated)
    if verdict.reward is None or not Path(marker).exists():
        return verdict
    return replace(verdict, reward=-verdict.reward)
