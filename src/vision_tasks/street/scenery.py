"""What things look like: walls with shapes on them, in metres.

A wall is an upright rectangle seen from one side. Boxes are made of the walls of their
sides; trees and pedestrians are single walls, seen from in front.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from src.vision_tasks.street.motion import NOW
from src.vision_tasks.street.vocabulary import SEMANTIC_CLASSES
from src.vision_tasks.street.world import COLOURS, Anomaly, Body, Building, Tree

Colour = tuple[float, float, float]
GLASS = (0.16, 0.20, 0.26)
RUBBER = (0.06, 0.06, 0.07)
METAL = (0.62, 0.64, 0.66)


class Shape(NamedTuple):
    """A figure on a wall, within (left, right) along and (bottom, top) up it.

    figure: "rectangle", "ellipse", "trapezoid" (`taper` metres narrower on either side
    at the top) or "panes" (a row of rectangles, one each `period` metres). material:
    its index.
    """

    figure: str
    left: float
    right: float
    bottom: float
    top: float
    material: int
    taper: float = 0.0
    period: float = 0.0


class Wall(NamedTuple):
    """Upright over the ground from `start` to `end`: left to right for who sees it.

    Points are (right, ahead) in the frame of its owner, whose index in the scene's
    bodies is `owner` - 1; 0 is what stands still, in the world's frame. Shapes are
    painted in order, and what no shape covers is transparent.
    """

    owner: int
    start: tuple[float, float]
    end: tuple[float, float]
    shapes: list[Shape]


class Lamp(NamedTuple):
    """A light that glows in the dark: (right, ahead) of its owner, height, colour."""

    owner: int
    at: tuple[float, float]
    height: float
    colour: Colour
    strength: float


@dataclass
class Scenery:
    """Everything upright in a scene, and the materials that it is made of."""

    lamps_on: bool
    colours: list[Colour] = field(default_factory=list)
    semantic: list[int] = field(default_factory=list)
    shining: list[bool] = field(default_factory=list)
    walls: list[Wall] = field(default_factory=list)
    lamps: list[Lamp] = field(default_factory=list)
    _known: dict = field(default_factory=dict)

    def material(
        self, kind: str, colour: Colour, shade: float = 1.0, shining: bool = False
    ) -> int:
        """The index of a material. kind: of SEMANTIC_CLASSES. shade: multiplies the
        colour. shining: as bright in the dark."""
        key = kind, *colour, shade, shining
        if key not in self._known:
            self._known[key] = len(self.colours)
            self.colours.append(tuple(shade * part for part in colour))
            self.semantic.append(SEMANTIC_CLASSES.index(kind))
            self.shining.append(shining)
        return self._known[key]

    def add_body(self, owner: int, body: Body) -> None:
        {
            "car": self._car,
            "truck": self._truck,
            "bus": self._bus,
            "pedestrian": self._pedestrian,
        }[body.kind](owner, body)

    def _box(
        self,
        owner: int,
        width: float,
        rear: float,
        front: float,
        faces: tuple[list[Shape], list[Shape], list[Shape]],
    ) -> None:
        """A box about the owner's axis. faces: rear, front, and right side from rear
        to front; the left side mirrors it."""
        half, length = width / 2, front - rear
        rear_face, front_face, side_face = faces
        left_rear, right_rear = (-half, rear), (half, rear)
        left_front, right_front = (-half, front), (half, front)
        self.walls += [
            Wall(owner, left_rear, right_rear, rear_face),
            Wall(owner, right_front, left_front, front_face),
            Wall(owner, right_rear, right_front, side_face),
            Wall(owner, left_front, left_rear, _mirror(side_face, length)),
        ]

    def _lights(
        self, owner: int, body: Body, height: float, size: float
    ) -> tuple[list[Shape], list[Shape]]:
        """Tail lights on the rear, headlights on the front; they glow when on."""
        on, braking = self.lamps_on, body.motion.braking
        red = (1.0, 0.12, 0.08) if on or braking else (0.55, 0.04, 0.05)
        tail = self.material(body.kind, red, shining=on or braking)
        head = self.material(body.kind, (1.0, 0.97, 0.85), shining=on)
        width, edge = body.width, 0.08
        strips = [(edge, edge + size), (width - edge - size, width - edge)]
        rear = [
            Shape("rectangle", *strip, height, height + 0.8 * size, tail)
            for strip in strips
        ]
        front = [
            Shape("ellipse", *strip, height - 0.05, height + 0.9 * size, head)
            for strip in strips
        ]
        lit = (0.5 if on else 0.0) + (0.6 if braking else 0.0)
        for sign in (-1, 1):
            across = sign * (width / 2 - edge - size / 2)
            if lit:
                at = (across, -body.length / 2 - 0.02)
                self.lamps.append(
                    Lamp(owner, at, height + 0.1, (1.0, 0.1, 0.05), 0.7 * lit)
                )
            if on:
                at = (across, body.length / 2 + 0.02)
                self.lamps.append(Lamp(owner, at, height + 0.1, (1.0, 0.95, 0.8), 1.0))
        return rear, front

    def _wheels(
        self, body: Body, radius: float, places: tuple[float, ...]
    ) -> tuple[list[Shape], list[Shape]]:
        """Seen from behind or in front, and seen from the side."""
        rubber = self.material(body.kind, RUBBER)
        hub = self.material(body.kind, METAL, 0.8)
        ends = [
            Shape("rectangle", left, left + 0.26, 0.0, radius, rubber)
            for left in (0.06, body.width - 0.32)
        ]
        sides = []
        for place in places:
            for size, material in ((radius, rubber), (0.5 * radius, hub)):
                span = (place - size, place + size, radius - size, radius + size)
                sides.append(Shape("ellipse", *span, material))
        return ends, sides

    def _car(self, owner: int, body: Body) -> None:
        kind, width, length, height = "car", body.width, body.length, body.height
        paint = COLOURS[body.coat]
        coat, side = self.material(kind, paint), self.material(kind, paint, 0.78)
        glass, dark = self.material(kind, GLASS), self.material(kind, (0.1, 0.1, 0.11))
        plate = self.material(kind, (0.9, 0.88, 0.75))
        rear_lights, front_lights = self._lights(owner, body, 0.66, 0.3)
        wheels, wheels_aside = self._wheels(body, 0.33, (0.19 * length, 0.81 * length))
        waist = 0.92
        bumper = Shape("rectangle", 0.02, width - 0.02, 0.22, 0.4, dark)
        hull = Shape("trapezoid", 0.0, width, 0.3, waist, coat, 0.05)
        number = Shape(
            "rectangle", width / 2 - 0.27, width / 2 + 0.27, 0.45, 0.58, plate
        )
        grille = Shape("rectangle", 0.5, width - 0.5, 0.52, 0.7, dark)
        self._box(
            owner,
            width,
            -length / 2,
            length / 2,
            (
                [*wheels, bumper, hull, number, *rear_lights],
                [*wheels, bumper, hull, grille, number, *front_lights],
                [
                    Shape("rectangle", 0.0, length, 0.24, waist - 0.06, side),
                    Shape("rectangle", 0.05, length - 0.05, 0.3, waist, side),
                    *wheels_aside,
                ],
            ),
        )
        # The cabin reaches down into the hull, so that the bonnet's top, which has
        # no wall of its own, is covered from where we look.
        cabin, inner = width - 0.16, length * 0.7
        roof = Shape("trapezoid", 0.0, cabin, 0.4, height, coat, 0.16)
        pane = Shape("trapezoid", 0.12, cabin - 0.12, waist + 0.04, height - 0.1, glass)
        screen = pane._replace(taper=0.12)
        middle = inner * 0.52
        windows = [
            Shape("trapezoid", 0.2, middle - 0.06, waist, height - 0.12, glass, 0.08),
            Shape(
                "trapezoid",
                middle + 0.04,
                inner - 0.2,
                waist,
                height - 0.12,
                glass,
                0.12,
            ),
        ]
        self._box(
            owner,
            cabin,
            -length / 2 + 0.06,
            -length / 2 + 0.06 + inner,
            (
                [roof, screen],
                [roof, screen],
                [
                    Shape("rectangle", 0.0, inner, 0.4, waist, side),
                    Shape("trapezoid", 0.0, inner, waist, height, side, 0.14),
                    *windows,
                ],
            ),
        )

    def _truck(self, owner: int, body: Body) -> None:
        kind, width, length, height = "truck", body.width, body.length, body.height
        paint = COLOURS[body.coat]
        coat, side = self.material(kind, paint), self.material(kind, paint, 0.76)
        seam = self.material(kind, paint, 0.5)
        glass, dark = (
            self.material(kind, GLASS),
            self.material(kind, (0.12, 0.12, 0.13)),
        )
        metal = self.material(kind, METAL)
        rear_lights, front_lights = self._lights(owner, body, 0.72, 0.28)
        wheels, wheels_aside = self._wheels(body, 0.48, (1.0, 2.1, length - 1.0))
        cab = 1.9
        middle = width / 2
        box = length - cab - 0.3
        rails = [
            Shape("rectangle", left, left + 0.06, 1.0, height - 0.1, metal)
            for left in (middle - 0.32, middle + 0.26)
        ]
        rear = [
            *wheels,
            Shape("rectangle", 0.1, width - 0.1, 0.5, 1.0, dark),
            Shape("rectangle", 0.0, width, 0.95, height, coat),
            Shape("rectangle", 0.06, width - 0.06, height - 0.12, height - 0.05, seam),
            Shape("rectangle", middle - 0.03, middle + 0.03, 0.95, height, seam),
            *rails,
            *rear_lights,
        ]
        aside = [
            Shape("rectangle", 0.1, box, 0.55, 0.95, dark),
            Shape("rectangle", 0.0, box, 0.95, height, side),
            *[
                Shape("rectangle", at, at + 0.07, 0.98, height - 0.05, seam)
                for at in np.arange(0.7, box - 0.3, 1.1)
            ],
            *wheels_aside[:4],
        ]
        above = Shape("rectangle", 0.0, width, 0.95, height, side)
        self._box(owner, width, -length / 2, -length / 2 + box, (rear, [above], aside))
        low = min(2.5, height - 0.3)
        front = [
            *wheels,
            Shape("rectangle", 0.02, width - 0.02, 0.35, low, coat),
            Shape("trapezoid", 0.15, width - 0.15, 1.45, low - 0.18, glass, 0.06),
            Shape("rectangle", 0.5, width - 0.5, 0.9, 1.25, dark),
            Shape("rectangle", 0.02, width - 0.02, 0.35, 0.62, dark),
            *front_lights,
        ]
        beside = [
            Shape("rectangle", 0.0, cab, 0.5, low, side),
            Shape("trapezoid", 0.55, cab - 0.12, 1.45, low - 0.2, glass, 0.1),
            *[
                shape._replace(
                    left=shape.left - box - 0.3, right=shape.right - box - 0.3
                )
                for shape in wheels_aside[4:]
            ],
        ]
        self._box(owner, width, length / 2 - cab, length / 2, ([], front, beside))

    def _bus(self, owner: int, body: Body) -> None:
        kind, width, length, height = "bus", body.width, body.length, body.height
        paint = COLOURS[body.coat]
        coat, side = self.material(kind, paint), self.material(kind, paint, 0.8)
        dark = self.material(kind, (0.12, 0.12, 0.13))
        lit = self.lamps_on
        glass = self.material(kind, (0.85, 0.78, 0.55) if lit else GLASS, shining=lit)
        screen = self.material(kind, GLASS)
        sign = self.material(kind, (1.0, 0.72, 0.15), shining=True)
        stripe = self.material(kind, (0.88, 0.88, 0.86))
        rear_lights, front_lights = self._lights(owner, body, 0.75, 0.28)
        wheels, wheels_aside = self._wheels(body, 0.48, (0.25 * length, 0.8 * length))
        shell = [
            *wheels,
            Shape("rectangle", 0.0, width, 0.32, height - 0.15, coat),
            Shape("trapezoid", 0.0, width, height - 0.2, height, coat, 0.18),
            Shape("rectangle", 0.0, width, 0.32, 0.55, dark),
        ]
        rear = [
            *shell,
            Shape("rectangle", 0.2, width - 0.2, height - 1.35, height - 0.4, glass),
            Shape("rectangle", 0.55, width - 0.55, 0.75, 1.2, dark),
            *rear_lights,
        ]
        front = [
            *shell,
            Shape("rectangle", 0.12, width - 0.12, 1.15, height - 0.55, screen),
            Shape("rectangle", 0.45, width - 0.45, height - 0.48, height - 0.16, dark),
            Shape("rectangle", 0.6, width - 0.6, height - 0.4, height - 0.24, sign),
            *front_lights,
        ]
        aside = [
            Shape("rectangle", 0.0, length, 0.32, height - 0.06, side),
            Shape("rectangle", 0.0, length, 0.95, 1.1, stripe),
            Shape(
                "panes",
                0.35,
                length - 0.5,
                height - 1.45,
                height - 0.45,
                glass,
                period=1.3,
            ),
            Shape("rectangle", length - 1.5, length - 0.6, 0.45, height - 0.45, screen),
            *wheels_aside,
        ]
        self._box(owner, width, -length / 2, length / 2, (rear, front, aside))

    def _pedestrian(self, owner: int, body: Body) -> None:
        kind, tall, look = "pedestrian", body.height, body.look
        clothes = COLOURS[body.coat]
        coat, sleeve = self.material(kind, clothes), self.material(kind, clothes, 0.75)
        skins = ((0.93, 0.76, 0.64), (0.78, 0.56, 0.42), (0.45, 0.30, 0.22))
        hairs = ((0.12, 0.09, 0.07), (0.45, 0.28, 0.12), (0.75, 0.6, 0.3))
        skin = self.material(kind, skins[int(look[0] * 3)])
        hair = self.material(kind, hairs[int(look[1] * 3)])
        trousers = self.material(
            kind, ((0.15, 0.18, 0.32), (0.3, 0.27, 0.24))[int(look[2] * 2)]
        )
        shoes = self.material(kind, RUBBER)
        middle, stride = body.width / 2, 0.02 + 0.13 * look[3]
        hip, neck = 0.48 * tall, 0.84 * tall
        legs = []
        for side in (-1, 1):
            foot = middle + side * (0.06 + stride)
            knee = middle + side * (0.05 + stride / 2)
            legs += [
                Shape("rectangle", foot - 0.08, foot + 0.08, 0.0, hip / 2, trousers),
                Shape("rectangle", knee - 0.09, knee + 0.09, hip / 2, hip, trousers),
                Shape("rectangle", foot - 0.09, foot + 0.1, 0.0, 0.08, shoes),
            ]
        arms = []
        for side in (-1, 1):
            arm, hand = middle + side * 0.2, middle + side * (0.22 + stride / 3)
            arms += [
                Shape("rectangle", arm - 0.07, arm + 0.07, 0.6 * tall, neck, sleeve),
                Shape(
                    "rectangle",
                    hand - 0.06,
                    hand + 0.06,
                    0.5 * tall,
                    0.62 * tall,
                    sleeve,
                ),
            ]
        shapes = [
            *legs,
            *arms,
            Shape(
                "trapezoid", middle - 0.19, middle + 0.19, hip - 0.05, neck, coat, -0.02
            ),
            Shape("rectangle", middle - 0.05, middle + 0.05, neck, 0.88 * tall, skin),
            Shape("ellipse", middle - 0.12, middle + 0.12, 0.86 * tall, tall, hair),
            Shape(
                "ellipse", middle - 0.1, middle + 0.1, 0.85 * tall, 0.965 * tall, skin
            ),
        ]
        if look[4] < 0.3:  # a skirt
            shapes.insert(
                len(legs),
                Shape(
                    "trapezoid",
                    middle - 0.24,
                    middle + 0.24,
                    0.3 * tall,
                    hip,
                    sleeve,
                    0.1,
                ),
            )
        # Faces the present camera, whichever way it walks: turned by minus the heading.
        heading = body.motion.headings[NOW]
        half = body.width / 2
        right = (half * np.cos(heading), half * np.sin(heading))
        self.walls.append(Wall(owner, (-right[0], -right[1]), right, shapes))

    def add_building(self, building: Building, corners: np.ndarray) -> None:
        """corners [3, 2]: of its ground plan, near and far at the road, near behind."""
        kind, tall = "building", building.height
        near, far, behind = corners
        length = float(np.hypot(*(far - near)))
        depth = float(np.hypot(*(behind - near)))
        front = self.material(kind, building.wall)
        end = self.material(kind, building.wall, 0.82)
        roof = self.material(kind, building.roof)
        lit = self.lamps_on and building.look[0] < 0.75
        glass = self.material(
            kind, (0.95, 0.82, 0.45) if lit else (0.30, 0.36, 0.44), shining=lit
        )
        dim = self.material(kind, (0.22, 0.26, 0.33))
        door = self.material(kind, (0.35, 0.2, 0.13))
        gap = 2.4 + 0.9 * building.look[1]
        storeys = max(int(tall / 3.0), 1)

        def face(span: float, wall: int, glass: int) -> list[Shape]:
            rows = [
                Shape(
                    "panes",
                    0.5,
                    span - 0.4,
                    3 * row + 1.1,
                    3 * row + 2.3,
                    glass,
                    period=gap,
                )
                for row in range(storeys)
                if 3 * row + 2.5 < tall
            ]
            return [Shape("rectangle", 0.0, span, 0.0, tall, wall), *rows]

        along, across = face(length, front, glass), face(depth, end, dim)
        along.append(
            Shape("rectangle", length / 2 - 0.5, length / 2 + 0.5, 0.0, 2.1, door)
        )
        ridge_wall = []
        if building.gable:
            ridge = tall + depth * 0.4
            pitch = Shape("trapezoid", 0, depth, tall, ridge, roof, depth / 2)
            inner = Shape(
                "trapezoid", 0.5, depth - 0.5, tall, ridge - 0.4, end, depth / 2 - 0.5
            )
            across += [pitch, inner]
            # the roof, upright where its ridge is: it shows above the eaves
            ridge_wall = [Shape("rectangle", 0, length, tall - 1, ridge, roof)]
        else:
            cornice = self.material(kind, building.wall, 0.65)
            along.append(Shape("rectangle", 0, length, tall - 0.4, tall, cornice))
            across.append(Shape("rectangle", 0, depth, tall - 0.4, tall, cornice))
        inwards = (behind - near) / 2
        if building.side > 0:
            self._upright(far + inwards, near + inwards, ridge_wall)
            self._upright(far, near, _mirror(along, length))
            self._upright(near, behind, across)
        else:
            self._upright(near + inwards, far + inwards, ridge_wall)
            self._upright(near, far, along)
            self._upright(behind, near, across)

    def _upright(self, start: np.ndarray, end: np.ndarray, shapes: list[Shape]) -> None:
        self.walls.append(Wall(0, tuple(start), tuple(end), shapes))

    def add_tree(self, tree: Tree) -> None:
        kind, tall, look = "tree", tree.height, tree.look
        bark = self.material(kind, (0.34, 0.23, 0.14))
        leaves = self.material(kind, tree.leaves)
        shade = self.material(kind, tree.leaves, 0.74)
        light = self.material(kind, tree.leaves, 1.22)
        wide = (0.6 + 0.25 * look[0]) * tall
        middle = wide / 2
        trunk = 0.05 * tall
        shapes = [
            Shape(
                "trapezoid", middle - trunk, middle + trunk, 0, 0.6 * tall, bark, 0.03
            )
        ]
        if look[1] < 0.25 and tree.leaves[1] > tree.leaves[0]:  # a fir, never brown
            for number in range(3):
                half = middle * (0.85 - 0.2 * number)
                low = tall * (0.18 + 0.25 * number)
                shapes.append(
                    Shape(
                        "trapezoid",
                        middle - half,
                        middle + half,
                        low,
                        low + 0.36 * tall,
                        shade if number % 2 else leaves,
                        0.92 * half,
                    )
                )
        else:
            for number, material in enumerate((shade, shade, leaves, leaves, light)):
                radius = (0.30, 0.28, 0.27, 0.26, 0.15)[number] * wide
                across = middle + (-0.2, 0.2, 0.04, -0.12, -0.1)[number] * wide
                across += (look[2 + number] - 0.5) * 0.12 * wide
                up = (0.56, 0.55, 0.74, 0.66, 0.8)[number] * tall
                shapes.append(
                    Shape(
                        "ellipse",
                        across - radius,
                        across + radius,
                        up - 0.85 * radius,
                        min(up + 0.85 * radius, tall),
                        material,
                    )
                )
        self._card(tree.x, tree.z, wide, shapes)

    def add_far_trees(self, x: float, z: float, seed: float) -> None:
        """A belt of trees that hides the end of the world."""
        green = self.material("tree", (0.24, 0.38, 0.24))
        dark = self.material("tree", (0.20, 0.33, 0.21))
        wide, shapes = 160.0, []
        shapes.append(Shape("rectangle", 0, wide, 0, 2.5, dark))
        for number in range(11):
            swing = np.sin(number * 2.4 + 6 * seed)
            middle, half = wide * (number + 0.5) / 11 + 4 * swing, 9 + 3 * swing
            span = (middle - half, middle + half, -2.0, 5.5 + 2 * np.cos(number * 1.7))
            shapes.append(Shape("ellipse", *span, (green, dark)[number % 2]))
        self._card(x, z, wide, shapes)

    def _card(self, x: float, z: float, width: float, shapes: list[Shape]) -> None:
        half = width / 2
        self._upright(np.array([x - half, z]), np.array([x + half, z]), shapes)

    def add_anomaly(self, thing: Anomaly) -> None:
        """All but holes, which are in the ground."""
        kind, wide, tall = "obstacle", thing.width, thing.height
        plain = self.material(kind, thing.colour)
        dark = self.material(kind, thing.colour, 0.6)
        light = self.material(kind, thing.colour, 1.25)
        black = self.material(kind, (0.1, 0.09, 0.09))

        def part(
            figure: str,
            left: float,
            right: float,
            bottom: float,
            top: float,
            material: int,
            taper: float = 0.0,
        ) -> Shape:
            """A shape by its place in parts of the thing's width and height."""
            span = (left * wide, right * wide, bottom * tall, top * tall)
            return Shape(figure, *span, material, taper * wide)

        shapes = {
            "boulder": [
                part("trapezoid", 0.0, 1.0, 0.0, 0.7, dark, 0.15),
                part("ellipse", 0.05, 0.7, 0.25, 1.0, plain),
                part("ellipse", 0.4, 0.97, 0.1, 0.85, plain),
                part("ellipse", 0.2, 0.5, 0.55, 0.92, light),
            ],
            "log": [
                part("rectangle", 0.08, 0.94, 0.0, 0.95, plain),
                part("rectangle", 0.08, 0.94, 0.25, 0.35, dark),
                part("rectangle", 0.08, 0.94, 0.6, 0.68, dark),
                part("ellipse", 0.0, 0.16, 0.0, 0.96, light),
                part("ellipse", 0.04, 0.12, 0.25, 0.7, dark),
                part("trapezoid", 0.6, 0.68, 0.9, 1.0, plain),
            ],
            "sofa": [
                part("rectangle", 0.04, 0.96, 0.08, 1.0, plain),
                part("rectangle", 0.15, 0.49, 0.35, 0.5, light),
                part("rectangle", 0.51, 0.85, 0.35, 0.5, light),
                part("rectangle", 0.0, 0.15, 0.05, 0.65, dark),
                part("rectangle", 0.85, 1.0, 0.05, 0.65, dark),
                part("rectangle", 0.15, 0.85, 0.08, 0.32, dark),
            ],
            "cow": [
                *[
                    part("rectangle", left, left + 0.07, 0.0, 0.5, plain)
                    for left in (0.14, 0.25, 0.62, 0.72)
                ],
                part("ellipse", 0.08, 0.85, 0.38, 0.92, plain),
                part("ellipse", 0.18, 0.42, 0.5, 0.85, black),
                part("ellipse", 0.52, 0.74, 0.45, 0.75, black),
                part("ellipse", 0.74, 1.0, 0.6, 0.95, plain),
                part(
                    "ellipse",
                    0.88,
                    1.0,
                    0.6,
                    0.75,
                    self.material(kind, (0.9, 0.65, 0.62)),
                ),
                part("trapezoid", 0.78, 0.84, 0.9, 1.0, black, 0.02),
                part("rectangle", 0.06, 0.09, 0.35, 0.8, black),
            ],
            "ball": [
                part("ellipse", 0.0, 1.0, 0.0, 1.0, plain),
                part(
                    "ellipse",
                    0.32,
                    0.68,
                    0.0,
                    1.0,
                    self.material(kind, (0.95, 0.95, 0.92)),
                ),
                part("ellipse", 0.2, 0.4, 0.6, 0.85, light),
            ],
            "boxes": [
                part("rectangle", 0.0, 0.45, 0.0, 0.55, plain),
                part("rectangle", 0.5, 1.0, 0.0, 0.45, light),
                part("rectangle", 0.2, 0.7, 0.5, 1.0, dark),
                part("rectangle", 0.18, 0.26, 0.0, 0.55, light),
                part("rectangle", 0.72, 0.79, 0.0, 0.45, dark),
                part("rectangle", 0.41, 0.49, 0.5, 1.0, plain),
            ],
            "tyres": [
                part("rectangle", 0.05, 0.95, 0.0, 0.3, plain),
                part("rectangle", 0.0, 0.9, 0.33, 0.63, plain),
                part("rectangle", 0.1, 1.0, 0.66, 1.0, plain),
                part(
                    "rectangle",
                    0.08,
                    0.92,
                    0.28,
                    0.36,
                    self.material(kind, (0.35, 0.35, 0.36)),
                ),
                part(
                    "rectangle",
                    0.08,
                    0.92,
                    0.6,
                    0.68,
                    self.material(kind, (0.35, 0.35, 0.36)),
                ),
            ],
        }.get(thing.kind)
        if shapes:
            if thing.look[0] < 0.5:
                shapes = _mirror(shapes, wide)
            self._card(thing.x, thing.z, wide, shapes)


def _mirror(shapes: list[Shape], length: float) -> list[Shape]:
    """A wall of this length as it is seen from its other side."""
    return [
        shape._replace(left=length - shape.right, right=length - shape.left)
        for shape in shapes
    ]
