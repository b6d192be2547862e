"""What every task of the guide is: a model, a loss, a metric, a baseline, a figure."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from matplotlib.figure import Figure
from torch import Generator, Tensor, nn

from src.common.project import SEED
from src.vision_tasks.street.scenes import Scenes


@dataclass(frozen=True)
class TaskRecipe:
    """All that decides how a task is trained, but for its data.

    steps: batches, each a step of AdamW (Loshchilov and Hutter, 2017,
        https://arxiv.org/abs/1711.05101) on one cycle of the learning rate, which rises
        linearly to its peak in the first tenth and falls to zero along a cosine.
    pretrained: start the encoder from the project's pre-trained ResNet-18.
    """

    steps: int = 400
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    pretrained: bool = True
    seed: int = SEED


@dataclass(frozen=True)
class Batch:
    """A batch made ready: what the model is called with, and what its loss compares."""

    inputs: tuple[Tensor, ...]
    targets: tuple[Tensor, ...]


class Task(ABC):
    """One task of computer vision. Stateless: all that is learned is in the model."""

    #: As in `TASKS`, e.g. "object_detection".
    name: ClassVar[str]
    #: For people, in English and in Hebrew.
    title: ClassVar[str]
    hebrew: ClassVar[str]
    #: The headline metric, a key of what `measure` returns, e.g. "mIoU".
    metric: ClassVar[str]
    #: The baseline that the model is compared with, in a few words, e.g. "zero flow".
    baseline_name: ClassVar[str]
    higher_is_better: ClassVar[bool] = True
    recipe: ClassVar[TaskRecipe] = TaskRecipe()
    #: The held-out scenes it is measured on, a split of `load_scenes`.
    test_split: ClassVar[str] = "test"

    @abstractmethod
    def build_model(self, *, pretrained: bool = False) -> nn.Module:
        """The model, with random weights or the pre-trained encoder's."""

    @abstractmethod
    def example_inputs(self, batch: int = 2) -> tuple[Tensor, ...]:
        """Random inputs for `model(*inputs)`, images as [batch, 3, 224, 224]."""

    @abstractmethod
    def prepare(self, scenes: Scenes, generator: Generator | None = None) -> Batch:
        """A batch from some scenes; augmented at random if given a generator."""

    @abstractmethod
    def loss(self, output: Any, targets: tuple[Tensor, ...]) -> Tensor:
        """The mean loss of a batch, a scalar. output: what the model returned."""

    @abstractmethod
    def measure(self, model: nn.Module, scenes: Scenes) -> dict[str, float]:
        """Every metric of a model in eval mode on some scenes; `metric` among them."""

    @abstractmethod
    def baselines(self, train: Scenes, test: Scenes) -> dict[str, dict[str, float]]:
        """The metrics on `test` of trivial predictions, fitted on `train`.

        By the name of the baseline, `baseline_name`'s among them.
        """

    def baseline(self, train: Scenes, test: Scenes) -> float:
        """The headline metric of the baseline that the model is compared with."""
        return self.baselines(train, test)[self.baseline_name][self.metric]

    @abstractmethod
    def figure(self, model: nn.Module, scenes: Scenes) -> Figure:
        """Input, truth and prediction for some of the scenes."""

    def training_scenes(self, scenes: Scenes) -> Scenes:
        """Those of the training scenes that this task learns from; all by default."""
        return scenes


def mirror_half(generator: Generator, *images: Tensor) -> tuple[Tensor, ...]:
    """Mirror a random half of a batch; images [B, ..., W], every tensor alike."""
    mirrored = torch.rand(len(images[0]), generator=generator) < 0.5
    return tuple(
        torch.where(mirrored.view(-1, *[1] * (image.ndim - 1)), image.flip(-1), image)
        for image in images
    )


@torch.no_grad()
def infer(task: Task, model: nn.Module, scenes: Scenes, batch_size: int = 50) -> Any:
    """What a model in eval mode returns for all scenes, computed in batches.

    A tensor, or a NamedTuple of tensors, as the model's own.
    """
    outputs = []
    for start in range(0, len(scenes), batch_size):
        batch = task.prepare(scenes[start : start + batch_size])
        outputs.append(model(*batch.inputs))
    if isinstance(outputs[0], Tensor):
        return torch.cat(outputs)
    return type(outputs[0])(*map(torch.cat, zip(*outputs, strict=True)))
