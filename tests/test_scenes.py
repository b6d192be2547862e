"""Scenes: the same from the same seed, and every truth agrees with the others."""

from collections import Counter
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch.nn.functional import grid_sample

from src.common.progress import LiveLog
from src.vision_tasks.street import scenes as scenes_module
from src.vision_tasks.street.motion import FUTURE, NOW, PAST, TIMES, parked
from src.vision_tasks.street.rendering import build_scenery, flow, render
from src.vision_tasks.street.scenes import (
    MIN_ANOMALY,
    MIN_SEEN,
    Scenes,
    load_scenes,
    make_scenes,
)
from src.vision_tasks.street.vocabulary import (
    FUTURE_STEPS,
    LANE_ROWS,
    MAX_OBJECTS,
    OBJECT_CLASSES,
    PAST_STEPS,
    SEMANTIC_CLASSES,
    STEP_SECONDS,
)
from src.vision_tasks.street.world import CAMERA_HEIGHT, Body, sample_world

ROAD, MARKING, PAVEMENT, GRASS, SKY = range(5)
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


def world_of(seed: int, **changes):
    """A world, the scenery in it, and what is seen of it now."""
    world = replace(sample_world(np.random.default_rng(seed), False), **changes)
    scenery = build_scenery(world)
    return world, scenery, render(world, scenery, SIZE, 0)


def test_a_scene_depends_on_seed_and_number_alone(scenes):
    assert same(scenes[5:8], make_scenes(3, 3, SIZE, first=5))
    assert not same(scenes[:2], make_scenes(2, 5, SIZE))


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


@pytest.mark.parametrize("seed", range(6))
def test_flow_of_what_stands_still(seed):
    world, _, view = world_of(seed, bodies=())
    world = replace(world, speed=5.0, yaw_rate=0.2)
    turn, driven = 0.2 * 0.1, 5.0 * 0.1
    camera = np.array([driven * np.sin(turn / 2), 0, driven * np.cos(turn / 2)])
    axes = np.array(  # rows: right, down, ahead of the later camera
        [[np.cos(turn), 0, -np.sin(turn)], [0, 1, 0], [np.sin(turn), 0, np.cos(turn)]]
    )
    intrinsics = np.array([[SIZE, 0, SIZE / 2], [0, SIZE, SIZE / 2], [0, 0, 1]])
    pixels = np.stack(np.meshgrid(*2 * [np.arange(SIZE) + 0.5]), -1)
    rays = np.concatenate([pixels, np.ones((SIZE, SIZE, 1))], -1)
    rays = rays @ np.linalg.inv(intrinsics).T
    sky = np.isinf(view.depth)
    points = rays * np.where(sky, 1, view.depth)[..., None]
    points -= np.where(sky[..., None], 0, camera)
    seen = points @ axes.T @ intrinsics.T
    expected = seen[..., :2] / seen[..., 2:] - pixels
    moved = flow(world, view).transpose(1, 2, 0)
    assert np.allclose(moved, expected, atol=1e-3)
    assert (moved[sky][:, 0] < 0).all()  # a turn to the right moves the sky left


def test_flow_leads_to_the_same_thing_in_the_next_frame():
    agree = checked = 0
    for seed in range(8):
        world, scenery, view = world_of(seed)
        later = render(world, scenery, SIZE, 1)
        target = flow(world, view) + np.indices((SIZE, SIZE))[::-1]
        column, row = np.round(target).astype(int)
        inside = (column >= 0) & (column < SIZE) & (row >= 0) & (row < SIZE)
        mine = inside & (view.owner > 0)
        agree += (later.owner[row[mine], column[mine]] == view.owner[mine]).sum()
        checked += mine.sum()
    assert agree > 0.93 * checked > 1000


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


def test_objects_are_in_order_from_near_to_far(scenes):
    z = scenes.past[:, :, -1, 1]
    for n in range(COUNT):
        present = z[n][scenes.labels[n] >= 0]
        assert torch.equal(present, present.sort().values)


def test_the_nearer_hides_the_farther():
    world, _, _ = world_of(1, bodies=())
    road = world.road

    def body(kind, z, width, length, height):
        motion = parked(road, z, road.lane_width / 2, 1)
        return Body(kind, "red", width, length, height, motion, (0.5,) * 6)

    walker = body("pedestrian", 8.0, 0.6, 0.5, 1.8)
    truck = body("truck", 20.0, 2.45, 7.0, 3.2)
    _, _, alone = world_of(1, bodies=(walker,))
    for bodies in ((walker, truck), (truck, walker)):
        _, _, both = world_of(1, bodies=bodies)
        mine = both.owner == 1 + bodies.index(walker)
        assert np.array_equal(mine, alone.owner == 1)
        assert (both.owner == 1 + bodies.index(truck)).sum() > 100


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


def test_times_of_tracks():
    assert TIMES[NOW] == 0 and PAST[-1] == NOW
    assert np.allclose(np.diff(TIMES[PAST]), STEP_SECONDS)
    assert np.allclose(TIMES[FUTURE], STEP_SECONDS * np.arange(1, FUTURE_STEPS + 1))
    assert len(PAST) == PAST_STEPS


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


def test_a_split_is_drawn_once(tmp_path, monkeypatch):
    first = load_scenes("anomalies", 4, 32, workers=0, folder=tmp_path)
    expected = make_scenes(4, 1000 * 13 + 3, 32, 0.5)
    assert same(first, expected)
    monkeypatch.setattr(scenes_module, "_draw", None)  # must not be called again
    assert same(load_scenes("anomalies", 4, 32, folder=tmp_path), expected)
    assert len(list(tmp_path.iterdir())) == 1


def test_workers_draw_the_same(tmp_path):
    drawn = load_scenes("test", 3, 32, workers=1, log=LiveLog(), folder=tmp_path)
    assert same(drawn, load_scenes("test", 3, 32, workers=0, folder=tmp_path / "b"))


def test_a_damaged_file_is_drawn_anew(tmp_path, capsys):
    expected = load_scenes("validation", 2, 32, workers=0, folder=tmp_path)[:]
    (path,) = tmp_path.iterdir()
    other = tmp_path / "copy" / path.name
    other.parent.mkdir()
    other.write_bytes(path.read_bytes()[:5000])
    again = load_scenes("validation", 2, 32, workers=0, folder=other.parent)
    assert same(again, expected)
    assert "drawn anew" in capsys.readouterr().out
    load_scenes("validation", 2, 32, folder=other.parent)
    assert "drawn anew" not in capsys.readouterr().out


def test_an_interruption_leaves_no_file(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(scenes_module, "_draw_chunk", stop)
    with pytest.raises(KeyboardInterrupt):
        load_scenes("test", 2, 32, workers=0, folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_key_follows_code_but_not_comments(tmp_path):
    key = scenes_module._key
    assert key(2, 0, 32, 0.0) == key(2, 0, 32, 0.0)
    assert len({key(2, 0, 32, 0.0), key(3, 0, 32, 0.0), key(2, 1, 32, 0.0)}) == 3

    def code(text: str) -> str:
        path = tmp_path / "module.py"
        path.write_text(text, encoding="utf-8")
        return scenes_module._code(path)

    plain = code("def f():\n    return 1\n")
    assert plain == code('def f():\n    """Says."""\n    # why\n    return 1\n')
    assert plain != code("def f():\n    return 2\n")
