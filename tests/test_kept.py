"""What is kept is used exactly as long as nothing that it depends on has changed.

Code is varied by importing changed copies of the real modules. Every case is tried
where it matters: training the three blocks, the frozen network's outputs, the search
for a head, the accuracies from few images.
"""

import dataclasses
import functools
import importlib.util
import inspect
import itertools
import linecache
import sys
import types

import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from src import experiments, frozen, head, residual_net, training
from src.cifar10 import Examples
from src.common import kept as keeping
from src.common.code import code_of, syntax_hash
from src.common.kept import kept, make_key, place, read_state, write_state
from src.common.progress import LiveLog
from src.training import Recipe
from src.weights import input_transform

BUILD = "\n\ndef build(recipe):\n    return ThreeBlockNet(recipe.widths, classes=2)\n"
RECIPE = Recipe(widths=(2, 2, 2), epochs=1, batch_size=4)
TRANSFORM = input_transform(32, (0.5,) * 3, (0.25,) * 3)


def images(count: int = 6, seed: int = 0) -> Examples:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (count, 3, 32, 32), generator=generator)
    return Examples(pixels.to(torch.uint8), torch.arange(count) % 2)


SAID: list[str] = []


@pytest.fixture(autouse=True)
def listen(monkeypatch):
    """What `kept` prints is remembered, and printed."""

    def say(text, **options):
        SAID.append(text)
        print(text, **options)

    monkeypatch.setattr(keeping, "print", say, raising=False)


class Recorder(LiveLog):
    """A log that only remembers its lines, with those that `kept` prints after it."""

    def __init__(self):
        super().__init__()
        self.lines = SAID
        self.lines.clear()

    def line(self, text):
        self.lines.append(text)

    @property
    def changes(self):
        return [line for line in self.lines if "computed anew, since" in line]


@pytest.fixture
def variant(tmp_path, monkeypatch):
    """A function that imports a copy of a module, or of source, with text replaced."""
    numbers = itertools.count()

    def make(module, *replacements, more=""):
        source = module if isinstance(module, str) else inspect.getsource(module)
        for old, new in replacements:
            assert old in source, old
            source = source.replace(old, new)
        name = f"variant_{next(numbers)}_of_{tmp_path.name}"
        path = tmp_path / f"{name}.py"
        path.write_text(source + more, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(name, path)
        copy = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, copy)
        spec.loader.exec_module(copy)
        return copy

    return make


# ------------------------------------------------------------- the three-block network


@pytest.fixture
def train(tmp_path, variant):
    """A function that trains or loads, changed as asked; with the lines of its log."""
    usual = {"network": variant(residual_net, more=BUILD), "code": training}
    usual |= {"recipe": RECIPE, "train": images(), "validation": images(4, seed=1)}
    usual |= {"transform": TRANSFORM, "folder": tmp_path / "cache", "name": "net"}

    def call(**changes):
        options = {**usual, **changes}
        build, code = options.pop("network").build, options.pop("code")
        where = {name: options.pop(name) for name in ("name", "folder")}
        data = [options.pop(name) for name in ("recipe", "train", "validation")]
        transform, log = options.pop("transform"), Recorder()
        trained = code.train_or_load(
            where["name"],
            build,
            *data,
            transform,
            log=log,
            folder=where["folder"],
            **options,
        )
        return trained, log

    return call


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("nn.ReLU(),", "nn.GELU(),", "code of ResidualBlock"),
        ("self.residual(image) +", "self.residual(image) -", "code of ResidualBlock"),
        ("nn.MaxPool2d(2)", "nn.AvgPool2d(2)", "code of ResidualBlock"),
        ("start_size=32", "start_size=16", "code of ThreeBlockNet"),
        ("self.pool(features)", "features.amax((2, 3))", "code of ThreeBlockNet"),
        ("classes=2)", "classes=3)", "code of build"),
    ],
)
def test_a_changed_network_is_trained_anew(train, variant, old, new, what):
    train()
    source = inspect.getsource(residual_net) + BUILD
    changed = variant(source, (old, new))
    trained, log = train(network=changed)
    assert not trained.loaded
    [line] = log.changes
    assert line.startswith(f"net: computed anew, since the {what}")
    assert " and " not in line
    assert train()[0].loaded  # the first one is still there


