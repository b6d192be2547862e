"""Views of a scene built by hand, against a plain ray caster and plain projection."""

from dataclasses import replace

import numpy as np
import pytest

from src.vision_tasks.street.motion import NOW, TIMES, Motion, Road
from src.vision_tasks.street.rendering import build_scenery, render, true_flow
from src.vision_tasks.street.scenery import Shape
from src.vision_tasks.street.vocabulary import SEMANTIC_CLASSES
from src.vision_tasks.street.world import (
    CAMERA_HEIGHT,
    Anomaly,
    Body,
    Building,
    Tree,
    Weather,
    World,
)

SIZE = 64
SKY = SEMANTIC_CLASSES.index("sky")
#: Rows that show nothing but sky where there are no bodies, buildings and trees.
HIGH = SIZE // 2 - 8
BUILDING, TREE = map(SEMANTIC_CLASSES.index, ("building", "tree"))
OBSTACLE = SEMANTIC_CLASSES.index("obstacle")
ROAD = Road(
    -1.7, 0.02, 0.004, lane_width=3.4, shoulder=0.35, pavement=2.2, crossing=13.0
)
GREY = (0.5, 0.5, 0.5)
PLAIN = Weather("overcast", (1.0, 1.0, 1.0), (0.4, 0.5, 0.6), (0.7, 0.75, 0.8), noise=0)


def moving(x, z, heading, speed=0.0, turn=0.0, braking=False) -> Motion:
    """At (x, z) now, straight on at a speed, turning by `turn` each 0.1 s."""
    way = np.stack([np.sin(heading) * TIMES, np.cos(heading) * TIMES], -1)
    steps = np.arange(len(TIMES)) - NOW
    return Motion((x, z) + speed * way, heading + turn * steps, braking)


BODIES = (
    Body("car", "red", 1.8, 4.2, 1.5, moving(0.5, 12, 0.05, 6, 0.02, True), (0.5,) * 4),
    Body("bus", "blue", 2.5, 10.0, 3.0, moving(-2.6, 24, np.pi - 0.1, 5), (0.5,) * 4),
    Body("truck", "white", 2.45, 7.0, 3.2, moving(4.4, 21, 0.12), (0.5,) * 4),
    Body("pedestrian", "green", 0.62, 0.5, 1.8, moving(-1.5, 7, 1.3, 1.5), (0.2,) * 6),
)
BUILDINGS = (
    Building(8, 20, -1, 8.0, 9.0, 6.0, True, (0.8, 0.7, 0.6), (0.5,) * 3, (0.5,) * 3),
    Building(9, 24, 1, 8.5, 8.0, 14.0, False, (0.7, 0.4, 0.3), (0.4,) * 3, (0.2,) * 3),
)  # fmt: skip
TREES = (
    Tree(-6.2, 25.0, 6.0, (0.2, 0.4, 0.1), (0.5,) * 8),
    Tree(5.6, 30.0, 5.0, (0.2, 0.45, 0.1), (0.1,) * 8),
)
COW = Anomaly("cow", 2.2, 10.0, 2.2, 1.5, (0.9, 0.9, 0.86), (0.7,) * 8)
HOLE = Anomaly("hole", 1.5, 8.0, 2.0, 2.5, (0.07, 0.06, 0.05), (0.7,) * 8)
CLOUDS = np.array([[0.1, 0.3, 0.2, 0.08, 0.7], [-0.3, 0.2, 0.1, 0.04, 0.5]])
WORLD = World(
    ROAD, PLAIN, 6.0, 0.3, BODIES, BUILDINGS, TREES, CLOUDS, COW, texture_seed=12345
)  # fmt: skip
BARE = replace(WORLD, bodies=(), buildings=(), trees=(), anomaly=None)


def view(world: World = WORLD, frame: int = 0, size: int = SIZE, **weather):
    """weather: what is different in it."""
    world = replace(world, weather=replace(world.weather, **weather))
    return render(world, build_scenery(world), size, frame)


def image(*args, **kwargs) -> np.ndarray:
    return view(*args, **kwargs).image.astype(float)


# --- a plain ray caster ---


def rays(size: int) -> np.ndarray:
    """Through the centres of pixels, by a focal length as long as the image is wide."""
    return (np.arange(size) + 0.5 - size / 2) / size


def axes(heading: float) -> tuple[np.ndarray, np.ndarray]:
    """To the right and ahead, as (X, Z)."""
    return (
        np.array([np.cos(heading), -np.sin(heading)]),
        np.array([np.sin(heading), np.cos(heading)]),
    )


