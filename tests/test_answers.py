"""The written answers: filled from results.json, alike in both languages, true."""

import copy
import itertools
import json
import re

import jinja2
import pytest

from src.commands import answers
from src.common import pages
from src.common.project import ROOT
from src.common.results import read_results

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse"]
CLASSES += ["ship", "truck"]

PAIRS = [
    (page, page.replace(".md", ".he.md"))
    for page in answers.PAGES
    if not page.endswith(".he.md")
]
TEMPLATE_NAMES = (*answers.PAGES, answers.README_TEMPLATE)

#: Made up, of the shape that the notebooks record.
FIGURES = {
    "provenance": {
        "cifar10": "CIFAR-10, made up",
        "weights": "resnet18_imagenet_compressed",
        "torch": "2.0.0",
        "torchvision": "0.1.0",
        "python": "3.11.0",
        "device": "CPU (made up)",
        "date": "2001-01-01",
    },
    "weights_top1": 0.6581,
    "dataset": {"train_images": 50000, "test_images": 10000},
    "convolution": {
        "largest_differences_float64": {
            "output": 1.5e-15,
            "input_grad": 0.0,
            "weight_grad": 2.5e-14,
            "bias_grad": 3.5e-15,
        },
        "cases": 8,
        "gradcheck": True,
        "batch_size": 4,
        "time_ratio": 1.5,
        "memory_ratio": 3.25,
        "layers": {"3→64, 7×7, 224 px": {"time_ratio": 1.25, "memory_ratio": 2.0}},
    },
    "gradients": {
        "draws": 100,
        "largest_differences": {
            name: {"kernel": 1e-15, "image": 2e-15, "bias": 3e-15}
            for name in ("torch autograd", "central differences", "layer of question 1")
        },
        "symbolic_sizes": 81,
        "general_configurations": 300,
        "general_largest_differences": {
            "input": {"autograd": 1e-14, "torch.nn.grad": 2e-14},
            "bias": {"autograd": 4e-15},
        },
    },
    "transfer": {
        "test_accuracy": 0.75,
        "interval": [0.74, 0.76],
        "test_loss": 0.7,
        "ece": 0.02,
        "class_accuracy": {name: 0.7 + n / 100 for n, name in enumerate(CLASSES)},
        "seconds": 600.0,
        "seconds_per_1000": 20.0,
        "parameters": 11_000_000,
        "parameters_trained": 5130,
        "multiply_adds": 150_000_000,
        "backbone_unchanged": True,
        "validation_accuracy": 0.755,
        "recipe": {
            "learning_rate": 0.003,
            "weight_decay": 0.01,
            "epochs": 30,
            "batch_size": 500,
        },
        "worst_mistakes": [
            {
                "index": index,
                "predicted": 5,
                "true": 3,
                "probability": 0.999 if index == 1227 else 0.991,
                "true_probability": 0.0005,
            }
            for index in (1227, *range(9))
        ],
    },
    "scratch": {
        "test_accuracy": 0.9,
        "interval": [0.88, 0.92],
        "test_loss": 0.4,
        "ece": 0.05,
        "seconds": 1800.0,
        "seconds_per_1000": 3.0,
        "parameters": 1_500_000,
        "parameters_trained": 1_500_000,
        "multiply_adds": 50_000_000,
        "test_accuracy_mirror_averaged": 0.91,
        "made_with": "made up",
        "recipe": {
            "widths": [64, 128, 256],
            "epochs": 14,
            "peak_learning_rate": 0.3,
            "max_shift": 3,
            "batch_size": 250,
            "momentum": 0.9,
            "weight_decay": 0.0005,
            "label_smoothing": 0.1,
        },
    },
    "ablation": {"the recipe as it is": [0.7, 0.71], "no shifts": [0.6, 0.62]},
    "data_efficiency": {
        "new head on ResNet-18": [
            {"images_per_class": 10, "accuracies": [0.4, 0.5]},
            {"images_per_class": 1000, "accuracies": [0.7, 0.72]},
        ],
        "three residual blocks": [
            {"images_per_class": 10, "accuracies": [0.3, 0.2]},
            {"images_per_class": 1000, "accuracies": [0.8, 0.81]},
        ],
    },
}


def variant(**changes: object) -> dict:
    """FIGURES with some values replaced, each named by its path, `__` for a dot."""
    figures = copy.deepcopy(FIGURES)
    for path, value in changes.items():
        *sections, key = path.split("__")
        place = figures
        for section in sections:
            place = place[section]
        place[key] = value
    return figures