@pytest.mark.parametrize(
    "replacements",
    [
        [("# BatchNorm subtracts", "# They say that BatchNorm subtracts")],
        [('"""Maps [B, C_in', '"""Takes [B, C_in')],
        [("image: Tensor) -> Tensor", 'image: "Tensor") -> "Tensor"')],
        [("            nn.MaxPool2d(2),\n", "            nn.MaxPool2d(\n2\n),\n\n")],
        [],  # the same in another file
    ],
    ids=["comment", "docstring", "type hint", "layout", "moved"],
)
def test_what_a_network_does_not_depend_on_trains_nothing(train, variant, replacements):
    train()
    trained, log = train(network=variant(residual_net, *replacements, more=BUILD))
    assert trained.loaded
    assert log.lines == []


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"recipe": dataclasses.replace(RECIPE, momentum=0.8)}, "the recipe"),
        ({"recipe": dataclasses.replace(RECIPE, seed=14)}, "the recipe"),
        ({"train": images(seed=2)}, "the training images"),
        ({"train": Examples(images().inputs, 1 - images().labels)}, "the training im"),
        ({"train": images()[:5]}, "the training images"),
        ({"validation": images(4, seed=2)}, "the validation images"),
        ({"validation": images(4, seed=1)[:3]}, "the validation images"),
        ({"transform": input_transform(64, (0.5,) * 3, (0.25,) * 3)}, "the transform"),
        ({"transform": input_transform(32, (0.5,) * 3, (0.2,) * 3)}, "the transform"),
    ],
)
def test_other_data_or_another_recipe_is_trained_anew(train, change, what):
    train()
    trained, log = train(**change)
    assert not trained.loaded
    [line] = log.changes
    assert line.startswith(f"net: computed anew, since {what}")
    assert line.endswith(" changed") and " and " not in line
    assert train()[0].loaded and train(**change)[0].loaded


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("max_shift: int = 3", "max_shift: int = 4", "the code of Recipe"),
        ("nesterov=True", "nesterov=False", "the code of optimiser_and_schedule"),
        ("shifted.flip(-1), shifted", "shifted, shifted", "the code of augment"),
        ("torch.randperm(len(data),", "torch.randperm(1,", "the code of shuffled"),
        ("optimiser.zero_grad()", "pass", "the code of train_epoch"),
        ("recipe.seed * 1000", "recipe.seed * 999", "the code of train_from_scratch"),
        ("images.split(batch_size)", "images.split(1)", "the code of predict"),
        ("tensor.ndim == 4", "tensor.ndim == 5", "the code of to_device"),
        ("== labels).float()", "!= labels).float()", "the code of loss_and_accuracy"),
    ],
)
def test_changed_training_code_trains_anew(train, variant, old, new, what):
    train()
    changed = variant(training, (old, new))
    recipe = changed.Recipe(**dataclasses.asdict(RECIPE))
    trained, log = train(code=changed, recipe=recipe)
    assert not trained.loaded
    assert [what in line and " and " not in line for line in log.changes] == [True]


def test_a_changed_line_of_the_log_trains_nothing(train, variant):
    train()
    changed = variant(training, ("{epoch.seconds:7.1f}", "{epoch.seconds:9.3f}"))
    recipe = changed.Recipe(**dataclasses.asdict(RECIPE))
    trained, log = train(code=changed, recipe=recipe)
    assert trained.loaded and log.lines == []


def test_a_changed_live_log_or_way_of_keeping_trains_nothing():
    data, build = images(), residual_net.ThreeBlockNet
    key = training.training_key(build, RECIPE, data, None, TRANSFORM)
    ours = {"the code of ResidualBlock", "the code of augment", "the value of SEED"}
    assert ours < key.keys()
    logged = {"LiveLog", "LiveLog.line", "kept", "resume", "save_progress", "place"}
    assert not key.keys() & {f"the code of {name}" for name in logged}


