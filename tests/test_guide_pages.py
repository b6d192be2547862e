"""The guide's pages: results recorded and shown, code quoted, nothing else changed."""

import dataclasses
import inspect
import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from src.common.project import ROOT
from src.vision_tasks import TASKS
from src.vision_tasks.pages import guide
from src.vision_tasks.tasks import classification

PAGES = ROOT / "answers/vision_tasks"
NAMES = tuple(TASKS)
RESULT = guide.Result(
    metric="accuracy",
    value=0.91234,
    baseline=0.4,
    baseline_name="a guess",
    higher_is_better=True,
    seconds=90.0,
    seed=7,
    measures={"accuracy": 0.91234, "error (m)": 31.41},
    baselines={"a guess": {"accuracy": 0.4, "error (m)": 512.3}, "zero": {"x": 1.0}},
    losses=[1.0, 0.5],
    parameters=1_234_567,
    recipe={
        "steps": 1200,
        "batch_size": 32,
        "learning_rate": 0.001,
        "pretrained": True,
    },
    training_scenes=4000,
    test_scenes=1600,
    provenance={"device": "CPU (x86_64, 2 threads)"},
)

RECORD = dataclasses.asdict(RESULT)


@pytest.fixture
def folder(tmp_path):
    """A project with a page of one task, the guide's README, and its own."""
    (tmp_path / "answers/vision_tasks").mkdir(parents=True)

    def put(name: str, text: str) -> None:
        (tmp_path / name).write_text(text, encoding="utf-8")

    block = "<!-- results -->\nold\n<!-- /results -->\n"
    code = "<!-- code: Classifier, Classification -->\nold\n<!-- /code -->\n"
    put("answers/vision_tasks/classification.md", f"before\n{block}{code}after\n")
    put("answers/vision_tasks/README.md", f"before\n{block}after\n")
    put("README.md", f"{block}<!-- vision -->\nold\n<!-- /vision -->\n")
    return tmp_path


def read(folder, name: str) -> str:
    return (folder / name).read_text(encoding="utf-8")


def record(folder, **results: guide.Result) -> None:
    for name, result in results.items():
        path = folder / "answers/vision_tasks/results.json"
        guide.record_task(name, result, path)


# Results ---------------------------------------------------------------------------


def test_numbers_have_three_digits():
    shown = [guide.number(value) for value in (0.91234, 3.14159, 31.41, 512.3, 0.05)]
    assert shown == ["0.912", "3.14", "31.4", "512", "0.0500"]


def test_a_record_of_another_version_is_left_out(tmp_path):
    path = tmp_path / "results.json"
    path.write_text('{"classification": {"metric": "accuracy", "value": 0.9}}')
    assert guide.read_guide_results(path) == {}
    assert guide.read_guide_results(tmp_path / "missing.json") == {}
    more = RECORD | {"more": 1}
    path.write_text(json.dumps({"classification": more, "telepathy": RECORD}))
    assert guide.read_guide_results(path) == {}


def test_results_are_kept_in_the_order_of_the_tasks(tmp_path):
    path = tmp_path / "results.json"
    other = dataclasses.replace(RESULT, baseline_name="ניחוש")
    guide.record_task("depth_estimation", RESULT, path)
    guide.record_task("classification", RESULT, path)
    assert list(json.loads(path.read_text())) == ["classification", "depth_estimation"]
    guide.record_task("depth_estimation", other, path)
    recorded = guide.read_guide_results(path)
    assert recorded == {"classification": RESULT, "depth_estimation": other}
    text = path.read_text("utf-8")
    assert "ניחוש" in text and "\n  " in text and text.endswith("}\n")
    broken = dataclasses.replace(RESULT, value=float("nan"))
    with pytest.raises(ValueError, match="not JSON compliant"):
        guide.record_task("classification", broken, path)


def test_a_line_for_the_terminal():
    assert guide.summary("it", RESULT) == "it: accuracy 0.912, a guess 0.400, 90 s"


# Blocks ----------------------------------------------------------------------------


def test_a_tasks_page(folder):
    record(folder, classification=RESULT)
    guide.update_pages(folder)
    code = "\n\n".join(
        inspect.getsource(one)
        for one in (classification.Classifier, classification.Classification)
    )
    assert read(folder, "answers/vision_tasks/classification.md") == (
        "before\n<!-- results -->\n"
        "![Image classification: input, truth and prediction]"
        "(figures/classification.png)\n\n"
        "**accuracy: 0.912**, against 0.400 for the baseline (a guess); higher is "
        "better. Measured on 1,600 held-out scenes.\n\n"
        "| measured | ours | a guess | zero |\n|:--|--:|--:|--:|\n"
        "| accuracy | 0.912 | 0.400 | – |\n| error (m) | 31.4 | 512 | – |\n\n"
        "Trained on 4,000 scenes: 1,200 steps of 32, peak learning rate 0.001, "
        "pre-trained start, seed 7; 1,234,567 parameters; 90 s with the evaluation "
        "(CPU (x86_64, 2 threads)).\n"
        "<!-- /results -->\n"
        f"<!-- code: Classifier, Classification -->\n```python\n{code}```\n"
        "<!-- /code -->\nafter\n"
    )
    other = dataclasses.replace(
        RESULT, higher_is_better=False, recipe=RESULT.recipe | {"pretrained": False}
    )
    record(folder, classification=other)
    guide.update_pages(folder)
    text = read(folder, "answers/vision_tasks/classification.md")
    assert "; lower is better." in text and ", random start," in text


