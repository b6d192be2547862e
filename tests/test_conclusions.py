"""Sentences that texts draw from the figures: named where these no longer bear them."""

import copy
import re

import pytest

from src.commands import conclusions
from src.common.project import ROOT
from src.common.results import read_results

#: Made up, and such that every conclusion holds.
FIGURES = {
    "convolution": {
        "largest_differences_float64": {"output": 1e-15, "weight_grad": 2e-14},
        "gradcheck": True,
    },
    "gradients": {
        "general_largest_differences": {
            "input": {"autograd": 1e-14, "torch.nn.grad": 2e-14},
            "bias": {"autograd": 0.0},
        }
    },
    "transfer": {
        "interval": [0.85, 0.87],
        "ece": 0.02,
        "parameters": 11_000_000,
        "multiply_adds": 1_800_000_000,
    },
    "scratch": {
        "test_accuracy": 0.93,
        "test_accuracy_mirror_averaged": 0.94,
        "interval": [0.92, 0.94],
        "ece": 0.1,
        "parameters": 1_000_000,
        "multiply_adds": 70_000_000,
    },
    "data_efficiency": {
        "head": [{"accuracies": [0.5, 0.6]}, {"accuracies": [0.86]}],
        "blocks": [{"accuracies": [0.3, 0.4]}, {"accuracies": [0.93]}],
    },
    "ablation": {
        "the recipe as it is": [0.7, 0.72],
        "images not shifted": [0.6, 0.7],
        "images not mirrored": [0.7, 0.7],
        "no weight decay": [0.7, 0.73],
    },
}


def changed(section: str, **values: object) -> dict:
    figures = copy.deepcopy(FIGURES)
    figures[section] |= values
    return figures


def test_what_holds_is_not_doubted():
    assert conclusions.doubts(FIGURES) == []


def test_what_is_committed_bears_the_texts_out():
    assert conclusions.doubts(read_results()) == []


@pytest.mark.parametrize(
    ("figures", "sentence"),
    [
        (changed("convolution", gradcheck=False), "Our layer and nn.Conv2d differ"),
        (changed("scratch", interval=[0.86, 0.94]), "Given all images, the three bl"),
        (changed("transfer", ece=0.2), "The head's probabilities are the better ones"),
        (changed("transfer", parameters=10), "The three blocks are smaller"),
        (changed("scratch", test_accuracy=0.95), "Asking twice helps a little"),
        (
            changed("data_efficiency", head=FIGURES["data_efficiency"]["blocks"]),
            "Given all images",
        ),
        (
            changed("ablation", **{"no weight decay": [0.8, 0.8]}),
            "Shifting and mirroring help",
        ),
    ],
)
def test_a_sentence_that_no_longer_holds_is_named_with_its_page(figures, sentence):
    doubt, *_ = conclusions.doubts(figures)
    assert doubt.startswith(f"data/results.json does not bear this out: {sentence}")
    assert re.search(r"\((answers|notebooks)/q", doubt) and "\n" not in doubt


def test_a_sentence_without_its_figures_is_in_doubt():
    figures = {name: FIGURES[name] for name in FIGURES if name != "gradients"}
    (doubt,) = conclusions.doubts(figures)
    assert "The derived gradients are those of PyTorch" in doubt


def test_each_conclusion_is_a_sentence_with_an_existing_page():
    found = [one for name, one in vars(conclusions).items() if name[0] == "q"]
    assert len(found) >= 3
    for conclusion in found:
        (page,) = re.findall(r"^[A-Z][^.]+.* \((\S+)\)\.$", conclusion.__doc__)
        assert (ROOT / page).is_file()
