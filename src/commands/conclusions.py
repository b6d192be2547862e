"""The conclusions that texts draw from the figures of `results.json`, as asserts.

A function q… each: its docstring is the sentence and where it stands, its body what
must hold of the results `r` for it to be true. `run` says which no longer is.
"""

import json
from types import SimpleNamespace as Results


def q1_equal(r: Results) -> None:
    """Our layer and nn.Conv2d differ by rounding only (answers/q1.md)."""
    assert max(vars(r.convolution.largest_differences_float64).values()) < 1e-13
    assert r.convolution.gradcheck


def q2_equal(r: Results) -> None:
    """The derived gradients are those of PyTorch, up to rounding (answers/q2.md)."""
    for found in vars(r.gradients.general_largest_differences).values():
        assert max(vars(found).values()) < 1e-12


def q3_blocks_more_accurate(r: Results) -> None:
    """Given all images, the three blocks are more accurate (answers/q3.md)."""
    assert r.scratch.test_accuracy > r.transfer.test_accuracy + 0.02
    assert r.scratch.interval[0] > r.transfer.interval[1]


def q3_head_cheaper_and_calibrated(r: Results) -> None:
    """The head trains faster and is better calibrated (answers/q3.md)."""
    assert r.transfer.seconds < r.scratch.seconds / 2
    assert r.transfer.ece < r.scratch.ece


def doubts(figures: dict) -> list[str]:
    """A sentence for each conclusion that does not follow from the figures.

    figures: all of results.json. A conclusion whose figures are not there is in doubt.
    """
    results = json.loads(json.dumps(figures), object_hook=lambda d: Results(**d))
    found = []
    for name, conclusion in globals().items():
        if not name.startswith("q"):
            continue
        try:
            conclusion(results)
        except (AssertionError, AttributeError):
            sentence = " ".join(conclusion.__doc__.split())
            found.append(f"data/results.json does not bear this out: {sentence}")
    return found
