"""Runs untrusted programs: isolation layers, the ladder between them, and what a slot was observed to hold.

Standard library only. Verdicts are none of its business: it says how a program ended and what it wrote.
"""

from rlvr.sandbox.job import Job, Level, Limits, Refused, Result, Runner
from rlvr.sandbox.sandbox import Sandbox

__all__ = ["Job", "Level", "Limits", "Refused", "Result", "Runner", "Sandbox"]