def covers(shape: Shape, across: np.ndarray, up: np.ndarray) -> np.ndarray:
    middle, half = (shape.left + shape.right) / 2, (shape.right - shape.left) / 2
    tall = shape.top - shape.bottom
    if shape.figure == "ellipse":
        off = 2 * (up - (shape.bottom + shape.top) / 2) / tall
        return ((across - middle) / half) ** 2 + off**2 < 1
    inside = (shape.bottom <= up) & (up <= shape.top)
    if shape.figure == "trapezoid":
        part = (up - shape.bottom) / tall
        return inside & (np.abs(across - middle) < half - part * shape.taper)
    inside &= (shape.left <= across) & (across <= shape.right)
    if shape.figure == "panes":
        inside &= np.mod(across - shape.left, shape.period) < 0.6 * shape.period
    return inside


def ground_class(world: World, x: float, z: float) -> str:
    road, thing = world.road, world.anomaly
    if thing and thing.kind == "hole":
        off = np.hypot((x - thing.x) / thing.width, (z - thing.z) / thing.height)
        if off < 0.5:
            return "obstacle"
    lateral = road.lateral(x, z)
    if abs(abs(lateral) - road.lane_width) < 0.1:
        return "lane marking"
    if abs(z - road.crossing) < 1.4:
        if abs(lateral) < road.lane_width - 0.3 and lateral % 1 < 0.5:
            return "lane marking"
    elif abs(lateral) < 0.09 and z % 6 < 3.2:
        return "lane marking"
    if abs(lateral) < road.lane_width + road.shoulder or abs(z - road.junction) < 3.6:
        return "road"
    kerb = road.lane_width + road.shoulder
    return "pavement" if abs(lateral) < kerb + road.pavement else "grass"


def cast(world: World, frame: int, size: int = SIZE):
    """Depth, class and owner of every pixel, one wall after the other."""
    scenery = build_scenery(world)
    x, z, heading = world.camera(0.1 * frame)
    camera = np.array([x, z])
    right, ahead = axes(heading)
    columns, rows = np.meshgrid(rays(size), rays(size))
    depth = np.full((size, size), np.inf)
    classes = np.full((size, size), "sky", object)
    owner = np.zeros((size, size), int)
    for row, column in zip(*np.nonzero(rows > 0), strict=True):
        depth[row, column] = distance = 1.5 / rows[row, column]
        at = camera + distance * (columns[row, column] * right + ahead)
        classes[row, column] = ground_class(world, *at)
    poses = [(0.0, 0.0, 0.0), *(body.pose(NOW + frame) for body in world.bodies)]
    for wall in scenery.walls:
        *middle, turned = poses[wall.owner]
        sideways, forwards = axes(turned)
        ends = [
            np.array(middle) + at[0] * sideways + at[1] * forwards - camera
            for at in (wall.start, wall.end)
        ]
        (ax, az), (bx, bz) = [(end @ right, end @ ahead) for end in ends]
        if bx * az - ax * bz <= 0:
            continue  # its back
        along = (columns * az - ax) / ((bx - ax) - columns * (bz - az))
        distance = az + along * (bz - az)
        up = 1.5 - rows * distance
        across = along * np.hypot(bx - ax, bz - az)
        nearest = (along >= 0) & (along <= 1) & (distance > 0.4) & (distance < depth)
        seen = np.zeros_like(nearest)
        for shape in wall.shapes:
            covered = covers(shape, across, up) & nearest
            name = SEMANTIC_CLASSES[scenery.semantic[shape.material]]
            classes[covered] = name
            seen |= covered
        depth[seen], owner[seen] = distance[seen], wall.owner
    return depth, np.vectorize(SEMANTIC_CLASSES.index)(classes), owner


@pytest.mark.parametrize(
    "world, frame",
    [
        (WORLD, 0),
        (WORLD, 1),
        (replace(WORLD, anomaly=HOLE, bodies=BODIES[3:]), 0),
        (replace(BARE, road=replace(ROAD, junction=16.0, crossing=np.inf)), 0),
        # close by, so that walls reach from before to behind the camera
        (
            replace(
                WORLD,
                bodies=(
                    replace(BODIES[1], motion=moving(-2.6, 2.0, np.pi)),
                    replace(BODIES[0], motion=moving(0.7, 4.0, 0.4)),
                    replace(BODIES[2], motion=moving(3.2, 2.0, 0.0)),
                ),
            ),
            1,
        ),
    ],
    ids=["now", "later", "hole", "junction", "close"],
)
def test_truths_are_what_a_ray_meets_first(world, frame):
    seen = view(world, frame)
    depth, semantic, owner = cast(world, frame)
    # single precision may decide otherwise at the rim of a shape
    same = (seen.semantic == semantic) & (seen.owner == owner)
    same &= np.isclose(seen.depth, depth, rtol=1e-3)
    assert (~same).sum() <= 2
    assert seen.depth[same & (semantic != SKY)] == pytest.approx(
        depth[same & (semantic != SKY)], rel=2e-4
    )
    assert (np.isinf(seen.depth) == (seen.semantic == SKY)).all()
    assert seen.depth.dtype == np.float32 and seen.semantic.dtype == np.uint8
    kinds = set(np.unique(owner))
    assert kinds == set(range(len(world.bodies) + 1))


