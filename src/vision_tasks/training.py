"""The one training loop of all tasks: seeded, resumable, and never done twice."""

import ast
import dataclasses
import hashlib
import inspect
import json
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from src.checkpoints import read_checkpoint, write_checkpoint
from src.machine import pick_device, provenance
from src.progress import LiveLog
from src.vision_tasks.scenes import Scenes
from src.vision_tasks.task import Recipe, Task

#: Steps between two checkpoints, and two lines of the log.
ROUND = 50
#: Methods of a task that have no say in its training.
AFTERWARDS = ("measure", "baselines", "figure")


@dataclass(frozen=True)
class Trained:
    """A trained model in eval mode on the CPU, and how long training took."""

    model: nn.Module
    losses: list[float]  # the mean loss of each round of `ROUND` steps
    seconds: float
    provenance: dict[str, str]  # versions, device and date of the training


def learning_rate(recipe: Recipe, step: int) -> float:
    """The rate of a step, counted from 0: linearly up, then down along a cosine."""
    warm_up = max(1, recipe.steps // 10)
    if step < warm_up:
        return recipe.learning_rate * (step + 1) / warm_up
    part = (step - warm_up) / max(1, recipe.steps - warm_up)
    return recipe.learning_rate * (1 + math.cos(math.pi * part)) / 2


def train(
    task: Task,
    scenes: Scenes,
    recipe: Recipe,
    checkpoint: Path | None = None,
    log: LiveLog | None = None,
) -> Trained:
    """Train a new model of `task` on `scenes`.

    checkpoint: where the state is kept every `ROUND` steps. One that belongs to the
        same code, recipe and data is gone on from, or, if finished, simply loaded; what
        results is the same as without the interruption.
    """
    log = log or LiveLog()
    device = pick_device()
    scenes = task.training_scenes(scenes)
    torch.manual_seed(recipe.seed)
    model = task.build_model(pretrained=recipe.pretrained)
    model.to(device, memory_format=torch.channels_last).train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        parameters, recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    key = experiment_key(task, recipe, scenes)
    state = read_checkpoint(checkpoint) if checkpoint else {}
    if state and state.get("key") != key:
        log.line(f"({checkpoint.name} is of other code, recipe or data: trained anew)")
        state = {}
    if state:
        model.load_state_dict(state["model"])
        if state["optimiser"]:  # none is kept of a finished training
            optimiser.load_state_dict(state["optimiser"])
    losses = state.get("losses", [])
    seconds = state.get("seconds", 0.0)
    made_with = state["provenance"] if state else provenance(device)
    if 0 < state.get("step", 0) < recipe.steps:
        log.line(f"(resumed after {state['step']} steps)")

    for start in range(state.get("step", 0), recipe.steps, ROUND):
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
            example = task.prepare(scenes[index], generator)
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(recipe, step)
            output = model(*to_device(example.inputs, device))
            loss = task.loss(output, to_device(example.targets, device))
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
        log.line(
            f"{task.name:22} step {end:5d}/{recipe.steps}   loss {losses[-1]:8.4f}"
            f"   {seconds:6.1f} s"
        )
        if checkpoint:
            state = {
                "key": key,
                "step": end,
                "model": model.state_dict(),
                "optimiser": optimiser.state_dict() if end < recipe.steps else {},
                "losses": losses,
                "seconds": seconds,
                "provenance": made_with,
            }
            write_checkpoint(checkpoint, state)
    return Trained(model.cpu().eval(), losses, seconds, made_with)


def to_device(tensors: tuple[Tensor, ...], device: torch.device) -> tuple[Tensor, ...]:
    """The same tensors there; images channels last, as convolutions like them."""
    return tuple(
        tensor.to(device, memory_format=torch.channels_last)
        if tensor.ndim == 4
        else tensor.to(device)
        for tensor in tensors
    )


def experiment_key(task: Task, recipe: Recipe, scenes: Scenes) -> str:
    """Fingerprint of all that a training depends on: code, recipe, data, versions."""
    parts = [
        *map(code_of, modules_of(task)),
        json.dumps(dataclasses.asdict(recipe), sort_keys=True),
        str(len(scenes)),
        *(
            hashlib.sha256(part.contiguous().numpy()).hexdigest()
            for part in (scenes.images[:8], scenes.boxes, scenes.future)
        ),
        torch.__version__,
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def modules_of(task: Task) -> list[ModuleType]:
    """This module, the task's, and those of this package that it imports from.

    But for drawing.py: how a result is shown does not change it.
    """
    own = sys.modules[type(task).__module__]
    names = {getattr(value, "__module__", None) for value in vars(own).values()}
    ours = {name for name in names if name and name.startswith(f"{__package__}.")}
    ours = (ours | {own.__name__, __name__}) - {f"{__package__}.drawing"}
    return [sys.modules[name] for name in sorted(ours)]


def code_of(module: ModuleType) -> str:
    """What a module does, as text: its syntax without docstrings and comments.

    The methods that look at a trained model, `AFTERWARDS`, don't count either.
    """
    tree = ast.parse(inspect.getsource(module))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name in AFTERWARDS:
            node.body = []
        match getattr(node, "body", None):
            case [ast.Expr(value=ast.Constant(value=str())) as docstring, *_]:
                docstring.value.value = ""
    return ast.dump(tree)
