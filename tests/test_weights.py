"""Every source of the weights, with and without faults, and none of it by network."""

import dataclasses
import email.message
import io
import shutil

import pytest
import torch
from torchvision.models import resnet18
from torchvision.transforms import functional as transforms

from src import cifar10, weights
from src.cifar10_sources import CLASSES
from src.common import downloads
from src.common.files import file_hash
from src.weights import WeightsUnavailable, load_pretrained


@pytest.fixture(scope="module")
def official_state():
    """A state dict of the official shape, and a file of it named after its hash."""
    torch.manual_seed(1)
    return resnet18().state_dict()


@pytest.fixture(scope="module")
def official_file(official_state, tmp_path_factory):
    return named_after_its_hash(official_state, tmp_path_factory.mktemp("official"))


def named_after_its_hash(saved, folder):
    path = folder / "resnet18.pth"
    torch.save(saved, path)
    return path.rename(folder / f"resnet18-{file_hash(path)[:8]}.pth")


@pytest.fixture
def places(tmp_path, monkeypatch, official_file):
    """An empty data/weights/, an empty torch.hub cache, and a host with the file."""
    monkeypatch.delenv("MAMAN13_WEIGHTS", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(downloads, "PAUSE", 0)
    monkeypatch.setattr(weights, "WEIGHTS", tmp_path / "weights")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr(weights, "OFFICIAL_URL", official_file.as_uri())
    own = tmp_path / "weights" / official_file.name
    cached = tmp_path / "torch/hub/checkpoints" / official_file.name
    own.parent.mkdir()
    cached.parent.mkdir(parents=True)
    return own, cached


def kill_host(monkeypatch):
    name = weights.OFFICIAL_URL.rpartition("/")[2]
    monkeypatch.setattr(weights, "OFFICIAL_URL", f"http://127.0.0.1:9/{name}")


def damage(source, target):
    """A copy with one bit turned over."""
    content = bytearray(source.read_bytes())
    content[len(content) // 2] ^= 1
    target.write_bytes(content)


# ------------------------------------------------------------------------ stand-in


@pytest.fixture(scope="module")
def standin():
    return weights._read_standin()


def test_standin_knows_what_it_is(standin):
    assert not standin.official
    assert standin.name == "resnet18_tiny_imagenet_64px"
    assert standin.input_size == 64
    assert standin.mean == (0.485, 0.456, 0.406)
    assert standin.std == (0.229, 0.224, 0.225)
    assert len(standin.categories) == len(set(standin.categories)) == 200
    assert standin.sha256 == file_hash(weights.STANDIN)
    assert len(repr(standin)) < 400  # no tensors in a printed object
    with pytest.raises(dataclasses.FrozenInstanceError):
        standin.official = True


def test_standin_has_resnet18s_keys_in_float32(standin):
    expected = resnet18(num_classes=200).state_dict()
    assert standin.state_dict.keys() == expected.keys()
    for name, value in standin.state_dict.items():
        assert value.dtype == expected[name].dtype, name
        assert value.shape == expected[name].shape, name
        assert value.isfinite().all(), name


def test_build_gives_a_network_of_its_own_in_eval_mode(standin):
    first, second = standin.build(), standin.build()
    assert not any(module.training for module in first.modules())
    with torch.no_grad():
        first.conv1.weight.zero_()
    for name, value in second.state_dict().items():
        assert torch.equal(value, standin.state_dict[name]), name


def test_standin_tells_frogs_and_cats_from_the_rest(standin):
    """Weights, normalisation and the order of the categories belong together.

    A random frog gets a higher probability of "frog" than a random other image in
    89 % of all pairs, a random cat of "cat" in 82 %; chance is 50 %.
    """
    dataset = cifar10.load(train=False, sample=True)
    images = torch.from_numpy(dataset.data.copy()).permute(0, 3, 1, 2) / 255
    images = transforms.resize(images, [standin.input_size] * 2)
    images = transforms.normalize(images, standin.mean, standin.std)
    with torch.no_grad():
        probabilities = standin.build()(images).softmax(1)
    for label, categories, least in (
        ("frog", {"bullfrog", "tailed frog"}, 0.85),
        ("cat", {"tabby", "Persian cat", "Egyptian cat"}, 0.75),
    ):
        columns = [name in categories for name in standin.categories]
        assert sum(columns) == len(categories)
        score = probabilities[:, columns].sum(1)
        own = torch.tensor(dataset.targets) == CLASSES.index(label)
        pairs = score[own][:, None] > score[~own][None, :]
        assert pairs.double().mean() > least, label


@pytest.mark.parametrize("fault", ["missing", "damaged"])
def test_damaged_standin_is_not_used(tmp_path, monkeypatch, places, fault):
    copy = tmp_path / weights.STANDIN.name
    if fault == "damaged":
        damage(weights.STANDIN, copy)
    monkeypatch.setattr(weights, "STANDIN", copy)
    with pytest.raises(WeightsUnavailable, match="git checkout -- data/weights"):
        load_pretrained(allow_download=False)
    assert copy.exists() == (fault == "damaged")  # git can tell what is in it


# ------------------------------------------------------------------------ official


def assert_official(loaded, state):
    assert loaded.official
    assert loaded.name == "resnet18_imagenet1k_v1"
    assert loaded.input_size == 224
    assert loaded.mean == (0.485, 0.456, 0.406)
    assert loaded.std == (0.229, 0.224, 0.225)
    assert len(loaded.categories) == 1000
    assert loaded.categories[0] == "tench"
    assert loaded.sha256.startswith(weights._hash_prefix())
    model = loaded.build()
    assert not model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_the_address_is_torchvisions(monkeypatch):
    assert weights._file_name() == "resnet18-f37072fd.pth"
    assert weights._hash_prefix() == "f37072fd"
    # all the digits that there are, and no fewer than eight
    monkeypatch.setattr(weights, "OFFICIAL_URL", "x/a-b-0123456789abcdef.pth")
    assert weights._hash_prefix() == "0123456789abcdef"


@pytest.mark.parametrize("places_filled", [[0, 1], [1]])
def test_the_projects_own_file_comes_first(places, official_file, places_filled):
    for number in places_filled:
        shutil.copy(official_file, places[number])
    found = weights._official_file(allow_download=False)
    assert found == places[places_filled[0]]


def test_what_is_said_in_each_case(places, official_file, monkeypatch, capsys):
    assert load_pretrained(allow_download=False).official is False
    name, url = official_file.name, official_file.as_uri()
    assert capsys.readouterr().out == (
        "Weights: a ResNet-18 trained on 200 ImageNet classes at 64 px "
        "(data/weights/README.md).\n"
        "They are a stand-in for the official ImageNet weights\n"
        "(none on this machine, and nothing is downloaded now).\n"
        f"To use those, put {name} into data/weights/\n(from {url}).\n"
    )
    shutil.copy(official_file, places[0])
    load_pretrained(allow_download=False)
    assert capsys.readouterr().out == (
        "Weights: torchvision's official ResNet18_Weights.IMAGENET1K_V1\n"
    )
    damage(official_file, places[0])
    damage(official_file, places[1])
    load_pretrained(allow_download=False)
    own, cached, *_ = capsys.readouterr().out.splitlines()
    end = "is incomplete or corrupt and not used"
    assert own == f"Weights: {name} in data/weights/ {end}"
    assert cached == f"Weights: {name} in torch.hub's cache {end}"
    monkeypatch.setenv("MAMAN13_WEIGHTS", "standin")
    load_pretrained()
    assert "\n(asked for by MAMAN13_WEIGHTS).\n" in capsys.readouterr().out


def test_the_input_is_resized_scaled_and_normalised():
    mean, std = (0.5, 0.25, 0.1), (0.5, 0.2, 0.3)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (2, 3, 32, 32), generator=generator).to(torch.uint8)
    found = weights.input_transform(48, mean, std)(images)
    expected = torch.nn.functional.interpolate(
        images / 255, (48, 48), mode="bilinear", align_corners=False
    )
    expected = (expected - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(
        3, 1, 1
    )
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    picture = transforms.to_pil_image(images[0])
    one = weights.input_transform(48, mean, std)(picture)
    torch.testing.assert_close(one, found[0], rtol=0, atol=1e-5)
    # smaller than before it is averaged over all pixels, not sampled
    small = weights.input_transform(16, (0,) * 3, (1,) * 3)(images)
    averaged = transforms.resize(images / 255, [16, 16], antialias=True)
    torch.testing.assert_close(small, averaged, rtol=0, atol=1e-5)


@pytest.mark.parametrize("place", [0, 1], ids=["data/weights", "torch.hub's cache"])
@pytest.mark.parametrize("allow_download", [True, False])
def test_official_file_on_this_machine(
    places, official_file, official_state, monkeypatch, capsys, place, allow_download
):
    kill_host(monkeypatch)
    shutil.copy(official_file, places[place])
    loaded = load_pretrained(allow_download=allow_download)
    assert_official(loaded, official_state)
    out = capsys.readouterr().out
    assert all(len(line) <= 88 for line in out.splitlines())  # fits a page


def test_official_file_is_downloaded_where_torch_hub_looks(
    places, official_file, official_state
):
    own, cached = places
    assert_official(load_pretrained(allow_download=True), official_state)
    assert file_hash(cached) == file_hash(official_file)
    assert [path.name for path in cached.parent.iterdir()] == [cached.name]
    assert not own.exists()
    found = torch.hub.load_state_dict_from_url(
        f"http://127.0.0.1:9/{cached.name}", weights_only=True
    )
    assert torch.equal(found["conv1.weight"], official_state["conv1.weight"])


def test_no_download_when_it_is_not_allowed(places, monkeypatch, capsys):
    monkeypatch.setattr(weights, "download", lambda *_: pytest.fail("downloads"))
    assert not load_pretrained(allow_download=False).official
    assert "stand-in" in capsys.readouterr().out


def test_dead_host_gives_the_standin_and_says_what_to_do(places, monkeypatch, capsys):
    kill_host(monkeypatch)
    assert not load_pretrained(allow_download=True).official
    out = capsys.readouterr().out
    assert all(len(line) <= 88 for line in out.splitlines())  # fits a page
    for text in ("stand-in", "can't be reached", weights._file_name(), "data/weights"):
        assert text in out


def test_corrupt_own_file_is_said_and_left_to_its_owner(
    places, official_file, official_state, capsys
):
    own, cached = places
    damage(official_file, own)
    shutil.copy(official_file, cached)
    before = own.read_bytes()
    assert_official(load_pretrained(allow_download=False), official_state)
    assert own.read_bytes() == before
    assert "incomplete or corrupt and not used" in capsys.readouterr().out


def test_corrupt_cached_file_is_not_used_but_left_to_its_owner(
    places, official_file, official_state, capsys
):
    _, cached = places
    damage(official_file, cached)
    before = file_hash(cached)
    assert not load_pretrained(allow_download=False).official
    assert file_hash(cached) == before
    assert "and not used" in capsys.readouterr().out
    assert_official(load_pretrained(allow_download=True), official_state)
    assert file_hash(cached) == file_hash(official_file)


def test_wrong_download_is_not_kept(places, official_file, monkeypatch, capsys):
    wrong = official_file.parent / "resnet18-01234567.pth"
    shutil.copy(official_file, wrong)
    monkeypatch.setattr(weights, "OFFICIAL_URL", wrong.as_uri())
    assert not load_pretrained(allow_download=True).official
    assert list(places[1].parent.iterdir()) == []
    assert 'invalid hash value (expected "01234567"' in capsys.readouterr().out


def test_interrupted_download_leaves_nothing(places, monkeypatch):
    class Response(io.BytesIO):
        info = email.message.Message

        def read(self, size):
            if block := super().read(size):
                return block
            raise KeyboardInterrupt

    first_block = Response(b"the first block")
    monkeypatch.setattr(torch.hub, "urlopen", lambda *_, **__: first_block)
    with pytest.raises(KeyboardInterrupt):
        load_pretrained(allow_download=True)
    assert list(places[1].parent.iterdir()) == []


class Trap:
    """Unpickled without weights_only, it would leave a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_code_in_a_file_is_never_run(places, tmp_path, monkeypatch):
    evil = named_after_its_hash({"conv1.weight": Trap(tmp_path / "ran")}, tmp_path)
    monkeypatch.setattr(weights, "OFFICIAL_URL", evil.as_uri())
    assert not load_pretrained(allow_download=True).official
    assert not (tmp_path / "ran").exists()


def test_standin_on_demand(places, official_file, monkeypatch, capsys):
    shutil.copy(official_file, places[0])
    monkeypatch.setenv("MAMAN13_WEIGHTS", "standin")
    assert not load_pretrained().official
    assert "MAMAN13_WEIGHTS" in capsys.readouterr().out


def test_unknown_demand_is_refused(places, monkeypatch):
    monkeypatch.setenv("MAMAN13_WEIGHTS", "official")
    with pytest.raises(ValueError, match="'official'"):
        load_pretrained()


@pytest.mark.network
def test_real_official_weights(places, monkeypatch):
    monkeypatch.setattr(weights, "OFFICIAL_URL", weights.OFFICIAL.url)
    try:
        path = weights._official_file(allow_download=True)
    except OSError as error:
        pytest.skip(f"torchvision's weights: {downloads.reason(error)}")
    loaded = weights._read_official(path)
    assert loaded.sha256.startswith("f37072fd")
    with torch.no_grad():
        logits = loaded.build()(torch.zeros(1, 3, 224, 224))
    assert logits.shape == (1, 1000) and logits.isfinite().all()
