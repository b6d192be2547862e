"""Scenes: the same from the same seed, and every truth agrees with the others."""

import inspect
from collections import Counter
from dataclasses import fields, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch.nn.functional import grid_sample

from src.common import code
from src.common.progress import LiveLog
from src.vision_tasks.street import scenes as scenes_module
from src.vision_tasks.street.captions import caption
from src.vision_tasks.street.motion import NOW, parked
from src.vision_tasks.street.rendering import build_scenery, render, true_flow
from src.vision_tasks.street.scenes import (
    MIN_ANOMALY,
    MIN_SEEN,
    SPLITS,
    Scenes,
    load_scenes,
    make_scenes,
)
from src.vision_tasks.street.vocabulary import (
    FUTURE_STEPS,
    LANE_LINES,
    LANE_ROWS,
    MAX_OBJECTS,
    OBJECT_CLASSES,
    PAST_STEPS,
    SEMANTIC_CLASSES,
    STEP_SECONDS,
)
from src.vision_tasks.street.world import CAMERA_HEIGHT, Body, sample_world

ROAD, MARKING, PAVEMENT, GRASS, SKY = range(5)
OBSTACLE = SEMANTIC_CLASSES.index("obstacle")
SIZE = 96
COUNT = 48


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return make_scenes(COUNT, seed=3, size=SIZE)


@pytest.fixture(scope="module")
def odd_scenes() -> Scenes:
    return make_scenes(12, seed=4, size=SIZE, anomalies=1.0)


def same(one: Scenes, other: Scenes) -> bool:
    for field in fields(Scenes):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if field.name == "captions":
            if a != b:
                return False
        elif not torch.equal(a.nan_to_num(-1), b.nan_to_num(-1)):
            return False
    return True


def labelled(scenes: Scenes):
    """(scene, object) of each labelled object."""
    return (scenes.labels >= 0).nonzero().tolist()


# --- one scene, step by step ---


def line_at(road, z: float, lateral: float) -> float:
    """X of the point at `z` that is at `lateral` across the road, by bisection."""
    low, high = -500.0, 500.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if road.lateral(middle, z) < lateral else (low, middle)  # fmt: skip  # noqa: E501
    return low


def truths(rng, size: int, anomalies: float, sample=sample_world) -> dict:
    """What a scene holds, worked out one object and one pixel at a time."""
    wanted = rng.random() < anomalies
    while True:  # until an object is seen, and the anomaly if there is one
        world = sample(rng, bool(wanted))
        scenery = build_scenery(world)
        view = render(world, scenery, size, 0)
        seen = [int((view.owner == 1 + i).sum()) for i in range(len(world.bodies))]
        clear = [i for i, pixels in enumerate(seen) if pixels >= 0.0012 * size * size]
        odd = int((view.semantic == OBSTACLE).sum())
        if clear and (odd >= 0.003 * size * size or not wanted):
            break
    chosen = sorted(clear, key=lambda i: -seen[i])[:8]
    chosen.sort(key=lambda i: world.bodies[i].motion.positions[NOW][1])
    largest = max(chosen, key=lambda i: (seen[i], -chosen.index(i)))
    scene = {
        "instances": np.zeros((size, size)),
        "boxes": np.zeros((8, 4)),
        "labels": np.full(8, -1),
        "past": np.zeros((8, 8, 2)),
        "future": np.zeros((8, 12, 2)),
        "lanes": np.full((3, 24), np.nan),
        "images": np.moveaxis(view.image, -1, 0),
        "next_images": np.moveaxis(render(world, scenery, size, 1).image, -1, 0),
        "flow": true_flow(world, view),
        "depth": np.where(view.semantic == SKY, 0, view.depth)[None],
        "semantic": view.semantic,
        "anomaly": view.semantic == OBSTACLE,
        "main": OBJECT_CLASSES.index(world.bodies[largest].kind),
    }
    for number, index in enumerate(chosen):
        body, mine = world.bodies[index], view.owner == index + 1
        scene["instances"][mine] = number + 1
        columns = [i for i in range(size) if mine[:, i].any()]
        rows = [i for i in range(size) if mine[i].any()]
        scene["boxes"][number] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        scene["labels"][number] = ("car", "truck", "bus", "pedestrian").index(body.kind)
        scene["past"][number], scene["future"][number] = body.motion.track(rng)
    for line, side in enumerate((-1, 0, 1)):
        for row, height in enumerate(LANE_ROWS):
            z = 1.5 / (height - 0.5)
            x = size * (0.5 + line_at(world.road, z, side * world.road.lane_width) / z)
            if 0 <= x < size:
                scene["lanes"][line, row] = x
    left, _, right, _ = scene["boxes"][chosen.index(largest)]
    scene["captions"] = caption(
        [world.bodies[i].kind for i in chosen],
        [seen[i] for i in chosen],
        world.bodies[largest].coat,
        (left + right) / 2 / size,
        world.road,
        world.weather,
    )
    return scene


