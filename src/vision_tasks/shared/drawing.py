"""Figures of the guide: rows of scenes, columns of input, truth and prediction."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from src.plots import BLUE, GREEN, ORANGE, PURPLE, SKY, hide_axes, use_style
from src.vision_tasks.street.scenes import Scenes
from src.vision_tasks.street.vocabulary import OBJECT_CLASSES

#: One colour for each of `SEMANTIC_CLASSES`; neighbours also differ in lightness.
SEMANTIC_COLOURS = np.array(
    [
        (90, 90, 90),  # road
        (250, 250, 250),  # lane marking
        (190, 175, 160),  # pavement
        (150, 200, 90),  # grass
        (150, 205, 245),  # sky
        (175, 120, 90),  # building
        (0, 110, 60),  # tree
        (0, 90, 200),  # car
        (230, 130, 0),  # truck
        (240, 220, 60),  # bus
        (215, 60, 130),  # pedestrian
        (90, 0, 120),  # obstacle
    ]
)
#: One colour for each of `OBJECT_CLASSES`.
OBJECT_COLOURS = (BLUE, ORANGE, "#F0E442", PURPLE)
#: Colours of instances, one after the other.
INSTANCE_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, "#F0E442", "#D55E00", "#000000")


def grid(
    rows: int, columns: list[str], height: float = 1.9
) -> tuple[Figure, np.ndarray]:
    """A figure of rows x columns square axes without ticks, the columns titled.

    Returns the figure and the axes, an array [rows, len(columns)].
    """
    use_style()
    size = (1.9 * len(columns) + 0.2, height * rows + 0.3)
    figure, axes = plt.subplots(rows, len(columns), figsize=size, squeeze=False)
    for axis, title in zip(axes[0], columns, strict=True):
        axis.set_title(title, fontsize=10)
    hide_axes(axes)
    return figure, axes


def show_image(axis: Axes, image: Tensor) -> None:
    """image: uint8 [3, H, W], or float in [0, 1]."""
    picture = image.detach().permute(1, 2, 0).numpy()
    axis.imshow(picture if picture.dtype == np.uint8 else picture.clip(0, 1))


def show_classes(axis: Axes, semantic: Tensor) -> None:
    """semantic: integers [H, W], indices into SEMANTIC_CLASSES."""
    axis.imshow(SEMANTIC_COLOURS[semantic.long().numpy()].astype(np.uint8))


def varied(scenes: Scenes, count: int) -> Scenes:
    """The first scenes of those that show the most classes of objects."""
    classes = [len(labels[labels >= 0].unique()) for labels in scenes.labels]
    order = sorted(range(len(scenes)), key=lambda index: -classes[index])
    return scenes[sorted(order[:count])]


def show_boxes(
    axis: Axes,
    boxes: Tensor,
    labels: Tensor,
    scores: Tensor | None = None,
    style: str = "-",
) -> None:
    """Draw boxes with their classes and, if given, scores.

    boxes: [K, 4] as (left, top, right, bottom) in pixels; labels: [K]; scores: [K].
    """
    names = [OBJECT_CLASSES[label] for label in labels.tolist()]
    if scores is not None:
        names = [f"{a} {b:.0%}" for a, b in zip(names, scores.tolist(), strict=True)]
    for (left, top, right, bottom), label, name in zip(
        boxes.tolist(), labels.tolist(), names, strict=True
    ):
        colour = OBJECT_COLOURS[label]
        axis.add_patch(
            Rectangle(
                (left - 0.5, top - 0.5),
                right - left,
                bottom - top,
                fill=False,
                edgecolor=colour,
                linestyle=style,
                linewidth=1.8,
            )
        )
        axis.annotate(
            name,
            (left, top - 1),
            fontsize=6,
            color="white",
            annotation_clip=True,
            bbox={"facecolor": "black", "alpha": 0.6, "pad": 0.5, "linewidth": 0},
        )


def show_masks(axis: Axes, image: Tensor, masks: Tensor) -> None:
    """image: uint8 [3, H, W], shown in grey under masks, bool [K, H, W], in colours."""
    grey = image.float().mean(0).numpy() / 255
    picture = np.repeat(grey[:, :, None], 3, axis=2) * 0.7 + 0.2
    for number, mask in enumerate(masks.numpy()):
        name = INSTANCE_COLOURS[number % len(INSTANCE_COLOURS)]
        colour = np.array([int(name[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        picture[mask] = 0.25 * picture[mask] + 0.75 * colour
    axis.imshow(picture.clip(0, 1))


def show_depth(axis: Axes, depth: Tensor, farthest: float = 60.0) -> None:
    """depth: [H, W] in metres, 0 where there is none; near is bright, log scale."""
    brightness = -np.ma.log(depth.detach().numpy())  # masked where it is 0
    axis.set_facecolor("0.85")
    axis.imshow(brightness, vmin=-np.log(farthest), vmax=-np.log(2.0))


def show_flow(axis: Axes, flow: Tensor, largest: float) -> None:
    """flow: [2, H, W] in pixels; its direction as hue, its length as saturation."""
    right, down = flow.detach().numpy()
    length = np.hypot(right, down) / max(largest, 1e-6)
    hue = np.arctan2(down, right) / (2 * np.pi) % 1
    hsv = np.stack([hue, length.clip(0, 1), np.ones_like(hue)], axis=-1)
    axis.imshow(hsv_to_rgb(hsv))
