"""Training from scratch: each step against a plain reference, seeded, resumable."""

import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import log_softmax
from torchvision.transforms import v2

from src import training
from src.cifar10 import Examples
from src.common import kept as keeping
from src.common.kept import make_key, place
from src.common.progress import LiveLog
from src.common.trained import keep_trained
from src.training import Epoch, Recipe

TRANSFORM = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
DOUBLE = v2.ToDtype(torch.float64, scale=True)
RECIPE = Recipe(epochs=4, peak_learning_rate=0.05, batch_size=16)
#: Nothing of it is at its default, so that each field is seen to be used.
UNUSUAL = Recipe(
    epochs=2,
    batch_size=6,
    peak_learning_rate=0.07,
    warm_up=0.5,
    momentum=0.7,
    weight_decay=0.03,
    label_smoothing=0.3,
    max_shift=2,
    mirrored=0.9,
    seed=5,
)


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


def train(partial=None, recipe=RECIPE, train_on=None):
    torch.manual_seed(recipe.seed)
    network = small_network()
    curve = training.train_from_scratch(
        network,
        recipe,
        train_on or bright_or_dark(50),
        bright_or_dark(20, seed=1),
        TRANSFORM,
        partial=partial,
    )
    return network, curve


def same(first: nn.Module, second: nn.Module) -> bool:
    states = first.state_dict().values(), second.state_dict().values()
    return all(torch.equal(a, b) for a, b in zip(*states, strict=True))


def without_times(curve):
    return [dataclasses.replace(epoch, seconds=0.0) for epoch in curve]


# ------------------------------------------------------------------------- the steps


def reflected(position, size):
    """Where a pixel's value is found that lies outside of an image of this size."""
    return size - 1 - abs(size - 1 - abs(position))


def reference_rates(recipe, steps):
    """The learning rate of each step; steps count from 0, the last one is steps - 1."""
    peak, top = recipe.peak_learning_rate, recipe.warm_up * steps - 1
    start, end = peak / 25, peak / 25 / 10_000
    rise = [start + (peak - start) * k / top for k in range(steps) if k <= top]
    fall = [
        peak + (end - peak) * (k - top) / (steps - 1 - top)
        for k in range(len(rise), steps)
    ]
    return rise + fall


def reference_training(network, recipe, data):
    """The training written out: a plain loop over images, steps and parameters.

    Returns the mean loss and the accuracy of each epoch.
    """
    count, velocities, rows = len(data), {}, []
    rates = reference_rates(
        recipe, recipe.epochs * math.ceil(count / recipe.batch_size)
    )
    for epoch in range(1, recipe.epochs + 1):
        chance = torch.Generator().manual_seed(recipe.seed * 1000 + epoch)
        order = torch.randperm(count, generator=chance).tolist()
        losses, right = [], 0
        network.train()
        for start in range(0, count, recipe.batch_size):
            chosen = order[start : start + recipe.batch_size]
            sides = 2 * recipe.max_shift + 1
            shifts = torch.randint(sides, (len(chosen), 2), generator=chance).tolist()
            draws = torch.rand(len(chosen), generator=chance).tolist()
            images = []
            for index, (down, right_by), draw in zip(
                chosen, shifts, draws, strict=True
            ):
                image = data.inputs[index].double() / 255
                rows_of, columns = (
                    [reflected(k + by - recipe.max_shift, 32) for k in range(32)]
                    for by in (down, right_by)
                )
                image = image[:, rows_of][:, :, columns]
                images.append(image.flip(2) if draw < recipe.mirrored else image)
            labels = data.labels[chosen]
            logits = network(torch.stack(images))
            target = torch.full_like(logits, recipe.label_smoothing / 2)
            target[range(len(chosen)), labels] += 1 - recipe.label_smoothing
            each = -(target * log_softmax(logits, 1)).sum(1)
            gradients = torch.autograd.grad(each.mean(), list(network.parameters()))

            rate = rates.pop(0)
            for p, gradient in zip(network.parameters(), gradients, strict=True):
                gradient = gradient + recipe.weight_decay * p.detach()
                last = velocities.get(p)
                m = recipe.momentum
                velocities[p] = gradient if last is None else m * last + gradient
                p.data -= rate * (gradient + m * velocities[p])
            losses += each.tolist()
            right += (logits.argmax(1) == labels).sum().item()
        rows.append((sum(losses) / count, right / count))
    assert rates == []
    return rows


