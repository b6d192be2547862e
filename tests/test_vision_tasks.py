"""The guide as a whole: what every task promises, its drawings, its command."""

import dataclasses
import functools
import math
import os
import re
import subprocess
import sys
import time
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from torch import Generator, Tensor, nn, tensor

from src import cifar10
from src.common.project import ROOT
from src.training import Trained
from src.vision_tasks import TASKS, command
from src.vision_tasks.pages import guide, overview
from src.vision_tasks.shared import drawing
from src.vision_tasks.shared.encoder import start_weights
from src.vision_tasks.shared.real_images import SHOWN, real_images, some_real
from src.vision_tasks.shared.task import Task, TaskRecipe
from src.vision_tasks.street.scenes import Scenes, make_scenes
from src.vision_tasks.street.vocabulary import OBJECT_CLASSES, SEMANTIC_CLASSES

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


@functools.cache
def untrained(name: str) -> nn.Module:
    torch.manual_seed(0)
    return TASKS[name].build_model().eval()


def first(output) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


# Every task ------------------------------------------------------------------------


def test_the_twelve_tasks():
    assert tuple(TASKS) == NAMES
    for name, task in TASKS.items():
        assert task.name == name
        assert task.title and task.metric and task.baseline_name
        assert re.search("[א-ת]", task.hebrew)
        assert task.test_split == ("anomalies" if name[:7] == "anomaly" else "test")


@pytest.mark.parametrize("name", NAMES)
def test_example_inputs_go_through_the_model(name):
    task, model = TASKS[name], untrained(name)
    inputs = task.example_inputs(2)
    assert isinstance(inputs, tuple)
    assert all(len(tensor) == 2 for tensor in inputs)
    with torch.no_grad():
        output = first(model(*inputs))
    assert len(output) == 2 and output.isfinite().all()
    if name in SHAPES:
        assert tuple(output.shape) == SHAPES[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_step_of_training_reaches_every_trained_parameter(name, normal):
    torch.manual_seed(0)
    task = TASKS[name]
    model = task.build_model().train()
    batch = task.prepare(normal, Generator().manual_seed(0))
    loss = task.loss(model(*batch.inputs), batch.targets)
    assert loss.ndim == 0 and loss.isfinite()
    loss.backward()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    without = [n for n, p in trained.items() if p.grad is None]
    assert not without, f"no gradient reaches {without}"


@pytest.mark.parametrize("name", NAMES)
def test_prepare_is_repeatable_and_augments_only_when_asked(name, normal):
    def prepared(seed: int | None = None) -> list[Tensor]:
        generator = None if seed is None else Generator().manual_seed(seed)
        batch = TASKS[name].prepare(normal, generator)
        return [*batch.inputs, *batch.targets]

    def same(one: list[Tensor], other: list[Tensor]) -> bool:
        pairs = zip(one, other, strict=True)
        return all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs)

    assert same(prepared(), prepared())
    assert same(prepared(1), prepared(1))
    # sometimes, at least
    assert not all(same(prepared(), prepared(seed)) for seed in range(20))


@pytest.mark.parametrize("name", NAMES)
def test_measures_and_baseline_are_numbers(name, normal, scenes):
    task, model = TASKS[name], untrained(name)
    measures = task.measure(model, scenes)
    assert task.metric in measures
    assert all(math.isfinite(value) for value in measures.values()), measures
    baselines = task.baselines(normal, scenes)
    assert task.baseline(normal, scenes) == baselines[task.baseline_name][task.metric]
    for trivial in baselines.values():
        assert task.metric in trivial
        assert set(trivial) <= set(measures), "named as the model's own"
        assert all(math.isfinite(value) for value in trivial.values()), trivial