def test_everything_has_its_class():
    seen = view()
    for number, body in enumerate(BODIES, 1):
        mine = seen.semantic[seen.owner == number]
        assert len(mine) > 20
        assert (mine == SEMANTIC_CLASSES.index(body.kind)).all()
    assert set(np.unique(seen.semantic)) == set(range(len(SEMANTIC_CLASSES)))


@pytest.mark.parametrize("anomaly", [COW, HOLE])
def test_an_anomaly_is_seen_as_an_obstacle(anomaly):
    assert (view(replace(BARE, anomaly=anomaly)).semantic == OBSTACLE).sum() > 30
    assert not (view(BARE).semantic == OBSTACLE).any()


def test_the_order_of_the_bodies_does_not_matter():
    seen, turned = view(), view(replace(WORLD, bodies=BODIES[::-1]))
    mine = seen.owner > 0
    assert np.array_equal(turned.owner[mine], 5 - seen.owner[mine])
    assert np.array_equal(seen.depth, turned.depth)


def test_the_camera_is_a_metre_and_a_half_above_the_ground():
    assert CAMERA_HEIGHT == 1.5
    seen = view(BARE, size=32)
    ground = rays(32) > 0.1  # below it the trees far away hide nothing
    assert seen.depth[ground][:, 0] == pytest.approx(1.5 / rays(32)[ground], rel=1e-5)
    # a body whose top is at this height ends at the horizon, wherever it is
    for z in (6.0, 30.0):
        box = replace(BODIES[2], height=1.5, motion=moving(0, z, 0.0))
        rows = np.nonzero(view(replace(BARE, bodies=(box,))).owner == 1)[0]
        assert rows.min() == SIZE // 2


# --- flow ---


def test_flow_is_the_motion_of_what_is_seen():
    """Of every pixel: where its point is in the later camera's frame, projected."""
    seen = view()
    flow = true_flow(WORLD, seen)
    assert flow.shape == (2, SIZE, SIZE) and flow.dtype == np.float32
    x, z, heading = WORLD.camera(0.1)
    right, ahead = axes(heading)
    for row in range(0, SIZE, 3):
        for column in range(0, SIZE, 3):
            ray = np.array([rays(SIZE)[column], rays(SIZE)[row]])
            depth, owner = float(seen.depth[row, column]), seen.owner[row, column]
            if np.isinf(depth):  # turns, but does not come nearer
                point, down = np.array([ray[0], 1.0]), ray[1]
            else:
                point, down = np.array([ray[0] * depth, depth]), ray[1] * depth
                if owner:
                    *before, turned = BODIES[owner - 1].pose(NOW)
                    *after, turns = BODIES[owner - 1].pose(NOW + 1)
                    off = axes(turned) @ (point - before)
                    point = np.array(after) + off @ axes(turns)
                point = point - (x, z)
            later = np.array([point @ right, down]) / (point @ ahead)
            assert flow[:, row, column] == pytest.approx(SIZE * (later - ray), abs=1e-3)
    for number in range(1, len(BODIES) + 1):
        assert (seen.owner[::3, ::3] == number).any()


def test_nothing_moves_where_nothing_does():
    still = replace(WORLD, speed=0.0, yaw_rate=0.0, bodies=())
    assert np.abs(true_flow(still, view(still))).max() < 1e-4
    sky = view(still).semantic == SKY
    turning = replace(still, yaw_rate=0.3)
    flow = true_flow(turning, view(turning))
    assert (flow[0][sky] < -1.5).all()  # a turn to the right moves the sky left
    driving = replace(still, speed=6.0)
    flow = true_flow(driving, view(driving))
    assert np.abs(flow[:, sky]).max() == 0