def agrees(scene: dict, scenes: Scenes, number: int) -> None:
    assert scene["captions"] == scenes.captions[number]
    for name in set(scene) - {"captions"}:
        value = getattr(scenes, name)[number].double().numpy()
        expected = np.asarray(scene[name], float)
        assert np.allclose(value, expected, rtol=1e-6, atol=1e-5, equal_nan=True), name


@pytest.mark.parametrize("seed, anomalies", [(3, 0.0), (11, 0.5), (12, 1.0)])
def test_scenes_are_what_their_parts_make_of_them(seed, anomalies):
    size = 64
    scenes = make_scenes(6, seed, size, anomalies, first=2)
    for number in range(6):
        rng = np.random.default_rng([seed, 2 + number])
        agrees(truths(rng, size, anomalies), scenes, number)


def test_only_the_most_visible_are_labelled(monkeypatch):
    """Of ten in a row only MAX_OBJECTS, from near to far; nor one that hardly shows."""
    world = sample_world(np.random.default_rng(1), False)

    def walker(number: int, height: float = 1.8) -> Body:
        z = 7.0 + 7 * number % 10 / 2  # in another order than in the list
        motion = parked(world.road, z, 0.09 * (number - 4.5) * z + 1.7, 1)
        return Body("pedestrian", "red", 0.62, 0.5, height, motion, (0.5,) * 6)

    for count, some_height, shown in ((10, 1.8, MAX_OBJECTS), (5, 0.25, 4)):
        crowd = (walker(0, some_height), *map(walker, range(1, count)))
        sample = lambda *_, some=crowd: replace(  # noqa: E731
            world, bodies=some, buildings=(), trees=()
        )
        monkeypatch.setattr(scenes_module, "sample_world", sample)
        scenes = make_scenes(1, 0, SIZE)
        agrees(truths(np.random.default_rng([0, 0]), SIZE, 0.0, sample), scenes, 0)
        assert (scenes.labels >= 0).sum() == shown
        seen = render(sample(), build_scenery(sample()), SIZE, 0).owner
        assert len(np.unique(seen)) == 1 + count


def test_shapes_and_types(scenes):
    n, m, s = COUNT, MAX_OBJECTS, SIZE
    expected = {
        "images": (torch.uint8, (n, 3, s, s)),
        "next_images": (torch.uint8, (n, 3, s, s)),
        "flow": (torch.float32, (n, 2, s, s)),
        "depth": (torch.float32, (n, 1, s, s)),
        "semantic": (torch.uint8, (n, s, s)),
        "instances": (torch.uint8, (n, s, s)),
        "boxes": (torch.float32, (n, m, 4)),
        "labels": (torch.int64, (n, m)),
        "main": (torch.int64, (n,)),
        "lanes": (torch.float32, (n, 3, len(LANE_ROWS))),
        "past": (torch.float32, (n, m, PAST_STEPS, 2)),
        "future": (torch.float32, (n, m, FUTURE_STEPS, 2)),
        "anomaly": (torch.bool, (n, s, s)),
    }
    for name, (dtype, shape) in expected.items():
        value = getattr(scenes, name)
        assert (value.dtype, tuple(value.shape)) == (dtype, shape), name
        if name != "lanes":
            assert value.float().isfinite().all(), name
    assert len(scenes) == len(scenes.captions) == n
    assert scenes.depth.min() == 0 and scenes.depth[scenes.depth > 0].min() > 0.3
    assert scenes.semantic.max() < len(SEMANTIC_CLASSES)