def test_32_pixels_are_one_checkpoint_beside_any_frozen_network(train, tmp_path):
    for size in (64, 224):
        transform = input_transform(size, (0.5,) * 3, (0.25,) * 3)
        beside = nn.Sequential(nn.Conv2d(3, 2, 5, 5), nn.AdaptiveAvgPool2d(1))
        frozen.frozen_outputs(
            beside, images().inputs, transform, name="features", folder=tmp_path
        )
        own = input_transform(32, (0.5,) * 3, (0.25,) * 3)
        assert train(transform=own)[0].loaded == (size == 224)
    assert len(list((tmp_path / "cache").glob("net-*"))) == 1


def test_what_is_committed_is_used_and_replaced_only_on_demand(train, tmp_path):
    committed = tmp_path / "committed"
    file = committed / "net.pt"
    first, log = train(committed=committed, anew=True)
    assert not first.loaded and log.changes == []
    content = file.read_bytes()
    assert train(committed=committed)[0].loaded

    trial = {"recipe": dataclasses.replace(RECIPE, epochs=2), "committed": committed}
    trained, log = train(**trial)
    assert not trained.loaded
    assert log.changes == [
        "net: computed anew, since the recipe changed; it goes into data/cache/, "
        "the committed one stays"
    ]
    assert file.read_bytes() == content
    assert len(list((tmp_path / "cache").iterdir())) == 1
    assert train(**trial)[0].loaded and train(committed=committed)[0].loaded

    assert not train(**trial, anew=True)[0].loaded
    assert file.read_bytes() != content
    assert [path.name for path in committed.iterdir()] == ["net.pt"]
    assert train(**trial)[0].loaded


# ------------------------------------------------------------------ the frozen network

TEN = images(10).inputs
NETWORK = '''
import torch
from torch import nn

SLOPE = 0.5


class Net(nn.Module):
    """A network."""

    def __init__(self, kernel=5):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, 2, kernel, stride=9)
        self.norm = nn.BatchNorm2d(2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return leaky(self.norm(self.layer(image))).flatten(1)  # a line


def leaky(x):
    return torch.maximum(x, SLOPE * x)
'''


@pytest.fixture
def outputs(tmp_path, variant):
    """A function that computes or loads outputs; returns them, and the log's lines."""
    usual = variant(NETWORK).Net()

    def call(network=usual, inputs=TEN, transform=TRANSFORM, **options):
        log = Recorder()
        found = frozen.frozen_outputs(
            network,
            inputs,
            transform,
            **{"name": "some features", "folder": tmp_path / "cache", "log": log}
            | {"chunk_size": 4}
            | options,
        )
        return found, log.lines

    return call


@pytest.mark.parametrize(
    ("replacement", "what"),
    [
        (("leaky(self.norm", "torch.relu(self.norm"), "the code of Net"),
        (("torch.maximum", "torch.minimum"), "the code of leaky"),
        (("SLOPE = 0.5", "SLOPE = 0.25"), "the value of SLOPE"),
        (("manual_seed(0)", "manual_seed(1)"), "the network and the code"),
    ],
)
def test_features_of_other_code_are_computed_anew(outputs, variant, replacement, what):
    first, _ = outputs()
    found, lines = outputs(variant(NETWORK, replacement).Net())
    # said once, not for each of the three chunks
    [line] = lines
    assert line.startswith(f"some-features-000: computed anew, since {what}")
    assert not torch.equal(first.values, found.values)


@pytest.mark.parametrize(
    "replacement",
    [
        ("# a line", "# another"),
        ("A network.", "One."),
        ("image: torch.Tensor", "image"),
        ("class Net", "UNUSED = 1\n\n\nclass Net"),
    ],
)
def test_features_of_code_that_does_the_same_are_loaded(outputs, variant, replacement):
    first, _ = outputs()
    again, lines = outputs(variant(NETWORK, replacement).Net())
    assert lines == []
    assert again.seconds == first.seconds  # of the first time
    assert torch.equal(again.values, first.values)


