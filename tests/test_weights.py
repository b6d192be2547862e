"""Every source of the weights, with and without faults, and none of it by network.

The order of the sources is tried with tiny files in the place of the real ones.
"""

import dataclasses
import email.message
import hashlib
import io
import shutil

import pytest
import torch
from torch import nn
from torchvision.models import resnet18
from torchvision.transforms import functional as transforms

from src import cifar10, weights
from src.cifar10_sources import CLASSES
from src.common import downloads
from src.common.files import file_hash
from src.common.project import FAST, WEIGHTS
from src.weights import OFFICIAL, SOURCES, WeightsUnavailable, load_pretrained

# ------------------------------------------------------------- product quantisation


def quantised(n_blocks, outputs, size, centroids, kind, seed):
    """A layer's codebook and assignments, drawn; as in the published file."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(centroids, (n_blocks * outputs,), generator=generator)
    assert codes.max() == centroids - 1
    return {
        "centroids": torch.randn(centroids, size, generator=generator).half(),
        "assignments": codes.to(kind),
        "n_blocks": n_blocks,
        "k": 3,
        "is_conv": True,
    }


def written_out(layer, outputs):
    """The weight that a quantised layer stands for, a list of each output's numbers."""
    centroids, codes = layer["centroids"].tolist(), layer["assignments"].tolist()
    rows = [[] for _ in range(outputs)]
    for block in range(layer["n_blocks"]):
        for output in range(outputs):
            rows[output] += centroids[codes[block * outputs + output]]
    return rows


@pytest.fixture(scope="module")
def small_file():
    """A few of ResNet-18's layers, of each kind that there is."""
    generator = torch.Generator().manual_seed(0)
    norm = torch.rand(2, 64, generator=generator).half()
    return {
        "conv1": {"weight": torch.randn(64, 3, 7, 7, generator=generator).half()},
        "layer1.0.conv1": quantised(64, 64, 9, 256, torch.uint8, seed=1),
        "layer2.0.downsample.0": quantised(16, 128, 4, 256, torch.uint8, seed=2),
        "fc": quantised(128, 1000, 4, 2048, torch.int16, seed=3),
        "bn1": {"weight": norm[0], "bias": norm[1]},
        "fc_bias": {"bias": nn.Parameter(torch.randn(1000, generator=generator))},
    }


def test_decompressed_layers_are_their_centroids_in_a_row(small_file):
    state, expected = weights.decompress(small_file), resnet18().state_dict()
    for name, shape in (
        ("layer1.0.conv1", (64, 64, 3, 3)),
        ("layer2.0.downsample.0", (128, 64, 1, 1)),
        ("fc", (1000, 512)),
    ):
        rows = torch.tensor(written_out(small_file[name], shape[0]))
        assert torch.equal(state[f"{name}.weight"], rows.view(shape)), name
    assert torch.equal(state["conv1.weight"], small_file["conv1"]["weight"].float())
    assert torch.equal(state["fc.bias"], small_file["fc_bias"]["bias"])
    assert state.keys() == expected.keys()
    for name, value in state.items():
        assert value.shape == expected[name].shape, name
        assert value.dtype == expected[name].dtype and not value.requires_grad, name


def test_a_folded_batchnorm_only_scales_and_shifts(small_file):
    state = weights.decompress(small_file)
    assert torch.equal(state["bn1.running_mean"], torch.zeros(64))
    assert torch.equal(state["bn1.running_var"], torch.full((64,), 1 - 1e-5))
    model = resnet18()
    model.load_state_dict(state)
    x = torch.randn(2, 64, 3, 3, generator=torch.Generator().manual_seed(0))
    scale, shift = (small_file["bn1"][kind].float() for kind in ("weight", "bias"))
    expected = x * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)
    torch.testing.assert_close(model.bn1.eval()(x), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "count", "error"),
    [("layer9.conv1", 64 * 64, KeyError), ("layer1.0.conv1", 63 * 64, RuntimeError)],
)
def test_parts_that_do_not_fit_are_no_network(small_file, name, count, error):
    layer = dict(small_file["layer1.0.conv1"])
    layer["assignments"] = layer["assignments"][:count]
    with pytest.raises(error):
        weights.decompress({name: layer})


def test_the_real_file_gives_the_known_parameters():
    """Skipped where there is none: it does not come with the project."""
    source = SOURCES["compressed"]
    cached = weights.Path(torch.hub.get_dir()) / "checkpoints" / source.file
    for path in (WEIGHTS / source.file, cached):
        if path.is_file() and file_hash(path) == source.sha256:
            break
    else:
        pytest.skip(f"{source.file} is not on this machine")
    loaded = source.read(torch.load(path, map_location="cpu", weights_only=True))
    state, sha256 = loaded.state_dict, hashlib.sha256()
    for name in sorted(state):
        sha256.update(state[name].contiguous().numpy())
    assert sha256.hexdigest() == (
        "1bde99d823ab7549b0db40352f7a87eda288ff4960707b905f9f908484b92cc4"
    )
    assert sum(p.numel() for p in loaded.build().parameters()) == 11_689_512


