"""The guide's pages: prose by hand, and blocks filled in from results and code.

In a page of `answers/vision_tasks/`, what stands between

    <!-- results --> and <!-- /results -->         figure, metric, baseline of the task
    <!-- code: Name, Other --> and <!-- /code -->  the source of these

is written by `update_pages`; everything else is left as it is. So no figure is typed,
and the code that a reader sees is the code that was run.
"""

import dataclasses
import inspect
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from src.common.files import read_json, write_text
from src.common.project import ANSWERS, ROOT
from src.vision_tasks import TASKS

FOLDER = ANSWERS / "vision_tasks"
RESULTS_NAME = "results.json"

RESULTS_BLOCK = re.compile(
    r"(?<=<!-- results -->\n).*?(?=<!-- /results -->)", re.DOTALL
)
CODE_BLOCK = re.compile(r"(<!-- code: ([\w, ]+) -->\n).*?(<!-- /code -->)", re.DOTALL)
#: Of the project's own README.
VISION_BLOCK = re.compile(r"(?<=<!-- vision -->\n).*?(?=<!-- /vision -->)", re.DOTALL)


@dataclass(frozen=True)
class Result:
    """What was measured of one task on its held-out scenes."""

    metric: str  # the name of the headline metric
    value: float  # of the trained model
    baseline: float  # of `baseline_name`
    baseline_name: str
    higher_is_better: bool
    seconds: float  # of training and evaluation
    seed: int
    measures: dict[str, float]  # every metric, the headline's among them
    baselines: dict[str, dict[str, float]]  # the same metrics, by name of baseline
    losses: list[float]  # the mean loss of each round of training steps
    parameters: int
    recipe: dict[str, object]
    training_scenes: int
    test_scenes: int
    provenance: dict[str, str]  # versions, device, date


def read_guide_results(path: Path = FOLDER / RESULTS_NAME) -> dict[str, Result]:
    """The recorded results by the name of their task; those that were recorded.

    Records with other fields, of another version of this program, are left out.
    """
    recorded = read_json(path) or {}
    fields = {field.name for field in dataclasses.fields(Result)}
    return {
        name: Result(**recorded[name])
        for name in TASKS
        if set(recorded.get(name, ())) == fields
    }


def record_task(name: str, result: Result, path: Path = FOLDER / RESULTS_NAME) -> None:
    """Add one task's result to the file, or replace it there."""
    results = read_guide_results(path) | {name: result}
    ordered = {
        task: dataclasses.asdict(results[task]) for task in TASKS if task in results
    }
    text = json.dumps(ordered, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def summary(name: str, result: Result) -> str:
    """One line for the terminal."""
    return (
        f"{name}: {result.metric} {number(result.value)}, "
        f"{result.baseline_name} {number(result.baseline)}, {result.seconds:.0f} s"
    )


def number(value: float) -> str:
    """Three significant digits: 0.912, 3.14, 31.4, 512."""
    return f"{value:#.3g}".rstrip(".")


def cell(measures: dict[str, float], name: str) -> str:
    """A measure as text, "–" where it was not measured."""
    return number(measures[name]) if name in measures else "–"


def update_pages(root: Path = ROOT) -> list[str]:
    """Bring all pages up to date; return the paths of those that changed."""
    changed = outdated(root)
    for path, text in changed.items():
        write_text(root / path, text)
    return list(changed)


def outdated(root: Path = ROOT) -> dict[str, str]:
    """The up-to-date texts of the pages that differ from them, by their paths."""
    folder = root / FOLDER.relative_to(ROOT)
    results = read_guide_results(folder / RESULTS_NAME)
    pages = {
        folder / f"{name}.md": _page_filler(name, results.get(name)) for name in TASKS
    }
    pages[folder / "README.md"] = lambda text: RESULTS_BLOCK.sub(
        lambda _: _table(results), text
    )
    pages[root / "README.md"] = lambda text: VISION_BLOCK.sub(
        lambda _: _table(results, "answers/vision_tasks/"), text
    )
    changed = {}
    for path, fill in pages.items():
        if not path.is_file():
            continue
        old = path.read_text(encoding="utf-8")
        if (new := fill(old)) != old:
            changed[path.relative_to(root).as_posix()] = new
    return changed


def _page_filler(name: str, result: Result | None):
    """The function that fills in a task's page."""

    def fill(text: str) -> str:
        text = CODE_BLOCK.sub(lambda m: m[1] + _source(name, m[2]) + m[3], text)
        if result is None:
            return text
        return RESULTS_BLOCK.sub(lambda _: _results(name, result), text)

    return fill


def _source(name: str, wanted: str) -> str:
    """The code of the named objects of a task's module, fenced."""
    module = sys.modules[type(TASKS[name]).__module__]
    objects = [getattr(module, one.strip()) for one in wanted.split(",")]
    code = "\n\n".join(inspect.getsource(one) for one in objects)
    return f"```python\n{code}```\n"


def _results(name: str, result: Result) -> str:
    """A task's figure, and a table of what was measured."""
    task = TASKS[name]
    better = "higher" if result.higher_is_better else "lower"
    recipe = result.recipe
    columns = [result.measures, *result.baselines.values()]
    rows = [
        f"| {measure} | {' | '.join(cell(column, measure) for column in columns)} |"
        for measure in result.measures
    ]
    names = " | ".join(["ours", *result.baselines])
    start = "pre-trained" if recipe["pretrained"] else "random"
    return (
        f"![{task.title}: input, truth and prediction](figures/{name}.png)\n\n"
        f"**{result.metric}: {number(result.value)}**, against "
        f"{number(result.baseline)} for the baseline ({result.baseline_name}); "
        f"{better} is better. Measured on {result.test_scenes:,} held-out scenes.\n\n"
        f"| measured | {names} |\n|:--|{'--:|' * len(columns)}\n"
        + "\n".join(rows)
        + "\n\n"
        f"Trained on {result.training_scenes:,} scenes: {recipe['steps']:,} steps of "
        f"{recipe['batch_size']}, peak learning rate {recipe['learning_rate']:g}, "
        f"{start} start, seed {result.seed}; {result.parameters:,} parameters; "
        f"{result.seconds:.0f} s with the evaluation "
        f"({result.provenance['device']}).\n"
    )


def _table(results: dict[str, Result], folder: str = "") -> str:
    """All tasks with their metrics and baselines; links start with `folder`."""
    if not results:
        return ""
    lines = [
        "| | task | metric | ours | baseline | |",
        "|--:|:--|:--|--:|--:|:--|",
    ]
    for position, (name, task) in enumerate(TASKS.items(), start=1):
        if name not in results:
            continue
        result = results[name]
        arrow = "↑" if result.higher_is_better else "↓"
        lines.append(
            f"| {position} | [{task.title}]({folder}{name}.md) "
            f"| {result.metric} {arrow} | {number(result.value)} "
            f"| {number(result.baseline)} | {result.baseline_name} |"
        )
    minutes = sum(result.seconds for result in results.values()) / 60
    alone = sum(
        result.seconds / 60
        for result in results.values()
        if "1 threads" in result.provenance["device"]
    )
    cores = f", {alone:.0f} of them on one core only" if alone else ""
    return (
        "\n".join(lines) + "\n\n"
        "↑: higher is better; ↓: lower. On scenes that no model was trained on. All "
        f"trainings and evaluations together took {minutes:.0f} minutes{cores}.\n"
    )