@pytest.mark.parametrize("name", [n for n in NAMES if TASKS[n].recipe.pretrained])
def test_the_pre_trained_start_is_the_encoders(name):
    expected = start_weights().state_dict["layer4.1.conv2.weight"]
    model = TASKS[name].build_model(pretrained=True)
    assert torch.equal(model.encoder.layer4[1].conv2.weight, expected)
    assert not torch.equal(untrained(name).encoder.layer4[1].conv2.weight, expected)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"trajectory_prediction"}))
def test_images_of_other_shapes_are_refused(name):
    task, model = TASKS[name], untrained(name)
    images, *others = task.example_inputs(2)
    with pytest.raises(ValueError, match=r"3, H, W\]|channels"):
        model(images[:, :1], *others)
    if name != "super_resolution":  # convolutions alone: any size will do
        with pytest.raises(ValueError, match="multiple"):
            model(images[..., :-1], *(other[..., :-1] for other in others))


# Real images -----------------------------------------------------------------------


def test_real_images_are_the_sample():
    for train, count in [(True, 1000), (False, 500)]:
        images = real_images(train)
        data = cifar10.load(train, sample=True).data  # [N, 32, 32, 3]
        assert images.shape == (count, 3, 32, 32) and images.dtype == torch.uint8
        assert torch.equal(images.permute(0, 2, 3, 1), torch.from_numpy(data))
        assert images.is_contiguous()
    assert 0 <= SHOWN < 500


@pytest.mark.parametrize(("shape", "count"), [((4, 64, 64), 16), ((2, 16, 16), 1)])
def test_a_fourth_of_the_batches_are_real(shape, count):
    """As many pixels, rounded down, but at least one image; all of one kind."""
    images = torch.zeros(shape[0], 3, *shape[1:], dtype=torch.uint8)
    draws, generator = Generator().manual_seed(0), Generator().manual_seed(0)
    real = 0
    for _ in range(100):
        batch = some_real(images, generator)
        if torch.rand((), generator=draws) >= 0.25:
            assert batch is images
            continue
        chosen = torch.randint(1000, (count,), generator=draws)
        assert torch.equal(batch, real_images(train=True)[chosen])
        real += 1
    assert 15 < real < 35


# Drawings --------------------------------------------------------------------------


@pytest.fixture
def axis():
    _, axis = plt.subplots()
    yield axis
    plt.close("all")


def picture(axis, number: int = -1) -> Tensor:
    return tensor(np.asarray(axis.images[number].get_array()))


def test_a_grid_has_titled_columns_and_no_ticks():
    figure, axes = drawing.grid(2, ["input", "truth", "ours"], height=3.0)
    assert axes.shape == (2, 3)
    titles = [[axis.get_title() for axis in row] for row in axes]
    assert titles == [["input", "truth", "ours"], [""] * 3]
    assert figure.get_size_inches().tolist() == pytest.approx([3 * 1.9 + 0.2, 6.3])
    for axis in axes.flat:
        assert not [*axis.get_xticks(), *axis.get_yticks()]
        assert not any(spine.get_visible() for spine in axis.spines.values())
    assert drawing.grid(1, ["one"])[1].shape == (1, 1)
    plt.close("all")


def test_images_are_shown_as_they_are(axis, caplog):
    image = torch.randint(256, (3, 4, 5), dtype=torch.uint8)
    drawing.show_image(axis, image)
    assert torch.equal(picture(axis), image.permute(1, 2, 0))
    image = torch.linspace(-1, 2, 60).view(3, 4, 5).requires_grad_()
    drawing.show_image(axis, image)
    assert not caplog.records  # matplotlib says so if it must clip
    torch.testing.assert_close(
        picture(axis), image.detach().clamp(0, 1).permute(1, 2, 0)
    )


def test_every_class_has_its_colour(axis):
    assert len({*map(tuple, drawing.SEMANTIC_COLOURS)}) == len(SEMANTIC_CLASSES)
    assert len({*drawing.OBJECT_COLOURS}) == len(OBJECT_CLASSES)
    assert len({*drawing.INSTANCE_COLOURS}) == len(drawing.INSTANCE_COLOURS) == 8
    sky = SEMANTIC_CLASSES.index("sky")
    drawing.show_classes(axis, tensor([[0, sky], [11, 6]], dtype=torch.uint8))
    expected = [[[90, 90, 90], [150, 205, 245]], [[90, 0, 120], [0, 110, 60]]]
    assert picture(axis).tolist() == expected


