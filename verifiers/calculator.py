"""A tool: what stands before a `=` is calculated, exactly, and the result put behind it.

    rollout:
      stop: ["="]
      tool: {name: "rlvr_verifiers.calculator:calculator", before: "", after: ""}
"""

import re

from rlvr_verifiers.arithmetic import value

from rlvr.verify import Sample, tool

ASKED = re.compile(r"([0-9.,()+\-*/ ]*)=$")


@tool("calculator")
def calculator(sample: Sample) -> str | None:
    """The result as a whole number or a fraction; nothing, and the policy goes on, where there is nothing to
    calculate."""
    asked = ASKED.search(sample.completion)
    if asked is None:
        return None
    found = value(asked[1].strip(" ,"))
    return str(found[0]) if found else ""
