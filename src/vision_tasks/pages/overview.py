"""The guide's opening: one scene with the truth for all tasks, and all predictions."""

import textwrap
from collections.abc import Callable

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

from src.plots import BLUE, ORANGE
from src.vision_tasks import TASKS
from src.vision_tasks.shared.drawing import (
    grid,
    show_boxes,
    show_classes,
    show_depth,
    show_flow,
    show_image,
    show_masks,
)
from src.vision_tasks.shared.task import infer
from src.vision_tasks.street.scenes import Scenes
from src.vision_tasks.street.vocabulary import OBJECT_CLASSES
from src.vision_tasks.tasks.anomaly_detection import AnomalyDetection
from src.vision_tasks.tasks.classification import Classification
from src.vision_tasks.tasks.depth_estimation import DepthEstimation
from src.vision_tasks.tasks.image_captioning import captions_of
from src.vision_tasks.tasks.image_inpainting import ImageInpainting
from src.vision_tasks.tasks.instance_segmentation import (
    InstanceSegmentation,
    segment,
    true_masks,
)
from src.vision_tasks.tasks.lane_detection import (
    LaneDetection,
    lines,
    show_lines,
    true_lines,
)
from src.vision_tasks.tasks.object_detection import ObjectDetection, detect
from src.vision_tasks.tasks.optical_flow import OpticalFlow, show_arrows
from src.vision_tasks.tasks.semantic_segmentation import SemanticSegmentation
from src.vision_tasks.tasks.super_resolution import SuperResolution
from src.vision_tasks.tasks.trajectory_prediction import TrajectoryPrediction

#: Detections that are at least this sure are drawn.
SURE = 0.4

#: Draws the truth (without a model) or the prediction for one scene, and returns a few
#: words for the title.
Panel = Callable[[Axes, Scenes, nn.Module | None], str]


def choose(scenes: Scenes) -> Scenes:
    """The scene, best in daylight, that gives the most tasks something to do."""
    scores = []
    for index in range(len(scenes)):
        scene = scenes[[index]]
        labels = scene.labels[scene.labels >= 0]
        scores.append(
            scene.anomaly.float().mean().clamp(max=0.015) / 0.015
            + min(len(labels), 4) / 4
            + (len(labels.unique()) > 1)
            + (scene.images.float().mean() > 90)
            + (scene.lanes.isfinite().float().mean() > 0.5)
            + (scene.flow.norm(dim=1).mean() > 0.5)
        )
    return scenes[[int(torch.tensor(scores).argmax())]]


def truths(scene: Scenes) -> Figure:
    """The scene with its truth for every task."""
    return _draw(scene, dict.fromkeys(PANELS))


def predictions(scene: Scenes, models: dict[str, nn.Module]) -> Figure:
    """The same panels with the models' predictions; models by the names of tasks."""
    return _draw(scene, models)


def _draw(scene: Scenes, models: dict[str, nn.Module | None]) -> Figure:
    figure, axes = grid(3, [""] * 4, height=2.35)
    for number, (name, axis) in enumerate(zip(PANELS, axes.flat, strict=True), start=1):
        words = PANELS[name](axis, scene, models[name])
        title = f"{number} {TASKS[name].title.lower()}"
        axis.set_title(f"{title}\n{words}" if words else title, fontsize=8)
    return figure


def _classification(axis: Axes, scene: Scenes, model: nn.Module | None) -> str:
    show_image(axis, scene.images[0])
    if model is None:
        return OBJECT_CLASSES[scene.main[0]]
    probabilities = infer(Classification(), model, scene).softmax(1)[0]
    best = int(probabilities.argmax())
    return f"{OBJECT_CLASSES[best]}, {probabilities[best]:.0%}"


def _object_detection(axis: Axes, scene: Scenes, model: nn.Module | None) -> str:
    show_image(axis, scene.images[0])
    if model is None:
        boxes, labels = scene.boxes[0], scene.labels[0]
        boxes, labels = boxes[labels >= 0], labels[labels >= 0]
    else:
        found = detect(*infer(ObjectDetection(), model, scene), threshold=SURE)[0]
        boxes, labels = found.boxes, found.labels
    show_boxes(axis, boxes, labels)
    return f"{len(boxes)} objects"


def _semantic_segmentation(axis: Axes, scene: Scenes, model: nn.Module | None) -> str:
    if model is None:
        show_classes(axis, scene.semantic[0])
    else:
        show_classes(axis, infer(SemanticSegmentation(), model, scene)[0].argmax(0))
    return "a class for every pixel"