def test_flow_leads_to_the_same_thing_in_the_next_frame():
    seen, later = view(), view(frame=1)
    target = true_flow(WORLD, seen) + np.indices((SIZE, SIZE))[::-1]
    column, row = np.round(target).astype(int)
    inside = (column >= 0) & (column < SIZE) & (row >= 0) & (row < SIZE)
    mine = inside & (seen.owner > 0)
    agree = later.owner[row[mine], column[mine]] == seen.owner[mine]
    assert agree.mean() > 0.93


# --- what weather does to the image ---


def test_the_image_is_the_same_each_time_and_of_each_frame_another():
    assert np.array_equal(image(noise=0.02), image(noise=0.02))
    assert image().shape == (SIZE, SIZE, 3) and view().image.dtype == np.uint8
    assert np.abs(image(frame=1) - image()).mean() > 3


def test_light_multiplies_colours():
    ground = view(BARE).semantic < SKY
    full, half = image(BARE, fog=1e9), image(BARE, fog=1e9, light=(0.5, 0.25, 1.0))
    dark = full[ground] < 200  # not cut off at white
    for channel, part in enumerate((0.5, 0.25, 1.0)):
        some = dark[:, channel]
        assert half[ground][some, channel] == pytest.approx(
            part * full[ground][some, channel], abs=1
        )


def test_fog_takes_over_with_depth():
    """By exp(-depth / fog) of the way to its own colour."""
    clear, foggy = image(BARE, fog=1e9), image(BARE, fog=20.0)
    haze = 255 * np.array(PLAIN.haze)
    depth = view(BARE).depth
    near = (view(BARE).semantic < SKY) & (depth < 25)
    left = np.exp(-depth[near] / 20.0)[:, None]
    assert foggy[near] == pytest.approx(haze + (clear[near] - haze) * left, abs=4)
    assert np.array_equal(clear[:HIGH], foggy[:HIGH])
    hidden = image(BARE, name="fog", fog=20.0)[0]  # clouds, too
    assert hidden == pytest.approx(np.tile(haze, (SIZE, 1)), abs=1)


