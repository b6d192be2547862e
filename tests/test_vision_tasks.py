"""The guide as a whole: what every task promises, the one training loop, the pages."""

import dataclasses
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from src.vision_tasks import TASKS, command
from src.vision_tasks.pages import guide
from src.vision_tasks.shared import training
from src.vision_tasks.shared.encoder import Decoder, Encoder, check_images
from src.vision_tasks.shared.task import Recipe, mirror_half
from src.vision_tasks.street.scenes import Scenes, load_scenes, make_scenes
from src.vision_tasks.street.vocabulary import OBJECT_CLASSES

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "answers/vision_tasks"
NAMES = (
    "classification",
    "object_detection",
    "semantic_segmentation",
    "instance_segmentation",
    "depth_estimation",
    "optical_flow",
    "lane_detection",
    "trajectory_prediction",
    "anomaly_detection",
    "image_captioning",
    "super_resolution",
    "image_inpainting",
)
#: The first tensor that each model returns for two examples, as documented.
SHAPES = {
    "classification": (2, 4),
    "semantic_segmentation": (2, 12, 224, 224),
    "depth_estimation": (2, 1, 224, 224),
    "optical_flow": (2, 2, 224, 224),
    "anomaly_detection": (2, 1, 224, 224),
    "super_resolution": (2, 3, 224, 224),
    "image_inpainting": (2, 3, 224, 224),
}


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return make_scenes(12, seed=5, size=64, anomalies=0.5)


@pytest.fixture(scope="module")
def normal() -> Scenes:
    return make_scenes(8, seed=6, size=64)


def first(output) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


# Every task ------------------------------------------------------------------------


def test_the_twelve_tasks():
    assert tuple(TASKS) == NAMES
    for name, task in TASKS.items():
        assert task.name == name
        assert task.title and task.metric and task.baseline_name
        assert re.search("[א-ת]", task.hebrew)


@pytest.mark.parametrize("name", NAMES)
def test_example_inputs_go_through_the_model(name):
    torch.manual_seed(0)
    task = TASKS[name]
    model = task.build_model().eval()
    inputs = task.example_inputs(2)
    assert isinstance(inputs, tuple)
    assert all(len(tensor) == 2 for tensor in inputs)
    with torch.no_grad():
        output = first(model(*inputs))
    assert len(output) == 2 and output.isfinite().all()
    if name in SHAPES:
        assert tuple(output.shape) == SHAPES[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_step_of_training_moves_every_trained_parameter(name, normal):
    torch.manual_seed(0)
    task = TASKS[name]
    model = task.build_model().train()
    example = task.prepare(normal, torch.Generator().manual_seed(0))
    loss = task.loss(model(*example.inputs), example.targets)
    assert loss.ndim == 0 and loss.isfinite()
    loss.backward()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    without = [n for n, p in trained.items() if p.grad is None]
    assert not without, f"no gradient reaches {without}"


@pytest.mark.parametrize("name", NAMES)
def test_prepare_is_repeatable_and_augments_only_when_asked(name, normal):
    task = TASKS[name]

    def inputs(generator=None):
        return task.prepare(normal, generator).inputs

    for one, other in zip(inputs(), inputs(), strict=True):
        assert torch.equal(one, other)
    seeded = [inputs(torch.Generator().manual_seed(1)) for _ in range(2)]
    for one, other in zip(*seeded, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", NAMES)
def test_measures_and_baseline_are_numbers(name, normal, scenes):
    torch.manual_seed(0)
    task = TASKS[name]
    model = task.build_model().eval()
    measures = task.measure(model, scenes)
    assert task.metric in measures
    assert all(math.isfinite(value) for value in measures.values()), measures
    baselines = task.baselines(normal, scenes)
    assert task.baseline(normal, scenes) == baselines[task.baseline_name][task.metric]
    for trivial in baselines.values():
        assert task.metric in trivial
        assert set(trivial) <= set(measures), "named as the model's own"
        assert all(math.isfinite(value) for value in trivial.values()), trivial


@pytest.mark.parametrize("name", NAMES)
def test_the_pre_trained_start_is_the_encoders(name):
    task = TASKS[name]
    if not task.recipe.pretrained:
        pytest.skip("starts at random")
    torch.manual_seed(0)
    one = task.build_model(pretrained=True).state_dict()
    torch.manual_seed(1)
    other = task.build_model(pretrained=True).state_dict()
    same = sum(torch.equal(one[key], other[key]) for key in one)
    assert same > 60  # of ResNet-18's weights and statistics


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"trajectory_prediction"}))
def test_images_of_other_shapes_are_refused(name):
    task = TASKS[name]
    model = task.build_model().eval()
    images, *others = task.example_inputs(2)
    with pytest.raises(ValueError, match=r"3, H, W\]|channels"):
        model(images[:, :1], *others)
    if name != "super_resolution":  # convolutions alone: any size will do
        with pytest.raises(ValueError, match="multiple"):
            model(images[..., :-1], *(other[..., :-1] for other in others))


# What they share -------------------------------------------------------------------


