"""Trajectory prediction: where will each road user be in the next seconds?

The past does not decide the future: who slows down may stop or turn. So the model gives
several futures with probabilities, and is trained such that one of them comes true
(multiple choice learning, as in Cui et al., 2018, https://arxiv.org/abs/1809.10732).
"""

from typing import ClassVar, NamedTuple

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy

from src.plots import BLUE, ORANGE, use_style
from src.vision_tasks.shared.task import Batch, Task, TaskRecipe, infer
from src.vision_tasks.street.scenes import Scenes
from src.vision_tasks.street.vocabulary import FUTURE_STEPS, OBJECT_CLASSES, PAST_STEPS

#: How many futures are offered.
MODES = 6
#: A prediction misses if no future ends within so many metres of the true end.
MISS = 2.0
#: Metres that count as 1 for the network, for moves and for distances.
MOVE, DISTANCE = 2.0, 10.0
#: Who moved no more, in metres in the last two steps, stands: noise is no heading.
STANDS = 0.3
#: Part of the training's batches in which only the last steps of the past are seen.
SHORT = 0.25
#: A track is drawn in the figure if it goes farther than this, in metres.
FIGURE_LENGTH = 4.0


class Futures(NamedTuple):
    """K possible futures of each of B tracks, and how likely each is."""

    futures: Tensor  # [B, K, T, 2]: positions in metres, in the frame of the tracks
    logits: Tensor  # [B, K]: their softmax is the probabilities


class TrajectoryPredictor(nn.Module):
    """A GRU reads the past; a small network writes all futures at once.

    forward: tracks [B, T0, 2], positions in metres, the present last, T0 >= 2, to
    `Futures` of K x T steps.
    Both networks see each track from its own end and along its own heading, so a
    moving track that is shifted and turned has its futures shifted and turned alike.
    Raises ValueError for other shapes, no tracks at all, or positions not finite.
    """

    def __init__(
        self, modes: int = MODES, steps: int = FUTURE_STEPS, width: int = 128
    ) -> None:
        super().__init__()
        self.modes, self.steps = modes, steps
        self.read = nn.GRU(4, width, batch_first=True)
        self.write = nn.Sequential(
            nn.Linear(width, 2 * width),
            nn.ReLU(),
            nn.Linear(2 * width, 2 * width),
            nn.ReLU(),
            nn.Linear(2 * width, modes * (steps * 2 + 1)),
        )

    def forward(self, tracks: Tensor) -> Futures:
        check_tracks(tracks)
        present = tracks[:, -1:]  # [B, 1, 2]
        turn = to_heading(tracks)  # [B, 2, 2]
        own = (tracks - present) @ turn  # [B, T0, 2]: (right, ahead) of itself
        seen = torch.cat([own.diff(dim=1) / MOVE, own[:, :-1] / DISTANCE], dim=2)
        states, _ = self.read(seen)  # [B, T0 - 1, 4] to [B, T0 - 1, 128]
        written = self.write(states[:, -1])  # [B, K * T * 2 + K]
        changes, logits = written.tensor_split([-self.modes], dim=1)
        changes = changes.view(-1, self.modes, self.steps, 2) * MOVE  # [B, K, T, 2]
        # What is written changes the steps of the simplest guess, that it goes on so.
        straight = constant_velocity(tracks, self.steps).unsqueeze(1)  # [B, 1, T, 2]
        futures = straight + changes.cumsum(2) @ turn.mT.unsqueeze(1)  # [B, K, T, 2]
        return Futures(futures, logits)


def to_heading(tracks: Tensor) -> Tensor:
    """[B, 2, 2]: matrices that turn row vectors (X, Z) into (right, ahead).

    Ahead is where the last two steps, or the only one, went; for who stands, Z.
    """
    moved = tracks[:, -1] - tracks[:, -3:][:, 0]  # [B, 2]
    length = moved.norm(dim=1, keepdim=True)
    ahead = torch.where(
        length > STANDS, moved / length.clamp(min=STANDS), moved.new_tensor([0.0, 1.0])
    )
    right = torch.stack([ahead[:, 1], -ahead[:, 0]], dim=1)
    return torch.stack([right, ahead], dim=2)


def check_tracks(tracks: Tensor) -> None:
    """Raise ValueError unless `tracks` is [B >= 1, T0 >= 2, 2] and finite."""
    shape = list(tracks.shape)
    if tracks.ndim != 3 or shape[2] != 2:
        raise ValueError(f"expected tracks [B, T0, 2], got {shape}")
    if shape[0] == 0:
        raise ValueError(f"no tracks, {shape}: give at least one")
    if shape[1] < 2:
        raise ValueError(
            f"a track of {shape[1]} steps shows no motion: give at least 2"
        )
    if not tracks.isfinite().all():
        raise ValueError("tracks have nan or inf: drop or fill in what was not seen")


def constant_velocity(tracks: Tensor, steps: int = FUTURE_STEPS) -> Tensor:
    """Tracks [B, T0, 2] go on as in their last step: futures [B, steps, 2]."""
    check_tracks(tracks)
    ahead = torch.arange(1, steps + 1, device=tracks.device).view(1, -1, 1)
    return tracks[:, -1:] + ahead * (tracks[:, -1:] - tracks[:, -2:-1])


def displacements(futures: Tensor, truth: Tensor) -> Tensor:
    """[B, K, T]: distances, in metres, of futures [B, K, T, 2] from truth [B, T, 2]."""
    return torch.linalg.vector_norm(futures - truth.unsqueeze(1), dim=-1)


def min_ade(futures: Tensor, truth: Tensor) -> float:
    """Mean over tracks of the smallest average displacement error among K futures."""
    return displacements(futures, truth).mean(2).amin(1).mean().item()


