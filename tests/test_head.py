"""The head: each step against a plain reference, and chosen on validation."""

import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import log_softmax

from src.cifar10 import Examples
from src.common.progress import LiveLog
from src.common.project import FAST
from src.head import Choice, HeadRecipe, choices_table, fit_head, measure, search

RECIPE = HeadRecipe(learning_rate=0.05, epochs=20, batch_size=50)


def clusters(count: int, seed: int) -> Examples:
    """Features of ten classes around ten centres."""
    centres = torch.randn(10, 20, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 10
    inputs = centres[labels] + 0.6 * torch.randn(count, 20, generator=generator)
    return Examples(inputs, labels)


def accuracy(head, data):
    return (head(data.inputs).argmax(1) == data.labels).float().mean().item()


def reference_fit(recipe, data, classes=10):
    """AdamW and its cosine; weight, bias, and each epoch's loss and accuracy."""
    inputs, count = data.inputs, len(data)
    weight = torch.zeros(classes, inputs.shape[1], dtype=inputs.dtype)
    bias = torch.zeros(classes, dtype=inputs.dtype)
    moments = [[torch.zeros_like(p), torch.zeros_like(p)] for p in (weight, bias)]
    batches = math.ceil(count / recipe.batch_size)
    steps, step, rows = recipe.epochs * batches, 0, []
    generator = torch.Generator().manual_seed(recipe.seed)
    for _ in range(recipe.epochs):
        order, losses, right = torch.randperm(count, generator=generator), [], 0
        for index in order.split(recipe.batch_size):
            logits = inputs[index] @ weight.T + bias
            targets = nn.functional.one_hot(data.labels[index], classes)
            losses += (-(targets * log_softmax(logits, 1)).sum(1)).tolist()
            right += (logits.argmax(1) == data.labels[index]).sum().item()
            error = (logits.softmax(1) - targets) / len(index)
            rate = recipe.learning_rate * (1 + math.cos(math.pi * step / steps)) / 2
            step += 1
            gradients = error.T @ inputs[index], error.sum(0)
            for p, g, m in zip((weight, bias), gradients, moments, strict=True):
                p *= 1 - rate * recipe.weight_decay
                m[0] = 0.9 * m[0] + 0.1 * g
                m[1] = 0.999 * m[1] + 0.001 * g**2
                first, second = m[0] / (1 - 0.9**step), m[1] / (1 - 0.999**step)
                p -= rate * first / (second.sqrt() + 1e-8)
        rows.append((sum(losses) / count, right / count))
    return weight, bias, rows


def test_every_step_is_that_of_a_plain_reference():
    recipe = HeadRecipe(0.02, 0.3, epochs=3, batch_size=15, seed=4)
    data = clusters(40, seed=1)
    data = Examples(data.inputs.double(), data.labels)
    validation = clusters(30, seed=2)
    validation = Examples(validation.inputs.double(), validation.labels)
    head = nn.Linear(20, 10).double()
    curve = fit_head(head, recipe, data, validation)
    weight, bias, rows = reference_fit(recipe, data)
    torch.testing.assert_close(head.weight.detach(), weight, rtol=0, atol=1e-6)
    torch.testing.assert_close(head.bias.detach(), bias, rtol=0, atol=1e-6)
    for number, (epoch, (loss, hits)) in enumerate(zip(curve, rows, strict=True), 1):
        assert epoch.number == number
        assert epoch.train_loss == pytest.approx(loss, abs=1e-6)
        assert epoch.train_accuracy == pytest.approx(hits, abs=1e-9)
        assert 0 < epoch.seconds < 60
    with torch.no_grad():
        right = log_softmax(head(validation.inputs), 1)[range(30), validation.labels]
    last = curve[-1]
    assert last.validation_loss == pytest.approx(-right.mean().item(), abs=1e-6)
    assert last.validation_accuracy == pytest.approx(accuracy(head, validation))
    assert measure(head, validation) == (last.validation_loss, last.validation_accuracy)
    alone = fit_head(nn.Linear(20, 10).double(), recipe, data)
    assert all(math.isnan(epoch.validation_loss) for epoch in alone)
    assert all(math.isnan(epoch.validation_accuracy) for epoch in alone)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("learning_rate", 0.02),
        ("weight_decay", 0.5),
        ("epochs", 3),
        ("batch_size", 7),
        ("seed", 2),
    ],
)
def test_every_field_of_a_recipe_has_an_effect(field, value):
    recipe, train = HeadRecipe(epochs=2, batch_size=20), clusters(50, seed=1)
    heads = [nn.Linear(20, 10), nn.Linear(20, 10), nn.Linear(20, 10)]
    fit_head(heads[0], recipe, train)
    fit_head(heads[1], recipe, train)  # from another start, which does not matter
    fit_head(heads[2], dataclasses.replace(recipe, **{field: value}), train)
    assert torch.equal(heads[0].weight, heads[1].weight)
    assert torch.equal(heads[0].bias, heads[1].bias)
    assert not torch.equal(heads[0].weight, heads[2].weight)


