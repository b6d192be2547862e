"""What a classifier's logits on the test set say: accuracy, calibration, mistakes.

All is computed from logits [N, C] and labels [N]; only `multiply_adds` runs a network.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

#: CIFAR-10 test images whose label people doubt: index to (class that most of the five
#: raters chose instead, how many of them did), where at least three agree. From
#: Northcutt, Athalye and Mueller (2021), "Pervasive label errors in test sets
#: destabilize machine learning benchmarks", https://arxiv.org/abs/2103.14749.
# fmt: off
DOUBTED_LABELS = {
    1227: ("dog", 4), 1718: ("ship", 3), 2405: ("frog", 5), 2592: ("deer", 3),
    2804: ("dog", 4), 4794: ("bird", 3), 5191: ("dog", 4), 5468: ("cat", 3),
    5632: ("dog", 3), 5690: ("deer", 3), 5960: ("cat", 3), 6877: ("ship", 5),
    6966: ("ship", 3), 7657: ("horse", 4), 7846: ("cat", 3), 8058: ("horse", 5),
    9227: ("truck", 3), 9352: ("truck", 3),
}
# fmt: on


@dataclass(frozen=True)
class Evaluation:
    """A classifier on a set of images; accuracies in [0, 1], loss in nats an image."""

    accuracy: float
    interval: tuple[float, float]  # 95 %
    loss: float
    class_accuracy: tuple[float, ...]
    confusion: Tensor  # int64 [C, C], rows true, columns predicted
    ece: float  # expected calibration error, in [0, 1]


@dataclass(frozen=True)
class Mistake:
    """A wrongly classified image; probabilities in [0, 1]."""

    index: int
    predicted: int
    true: int
    probability: float  # of the predicted class
    true_probability: float  # of the true class


def evaluate(logits: Tensor, labels: Tensor) -> Evaluation:
    """All figures of a classifier from logits [N, C] and labels int64 [N].

    Raises ValueError when the shapes don't belong together, or N is 0.
    """
    _check(logits, labels)
    classes = logits.shape[1]
    predicted = logits.argmax(1)
    confusion = torch.zeros(classes, classes, dtype=torch.int64)
    confusion.index_put_((labels, predicted), torch.tensor(1), accumulate=True)
    correct = int(confusion.diag().sum())
    return Evaluation(
        accuracy=correct / len(labels),
        interval=wilson_interval(correct, len(labels)),
        loss=cross_entropy(logits.double(), labels).item(),
        class_accuracy=tuple((confusion.diag() / confusion.sum(1)).tolist()),
        confusion=confusion,
        ece=calibration_error(logits, labels),
    )


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """95 % confidence interval of a proportion, by Wilson's score (1927).

    With p the observed proportion, n the trials and z = 1.96: centre
    (p + z²/2n) / (1 + z²/n), half width z sqrt(p(1-p)/n + z²/4n²) / (1 + z²/n).
    Raises ValueError unless 0 <= successes <= trials and trials > 0.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} successes of {trials} trials make no proportion")
    z = 1.959963984540054
    p = successes / trials
    scale = 1 + z**2 / trials
    centre = (p + z**2 / (2 * trials)) / scale
    half = z * math.sqrt(p * (1 - p) / trials + (z / (2 * trials)) ** 2) / scale
    # at p = 0 and p = 1 rounding could put a bound outside [0, 1]
    return max(0.0, centre - half), min(1.0, centre + half)


def calibration_error(logits: Tensor, labels: Tensor, bins: int = 15) -> float:
    """How far confidence and accuracy differ (ECE), in [0, 1].

    Images are put into `bins` equal intervals by their confidence, the probability of
    the predicted class. ECE is the mean over images of |accuracy - confidence| of their
    bin (Guo et al., 2017, https://arxiv.org/abs/1706.04599).
    """
    _check(logits, labels)
    confidence, predicted = logits.double().softmax(1).max(1)
    correct = (predicted == labels).double()
    # intervals are open below and closed above, as in the paper
    index = (confidence * bins).ceil().long().clamp(1, bins)
    gaps = torch.bincount(index, correct) - torch.bincount(index, confidence)
    return (gaps.abs().sum() / len(labels)).item()


def most_confident_mistakes(logits: Tensor, labels: Tensor, count: int = 10) -> Tensor:
    """Indices of the wrong predictions of highest probability, the highest first.

    Equal ones in the order of their index; fewer if there are fewer mistakes.
    """
    confidence, predicted = logits.float().softmax(1).max(1)
    wrong = (predicted != labels).nonzero().flatten()
    order = confidence[wrong].argsort(descending=True, stable=True)
    return wrong[order[:count]]


def worst_mistakes(logits: Tensor, labels: Tensor, count: int = 10) -> list[Mistake]:
    """What there is to say of each of the `most_confident_mistakes`."""
    _check(logits, labels)
    probabilities = logits.float().softmax(1)
    confidence, predicted = probabilities.max(1)
    return [
        Mistake(
            index=i,
            predicted=int(predicted[i]),
            true=int(labels[i]),
            probability=float(confidence[i]),
            true_probability=float(probabilities[i, labels[i]]),
        )
        for i in most_confident_mistakes(logits, labels, count).tolist()
    ]


def multiply_adds(model: nn.Module, inputs: Tensor) -> int:
    """Multiply-adds of convolutions and matrix products, for one image of `inputs`.

    inputs: one batch [B, 3, S, S]. Counted by torch's FlopCounterMode, which counts a
    multiply-add as two operations.
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(inputs)
    return counter.get_total_flops() // 2 // len(inputs)


def parameter_count(model: nn.Module, *, trainable_only: bool = False) -> int:
    """Number of scalar parameters."""
    counted = (p for p in model.parameters() if p.requires_grad or not trainable_only)
    return sum(p.numel() for p in counted)


def _check(logits: Tensor, labels: Tensor) -> None:
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or len(labels) == 0:
        raise ValueError(
            f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)}: "
            "expected [N, C] and [N] with N > 0"
        )
