"""Training from scratch: seeded, resumable, and learning."""

import dataclasses
import math

import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from src import training
from src.training import Examples, Recipe

TRANSFORM = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
RECIPE = Recipe(epochs=4, peak_learning_rate=0.05, batch_size=16)


def small_network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    )


def bright_or_dark(count: int, seed: int = 0) -> Examples:
    """A task that is learnt at once: dark images are 0, bright ones 1."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    noise = torch.randint(100, (count, 3, 32, 32), generator=generator)
    return Examples((noise + 120 * labels[:, None, None, None]).to(torch.uint8), labels)


def train(checkpoint=None, recipe=RECIPE, train_on=None):
    torch.manual_seed(recipe.seed)
    network = small_network()
    curve = training.train_from_scratch(
        network,
        recipe,
        train_on or bright_or_dark(50),
        bright_or_dark(20, seed=1),
        TRANSFORM,
        checkpoint=checkpoint,
    )
    return network, curve


def same(first: nn.Module, second: nn.Module) -> bool:
    return all(
        torch.equal(a, b)
        for a, b in zip(
            first.state_dict().values(), second.state_dict().values(), strict=True
        )
    )


def without_times(curve):
    return [dataclasses.replace(epoch, seconds=0.0) for epoch in curve]


def test_it_learns():
    _, curve = train(recipe=dataclasses.replace(RECIPE, epochs=8))
    assert curve[-1].validation_accuracy == 1.0
    assert curve[-1].train_loss < curve[0].train_loss


def test_the_same_seed_gives_the_same_network_and_another_another():
    (first, curve), (second, again) = train(), train()
    assert same(first, second)
    assert without_times(curve) == without_times(again)
    other, _ = train(recipe=dataclasses.replace(RECIPE, seed=99))
    assert not same(first, other)


@pytest.mark.parametrize("interrupted_after", [1, 3])
def test_resuming_gives_what_an_uninterrupted_training_gives(
    tmp_path, monkeypatch, interrupted_after
):
    expected, curve = train()
    save = training._save
    saved = []

    def save_then_stop(*arguments):
        save(*arguments)
        saved.append(1)
        if len(saved) == interrupted_after:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "_save", save_then_stop)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "state.pt")
    monkeypatch.setattr(training, "_save", save)
    resumed, resumed_curve = train(tmp_path / "state.pt")
    assert same(expected, resumed)
    assert without_times(curve) == without_times(resumed_curve)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_a_damaged_checkpoint_is_not_used(tmp_path, capsys, content):
    path = tmp_path / "state.pt"
    path.write_bytes(content)
    network, _ = train(path)
    assert "can't be read" in capsys.readouterr().out
    assert same(network, train()[0])


@pytest.mark.parametrize("older", [{"epoch": 3}, [1, 2]])
def test_a_checkpoint_of_an_older_version_is_not_used(tmp_path, older):
    for name in ("finished.partial.pt", "finished.pt"):
        torch.save(older, tmp_path / name)
    trained = finish(tmp_path / "finished.pt")
    assert not trained.loaded
    assert finish(tmp_path / "finished.pt").loaded


def test_a_checkpoint_of_other_data_is_not_used(tmp_path, capsys):
    path = tmp_path / "state.pt"
    train(path, train_on=bright_or_dark(50, seed=5))
    network, _ = train(path)
    assert "belongs to another" in capsys.readouterr().out
    assert same(network, train()[0])


def finish(path, recipe=RECIPE, retrain=False):
    return training.train_or_load(
        small_network,
        recipe,
        bright_or_dark(50),
        bright_or_dark(20, seed=1),
        TRANSFORM,
        path,
        retrain=retrain,
    )


def test_a_finished_training_is_loaded_and_equals_the_trained_network(tmp_path):
    path = tmp_path / "finished.pt"
    trained = finish(path)
    assert not trained.loaded
    loaded = finish(path)
    assert loaded.loaded
    assert same(trained.model, loaded.model)
    assert loaded.curve == trained.curve
    assert loaded.made_with == trained.made_with
    assert loaded.seconds == sum(epoch.seconds for epoch in trained.curve) > 0
    assert [file.name for file in tmp_path.iterdir()] == ["finished.pt"]


def test_a_finished_training_of_another_recipe_is_not_loaded(tmp_path):
    path = tmp_path / "finished.pt"
    finish(path)
    assert not finish(path, recipe=dataclasses.replace(RECIPE, epochs=3)).loaded
    assert not finish(path, recipe=RECIPE).loaded  # overwritten by the one before
    assert not finish(path, retrain=True).loaded


def test_hold_out_takes_a_tenth_of_each_class_and_loses_nothing():
    labels = torch.arange(200) % 10
    data = Examples(torch.arange(200), labels)
    kept, held_out = training.hold_out(data)
    assert held_out.labels.bincount().tolist() == [2] * 10
    assert torch.equal(
        torch.cat([kept.inputs, held_out.inputs]).sort().values, data.inputs
    )
    again, _ = training.hold_out(data)
    assert torch.equal(kept.inputs, again.inputs)


def test_augmentation_shifts_and_mirrors_whole_images():
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(256, (1, 3, 8, 8), generator=generator).to(torch.uint8)
    mirrored = torch.arange(300) % 2 == 0
    augmented = training.augment(image.expand(300, -1, -1, -1), mirrored, 1, generator)
    assert augmented.shape == (300, 3, 8, 8)
    assert augmented.dtype == torch.uint8
    padded = nn.functional.pad(image.float(), [1] * 4, mode="reflect").to(torch.uint8)
    crops = [
        padded[..., down : down + 8, right : right + 8]
        for down in range(3)
        for right in range(3)
    ]

    def distinct(images):
        return {tuple(one.flatten().tolist()) for one in images}

    # all nine of each, and nothing else
    assert distinct(augmented[mirrored]) == distinct(crop.flip(-1) for crop in crops)
    assert distinct(augmented[~mirrored]) == distinct(crops)


def test_each_image_is_met_once_an_epoch_and_mirrored_in_every_other(monkeypatch):
    seen = []
    augment = training.augment

    def watch(images, mirrored, max_shift, generator):
        seen.append((images[:, 0, 0, 0].clone(), mirrored.clone()))
        return augment(images, mirrored, max_shift, generator)

    monkeypatch.setattr(training, "augment", watch)
    count = 50  # the first pixel of an image is its number
    images = torch.zeros(count, 3, 32, 32, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(count)
    train(train_on=Examples(images, torch.arange(count) % 2))
    batches_per_epoch = 4  # of 16, 16, 16 and 2
    mirrored_in = torch.zeros(RECIPE.epochs, count, dtype=torch.bool)
    orders = []
    for epoch in range(RECIPE.epochs):
        part = seen[batches_per_epoch * epoch : batches_per_epoch * (epoch + 1)]
        order = torch.cat([numbers for numbers, _ in part]).long()
        assert order.sort().values.tolist() == list(range(count))
        mirrored_in[epoch, order] = torch.cat([mirrored for _, mirrored in part])
        orders.append(order.tolist())
    assert orders[0] != orders[1]
    assert torch.equal(mirrored_in[0], ~mirrored_in[1])
    assert torch.equal(mirrored_in[0], mirrored_in[2])
    assert 10 < mirrored_in[0].sum() < 40


def test_the_learning_rate_rises_and_falls_to_zero():
    recipe = Recipe(epochs=2, peak_learning_rate=0.3)
    rates = [recipe.learning_rate(step, 5) for step in range(10)]
    assert rates[:2] == pytest.approx([0.15, 0.3])
    assert rates[2:] == pytest.approx([0.3 * (10 - step) / 8 for step in range(2, 10)])
    assert recipe.learning_rate(10, 5) == 0


def test_biases_and_batchnorm_learn_faster_and_decay_alike():
    network = small_network()
    network[0].weight.requires_grad_(False)
    weights, vectors = training.make_optimiser(network, RECIPE).param_groups
    assert [p.ndim for p in weights["params"]] == [2]  # not the frozen one
    assert [p.ndim for p in vectors["params"]] == [1] * 4
    assert vectors["factor"] == RECIPE.vector_factor == 8 * weights["factor"]
    for group in (weights, vectors):
        assert group["weight_decay"] * group["factor"] == RECIPE.weight_decay


def test_without_validation_the_curve_has_no_validation_figures():
    torch.manual_seed(0)
    recipe = dataclasses.replace(RECIPE, epochs=1)
    [epoch] = training.train_from_scratch(
        small_network(), recipe, bright_or_dark(20), None, TRANSFORM
    )
    assert math.isnan(epoch.validation_loss)
    assert math.isnan(epoch.validation_accuracy)


def test_as_many_labels_as_inputs():
    with pytest.raises(ValueError, match="3 inputs, 2 labels"):
        Examples(torch.zeros(3, 1), torch.zeros(2, dtype=torch.long))