def test_scenes_with_most_classes_are_shown_in_their_order(scenes):
    labels = tensor([[0, 0, 0, 0], [0, 1, -1, -1], [2, -1, -1, -1], [3, 1, 2, -1]])
    several = dataclasses.replace(scenes[:4], labels=labels)
    for count, places in [(1, [3]), (2, [1, 3]), (3, [0, 1, 3]), (9, [0, 1, 2, 3])]:
        shown = drawing.varied(several, count).labels
        assert torch.equal(shown, labels[places])


@pytest.mark.parametrize("scores", [None, tensor([0.256, 0.9])])
def test_boxes_have_the_colour_of_their_class_and_its_name(axis, scores):
    boxes = tensor([[2.0, 3, 10, 7], [0, 0, 4, 9]])
    drawing.show_boxes(axis, boxes, tensor([3, 0]), scores, style="--")
    one, other = axis.patches
    assert (one.get_xy(), one.get_width(), one.get_height()) == ((1.5, 2.5), 8, 4)
    assert (other.get_xy(), other.get_width(), other.get_height()) == (
        (-0.5, -0.5),
        4,
        9,
    )
    for patch, label in [(one, 3), (other, 0)]:
        assert patch.get_edgecolor()[:3] == to_rgb(drawing.OBJECT_COLOURS[label])
        assert not patch.get_fill() and patch.get_linestyle() == "--"
    names = ["pedestrian", "car"] if scores is None else ["pedestrian 26%", "car 90%"]
    assert [text.get_text() for text in axis.texts] == names
    assert [text.xy for text in axis.texts] == [(2, 2), (0, -1)]


def test_masks_are_coloured_one_after_the_other_on_grey(axis):
    image = tensor([30, 60, 90], dtype=torch.uint8).view(3, 1, 1).expand(3, 1, 10)
    masks = torch.eye(9, 10, dtype=torch.bool).unsqueeze(1)
    drawing.show_masks(axis, image, masks)
    grey = torch.full((10, 3), 0.7 * 60 / 255 + 0.2, dtype=torch.float64)
    colours = tensor([to_rgb(name) for name in drawing.INSTANCE_COLOURS])
    grey[:9] = 0.25 * grey[:9] + 0.75 * colours[[*range(8), 0]]
    torch.testing.assert_close(picture(axis)[0].double(), grey, atol=1e-6, rtol=0)


def test_near_is_bright_and_no_depth_is_blank(axis):
    drawing.show_depth(axis, tensor([[0.0, 1.0], [5.0, 60.0]]), farthest=40.0)
    shown = axis.images[0].get_array()
    assert shown.mask.tolist() == [[True, False], [False, False]]
    expected = [-math.log(depth) for depth in (1, 5, 60)]
    assert shown.compressed().tolist() == pytest.approx(expected)
    assert axis.images[0].get_clim() == pytest.approx((-math.log(40), -math.log(2)))


def test_flow_is_hue_and_saturation(axis, caplog):
    flow = tensor([[[6.0, -3, 0, 0, 9]], [[0.0, 0, 0, 6, 0]]])
    drawing.show_flow(axis, flow, largest=6.0)
    assert not caplog.records
    right, left, still, down, fast = picture(axis)[0].tolist()
    assert right == fast == pytest.approx([1, 0, 0])  # red; no more than saturated
    assert left == pytest.approx([0.5, 1, 1])  # half as long: half of cyan
    assert still == pytest.approx([1, 1, 1])
    assert down == pytest.approx([0.5, 1, 0])  # a quarter round
    drawing.show_flow(axis, 0 * flow, largest=0.0)
    assert (picture(axis) == 1).all()


