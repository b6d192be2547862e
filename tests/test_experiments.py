"""Short trainings: drawn, trained, measured, kept; on few images, and the ablation."""

import dataclasses

import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from src import experiments
from src.cifar10 import Examples, draw
from src.experiments import Point
from src.head import HeadRecipe, fit_head, search
from src.training import Recipe, train_from_scratch

TRANSFORM = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
RECIPE = Recipe(epochs=2, batch_size=4)


def build(recipe):
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, recipe.widths[0] // 32)
    )


def images(count: int, seed: int) -> Examples:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (count, 3, 32, 32), generator=generator)
    return Examples(pixels.to(torch.uint8), torch.arange(count) % 2)


def features(count: int, seed: int) -> Examples:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 10
    inputs = torch.randn(count, 10, generator=generator)
    inputs[range(count), labels] += 1.5
    return Examples(inputs, labels)


def scratch(recipe: Recipe, train: Examples, test: Examples) -> float:
    """The accuracy of a training written out."""
    torch.manual_seed(recipe.seed)
    network = build(recipe)
    train_from_scratch(network, recipe, train, None, TRANSFORM)
    with torch.no_grad():
        logits = network(test.inputs.float() / 255)
    return (logits.argmax(1) == test.labels).float().mean().item()


def test_mean_of_a_point():
    assert Point(10, (0.2, 0.4)).mean == pytest.approx(0.3)


def test_a_training_is_done_once_and_kept(tmp_path, monkeypatch):
    train, test = images(8, seed=0), images(101, seed=1)
    arguments = build, RECIPE, train, test, TRANSFORM
    options = {"folder": tmp_path / "cache", "committed": tmp_path / "committed"}
    first = experiments.scratch_accuracy("few", *arguments, **options, anew=True)
    assert first == scratch(RECIPE, train, test)
    [file] = tmp_path.rglob("*.pt")
    assert file.relative_to(tmp_path).as_posix() == "committed/few.pt"
    state = torch.load(file)
    assert state["accuracy"] == first and 0 < state["seconds"] < 60
    monkeypatch.setattr(torch.optim.SGD, "step", lambda *_: pytest.fail("trains"))
    again = experiments.scratch_accuracy("few", *arguments, **options)
    assert again == first


def test_each_draw_is_trained_with_its_own_seed_and_images(tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, "SIZES", {4: 3})
    train, test = images(40, seed=0), images(101, seed=1)
    point = experiments.scratch_point(
        4, build, RECIPE, train, test, TRANSFORM, folder=tmp_path
    )
    assert point.images_per_class == 4
    assert point.accuracies == tuple(
        scratch(
            dataclasses.replace(RECIPE, seed=seed, epochs=3),
            train[draw(train.labels, 4, seed)],
            test,
        )
        for seed in (1, 2)
    )
    names = sorted(path.name.rpartition("-")[0] for path in tmp_path.iterdir())
    assert names == [f"three_blocks_4_a_class_{seed}" for seed in (1, 2)]


@pytest.fixture
def recipes(monkeypatch):
    """The recipes, and data, of trainings that are asked for, in place of them."""
    asked = []

    def scratch_accuracy(name, build, recipe, train, test, transform, **options):
        asked.append((name, recipe, train, test, options))
        return len(asked) / 100

    monkeypatch.setattr(experiments, "scratch_accuracy", scratch_accuracy)
    return asked


@pytest.mark.parametrize(("per_class", "batch_size"), [(10, 50), (50, 125)])
def test_few_images_are_trained_on_in_smaller_batches(recipes, per_class, batch_size):
    """At ten classes: two steps an epoch at least."""
    data = images(200, seed=0)
    experiments.scratch_point(per_class, build, Recipe(), data, data, TRANSFORM)
    assert [recipe.batch_size for _, recipe, *_ in recipes] == [batch_size] * 2
    epochs = {recipe.epochs for _, recipe, *_ in recipes}
    assert epochs == {experiments.SIZES[per_class]}