@pytest.mark.parametrize("recipe", [UNUSUAL, Recipe(epochs=1, batch_size=7)])
def test_every_step_is_that_of_a_plain_reference(recipe, monkeypatch):
    """In float64, but for the logits, which are taken in single precision."""
    monkeypatch.setattr(training, "has_bfloat16", lambda device: False)
    torch.manual_seed(0)
    data, network = bright_or_dark(15), small_network().double()
    plain = small_network().double()
    plain.load_state_dict(network.state_dict())
    curve = training.train_from_scratch(network, recipe, data, data[:9], DOUBLE)
    rows = reference_training(plain, recipe, data)
    for (name, mine), theirs in zip(
        network.state_dict().items(), plain.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6, msg=name)
    assert [epoch.number for epoch in curve] == list(range(1, recipe.epochs + 1))
    for epoch, (loss, accuracy) in zip(curve, rows, strict=True):
        assert epoch.train_loss == pytest.approx(loss, abs=1e-6)
        assert epoch.train_accuracy == accuracy

    # the validation figures are those of the trained network in evaluation mode
    with torch.no_grad():
        logits = plain.eval()(data.inputs[:9].double() / 255)
    right = log_softmax(logits, 1)[range(9), data.labels[:9]]
    last = curve[-1]
    assert last.validation_loss == pytest.approx(-right.mean().item(), abs=1e-6)
    hits = (logits.argmax(1) == data.labels[:9]).sum().item()
    assert last.validation_accuracy == pytest.approx(hits / 9, abs=1e-6)


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Recipe)][1:])
def test_every_field_of_a_recipe_has_an_effect(field):
    changed = {"epochs": 3, "batch_size": 4, "warm_up": 0.9, "max_shift": 1, "seed": 6}
    value = changed.get(field, getattr(UNUSUAL, field) / 2)
    data = bright_or_dark(12)
    first, _ = train(recipe=UNUSUAL, train_on=data)
    torch.manual_seed(UNUSUAL.seed)
    other = small_network()
    recipe = dataclasses.replace(UNUSUAL, **{field: value})
    training.train_from_scratch(other, recipe, data, None, TRANSFORM)
    assert not same(first, other)


def test_the_default_recipe_is_the_documented_one():
    assert dataclasses.astuple(Recipe()) == (
        (64, 128, 256), 24, 125, 0.2, 0.2, 0.9, 1e-3, 0.1, 3, 0.5, 13
    )  # fmt: skip


def test_it_learns():
    _, curve = train(recipe=dataclasses.replace(RECIPE, epochs=8))
    assert curve[-1].validation_accuracy == 1.0
    assert curve[-1].train_loss < curve[0].train_loss
    assert all(0 < epoch.seconds < 60 for epoch in curve)


def test_the_same_seed_gives_the_same_network():
    (first, curve), (second, again) = train(), train()
    assert same(first, second)
    assert without_times(curve) == without_times(again)


def test_without_validation_the_curve_has_no_validation_figures():
    torch.manual_seed(0)
    recipe = dataclasses.replace(RECIPE, epochs=1)
    [epoch] = training.train_from_scratch(
        small_network(), recipe, bright_or_dark(20), None, TRANSFORM
    )
    assert math.isnan(epoch.validation_loss)
    assert math.isnan(epoch.validation_accuracy)


# ------------------------------------------------------------------ what it is made of


def test_each_image_is_shifted_and_mirrored_for_itself():
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(3, 8, 8, generator=generator)
    copies = image.expand(300, -1, -1, -1)
    places = [[reflected(k + by, 8) for k in range(8)] for by in (-1, 0, 1)]
    shifted = [image[:, rows][:, :, columns] for rows in places for columns in places]
    flipped = [one.flip(2) for one in shifted]

    def seen(**changes):
        recipe = dataclasses.replace(UNUSUAL, max_shift=1, **changes)
        found = training.augment(copies, recipe, generator)
        assert found.shape == copies.shape and found.dtype == torch.float32
        return [tuple(one.flatten().tolist()) for one in found]

    def distinct(images):
        return {tuple(one.flatten().tolist()) for one in images}

    # all nine of each, and nothing else
    assert set(seen(mirrored=0.0)) == distinct(shifted)
    assert set(seen(mirrored=1.0)) == distinct(flipped)
    some = seen(mirrored=0.2)
    assert set(some) == distinct(shifted + flipped)
    count = sum(one in distinct(flipped) for one in some)
    assert 39 <= count <= 81  # 60, within three standard deviations

    still = dataclasses.replace(UNUSUAL, max_shift=0, mirrored=0.0)
    assert torch.equal(training.augment(copies, still, generator), copies)