# The overview ----------------------------------------------------------------------


def words(figure) -> list[str]:
    titles = [axis.get_title() for axis in figure.axes]
    assert [title.split("\n")[0] for title in titles] == [
        f"{number} {TASKS[name].title.lower()}" for number, name in enumerate(NAMES, 1)
    ]
    plt.close(figure)
    return [" ".join(title.split("\n")[1:]) for title in titles]


def test_the_overview_shows_the_truth_for_every_task(scenes):
    scene = overview.choose(scenes)
    labels = scene.labels[0][scene.labels[0] >= 0]
    tracks = len(TASKS["trajectory_prediction"].prepare(scene).inputs[0])
    lines = int(scene.lanes[0].isfinite().any(dim=1).sum())
    assert words(overview.truths(scene)) == [
        OBJECT_CLASSES[scene.main[0]],
        f"{len(labels)} objects",
        "a class for every pixel",
        f"{len(labels)} masks",
        f"nearest point at {scene.depth[scene.depth > 0].min():.1f} m",
        f"up to {scene.flow[0].norm(dim=0).max():.1f} pixels",
        f"{lines} lines",
        f"{tracks} tracks, from above",
        "what does not belong",
        scene.captions[0],
        "64×64",
        "what the outlined holes hide",
    ]


def test_the_overview_shows_what_each_model_predicts(scenes):
    models = {name: untrained(name) for name in NAMES}
    scene = overview.choose(scenes)
    shown = words(overview.predictions(scene, models))
    batch = TASKS["classification"].prepare(scene)
    sure = models["classification"](*batch.inputs).softmax(1)[0].max().item()
    assert shown[0].endswith(f", {sure:.0%}")
    assert shown[8] == "how unusual each place is"
    assert shown[10] == "64×64 from 16×16"


def test_the_overviews_scene_has_something_for_every_task(scenes):
    """All else equal, each of these makes a scene the one that is shown."""
    plain = scenes[[0] * 3]
    plain = dataclasses.replace(
        plain,
        anomaly=torch.zeros_like(plain.anomaly),
        labels=tensor([[0, -1, -1, -1, -1]] * 3),
        images=torch.full_like(plain.images, 80),
        lanes=torch.full_like(plain.lanes, math.nan),
        flow=torch.zeros_like(plain.flow),
    )
    for field, better in {
        "anomaly": torch.ones_like(plain.anomaly[0]),
        "labels": tensor([0, 0, 0, 0, -1]),  # more of them
        "images": torch.full_like(plain.images[0], 100),  # daylight
        "lanes": torch.ones_like(plain.lanes[0]),
        "flow": torch.ones_like(plain.flow[0]),
    }.items():
        values = getattr(plain, field).clone()
        values[1] = better
        assert (
            chosen := overview.choose(dataclasses.replace(plain, **{field: values}))
        )
        assert torch.equal(getattr(chosen, field)[0], better), field
    labels = tensor([[0, 0, -1], [0, 1, -1], [0, 0, -1]])  # of two classes
    chosen = overview.choose(dataclasses.replace(plain, labels=labels))
    assert chosen.labels.tolist() == [[0, 1, -1]]
    assert len(overview.choose(plain)) == 1


# The command -----------------------------------------------------------------------


class Guess(Task):
    """Measured without any learning; says which scenes and model it was given."""

    def __init__(self, name: str, test_split: str) -> None:
        self.name, self.test_split = name, test_split

    title, hebrew = "A guess", "ניחוש"
    metric, baseline_name, higher_is_better = "right", "always no", False
    recipe = TaskRecipe(steps=20, batch_size=5, seed=3)
    build_model = example_inputs = prepare = loss = None

    def training_scenes(self, scenes):
        return scenes[1:]

    def measure(self, model, scenes):
        CLOCK.now += 20.0
        return {"wrong": 1.0, "right": model.weight.numel() / len(scenes)}

    def baselines(self, train, test):
        CLOCK.now += 3.04
        return {
            "always yes": {"right": 9.0},
            "always no": {"right": len(train) / len(test), "wrong": 8.0},
        }

    def figure(self, model, scenes):
        figure, axis = plt.subplots()
        axis.set_title(f"{len(scenes)} scenes, {model.weight.numel()} weights")
        return figure