def test_trainings_of_the_ablation_differ_in_one_thing_each(recipes, monkeypatch):
    monkeypatch.setattr(experiments, "ABLATION_IMAGES", 3)
    monkeypatch.setattr(experiments, "ABLATION_EPOCHS", 5)
    monkeypatch.setattr(experiments, "ABLATION_WIDTHS", (2, 3, 4))
    recipe, train, validation = Recipe(), images(20, seed=0), images(9, seed=1)
    found = experiments.ablation(
        build, recipe, train, validation, TRANSFORM, folder="here"
    )
    assert list(found) == list(experiments.ABLATION)
    assert len(found) == 7
    # two seeds each, in order
    assert [*found.values()] == [(n / 100, (n + 1) / 100) for n in range(1, 15, 2)]

    base = dataclasses.replace(recipe, widths=(2, 3, 4), epochs=5)
    changed = []
    for number, (name, own, few, test, options) in enumerate(recipes):
        seed = 1 + number % 2
        assert name == f"ablation_{number // 2}_{seed}" and own.seed == seed
        expected = train[draw(train.labels, 3, seed)]
        assert torch.equal(few.inputs, expected.inputs)
        assert torch.equal(few.labels, expected.labels)
        assert test is validation and options == {"folder": "here"}
        expected = dataclasses.asdict(dataclasses.replace(base, seed=seed))
        mine = dataclasses.asdict(own)
        changed.append({k: v for k, v in mine.items() if v != expected[k]})
    assert changed[::2] == changed[1::2]
    assert changed[::2] == [
        {},
        {"max_shift": 0},
        {"mirrored": 0.0},
        {"label_smoothing": 0.0},
        {"weight_decay": 0.0},
        {"peak_learning_rate": recipe.peak_learning_rate / 2},
        {"peak_learning_rate": recipe.peak_learning_rate * 2},
    ]


def test_the_head_is_chosen_on_validation_and_measured_on_test(tmp_path, monkeypatch):
    train, validation, test = features(60, 0), features(50, 1), features(101, 2)
    asked = []

    def small_search(*data, **options):
        asked.append(options)
        grid = {"learning_rates": (1e-4, 1e-2), "weight_decays": (0.1,)}
        return search(*data, **grid, **options | {"epochs": 4}, folder=tmp_path)

    monkeypatch.setattr(experiments, "search", small_search)
    found = experiments.head_accuracy(train, validation, test, "few")
    best = small_search(train, validation, name="few")[0].recipe
    head = nn.Linear(10, 10)
    fit_head(head, best, train)
    hits = (head(test.inputs).argmax(1) == test.labels).float().mean().item()
    assert found == pytest.approx(hits)
    assert asked[0] == {"epochs": 300, "name": "few"}  # one step an epoch

    asked.clear()
    point = experiments.head_point(3, train, validation, test)
    assert [options["name"] for options in asked] == [
        "head-search-3-a-class-1",
        "head-search-3-a-class-2",
    ]
    drawn = [train[draw(train.labels, 3, seed)] for seed in (1, 2)]
    assert point == Point(
        3,
        tuple(
            experiments.head_accuracy(few, validation, test, f"again-{seed}")
            for seed, few in enumerate(drawn)
        ),
    )


@pytest.mark.parametrize(("count", "epochs"), [(500, 300), (501, 150), (10_000, 30)])
def test_the_head_takes_at_least_300_steps(monkeypatch, count, epochs):
    asked = []

    def no_search(*_, epochs, name):
        asked.append(epochs)
        raise KeyboardInterrupt

    monkeypatch.setattr(experiments, "search", no_search)
    data = features(count, 0)
    with pytest.raises(KeyboardInterrupt):
        experiments.head_accuracy(data, data, data)
    assert asked == [epochs]
    assert HeadRecipe.batch_size == 500
