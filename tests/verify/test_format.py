import pytest
from rlvr_verifiers.format import format

from rlvr.verify import Sample


@pytest.mark.parametrize(
    ("completion", "reason"),
    [
        ("<think>a</think>\\boxed{5}", "kept"),
        ("<think></think>\\boxed{5}", "no_thoughts"),
        ("\\boxed{5}", "think_tags"),
        ("<think>a</think>5", "no_box"),
        ("<think>a</think>\\boxed{5}\\boxed{6}", "several_boxes"),
        ("<think>a</think>\\boxed{5} and more", "text_after_box"),
        ("<think>a</think>$$\\boxed{5}$$", "kept"),
        ("<think>a</think>\\[\n\\boxed{5}\n\\]\n", "kept"),
        ("<think>a</think>It is \\(\\boxed{5}\\).", "kept"),
        ("<think>a</think>**Answer: \\boxed{5}**", "kept"),
        ("<think>a</think>**$\\boxed{5}$.**", "kept"),
        ("<think>a</think>\\(\\boxed{5}\\) \\(", "text_after_box"),
        ("<think>a</think>\\boxed{5}*6", "text_after_box"),
        ("<think>a</think>\\boxed{ }", "text_after_box"),
        ("well, <think>a</think>\\boxed{5}", "text_before_thoughts"),
        ("<think>a</think><think>b</think>\\boxed{5}", "think_tags"),
    ],
)
def test_the_form_is_kept_or_what_is_wrong_is_named(completion, reason):
    verdict = format(Sample("q", completion, "5"))
    assert (verdict.reason, verdict.reward) == (reason, float(reason == "kept"))
