"""Classification: which class is the main object of an image?"""

from typing import ClassVar

import torch
from matplotlib.figure import Figure
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy

from src.vision_tasks.shared.drawing import grid, show_image
from src.vision_tasks.shared.encoder import Encoder
from src.vision_tasks.shared.task import (
    Batch,
    Task,
    TaskRecipe,
    infer,
    mirror_half,
)
from src.vision_tasks.street.scenes import Scenes
from src.vision_tasks.street.vocabulary import OBJECT_CLASSES


class Classifier(nn.Module):
    """ResNet-18, average pooling, one linear layer.

    forward: images [B, 3, H, W] in [0, 1] to logits [B, classes].
    """

    def __init__(self, classes: int = 10, *, pretrained: bool = False) -> None:
        super().__init__()
        self.encoder = Encoder(pretrained=pretrained)
        self.fc = nn.Linear(512, classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.encoder(images).thirtysecond  # [B, 512, H/32, W/32]
        pooled = features.mean(dim=(2, 3))  # [B, 512]
        return self.fc(pooled)  # [B, classes]


class Classification(Task):
    name = "classification"
    title = "Image classification"
    hebrew = "סיווג תמונות"
    metric = "accuracy"
    baseline_name = "always the most frequent class"
    recipe: ClassVar[TaskRecipe] = TaskRecipe(steps=200)

    def build_model(self, *, pretrained: bool = False) -> Classifier:
        return Classifier(len(OBJECT_CLASSES), pretrained=pretrained)

    def example_inputs(self, batch: int = 2) -> tuple[Tensor, ...]:
        return (torch.rand(batch, 3, 224, 224),)

    def prepare(self, scenes: Scenes, generator: Generator | None = None) -> Batch:
        images = scenes.images.float() / 255
        if generator:
            (images,) = mirror_half(generator, images)
        return Batch((images,), (scenes.main,))

    def loss(self, output: Tensor, targets: tuple[Tensor, ...]) -> Tensor:
        return cross_entropy(output, targets[0])

    def measure(self, model: nn.Module, scenes: Scenes) -> dict[str, float]:
        correct = infer(self, model, scenes).argmax(1) == scenes.main
        return {"accuracy": correct.float().mean().item()}

    def baselines(self, train: Scenes, test: Scenes) -> dict[str, dict[str, float]]:
        most_frequent = train.main.mode().values
        accuracy = (test.main == most_frequent).float().mean().item()
        return {self.baseline_name: {"accuracy": accuracy}}

    def figure(self, model: nn.Module, scenes: Scenes) -> Figure:
        of_class = [scenes.main == label for label in range(len(OBJECT_CLASSES))]
        shown = scenes[torch.cat([member.nonzero()[:2, 0] for member in of_class])]
        probabilities = infer(self, model, shown).softmax(1)
        figure, axes = grid(2, [""] * 4, height=2.2)
        for axis, image, truth, row in zip(
            axes.flat, shown.images, shown.main.tolist(), probabilities, strict=False
        ):
            show_image(axis, image)
            best = row.argmax().item()
            axis.set_title(
                f"truth: {OBJECT_CLASSES[truth]}\n"
                f"predicted: {OBJECT_CLASSES[best]}, {row[best]:.0%}",
                fontsize=8,
            )
        return figure