def test_a_scene_depends_on_seed_and_number_alone(scenes):
    assert same(scenes[5:8], make_scenes(3, 3, SIZE, first=5))
    assert not same(scenes[:2], make_scenes(2, 5, SIZE))


@pytest.mark.parametrize("size", [32, 100, 224])
def test_any_size(size, scenes):
    one = make_scenes(2, 3, size)
    assert one.images.shape == (2, 3, size, size)
    assert (one.labels >= 0).any(1).all()
    known = ~one.lanes.isnan()
    assert (one.lanes[known] >= 0).all() and (one.lanes[known] < size).all()


def test_indexing(scenes):
    some = scenes[[4, 1]]
    assert some.captions == (scenes.captions[4], scenes.captions[1])
    assert torch.equal(some.depth[0], scenes.depth[4])
    cars = scenes[scenes.main == 0]
    assert len(cars) == (scenes.main == 0).sum() == len(cars.captions)
    assert len(scenes[torch.tensor([], dtype=torch.int64)]) == 0 == len(scenes[[]])
    assert same(scenes[-2:], scenes[[COUNT - 2, COUNT - 1]])
    with pytest.raises(TypeError, match=r"\[3\]"):
        scenes[3]


def test_depth_of_the_road_is_that_of_a_plane(scenes):
    height = torch.arange(SIZE) + 0.5 - SIZE / 2
    plane = (CAMERA_HEIGHT * SIZE / height)[:, None].expand(SIZE, SIZE)
    for semantic, depth in zip(scenes.semantic, scenes.depth, strict=True):
        ground = semantic <= GRASS
        assert torch.allclose(depth[0][ground], plane[ground], rtol=1e-4)
        assert torch.equal(depth[0] == 0, semantic == SKY)


def test_next_image_warped_by_flow_is_the_image(scenes):
    grid = torch.stack(
        torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="xy")
    )
    target = scenes.flow + grid
    inside = ((target >= 0) & (target <= SIZE - 1)).all(1)
    normal = (2 * target / (SIZE - 1) - 1).permute(0, 2, 3, 1)
    before, after = scenes.images.float(), scenes.next_images.float()
    warped = grid_sample(after, normal, align_corners=True)
    # only where something could tell that it moved
    moving = inside & (scenes.flow.norm(dim=1) > 1) & (scenes.semantic != SKY)
    # neither of wet roads, which mirror, nor of streaks of rain and noise in the dark
    dry = torch.tensor(["sunny" in text for text in scenes.captions])
    moving &= dry[:, None, None]
    with_flow = (warped - before).abs().mean(1)[moving].mean()
    without = (after - before).abs().mean(1)[moving].mean()
    assert with_flow < 0.5 * without


def test_flow_is_of_a_size_to_be_seen(scenes):
    length = scenes.flow.norm(dim=1)
    assert length.median() > 0.5
    assert length.flatten().kthvalue(int(0.95 * length.numel())).values < 12


