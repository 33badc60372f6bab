"""Furnished rooms from a seed: four walls, a door, windows, and furniture that stands where furniture stands.

Metres, y up, right-handed; the origin is the middle of the floor. A room depends on (seed, split, number) alone. The
furniture is that of ``furniture.py`` before it is normalised; its fronts (+z) face away from the walls. Footprints do not
overlap, and nothing stands in front of the door.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from adlbench.datasets.generated.furniture import PARTS, Shape, build_shape
from adlbench.datasets.generated.furniture_kit import about_y
from adlbench.datasets.generated.rasterizing import Array, Light, Model, look_at
from adlbench.datasets.generated.raytracing import srgb

VERSION = 1  # part of the key of cached data: raise it when a change here moves the arrays
STRUCTURE = ("floor", "wall", "ceiling", "door", "window")
FURNITURE = (
    "bathtub", "bed", "bench", "cabinet", "chair", "coat_rack", "desk", "lamp", "shelf", "sofa", "stool", "table", "vase"
)  # fmt: skip
LABELS = STRUCTURE + FURNITURE
HEIGHT = 2.6
DOOR = (0.9, 2.05)  # width, height
FREE = 0.7  # kept free before the door

# What stands in a room of each kind: class, probability, at most, and where: along a wall, in a corner or in the middle.
KINDS: dict[str, tuple[tuple[str, float, int, str], ...]] = {
    "bedroom": (
        ("bed", 1.0, 1, "wall"), ("cabinet", 0.9, 2, "wall"), ("desk", 0.5, 1, "wall"), ("chair", 0.5, 1, "middle"),
        ("lamp", 0.8, 2, "corner"), ("shelf", 0.4, 1, "wall"), ("stool", 0.4, 1, "middle"), ("vase", 0.3, 1, "corner"),
    ),
    "living_room": (
        ("sofa", 1.0, 2, "wall"), ("table", 1.0, 1, "middle"), ("chair", 0.8, 4, "middle"), ("shelf", 0.7, 2, "wall"),
        ("lamp", 0.7, 2, "corner"), ("cabinet", 0.5, 1, "wall"), ("vase", 0.6, 2, "corner"), ("bench", 0.3, 1, "wall"),
    ),
    "study": (
        ("desk", 1.0, 2, "wall"), ("chair", 1.0, 3, "middle"), ("shelf", 1.0, 3, "wall"), ("sofa", 0.4, 1, "wall"),
        ("coat_rack", 0.6, 1, "corner"), ("lamp", 0.7, 1, "corner"), ("stool", 0.4, 2, "middle"),
        ("cabinet", 0.5, 1, "wall"),
    ),
    "bathroom": (
        ("bathtub", 1.0, 1, "wall"), ("cabinet", 0.9, 2, "wall"), ("stool", 0.7, 2, "middle"), ("shelf", 0.6, 1, "wall"),
        ("bench", 0.4, 1, "wall"), ("coat_rack", 0.4, 1, "corner"), ("vase", 0.4, 1, "corner"),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """One piece of furniture. ``shape`` has its own frame: the middle of its footprint at the origin, standing on y = 0."""

    name: str
    shape: Shape
    size: Array  # [3] of the bounding box in the shape's frame, metres
    position: Array  # [3] of the shape's origin in the room
    yaw: float  # about y, radians; a multiple of a quarter turn
    colours: Array  # [len(PARTS), 3] diffuse albedo of its parts, linear

    @property
    def rotation(self) -> Array:
        return about_y(self.yaw)

    @property
    def footprint(self) -> tuple[Array, Array]:
        """The lowest and the highest (x, z) [2] in the room."""
        half = np.abs(self.rotation @ (self.size / 2))[[0, 2]]
        return self.position[[0, 2]] - half, self.position[[0, 2]] + half


@dataclass(frozen=True)
class Panel:
    """A rectangle of the room's shell: all of ``corner + a * side + b * other`` with a, b in [0, 1], seen from inside."""

    name: str
    corner: Array  # [3]
    side: Array  # [3]
    other: Array  # [3]
    colour: Array  # [3], linear

    @property
    def normal(self) -> Array:
        normal = np.cross(self.side, self.other)
        return normal / np.linalg.norm(normal)

    @property
    def area(self) -> float:
        return float(np.linalg.norm(np.cross(self.side, self.other)))