# ------------------------------------------------------------------- what they are


@pytest.fixture(scope="module")
def standin():
    path = WEIGHTS / SOURCES["standin"].file
    return SOURCES["standin"].read(torch.load(path, weights_only=True))


def test_standin_knows_what_it_is(standin):
    assert standin.name == weights.STANDIN_NAME == "resnet18_distilled_64px"
    assert standin.top1 is None and "stand-in" in standin.remark
    assert standin.input_size == 64
    assert standin.mean == (0.485, 0.456, 0.406)
    assert standin.std == (0.229, 0.224, 0.225)
    assert len(repr(standin)) < 800  # no tensors in a printed object
    with pytest.raises(dataclasses.FrozenInstanceError):
        standin.top1 = 0.9


def test_standin_has_resnet18s_keys_in_float32(standin):
    expected = resnet18().state_dict()
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
    90 % of all pairs, a random cat of "cat" in 89 %; chance is 50 %.
    """
    dataset = cifar10.load(train=False, sample=True)
    images = torch.from_numpy(dataset.data[::2].copy()).permute(0, 3, 1, 2) / 255
    images = transforms.resize(images, [standin.input_size] * 2)
    images = transforms.normalize(images, standin.mean, standin.std)
    with torch.no_grad():
        probabilities = standin.build()(images).softmax(1)
    for label, categories, least in (
        ("frog", {"bullfrog", "tree frog", "tailed frog"}, 0.85),
        ("cat", {"tabby", "tiger cat", "Persian cat", "Siamese cat"}, 0.85),
    ):
        columns = [name in categories for name in OFFICIAL.meta["categories"]]
        assert sum(columns) == len(categories)
        score = probabilities[:, columns].sum(1)
        own = torch.tensor(dataset.targets[::2]) == CLASSES.index(label)
        pairs = score[own][:, None] > score[~own][None, :]
        assert pairs.double().mean() > least, label


@pytest.mark.parametrize(
    ("read", "name", "top1"),
    [
        (weights._official, "resnet18_imagenet1k_v1", 0.6976),
        (weights._compressed, "resnet18_imagenet_compressed", 0.6581),
    ],
)
def test_imagenets_weights_take_what_torchvision_says(small_file, read, name, top1):
    saved = small_file if name.endswith("compressed") else resnet18().state_dict()
    loaded = read(saved)
    assert (loaded.name, loaded.top1) == (name, top1)
    assert f"{100 * top1:.2f} %" in loaded.remark
    assert loaded.input_size == 224
    assert loaded.mean == (0.485, 0.456, 0.406)
    assert loaded.std == (0.229, 0.224, 0.225)
    model = loaded.build()
    assert not model.training
    expected = saved if "conv1.weight" in saved else weights.decompress(saved)
    for part in ("conv1.weight", "layer1.0.conv1.weight", "fc.bias"):
        assert torch.equal(model.state_dict()[part], expected[part]), part


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


# ------------------------------------------------------------------ where they are


def test_the_sources_and_their_order():
    assert list(SOURCES) == ["official", "compressed", "standin"]
    official, compressed, standin = SOURCES.values()
    assert official.url == OFFICIAL.url
    assert official.file == "resnet18-f37072fd.pth" and official.sha256 == "f37072fd"
    assert compressed.url == (
        "https://raw.githubusercontent.com/facebookresearch/kill-the-bits/9ea70f1aef44"
        "f4ffb14d89fb304dcbcb93a31ec7/src/models/compressed/resnet18_small_blocks.pth"
    )
    assert compressed.url.endswith(f"/{compressed.file}")
    assert standin.url is None and (WEIGHTS / standin.file).is_file()
    assert [len(source.sha256) for source in (compressed, standin)] == [64, 64]
    assert load_pretrained.__kwdefaults__ == {"allow_download": not FAST}


#: Files of one number each, by which the weights read from them are told apart.
TINY = {
    "official": {"conv1.weight": torch.full((64, 3, 7, 7), 1.0)},
    "compressed": {"conv1": {"weight": torch.full((64, 3, 7, 7), 2.0).half()}},
    "standin": {
        "state_dict": {"conv1.weight": torch.full((64, 3, 7, 7), 3.0).half()},
        "meta": {"input_size": 64, "mean": [0], "std": [1], "categories": ["a"]},
    },
}
NAMES = {
    "official": "resnet18_imagenet1k_v1",
    "compressed": "resnet18_imagenet_compressed",
    "standin": "resnet18_distilled_64px",
}


class Places:
    """An empty data/weights/, an empty cache, and a host with tiny files."""

    def __init__(self, folder, monkeypatch):
        self.own, self.cache = folder / "weights", folder / "torch/hub/checkpoints"
        self.host, self.sources = folder / "host", {}
        for place in (self.own, self.cache, self.host):
            place.mkdir(parents=True)
        for name, saved in TINY.items():
            file = self.host / SOURCES[name].file
            torch.save(saved, file)
            digits = file_hash(file)[: len(SOURCES[name].sha256)]
            url = None if name == "standin" else f"http://127.0.0.1:9/{file.name}"
            self.sources[name] = dataclasses.replace(
                SOURCES[name], sha256=digits, url=url
            )
        monkeypatch.setattr(weights, "WEIGHTS", self.own)
        monkeypatch.setattr(weights, "SOURCES", self.sources)

    def serve(self, *names, file=None):
        """Let these be downloadable (or other files in their place)."""
        for name in names:
            path = file or self.host / self.sources[name].file
            self.change(name, url=path.as_uri())

    def change(self, name, **changes):
        self.sources[name] = dataclasses.replace(self.sources[name], **changes)

    def put(self, name, folder=None, *, damaged=False):
        """Put the source's file into `data/weights/`, or another folder."""
        target = (folder or self.own) / self.sources[name].file
        content = bytearray((self.host / target.name).read_bytes())
        content[len(content) // 2] ^= damaged  # one bit turned over
        target.write_bytes(content)
        return target


@pytest.fixture
def places(tmp_path, monkeypatch):
    monkeypatch.delenv("MAMAN13_WEIGHTS", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(downloads, "PAUSE", 0)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    return Places(tmp_path, monkeypatch)


def used(*only, **options):
    """Which source's weights are loaded: its name, by what is in them, too."""
    loaded = load_pretrained(*only, **{"allow_download": True} | options)
    number = loaded.state_dict["conv1.weight"].unique().item()
    [name] = [name for name in TINY if NAMES[name] == loaded.name]
    assert loaded.state_dict["conv1.weight"].dtype == torch.float32
    assert number == {"official": 1, "compressed": 2, "standin": 3}[name]
    return name


@pytest.mark.parametrize(
    ("here", "online", "expected"),
    [
        (["official", "compressed", "standin"], [], "official"),
        (["compressed", "standin"], ["official", "compressed"], "official"),
        (["compressed", "standin"], [], "compressed"),
        (["standin"], ["compressed"], "compressed"),
        (["standin"], [], "standin"),
    ],
)
def test_the_best_that_can_be_had_is_used(places, here, online, expected):
    for name in here:
        places.put(name)
    places.serve(*online)
    assert used() == expected


@pytest.mark.parametrize("wish", TINY)
def test_a_wish_is_fulfilled_or_refused(places, monkeypatch, capsys, wish):
    monkeypatch.setenv("MAMAN13_WEIGHTS", wish)
    for name in TINY:
        places.put(name)
    assert used() == wish
    said = capsys.readouterr().out
    assert said.startswith("Weights: ") and said.count("\n") == 1
    (places.own / places.sources[wish].file).unlink()
    with pytest.raises(WeightsUnavailable, match=f"no pre-trained weights: {wish}: "):
        used()  # although there are the two others
    assert capsys.readouterr().out == ""
    if wish != "standin":
        places.serve(wish)
        with pytest.raises(WeightsUnavailable, match=f"{wish}: not on this machine"):
            used(allow_download=False)
        assert used() == wish


def test_an_unknown_wish_is_refused(places, monkeypatch):
    monkeypatch.setenv("MAMAN13_WEIGHTS", "best")
    with pytest.raises(ValueError, match=r"'best'; it may be official, compressed, st"):
        load_pretrained()


def test_what_the_guide_asks_for_comes_before_the_users_wish(places, monkeypatch):
    for name in TINY:
        places.put(name)
    assert used("standin") == "standin"
    monkeypatch.setenv("MAMAN13_WEIGHTS", "official")
    assert used("compressed") == "compressed"


def test_with_nothing_at_all_each_reason_is_said(places):
    with pytest.raises(WeightsUnavailable) as caught:
        used()
    message = str(caught.value)
    for text in (
        "official: its host can't be reached",
        "compressed: its host can't be reached",
        "standin: not on this machine",
        "data/weights/README.md",
        "git checkout -- data/weights",
    ):
        assert text in message


def test_one_line_says_which_and_a_line_each_why_no_better_one(places, capsys):
    places.put("standin")
    used(allow_download=False)
    assert capsys.readouterr().out == (
        "Weights: a stand-in for ImageNet's weights (data/weights/README.md)\n"
        "  not the official: not on this machine\n"
        "  not the compressed: not on this machine\n"
    )
    used()
    lines = capsys.readouterr().out.splitlines()
    for line, name in zip(lines[1:], ("official", "compressed"), strict=True):
        assert line.startswith(f"  not the {name}: its host can't be reached (")
        assert len(line) <= 88  # fits a page
    places.put("compressed")
    used(allow_download=False)
    assert capsys.readouterr().out == (
        "Weights: ImageNet's ResNet-18, compressed to 1.7 MB (Stock et al., 2020)\n"
        "  not the official: not on this machine\n"
    )
    places.put("official")
    used(allow_download=False)
    assert capsys.readouterr().out == (
        "Weights: torchvision's official ResNet18_Weights.IMAGENET1K_V1\n"
    )


@pytest.mark.parametrize("name", ["official", "compressed"])
def test_the_projects_own_file_comes_before_torch_hubs(places, name):
    in_cache = places.put(name, places.cache)
    assert places.sources[name].find(allow_download=False) == in_cache
    own = places.put(name)
    assert places.sources[name].find(allow_download=False) == own


@pytest.mark.parametrize("name", ["official", "compressed"])
def test_a_download_goes_where_torch_hub_looks(places, name):
    places.put("standin")
    places.serve(name)
    assert used() == name
    [kept] = places.cache.iterdir()
    assert kept.name == places.sources[name].file
    assert file_hash(kept) == file_hash(places.host / kept.name)
    shutil.rmtree(places.host)
    assert used() == name  # from there, the next time


def test_no_download_when_it_is_not_allowed(places, monkeypatch):
    monkeypatch.setattr(weights, "download", lambda *_: pytest.fail("downloads"))
    places.put("standin")
    assert used(allow_download=False) == "standin"


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("where", ["data/weights/", "torch.hub's cache"])
def test_a_damaged_file_is_named_and_left_and_not_used(places, capsys, name, where):
    folder = places.own if where == "data/weights/" else places.cache
    damaged = places.put(name, folder, damaged=True)
    before = file_hash(damaged)
    if name == "standin":
        with pytest.raises(WeightsUnavailable, match="git checkout -- data/weights"):
            used()
    else:
        places.put("standin")
        assert used() == "standin"
    said = f"Weights: {damaged.name} in {where} is damaged and not used\n"
    assert capsys.readouterr().out.startswith(said)
    assert file_hash(damaged) == before


def test_a_damaged_cached_file_is_downloaded_anew(places):
    damaged = places.put("compressed", places.cache, damaged=True)
    places.serve("compressed")
    assert used() == "compressed"
    assert file_hash(damaged) == places.sources["compressed"].sha256


def test_a_wrong_download_is_not_kept(places, capsys):
    places.put("standin")
    places.serve("official", file=places.host / places.sources["compressed"].file)
    assert used() == "standin"
    assert list(places.cache.iterdir()) == []
    assert "not the official: invalid hash value" in capsys.readouterr().out


def test_an_interrupted_download_leaves_nothing(places, monkeypatch):
    class Response(io.BytesIO):
        info = email.message.Message

        def read(self, size):
            if block := super().read(size):
                return block
            raise KeyboardInterrupt

    first_block = Response(b"the first block")
    monkeypatch.setattr(torch.hub, "urlopen", lambda *_, **__: first_block)
    with pytest.raises(KeyboardInterrupt):
        used()
    assert [*places.own.iterdir(), *places.cache.iterdir()] == []


class Trap:
    """Unpickled without weights_only, it would leave a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_code_in_a_file_is_never_run(places, tmp_path):
    evil = places.own / places.sources["official"].file
    torch.save({"conv1.weight": Trap(tmp_path / "ran")}, evil)
    places.change("official", sha256=file_hash(evil))
    places.put("standin")
    assert used() == "standin"
    assert not (tmp_path / "ran").exists()


@pytest.mark.network
@pytest.mark.parametrize("name", ["official", "compressed"])
def test_the_real_ones_can_be_downloaded(places, name):
    source = SOURCES[name]
    try:
        path = source.find(allow_download=True)
    except OSError as error:
        pytest.skip(f"{name} weights: {downloads.reason(error)}")
    assert path.parent == places.cache
    loaded = source.read(torch.load(path, map_location="cpu", weights_only=True))
    with torch.no_grad():
        logits = loaded.build()(torch.zeros(1, 3, 224, 224))
    assert logits.shape == (1, 1000) and logits.isfinite().all()