def test_objects_boxes_labels_and_semantics_agree(scenes):
    for n, k in labelled(scenes):
        seen = scenes.instances[n] == k + 1
        assert seen.sum() >= MIN_SEEN * SIZE**2
        rows, columns = seen.nonzero().unbind(1)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert scenes.boxes[n, k].tolist() == box
        kind = OBJECT_CLASSES[scenes.labels[n, k]]
        assert (scenes.semantic[n][seen] == SEMANTIC_CLASSES.index(kind)).all()
    counts = (scenes.labels >= 0).sum(1)
    assert (counts >= 1).all()
    assert torch.equal(scenes.instances.flatten(1).max(1).values.long(), counts)
    padding = scenes.labels < 0
    for truth in (scenes.boxes, scenes.past, scenes.future):
        assert (truth[padding] == 0).all()


def test_main_is_the_most_visible_object(scenes):
    for n in range(COUNT):
        seen = torch.bincount(scenes.instances[n].flatten(), minlength=9)[1:]
        assert scenes.main[n] == scenes.labels[n, seen.argmax()]
    assert set(scenes.main.tolist()) == set(range(len(OBJECT_CLASSES)))


def test_lanes_run_along_their_markings(scenes):
    hits, misses = 0, 0
    for row, height in enumerate(LANE_ROWS):
        if not 0.58 < height < 1:
            continue
        line = int(height * SIZE)
        for lanes, semantic in zip(scenes.lanes, scenes.semantic, strict=True):
            for x in lanes[[0, 2], row]:
                if not 3 <= x < SIZE - 3:
                    continue
                near = semantic[line, int(x) - 2 : int(x) + 3]
                if (near <= GRASS).all():  # else something stands there
                    found = bool((near == MARKING).any())
                    hits, misses = hits + found, misses + (not found)
    assert hits > 200 and misses < 0.02 * hits


def test_lines_do_not_cross(scenes):
    left, centre, right = scenes.lanes.unbind(1)
    for one, other in ((left, centre), (centre, right), (left, right)):
        both = ~one.isnan() & ~other.isnan()
        assert both.any() and (one < other)[both].all()


def test_tracks_are_where_the_objects_are_seen(scenes):
    for n, k in labelled(scenes):
        x, z = scenes.past[n, k, -1].tolist()
        column = SIZE / 2 + SIZE * x / z
        left, _, right, _ = scenes.boxes[n, k].tolist()
        hidden = 2.6 * SIZE / z  # the rest of it may be hidden, or outside
        assert left - hidden - 2 <= column <= right + hidden + 2


def test_tracks_are_smooth_and_more_than_straight_lines(scenes):
    known = scenes.labels >= 0
    track = torch.cat([scenes.past, scenes.future], 2)[known]
    steps = track.diff(dim=1).norm(dim=-1) / STEP_SECONDS
    assert steps.max() < 16  # m/s
    past, future = scenes.past[known], scenes.future[known]
    velocity = (past[:, -1] - past[:, -3]) / 2
    ahead = torch.arange(1, FUTURE_STEPS + 1)[:, None]
    straight = past[:, -1:] + velocity[:, None] * ahead
    error = (straight - future).norm(dim=-1).mean()
    assert 1 < error < 6
    moving = (future[:, -1] - past[:, 0]).norm(dim=-1) > 1
    assert moving.float().mean() > 0.7


def test_captions_say_what_is_seen(scenes):
    colours = "red|blue|white|black|yellow|green"
    words = {word for text in scenes.captions for word in text.split()}
    assert len(words) <= 60
    assert Counter(scenes.captions).most_common(1)[0][1] <= 2
    for n, text in enumerate(scenes.captions):
        assert len(text.split()) <= 20
        assert text == text.lower() and "  " not in text
        kinds = [OBJECT_CLASSES[label] for label in scenes.labels[n] if label >= 0]
        main = OBJECT_CLASSES[scenes.main[n]]
        subject = text.split(" on ")[0].split(" ahead")[0]
        assert main in subject and any(c in subject for c in colours.split("|"))
        seen = torch.bincount(scenes.instances[n].flatten(), minlength=9)[1:]
        left, _, right, _ = scenes.boxes[n, seen.argmax()].tolist()
        middle = (left + right) / 2 / SIZE
        if " ahead " in text:
            assert 0.4 <= middle <= 0.6
        elif "on the left" in text:
            assert middle < 0.4
        else:
            assert "on the right" in text and middle > 0.6
        for count, number in ((2, "two"), (3, "three")):
            for kind in set(kinds) - {main}:
                plural = "buses" if kind == "bus" else f"{kind}s"
                if f"{number} {plural}" in text:
                    assert kinds.count(kind) == count
        assert (" and " in text) == (len(kinds) > 1)
        bend = scenes.lanes[n, 1]
        known = ~bend.isnan()
        if "straight" in text or known.sum() < 20:
            continue
        # against the line from the nearest to the middle row: where does it bend to?
        rows = torch.tensor(LANE_ROWS)[known]
        slope = (bend[known][-1] - bend[known][8]) / (rows[-1] - rows[8])
        straight_on = bend[known][8] + slope * (rows[0] - rows[8])
        side = "right" if bend[known][0] > straight_on else "left"
        assert f"curving {side}" in text