@pytest.mark.parametrize("size", [(224, 224), (64, 96)])
def test_the_decoder_goes_back_to_the_images_size(size):
    encoder, decoder = Encoder().eval(), Decoder(5).eval()
    features = encoder(torch.rand(2, 3, *size))
    expected = [(64, 2), (64, 4), (128, 8), (256, 16), (512, 32)]
    for feature, (channels, stride) in zip(features, expected, strict=True):
        assert feature.shape == (2, channels, size[0] // stride, size[1] // stride)
    assert decoder(features).shape == (2, 5, *size)


@pytest.mark.parametrize("shape", [(2, 4, 64, 64), (3, 64, 64), (0, 3, 64, 64)])
def test_what_is_no_batch_of_images_is_named(shape):
    with pytest.raises(ValueError, match=re.escape(str(list(shape)))):
        check_images(torch.zeros(shape))


def test_sizes_that_the_stride_does_not_divide_are_named():
    with pytest.raises(ValueError, match=r"multiples of 32, got 100 x 64.*resize"):
        check_images(torch.zeros(1, 3, 100, 64))


def test_the_transposed_convolution_of_the_sketch_enlarges_eightfold_only():
    decoder = nn.ConvTranspose2d(512, 1, kernel_size=16, stride=8, padding=4)
    assert decoder(torch.zeros(1, 512, 7, 7)).shape[2:] == (56, 56)  # not 224


def test_mirroring_treats_all_tensors_of_a_scene_alike():
    rows = torch.arange(40.0).view(10, 1, 1, 4)
    image, mask = mirror_half(torch.Generator().manual_seed(0), rows, rows[:, 0])
    assert torch.equal(image[:, 0], mask)
    mirrored = [torch.equal(a, b.flip(-1)) for a, b in zip(image, rows, strict=True)]
    kept = [torch.equal(a, b) for a, b in zip(image, rows, strict=True)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert 0 < sum(mirrored) < 10


# The training loop -----------------------------------------------------------------

CLASSIFICATION = TASKS["classification"]
SHORT = Recipe(steps=4, batch_size=4, learning_rate=1e-3, pretrained=False)


def same(one: nn.Module, other: nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_an_interrupted_training_ends_like_an_uninterrupted_one(
    tmp_path, monkeypatch, normal
):
    monkeypatch.setattr(training, "ROUND", 2)
    expected = training.train(CLASSIFICATION, normal, SHORT)
    write = training.write_checkpoint

    def write_and_stop(*arguments):
        write(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "write_checkpoint", write_and_stop)
    path = tmp_path / "state.pt"
    with pytest.raises(KeyboardInterrupt):
        training.train(CLASSIFICATION, normal, SHORT, path)
    monkeypatch.setattr(training, "write_checkpoint", write)
    resumed = training.train(CLASSIFICATION, normal, SHORT, path)
    assert same(expected.model, resumed.model)
    assert expected.losses == resumed.losses
    assert len(resumed.losses) == 2
    monkeypatch.setattr(CLASSIFICATION.__class__, "loss", None)  # not called again
    monkeypatch.setattr(training, "provenance", None)  # nor this: it is kept
    loaded = training.train(CLASSIFICATION, normal, SHORT, path)
    assert same(expected.model, loaded.model)
    assert loaded.provenance == resumed.provenance
    assert not loaded.model.training


@pytest.mark.parametrize("damage", [b"", b"no checkpoint"])
def test_a_damaged_checkpoint_is_not_used(tmp_path, capsys, normal, damage):
    path = tmp_path / "state.pt"
    path.write_bytes(damage)
    trained = training.train(CLASSIFICATION, normal, SHORT, path)
    assert "can't be read" in capsys.readouterr().out
    assert same(trained.model, training.train(CLASSIFICATION, normal, SHORT).model)


def test_the_key_depends_on_recipe_data_and_code(monkeypatch, normal, scenes):
    key = training.experiment_key(CLASSIFICATION, SHORT, normal)
    assert key == training.experiment_key(CLASSIFICATION, SHORT, normal)
    longer = dataclasses.replace(SHORT, steps=5)
    others = {
        training.experiment_key(CLASSIFICATION, longer, normal),
        training.experiment_key(CLASSIFICATION, SHORT, scenes),
        training.experiment_key(TASKS["depth_estimation"], SHORT, normal),
    }
    monkeypatch.setattr(training, "code_of", lambda module: "changed")
    others.add(training.experiment_key(CLASSIFICATION, SHORT, normal))
    assert len(others | {key}) == 5


def test_comments_and_docstrings_do_not_count_as_code(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    sources = {
        "plain": "def f(x):\n    return x + 1\n",
        "documented": '"""A module."""\n\ndef f(x):\n    return x + 1  # one more\n',
        "changed": "def f(x):\n    return x + 2\n",
    }
    codes = {}
    for name, source in sources.items():
        (tmp_path / f"{name}_code.py").write_text(source)
        codes[name] = training.code_of(__import__(f"{name}_code"))
    assert codes["plain"] != codes["changed"]
    assert "one more" not in codes["documented"]
    assert "A module" not in codes["documented"]


def test_a_diverging_training_says_so(monkeypatch, normal):
    monkeypatch.setattr(
        CLASSIFICATION.__class__,
        "loss",
        lambda self, output, targets: output.sum() * math.nan,
    )
    with pytest.raises(RuntimeError, match="classification: the loss of step 0 is nan"):
        training.train(CLASSIFICATION, normal, SHORT)


def test_the_learning_rate_rises_then_falls_to_zero():
    recipe = Recipe(steps=100, learning_rate=0.5)
    rates = [training.learning_rate(recipe, step) for step in range(101)]
    assert rates[9] == rates[10] == max(rates) == 0.5
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[55] == pytest.approx(0.25)  # halfway down
    assert rates[100] == pytest.approx(0)


# The pages -------------------------------------------------------------------------


def test_the_pages_agree_with_results_and_code():
    assert guide.outdated(ROOT) == {}, "run `python3 -m src vision`"


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
def test_every_task_is_clearly_better_than_its_baseline(name):
    recorded = json.loads((PAGES / "results.json").read_text(encoding="utf-8"))[name]
    needed = {"metric", "value", "baseline", "higher_is_better", "seconds", "seed"}
    assert needed <= set(recorded)
    task = TASKS[name]
    assert recorded["metric"] == task.metric
    assert recorded["value"] == recorded["measures"][task.metric]
    assert recorded["recipe"] == dataclasses.asdict(task.recipe)
    value, baseline = recorded["value"], recorded["baseline"]
    if "PSNR" in task.metric:
        assert value > baseline + 0.5  # dB
    elif recorded["higher_is_better"]:
        # at least a quarter of what the baseline leaves to be gained
        assert value > baseline + 0.25 * (1 - baseline)
    else:
        assert value < 0.75 * baseline


def test_all_together_take_at_most_three_quarters_of_an_hour_on_two_cores():
    recorded = json.loads((PAGES / "results.json").read_text(encoding="utf-8"))
    core_seconds = sum(
        result["seconds"] * int(re.search(r"(\d+) threads", device)[1])
        for result in recorded.values()
        if (device := result["provenance"]["device"]).startswith("CPU")
    )
    assert core_seconds / 2 < 45 * 60


def test_numbers_have_three_digits():
    shown = [guide.number(value) for value in (0.91234, 3.14159, 31.41, 512.3, 0.05)]
    assert shown == ["0.912", "3.14", "31.4", "512", "0.0500"]


def test_a_record_of_another_version_is_left_out(tmp_path):
    path = tmp_path / "results.json"
    path.write_text('{"classification": {"metric": "accuracy", "value": 0.9}}')
    assert guide.load(path) == {}


def test_a_result_survives_being_recorded(tmp_path):
    path = tmp_path / "results.json"
    result = guide.Result(
        metric="accuracy",
        value=0.9,
        baseline=0.4,
        baseline_name="a guess",
        higher_is_better=True,
        seconds=1.5,
        seed=1,
        measures={"accuracy": 0.9},
        baselines={"a guess": {"accuracy": 0.4}},
        losses=[1.0, 0.5],
        parameters=10,
        recipe={"steps": 2},
        training_scenes=4,
        test_scenes=3,
        provenance={"torch": "2"},
    )
    guide.record("depth_estimation", result, path)
    guide.record("classification", result, path)
    assert guide.load(path) == {"classification": result, "depth_estimation": result}
    assert list(json.loads(path.read_text())) == ["classification", "depth_estimation"]


# The command -----------------------------------------------------------------------


def test_an_unknown_task_is_named_and_the_known_ones_are_listed(capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(["--task", "classification,telepathy"])
    assert stopped.value.code == 2
    printed = capsys.readouterr().err
    assert "no task is called 'telepathy'" in printed
    assert "image_inpainting" in printed


@pytest.mark.slow
def test_fast_carries_out_all_twelve_and_changes_no_answer():
    def answers():
        files = (path for path in PAGES.rglob("*") if path.is_file())
        return {path: path.stat().st_mtime_ns for path in files}

    before = answers()
    done = subprocess.run(
        [sys.executable, "-m", "src", "vision", "--fast"],
        cwd=ROOT,
        env={**os.environ, "MAMAN13_WEIGHTS": "standin"},
        capture_output=True,
        encoding="utf-8",
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for name, task in TASKS.items():
        assert f"{name}: {task.metric} " in done.stdout
    assert "nothing in answers/ was changed" in done.stdout
    assert answers() == before
    made = ROOT / "data/cache/fast/vision"
    figures = {path.stem for path in (made / "figures").glob("*.png")}
    assert figures == {*NAMES, "all_truths", "all_predictions"}
    assert set(json.loads((made / "results.json").read_text())) == set(NAMES)


def test_scenes_for_every_split(tmp_path):
    train = load_scenes("train", 4, 64, workers=0, folder=tmp_path)
    test = load_scenes("test", 4, 64, workers=0, folder=tmp_path)
    assert len(train) == len(test) == 4
    assert not torch.equal(train.images, test.images)
    assert train.main.max() < len(OBJECT_CLASSES)
