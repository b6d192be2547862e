"""The guide's training loop against one written out; what is kept, and until when."""

import importlib.util
import inspect
import math
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from torch import Generator, Tensor, nn

from src.common.kept import make_key, place, read_state
from src.common.progress import LiveLog
from src.vision_tasks import TASKS
from src.vision_tasks.shared import training
from src.vision_tasks.shared.task import Batch, Task, TaskRecipe, infer, mirror_half
from src.vision_tasks.shared.training import (
    fit,
    task_key,
    train_task,
    warm_up_and_cosine,
)
from src.vision_tasks.street.scenes import Scenes, make_scenes

#: What the loss is multiplied by: so large that some gradients are clipped, not all.
SCALE = 0.8


class TinyNet(nn.Module):
    """All that training can miss: BatchNorm, dropout, a parameter that is not trained.

    forward: images [B, 3, H, W] and numbers [B, 1] to numbers [B, 1], in float64.
    """

    def __init__(self, start: float) -> None:
        super().__init__()
        self.convolve = nn.Conv2d(3, 4, 3, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(5, 1)
        self.start = nn.Parameter(torch.tensor(start), requires_grad=False)
        self.double()

    def forward(self, images: Tensor, numbers: Tensor) -> Tensor:
        x = self.norm(self.convolve(images)).relu().mean(dim=(2, 3))
        return self.head(self.drop(torch.cat([x, numbers], dim=1))) + self.start


class Tiny(Task):
    """The class of the nearest object, from the image and the class of the main one."""

    name = "tiny"
    metric = "score"

    def build_model(self, *, pretrained: bool = False) -> TinyNet:
        return TinyNet(0.5 if pretrained else 0.0)

    def example_inputs(self, batch: int = 2) -> tuple[Tensor, ...]:
        return (torch.rand(batch, 3, 32, 32),)

    def prepare(self, scenes: Scenes, generator: Generator | None = None) -> Batch:
        images = scenes.images.double() / 255
        if generator:  # a comment
            (images,) = mirror_half(generator, images)
        return Batch((images, scenes.main[:, None]), (scenes.labels[:, :1],))

    def loss(self, output: Tensor, targets: tuple[Tensor, ...]) -> Tensor:
        return SCALE * (output - targets[0]).square().mean()

    def measure(self, model: nn.Module, scenes: Scenes) -> dict[str, float]:
        return {"score": 1.0}

    def baselines(self, train: Scenes, test: Scenes) -> dict[str, dict[str, float]]:
        return {"a guess": {"score": 0.5}}

    def figure(self, model: nn.Module, scenes: Scenes) -> None:
        """Nothing is drawn."""


TASK = Tiny()
RECIPE = TaskRecipe(steps=23, batch_size=3, learning_rate=0.03, pretrained=False)


@pytest.fixture(scope="module", name="scenes")  # a key follows all names of globals
def draw_scenes() -> Scenes:
    return make_scenes(7, seed=3, size=32)


@pytest.fixture(autouse=True)
def rounds_of_ten(monkeypatch):
    monkeypatch.setattr(training, "ROUND", 10)


@pytest.fixture
def clock(monkeypatch):
    """Time stands still, but for half a second that each batch takes to prepare."""
    now = [100.0]
    prepare = Tiny.prepare

    def slowly(*arguments):
        now[0] += 0.5
        return prepare(*arguments)

    monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(Tiny, "prepare", slowly)


def tiny_net(seed: int = 0) -> TinyNet:
    torch.manual_seed(seed)
    return TinyNet(0.0)


def run(model: TinyNet, scenes, recipe=RECIPE, partial=None) -> tuple:
    return fit(TASK, model, scenes, recipe, partial, LiveLog(keep=False))


def same(one: nn.Module, other: nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(states[0][key], states[1][key]) for key in states[0])


# --- the loop ---


def reference(model: TinyNet, scenes: Scenes, recipe: TaskRecipe) -> dict[str, list]:
    """The same training written out; returns each step's loss and gradient's norm."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    means = [torch.zeros_like(p) for p in parameters]
    squares = [torch.zeros_like(p) for p in parameters]
    seen = {"loss": [], "norm": []}
    model.train()
    for step in range(recipe.steps):
        if step % 10 == 0:
            seed = 13 * 100_000 + step
            generator = Generator().manual_seed(seed)
            torch.manual_seed(seed)
        index = torch.randint(7, (recipe.batch_size,), generator=generator)
        batch = TASK.prepare(scenes[index], generator)
        loss = TASK.loss(model(*batch.inputs), batch.targets)
        gradients = torch.autograd.grad(loss, parameters)
        norm = math.sqrt(sum(g.square().sum() for g in gradients))
        scale = min(1.0, 5.0 / (norm + 1e-6))
        rate = recipe.learning_rate * (
            (step + 1) / 2
            if step < 2
            else (1 + math.cos(math.pi * (step - 2) / 21)) / 2
        )
        for p, g, mean, square in zip(
            parameters, gradients, means, squares, strict=True
        ):
            mean.lerp_(scale * g, 1 - 0.9)
            square.lerp_((scale * g).square(), 1 - 0.999)
            m, s = mean / (1 - 0.9 ** (step + 1)), square / (1 - 0.999 ** (step + 1))
            p.data *= 1 - rate * recipe.weight_decay
            p.data -= rate * m / (s.sqrt() + 1e-8)
        seen["loss"].append(loss.item())
        seen["norm"].append(norm)
    return seen


def test_training_is_adamw_with_warm_up_cosine_and_clipping(scenes):
    model, expected = tiny_net(), tiny_net()
    model.eval()  # `fit` changes that
    seen = reference(expected, scenes, RECIPE)
    assert min(seen["norm"]) < 4 and max(seen["norm"]) > 6  # clipped, and not
    losses, _ = run(model, scenes)
    for name, value in model.state_dict().items():
        wanted = expected.state_dict()[name]
        torch.testing.assert_close(value, wanted, rtol=1e-8, atol=1e-9, msg=name)
    rounds = [seen["loss"][:10], seen["loss"][10:20], seen["loss"][20:]]
    assert losses == pytest.approx([sum(one) / len(one) for one in rounds], rel=1e-8)


def test_the_learning_rate_rises_in_a_tenth_and_falls_to_zero_along_a_cosine():
    recipe = TaskRecipe(steps=34, learning_rate=0.6)
    rates = [warm_up_and_cosine(recipe, step) for step in range(35)]
    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.6], rel=1e-12)
    down = [0.3 + 0.3 * math.cos(math.pi * step / 31) for step in range(32)]
    assert rates[3:] == pytest.approx(down, abs=1e-12)
    few = [warm_up_and_cosine(TaskRecipe(steps=2), step) for step in range(2)]
    assert few == pytest.approx([1e-3, 5e-4])


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 24},
        {"batch_size": 4},
        {"learning_rate": 0.02},
        {"weight_decay": 0.02},
        {"pretrained": True},
        {"seed": 14},
    ],
)
def test_every_field_of_the_recipe_counts(tmp_path, scenes, change):
    one = train_task(TASK, scenes, RECIPE, tmp_path / "one")
    other = train_task(TASK, scenes, replace(RECIPE, **change), tmp_path / "other")
    assert not same(one.model, other.model)


def test_the_seed_gives_the_first_weights_and_the_batches(tmp_path, scenes):
    nothing = replace(RECIPE, learning_rate=0.0)
    torch.manual_seed(99)  # what was before does not matter
    one = train_task(TASK, scenes, nothing, tmp_path)
    assert torch.equal(one.model.head.weight, tiny_net(seed=13).head.weight)
    (first, _), (again, _), (other, _) = (
        run(tiny_net(), scenes, replace(RECIPE, seed=seed)) for seed in (13, 13, 14)
    )
    assert first == again != other


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_training(monkeypatch, scenes, bad):
    losses = iter([1.0] * 11 + [bad])
    monkeypatch.setattr(Tiny, "loss", lambda self, x, _: x.sum() * 0 + next(losses))
    model = tiny_net()
    with pytest.raises(
        RuntimeError, match=f"tiny: the loss of step 11 is {bad}; lower"
    ):
        run(model, scenes)
    assert all(p.isfinite().all() for p in model.parameters())


def test_the_log_says_how_far_it_is(capsys, scenes, clock):
    losses, seconds = fit(TASK, tiny_net(), scenes, RECIPE, None, LiveLog())
    assert seconds == 23 * 0.5
    assert capsys.readouterr().out.splitlines() == [
        f"tiny                   step    10/23   loss {losses[0]:8.4f}      5.0 s",
        f"tiny                   step    20/23   loss {losses[1]:8.4f}     10.0 s",
        f"tiny                   step    23/23   loss {losses[2]:8.4f}     11.5 s",
    ]


# --- interrupted, kept, loaded ---


class Interrupted(LiveLog):
    """Ctrl-C before step number `step`, counted from 0."""

    def __init__(self, step: int) -> None:
        super().__init__(keep=False)
        self.step = step

    def track(self, items, description):
        for step in items:
            if step == self.step:
                raise KeyboardInterrupt
            yield step


@pytest.mark.parametrize("after", [9, 10, 15, 22])
def test_an_interrupted_training_ends_like_an_uninterrupted_one(
    tmp_path, capsys, scenes, clock, after
):
    whole, partial = tmp_path / "whole.pt", tmp_path / "partial.pt"
    expected = tiny_net()
    losses = run(expected, scenes, partial=whole)
    with pytest.raises(KeyboardInterrupt):
        fit(TASK, tiny_net(), scenes, RECIPE, partial, Interrupted(after))
    assert partial.exists() == (after >= 10)

    resumed = tiny_net(seed=0 if after < 10 else 1)
    assert fit(TASK, resumed, scenes, RECIPE, partial, LiveLog()) == losses
    printed = capsys.readouterr().out.splitlines()
    done = after // 10 * 10
    if done:
        assert printed[0] == f"(resumed after {done} steps)"
    assert len(printed) == (done > 0) + 3 - done // 10
    assert same(resumed, expected)
    states = read_state(whole), read_state(partial)
    for state in states:  # AdamW's means of every trained parameter, too
        assert set(state) == {"model", "optimiser", "losses", "seconds"}
        assert len(state["optimiser"]["state"]) == 5
    torch.testing.assert_close(*states, rtol=0, atol=0)


def test_a_finished_training_is_loaded(tmp_path, monkeypatch, capsys, scenes):
    trained = train_task(TASK, scenes, RECIPE, tmp_path)
    key = task_key(TASK, scenes, RECIPE) | make_key(half_precision=False)
    assert list(tmp_path.iterdir()) == [place("tiny", key, tmp_path)]
    assert not trained.loaded and not trained.model.training
    assert len(trained.history) == 3 and trained.seconds > 0
    assert set(trained.provenance) >= {"torch", "device", "date"}
    assert next(trained.model.parameters()).device.type == "cpu"
    alone = tiny_net(seed=13)
    assert run(alone, scenes)[0] == trained.history
    assert same(alone, trained.model)
    capsys.readouterr()

    monkeypatch.setattr(training, "fit", lambda *_: pytest.fail("trained again"))
    monkeypatch.setattr(training, "task_key", lambda *_: key)
    loaded = train_task(TASK, scenes, RECIPE, tmp_path)
    assert loaded.loaded and same(trained.model, loaded.model)
    assert not loaded.model.training
    for name in ("history", "seconds", "provenance"):
        assert getattr(loaded, name) == getattr(trained, name)
    assert capsys.readouterr().out == ""


def test_it_trains_on_the_device_and_comes_back(tmp_path, monkeypatch, scenes):
    """There may be none but the CPU here, so this only sees what is asked to move."""
    moves, move = [], training.to_device

    def to_device(tensor, device):
        moves.append((*tensor.shape[1:], device.type))
        return move(tensor, device)

    monkeypatch.setattr(training, "to_device", to_device)
    monkeypatch.setattr(training, "pick_device", lambda: "the GPU")
    monkeypatch.setattr(TinyNet, "to", lambda self, *a, **b: moves.append((*a, b)))
    monkeypatch.setattr(TinyNet, "cpu", lambda self: moves.append("back"))
    train_task(TASK, scenes, replace(RECIPE, steps=1), tmp_path)
    there = ("the GPU", {"memory_format": torch.channels_last})
    batch = [(3, 32, 32, "cpu"), (1, "cpu"), (1, "cpu")]
    assert moves == [there, *batch, "back"]


def test_anew_trains_again_and_replaces_what_was_kept(tmp_path, monkeypatch, scenes):
    trained = train_task(TASK, scenes, RECIPE, tmp_path)
    key = task_key(TASK, scenes, RECIPE) | make_key(half_precision=False)
    monkeypatch.setattr(training, "task_key", lambda *_: key)
    monkeypatch.setattr(training, "fit", lambda *_: ([0.25], 7.0))
    again = train_task(TASK, scenes, RECIPE, tmp_path, anew=True)
    assert not again.loaded and (again.history, again.seconds) == ([0.25], 7.0)
    assert train_task(TASK, scenes, RECIPE, tmp_path).history == [0.25]
    assert len(list(tmp_path.iterdir())) == 1
    assert not same(again.model, trained.model)


def test_an_interrupted_training_goes_on_and_leaves_one_file(tmp_path, capsys, scenes):
    expected = train_task(TASK, scenes, RECIPE, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train_task(TASK, scenes, RECIPE, tmp_path / "cut", log=Interrupted(12))
    capsys.readouterr()
    key = task_key(TASK, scenes, RECIPE) | make_key(half_precision=False)
    unfinished = place("tiny.partial", key, tmp_path / "cut")
    assert list((tmp_path / "cut").iterdir()) == [unfinished]
    log = LiveLog()
    log.line("a header")
    trained = train_task(TASK, scenes, RECIPE, tmp_path / "cut", log=log)
    assert capsys.readouterr().out.startswith(
        "a header\n(resumed after 10 steps)\ntiny"
    )
    assert same(trained.model, expected.model)
    assert trained.history == expected.history
    assert list((tmp_path / "cut").iterdir()) == [place("tiny", key, tmp_path / "cut")]


# --- what a training depends on ---


@pytest.fixture
def variant(tmp_path):
    """A function: the tiny task in a module of its own, `old` replaced by `new`."""
    header = """
from torch import *
from torch import nn
import torch
from src.vision_tasks.shared.task import *
from src.vision_tasks.street.scenes import Scenes
SCALE = 0.8
"""
    source = header + inspect.getsource(TinyNet) + inspect.getsource(Tiny)

    def make(old: str = "", new: str = "") -> Task:
        assert old in source
        path = tmp_path / f"tiny{len(list(tmp_path.iterdir()))}.py"
        path.write_text(source.replace(old, new, 1), encoding="utf-8")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        sys.modules[path.stem] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.Tiny()

    yield make
    for path in tmp_path.glob("*.py"):
        del sys.modules[path.stem]


def changed(one: dict, other: dict) -> list[str]:
    return [name for name in one | other if one.get(name) != other.get(name)]


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("- targets[0]).square", "- targets[0]).abs", "the code of Tiny.loss"),
        ("double() / 255", "double() / 256", "the code of Tiny.prepare"),
        ("0.5 if pretrained", "0.6 if pretrained", "the code of Tiny.build_model"),
        ("nn.Dropout(0.3)", "nn.Dropout(0.2)", "the code of TinyNet"),
        ("SCALE = 0.8", "SCALE = 0.9", "the value of SCALE"),
        ('{"score": 1.0}', '{"score": 2.0}', None),  # measure
        ('{"score": 0.5}', '{"score": 0.6}', None),  # baselines
        ('"""Nothing is drawn."""', "return None", None),  # figure
        ("# a comment", "# another", None),
        ("All that training can miss", "All there is", None),  # a docstring
        ("torch.rand(batch, 3", "torch.rand(batch, 4", None),  # example_inputs
    ],
)
def test_code_counts_if_it_trains(variant, scenes, old, new, what):
    keys = [task_key(task, scenes, RECIPE) for task in (variant(), variant(old, new))]
    assert changed(*keys) == ([what] if what else [])


def test_the_key_holds_all_that_trains_and_no_more(monkeypatch, scenes):
    monkeypatch.setattr(
        training, "start_weights", lambda: pytest.fail("no weights are asked for")
    )
    key = task_key(TASK, scenes, RECIPE)
    code = {name.removeprefix("the code of ") for name in key if "the code of" in name}
    ours = {"Tiny.build_model", "Tiny.prepare", "Tiny.loss", "TinyNet"}
    shared = {"TaskRecipe", "Batch", "Scenes", "mirror_half"}
    assert code == ours | shared | {"fit", "warm_up_and_cosine", "to_device"}
    values = {name for name in key if name.startswith("the value of")}
    assert {"the value of ROUND", "the value of SCALE"} <= values
    assert {"the recipe", "the scenes"} <= set(key)
    monkeypatch.setattr(training, "ROUND", 11)
    assert changed(key, task_key(TASK, scenes, RECIPE)) == ["the value of ROUND"]


@pytest.mark.parametrize("name", TASKS)
def test_no_training_depends_on_what_measures_or_draws(monkeypatch, scenes, name):
    monkeypatch.setattr(training, "start_weights", lambda: SimpleNamespace(sha256="1"))
    task = TASKS[name]
    kind = type(task).__name__
    key = task_key(task, scenes, task.recipe)
    for part in (f"{kind}.build_model", f"{kind}.prepare", f"{kind}.loss", "fit"):
        assert f"the code of {part}" in key
    assert not [
        part
        for part in key
        if part.endswith(
            ("measure", "baselines", "figure", "infer", "grid", f" {kind}")
        )
    ]


def test_it_trains_anew_and_says_what_changed(tmp_path, monkeypatch, capsys, scenes):
    weights = SimpleNamespace(sha256="1")
    monkeypatch.setattr(training, "SOURCES", {"standin": weights})
    short = replace(RECIPE, steps=1)
    started = replace(short, pretrained=True)

    def said(recipe, scenes=scenes) -> str:
        """What a training says before its own lines; "loaded" if it is none."""
        trained = train_task(TASK, scenes, recipe, tmp_path)
        printed = capsys.readouterr().out
        if trained.loaded:
            return printed or "loaded"
        return printed[: printed.index("tiny     ")]

    assert said(short) == ""
    assert said(short) == "loaded"
    anew = "tiny: computed anew, since {} changed\n".format
    assert said(replace(short, seed=14)) == anew("the recipe")
    assert said(short) == "loaded"  # that of before is still there
    assert said(short, scenes[1:]) == anew("the scenes")
    both = "the recipe and the pre-trained weights"
    assert said(started) == anew(both)
    assert said(started) == "loaded"
    weights.sha256 = "2"
    assert said(started) == anew("the pre-trained weights")
    assert said(short) == "loaded"  # it began at random
    monkeypatch.setattr(sys.modules[__name__], "SCALE", 0.9)
    assert said(short) == anew("the value of SCALE")


# --- what the loop and the tasks share ---


def test_a_random_half_of_a_batch_is_mirrored_every_tensor_alike():
    rows = torch.arange(80.0).view(20, 1, 1, 4)
    image, mask = mirror_half(Generator().manual_seed(0), rows, rows[:, 0])
    for position, draw in enumerate(
        torch.rand(20, generator=Generator().manual_seed(0)).tolist()
    ):
        row = rows[position].flip(-1) if draw < 0.5 else rows[position]
        assert torch.equal(image[position], row)
        assert torch.equal(mask[position], row[0])


class Pair(NamedTuple):
    total: Tensor  # [B]
    shape: Tensor  # [B, 2]: the size of the batch, and whether gradients are kept


class Summing(nn.Module):
    def forward(self, images: Tensor, numbers: Tensor) -> Pair:
        total = images.sum(dim=(1, 2, 3)) + numbers[:, 0]
        shape = torch.tensor([[len(images), torch.is_grad_enabled()]] * len(images))
        return Pair(total, shape)


def test_inference_goes_through_all_scenes_in_batches(scenes):
    output = infer(TASK, Summing(), scenes, batch_size=3)
    totals = scenes.images.double().sum(dim=(1, 2, 3)) / 255 + scenes.main
    assert isinstance(output, Pair)
    torch.testing.assert_close(output.total, totals)
    assert output.shape.tolist() == [[3, 0]] * 6 + [[1, 0]]
    whole = infer(TASK, Summing(), scenes[[0] * 51]).shape[:, 0]
    assert whole.tolist() == [50] * 50 + [1]


def test_inference_with_one_tensor(scenes):
    model = tiny_net().eval()
    batch = TASK.prepare(scenes)
    output = infer(TASK, model, scenes, batch_size=2)
    torch.testing.assert_close(output, model(*batch.inputs).detach())
    assert not output.requires_grad
