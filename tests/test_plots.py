"""What the figures of the assignment show, read off their artists."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from src import conv_plots, plots, transfer_plots
from src.experiments import Point
from src.training import Epoch


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def texts(axis):
    return [text.get_text() for text in axis.texts]


def outlines(axis):
    """Name, corner, width and height of each window that is outlined."""
    return {
        patch.get_label(): (*patch.get_xy(), patch.get_width(), patch.get_height())
        for patch in axis.patches
        if not patch.get_fill()
    }


def lines(axis):
    return {
        line.get_label(): (list(line.get_xdata()), list(line.get_ydata()))
        for line in axis.lines
        if not line.get_label().startswith("_")
    }


def test_windows_of_a_convolution():
    """Only the frame is shaded, not a zero of the image."""
    padded = np.pad(np.array([[0, 2], [3, 4]]), 1)
    output = [[7, 0], [8, 9]]
    figure = conv_plots.windows_of_a_convolution(padded, [[1, 0]], output, 2, 1)
    image, kernel, output = figure.axes
    assert [axis.get_title() for axis in figure.axes] == [
        "padded image",
        "kernel",
        "output",
    ]
    assert [int(text) for text in texts(image)] == padded.flatten().tolist()
    assert texts(kernel) == ["1", "0 "]  # not taken for padding
    shades = [patch.get_facecolor()[0] < 1 for patch in image.patches[:16]]
    frame = np.pad(np.zeros((2, 2), dtype=bool), 1, constant_values=True)
    assert shades == frame.flatten().tolist()
    assert not any(patch.get_facecolor()[0] < 1 for patch in kernel.patches)
    near = pytest.approx
    assert outlines(image) == {
        "$y_{0,0}$": near((0.05, 0.05, 1.9, 0.9)),
        "$y_{0,1}$": near((2.11, 0.11, 1.78, 0.78)),
        "$y_{1,1}$": near((2.11, 2.11, 1.78, 0.78)),
    }
    assert list(outlines(output)) == ["$y_{0,0}$", "$y_{0,1}$", "$y_{1,1}$"]
    assert outlines(output)["$y_{1,1}$"] == near((1.11, 1.11, 0.78, 0.78))
    heights = [np.ptp(axis.get_ylim()) for axis in figure.axes]
    assert heights == near([4.1] * 3)  # one scale


@pytest.mark.parametrize(
    ("output", "names"),
    [
        ([[5]], ["$y_{0,0}$"]),
        ([[5], [6]], ["$y_{0,0}$", "$y_{1,0}$"]),
        ([[5, 6]], ["$y_{0,0}$", "$y_{0,1}$"]),
        ([[5], [6], [7], [8]], ["$y_{0,0}$", "$y_{1,0}$", "$y_{3,0}$"]),
    ],
)
def test_no_window_is_drawn_that_there_is_not(output, names):
    image = np.ones((len(output), len(output[0])), dtype=int)
    figure = conv_plots.windows_of_a_convolution(image, [[1]], output, 1, 0)
    assert list(outlines(figure.axes[0])) == list(outlines(figure.axes[2])) == names


def test_windows_as_columns():
    figure = conv_plots.windows_as_columns([1, 2], [[1, 2, 3], [4, 5, 0]], [9, 12, 3])
    kernel, columns, output = figure.axes
    assert texts(kernel) == ["1", "2"] and texts(output) == ["9", "12", "3"]
    assert texts(columns) == ["1", "2", "3", "4", "5", "0 "]
    names = ["window 0", "window 1", "window 2"]
    assert list(outlines(columns)) == list(outlines(output)) == names
    assert outlines(columns)["window 2"] == pytest.approx((2.11, 0.11, 0.78, 1.78))


def test_backpropagation_windows():
    output, kernel, image = conv_plots.backpropagation_windows().axes
    assert texts(output)[:4] == ["$x_{1,1}$", "$x_{1,2}$", "$x_{1,3}$", "$x_{2,1}$"]
    assert texts(image)[:3] == texts(image)[-3:] == ["0"] * 3
    assert r"y_{1,1}" in texts(image)[3] and r"y_{2,3}" in texts(image)[8]
    assert len(outlines(output)) == len(outlines(kernel)) == 2
    assert [round(window[0]) for window in outlines(image).values()] == [0, 1, 2]
    assert [round(window[1]) for window in outlines(image).values()] == [0, 1, 2]


def test_filtered_images_are_scaled_around_zero_where_negative():
    image = np.zeros((2, 2, 3), dtype=np.uint8)
    responses = {
        "edge": np.array([[-1, 0], [2, 0]]),
        "blur": np.array([[1, 0], [3, 0]]),
    }
    _, edge, blur = conv_plots.filtered_image(image, responses).axes
    assert edge.get_title() == "edge" and blur.get_title() == "blur"
    assert edge.images[0].get_clim() == (-2, 2)
    assert blur.images[0].get_clim() == (0, 3)


def test_learning_curves_are_of_accuracy_where_it_was_measured():
    curve = [Epoch(1, 0.9, 0.5, 0.8, 0.6, 1.0), Epoch(2, 0.7, 0.75, 0.6, 0.5, 1.0)]
    nan = float("nan")
    alone = [Epoch(1, 0.9, 0.25, nan, nan, 1.0), Epoch(2, 0.7, 1.0, nan, nan, 1.0)]
    both, one = transfer_plots.learning_curves({"n": curve, "m": alone}).axes
    assert lines(both) == {
        "train": ([1, 2], [50, 75]),
        "validation": ([1, 2], [60, 50]),
    }
    assert lines(one) == {"train": ([1, 2], [25, 100])}
    assert (both.get_title(), one.get_title()) == ("n", "m")
    assert (both.get_xlabel(), both.get_ylabel()) == ("epoch", "accuracy (%)")


def test_confusion_is_in_per_cent_of_the_true_class():
    [axis] = transfer_plots.confusion(
        {"n": np.array([[3, 1], [0, 5]])}, ["a", "b"]
    ).axes
    assert texts(axis) == ["75", "25", "0", "100"]
    assert [text.get_position() for text in axis.texts[:2]] == [(0, 0), (1, 0)]
    colours = [text.get_color() for text in axis.texts]
    assert colours == ["white", "black", "black", "white"]
    assert axis.images[0].get_array().max() == 10
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted", "true")


def test_data_efficiency_shows_means_and_single_draws():
    curves = {
        "n": [Point(10, (0.25, 0.75)), Point(1000, (1.0,))],
        "m": [Point(10, (0.125,)), Point(1000, (0.5,))],
    }
    [axis] = transfer_plots.data_efficiency(curves).axes
    assert lines(axis) == {"n": ([10, 1000], [50, 100]), "m": ([10, 1000], [12.5, 50])}
    dots = [line for line in axis.lines if line.get_marker() == "."]
    drawn = [(dot.get_xdata()[0], dot.get_ydata()[0]) for dot in dots]
    assert drawn == [(10, 25), (10, 75), (1000, 100), (10, 12.5), (1000, 50)]
    assert [t.get_text() for t in axis.get_xticklabels()] == ["10", "1,000"]
    assert axis.get_xscale() == "log"


def test_figures_are_saved_as_png_and_axes_hidden(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "FIGURES", tmp_path)
    with plt.rc_context():
        plots.use_style()
        assert plt.rcParams["axes.grid"] and plt.rcParams["figure.dpi"] == 90
        figure, axes = plt.subplots(1, 2)
        axes[0].set_title("kept")
        plots.hide_axes(axes)
        plots.save(figure, "name")
    assert (tmp_path / "name.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(plots, "is_copy", lambda: True)
    plots.save(figure, "of a trial")
    assert [path.name for path in tmp_path.iterdir()] == ["name.png"]
    for axis in axes:
        assert len(axis.get_xticks()) == len(axis.get_yticks()) == 0
        assert not any(spine.get_visible() for spine in axis.spines.values())
    assert axes[0].get_title() == "kept"
