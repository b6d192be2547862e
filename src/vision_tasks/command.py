"""`python3 -m src vision`: train, evaluate and draw the tasks of the guide."""

import argparse
import copy
import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from torch import nn

from src.common.files import write_atomically
from src.common.project import CACHE
from src.vision_tasks import TASKS
from src.vision_tasks.pages import guide, overview
from src.vision_tasks.pages.guide import Result
from src.vision_tasks.shared.encoder import start_weights
from src.vision_tasks.shared.task import Task
from src.vision_tasks.shared.training import train_task
from src.vision_tasks.street.scenes import Scenes, load_scenes

#: Scenes and steps of `--fast`, which shows that everything works, not how well.
FAST_SCENES, FAST_SIZE, FAST_STEPS, FAST_BATCH = 24, 64, 3, 4


def main(args: list[str]) -> int:
    """Carry out the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python3 -m src vision",
        description="Train, evaluate and draw the tasks of the guide in "
        "answers/vision_tasks/, and bring its pages up to date.",
    )
    parser.add_argument(
        "--task",
        metavar="NAME",
        action="extend",
        type=lambda text: text.split(","),
        help=f"only these (comma-separated, or repeated): {', '.join(TASKS)}",
    )
    parser.add_argument(
        "--fast",
        action="store_true",
        help="try everything in a minute or two, on few and small scenes: nothing in "
        "answers/ changes",
    )
    parser.add_argument(
        "--retrain", action="store_true", help="train anew what was trained before"
    )
    parser.add_argument(
        "--pages",
        action="store_true",
        help="only bring the pages up to date with the recorded results",
    )
    options = parser.parse_args(args)
    names = list(dict.fromkeys(options.task or TASKS))
    if unknown := [name for name in names if name not in TASKS]:
        parser.error(
            f"no task is called {', '.join(map(repr, unknown))}; "
            f"there are {', '.join(TASKS)}"
        )
    if options.pages:
        return bring_pages_up_to_date()
    work = CACHE / "fast" / "vision" if options.fast else CACHE / "vision"
    folder = work if options.fast else guide.FOLDER
    scenes = functools.cache(
        functools.partial(
            load_scenes, count=FAST_SCENES, size=FAST_SIZE, workers=0, folder=work
        )
        if options.fast
        else load_scenes
    )
    start_weights()  # says which they are
    started = time.perf_counter()
    models = {}
    for name in names:
        task = shortened(TASKS[name]) if options.fast else TASKS[name]
        anew = options.retrain or options.fast
        result, models[name] = carry_out(task, scenes, work, anew)
        figure = task.figure(models[name], scenes(task.test_split))
        save_figure(figure, folder / "figures" / f"{name}.png")
        guide.record_task(name, result, folder / guide.RESULTS_NAME)
        print(guide.summary(name, result), flush=True)
    if set(models) == set(TASKS):
        scene = overview.choose(scenes("anomalies"))
        for which, figure in {
            "all_truths": overview.truths(scene),
            "all_predictions": overview.predictions(scene, models),
        }.items():
            save_figure(figure, folder / "figures" / f"{which}.png")
    minutes = (time.perf_counter() - started) / 60
    print(f"\n{minutes:.1f} minutes")
    if options.fast:
        print("A trial on few scenes: nothing in answers/ was changed.")
        return 0
    return bring_pages_up_to_date()


def bring_pages_up_to_date() -> int:
    """Write those pages anew that differ from what was recorded, and say which."""
    for page in guide.update_pages():
        print(f"{page} brought up to date")
    return 0


def carry_out(
    task: Task, scenes: Callable[[str], Scenes], folder: Path, anew: bool
) -> tuple[Result, nn.Module]:
    """Train a task, or load what was trained; measure it on its test scenes.

    scenes: of a split, by its name. folder: where trained models are kept. anew: train
    whatever is there. Returns the model too.
    """
    learning = task.training_scenes(scenes("train"))
    test = scenes(task.test_split)
    trained = train_task(task, learning, task.recipe, folder, anew=anew)
    started = time.perf_counter()
    measures = task.measure(trained.model, test)
    baselines = task.baselines(learning, test)
    result = Result(
        metric=task.metric,
        value=measures[task.metric],
        baseline=baselines[task.baseline_name][task.metric],
        baseline_name=task.baseline_name,
        higher_is_better=task.higher_is_better,
        seconds=round(trained.seconds + time.perf_counter() - started, 1),
        seed=task.recipe.seed,
        measures=measures,
        baselines=baselines,
        losses=trained.history,
        parameters=sum(p.numel() for p in trained.model.parameters()),
        recipe=dataclasses.asdict(task.recipe),
        training_scenes=len(learning),
        test_scenes=len(test),
        provenance=trained.provenance,
    )
    return result, trained.model


def shortened(task: Task) -> Task:
    """The same task with a training of a few steps."""
    short = copy.copy(task)
    short.recipe = dataclasses.replace(
        task.recipe, steps=FAST_STEPS, batch_size=FAST_BATCH
    )
    return short


def save_figure(figure: Figure, path: Path) -> None:
    """Keep a figure as PNG, whole or not at all, and close it."""
    write_atomically(path, lambda file: figure.savefig(file, format="png"))
    plt.close(figure)