@pytest.mark.parametrize(
    "what", ["weights", "buffers", "layers", "images", "size", "normalisation"]
)
def test_whatever_features_depend_on_makes_them_computed_anew(outputs, variant, what):
    outputs()
    net, change = variant(NETWORK).Net(), {}
    if what == "weights":
        net.layer.weight.data[0, 0, 0, 0] += 1
    elif what == "buffers":
        net.norm.running_mean += 1
    elif what == "layers":
        net.norm = nn.Identity()
    elif what == "images":
        change["inputs"] = images(10, seed=1).inputs
    elif what == "size":
        change["transform"] = input_transform(64, (0.5,) * 3, (0.25,) * 3)
    else:
        change["transform"] = input_transform(32, (0.5,) * 3, (0.3,) * 3)
    _, lines = outputs(net, **change)
    said = dict.fromkeys(("weights", "buffers", "layers"), "network")
    said |= {"size": "transform", "normalisation": "transform"}
    assert len(lines) == 1
    assert f"the {said.get(what, what)}" in lines[0]


def test_only_the_chunk_with_another_image_is_computed_anew(outputs, tmp_path):
    outputs()
    inputs = TEN.clone()
    inputs[5] = 0
    before = set((tmp_path / "cache").iterdir())
    _, lines = outputs(inputs=inputs)
    assert lines == ["some-features-001: computed anew, since the images changed"]
    [made] = set((tmp_path / "cache").iterdir()) - before
    assert made.name.startswith("some-features-001-")


# ------------------------------------------------------- the search, and few images


@pytest.fixture
def search(tmp_path):
    def call(code=head, train=None, validation=None, **options):
        log = Recorder()
        generator = torch.Generator().manual_seed(0)
        data = Examples(torch.randn(9, 3, generator=generator), torch.arange(9) % 3)
        options = {"learning_rates": (0.1,), "epochs": 2, "log": log} | options
        found = code.search(
            train or data, validation or data[:4], folder=tmp_path, **options
        )
        return [dataclasses.astuple(choice) for choice in found], log.changes

    return call


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"train": Examples(torch.eye(3), torch.arange(3))}, "the training features"),
        ({"validation": Examples(torch.eye(3), torch.arange(3))}, "the validation fe"),
        ({"learning_rates": (0.2,)}, "the recipes"),
        ({"weight_decays": (0.5,)}, "the recipes"),
        ({"epochs": 3}, "the recipes"),
    ],
)
def test_another_search_is_made_anew(search, change, what):
    first, _ = search()
    found, said = search(**change)
    assert found != first
    assert [f"head-search: computed anew, since {what}" in said[0], len(said)] == [1, 1]
    assert search() == (first, []) and search(**change) == (found, [])


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("nn.init.zeros_(head.bias)", "pass", "fit_head"),
        ("measure(head, validation))", "measure(head, train))", "try_all"),
        ("@torch.no_grad()\n", "", "measure"),
        ("weight_decay: float = 1e-1", "weight_decay: float = 1", "HeadRecipe"),
    ],
)
def test_a_search_with_other_fitting_is_made_anew(search, variant, old, new, what):
    search()
    assert search(variant(head, (old, new)))[1] == [
        f"head-search: computed anew, since the code of {what} changed"
    ]


def test_a_search_depends_on_how_an_epoch_is_trained():
    names = {"train_epoch", "shuffled", "loss_and_accuracy"}
    assert {f"the code of {name}" for name in names} < code_of(head.try_all).keys()


@pytest.fixture
def accuracy(tmp_path):
    def call(code=experiments, build=residual_net.ThreeBlockNet, **changes):
        usual = {"recipe": RECIPE, "train": images(), "test": images(4, seed=1)}
        usual |= {"transform": TRANSFORM, "folder": tmp_path}
        log = Recorder()
        options = usual | changes
        data = [options.pop(name) for name in ("recipe", "train", "test", "transform")]
        found = code.scratch_accuracy("few", few_build, *data, log=log, **options)
        return found, log.changes

    return call


