"""Question 3's tables as rows of text, alike in the notebook and in the answers."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from src.analysis import Mistake
from src.data_efficiency import Point


def mistake_rows(
    mistakes: Iterable[Mistake],
    classes: Sequence[str],
    doubted: Mapping[int, tuple[str, int]],
    name: Callable[[str], str] = str,
) -> list[list[str]]:
    """For each mistake: test image, true class, predicted class, the probabilities of
    the predicted and of the true one, and what people say who doubt the label.

    classes: their names by label. name: how such a name is shown.
    doubted: `analysis.DOUBTED_LABELS`; empty for a sample, numbered otherwise.
    """
    rows = []
    for mistake in mistakes:
        label, votes = doubted.get(mistake.index, ("", 0))
        row = [
            f"{mistake.index}",
            name(classes[mistake.true]),
            name(classes[mistake.predicted]),
            f"{mistake.probability:.2%}",
            f"{mistake.true_probability:.2%}",
            f"{name(label)} ({votes})" if votes else "–",
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
    """The images a class at which the first curve is not the lower one; the others."""
    ahead, behind = [], []
    for a, b in zip(first, second, strict=True):
        (ahead if a.mean >= b.mean else behind).append(a.images_per_class)
    return ahead, behind
