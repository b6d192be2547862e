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

from src import machine
from src.checkpoints import read_checkpoint
from src.files import write_atomically
from src.progress import LiveLog
from src.project import CACHE
from src.vision_tasks import TASKS, guide, overview
from src.vision_tasks.guide import Result
from src.vision_tasks.scenes import Scenes, load_scenes
from src.vision_tasks.task import Task
from src.vision_tasks.training import train
from src.weights import load_pretrained

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
    options = parser.parse_args(args)
    names = options.task or list(TASKS)
    if unknown := [name for name in names if name not in TASKS]:
        parser.error(
            f"no task is called {', '.join(map(repr, unknown))}; "
            f"there are {', '.join(TASKS)}"
        )
    work = CACHE / "fast" / "vision" if options.fast else CACHE / "vision"
    folder = work if options.fast else guide.FOLDER
    scenes = functools.cache(
        functools.partial(
            load_scenes, count=FAST_SCENES, size=FAST_SIZE, workers=0, folder=work
        )
        if options.fast
        else load_scenes
    )
    results_path = folder / guide.RESULTS_NAME
    load_pretrained(allow_download=False)  # says which weights the encoders start from
    started = time.perf_counter()
    for name in dict.fromkeys(names):
        task = TASKS[name]
        if options.fast:
            task = shortened(task)
        checkpoint = work / f"{name}.pt"
        if options.retrain or options.fast:
            checkpoint.unlink(missing_ok=True)
        result, figure = carry_out(task, scenes, checkpoint)
        save(figure, folder / "figures" / f"{name}.png")
        guide.record(name, result, results_path)
        print(guide.summary(name, result), flush=True)
    draw_overview(work, folder, scenes)
    minutes = (time.perf_counter() - started) / 60
    print(f"\n{minutes:.1f} minutes, {machine.peak_memory():.1f} GiB at most")
    if options.fast:
        print("A trial on few scenes: nothing in answers/ was changed.")
        return 0
    for page in guide.write():
        print(f"{page} brought up to date")
    return 0


def carry_out(
    task: Task, scenes: Callable[[str], Scenes], checkpoint: Path
) -> tuple[Result, Figure]:
    """Train a task, or load what was trained; measure it on its test scenes; draw it.

    scenes: of a split, by its name.
    """
    learning, test = scenes("train"), scenes(task.test_split)
    trained = train(task, learning, task.recipe, checkpoint, LiveLog())
    started = time.perf_counter()
    measures = task.measure(trained.model, test)
    baselines = task.baselines(task.training_scenes(learning), test)
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
        losses=trained.losses,
        parameters=sum(p.numel() for p in trained.model.parameters()),
        recipe=dataclasses.asdict(task.recipe),
        training_scenes=len(learning),
        test_scenes=len(test),
        provenance=trained.provenance,
    )
    return result, task.figure(trained.model, test)


def shortened(task: Task) -> Task:
    """The same task with a training of a few steps."""
    short = copy.copy(task)
    short.recipe = dataclasses.replace(
        task.recipe, steps=FAST_STEPS, batch_size=FAST_BATCH
    )
    return short


def draw_overview(work: Path, folder: Path, scenes: Callable[[str], Scenes]) -> None:
    """One scene with all truths, and with all predictions, once all are trained."""
    models = {}
    for name, task in TASKS.items():
        state = read_checkpoint(work / f"{name}.pt")
        if not state:
            return
        model = task.build_model()
        model.load_state_dict(state["model"])
        models[name] = model.eval()
    scene = overview.choose(scenes("anomalies"))
    save(overview.truths(scene), folder / "figures" / "all_truths.png")
    save(
        overview.predictions(scene, models), folder / "figures" / "all_predictions.png"
    )


def save(figure: Figure, path: Path) -> None:
    """Keep a figure as PNG, whole or not at all, and close it."""
    write_atomically(path, lambda file: figure.savefig(file, format="png"))
    plt.close(figure)