def few_build(recipe):
    return residual_net.ThreeBlockNet(recipe.widths, classes=2)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"recipe": dataclasses.replace(RECIPE, epochs=2)}, "the recipe"),
        ({"train": images()[:5]}, "the training images"),
        ({"test": images(4, seed=3)}, "the test images"),
        ({"transform": input_transform(64, (0,) * 3, (1,) * 3)}, "the transform"),
    ],
)
def test_an_accuracy_from_few_images_is_computed_anew(accuracy, change, what):
    first, said = accuracy()
    assert said == []
    _, said = accuracy(**change)
    assert said == [f"few: computed anew, since {what} changed"]
    assert accuracy() == (first, [])


# ------------------------------------------------------------------------- code.py


PIECES = """
import functools
import math

import numpy as np
import torch

from src.common.progress import LiveLog

FACTOR = 2
SIZES = {"a": (1, 2)}
ARRAY = np.arange(3)
TENSOR = torch.arange(3)


def double(x):
    return 2 * x


def triple(x):
    return 3 * x


KINDS = {"double": double}
THRICE = functools.partial(triple, x=1)


class Thing:
    ratio = 0.5

    def run(self, x):
        LiveLog()
        return math.sqrt(x) * self.ratio + self.shift(x)

    def shift(self, x):
        return FACTOR + x


def follow(x):
    return KINDS[x], SIZES, ARRAY, TENSOR, THRICE, Thing


def closure(number):
    def inner(x: int = 1) -> int:
        y: int = x + number
        return y

    return inner
"""


def test_code_is_followed_to_all_that_it_names(variant):
    module = variant(PIECES)
    assert list(code_of(module.follow)) == [
        "the code of Thing",
        "the code of double",
        "the code of follow",
        "the code of triple",
        "the value of ARRAY",
        "the value of FACTOR",
        "the value of KINDS",
        "the value of SIZES",
        "the value of TENSOR",
        "the value of THRICE",
    ]
    assert list(code_of(module.Thing().run)) == [
        "the code of Thing.run",
        "the code of Thing.shift",
        "the value of FACTOR",
        "the value of self.ratio",
    ]
    rest = code_of(module.follow, without=(module.Thing, module.triple))
    assert {
        "the code of Thing",
        "the code of triple",
        "the value of FACTOR",
    }.isdisjoint(rest)


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("FACTOR = 2", "FACTOR = 3", ["the value of FACTOR"]),
        ("(1, 2)", "(2, 1)", ["the value of SIZES"]),
        ("np.arange(3)", "np.arange(4)", ["the value of ARRAY"]),
        ("torch.arange(3)", "torch.ones(3)", ["the value of TENSOR"]),
        ("x=1)", "x=2)", ["the value of THRICE"]),
        ("return 3 * x", "return 4 * x", ["the code of triple"]),
        ("return 2 * x", "return x * 2", ["the code of double"]),
        ('"double": double', '"double": triple', None),
        ("return FACTOR + x", "return FACTOR - x", ["the code of Thing"]),
        ("def double(x)", "def double(x=0)", ["the code of double"]),
    ],
)
def test_a_change_of_code_or_of_a_constant_is_found(variant, old, new, what):
    one, other = (code_of(variant(PIECES, *r).follow) for r in ([], [(old, new)]))
    assert one != other
    if what:
        assert [name for name in one if one[name] != other.get(name)] == what


def test_what_a_function_holds_from_around_it_counts(variant):
    module = variant(PIECES)
    one, same, other = (code_of(module.closure(n)) for n in (1, 1, 2))
    assert one == same != other
    assert "the value of number" in one


def test_a_local_of_the_same_name_as_a_constant_is_not_it(variant):
    source = "SIZE = 1\n\n\ndef f(x):\n    SIZE = x\n    return SIZE\n"
    assert list(code_of(variant(source).f)) == ["the code of f"]