#: Every choice in the templates goes each way in one of these.
VARIANTS = {
    "compressed": FIGURES,
    "official": variant(
        provenance__weights="resnet18_imagenet1k_v1", weights_top1=0.6976
    ),
    "stand-in": variant(
        provenance__weights="resnet18_distilled_64px", weights_top1=None
    ),
}


@pytest.fixture
def made_up(monkeypatch, tmp_path):
    """A function that puts given templates in place of the project's."""
    monkeypatch.setattr(answers, "TEMPLATES", tmp_path)

    def put(text: str, page: str = "page.md") -> str:
        (tmp_path / page).write_text(text, encoding="utf-8")
        return page

    return put


def template(page: str) -> str:
    return (answers.TEMPLATES / page).read_text(encoding="utf-8")


# ------------------------------------------------------------------- committed pages


def committed() -> dict:
    figures = read_results()
    if missing := set(FIGURES) - set(figures):
        pytest.skip(f"results.json still lacks {', '.join(sorted(missing))}")
    return figures


def test_committed_pages_agree_with_the_committed_results():
    outdated = pages.outdated(answers.render(committed()), ROOT)
    assert list(outdated) == [], "`python3 -m src submit`, or `run`, writes them anew"


def test_figures_are_there():
    committed()
    for page in answers.PAGES:
        for path in re.findall(r"!\[.+?\]\((\S+)\)", template(page)):
            assert (ROOT / "answers" / path).is_file(), path


@pytest.mark.parametrize("page", ["walkthrough.md", "walkthrough.he.md"])
def test_script_goes_down_the_notebooks(page):
    """Its stops are headings, in order; what it points at is in the notebook's code."""
    _, *parts = re.split(
        r"^### `(q\d_\w+\.ipynb)`$", template(page), flags=re.MULTILINE
    )
    assert parts[::2] == sorted(path.name for path in (ROOT / "notebooks").glob("q*"))
    for name, script in zip(parts[::2], parts[1::2], strict=True):
        text = (ROOT / "notebooks" / name).read_text(encoding="utf-8")
        cells = {"markdown": "", "code": ""}
        for cell in json.loads(text)["cells"]:
            cells[cell["cell_type"]] += "".join(cell["source"]) + "\n"
        headings = re.findall(r"^#+ (.+)$", cells["markdown"], re.MULTILINE)
        stops = re.findall(r"^\*\*\d:\d\d\*\* `(.+?)`(.*)$", script, re.MULTILINE)
        places = [headings.index(heading) for heading, _ in stops]
        assert len(stops) > 3 and places == sorted(places)
        pointed_at = re.findall("`(.+?)`", "".join(rest for _, rest in stops))
        assert [code for code in pointed_at if code not in cells["code"]] == []


# ----------------------------------------------------------------------- every page


@pytest.mark.parametrize("figures", VARIANTS.values(), ids=VARIANTS)
def test_every_page_is_filled_and_well_formed(figures, tmp_path):
    texts = answers.render(figures, tmp_path)
    assert set(texts) == {f"answers/{page}" for page in answers.PAGES}
    for path, text in texts.items():
        for leftover in (
            "{{ ",
            " }}",
            "{%",
            "{#",
            "[[",
            "]]",
            "<!--",
            "nan",
            "inf%",
            "/work",
            "/home",
            "/Users",
        ):
            assert leftover not in text, f"{leftover} in {path}"
        assert text.count("```") % 2 == 0
        assert text.count("$$") % 2 == 0
        assert "\n\n\n" not in text, f"two empty lines running in {path}"
        assert text.endswith("\n") and not text.endswith("\n\n")


def test_every_choice_goes_each_way_in_some_variant(monkeypatch):
    """Each branch of each template is marked, and so is going past one without else."""
    marks = itertools.count()

    def mark(source: str) -> str:
        number = next(marks)
        return f"{source}⟦{number}⟧"

    def marked(page: str) -> str:
        text = template(page)
        text = re.sub(
            r"{% if (?:(?!{% el|{% end).)*{% endif", add_else, text, flags=re.S
        )
        return re.sub(r"{% (?:if|elif|else)[^%]*%}", lambda m: mark(m[0]), text)

    def add_else(match: re.Match) -> str:
        return match[0].removesuffix("{% endif") + "{% else %}{% endif"

    pages = {name: marked(name) for name in TEMPLATE_NAMES}
    loader = jinja2.DictLoader(pages | {"facts.jinja": template("facts.jinja")})
    monkeypatch.setattr(answers._templates(answers.TEMPLATES), "loader", loader)
    monkeypatch.setattr(answers._templates(answers.TEMPLATES), "cache", {})
    taken = {
        int(number)
        for figures in VARIANTS.values()
        for page in pages
        for number in re.findall("⟦(\\d+)⟧", answers.fill(page, figures))
    }
    assert len(taken) > 10
    assert taken == set(range(next(marks)))


