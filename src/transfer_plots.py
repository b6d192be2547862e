"""The figures of question 3: each drawn from plain data, and returned."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from src.analysis import Calibration, Mistake
from src.data_efficiency import Point
from src.plots import BLUE, GREY, ORANGE, SKY, hide_axes
from src.training import Epoch


def class_samples(
    images: np.ndarray, labels: np.ndarray, classes: Sequence[str]
) -> Figure:
    """Some images of each class, one class a column.

    images: uint8 [N, H, W, 3], as imshow takes them; labels: int [N].
    """
    per_class = np.bincount(labels).min()
    figure, axes = plt.subplots(
        per_class, len(classes), figsize=(len(classes), per_class + 0.3), squeeze=False
    )
    for column, name in enumerate(classes):
        axes[0, column].set_title(name, fontsize=9)
        for row, image in enumerate(images[labels == column][:per_class]):
            axes[row, column].imshow(image)
    hide_axes(axes)
    return figure


def enlargement(pictures: dict[str, np.ndarray]) -> Figure:
    """The same image at several stages, side by side; each [H, W, 3] in [0, 1]."""
    figure, axes = plt.subplots(1, len(pictures), figsize=(9, 2.6))
    for axis, (title, picture) in zip(axes, pictures.items(), strict=True):
        axis.imshow(picture.clip(0, 1))
        axis.set_title(title, fontsize=9)
    hide_axes(axes)
    return figure


def learning_curves(curves: dict[str, Sequence[Epoch]]) -> Figure:
    """Loss and accuracy, on training and validation images, of each named network."""
    figure, axes = plt.subplots(1, 2 * len(curves), figsize=(11, 3.2))
    pairs = axes.reshape(-1, 2)
    for (name, curve), (left, right) in zip(curves.items(), pairs, strict=True):
        epochs = [epoch.number for epoch in curve]
        for part, style, colour in (("train", "-", BLUE), ("validation", "--", ORANGE)):
            losses = [getattr(epoch, f"{part}_loss") for epoch in curve]
            accuracies = [100 * getattr(epoch, f"{part}_accuracy") for epoch in curve]
            left.plot(epochs, losses, style, color=colour, label=part)
            right.plot(epochs, accuracies, style, color=colour, label=part)
        left.set(title=f"{name}: loss", xlabel="epoch", ylabel="cross-entropy (nats)")
        right.set(title=f"{name}: accuracy", xlabel="epoch", ylabel="accuracy (%)")
        left.legend()
    for axis in axes:
        axis.xaxis.get_major_locator().set_params(integer=True)
    return figure


def mistakes(
    images: np.ndarray, mistakes: Sequence[Mistake], classes: Sequence[str]
) -> Figure:
    """Ten wrongly classified images, with both classes and their probabilities.

    images: uint8 [10, H, W, 3], in the order of the mistakes.
    """
    figure, axes = plt.subplots(2, 5, figsize=(10, 5.2))
    for axis, image, mistake in zip(axes.flat, images, mistakes, strict=False):
        axis.imshow(image, interpolation="bicubic")
        axis.set_title(
            f"predicted: {classes[mistake.predicted]} {mistake.probability:.2%}\n"
            f"true: {classes[mistake.true]} {mistake.true_probability:.2%}",
            fontsize=9,
        )
        axis.set_xlabel(f"test image {mistake.index}", fontsize=8)
    hide_axes(axes)
    return figure


def confusion(matrices: dict[str, np.ndarray], classes: Sequence[str]) -> Figure:
    """Confusion matrices: rows true, columns predicted, in % of the row."""
    figure, axes = plt.subplots(1, len(matrices), figsize=(11, 5.2), squeeze=False)
    for axis, (name, matrix) in zip(axes.flat, matrices.items(), strict=True):
        share = 100 * matrix / matrix.sum(1, keepdims=True)
        # the square root lets the few per cent off the diagonal be seen
        axis.imshow(np.sqrt(share), cmap="Greys", vmin=0, vmax=10)
        middle = {"ha": "center", "va": "center", "fontsize": 8}
        for (row, column), value in np.ndenumerate(share):
            colour = "white" if value > 35 else "black"
            axis.text(column, row, f"{value:.0f}", color=colour, **middle)
        axis.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
        axis.set_yticks(range(len(classes)), classes)
        axis.set(
            title=f"{name} (% of each true class)", xlabel="predicted", ylabel="true"
        )
        axis.grid(False)
    return figure


def class_accuracies(
    accuracies: dict[str, Sequence[float]], classes: Sequence[str]
) -> Figure:
    """Accuracy on each class, one group of bars a class."""
    figure, axis = plt.subplots(figsize=(9, 3))
    width = 0.8 / len(accuracies)
    for number, (name, values) in enumerate(accuracies.items()):
        shift = (number - (len(accuracies) - 1) / 2) * width
        colour, hatch = ((SKY, "//"), (BLUE, ""))[number % 2]
        look = {"color": colour, "hatch": hatch, "edgecolor": "white", "label": name}
        positions = np.arange(len(classes)) + shift
        axis.bar(positions, 100 * np.array(values), width, **look)
    axis.set_xticks(range(len(classes)), classes)
    axis.set(ylabel="accuracy (%)", ylim=(0, 100))
    axis.grid(False, axis="x")
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    return figure


def reliability(calibrations: dict[str, Calibration]) -> Figure:
    """Accuracy against confidence; a calibrated network lies on the diagonal."""
    figure, axes = plt.subplots(1, len(calibrations), figsize=(9, 3.8), squeeze=False)
    for axis, (name, calibration) in zip(axes.flat, calibrations.items(), strict=True):
        axis.plot([0, 100], [0, 100], ":", color=GREY, label="perfect calibration")
        confidence = 100 * np.array(calibration.confidence)
        accuracy = 100 * np.array(calibration.accuracy)
        axis.plot(confidence, accuracy, "o-", color=BLUE, label=name)
        axis.set(title=f"{name}: ECE {calibration.ece:.1%}", aspect="equal")
        axis.set(xlabel="confidence (%)", ylabel="accuracy (%)")
        axis.legend(loc="lower right")
    return figure


def data_efficiency(curves: dict[str, Sequence[Point]]) -> Figure:
    """Test accuracy against training images a class; every seed is a small dot."""
    figure, axis = plt.subplots(figsize=(8, 3.8))
    looks = (ORANGE, "--", "s"), (BLUE, "-", "o")
    for (name, points), look in zip(curves.items(), looks, strict=True):
        colour, style, marker = look
        sizes = [point.images_per_class for point in points]
        means = [100 * point.mean for point in points]
        axis.semilogx(sizes, means, style, color=colour, marker=marker, label=name)
        for size, point in zip(sizes, points, strict=True):
            for accuracy in point.accuracies:
                axis.plot(size, 100 * accuracy, ".", color=colour, ms=4)
    axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axis.minorticks_off()
    axis.set_xlabel("training images of each class (small dots: single draws)")
    axis.set_ylabel("test accuracy (%)")
    axis.legend(loc="upper left")
    return figure