def test_an_argument_of_the_same_name_as_a_constant_is_not_it(variant):
    """As `recipe` in a notebook, whose cells share one namespace."""
    source = (
        "recipe = 1\n\n\ndef build(recipe):\n    return [recipe for _ in range(2)]\n"
    )
    assert list(code_of(variant(source).build)) == ["the code of build"]


def test_what_a_transform_does_not_print_counts_too():
    make = [v2.ToDtype(torch.float32), v2.ToDtype(torch.float16), v2.Lambda(abs)]
    keys = [make_key(transform=v2.Compose([transform])) for transform in make]
    assert len({str(key) for key in keys}) == 3
    assert make_key(transform=v2.Compose([v2.ToDtype(torch.float32)])) == keys[0]


def test_the_code_of_a_recipe_within_a_list_counts():
    assert "the code of Recipe" in make_key(recipes=[RECIPE])


@pytest.fixture
def cell(monkeypatch):
    """A function that executes source as a notebook's cell: its namespace."""
    main, numbers = types.ModuleType("__main__"), itertools.count()
    monkeypatch.setitem(sys.modules, "__main__", main)

    def execute(source):
        name = f"/cells/ipykernel_1/{next(numbers)}.py"
        entry = (len(source), None, source.splitlines(keepends=True), name)
        monkeypatch.setitem(linecache.cache, name, entry)
        exec(compile(source, name, "exec"), vars(main))
        return main

    return execute


def test_a_network_in_a_cell_counts_as_the_same_one_in_a_module(cell, variant):
    """So that what src trained is loaded by the notebook, which shows the classes."""
    source = inspect.getsource(residual_net) + BUILD
    network, build = source.split(BUILD)[0], BUILD
    cell(network)
    inside = code_of(cell(build).build)
    assert inside == code_of(variant(source).build)
    assert {"the code of ResidualBlock", "the code of ThreeBlockNet"} < inside.keys()
    changed = cell(network.replace("nn.ReLU()", "nn.GELU()"))
    different = code_of(changed.build)
    assert [name for name in inside if inside[name] != different[name]] == [
        "the code of ResidualBlock"
    ]


def test_any_class_in_a_cell_is_found(cell, variant):
    """Also one whose methods are wrapped, or made by a decorator."""
    source = (
        "from dataclasses import dataclass\n\nimport torch\n\n\n"
        "@dataclass\nclass Row:\n    number: int = 1\n\n"
        "    def twice(self):\n        return 2 * self.number\n\n\n"
        "class Net(torch.nn.Module):\n    @torch.no_grad()\n"
        "    def forward(self, x):\n        return Row(x)\n"
    )
    assert code_of(cell(source).Net) == code_of(variant(source).Net)
    assert list(code_of(cell(source).Net)) == ["the code of Net", "the code of Row"]


def test_two_of_one_name_both_count(variant):
    first, second, third = (
        variant(PIECES, ("FACTOR = 2", f"FACTOR = {n}")).Thing for n in (2, 3, 4)
    )
    assert code_of(first, second) == code_of(second, first)
    assert code_of(first, second) != code_of(first)
    assert code_of(first, second) != code_of(first, third)


def test_the_hash_of_source_is_of_what_it_does():
    plain = "def f(x):\n    y = x\n    return y + 1\n"
    for same in (
        f'"""A module."""\n\n{plain}',
        plain.replace("f(x)", "f(x: int) -> int"),
        plain.replace("    y", '    """What f does."""\n    y'),
        plain.replace("y + 1", "(y\n + 1)  # one more"),
    ):
        assert syntax_hash(same) == syntax_hash(plain)
    for other in (plain.replace("1", "2"), plain.replace("x", "z"), plain + "f(1)\n"):
        assert syntax_hash(other) != syntax_hash(plain)
    hinted = "class A:\n    rows: list[int] = []\n"
    assert syntax_hash(hinted) == syntax_hash(hinted.replace("int", "str"))
    assert syntax_hash("f = None") != syntax_hash("f = 0")


# ------------------------------------------------------------------------- kept.py