def test_the_learning_rate_rises_and_falls_to_zero():
    recipe = Recipe(epochs=2, peak_learning_rate=0.3, warm_up=0.2, momentum=0.8)
    optimiser, schedule = training.optimiser_and_schedule(small_network(), recipe, 5)
    rates = []
    for _ in range(10):
        [group] = optimiser.param_groups
        rates.append(group["lr"])
        assert (group["momentum"], group["nesterov"]) == (0.8, True)
        assert group["weight_decay"] == recipe.weight_decay
        optimiser.step()
        schedule.step()
    assert rates[:2] == pytest.approx([0.3 / 25, 0.3])
    falling = [0.3 * (9 - step) / 8 for step in range(2, 10)]
    assert rates[2:] == pytest.approx(falling, abs=1e-5)
    assert rates == pytest.approx(reference_rates(recipe, 10), abs=1e-12)


def test_every_parameter_learns():
    network = small_network()
    optimiser, _ = training.optimiser_and_schedule(network, RECIPE, 3)
    [group] = optimiser.param_groups
    assert list(map(id, group["params"])) == list(map(id, network.parameters()))


def test_an_epoch_meets_each_example_once_in_the_generators_order():
    data = Examples(torch.arange(14.0).view(7, 2), torch.arange(7))
    order = torch.randperm(7, generator=torch.Generator().manual_seed(4))
    cpu = torch.device("cpu")
    for change, factor in ((None, 1), (lambda inputs: 3 * inputs, 3)):
        generator = torch.Generator().manual_seed(4)
        batches = list(training.shuffled(data, 3, generator, cpu, change))
        assert [len(labels) for _, labels in batches] == [3, 3, 1]
        assert torch.equal(torch.cat([labels for _, labels in batches]), order)
        inputs = torch.cat([inputs for inputs, _ in batches])
        assert torch.equal(inputs, factor * data.inputs[order])
    images = Examples(torch.zeros(2, 3, 4, 4), torch.zeros(2))
    [(batch, _)] = training.shuffled(images, 2, generator, cpu)
    assert batch.is_contiguous(memory_format=torch.channels_last)


def test_an_epochs_means_are_over_images_and_reported_as_they_grow():
    """A network that learns nothing, and a last batch that is smaller."""
    network = nn.Linear(2, 2).eval()
    nn.init.eye_(network.weight)
    nn.init.zeros_(network.bias)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.0)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimiser)
    logits = torch.tensor([[0.8, 0.2], [0.4, 0.6], [0.9, 0.1]]).log()
    labels, said = torch.tensor([0, 0, 0]), []
    batches = [(logits[:2], labels[:2]), (logits[2:], labels[2:])]
    loss, accuracy = training.train_epoch(
        network, batches, optimiser, schedule, report=said.append
    )
    assert network.training
    assert loss == pytest.approx(-math.log(0.8 * 0.4 * 0.9) / 3, abs=1e-6)
    assert accuracy == pytest.approx(2 / 3)
    assert said == ["loss 0.570, accuracy 50.0%", "loss 0.415, accuracy 66.7%"]
    assert schedule.last_epoch == 2


