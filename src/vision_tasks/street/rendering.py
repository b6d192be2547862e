"""Draws a world as a pinhole camera sees it, with the truth at every pixel's centre.

Samples are twice as dense as pixels: at their centres and half-way between them. Truths
are read at the centres; the image is a tent filter over the samples, two pixels wide.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from src.vision_tasks.street.motion import NOW
from src.vision_tasks.street.scenery import Scenery, Shape, Wall
from src.vision_tasks.street.vocabulary import SEMANTIC_CLASSES
from src.vision_tasks.street.world import CAMERA_HEIGHT, FRAME_SECONDS, World

#: Walls nearer than this to the camera, in metres, are cut off.
_NEAR = 0.4
_ASPHALT = (0.34, 0.345, 0.36)
#: Size of a cell of the ground's texture, in metres.
_CELL = 0.08


@dataclass(frozen=True)
class View:
    """What is seen: image uint8 [S, S, 3]; and at pixel centres, all [S, S]:
    depth float32 in metres, infinite in the sky; semantic uint8; owner int16, 1 + the
    index of the body that is seen, or 0."""

    image: np.ndarray
    depth: np.ndarray
    semantic: np.ndarray
    owner: np.ndarray


def build_scenery(world: World) -> Scenery:
    """Everything upright in the world."""
    scenery = Scenery(world.weather.lamps)
    road = world.road
    for building in world.buildings:
        lateral = building.side * building.setback
        corners = np.stack(
            [
                road.point(building.near, lateral),
                road.point(building.far, lateral),
                road.point(building.near, lateral + building.side * building.depth),
            ]
        )
        scenery.add_building(building, corners)
    for tree in world.trees:
        scenery.add_tree(tree)
    scenery.add_far_trees(0.0, 110.0, world.texture_seed / 2**31)
    for owner, body in enumerate(world.bodies, 1):
        scenery.add_body(owner, body)
    if world.anomaly:
        scenery.add_anomaly(world.anomaly)
    return scenery


def render(world: World, scenery: Scenery, size: int, frame: int) -> View:
    """Frame 0 is the present, frame 1 is FRAME_SECONDS later. size: S, in pixels."""
    canvas = _Canvas(world, scenery, size, frame)
    canvas.paint_ground()
    for wall in scenery.walls:
        canvas.paint_wall(wall)
    return canvas.view()


def true_flow(world: World, view: View) -> np.ndarray:
    """float32 [2, S, S]: where each pixel's point moves to, (right, down) in pixels."""
    size = len(view.depth)
    ray = (np.arange(size) + 0.5 - size / 2) / size
    sky = np.isinf(view.depth)
    depth = np.where(sky, 1.0, view.depth)
    x, z = ray * depth, depth.astype(np.float64)
    down = ray[:, None] * depth

    for owner, body in enumerate(world.bodies, 1):
        mine = view.owner == owner
        if mine.any():
            x0, z0, heading = body.pose(NOW)
            x1, z1, later = body.pose(NOW + 1)
            right, ahead = _turn(x[mine] - x0, z[mine] - z0, later - heading)
            x[mine], z[mine] = x1 + right, z1 + ahead
    camera_x, camera_z, heading = world.camera(FRAME_SECONDS)
    right, ahead = _turn(
        np.where(sky, x, x - camera_x), np.where(sky, z, z - camera_z), -heading
    )
    ahead = np.maximum(ahead, _NEAR)
    moved = np.stack([right / ahead - ray, down / ahead - ray[:, None]])
    return (size * moved).astype(np.float32)


