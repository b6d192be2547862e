"""The one training loop of all tasks: seeded, resumable, and never done twice."""

import math
import time
from pathlib import Path

import torch
from torch import nn

from src import cifar10
from src.common.kept import Key, make_key, resume, save_progress
from src.common.machine import pick_device
from src.common.progress import LiveLog
from src.common.trained import Trained, keep_trained
from src.training import to_device
from src.vision_tasks.shared.encoder import start_weights
from src.vision_tasks.shared.task import Task, TaskRecipe
from src.vision_tasks.street.scenes import Scenes
from src.weights import SOURCES

#: Steps between two checkpoints, and two lines of the log.
ROUND = 50


def warm_up_and_cosine(recipe: TaskRecipe, step: int) -> float:
    """The rate of a step, counted from 0: linearly up, then down along a cosine."""
    warm_up = recipe.steps // 10
    if step < warm_up:
        return recipe.learning_rate * (step + 1) / warm_up
    part = (step - warm_up) / (recipe.steps - warm_up)
    return recipe.learning_rate * (1 + math.cos(math.pi * part)) / 2


def train_task(
    task: Task,
    scenes: Scenes,
    recipe: TaskRecipe,
    folder: Path,
    *,
    anew: bool = False,
    log: LiveLog | None = None,
) -> Trained:
    """Train a new model of `task` on `scenes`, or load what was trained before.

    scenes: those it learns from, as `task.training_scenes` gives them.
    folder: where the model is kept, and an unfinished training every `ROUND` steps;
        going on from there gives the same as without the interruption. anew: train even
        if the model is there. The history is the mean loss of each round.
    """
    log = log or LiveLog()
    torch.manual_seed(recipe.seed)
    model = task.build_model(pretrained=recipe.pretrained)
    model.to(pick_device(), memory_format=torch.channels_last)

    def train(partial: Path) -> tuple[list[float], float]:
        return fit(task, model, scenes, recipe, partial, log)

    key = task_key(task, scenes, recipe)
    trained = keep_trained(task.name, key, model, train, folder=folder, anew=anew)
    trained.model.cpu()
    return trained


def task_key(task: Task, scenes: Scenes, recipe: TaskRecipe) -> Key:
    """All that a training depends on."""
    start = {}
    if recipe.pretrained:
        start["pre-trained_weights"] = SOURCES["standin"].sha256
    return make_key(
        recipe=recipe,
        scenes=scenes,
        code=[task.build_model, task.prepare, task.loss, fit],
        without=(start_weights, cifar10.load, format_round),
        **start,
    )


def fit(
    task: Task,
    model: nn.Module,
    scenes: Scenes,
    recipe: TaskRecipe,
    partial: Path | None,
    log: LiveLog,
) -> tuple[list[float], float]:
    """Train a model in place; returns the mean loss of each round, and the seconds.

    Raises RuntimeError when a loss is not finite.
    """
    device = next(model.parameters()).device
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        parameters, recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    parts = {"model": model, "optimiser": optimiser}
    state = resume(partial, parts) if partial else {}
    losses, seconds = state.get("losses", []), state.get("seconds", 0.0)
    if losses:
        log.line(f"(resumed after {len(losses) * ROUND} steps)")

    model.train()
    for start in range(len(losses) * ROUND, recipe.steps, ROUND):
        started = time.perf_counter()
        end = min(start + ROUND, recipe.steps)
        # Seeded for each round, so that a resumed training draws the same batches.
        generator = torch.Generator().manual_seed(recipe.seed * 100_000 + start)
        torch.manual_seed(recipe.seed * 100_000 + start)  # for dropout
        total = 0.0
        for step in log.track(range(start, end), f"{task.name}: steps to {end}"):
            index = torch.randint(
                len(scenes), (recipe.batch_size,), generator=generator
            )
            batch = task.prepare(scenes[index], generator)
            for group in optimiser.param_groups:
                group["lr"] = warm_up_and_cosine(recipe, step)
            output = model(*(to_device(each, device) for each in batch.inputs))
            targets = tuple(to_device(each, device) for each in batch.targets)
            loss = task.loss(output, targets)
            if not loss.isfinite():
                raise RuntimeError(
                    f"{task.name}: the loss of step {step} is {loss.item()}; "
                    "lower the learning rate"
                )
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, max_norm=5.0)
            optimiser.step()
            total += loss.item()
        losses = [*losses, total / (end - start)]
        seconds += time.perf_counter() - started
        log.line(format_round(task, f"{end:5d}/{recipe.steps}", losses[-1], seconds))
        if partial:
            save_progress(partial, parts, losses=losses, seconds=seconds)
    return losses, seconds


def format_round(task: Task, steps: str, loss: float, seconds: float) -> str:
    """The line of the log about a round."""
    return f"{task.name:22} step {steps}   loss {loss:8.4f}   {seconds:6.1f} s"
