"""Verifiers: written with `@verifier`, run by a `Judge` in killable processes. Loads no torch."""

from rlvr.types import Outcome, Verdict
from rlvr.verify.judge import Judge
from rlvr.verify.plugin import PluginError, Sample, Verifier, verifier

__all__ = ["Judge", "Outcome", "PluginError", "Sample", "Verdict", "Verifier", "verifier"]
