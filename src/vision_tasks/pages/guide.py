"""The guide's pages: prose by hand, and blocks filled in from results and code.

In a page of `answers/vision_tasks/`, what stands between

    <!-- results --> and <!-- /results -->         figure, metric, baseline of the task
    <!-- code: Name, Other --> and <!-- /code -->  the source of these

is written by `update_pages`; everything else is left as it is. So no figure is typed,
and the code that a reader sees is the code that was run. The project's own README has
a block `<!-- vision -->` for the table of all tasks.
"""

import dataclasses
import functools
import inspect
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Template

from src.common import pages
from src.common.files import write_text
from src.common.project import ANSWERS, ROOT
from src.vision_tasks import TASKS

FOLDER = ANSWERS / "vision_tasks"
RESULTS_NAME = "results.json"


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
    try:
        recorded = (
            json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        )
    except ValueError as error:
        print(f"{path.name} can't be read ({error}); what it held is measured anew")
        recorded = {}
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


def update_pages(root: Path = ROOT) -> list[str]:
    """Bring all pages up to date; return the paths of those that changed."""
    return pages.write_outdated(_texts(root), root)


def outdated(root: Path = ROOT) -> dict[str, str]:
    """The up-to-date texts of the pages that differ from them, by their paths."""
    return pages.outdated(_texts(root), root)


def _texts(root: Path) -> dict[str, str]:
    """The pages that there are in `root`, by their paths, with their blocks filled."""
    folder = FOLDER.relative_to(ROOT).as_posix()
    results = read_guide_results(root / folder / RESULTS_NAME)
    fillers = {
        f"{folder}/{name}.md": functools.partial(_task_page, name, results.get(name))
        for name in TASKS
    }
    fillers[f"{folder}/README.md"] = functools.partial(
        _overview, "results", results, ""
    )
    fillers["README.md"] = functools.partial(_overview, "vision", results, f"{folder}/")
    return {
        path: fill((root / path).read_text(encoding="utf-8"))
        for path, fill in fillers.items()
        if (root / path).is_file()
    }


def _task_page(name: str, result: Result | None, text: str) -> str:
    """A task's page with its code and, if it was measured, its results."""
    text = pages.fill_block(text, "code", lambda wanted: _source(name, wanted))
    if result is None:
        return text
    filled = _template("task_results.md").render(task=TASKS[name], result=result)
    return pages.fill_block(text, "results", lambda _: filled)


def _source(name: str, wanted: str) -> str:
    """The code of the named objects of a task's module, fenced."""
    module = sys.modules[type(TASKS[name]).__module__]
    objects = [getattr(module, one.strip()) for one in wanted.split(",")]
    code = "\n\n".join(inspect.getsource(one) for one in objects)
    return f"```python\n{code}```\n"


def _overview(block: str, results: dict[str, Result], folder: str, text: str) -> str:
    """A page with the table of all tasks in a block; links start with `folder`."""
    table = _template("tasks_table.md")
    filled = table.render(tasks=TASKS, results=results, folder=folder)
    return pages.fill_block(text, block, lambda _: filled if results else "")


def _template(name: str) -> Template:
    """One that lies beside this module."""
    templates = pages.templates(Path(__file__).parent)
    templates.filters["number"] = number
    return templates.get_template(name)