#: What is changed in FIGURES, and what question 3's answer then says.
SAID = [
    (
        {},
        [
            "after a compression to 1.7 MB (Stock et al., 2020): 65.81% top-1",
            r"resize the images to $224\times224$",
            "easiest class is *truck* (79.0%), the hardest *airplane* (70.0%)",
            "| 1227 | cat | dog | 99.90% | dog, 4 of 5 |  |\n"
            "| 0 | cat | dog | 99.10% |  |  |\n",
            "| 95% interval, half its width | 1.00% | 2.00% |",
            "| multiply-adds an image, millions | 150 | 50 |",
            "| training, minutes | 10.0 | 30.0 |",
            "right on 90.0% of the test images, the new head on 75.0%",
            "with 3 times fewer multiply-adds an image",
            "took them 30 minutes and the head 10,",
            "(ECE 2.0% against 5.0%)",
            "come from 1.2 million other photographs",
            "with 10 of each class the head reaches 45.0% and the blocks 25.0%",
        ],
    ),
    (
        {"dataset__test_images": 500},
        ["| 1227 | cat | dog | 99.90% |  |  |"],
    ),
    (
        {"provenance__weights": "resnet18_imagenet1k_v1"},
        ["weights are ImageNet's official ones, `ResNet18_Weights.IMAGENET1K_V1`."],
    ),
    (
        {"provenance__weights": "resnet18_distilled_64px"},
        [
            "**The pre-trained weights are a stand-in**",
            r"resize the images to $64\times64$",
            "come from 100,000 other, small images",
        ],
    ),
    (
        {"transfer__class_accuracy": dict.fromkeys(CLASSES, 0.5)},
        ["easiest class is *airplane* (50.0%), the hardest *airplane*"],
    ),
]


@pytest.mark.parametrize(("changes", "sentences"), SAID)
def test_what_the_figures_imply_is_said(changes, sentences):
    text = answers.fill("q3.md", variant(**changes))
    for sentence in sentences:
        assert text.count(sentence) == 1, sentence


def test_mistakes_are_told_in_hebrew():
    mistakes = FIGURES["transfer"]["worst_mistakes"]
    pairs = [(0, 8), (8, 0), (8, 0), *[(2, 9)] * 3, (3, 5), *[(1, 7)] * 3]
    changed = [
        {**mistake, "true": true, "predicted": predicted}
        for mistake, (true, predicted) in zip(mistakes, pairs, strict=True)
    ]
    figures = variant(transfer__worst_mistakes=changed)
    hebrew = answers.fill("q3.he.md", figures)
    assert "| 1227 | מטוס | ספינה | 99.90% | כלב, 4 מתוך 5 |  |" in hebrew
    assert "*משאית* (79.0%)" in hebrew and "*מטוס* (70.0%)" in hebrew


def test_question_1_says_the_figures():
    text = answers.fill("q1.md", FIGURES)
    assert text.count(r"None exceeds $2.5 \cdot 10^{-14}$") == 1
    assert "in 8 cases" in text and ", 4 images of" in text
    assert (
        "| `3→64, 7×7, 224 px` | 1.25 | 2.00 |\n| **geometric mean** | **1.50*" in text
    )


def test_question_2_says_the_largest_difference():
    assert r"by at most $2.0 \cdot 10^{-14}$." in answers.fill("q2.md", FIGURES)


def test_stand_in_weights_are_said_to_be_stand_in():
    for name, figures in VARIANTS.items():
        for page, english, hebrew in (
            ("q3", "are a stand-in", "הן תחליף"),
            ("walkthrough", "a stand-in:", "תחליף:"),
        ):
            said = english in answers.fill(f"{page}.md", figures)
            assert said == (name == "stand-in")
            assert (hebrew in answers.fill(f"{page}.he.md", figures)) == said
        block = answers.fill("readme_results.md", figures)
        assert ("stand-in weights" in block) == (name == "stand-in")


# ---------------------------------------------------------------------- two languages


def test_there_is_each_page_in_each_language():
    names = ("q1", "q2", "q3", "walkthrough")
    assert set(answers.PAGES) == {
        f"{n}{end}" for n in names for end in (".md", ".he.md")
    }


