"""The head: standardisation folded in, recipes chosen on validation."""

import dataclasses

import pytest
import torch
from torch import nn

from src import head as head_module
from src.common.progress import LiveLog
from src.head import HeadRecipe, fit_head, fold_standardisation, search
from src.training import Examples

RECIPE = HeadRecipe(learning_rate=0.01, epochs=20, batch_size=50)


def clusters(count: int, seed: int) -> Examples:
    """Features of ten classes around ten centres, on very different scales."""
    centres = torch.randn(10, 20, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 10
    inputs = centres[labels] + 0.6 * torch.randn(count, 20, generator=generator)
    return Examples(inputs * torch.logspace(-2, 2, 20) + 5, labels)


def accuracy(head, data):
    return (head(data.inputs).argmax(1) == data.labels).float().mean().item()


def test_folding_gives_the_same_logits():
    generator = torch.Generator().manual_seed(0)
    head = nn.Linear(20, 10, dtype=torch.float64)
    inputs = 3 * torch.randn(50, 20, dtype=torch.float64, generator=generator) + 2
    mean, std = inputs.mean(0), inputs.std(0)
    with torch.no_grad():
        expected = head((inputs - mean) / std)
        fold_standardisation(head, mean, std)
        torch.testing.assert_close(head(inputs), expected, rtol=0, atol=1e-12)


def test_a_head_fitted_on_standardised_features_takes_raw_ones():
    train, validation = clusters(500, seed=1), clusters(300, seed=2)
    head = nn.Linear(20, 10)
    curve = fit_head(head, RECIPE, train, validation)
    assert len(curve) == RECIPE.epochs
    # the curve was measured on standardised features, this on raw ones
    assert accuracy(head, validation) == pytest.approx(
        curve[-1].validation_accuracy, abs=1e-6
    )
    assert accuracy(head, validation) > 0.95


def test_standardising_helps_where_scales_differ():
    train, validation = clusters(500, seed=1), clusters(300, seed=2)
    raw = nn.Linear(20, 10)
    fit_head(raw, dataclasses.replace(RECIPE, standardise=False), train)
    standardised = nn.Linear(20, 10)
    fit_head(standardised, RECIPE, train)
    assert accuracy(standardised, validation) > accuracy(raw, validation)


def test_a_constant_feature_does_no_harm():
    train = clusters(200, seed=1)
    train.inputs[:, 3] = 7.0
    head = nn.Linear(20, 10)
    fit_head(head, RECIPE, train)
    assert head.weight.isfinite().all()
    assert accuracy(head, train) > 0.9


def test_the_start_does_not_matter_the_seed_does():
    train = clusters(200, seed=1)
    heads = [nn.Linear(20, 10) for _ in range(3)]
    for head, seed in zip(heads, (1, 1, 2), strict=True):
        fit_head(head, dataclasses.replace(RECIPE, seed=seed), train)
    assert torch.equal(heads[0].weight, heads[1].weight)
    assert not torch.equal(heads[0].weight, heads[2].weight)


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
    assert len({choice.recipe for choice in found}) == 8
    losses = [choice.validation_loss for choice in found]
    assert losses == sorted(losses)
    assert found[0].recipe.learning_rate == 1e-2


def test_search_remembers_what_it_found(tmp_path, monkeypatch):
    train, validation = clusters(100, seed=1), clusters(50, seed=2)
    options = {"epochs": 1, "folder": tmp_path, "log": LiveLog()}
    found = search(train, validation, **options)
    fits = []
    fit = head_module.fit_head
    monkeypatch.setattr(
        head_module, "fit_head", lambda *args: fits.append(1) or fit(*args)
    )
    assert search(train, validation, **options) == found
    assert not fits
    for cache in tmp_path.iterdir():
        cache.write_text("[[0.5,")
    assert search(train, validation, **options) == found
    assert len(fits) == len(found)
    fits.clear()
    search(train, clusters(50, seed=3), **options)  # other data: nothing to remember
    assert len(fits) == len(found)