def test_the_sky_goes_from_the_haze_to_the_zenith():
    sky = image(replace(BARE, clouds=CLOUDS[:0]))[:, SIZE // 2] / 255
    haze, zenith = np.array(PLAIN.haze), np.array(PLAIN.zenith)
    for row in (0, 8, 16, 24):
        height = -rays(SIZE)[row]
        part = np.sqrt(min(2.4 * height, 1))
        assert sky[row] == pytest.approx(haze + (zenith - haze) * part, abs=0.01)


def test_clouds_are_in_the_sky_alone():
    off = np.abs(image() - image(replace(WORLD, clouds=CLOUDS[:0]))).sum(-1)
    sky = view().semantic == SKY
    below = np.zeros_like(sky)
    below[SIZE // 2 + 1 :] = True
    assert off[sky].max() > 30 and off[below].max() == 0


def test_noise_is_of_the_strength_asked_for():
    off = (image(noise=0.02) - image()) / 255
    assert off.std() == pytest.approx(0.02, rel=0.06)
    assert off.mean() == pytest.approx(0, abs=0.002)


def test_rain_falls_anew_in_each_frame():
    streaks = [image(frame=f, rain=True) - image(frame=f) for f in (0, 1)]
    for streak in streaks:
        assert streak.min() >= 0 and 0.05 < (streak > 3).mean() < 0.4
    assert np.corrcoef(*[s.ravel() for s in streaks])[0, 1] < 0.3


def test_a_wet_road_mirrors_what_is_above_the_horizon():
    off = np.abs(image(BARE, wet=True) - image(BARE)).sum(-1)
    semantic = view(BARE).semantic
    low = np.arange(SIZE)[:, None] > SIZE // 2 + 2
    for kind in range(3):  # road, marking, pavement
        assert off[low & (semantic == kind)].min() > 5
    assert (off[: SIZE // 2] == 0).all()
    inner = grass = low & (semantic == 3)
    for shift in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        inner = inner & np.roll(grass, shift, (0, 1))
    assert inner.sum() > 20 and off[inner].max() == 0
    # the right half of the sky painted brighter shows in the right half of the road
    sun = np.array([[0.3, 0.3, 0.1, 0.3, 2.0]])
    for lit, clouds in ((1, sun), (-1, sun * (-1, 1, 1, 1, 1))):
        bright = image(replace(BARE, clouds=clouds), wet=True) - image(
            replace(BARE, clouds=CLOUDS[:0]), wet=True
        )
        left, right = np.split(bright[SIZE // 2 + 6 :].sum(-1), 2, 1)
        assert lit * (right.sum() - left.sum()) > 500


def test_headlights_light_the_road_near_us():
    lit = image(BARE, light=(0.1,) * 3, headlight=0.85)
    more = (lit - image(BARE, light=(0.1,) * 3)).sum(-1)
    assert more[:HIGH].max() == 0
    ahead = more[SIZE // 2 + 1 :, SIZE // 2 - 3 : SIZE // 2 + 3].mean(1)
    assert ahead.argmax() not in (0, len(ahead) - 1) and ahead.max() > 100
    assert more[-20, SIZE // 2] > 2 * more[-20, 2]  # less to the sides


def test_lamps_glow_in_the_dark_where_they_are_not_hidden():
    night = replace(WORLD, weather=replace(PLAIN, name="night", light=(0.1,) * 3))
    glow = image(night, lamps=True) - image(night)
    car = view(night).owner == 1
    rows, columns = np.nonzero(car)
    around = np.s_[rows.min() - 1 : rows.max() + 2, columns.min() : columns.max() + 1]
    red, green, _ = glow[around].sum((0, 1))
    assert red > 3 * abs(green) > 0
    # a wall before them takes the glow away
    parked = replace(BODIES[2], motion=moving(0.5, 12, 0.0))
    lamps = replace(night, bodies=(replace(BODIES[0], motion=moving(0.5, 30, 0.0)),))
    alone = image(lamps, lamps=True) - image(lamps)
    hidden = replace(lamps, bodies=(*lamps.bodies, parked))
    only = replace(lamps, bodies=(parked,))
    assert alone.sum() > 1000
    assert image(hidden, lamps=True) == pytest.approx(image(only, lamps=True), abs=40)


def test_windows_shine_in_the_dark():
    night = replace(BARE, buildings=BUILDINGS)
    dark = image(night, light=(0.05,) * 3)
    shining = image(night, light=(0.05,) * 3, lamps=True)
    houses = view(night).semantic == BUILDING
    assert ((shining - dark)[houses].min(-1) > 60).sum() > 50


def test_shadows_lie_under_what_stands_and_are_deeper_in_the_sun():
    bare = image(BARE)
    for world in (
        replace(BARE, bodies=BODIES[:1]),
        replace(BARE, trees=(Tree(3.0, 12.0, 5.0, (0.2, 0.4, 0.1), (0.5,) * 8),)),
        replace(BARE, anomaly=COW),
    ):
        ground = view(world).semantic < SKY
        ground &= np.roll(ground, -1, 0) & np.roll(ground, 1, 0)
        weak = (bare - image(world))[ground].clip(0).sum()
        deep = (bare - image(world, sun=0.5))[ground].clip(0).sum()
        assert deep > 1.5 * weak > 100
    assert np.abs(image(BARE, sun=0.5) - bare).max() == 0


WEATHERS = {
    "clear": {"light": (1.05, 1.02, 0.96), "sun": 0.55, "zenith": (0.25, 0.5, 0.88)},
    "overcast": {"sun": 0.3},
    "rain": {"fog": 160.0, "lamps": True, "rain": True, "wet": True, "noise": 0.018},
    "fog": {"fog": 25.0, "lamps": True},
    "dusk": {"light": (0.62, 0.5, 0.52), "headlight": 0.25, "lamps": True},
    "night": {"light": (0.24, 0.26, 0.36), "headlight": 0.85, "lamps": True},
}
#: Of either frame: mean red, green and blue, and a sum with weights.
PINNED = {
    "clear": (118.404, 128.141, 141.957, 0.330, 119.169, 127.942, 140.647, 0.070),
    "overcast": (117.323, 121.764, 125.833, 0.262, 117.918, 121.570, 124.833, 0.035),
    "rain": (129.301, 133.990, 137.346, 0.655, 128.744, 132.788, 136.095, -0.081),
    "fog": (152.329, 156.200, 160.727, 0.244, 151.820, 155.467, 159.829, -0.017),
    "dusk": (104.014, 98.506, 101.849, 0.157, 103.089, 97.217, 100.754, -0.155),
    "night": (94.691, 100.393, 110.769, 0.091, 93.581, 99.241, 109.924, -0.181),
}


@pytest.mark.parametrize("name", WEATHERS)
def test_images_are_those_that_they_were(name):
    """Mean colours and a pinned sum, to notice a change by accident."""
    sums = []
    for frame in (0, 1):
        one = image(frame=frame, name=name, **WEATHERS[name])
        weights = np.cos(np.arange(one.size)).reshape(one.shape)
        sums += [*one.mean((0, 1)), (one * weights).mean() * 10]
    assert sums == pytest.approx(PINNED[name], abs=0.004)