def test_anomalies_only_when_asked_for(scenes, odd_scenes):
    obstacle = SEMANTIC_CLASSES.index("obstacle")
    assert not scenes.anomaly.any() and not (scenes.semantic == obstacle).any()
    assert torch.equal(odd_scenes.anomaly, odd_scenes.semantic == obstacle)
    assert (odd_scenes.anomaly.float().mean((1, 2)) >= MIN_ANOMALY).all()
    assert (odd_scenes.labels >= 0).any(1).all()
    depth = odd_scenes.depth[:, 0][odd_scenes.anomaly]
    assert depth.min() > 3 and depth.max() < 26


@pytest.mark.parametrize(
    "count, size, anomalies, says",
    [
        (0, 96, 0.0, "count is 0.*at least 1"),
        (1, 16, 0.0, "size is 16.*at least 32"),
        (1, 96, 1.5, "anomalies is 1.5.*from 0 to 1"),
    ],
)
def test_bad_values_are_named(count, size, anomalies, says):
    with pytest.raises(ValueError, match=says):
        make_scenes(count, 0, size, anomalies)


def test_unknown_split_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"'dev'.*train"):
        load_scenes("dev", folder=tmp_path)


# --- splits, kept ---


def test_splits():
    assert SPLITS == {"train": 4000, "validation": 400, "test": 600, "anomalies": 600}
    assert LANE_LINES == ("left edge", "centre line", "right edge")
    assert np.allclose(LANE_ROWS, np.linspace(0.54, 1.0, 24))
    assert (MIN_SEEN, MIN_ANOMALY) == (0.0012, 0.003)


@pytest.fixture
def quick_key(monkeypatch):
    """A key without the code, which takes a while to read."""
    monkeypatch.setattr(
        scenes_module,
        "make_key",
        lambda code, **parts: {name: str(value) for name, value in parts.items()},
    )


@pytest.mark.parametrize("number, split", list(enumerate(SPLITS)))
@pytest.mark.usefixtures("quick_key")
def test_each_split_has_its_own_seed_and_only_one_has_anomalies(
    number, split, tmp_path, monkeypatch
):
    monkeypatch.setitem(SPLITS, split, 4)  # its count unless told otherwise
    scenes = load_scenes(split, size=32, workers=0, folder=tmp_path)
    anomalies = 0.5 if split == "anomalies" else 0.0
    expected = make_scenes(4, 1000 * 13 + number, 32, anomalies)
    assert same(scenes, expected) and isinstance(scenes.captions, tuple)
    (path,) = tmp_path.iterdir()
    assert path.name.startswith(f"scenes-{split}-4-")
    monkeypatch.setattr(scenes_module, "_draw", None)  # must not be called again
    again = load_scenes(split, size=32, folder=tmp_path)
    assert same(again, expected) and isinstance(again.captions, tuple)
    assert [type(value) for value in vars(again).values()] == [
        type(value) for value in vars(expected).values()
    ]