def _turn(x: np.ndarray, z: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Points turned by an angle from the Z axis towards the X axis."""
    sine, cosine = np.sin(angle), np.cos(angle)
    return x * cosine + z * sine, z * cosine - x * sine


@cache
def _noise() -> tuple[np.ndarray, np.ndarray]:
    """Fine and coarse tiles of noise, float32 [512 * 512] of unit variance, the same
    for all scenes: each looks at another place of them."""
    white = np.fft.rfft2(np.random.default_rng(0).standard_normal((512, 512)))
    frequency = np.hypot(np.fft.fftfreq(512)[:, None], np.fft.rfftfreq(512))
    tiles = []
    for low, high in ((0.04, 0.3), (0.004, 0.05)):
        band = (frequency > low) & (frequency < high)
        tile = np.fft.irfft2(white * band / np.maximum(frequency, low), (512, 512))
        tiles.append((tile / tile.std()).astype(np.float32).ravel())
    return tiles[0], tiles[1]


class _Canvas:
    """The samples of one view, [2S + 1, 2S + 1]: nearest depth, material, owner."""

    def __init__(self, world: World, scenery: Scenery, size: int, frame: int) -> None:
        self.world, self.scenery, self.size, self.frame = world, scenery, size, frame
        self.camera = world.camera(frame * FRAME_SECONDS)
        self.poses = [(0.0, 0.0, 0.0)]
        self.poses += [body.pose(NOW + frame) for body in world.bodies]
        count = 2 * size + 1
        # u - S/2 and v - S/2, over the focal length S; S/2 is the principal point
        self.rays = ((np.arange(count) - size) / (2 * size)).astype(np.float32)
        self.depth = np.full((count, count), np.inf, np.float32)
        self.material = np.zeros((count, count), np.int16)
        self.owner = np.zeros((count, count), np.int16)
        self.brightness = np.ones((count, count), np.float32)

    def to_camera(self, x: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        camera_x, camera_z, heading = self.camera
        return _turn(x - camera_x, z - camera_z, -heading)

    def paint_ground(self) -> None:
        """Road, markings, pavements and grass below the horizon, and the shadows."""
        world, road, scenery = self.world, self.world.road, self.scenery
        size = self.size
        top = size + 1
        z_rows = (CAMERA_HEIGHT / self.rays[top:])[:, None]
        x, z = _turn(
            self.rays * z_rows,
            np.broadcast_to(z_rows, (size, 2 * size + 1)),
            self.camera[2],
        )
        x, z = x + np.float32(self.camera[0]), z + np.float32(self.camera[1])
        lateral = road.lateral(x, z)
        distance = np.abs(lateral)

        material = scenery.material
        asphalt = material("road", _ASPHALT)
        marking = material("lane marking", (0.94, 0.94, 0.90))
        ground = np.full(x.shape, material("grass", (0.33, 0.52, 0.22)), np.int16)
        kerb = road.half_width
        slabs = material("pavement", (0.66, 0.63, 0.59))
        ground[distance < kerb + road.pavement] = slabs
        ground[distance < kerb + 0.16] = material("pavement", (0.8, 0.79, 0.76))
        paved = distance < kerb
        if road.junction < 80:
            paved |= np.abs(z - road.junction) < 3.6
        ground[paved] = asphalt
        edges = np.abs(distance - road.lane_width) < 0.1
        dashes = (distance < 0.09) & (z % 6.0 < 3.2)
        if road.crossing < 60:
            zebra = np.abs(z - road.crossing) < 1.4
            stripes = zebra & (distance < road.lane_width - 0.3) & (lateral % 1.0 < 0.5)
            dashes = (dashes & ~zebra) | stripes
        ground[edges | dashes] = marking

        anomaly = world.anomaly
        if anomaly and anomaly.kind == "hole":
            from_middle = (2 * (x - anomaly.x) / anomaly.width) ** 2
            from_middle += (2 * (z - anomaly.z) / anomaly.height) ** 2
            rim = material("obstacle", (0.24, 0.2, 0.17))
            ground[from_middle < 1] = rim
            ground[from_middle < 0.72] = material("obstacle", anomaly.colour)

        self.depth[top:] = z_rows
        self.material[top:] = ground
        self.brightness[top:] = self._grain(x, z, z_rows)
        self._shadows(x, z)

    def _grain(self, x: np.ndarray, z: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """Brightness of the ground: two scales of noise that fade with the distance."""
        seed = self.world.texture_seed
        # shifted by whole numbers, which also keeps what is truncated positive
        column = (x * np.float32(1 / _CELL) + (2**16 + seed % 512)).astype(np.int32)
        row = (z * np.float32(1 / _CELL) + (2**16 + seed // 512 % 512)).astype(np.int32)
        place = (row & 511) * 512 + (column & 511)
        fine, coarse = _noise()
        grain = 1 + np.float32(0.09) * np.exp(-depth / 7) * fine[place]
        return grain + np.float32(0.07) * np.exp(-depth / 30) * coarse[place]

    def _shadows(self, x: np.ndarray, z: np.ndarray) -> None:
        """Soft dark boxes under what stands on the ground."""
        sun = 0.25 + self.world.weather.sun
        things = [
            (*pose, body.width, body.length)
            for pose, body in zip(self.poses[1:], self.world.bodies, strict=True)
        ]
        things += [
            (tree.x, tree.z, 0.0, 0.5 * tree.height, 0.35 * tree.height)
            for tree in self.world.trees
        ]
        anomaly = self.world.anomaly
        if anomaly and anomaly.kind != "hole":
            things.append((anomaly.x, anomaly.z, 0.0, anomaly.width, 0.9))
        top = self.size + 1
        for middle_x, middle_z, heading, width, length in things:
            reach = 0.75 * float(np.hypot(width, length))
            window = self._ground_window(middle_x, middle_z, reach)
            if window is None:
                continue
            right, ahead = _turn(x[window] - middle_x, z[window] - middle_z, -heading)
            # a superellipse: a box with round corners and a soft edge
            across, along = right / (0.58 * width), ahead / (0.55 * length)
            off = np.square(across * across) + np.square(along * along)
            self.brightness[top:][window] *= 1 - sun * np.exp(-off * off)

    def _ground_window(
        self, x: float, z: float, reach: float
    ) -> tuple[slice, slice] | None:
        """The samples of the ground within `reach` of a point; None if none are."""
        x, z = self.to_camera(x, z)
        far, near = z + reach, max(z - reach, 1.0)
        if far < 2.0:
            return None
        size = self.size
        rows = [int(2 * size * CAMERA_HEIGHT / depth) for depth in (far, near)]
        if rows[0] >= size or rows[1] - rows[0] < 1:
            return None
        columns = [
            (x + side * reach) / depth for side in (-1, 1) for depth in (near, far)
        ]
        left = max(int(2 * size * min(columns)) + size, 0)
        right = min(int(2 * size * max(columns)) + size + 2, 2 * size + 1)
        if left >= right:
            return None
        return slice(max(rows[0] - 1, 0), min(rows[1] + 1, size)), slice(left, right)

    def paint_wall(self, wall: Wall) -> None:
        """Paint the samples that see a shape of it nearer than what they saw."""
        if not wall.shapes:
            return
        x, z, heading = self.poses[wall.owner]
        ends = []
        for right, ahead in (wall.start, wall.end):
            dx, dz = _turn(right, ahead, heading)
            ends.append(self.to_camera(x + dx, z + dz))
        (ax, az), (bx, bz) = ends
        if ax * bz >= bx * az or max(az, bz) <= _NEAR:
            return  # seen from behind, or behind the camera
        window = self._window(wall, ax, az, bx, bz)
        if window is None:
            return
        rows, columns = window
        rays = self.rays[columns]
        along = (rays * az - ax) / ((bx - ax) - rays * (bz - az))
        depth = (az + along * (bz - az)).astype(np.float32)
        on_wall = (along >= 0) & (along <= 1) & (depth > _NEAR)
        across = along * np.float32(np.hypot(*np.subtract(wall.end, wall.start)))
        up = CAMERA_HEIGHT - self.rays[rows, None] * depth
        material = np.full(up.shape, -1, np.int16)
        for shape in wall.shapes:
            _paint_shape(material, shape, across, up)
        seen = (material >= 0) & (depth < self.depth[window]) & on_wall
        np.copyto(self.depth[window], depth, where=seen)
        np.copyto(self.material[window], material, where=seen)
        np.copyto(self.owner[window], wall.owner, where=seen)
        np.copyto(self.brightness[window], 1.0, where=seen)

    def _window(
        self, wall: Wall, ax: float, az: float, bx: float, bz: float
    ) -> tuple[slice, slice] | None:
        """The rectangle of samples that a wall from (ax, az) to (bx, bz) can cover."""
        if az < _NEAR:
            ax, az = ax + (bx - ax) * (_NEAR - az) / (bz - az), _NEAR
        if bz < _NEAR:
            bx, bz = bx + (ax - bx) * (_NEAR - bz) / (az - bz), _NEAR
        size, last = self.size, 2 * self.size + 1
        scale = 2 * size
        left = max(int(np.ceil(scale * ax / az)) + size, 0)
        right = min(int(np.floor(scale * bx / bz)) + size + 1, last)
        near, far = min(az, bz), max(az, bz)
        above = CAMERA_HEIGHT - max(shape.top for shape in wall.shapes)
        highest = above / near if above < 0 else above / far
        top = max(int(np.ceil(scale * highest)) + size, 0)
        bottom = min(int(np.floor(scale * CAMERA_HEIGHT / near)) + size + 1, last)
        if left >= right or top >= bottom:
            return None
        return slice(top, bottom), slice(left, right)

    def view(self) -> View:
        centres = np.s_[1::2, 1::2]
        depth = self.depth[centres].copy()
        semantic = np.array(self.scenery.semantic, np.uint8)[self.material[centres]]
        semantic[np.isinf(depth)] = SEMANTIC_CLASSES.index("sky")
        return View(self._image(), depth, semantic, self.owner[centres].copy())

    def _image(self) -> np.ndarray:
        """uint8 [S, S, 3]: lit materials, sky, haze, rain, filtered, with noise."""
        world, weather, scenery = self.world, self.world.weather, self.scenery
        rng = np.random.default_rng([world.texture_seed, 1 + self.frame])
        sky = np.isinf(self.depth)
        depth = np.where(sky, np.float32(1e4), self.depth)
        colours = np.array(scenery.colours, np.float32)
        shining = np.array(scenery.shining)[:, None]
        lit = np.where(shining, colours, colours * np.float32(weather.light))
        material = self.material.astype(np.intp)  # the fastest to look up by
        colour = np.take(lit, material, axis=0) * self.brightness[..., None]
        if weather.headlight:
            unlit = np.where(shining, 0, colours)
            beam = self._beam(depth) * self.brightness
            colour += np.take(unlit, material, axis=0) * beam[..., None]
        backdrop = self._sky(rng)
        np.copyto(colour, backdrop, where=sky[..., None])
        if weather.wet:
            self._reflect(colour)
        haze = np.float32(weather.haze)
        clear = np.exp(depth * np.float32(-1 / weather.fog))
        clear[sky] = 0.0 if weather.name == "fog" else 1.0
        colour = haze + (colour - haze) * clear[..., None]
        if weather.lamps:
            self._glow(colour)
        if weather.rain:
            self._rain(colour, rng)
        tent = colour[0:-1:2] + 2 * colour[1::2] + colour[2::2]
        tent = (tent[:, 0:-1:2] + 2 * tent[:, 1::2] + tent[:, 2::2]) / 16
        noise = rng.standard_normal(tent.shape, np.float32) * np.float32(weather.noise)
        return (np.clip(tent + noise, 0, 1) * 255 + 0.5).astype(np.uint8)

    def _beam(self, depth: np.ndarray) -> np.ndarray:
        """Light of our own headlights: ahead, below the horizon rather than above."""
        sideways = np.exp(-((self.rays / 0.34) ** 2))
        upwards = np.exp(-((np.minimum(self.rays + 0.01, 0) / 0.12) ** 2))
        fall = np.exp(-depth / 24.0) * (1 - np.exp(-depth / 3.0))
        return np.float32(1.6 * self.world.weather.headlight) * (
            fall * sideways * upwards[:, None]
        )

    def _sky(self, rng: np.random.Generator) -> np.ndarray:
        """[2S + 1, 2S + 1, 3]: a gradient with clouds, sun or moon at infinity."""
        weather = self.world.weather
        heading = self.camera[2]
        size = self.size
        upper = -self.rays[: size + 2]
        right, ahead = _turn(self.rays, np.ones_like(self.rays), heading)
        azimuth = (right / ahead).astype(np.float32)
        elevation = upper[:, None] / ahead.astype(np.float32)
        height = np.clip(elevation * 2.4, 0, 1)[..., None]
        haze, zenith = np.float32(weather.haze), np.float32(weather.zenith)
        colour = np.zeros((2 * size + 1, 2 * size + 1, 3), np.float32)
        colour[:] = haze
        painted = haze + (zenith - haze) * np.sqrt(height)
        seed = self.world.texture_seed
        if weather.name in ("clear", "dusk", "night") and not weather.rain:
            at = -0.4 + 0.8 * (seed % 97) / 96, 0.12 + 0.3 * (seed % 89) / 88
            if weather.name == "dusk":
                at = at[0], 0.07
            off = (azimuth - at[0]) ** 2 + (elevation - at[1]) ** 2
            disc = np.clip((0.036 - np.sqrt(off)) * 120, 0, 1)[..., None]
            halo = np.exp(-off / 0.02)[..., None]
            shine = np.float32(
                {"clear": (1.0, 0.96, 0.75), "dusk": (1.0, 0.72, 0.38)}.get(
                    weather.name, (0.93, 0.92, 0.82)
                )
            )
            strength = 0.12 if weather.name == "night" else 0.5
            painted += (shine - painted) * np.maximum(disc, strength * halo)
        if len(self.world.clouds):
            cover = np.zeros_like(elevation)
            for x, y, wide, high, strength in self.world.clouds.astype(np.float32):
                across = ((azimuth - x) / wide) ** 2
                cover += strength * np.exp(-across - ((elevation - y) / high) ** 2)
            thick = 0.92 if weather.name == "clear" else 0.5
            cover = np.clip(cover * 1.6 - 0.2, 0, 1)[..., None] * np.float32(thick)
            bright = 0.97 if weather.name == "clear" else 0.86
            cloud = np.float32(np.multiply(weather.light, bright))
            painted += (np.minimum(cloud, 1) - painted) * cover
        colour[: size + 2] = painted
        return colour

    def _reflect(self, colour: np.ndarray) -> None:
        """A wet road reflects what is above the horizon, roughly."""
        size = self.size
        classes = np.array(self.scenery.semantic)
        wet = classes[self.material[size + 1 :]] <= SEMANTIC_CLASSES.index("pavement")
        strength = np.float32(0.26) * wet[..., None]
        above = colour[:size][::-1]
        colour[size + 1 :] += (above - colour[size + 1 :] * 0.9) * strength

    def _glow(self, colour: np.ndarray) -> None:
        """A halo around each lamp that is seen."""
        dark = {"night": 1.0, "dusk": 0.7}.get(self.world.weather.name, 0.45)
        size = self.size
        for lamp in self.scenery.lamps:
            x, z, heading = self.poses[lamp.owner]
            dx, dz = _turn(*lamp.at, heading)
            right, ahead = self.to_camera(x + dx, z + dz)
            if ahead < 2.0:
                continue
            column = round(2 * size * right / ahead) + size
            row = round(2 * size * (CAMERA_HEIGHT - lamp.height) / ahead) + size
            if not (0 <= column <= 2 * size and 0 <= row <= 2 * size):
                continue
            if self.depth[row, column] < ahead - 0.3:
                continue  # hidden, or on the far side of the vehicle
            radius = 2 * size * 0.22 / ahead + 0.012 * size
            reach = int(3 * radius) + 1
            rows = slice(max(row - reach, 0), row + reach + 1)
            columns = slice(max(column - reach, 0), column + reach + 1)
            count = 2 * size + 1
            down = np.arange(count, dtype=np.float32)[rows] - row
            across = np.arange(count, dtype=np.float32)[columns] - column
            halo = np.exp(-((down / radius) ** 2))[:, None] * np.exp(
                -((across / radius) ** 2)
            )
            gain = np.float32(lamp.strength * dark)
            colour[rows, columns] += gain * halo[..., None] * np.float32(lamp.colour)

    def _rain(self, colour: np.ndarray, rng: np.random.Generator) -> None:
        """Slanted bright streaks, new ones in each frame."""
        size = self.size
        count, longest = 90, max(size // 7, 4)
        step = np.arange(longest)
        rows = rng.integers(0, 2 * size, (count, 1)) + step
        columns = rng.integers(0, 2 * size, (count, 1)) - step // 4
        keep = (rows <= 2 * size) & (columns >= 0)
        keep &= step < rng.integers(longest // 2, longest + 1, (count, 1))
        streak = np.float32((0.2, 0.21, 0.23)) * np.float32(
            0.5 if self.world.weather.name == "night" else 1.0
        )
        colour[rows[keep], columns[keep]] += streak


def _paint_shape(
    material: np.ndarray, shape: Shape, across: np.ndarray, up: np.ndarray
) -> None:
    """Set a shape's samples in `material` [H, W]. across [W], up [H, W]: metres."""
    figure, left, right, bottom, top, index, taper, period = shape
    if figure == "ellipse":
        off = ((across - (left + right) / 2) / ((right - left) / 2)) ** 2
        inside = ((up - (bottom + top) / 2) / ((top - bottom) / 2)) ** 2 < 1 - off
    else:
        inside = (up >= bottom) & (up <= top)
        if figure == "trapezoid":
            off = np.abs(across - (left + right) / 2)
            inside &= off < (right - left) / 2 - (up - bottom) * (
                taper / (top - bottom)
            )
        else:
            columns = (across >= left) & (across <= right)
            if figure == "panes":
                columns &= (across - left) % period < 0.6 * period
            inside &= columns
    material[inside] = index
