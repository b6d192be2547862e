"""Question 3's tables as rows of text, alike in the notebook and in the answers."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from src.analysis import DOUBTED_LABELS, Mistake
from src.common.project import FAST
from src.common.tables import markdown_table
from src.experiments import Point
from src.mistake_remarks import REMARKS

SEEDS = ("seed 1", "seed 2")
OF = {"en": "of", "he": "מתוך"}


def mistake_rows(
    mistakes: Iterable[Mistake],
    classes: Sequence[str],
    *,
    whole: bool = not FAST,
    name: Callable[[str], str] = str,
    language: str = "en",
) -> list[list[str]]:
    """For each mistake: test image, true and predicted class, the probability of the
    latter, what people say who doubt the label, and what we see.

    classes: their names by label. name: how such a name is shown.
    whole: the images are numbered as in the whole of CIFAR-10, not in the sample.
    """
    rows = []
    for mistake in mistakes:
        index = mistake.index if whole else None
        label, votes = DOUBTED_LABELS.get(index, ("", 0))
        row = [
            f"{mistake.index}",
            name(classes[mistake.true]),
            name(classes[mistake.predicted]),
            f"{mistake.probability:.2%}",
            f"{name(label)}, {votes} {OF[language]} 5" if votes else "",
            REMARKS[language].get(index, ""),
        ]
        rows.append(row)
    return rows


def sizes_ahead(
    first: Sequence[Point], second: Sequence[Point]
) -> tuple[list[int], list[int]]:
    """The sizes at which every seed of one curve is above every seed of the other.

    Two lists of images a class: where the first curve is ahead, where the second is.
    """
    ahead, behind = [], []
    for a, b in zip(first, second, strict=True):
        if min(a.accuracies) > max(b.accuracies):
            ahead.append(a.images_per_class)
        if min(b.accuracies) > max(a.accuracies):
            behind.append(a.images_per_class)
    return ahead, behind


def ablation_table(accuracies: Mapping[str, Sequence[float]]) -> str:
    """The accuracies of `experiments.ablation`, their means, and by how many percentage
    points these differ from the first one's."""
    means = {what: sum(values) / len(values) for what, values in accuracies.items()}
    base, *_ = means.values()
    rows = [
        [
            what,
            *(f"{value:.1%}" for value in accuracies[what]),
            f"{mean:.1%}",
            f"{100 * (mean - base):+.1f}",
        ]
        for what, mean in means.items()
    ]
    return markdown_table(["training", *SEEDS, "mean", "difference"], rows)


def size_table(curves: Mapping[str, Sequence[Point]]) -> str:
    """Accuracies of each network's trainings, by the training images of each class."""
    rows = [
        [f"{points[0].images_per_class:,}"]
        + [" and ".join(f"{v:.1%}" for v in point.accuracies) for point in points]
        for points in zip(*curves.values(), strict=True)
    ]
    return markdown_table(["images a class", *curves], rows)


def mistake_table(mistakes: Iterable[Mistake], classes: Sequence[str]) -> str:
    """`mistake_rows` in English."""
    header = ["test image", "true", "predicted", "probability", "people say", "we see"]
    return markdown_table(header, mistake_rows(mistakes, classes))