def test_the_same_parts_make_the_same_key_and_others_another():
    def key(**parts):
        return make_key(
            **{"recipe": RECIPE, "sizes": [1, {"a": torch.ones(2)}]} | parts
        )

    assert key() == key()
    assert key(recipe=dataclasses.replace(RECIPE, epochs=2)) != key()
    others = (
        [1, {"a": torch.ones(2).double()}],
        [1, {"a": torch.ones(2, 1)}],
        [1, {"a": torch.zeros(2)}],
        [1, {"b": torch.ones(2)}],
        [2, {"a": torch.ones(2)}],
        [{"a": torch.ones(2)}, 1],
    )
    keys = [key(sizes=other)["the sizes"] for other in others]
    assert len({*keys, key()["the sizes"]}) == len(others) + 1
    turned = torch.arange(6).reshape(2, 3).T  # of another layout in memory
    assert make_key(x=turned) == make_key(x=turned.contiguous())


def test_a_transform_counts_by_its_code(variant):
    source = "from torch import nn\n\ndef f(x):\n    return x + 1\n\n"
    source += "class T(nn.Module):\n    def forward(self, x):\n        return x + 1\n"
    one, other = variant(source), variant(source, ("x + 1", "x + 2"))
    assert make_key(transform=one.f) == make_key(transform=variant(source).f)
    assert make_key(transform=one.T()) == make_key(transform=variant(source).T())
    assert make_key(transform=one.f) != make_key(transform=other.f)
    assert make_key(transform=one.T()) != make_key(transform=other.T())
    for senseless in (object(), functools.partial(one.f, 1)):
        with pytest.raises(TypeError, match="can't be part of a key"):
            make_key(transform=senseless)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 half"])
def test_a_damaged_file_is_said_once_and_replaced(tmp_path, capsys, content):
    key, calls = {"the recipe": "1"}, []

    def compute():
        calls.append(1)
        return {"value": 7}

    path = place("thing", key, tmp_path)
    path.write_bytes(content)
    for _ in range(2):
        assert kept("thing", key, compute, folder=tmp_path)["value"] == 7
    assert len(calls) == 1
    out = capsys.readouterr().out
    assert out.count("what it held is computed anew") == 1 and path.name in out
    assert "changed" not in out


def test_a_file_of_something_else_is_not_used(tmp_path):
    key = {"the recipe": "1"}
    for other in ([1, 2], {"epoch": 3}, {"key": {"the recipe": "2"}, "value": 1}):
        torch.save(other, place("thing", key, tmp_path))
        assert kept("thing", key, lambda: {"value": 7}, folder=tmp_path)["value"] == 7


def test_what_changed_is_told_against_the_nearest_of_that_name(tmp_path):
    write_state(place("a", old := {"x": "1", "y": "1"}, tmp_path), {"key": old})
    write_state(place("a", older := {"x": "0", "y": "0"}, tmp_path), {"key": older})
    write_state(
        place("a-b", twin := {"x": "1", "y": "2", "z": "9"}, tmp_path), {"key": twin}
    )
    SAID.clear()

    def keep(name, key):
        kept(name, key, dict, folder=tmp_path)

    keep("a", {"x": "1", "y": "2"})  # not a-b's, which is another thing
    keep("a", {"x": "2", "z": "3"})
    keep("new", {"x": "1"})
    keep("new", dict.fromkeys("abcde", "1"))
    assert SAID == [
        "a: computed anew, since y changed",
        "a: computed anew, since x and z and y changed",
        "new: computed anew, since a and b and c and 3 more changed",
    ]


def test_mapped_from_the_file_it_is_the_same(tmp_path):
    key = {"the recipe": "1"}
    value = torch.arange(5.0)
    for _ in range(2):
        state = kept("a", key, lambda: {"x": value}, folder=tmp_path, mmap=True)
        assert torch.equal(state["x"], value) and state.keys() == {"x"}


def test_a_full_disk_leaves_no_half_written_file(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keeping.torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        kept("a", {"x": "1"}, lambda: {"value": 1}, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_reading_what_is_not_there(tmp_path, capsys):
    assert read_state(tmp_path / "none.pt") is None
    assert capsys.readouterr().out == ""