CLOCK = SimpleNamespace(now=0.0)


@pytest.fixture
def vision(tmp_path, monkeypatch, scenes):
    """The command with two tasks that learn nothing, in a folder of its own.

    Called with arguments, it returns what was done: `loaded` (the splits and how),
    `trained`, `saved` (figures' titles by path), `overviews`, `pages`.
    """
    tasks = {"one": Guess("one", "test"), "two": Guess("two", "anomalies")}
    counts = {"train": 7, "test": 4, "anomalies": 5}
    done = SimpleNamespace(
        loaded=[], trained=[], saved={}, overviews=[], pages=0, folder=tmp_path
    )

    def load_scenes(split, **how):
        done.loaded.append((split, how))
        return scenes[: counts[split]]

    def train_task(task, scenes, recipe, folder, *, anew):
        done.trained.append((task.name, len(scenes), recipe, folder, anew))
        CLOCK.now += 1000.0  # not as long as it took when it was trained
        model = nn.Linear(3 if task.name == "one" else 6, 2)
        made = {"device": f"a machine for {task.name}"}
        return Trained(model.eval(), [3.0, 2.0], 40.0, made, loaded=False)

    def update_pages():
        done.pages += 1
        return ["answers/a.md", "README.md"]

    def draw(which):
        def overview(scene, models=None):
            done.overviews.append((which, len(scene), models and list(models)))
            figure, axis = plt.subplots()
            axis.set_title(which)
            return figure

        return overview

    save = command.save_figure

    def save_figure(figure, path):
        save(figure, path)
        done.saved[path.relative_to(tmp_path).as_posix()] = figure.axes[0].get_title()

    for where, name, value in [
        (command, "TASKS", tasks),
        (guide, "TASKS", tasks),
        (command, "CACHE", tmp_path / "cache"),
        (guide, "FOLDER", tmp_path / "answers"),
        (guide, "update_pages", update_pages),
        (command, "load_scenes", load_scenes),
        (command, "train_task", train_task),
        (command, "start_weights", lambda: print("the weights")),
        (command, "time", SimpleNamespace(perf_counter=lambda: CLOCK.now)),
        (command, "save_figure", save_figure),
        (overview, "choose", lambda scenes: scenes[:1]),
        (overview, "truths", draw("truths")),
        (overview, "predictions", draw("predictions")),
    ]:
        monkeypatch.setattr(where, name, value)

    def run(*args: str) -> SimpleNamespace:
        assert command.main(list(args)) == 0
        assert not plt.get_fignums()  # all closed
        return done

    return run


def test_the_command_trains_measures_draws_records_and_writes(vision, capsys):
    done = vision()
    recipe, cache = Guess.recipe, done.folder / "cache/vision"
    assert done.trained == [
        ("one", 6, recipe, cache, False),
        ("two", 6, recipe, cache, False),
    ]
    # each split once, kept where all that is computed is
    assert done.loaded == [("train", {}), ("test", {}), ("anomalies", {})]
    assert done.saved == {
        "answers/figures/one.png": "4 scenes, 6 weights",
        "answers/figures/two.png": "5 scenes, 12 weights",
        "answers/figures/all_truths.png": "truths",
        "answers/figures/all_predictions.png": "predictions",
    }
    for path in done.saved:
        assert (done.folder / path).read_bytes().startswith(b"\x89PNG")
    assert done.overviews == [("truths", 1, None), ("predictions", 1, ["one", "two"])]
    assert done.pages == 1
    assert capsys.readouterr().out.splitlines() == [
        "the weights",
        "one: right 1.50, always no 1.50, 63 s",
        "two: right 2.40, always no 1.20, 63 s",
        "",
        "34.1 minutes",
        "answers/a.md brought up to date",
        "README.md brought up to date",
    ]
    results = guide.read_guide_results(done.folder / "answers/results.json")
    assert list(results) == ["one", "two"]
    assert results["two"] == guide.Result(
        metric="right",
        value=12 / 5,
        baseline=6 / 5,
        baseline_name="always no",
        higher_is_better=False,
        seconds=63.0,  # 40 of training, 20 and 3.04 of evaluation
        seed=3,
        measures={"wrong": 1.0, "right": 12 / 5},
        baselines={
            "always yes": {"right": 9.0},
            "always no": {"right": 6 / 5, "wrong": 8.0},
        },
        losses=[3.0, 2.0],
        parameters=6 * 2 + 2,
        recipe=dataclasses.asdict(recipe),
        training_scenes=6,
        test_scenes=5,
        provenance={"device": "a machine for two"},
    )


