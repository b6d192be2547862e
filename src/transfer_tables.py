"""Question 3's tables as rows of text, alike in the notebook and in the answers."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from src.analysis import DOUBTED_LABELS, Mistake
from src.common.project import FAST
from src.common.tables import markdown_table
from src.experiments import Point
from src.mistake_remarks import REMARKS

SEEDS = ("seed 1", "seed 2")


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
            f"{name(label)}, {votes} of 5" if votes else "",
            REMARKS[language].get(index, ""),
        ]
        rows.append(row)
    return rows


def confusions(mistakes: Iterable[Mistake]) -> list[tuple[tuple[int, int], int]]:
    """Pairs of true and predicted label with their counts, the commonest first."""
    return Counter((m.true, m.predicted) for m in mistakes).most_common()


def size_rows(first: Sequence[Point], second: Sequence[Point]) -> list[list[str]]:
    """For each size of two curves: images a class, seeds, both mean accuracies."""
    rows = []
    for a, b in zip(first, second, strict=True):
        seeds = len(a.accuracies)
        rows.append(
            [f"{a.images_per_class:,}", f"{seeds}", f"{a.mean:.1%}", f"{b.mean:.1%}"]
        )
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
    """For each size of two curves: images a class, and the accuracies of both."""
    header = [
        "images a class",
        *(f"{name}, {s}" for name in curves for s in SEEDS),
    ]
    rows = [
        [f"{a.images_per_class:,}", *(f"{v:.1%}" for v in a.accuracies + b.accuracies)]
        for a, b in zip(*curves.values(), strict=True)
    ]
    return markdown_table(header, rows)


def mistake_table(mistakes: Iterable[Mistake], classes: Sequence[str]) -> str:
    """`mistake_rows` in English."""
    header = ["test image", "true", "predicted", "probability", "people say", "we see"]
    return markdown_table(header, mistake_rows(mistakes, classes))