def _instance_segmentation(axis: Axes, scene: Scenes, model: nn.Module | None) -> str:
    if model is None:
        masks = true_masks(scene.instances[0], scene.labels[0])
    else:
        output = infer(InstanceSegmentation(), model, scene)
        masks = segment(output, threshold=SURE)[0].masks
    show_masks(axis, scene.images[0], masks)
    return f"{len(masks)} masks"


def _depth_estimation(axis: Axes, scene: Scenes, model: nn.Module | None) -> str:
    depth = scene.depth if model is None else infer(DepthEstimation(), model, scene)
    show_depth(axis, depth[0, 0])
    nearest = depth[depth > 0].min().item()
    return f"nearest point at {nearest:.1f} m"


def _optical_flow(axis: Axes, scene: Scenes, model: nn.Module | None) -> str:
    truth = scene.flow[0]
    flow = truth if model is None else infer(OpticalFlow(), model, scene).flow[0]
    show_flow(axis, flow, largest=max(1.0, truth.norm(dim=0).quantile(0.98).item()))
    show_arrows(axis, flow)
    return f"up to {flow.norm(dim=0).max():.1f} pixels"


def _lane_detection(axis: Axes, scene: Scenes, model: nn.Module | None) -> str:
    show_image(axis, scene.images[0])
    found = (
        true_lines(scene)
        if model is None
        else lines(infer(LaneDetection(), model, scene))
    )[0]
    show_lines(axis, found, scene.images.shape[2:], None, "-", width=2.5)
    seen = found.isfinite().any(dim=1).sum()
    return f"{seen} lines"


def _trajectory_prediction(axis: Axes, scene: Scenes, model: nn.Module | None) -> str:
    """Seen from above; the camera is at the bottom, looking up."""
    batch = TrajectoryPrediction().prepare(scene)
    (past,), (future, *_) = batch.inputs, batch.targets
    for track in past:
        axis.plot(*track.T, color="black", linewidth=2)
        axis.plot(*track[-1], "o", color="black", markersize=4)
    if model is None:
        for track in future:
            axis.plot(*track.T, color=BLUE, linewidth=2)
    else:
        with torch.no_grad():
            output = model(past)
        chances = output.logits.softmax(1)
        for futures, sure in zip(output.futures, chances, strict=True):
            for track, chance in zip(futures, sure.tolist(), strict=True):
                axis.plot(*track.T, color=ORANGE, alpha=min(1, 0.15 + chance))
    everything = torch.cat([past, future], dim=1)
    low, high = everything.amin((0, 1)), everything.amax((0, 1))
    (x, z), half = ((low + high) / 2).tolist(), (high - low).max().item() / 2 + 3
    axis.set(xlim=(x - half, x + half), ylim=(z - half, z + half), aspect="equal")
    axis.spines[:].set_visible(True)
    return f"{len(past)} tracks, from above"


def _anomaly_detection(axis: Axes, scene: Scenes, model: nn.Module | None) -> str:
    if model is None:
        show_masks(axis, scene.images[0], scene.anomaly)
        return "what does not belong"
    scores = infer(AnomalyDetection(), model, scene)
    axis.imshow(scores[0, 0].sigmoid().numpy(), cmap="magma", vmin=0, vmax=1)
    return "how unusual each place is"


def _image_captioning(axis: Axes, scene: Scenes, model: nn.Module | None) -> str:
    show_image(axis, scene.images[0])
    caption = scene.captions[0] if model is None else captions_of(model, scene)[0]
    return textwrap.fill(caption, 34)


def _super_resolution(axis: Axes, scene: Scenes, model: nn.Module | None) -> str:
    if model is None:
        show_image(axis, scene.images[0])
    else:
        show_image(axis, infer(SuperResolution(), model, scene)[0])
    size = scene.images.shape[-1]
    return f"{size}×{size}" + (f" from {size // 4}×{size // 4}" if model else "")


def _image_inpainting(axis: Axes, scene: Scenes, model: nn.Module | None) -> str:
    task = ImageInpainting()
    _, missing = task.prepare(scene).inputs
    if model is None:
        show_image(axis, scene.images[0])
    else:
        show_image(axis, infer(task, model, scene).image[0])
    axis.contour(missing[0, 0], levels=[0.5], colors=[ORANGE], linewidths=0.6)
    return "what the outlined holes hide"


PANELS: dict[str, Panel] = {
    "classification": _classification,
    "object_detection": _object_detection,
    "semantic_segmentation": _semantic_segmentation,
    "instance_segmentation": _instance_segmentation,
    "depth_estimation": _depth_estimation,
    "optical_flow": _optical_flow,
    "lane_detection": _lane_detection,
    "trajectory_prediction": _trajectory_prediction,
    "anomaly_detection": _anomaly_detection,
    "image_captioning": _image_captioning,
    "super_resolution": _super_resolution,
    "image_inpainting": _image_inpainting,
}