def test_fast_is_short_and_keeps_everything_in_the_cache(vision, capsys):
    done = vision("--fast")
    cache = done.folder / "cache/fast/vision"
    recipe = TaskRecipe(steps=3, batch_size=4, seed=3)
    assert [row[2:] for row in done.trained] == [(recipe, cache, True)] * 2
    how = {"count": 24, "size": 64, "workers": 0, "folder": cache}
    assert done.loaded == [("train", how), ("test", how), ("anomalies", how)]
    names = ("one", "two", "all_truths", "all_predictions")
    assert list(done.saved) == [f"cache/fast/vision/figures/{n}.png" for n in names]
    recorded = guide.read_guide_results(cache / "results.json")
    assert recorded["one"].recipe == dataclasses.asdict(recipe)
    assert Guess.recipe.steps == 20
    assert done.pages == 0 and not (done.folder / "answers").exists()
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "A trial on few scenes: nothing in answers/ was changed."


@pytest.mark.parametrize(
    ("args", "names"),
    [
        (["--task", "two"], ["two"]),
        (["--task", "two,one"], ["two", "one"]),
        (["--task", "two", "--task", "one,two"], ["two", "one"]),
    ],
)
def test_only_the_named_tasks_are_carried_out_each_once(vision, args, names):
    done = vision(*args)
    assert [row[0] for row in done.trained] == names
    assert len(done.overviews) == (2 if len(names) == 2 else 0)  # if it has them all
    assert len(done.saved) == (4 if len(names) == 2 else 1)
    assert done.pages == 1


def test_retrain_trains_anew(vision):
    assert [row[-1] for row in vision("--retrain").trained] == [True, True]


def test_pages_only_writes_pages(vision, capsys):
    done = vision("--pages")
    assert not done.trained and not done.loaded and not done.saved
    assert done.pages == 1
    assert capsys.readouterr().out.splitlines()[-1] == "README.md brought up to date"


def test_unknown_tasks_are_named_and_the_known_ones_are_listed(capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(["--task", "classification,telepathy", "--task", "magic"])
    assert stopped.value.code == 2
    printed = capsys.readouterr().err
    assert f"no task is called 'telepathy', 'magic'; there are {', '.join(NAMES)}" in (
        printed
    )


@pytest.mark.slow
def test_fast_carries_out_all_twelve_and_changes_no_answer():
    def answers():
        files = (path for path in PAGES.rglob("*") if path.is_file())
        return {path: path.stat().st_mtime_ns for path in files}

    before, started = answers(), time.perf_counter()
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
    results = guide.read_guide_results(made / "results.json")
    assert tuple(results) == NAMES
    seconds = [result.seconds for result in results.values()]
    assert min(seconds) >= 0  # to a tenth
    assert 0 < sum(seconds) < time.perf_counter() - started
    assert all(result.recipe["steps"] == 3 for result in results.values())
    assert all(len(result.losses) == 1 for result in results.values())