@pytest.mark.parametrize(("english", "hebrew"), PAIRS)
def test_languages_hold_the_same(english, hebrew):
    """Sections, figures, choices, formulas, tables and lists correspond."""

    def outline(page: str) -> dict[str, list]:
        text = template(page).replace(', name=facts.hebrew.get, language="he"', "")
        text = re.sub(r"facts\.hebrew\[(.+?)\] }}", r"\1 }}", text)
        lines = text.splitlines()
        return {
            "headings": [line.split()[0] for line in lines if line.startswith("#")],
            "figures": sorted(re.findall(r"{{ (.+?) }}", text)),
            "choices": re.findall(r"{% .*? %}", text),
            "formulas": re.findall(r"^\$\$\n.*?^\$\$$", text, re.DOTALL | re.MULTILINE),
            "columns": [line.count("|") for line in lines if line.startswith("|")],
            "items": [
                match[1] for line in lines if (match := re.match(r"(- |\d+\. )", line))
            ],
            "images": re.findall(r"\]\((\S+)\)", text),
            "paragraphs": sum(line == "" for line in lines),
        }

    ours, theirs = outline(english), outline(hebrew)
    theirs["paragraphs"] -= 2  # around the page, for its direction
    assert ours == theirs


@pytest.mark.parametrize("figures", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize(("english", "hebrew"), PAIRS)
def test_filled_in_figures_are_the_same_in_both(english, hebrew, figures):
    def numbers(page: str) -> list[str]:
        return sorted(re.findall(r"\d[\d.,]*\d%?", answers.fill(page, figures)))

    def decimals(page: str) -> list[str]:
        return [n for n in numbers(page) if re.search(r"\d\.\d", n)]

    assert decimals(english) == decimals(hebrew)
    assert len(decimals(english)) > 2


@pytest.mark.parametrize("page", [he for _, he in PAIRS])
def test_hebrew_pages_run_from_right_to_left(page):
    text = answers.fill(page, FIGURES)
    assert text.startswith('<div dir="rtl">\n\n')
    assert text.endswith("\n\n</div>\n")
    assert text.count("<div ") == text.count("</div>")
    assert text.count("<span ") == text.count("</span>")
    assert re.search("[א-ת]", text)
    # each piece of code and each formula is marked as left-to-right
    unmarked = re.sub(r'<(div|span) dir="ltr">.*?</\1>', "", text, flags=re.DOTALL)
    assert "`" not in unmarked and "$" not in unmarked
    # after Latin letters a browser would set a number on their right
    assert not re.search(r"[A-Za-z][\w.+-]*[^\w\n|]* [^\w\n|]*\d", unmarked)


@pytest.mark.parametrize("page", TEMPLATE_NAMES)
def test_formulas_are_written_so_that_github_sets_them(page):
    """It wants a space before $, and takes a backslash before punctuation away."""
    text = answers.fill(page, FIGURES)
    blocks = re.compile(r"^\$\$\n.*?^\$\$$", re.DOTALL | re.MULTILINE)
    inline = blocks.sub("", text)
    assert inline.count("$") % 2 == 0
    for match in re.finditer(r"\$[^$\n]+\$", inline):
        before, after = inline[match.start() - 1], inline[match.end()]
        assert before in " \n", inline[match.start() - 20 : match.end()]
        assert not after.isalnum()
        assert not re.search(r"\\[^a-zA-Z]", match[0]), match[0]
    for block in blocks.findall(text):
        assert not re.search(r"\\[^a-zA-Z\\\n ]", block.replace("\\\\", "")), block


def test_isolate():
    marked = answers.isolate("א `f(x)` ב $x=1$\n\n$$\na `b`\n$$\n\n```\n$c$\n```\n")
    assert marked == (
        'א <span dir="ltr">`f(x)`</span> ב <span dir="ltr"> $x=1$</span>\n\n'
        '<div dir="ltr">\n\n$$\na `b`\n$$\n\n</div>\n\n'
        '<div dir="ltr">\n\n```\n$c$\n```\n\n</div>\n'
    )


# --------------------------------------------------------------------------- script


@pytest.mark.parametrize("figures", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize(
    ("page", "words_a_minute"), [("walkthrough.md", 130), ("walkthrough.he.md", 110)]
)
def test_script_can_be_said_in_its_time(page, words_a_minute, figures):
    """At each stop some seconds are left to scroll; a page has at most 900 words."""
    text = re.sub("<.+?>", "", answers.fill(page, figures))
    assert sum(any(c.isalpha() for c in word) for word in text.split()) <= 900
    _, *parts = re.split(r"^\*\*(\d):(\d\d)\*\*", text, flags=re.MULTILINE)
    times = [60 * int(m) + int(s) for m, s in zip(parts[::3], parts[1::3], strict=True)]
    assert times[0] == 0 and 6 * 60 <= times[-1] <= 8 * 60
    for begin, end, stop in zip(times, times[1:], parts[2::3], strict=False):
        words = " ".join(re.findall("^> (.+)$", stop, re.MULTILINE)).split()
        assert words and 60 * len(words) / words_a_minute + 3 <= end - begin, stop


# -------------------------------------------------------------------------- filling


def test_placeholders(made_up):
    figures = {"a": {"b c": [0.5, 1234]}, "flag": True}
    page = made_up('{{ a["b c"][0] | show(".1%") }} {{ a["b c"][1] }} {{ flag }}\n')
    assert answers.fill(page, figures) == "50.0% 1234 True\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{{ nobody }}", "'nobody' is undefined"),
        ("{% if nobody %}x{% endif %}", "'nobody' is undefined"),
        ('{{ a.missing | show(".1%") }}', "has no attribute 'missing'"),
        ('{{ a.name | show(".1%") }}', "Unknown format code"),
        ("{{ a.name / 2 }}", "unsupported operand"),
    ],
)
def test_what_cannot_be_filled_in_names_the_page(made_up, text, reason):
    page = made_up(text)
    with pytest.raises(
        ValueError, match=rf"page\.md can't be filled.*{reason}.*src run"
    ):
        answers.fill(page, {"a": {"list": [1, 2], "name": "text"}})