@pytest.mark.skipif(FAST, reason="fast mode has fewer epochs")
def test_the_default_recipe_and_grid():
    assert dataclasses.astuple(HeadRecipe()) == (1e-2, 1e-1, 30, 500, 13)
    defaults = search.__kwdefaults__
    assert defaults["learning_rates"] == (1e-3, 3e-3, 1e-2, 3e-2)
    assert defaults["weight_decays"] == (1e-2, 1e-1, 1.0)
    assert defaults["epochs"] == 30


def test_it_learns():
    train, test = clusters(500, seed=1), clusters(300, seed=2)
    head = nn.Linear(20, 10)
    curve = fit_head(head, RECIPE, train)
    assert accuracy(head, test) > 0.95
    assert curve[-1].train_loss < curve[0].train_loss


def test_search_tries_every_combination_and_ranks_by_validation_loss(tmp_path):
    train, validation = clusters(200, seed=1), clusters(100, seed=2)
    found = search(
        train,
        validation,
        learning_rates=(1e-6, 1e-2),
        weight_decays=(0.01, 0.1),
        epochs=3,
        folder=tmp_path,
    )
    tried = {dataclasses.astuple(choice.recipe) for choice in found}
    assert tried == {
        (rate, decay, 3, 500, 13) for rate in (1e-6, 1e-2) for decay in (0.01, 0.1)
    }
    losses = [choice.validation_loss for choice in found]
    assert losses == sorted(losses)
    assert found[0].recipe.learning_rate == 1e-2
    for choice in found:  # each measured on validation, after its own fit
        head = nn.Linear(20, 10)
        fit_head(head, choice.recipe, train)
        with torch.no_grad():
            right = log_softmax(head(validation.inputs), 1)
        loss = -right[range(100), validation.labels].mean().item()
        assert choice.validation_loss == pytest.approx(loss, abs=1e-6)
        assert choice.validation_accuracy == pytest.approx(accuracy(head, validation))
    [kept] = tmp_path.iterdir()
    assert kept.name.startswith("head-search-")


def test_search_remembers_what_it_found(tmp_path, monkeypatch):
    train, validation = clusters(100, seed=1), clusters(50, seed=2)
    options = {"epochs": 1, "folder": tmp_path, "log": LiveLog(), "name": "few"}
    found = search(train, validation, **options)
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda *_: pytest.fail("fits"))
    assert search(train, validation, **options) == found
    assert [path.name.startswith("few-") for path in tmp_path.iterdir()] == [True]


def test_the_table_of_choices_shows_the_best_and_the_worst():
    choices = [
        Choice(HeadRecipe(0.003, 0.1), 0.81237, 0.55556),
        Choice(HeadRecipe(0.01, 1.0), 0.8, 0.6),
        Choice(HeadRecipe(0.03, 0.01), 0.79, 0.65),
        Choice(HeadRecipe(0.001, 0.01), 0.5, 1.25),
    ]
    assert choices_table(choices, shown=2) == (
        "| place | learning rate | weight decay | validation loss | accuracy |\n"
        "| :-- | --: | --: | --: | --: |\n"
        "| 1 | 0.003 | 0.1 | 0.5556 | 81.24% |\n"
        "| 2 | 0.01 | 1 | 0.6000 | 80.00% |\n"
        "| … | … | … | … | … |\n"
        "| 4 | 0.001 | 0.01 | 1.2500 | 50.00% |"
    )
    assert len(choices_table(choices * 3).splitlines()) == 2 + 4 + 2