@dataclass(frozen=True)
class Room:
    kind: str
    width: float  # along x
    depth: float  # along z
    panels: tuple[Panel, ...]  # doors and windows lie 1 cm before the wall
    pieces: tuple[Piece, ...]
    lamp: Array  # [3]

    @property
    def light(self) -> Light:
        return Light(self.lamp, power=0.55, reach=1.8, up=0.5, down=0.35)

    @cached_property
    def model(self) -> Model:
        """Instances are the panels, then the pieces."""
        models = []
        for number, panel in enumerate(self.panels):
            corners = [panel.corner, panel.corner + panel.side, panel.corner + panel.side + panel.other]
            vertices = np.stack([*corners, panel.corner + panel.other])
            faces = np.array([[0, 1, 2], [0, 2, 3]])
            label = np.full(2, LABELS.index(panel.name))
            models.append(Model(vertices, faces, np.tile(panel.colour, (2, 1)), label, np.full(2, number)))
        for number, piece in enumerate(self.pieces, start=len(self.panels)):
            vertices, faces, parts = piece.shape.mesh()
            placed = vertices @ piece.rotation.T + piece.position
            label = np.full(len(faces), LABELS.index(piece.name))
            models.append(Model(placed, faces, piece.colours[parts], label, np.full(len(faces), number)))
        return Model.joined(models)

    def surface(self, n: int, rng: np.random.Generator) -> dict[str, Array]:
        """``n`` points of all surfaces, about evenly: ``points``, ``normals``, ``colours`` float32 [n, 3] and
        ``point_label``, ``point_instance`` int64 [n], in random order. Nothing is hidden, as in a complete scan."""
        areas = np.array(
            [p.area for p in self.panels] + [sum(q.solid.area for q in p.shape.parts) for p in self.pieces]
        )
        counts = rng.multinomial(n, areas / areas.sum())
        drawn = []
        for number, count in enumerate(counts):
            if number < len(self.panels):
                panel = self.panels[number]
                points = panel.corner + rng.random((count, 1)) * panel.side + rng.random((count, 1)) * panel.other
                normals, albedo = np.tile(panel.normal, (count, 1)), np.tile(panel.colour, (count, 1))
                name = panel.name
            else:
                piece = self.pieces[number - len(self.panels)]
                points, normals, parts = piece.shape.surface(int(count), rng)
                points, normals = points @ piece.rotation.T + piece.position, normals @ piece.rotation.T
                albedo, name = piece.colours[parts], piece.name
            label = np.full(count, LABELS.index(name))
            drawn.append((points, normals, albedo, label, np.full(count, number)))
        points, normals, albedo, label, instance = (np.concatenate(arrays) for arrays in zip(*drawn))
        colours = srgb(albedo * self.light.on(points, normals)[:, None])
        order = rng.permutation(n)
        return {
            "points": points[order].astype(np.float32),
            "normals": normals[order].astype(np.float32),
            "colours": colours[order].astype(np.float32),
            "point_label": label[order].astype(np.int64),
            "point_instance": instance[order].astype(np.int64),
        }

    def cameras(self, count: int, rng: np.random.Generator) -> Array:
        """world_to_camera [count, 4, 4]: from where somebody could stand near the walls, looking across the room."""
        half = np.array([self.width, self.depth]) / 2
        found: list[Array] = []
        for attempt in range(200 * count):
            angle = rng.uniform(0, 2 * np.pi)
            direction = np.array([np.cos(angle), np.sin(angle)])
            spot = direction * np.min((half - 0.25) / np.maximum(np.abs(direction), 1e-9)) * rng.uniform(0.7, 1.0)
            margin = 0.25 if attempt < 100 * count else 0.0
            blocked = [
                bool(((spot > low - margin) & (spot < high + margin)).all())
                for low, high in map(_footprint, self.pieces)
            ]
            if any(blocked):
                continue
            eye = np.array([spot[0], rng.uniform(1.3, 1.8), spot[1]])
            target = np.array([*(rng.uniform(-0.25, 0.25, 2) * half), 0.0])[[0, 2, 1]]
            target[1] = rng.uniform(0.4, 1.0)
            found.append(look_at(eye, target))
            if len(found) == count:
                break
        return np.stack(found)

    def boxes(self, most: int) -> tuple[Array, Array]:
        """``furniture`` float32 [most, 7] and ``furniture_label`` int64 [most] of the first ``most`` pieces."""
        boxes, label = np.zeros((most, 7), dtype=np.float32), np.full(most, -1)
        for row, piece in enumerate(self.pieces[:most]):
            middle = piece.position + np.array([0, piece.size[1] / 2, 0])
            boxes[row] = (*middle, *piece.size, piece.yaw)
            label[row] = FURNITURE.index(piece.name)
        return boxes, label


def _footprint(piece: Piece) -> tuple[Array, Array]:
    return piece.footprint