@pytest.mark.parametrize(
    "section", ["scratch__seconds", "data_efficiency", "provenance"]
)
def test_section_without_its_figures(section):
    figures = copy.deepcopy(FIGURES)
    *outer, name = section.split("__")
    del (figures[outer[0]] if outer else figures)[name]
    with pytest.raises(ValueError, match=rf"q3\.\w*\.?md can't .*'{name}'"):
        answers.render(figures)


def test_a_page_needs_only_its_own_sections():
    only = {"gradients": FIGURES["gradients"]}
    assert answers.fill("q2.md", only) == answers.fill("q2.md", FIGURES)
    with pytest.raises(ValueError, match=r"q1\.md can't .*'convolution' is undefined"):
        answers.fill("q1.md", only)


# ------------------------------------------------------------------ writing, staleness


@pytest.fixture
def folder(tmp_path):
    """A folder with made-up results and a README that has a block for them."""
    (tmp_path / "data").mkdir()
    save(tmp_path, FIGURES)
    (tmp_path / "README.md").write_text(
        "before\n\n<!-- results -->\nold \\1\n<!-- /results -->\n\nafter\n",
        encoding="utf-8",
    )
    return tmp_path


def save(root, figures):
    text = json.dumps(figures, ensure_ascii=False)
    (root / "data/results.json").write_text(text, encoding="utf-8")


def test_pages_are_written_once(folder):
    written = {f"answers/{page}" for page in answers.PAGES} | {"README.md"}
    assert set(answers.update_answers(folder)) == written
    assert answers.update_answers(folder) == []
    readme = (folder / "README.md").read_text(encoding="utf-8")
    block = answers.fill("readme_results.md", FIGURES)
    assert readme == (
        f"before\n\n<!-- results -->\n{block}<!-- /results -->\n\nafter\n"
    )


def test_only_changed_pages_are_written(folder):
    answers.update_answers(folder)
    untouched = (folder / "answers/q1.md").stat().st_mtime_ns
    save(folder, variant(gradients__draws=99))
    assert set(answers.update_answers(folder)) == {"answers/q2.md", "answers/q2.he.md"}
    assert (folder / "answers/q1.md").stat().st_mtime_ns == untouched


def test_an_edited_or_missing_page_is_written_anew(folder):
    answers.update_answers(folder)
    (folder / "answers/q2.md").write_text("edited", encoding="utf-8")
    (folder / "answers/q1.he.md").unlink()
    (folder / "README.md").write_text(
        "<!-- results -->\n94%\n<!-- /results -->\n", encoding="utf-8"
    )
    written = {"answers/q2.md", "answers/q1.he.md", "README.md"}
    assert set(answers.update_answers(folder)) == written


def test_without_results_a_page_is_named(tmp_path):
    with pytest.raises(
        ValueError, match=r"q1.* filled from data/results\.json.*src run"
    ):
        answers.update_answers(tmp_path)


def test_readme_without_the_block_is_left_alone(folder):
    (folder / "README.md").write_text("no block", encoding="utf-8")
    answers.update_answers(folder)
    assert (folder / "README.md").read_text(encoding="utf-8") == "no block"