def test_a_task_without_a_result_keeps_its_text_and_gets_its_code(folder):
    guide.update_pages(folder)
    text = read(folder, "answers/vision_tasks/classification.md")
    assert "<!-- results -->\nold\n<!-- /results -->" in text
    assert "class Classifier(nn.Module)" in text


def test_code_that_is_not_there_is_named(folder):
    (folder / "answers/vision_tasks/classification.md").write_text(
        "<!-- code: Classifier, Nobody -->\n<!-- /code -->\n"
    )
    with pytest.raises(AttributeError, match=r"classification' has no .* 'Nobody'"):
        guide.update_pages(folder)


HEADER = "| | task | metric | ours | baseline | |\n|--:|:--|:--|--:|--:|:--|\n"
ROWS = (
    "| 1 | [Image classification]({}classification.md) | accuracy ↑ | 0.912 | 0.400 "
    "| a guess |\n"
    "| 5 | [Depth estimation]({}depth_estimation.md) | accuracy ↓ | 3.00 | 0.400 "
    "| a guess |\n"
)
ENDING = (
    "\n↑: higher is better; ↓: lower. On scenes that no model was trained on. All "
    "trainings and evaluations together took 5 minutes{}.\n"
)


@pytest.mark.parametrize(
    ("device", "more"),
    [
        ("CPU (x86_64, 2 threads)", ""),
        ("CPU (x86_64, 11 threads)", ""),
        ("CPU (x86_64, 1 threads)", ", 3 of them on one core only"),
    ],
)
def test_the_table_of_all_tasks(folder, device, more):
    depth = dataclasses.replace(
        RESULT,
        value=3.0,
        higher_is_better=False,
        seconds=200.0,
        provenance={"device": device},
    )
    record(folder, depth_estimation=depth, classification=RESULT)
    changed = guide.outdated(folder)
    assert (
        set(guide.update_pages(folder))
        == set(changed)
        == {
            "answers/vision_tasks/classification.md",
            "answers/vision_tasks/README.md",
            "README.md",
        }
    )
    table = HEADER + ROWS.format("", "") + ENDING.format(more)
    assert read(folder, "answers/vision_tasks/README.md") == (
        f"before\n<!-- results -->\n{table}<!-- /results -->\nafter\n"
    )
    where = "answers/vision_tasks/"
    table = HEADER + ROWS.format(where, where) + ENDING.format(more)
    assert read(folder, "README.md") == (
        "<!-- results -->\nold\n<!-- /results -->\n"
        f"<!-- vision -->\n{table}<!-- /vision -->\n"
    )
    assert guide.update_pages(folder) == [] and guide.outdated(folder) == {}


def test_without_results_the_table_is_empty(folder):
    guide.update_pages(folder)
    text = read(folder, "answers/vision_tasks/README.md")
    assert text == "before\n<!-- results -->\n<!-- /results -->\nafter\n"


@pytest.mark.slow
def test_pages_are_written_without_training(tmp_path):
    """`python3 -m src vision --pages`, as a user types it, in a copy."""
    ignore = shutil.ignore_patterns("__pycache__", "figures")
    for name in ("src", "answers/vision_tasks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)
    (tmp_path / "tests").mkdir()  # without them the guide is no command
    for name in ("README.md", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path)
    path = tmp_path / "answers/vision_tasks/results.json"
    record(tmp_path, depth_estimation=dataclasses.replace(RESULT, value=0.777))
    results = path.read_bytes()
    command = [sys.executable, "-m", "src", "vision", "--pages"]
    options = {"cwd": tmp_path, "capture_output": True, "encoding": "utf-8"}
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, env=environment, **options)
    assert done.returncode == 0, done.stderr
    pages = ["depth_estimation.md", "README.md", "README.md"]
    folders = ["answers/vision_tasks/"] * 2 + [""]
    assert done.stdout.splitlines() == [
        f"{folder}{page} brought up to date"
        for folder, page in zip(folders, pages, strict=True)
    ]
    for folder, page in zip(folders, pages, strict=True):
        assert "0.777" in read(tmp_path, folder + page)
    assert path.read_bytes() == results
    assert not (tmp_path / "data").exists()  # nothing was drawn, loaded or trained


# What is committed -----------------------------------------------------------------


def test_the_pages_agree_with_results_and_code():
    assert guide.outdated(ROOT) == {}, "run `python3 -m src vision --pages`"


@pytest.mark.parametrize("name", NAMES)
def test_a_page_has_all_its_parts(name):
    text = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    title = text.splitlines()[0]
    assert title.startswith(f"# {NAMES.index(name) + 1}. ")
    assert TASKS[name].hebrew in title
    assert f"figures/{name}.png" in text
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    wanted = ["What it is", "The model", "The loss", "The metric", "Landmark models"]
    for part in wanted:
        assert any(heading.startswith(part) for heading in headings), part
    questions = text.split("## Questions an interviewer asks")[1]
    answers = re.split(r"^### .+$", questions, flags=re.MULTILINE)[1:]
    assert len(answers) >= 8
    assert all(len(answer.split()) > 25 for answer in answers)
    assert text.count("```python") >= 1
    assert text.count("arxiv.org") + text.count("doi.org") >= 4


def test_links_and_figures_of_the_pages_exist():
    for page in PAGES.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", text):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("name", NAMES)
def test_results_are_those_of_the_task_as_it_is(name):
    result = guide.read_guide_results()[name]
    task = TASKS[name]
    assert result.metric == task.metric
    assert result.value == result.measures[task.metric]
    assert result.baseline == result.baselines[task.baseline_name][task.metric]
    assert result.recipe == dataclasses.asdict(task.recipe)
