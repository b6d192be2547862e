"""Frozen networks stay as they are, and their outputs are computed once."""

import hashlib
import struct

import pytest
import torch
from torch import nn
from torchvision.models import resnet18
from torchvision.transforms import v2

from src import frozen
from src.frozen import fingerprint, frozen_outputs, without_head

TRANSFORM = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])


def small_network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 2, 5), nn.BatchNorm2d(2), nn.Flatten())


def some_images(count: int = 10, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 3, 8, 8), generator=generator).to(torch.uint8)


class Counted(nn.Module):
    """Counts the images that pass; stops the program at the `stop_at`-th batch."""

    def __init__(self, network, stop_at=None):
        super().__init__()
        self.network, self._stop_at = network, stop_at
        self._images = self._batches = 0  # private: what is public is in the key

    def forward(self, image):
        self._batches += 1
        if self._batches == self._stop_at:
            raise KeyboardInterrupt
        self._images += len(image)
        return self.network(image)


def compute(network, images, folder, transform=TRANSFORM):
    return frozen_outputs(
        network, images, transform, name="some outputs", folder=folder, chunk_size=4
    ).values


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = resnet18(num_classes=10)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.fc = nn.Linear(512, 10)
    return model


def train_head(model):
    optimiser = torch.optim.Adam(model.fc.parameters(), lr=0.1)
    for _ in range(2):
        loss = nn.functional.cross_entropy(
            model(torch.rand(4, 3, 32, 32)), torch.arange(4)
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def test_training_the_head_in_evaluation_mode_changes_nothing_else(model):
    before, head = fingerprint(model), model.fc.weight.clone()
    model.eval()
    model.fc.train()
    train_head(model)
    assert fingerprint(model) == before
    assert not torch.equal(model.fc.weight, head)


def test_the_check_fails_if_the_backbone_is_left_in_training_mode(model):
    before = fingerprint(model)
    model.train()
    train_head(model)
    after = fingerprint(model)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {name for name in before if "running_" in name or "num_b" in name}


def test_fingerprint_covers_everything_but_the_head(model):
    names = set(model.state_dict())
    assert names - set(fingerprint(model)) == {"fc.weight", "fc.bias"}
    assert set(fingerprint(model, exclude="layer")) == {
        name for name in names if not name.startswith("layer")
    }


def test_a_fingerprint_is_the_sha256_of_the_values_in_order():
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    digest = hashlib.sha256(struct.pack("<4f", 1, 2, 3, 4)).hexdigest()
    assert fingerprint(layer)["weight"] == digest
    layer.weight.data = layer.weight.data.T.contiguous().T  # another layout in memory
    assert fingerprint(layer)["weight"] == digest


def test_head_of_the_features_is_the_network(model):
    model.eval()
    image = torch.rand(3, 3, 64, 64)
    with torch.no_grad():
        features = without_head(model)(image)
        assert features.shape == (3, 512)
        torch.testing.assert_close(model.fc(features), model(image))


def test_outputs_are_the_network_s_and_computed_once(tmp_path):
    network, images = small_network(), some_images()
    with torch.no_grad():
        expected = network.eval()(TRANSFORM(images))
    torch.testing.assert_close(compute(network, images, tmp_path), expected)

    counted = Counted(network)
    first = compute(counted, images, tmp_path)
    assert counted._images == 10
    assert torch.equal(compute(counted, images, tmp_path), first)
    assert counted._images == 10


def test_evaluation_mode_is_set(tmp_path):
    network, images = small_network().train(), some_images()
    before = fingerprint(network)
    compute(network, images, tmp_path)
    assert fingerprint(network) == before


def test_an_interruption_loses_only_the_current_chunk(tmp_path):
    network, images = small_network(), some_images()
    expected = compute(Counted(network), images, tmp_path / "whole")
    stopped = Counted(network, stop_at=2)  # in the second chunk of 4 images
    with pytest.raises(KeyboardInterrupt):
        compute(stopped, images, tmp_path / "again")
    resumed = Counted(network)
    assert torch.equal(compute(resumed, images, tmp_path / "again"), expected)
    assert resumed._images == 6


def test_a_damaged_chunk_is_computed_again(tmp_path, capsys):
    network, images = Counted(small_network()), some_images()
    expected = compute(network, images, tmp_path)
    first, second, _ = sorted(tmp_path.iterdir())
    first.write_bytes(b"")
    second.write_bytes(second.read_bytes()[:100])
    assert torch.equal(compute(network, images, tmp_path), expected)
    assert network._images == 10 + 8
    out = capsys.readouterr().out
    assert all(f"{path.name} can't be read" in out for path in (first, second))


def test_chunks_batches_and_seconds(tmp_path, monkeypatch, capsys):
    times = iter([1.0, 3.0, 10.0, 15.0, 30.0, 30.5])
    monkeypatch.setattr(frozen.time, "perf_counter", lambda: next(times))
    network, images = small_network(), some_images(260)
    seen = []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    options = {"name": "some outputs", "folder": tmp_path, "chunk_size": 130}
    found = frozen_outputs(network, images[:259], TRANSFORM, **options)
    assert seen == [125, 5, 125, 4]
    assert found.seconds == 2 + 5
    assert found.values.shape == (259, 32) and found.values.dtype == torch.float32
    assert [path.name[:16] for path in sorted(tmp_path.iterdir())] == [
        "some-outputs-000",
        "some-outputs-001",
    ]
    again = frozen_outputs(network, images[:259], TRANSFORM, **options)
    assert again.seconds == 7 and len(seen) == 4
    frozen_outputs(network, images[:2], TRANSFORM, name="few", folder=tmp_path)
    assert frozen_outputs.__kwdefaults__["chunk_size"] == 2500


def test_progress_is_shown_only_while_something_is_computed(tmp_path, monkeypatch):
    tracked = []

    def track(self, items, description, total=None):
        tracked.append((description, len(items)))
        return iter(items)

    monkeypatch.setattr(frozen.LiveLog, "track", track)
    for _ in range(2):
        compute(small_network(), some_images(), tmp_path)
    assert tracked == [("some outputs", 3)]
