"""Verifiers: written with `@verifier`, run by a `Judge` in killable processes. Loads no torch."""

from rlvr.types import Outcome, Provenance, Verdict
from rlvr.verify.judge import Judge
from rlvr.verify.plugin import PluginError, Sample, Verifier, verifier
from rlvr.verify.tool import tool

__all__ = ["Judge", "Outcome", "PluginError", "Provenance", "Sample", "Verdict", "Verifier", "tool", "verifier"]
