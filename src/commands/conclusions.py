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
    assert r.scratch.interval[0] > r.transfer.interval[1]
    head, blocks = (curve[-1].accuracies for curve in vars(r.data_efficiency).values())
    assert min(blocks) > max(head)


def q3_blocks_smaller(r: Results) -> None:
    """The three blocks are smaller and need fewer operations (answers/q3.md)."""
    assert r.scratch.parameters < r.transfer.parameters
    assert r.scratch.multiply_adds < r.transfer.multiply_adds / 2


def q3_head_calibrated(r: Results) -> None:
    """The head's probabilities are the better ones (answers/q3.md)."""
    assert r.transfer.ece < r.scratch.ece


def q3_head_ahead_with_few(r: Results) -> None:
    """With few labelled images the head is ahead (answers/q3.md)."""
    head, blocks = (curve[0].accuracies for curve in vars(r.data_efficiency).values())
    assert min(head) > max(blocks)


def q3_ingredients_help(r: Results) -> None:
    """Shifting and mirroring help (notebooks/q3_transfer_learning.ipynb)."""
    means = {what: sum(two) / len(two) for what, two in vars(r.ablation).items()}
    chosen = means.pop("the recipe as it is")
    assert means["images not shifted"] < chosen > means["images not mirrored"]
    assert all(mean < chosen + 0.01 for mean in means.values())


def q3_two_views_help(r: Results) -> None:
    """Asking twice helps a little (notebooks/q3_transfer_learning.ipynb)."""
    assert r.scratch.test_accuracy_mirror_averaged > r.scratch.test_accuracy


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