def test_16_bits_are_used_where_they_are_fast(monkeypatch):
    asked, losses = [], []

    def train_epoch(*given):
        asked.append(given[5])
        return 0.0, 0.0

    data, recipe = bright_or_dark(4), dataclasses.replace(RECIPE, epochs=1)
    with monkeypatch.context() as patch:
        patch.setattr(training, "train_epoch", train_epoch)
        for answer in (True, False):
            patch.setattr(training, "has_bfloat16", lambda device, it=answer: it)
            training.train_from_scratch(small_network(), recipe, data, None, TRANSFORM)
    assert asked == [True, False]

    torch.manual_seed(0)
    network = small_network()
    images, labels = TRANSFORM(data.inputs), data.labels
    for bfloat16 in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16), torch.no_grad():
            logits = network.train()(images).float()
        expected, _ = training.loss_and_accuracy(logits, labels)
        optimiser = torch.optim.SGD(network.parameters(), lr=0.0)
        schedule = torch.optim.lr_scheduler.ConstantLR(optimiser)
        loss, _ = training.train_epoch(
            network, [(images, labels)], optimiser, schedule, bfloat16=bfloat16
        )
        assert loss == pytest.approx(expected, abs=1e-6)
        losses.append(loss)
    assert 1e-5 < abs(losses[0] - losses[1]) < 0.05
    assert {p.dtype for p in network.parameters()} == {torch.float32}


def test_the_inputs_are_made_once_for_all_epochs():
    data, seen = bright_or_dark(1003), []

    def transform(images):
        seen.append(len(images))
        return TRANSFORM(images)

    recipe = Recipe(epochs=2, batch_size=500)
    training.train_from_scratch(small_network(), recipe, data, None, transform)
    assert seen == [1000, 3]


def test_predictions_are_those_of_evaluation_mode_in_order():
    torch.manual_seed(0)
    network, data = small_network().train(), bright_or_dark(7)
    network(TRANSFORM(bright_or_dark(9, seed=2).inputs))  # moves the running statistics
    logits = training.predict(network, data.inputs, TRANSFORM, batch_size=3)
    assert not network.training
    assert logits.dtype == torch.float32 and not logits.requires_grad
    with torch.no_grad():
        expected = [network(TRANSFORM(image[None]))[0] for image in data.inputs]
    torch.testing.assert_close(logits, torch.stack(expected), rtol=0, atol=1e-6)

    seen = []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for options, sizes in (({"batch_size": 3}, [3, 3, 1]), ({}, [7])):
        seen.clear()
        training.predict(network, data.inputs, TRANSFORM, **options)
        assert [len(batch) for batch in seen] == sizes
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert training.to_device(torch.zeros(2, 3), torch.device("cpu")).is_contiguous()


def test_loss_and_accuracy_by_hand():
    logits = torch.tensor([[0.8, 0.2], [0.4, 0.6], [0.9, 0.1]]).log()
    loss, accuracy = training.loss_and_accuracy(logits, torch.tensor([0, 0, 0]))
    assert loss == pytest.approx(-math.log(0.8 * 0.4 * 0.9) / 3, abs=1e-6)
    assert accuracy == pytest.approx(2 / 3)


def test_the_log_is_a_table(capsys):
    epoch = Epoch(3, 1.23456, 0.98765, 0.5, 0.25, 61.26)
    assert f"{training.EPOCH_HEADER}\n{training.format_epoch(epoch)}" == (
        "epoch   train loss  accuracy   validation loss  accuracy   seconds\n"
        "    3        1.235    98.77%             0.500    25.00%      61.3"
    )
    alone = Epoch(12, 0.5, 1.0, math.nan, math.nan, 5.0)
    assert training.format_epoch(alone) == (
        "   12        0.500   100.00%                 –         –       5.0"
    )
    _, curve = train(recipe=dataclasses.replace(RECIPE, epochs=2))
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.strip()] == [
        training.format_epoch(epoch) for epoch in curve
    ]


# --------------------------------------------------------------- interrupted and kept


@pytest.mark.parametrize("interrupted_after", [1, 3])
def test_resuming_gives_what_an_uninterrupted_training_gives(
    tmp_path, monkeypatch, capsys, interrupted_after
):
    expected, curve = train()
    save = training.save_progress
    saved = []

    def save_then_stop(*arguments, **more):
        save(*arguments, **more)
        saved.append(1)
        if len(saved) == interrupted_after:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "save_progress", save_then_stop)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "state.pt")
    monkeypatch.setattr(training, "save_progress", save)
    capsys.readouterr()
    resumed, resumed_curve = train(tmp_path / "state.pt")
    assert same(expected, resumed)
    assert without_times(curve) == without_times(resumed_curve)
    said = f"(epochs 1 to {interrupted_after} resumed from a checkpoint)"
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_damaged_progress_is_not_used(tmp_path, capsys, content):
    path = tmp_path / "state.pt"
    path.write_bytes(content)
    network, _ = train(path)
    assert "can't be read" in capsys.readouterr().out
    assert same(network, train()[0])