@pytest.mark.usefixtures("quick_key")
def test_scenes_of_other_values_are_others(tmp_path):
    load_scenes("test", 2, 32, workers=0, folder=tmp_path)
    for split, count, size in (("test", 3, 32), ("test", 2, 33), ("train", 2, 32)):
        before = len(list(tmp_path.iterdir()))
        scenes = load_scenes(split, count, size, workers=0, folder=tmp_path)
        assert len(list(tmp_path.iterdir())) == before + 1
        assert scenes.images.shape == (count, 3, size, size)


def test_scenes_are_drawn_anew_when_what_draws_them_changes(
    tmp_path, monkeypatch, capsys
):
    source = inspect.getsource

    def drawn_anew(*edits: tuple[str, str]) -> bool:
        def edited(thing) -> str:
            text = source(thing)
            for before, after in edits:
                text = text.replace(before, after)
            return text

        monkeypatch.setattr(code.inspect, "getsource", edited)
        load_scenes("test", 1, 32, workers=0, folder=tmp_path)
        return "computed anew, since" in capsys.readouterr().out

    assert not drawn_anew()
    assert not drawn_anew(
        ("# a superellipse", "# an ellipse"), ('"""Soft dark', '"""Soft and dark')
    )
    assert drawn_anew(("0.58 * width", "0.6 * width"))
    monkeypatch.setattr(scenes_module, "MIN_SEEN", 0.002)
    assert drawn_anew()
    assert not drawn_anew()
    assert len(list(tmp_path.iterdir())) == 3


#: What has a part in a scene.
CODE = """
    _describe _lanes caption _others sample_world World Weather Road Motion Body drive
    walk parked z_of _bodies _anomaly _clouds build_scenery Scenery render View _Canvas
    _noise _paint_shape true_flow _turn
"""
VALUES = """
    MIN_SEEN MIN_ANOMALY MAX_OBJECTS LANE_ROWS OBJECT_CLASSES SEMANTIC_CLASSES NOW TICK
    PAST_STEPS FUTURE_STEPS OBSERVATION_NOISE CAMERA_HEIGHT FRAME_SECONDS BEND COLOURS
    ANOMALIES _WALLS _HEROES _OTHERS _DRIVE_CHANCES _WALK_CHANCES
"""


def test_all_that_draws_is_part_of_the_key():
    key = code.code_of(scenes_module._make_scene)
    assert {f"the code of {name}" for name in CODE.split()} <= set(key)
    assert {f"the value of {name}" for name in VALUES.split()} <= set(key)


def test_workers_draw_the_same(tmp_path):
    """In other processes, in chunks, and joined in order."""
    drawn = load_scenes("test", 53, 32, workers=1, log=LiveLog(), folder=tmp_path)
    assert same(drawn, make_scenes(53, 13002, 32))


class Pool:
    """Stands in for the processes: draws here, and notes how it was asked to."""

    made: ClassVar[list] = []

    def __init__(self, workers, context, initializer, initargs):
        initializer_name = initializer.__name__, *initargs
        self.made.append((workers, context.get_start_method(), initializer_name))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def map(self, function, items):
        return map(function, items)

    def shutdown(self, **how):
        self.made.append(how)