def make_room(split: str, number: int, seed: int = 0) -> Room:
    rng = np.random.default_rng([seed, {"train": 0, "test": 1}[split], number, 7])
    kind = list(KINDS)[int(rng.integers(len(KINDS)))]
    small = 0.75 if kind == "bathroom" else 1.0
    width, depth = rng.uniform(3.2, 6.0) * small, rng.uniform(3.0, 5.0) * small
    panels, before_door = _shell(width, depth, rng)
    pieces: list[Piece] = []
    for name, probability, most, where in KINDS[kind]:
        for _ in range(int(rng.integers(1, most + 1))):
            if rng.random() < probability:
                piece = _place(name, where, (width, depth), [*map(_footprint, pieces), before_door], rng)
                pieces += [piece] if piece is not None else []
    lamp = np.array([rng.uniform(-0.2, 0.2) * width, HEIGHT - 0.3, rng.uniform(-0.2, 0.2) * depth])
    return Room(kind, width, depth, panels, tuple(pieces), lamp)


def _place(
    name: str, where: str, room: tuple[float, float], taken: list[tuple[Array, Array]], rng: np.random.Generator
) -> Piece | None:
    """A piece that overlaps nothing, or None when no such place is found."""
    shape = build_shape(name, rng)
    vertices = shape.vertices()
    low, high = vertices.min(0), vertices.max(0)
    middle = np.array([(low[0] + high[0]) / 2, low[1], (low[2] + high[2]) / 2])
    shape = Shape(tuple(part.moved(1.0, np.eye(3), -middle) for part in shape.parts))
    size = high - low
    base = 0.15 + 0.7 * rng.dirichlet(np.ones(3)) * rng.uniform(0.5, 1.2)
    colours = np.clip(base + rng.uniform(-0.12, 0.12, (len(PARTS), 3)), 0.03, 0.9)
    half_room = np.array(room) / 2
    for _ in range(25):
        turn = int(rng.integers(4))
        piece = Piece(name, shape, size, np.zeros(3), turn * np.pi / 2, colours)
        half = piece.footprint[1]
        free = half_room - half - 0.03
        if (free < 0).any():
            continue
        spot = rng.uniform(-1, 1, 2) * free * (0.6 if where == "middle" else 1.0)
        if where != "middle":  # its back (-z) to the wall
            back = -np.round(about_y(turn * np.pi / 2)[[0, 2], 2])
            spot = np.where(back != 0, back * free, spot)
        if where == "corner":
            spot = np.sign(spot + 1e-9) * free
        if not any(((spot - half < b) & (spot + half > a)).all() for a, b in taken):
            return Piece(name, shape, size, np.array([spot[0], 0.0, spot[1]]), piece.yaw, colours)
    return None


def _shell(width: float, depth: float, rng: np.random.Generator) -> tuple[tuple[Panel, ...], tuple[Array, Array]]:
    """Floor, ceiling, walls, a door and up to three windows; and the footprint that stays free before the door."""
    x, z = width / 2, depth / 2
    wall = np.clip(rng.uniform(0.45, 0.8) + rng.uniform(-0.08, 0.08, 3), 0, 1)
    wood = np.array([0.45, 0.28, 0.15]) * rng.uniform(0.5, 1.5)
    up = np.array([0.0, HEIGHT, 0.0])
    panels = [
        Panel("floor", np.array([-x, 0, z]), np.array([width, 0, 0]), np.array([0, 0, -depth]), wood),
        Panel("ceiling", np.array([-x, HEIGHT, -z]), np.array([width, 0, 0]), np.array([0, 0, depth]), np.full(3, 0.8)),
    ]
    # each wall from its left end to its right end as seen from inside, and the direction into the room
    starts = np.array([[-x, 0, -z], [x, 0, -z], [x, 0, z], [-x, 0, z]])
    sides = np.roll(starts, -1, 0) - starts
    inwards = np.array([[0, 0, 1.0], [-1, 0, 0], [0, 0, -1], [1, 0, 0]])
    door_wall = int(rng.integers(4))
    for number, (start, side, inward) in enumerate(zip(starts, sides, inwards)):
        panels.append(Panel("wall", start, side, up, wall))
        length = float(np.linalg.norm(side))
        along = side / length
        if number == door_wall:
            size, low = DOOR, 0.0
            colour = np.clip(wood * 1.4 + 0.1, 0, 0.9)
        elif rng.random() < 0.6:
            size, low = (rng.uniform(0.8, min(1.8, length - 1)), rng.uniform(1.0, 1.4)), rng.uniform(0.8, 1.0)
            colour = np.array([0.62, 0.75, 0.9])
        else:
            continue
        at = rng.uniform(0.3, length - size[0] - 0.3)
        corner = start + at * along + np.array([0, low, 0]) + 0.01 * inward
        name = "door" if number == door_wall else "window"
        panels.append(Panel(name, corner, size[0] * along, np.array([0, size[1], 0]), colour))
        if name == "door":
            ends = np.stack([corner, corner + size[0] * along + FREE * inward])[:, [0, 2]]
            free = (ends.min(0), ends.max(0))
    return tuple(panels), free