def min_fde(futures: Tensor, truth: Tensor) -> float:
    """Mean over tracks of the smallest displacement error at the last step."""
    return displacements(futures, truth)[:, :, -1].amin(1).mean().item()


def miss_rate(futures: Tensor, truth: Tensor) -> float:
    """Part of the tracks where no future ends within MISS metres of the true end."""
    nearest = displacements(futures, truth)[:, :, -1].amin(1)
    return (nearest > MISS).float().mean().item()


def trajectory_metrics(
    futures: Tensor, likeliest: Tensor, truth: Tensor
) -> dict[str, float]:
    """Every metric: of futures [B, K, T, 2], of the likeliest ones [B, 1, T, 2]."""
    return {
        f"minADE of {MODES} futures (m)": min_ade(futures, truth),
        f"minFDE of {MODES} futures (m)": min_fde(futures, truth),
        f"miss rate of {MODES} futures": miss_rate(futures, truth),
        "ADE of the most probable future (K = 1, m)": min_ade(likeliest, truth),
        "FDE of the most probable future (K = 1, m)": min_fde(likeliest, truth),
    }


class TrajectoryPrediction(Task):
    name = "trajectory_prediction"
    title = "Trajectory prediction"
    hebrew = "חיזוי מסלולים"
    metric = f"minADE of {MODES} futures (m)"
    baseline_name = "constant velocity"
    higher_is_better = False
    recipe: ClassVar[TaskRecipe] = TaskRecipe(
        steps=1500, batch_size=128, learning_rate=5e-3, pretrained=False
    )

    def build_model(self, *, pretrained: bool = False) -> TrajectoryPredictor:
        """pretrained: of no effect, there is no image and no encoder here."""
        return TrajectoryPredictor()

    def example_inputs(self, batch: int = 2) -> tuple[Tensor, ...]:
        return (torch.randn(batch, PAST_STEPS, 2).cumsum(1),)

    def prepare(self, scenes: Scenes, generator: Generator | None = None) -> Batch:
        """Here the batch is of tracks: those of all labelled objects of the scenes."""
        labelled = scenes.labels >= 0  # [N, M]
        past, future = scenes.past[labelled], scenes.future[labelled]
        if generator and torch.rand((), generator=generator) < SHORT:
            first = torch.randint(1, PAST_STEPS - 1, (), generator=generator)
            past = past[:, first:]  # so that short tracks are no surprise either
        return Batch((past,), (future,))

    def loss(self, output: Futures, targets: tuple[Tensor, ...]) -> Tensor:
        errors = displacements(output.futures, targets[0]).mean(2)  # [B, K]
        nearest, winner = errors.min(dim=1)
        return nearest.mean() + cross_entropy(output.logits, winner)

    def measure(self, model: nn.Module, scenes: Scenes) -> dict[str, float]:
        output = infer(self, model, scenes)
        (truth,) = self.prepare(scenes).targets
        likeliest = output.logits.argmax(1)
        single = output.futures[torch.arange(len(truth)), likeliest].unsqueeze(1)
        return trajectory_metrics(output.futures, single, truth)

    def baselines(self, train: Scenes, test: Scenes) -> dict[str, dict[str, float]]:
        """Of a single future, which is the best of K and the most probable one."""
        batch = self.prepare(test)
        straight = constant_velocity(*batch.inputs).unsqueeze(1)
        return {
            self.baseline_name: trajectory_metrics(straight, straight, *batch.targets)
        }

    def figure(self, model: nn.Module, scenes: Scenes) -> Figure:
        """Six tracks seen from above, one of each class first, of those that move."""
        batch = self.prepare(scenes)
        past, truth = batch.inputs[0], batch.targets[0]
        labels = scenes.labels[scenes.labels >= 0]
        moves = (truth[:, -1] - past[:, 0]).norm(dim=1) > FIGURE_LENGTH
        order = [
            index
            for turn in range(2)
            for label in range(len(OBJECT_CLASSES))
            for index in (moves & (labels == label)).nonzero()[turn : turn + 1, 0]
        ]
        output = infer(self, model, scenes)
        use_style()
        figure, axes = plt.subplots(2, 3, figsize=(9, 6.6))
        for axis, index in zip(axes.flat, order, strict=False):
            chances = output.logits[index].softmax(0)
            show_track(axis, past[index], truth[index], output.futures[index], chances)
            axis.set_title(
                f"{OBJECT_CLASSES[labels[index]]}; likeliest: {chances.max():.0%}",
                fontsize=9,
            )
        for axis in axes[:, 0]:
            axis.set_ylabel("metres ahead of the camera", fontsize=8)
        for axis in axes[-1]:
            axis.set_xlabel("metres to the right", fontsize=8)
        axes[0, 0].legend(fontsize=7, loc="best")
        return figure


def show_track(
    axis: Axes, past: Tensor, truth: Tensor, futures: Tensor, chances: Tensor
) -> None:
    """One track from above: [T0, 2], [T, 2], K futures [K, T, 2], probabilities [K].

    The likelier a future, the thicker and darker its line.
    """
    present = past[-1:]
    for future, chance in sorted(
        zip(futures, chances.tolist(), strict=True), key=lambda pair: pair[1]
    ):
        axis.plot(
            *torch.cat([present, future]).T,
            "-",
            color=ORANGE,
            linewidth=1 + 5 * chance,
            alpha=min(1.0, 0.3 + chance),
            label="predicted" if chance == chances.max() else None,
        )
    axis.plot(*torch.cat([present, truth]).T, "--", color=BLUE, label="true future")
    axis.plot(*past.T, "o-", color="black", markersize=3, label="past")
    axis.set_aspect("equal", adjustable="datalim")
    axis.tick_params(labelsize=7)