@pytest.mark.parametrize(
    "workers, cores, count, used",
    [(None, 2, 5, 2), (None, None, 5, 1), (None, 8, 5, 3), (9, 2, 3, 2), (1, 2, 5, 1)],
)
@pytest.mark.usefixtures("quick_key")
def test_how_many_workers_draw(workers, cores, count, used, tmp_path, monkeypatch):
    monkeypatch.setattr(scenes_module, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(scenes_module, "_CHUNK", 2)
    monkeypatch.setattr(scenes_module.os, "cpu_count", lambda: cores)
    monkeypatch.setattr(Pool, "made", [])
    scenes = load_scenes("train", count, 32, workers=workers, folder=tmp_path)
    assert Pool.made == [(used, "spawn", ("set_num_threads", 1))]
    assert same(scenes, make_scenes(count, 13000, 32))


@pytest.mark.usefixtures("quick_key")
def test_progress_is_told(tmp_path, monkeypatch):
    told = []

    class Log(LiveLog):
        def track(self, items, description, total):
            told.append((description, total))
            return items

    monkeypatch.setattr(scenes_module, "_CHUNK", 2)
    load_scenes("test", 5, 32, log=Log(), workers=0, folder=tmp_path)
    monkeypatch.setattr(scenes_module, "ProcessPoolExecutor", Pool)
    load_scenes("train", 3, 32, log=Log(), workers=2, folder=tmp_path)
    assert told == [("test scenes", 3), ("train scenes", 2)]


@pytest.mark.usefixtures("quick_key")
def test_an_interruption_stops_the_workers_and_leaves_no_file(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(scenes_module, "_draw_chunk", stop)
    monkeypatch.setattr(scenes_module, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(Pool, "made", [])
    for workers in (0, 1):
        with pytest.raises(KeyboardInterrupt):
            load_scenes("test", 2, 32, workers=workers, folder=tmp_path)
    assert not list(tmp_path.iterdir())
    assert Pool.made[1:] == [{"wait": False, "cancel_futures": True}]


@pytest.mark.usefixtures("quick_key")
def test_a_damaged_file_is_drawn_anew(tmp_path, capsys):
    expected = load_scenes("validation", 2, 32, workers=0, folder=tmp_path)[:]
    (path,) = tmp_path.iterdir()
    other = tmp_path / "copy" / path.name
    other.parent.mkdir()
    other.write_bytes(path.read_bytes()[:5000])
    again = load_scenes("validation", 2, 32, workers=0, folder=other.parent)
    assert same(again, expected)
    assert "computed anew" in capsys.readouterr().out
    load_scenes("validation", 2, 32, folder=other.parent)
    assert "computed anew" not in capsys.readouterr().out


@pytest.mark.parametrize("count, size", [(0, 32), (1, 31)])
@pytest.mark.usefixtures("quick_key")
def test_bad_values_are_named_before_anything_is_drawn(
    count, size, tmp_path, monkeypatch
):
    monkeypatch.setattr(scenes_module, "kept", None)
    with pytest.raises(ValueError, match="at least"):
        load_scenes("test", count, size, folder=tmp_path)


# --- all of it ---

#: Mean of each field of some scenes, and a sum with weights.
PINNED = {
    "images": (99.22325907, -0.20091673),
    "next_images": (99.25478636, -0.06063931),
    "flow": (0.22967726, 0.00214216),
    "depth": (11.54991321, 0.24766204),
    "semantic": (2.92610677, -0.02824237),
    "instances": (0.06405527, -0.00306800),
    "boxes": (9.39062500, -0.20346443),
    "labels": (0.05208333, -0.03690798),
    "main": (1.91666667, -1.38475036),
    "lanes": (13.95800029, -2.13362130),
    "past": (4.72765756, 0.12799240),
    "future": (4.88795359, -0.26357939),
    "anomaly": (0.01287616, -0.00016227),
}


def test_scenes_are_those_that_they_were():
    scenes = make_scenes(12, seed=1, size=48, anomalies=0.5)
    for name, expected in PINNED.items():
        # a few pixels of an image may be rounded otherwise on another machine
        off = 2e-3 if "images" in name else 1e-6
        found = summary(getattr(scenes, name))
        assert found == pytest.approx(expected, abs=off, rel=1e-5), name
    assert set(PINNED) == set(vars(scenes)) - {"captions"}
    assert scenes.captions[3] == (
        "a blue bus on the right and a truck on a road curving right on a sunny day"
    )


def summary(value: torch.Tensor) -> tuple[float, float]:
    value = value.double().nan_to_num(-1).flatten()
    weights = torch.arange(len(value)).double().cos()
    return value.mean().item(), 10 * (value * weights).mean().item()