def finish(folder, recipe=RECIPE, build=lambda recipe: small_network(), **where):
    return training.train_or_load(
        "finished",
        build,
        recipe,
        bright_or_dark(50),
        bright_or_dark(20, seed=1),
        TRANSFORM,
        folder=folder,
        **where,
    )


def test_a_finished_training_is_loaded_and_equals_the_trained_network(tmp_path):
    trained = finish(tmp_path)
    assert not trained.loaded
    torch.manual_seed(99)  # whatever was drawn before, the start is the recipe's seed
    loaded = finish(tmp_path)
    assert loaded.loaded
    assert same(trained.model, loaded.model)
    assert not trained.model.training and not loaded.model.training
    assert loaded.history == trained.history
    assert [type(row) for row in loaded.history] == [Epoch] * RECIPE.epochs
    assert loaded.provenance == trained.provenance
    assert loaded.provenance["torch"] == str(torch.__version__)
    assert loaded.seconds == sum(epoch.seconds for epoch in trained.history) > 0
    [file] = tmp_path.iterdir()  # nothing unfinished is left

    # it is what the plain training gives, its weights kept in half precision
    network, curve = train()
    assert without_times(curve) == without_times(trained.history)
    state = torch.load(file, weights_only=True)["model"]
    for name, value in network.state_dict().items():
        floating = value.is_floating_point()
        assert state[name].dtype == (torch.float16 if floating else value.dtype), name
        rounded = value.half().float() if floating else value
        assert torch.equal(trained.model.state_dict()[name], rounded), name


def test_the_network_is_built_for_its_recipe_after_seeding(tmp_path):
    built = []

    def build(recipe):
        built.append(recipe)
        return small_network()

    recipe = dataclasses.replace(RECIPE, epochs=1)
    torch.manual_seed(99)
    first = finish(tmp_path / "a", recipe, build)
    torch.manual_seed(98)
    assert same(finish(tmp_path / "b", recipe, build).model, first.model)
    assert built == [recipe, recipe]


def test_unfinished_training_is_kept_beside_and_goes_on(tmp_path, monkeypatch):
    expected = finish(tmp_path / "whole")
    write, saved = keeping.write_state, []

    def write_then_stop(path, state):
        write(path, state)
        saved.append(path)
        if len(saved) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(keeping, "write_state", write_then_stop)
    with pytest.raises(KeyboardInterrupt):
        finish(tmp_path)
    resumed = finish(tmp_path, log=LiveLog(keep=False))
    assert not resumed.loaded
    assert same(resumed.model, expected.model)
    names = [path.name.rpartition("-")[0] for path in saved]  # two, then two more
    assert names == [*["finished.partial"] * RECIPE.epochs, "finished"]
    assert not saved[0].exists() and saved[-1].exists()


def test_keep_trained_keeps_full_precision_unless_asked(tmp_path):
    network, key = nn.Linear(1, 1), {"the recipe": "1"}
    paths = []

    def fit(path):
        paths.append(path)
        nn.init.constant_(network.weight, 1 / 3)
        return [0.5], 2.0

    trained = keep_trained("one", key, network, fit, folder=tmp_path)
    whole = key | make_key(half_precision=False)
    assert paths == [place("one.partial", whole, tmp_path)]
    assert trained.model.weight.item() == torch.tensor(1 / 3).item()
    assert (trained.history, trained.seconds) == ([0.5], 2.0)
    nn.init.zeros_(network.weight)
    loaded = keep_trained("one", key, network, fit, folder=tmp_path)
    assert loaded.loaded and loaded.model.weight.item() == torch.tensor(1 / 3).item()
    half = keep_trained("one", key, network, fit, half=True, folder=tmp_path, anew=True)
    assert half.model.weight.item() == torch.tensor(1 / 3).half().item()
    assert not half.loaded and len(paths) == 2
