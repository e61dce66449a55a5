"""Does a completion keep the form: thoughts in one pair of tags, then one boxed answer, nothing after it?"""

from rlvr_verifiers.boxes import boxes

from rlvr.verify import Outcome, Sample, Verdict, verifier


@verifier("format")
def format(sample: Sample, think: bool = True, boxed: bool = True) -> Verdict:
    """1 when the form is kept, else 0 and what is wrong. An opening tag may stand in the prompt."""
    text = sample.completion.strip()
    if sample.stop_reason == "length":
        return Verdict(0.0, Outcome.OK, reason="unfinished")
    if think:
        if text.count("<think>") > 1 or text.count("</think>") != 1:
            return Verdict(0.0, Outcome.OK, reason="think_tags")
        thoughts, _, text = text.partition("</think>")
        before, opened, inside = thoughts.rpartition("<think>")
        if opened and before.strip():
            return Verdict(0.0, Outcome.OK, reason="text_before_thoughts")
        if not inside.strip():
            return Verdict(0.0, Outcome.OK, reason="no_thoughts")
    if boxed:
        found = boxes(text)
        if len(found) != 1:
            return Verdict(0.0, Outcome.OK, reason="no_box" if not found else "several_boxes")
        if text[-100_000:][found[0][1] :].strip(" \n$.") or not found[0][2].strip():
            return Verdict(0.0, Outcome.OK, reason="text_after_box")
    return Verdict(1.0, Outcome.OK, reason="kept")
