"""What the classes of furniture share: placing parts, outlines, legs, pedestals, backrests.

Right-handed frames, y up, x to the right, the front towards +z; lengths are roughly metres before normalisation. Parts
reach a little into each other (``EMBED``): faces that only touch would leave a zero of the distance inside the union.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adlbench.datasets.generated.primitives import Array, Box, Lathe, Prism, Solid, Tube, polygon_sdf

EMBED = 0.006

PlacedPart = tuple[str, Solid, Array, Array]  # part name, solid, rotation [3, 3] (columns are its axes), position [3]


class Kit:
    """Collects parts; draws random numbers."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        self.parts: list[PlacedPart] = []

    # ------------------------------------------------------------------------------------------------- random numbers
    def between(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def flip(self, probability: float = 0.5) -> bool:
        return bool(self.rng.random() < probability)

    def one_of(self, *options: str) -> str:
        return options[int(self.rng.integers(len(options)))]

    def pick(self, *numbers: int) -> int:
        return numbers[int(self.rng.integers(len(numbers)))]

    def count(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    # ---------------------------------------------------------------------------------------------------------- parts
    def add(self, part: str, solid: Solid, at: Sequence[float] | Array, rotation: Array | None = None) -> None:
        placed = np.eye(3) if rotation is None else rotation
        self.parts.append((part, solid, placed, np.asarray(at, dtype=float)))

    def box(self, part: str, low: Sequence[float], high: Sequence[float], rotation: Array | None = None) -> None:
        """An axis-parallel box from corner to corner, then turned about its centre."""
        a, b = np.asarray(low, dtype=float), np.asarray(high, dtype=float)
        self.add(part, Box((b - a) / 2), (a + b) / 2, rotation)

    def slab(self, part: str, outline: Array, low: float, high: float, at: tuple[float, float] = (0.0, 0.0)) -> None:
        """A polygon [K, 2] in (x, z), between two heights."""
        self.add(part, Prism(outline, (high - low) / 2), (at[0], (low + high) / 2, at[1]))

    def rod(
        self,
        part: str,
        start: Sequence[float] | Array,
        end: Sequence[float] | Array,
        radius: float,
        end_radius: float | None = None,
    ) -> None:
        """A round bar from point to point, tapered when ``end_radius`` is given."""
        a, b = np.asarray(start, dtype=float), np.asarray(end, dtype=float)
        half = float(np.linalg.norm(b - a)) / 2
        last = radius if end_radius is None else end_radius
        profile = np.array([[0, -half], [radius, -half], [last, half], [0, half]])
        self.add(part, Lathe(profile), (a + b) / 2, along((b - a) / (2 * half)))

    def beam(
        self, part: str, start: Sequence[float] | Array, end: Sequence[float] | Array, width: float, depth: float
    ) -> None:
        """A bar of rectangular section from point to point."""
        a, b = np.asarray(start, dtype=float), np.asarray(end, dtype=float)
        half = float(np.linalg.norm(b - a)) / 2
        self.add(part, Box(np.array([width / 2, half, depth / 2])), (a + b) / 2, along((b - a) / (2 * half)))

    def turned(
        self, part: str, profile: Sequence[tuple[float, float]], at: Sequence[float] | Array = (0, 0, 0)
    ) -> None:
        """A profile of (radius, height) about a vertical axis through ``at``."""
        self.add(part, Lathe(np.asarray(profile, dtype=float)), at)

    def tube(self, part: str, path: Array, radius: float) -> None:
        """A round bar along a polyline [K, 3] whose sharp corners are bent to arcs."""
        self.add(part, Tube(bent(path, 2.5 * radius), radius), (0, 0, 0))

    def plate(
        self, part: str, outline: Array, thickness: float, at: Sequence[float] | Array, lean: float = 0.0
    ) -> None:
        """A polygon [K, 2] in (x, y) that stands upright, leaning back by ``lean`` radians."""
        # The prism's (x, z) becomes (x, y), its y becomes -z; then the lean about x through the origin of the outline.
        upright = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
        self.add(part, Prism(outline, thickness / 2), at, about_x(-lean) @ upright)


def along(direction: Array) -> Array:
    """The rotation with the least turn that brings y to a unit ``direction`` [3]; square bars keep their faces' yaw."""
    x, y, z = direction
    if y < -0.999999:
        return np.diag([1.0, -1.0, -1.0])
    cross = np.array([[0, x, 0], [-x, 0, -z], [0, z, 0.0]])  # of y x direction = (z, 0, -x)
    return np.eye(3) + cross + cross @ cross / (1 + y)


def bent(path: Array, radius: float, steps: int = 5) -> Array:
    """The polyline with every corner of more than 30 degrees replaced by an arc of about ``radius``."""
    points = [path[0]]
    for before, corner, after in zip(path, path[1:], path[2:]):
        a, b = before - corner, after - corner
        la, lb = np.linalg.norm(a), np.linalg.norm(b)
        turn = np.pi - np.arccos(np.clip(a @ b / (la * lb), -1, 1))
        if turn < np.pi / 6:
            points.append(corner)
            continue
        reach = min(radius * np.tan(turn / 2), 0.45 * la, 0.45 * lb)
        start, end = corner + a / la * reach, corner + b / lb * reach
        centre = corner + (a / la + b / lb) * reach / (1 + np.cos(np.pi - turn))  # where the two perpendiculars meet
        for t in np.linspace(0, 1, steps + 1):
            u, v = start - centre, end - centre
            points.append(centre + (np.sin((1 - t) * turn) * u + np.sin(t * turn) * v) / np.sin(turn))
    return np.array([*points, path[-1]])


def about_x(angle: float) -> Array:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def about_y(angle: float) -> Array:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def ellipse(width: float, depth: float, k: int = 24) -> Array:
    angle = np.arange(k) * 2 * np.pi / k
    return np.stack([np.cos(angle) * width / 2, np.sin(angle) * depth / 2], 1)


def rounded(width: float, depth: float, radius: float, steps: int = 3) -> Array:
    """A rectangle with rounded corners [4 (steps + 1), 2]."""
    corners = []
    for quarter, (sx, sz) in enumerate([(1, 1), (-1, 1), (-1, -1), (1, -1)]):
        angle = (quarter + np.arange(steps + 1) / steps) * np.pi / 2
        centre = np.array([sx * (width / 2 - radius), sz * (depth / 2 - radius)])
        corners.append(centre + radius * np.stack([np.cos(angle), np.sin(angle)], 1))
    return np.concatenate(corners)


def outline(kit: Kit, width: float, depth: float) -> Array:
    """The outline of a seat or a top: rectangle, rounded rectangle, trapezium, ellipse or octagon."""
    kind = kit.one_of("rectangle", "rounded", "rounded", "trapezium", "ellipse", "octagon")
    if kind == "ellipse":
        return ellipse(width, depth)
    if kind == "rounded":
        return rounded(width, depth, kit.between(0.08, 0.45) * min(width, depth))
    w, d = width / 2, depth / 2
    if kind == "octagon":
        c = kit.between(0.15, 0.35) * min(width, depth)
        return np.array(
            [[w, -d + c], [w, d - c], [w - c, d], [-w + c, d], [-w, d - c], [-w, -d + c], [-w + c, -d], [w - c, -d]]
        )
    front = w * (kit.between(0.7, 1.0) if kind == "trapezium" else 1.0)
    return np.array([[w, -d], [front, d], [-front, d], [-w, -d]])


def pulled_in(spot: tuple[float, float], within: Array | None, margin: float) -> tuple[float, float]:
    """The point (x, z), moved towards the origin until it lies ``margin`` inside of a polygon [K, 2]."""
    if within is None:
        return spot
    candidates = np.linspace(1, 0, 41)[:, None] * np.array(spot)
    good = np.flatnonzero(polygon_sdf(candidates, within, np.ones(len(within), dtype=bool)) <= -margin)
    x, z = candidates[good[0] if len(good) else -1]
    return float(x), float(z)


# ------------------------------------------------------------------------------------------------------ substructures
def one_leg(
    kit: Kit, style: str, top: Sequence[float], foot: Sequence[float], *, thickness: float, taper: float
) -> None:
    if style == "square":
        kit.beam("leg", foot, top, thickness, thickness)
    elif style == "turned":
        x, y, z = top
        h, r = y - foot[1], thickness / 2
        bulge = 1.0 + 0.8 * taper
        profile = [
            (0, 0),
            (r * 0.7, 0),
            (r * 0.8, h * 0.3),
            (r * bulge, h * 0.55),
            (r * 0.6, h * 0.7),
            (r, h * 0.75),
            (r, h),
            (0, h),
        ]
        kit.turned("leg", profile, (x, foot[1], z))
    else:
        kit.rod("leg", foot, top, thickness / 2 * taper, thickness / 2)


def legs(
    kit: Kit,
    half_width: float,
    half_depth: float,
    top: float,
    *,
    number: int = 4,
    thickness: float | None = None,
    within: Array | None = None,
) -> list[tuple[Array, Array]]:
    """Three to eight legs below the height ``top`` on a rectangle (three, five: on an ellipse), splayed or not.

    They start below the polygon ``within``. Returns the upper and the lower end of each.
    """
    t = kit.between(0.03, 0.08) * (0.5 + top) if thickness is None else thickness
    style = kit.one_of("square", "round", "round", "turned")
    taper = kit.between(0.45, 1.0)
    splay = 0.0 if kit.flip() else kit.between(0.05, 0.28) * top
    x, z = half_width - t * 0.7, half_depth - t * 0.7
    if number in (3, 5):
        angle = np.arange(number) * 2 * np.pi / number + np.pi / 2
        spots = [(x * np.cos(a) * 0.85, z * np.sin(a) * 0.85) for a in angle]
    else:
        columns = np.linspace(-x, x, number // 2)
        spots = [(float(cx), sz * z) for cx in columns for sz in (-1, 1)]
    feet = []
    for cx, cz in (pulled_in(spot, within, t / 3) for spot in spots):
        out = np.array([cx / max(half_width, 1e-6), cz / max(half_depth, 1e-6)])
        foot = (cx + splay * out[0], 0.0, cz + splay * out[1])
        one_leg(
            kit, style, (cx, top + EMBED, cz), foot if style != "turned" else (cx, 0.0, cz), thickness=t, taper=taper
        )
        feet.append((np.array([cx, top, cz]), np.array(foot) if style != "turned" else np.array([cx, 0.0, cz])))
    if number == 4 and kit.flip(0.4):
        stretchers(kit, feet, t)
    return feet


def stretchers(kit: Kit, feet: list[tuple[Array, Array]], thickness: float) -> None:
    """Bars between four legs at one height: an H, a ring, or the two sides."""
    share = kit.between(0.2, 0.5)
    at = [foot + share * (top - foot) for top, foot in feet]  # left back, left front, right back, right front
    r = thickness * kit.between(0.25, 0.4)
    pairs = [(at[0], at[1]), (at[2], at[3])]
    kind = kit.one_of("h", "ring", "sides")
    if kind == "h":
        pairs.append(((at[0] + at[1]) / 2, (at[2] + at[3]) / 2))
    elif kind == "ring":
        pairs += [(at[0], at[2]), (at[1], at[3])]
    for a, b in pairs:
        kit.rod("stretcher", a, b, r)


def pedestal(kit: Kit, top: float, spread: float) -> None:
    """A pole on a foot: a disc, a cone, a square slab or a star of three to five arms."""
    r = kit.between(0.06, 0.16) * spread
    t = kit.between(0.02, 0.06) * (0.5 + top)
    foot = spread * kit.between(0.7, 1.0)
    kind = kit.one_of("disc", "cone", "slab", "star")
    if kind == "disc":
        kit.turned("base", [(0, 0), (foot, 0), (foot, t), (0, t)])
    elif kind == "cone":
        kit.turned("base", [(0, 0), (foot, 0), (foot, t / 2), (r * 1.3, t * 3), (0, t * 3)])
    elif kind == "slab":
        kit.slab("base", rounded(2 * foot * 0.9, 2 * foot * 0.9, foot * 0.1), 0, t)
    else:
        number, rise = kit.count(3, 5), kit.between(0.5, 2.0) * t
        for a in np.arange(number) * 2 * np.pi / number + kit.between(0, 1):
            kit.rod("base", (foot * np.cos(a), t / 2, foot * np.sin(a)), (0, t / 2 + rise, 0), t / 2, t * 0.7)
    kit.rod("pole", (0, t / 2, 0), (0, top + EMBED, 0), r, r * kit.between(0.6, 1.3))


def backrest(kit: Kit, width: float, z: float, within: Array, *, low: float, height: float, lean: float) -> None:
    """A backrest on the polygon ``within`` that starts at height ``low`` and leans backwards: panel, slats, ladder, hoop.

    It stands at the depth z, or as far in front of it as the corners need to find a hold, and is narrower if they find none.
    """
    t = kit.between(0.02, 0.06)
    while pulled_in((width / 2 - t, z), within, 0.01) != (width / 2 - t, z):
        z += 0.01
        if z > 0.4 * within[:, 1].min():
            z, width = within[:, 1].min() + 0.035, 0.9 * width
    kind = kit.one_of("panel", "panel", "slats", "ladder", "hoop", "spindles")
    up, w = np.array([0.0, np.cos(lean), -np.sin(lean)]), width / 2
    foot = np.array([0.0, low - 2 * EMBED, z])
    side = np.array([1.0, 0, 0])
    if kind == "panel":
        shape = kit.one_of("square", "round", "tapered", "arched")
        top = w * (kit.between(0.6, 1.0) if shape == "tapered" else 1.0)
        if shape == "round":
            pts = rounded(width, height, kit.between(0.1, 0.45) * min(width, height)) + np.array([0, height / 2])
        elif shape == "arched":
            a = np.linspace(0, np.pi, 9)
            rise = height * kit.between(0.2, 0.5)
            arch = np.stack([w * np.cos(a), height - rise + rise * np.sin(a)], 1)
            pts = np.concatenate([[[-w, 0], [w, 0]], arch])
        else:
            pts = np.array([[-w, 0], [w, 0], [top, height], [-top, height]])
        kit.plate("back", pts, t, foot, lean)
        return
    r = t * kit.between(0.4, 0.7)
    if kind == "hoop":
        a = np.linspace(0, np.pi, 13)
        path = [foot + side * (w - r) * np.cos(b) + up * (height * (0.55 + 0.45 * np.sin(b))) for b in a]
        kit.tube("back", np.array([foot + side * (w - r), *path, foot - side * (w - r)]), r)
        for x in np.linspace(-0.6, 0.6, kit.count(2, 4)) * w:
            kit.rod(
                "back",
                foot + side * x,
                foot + side * x + up * height * 0.92 * (0.55 + 0.45 * np.sqrt(1 - (x / w) ** 2)),
                r * 0.7,
            )
        return
    for s in (-1, 1):
        kit.rod("back", foot + side * s * (w - r), foot + side * s * (w - r) + up * height, r)
    if kind == "ladder":
        number = kit.count(2, 4)
        for level in np.linspace(0.35, 0.95, number) * height:
            a, b = (foot + up * level + s * (w - r) * side for s in (-1, 1))
            kit.beam("back", a, b, height * 0.5 / number, t * 0.6)
        return
    a, b = (foot + up * (height - r) + s * w * side for s in (-1, 1))
    kit.beam("back", a, b, kit.between(0.08, 0.25) * height, t)
    for x in np.linspace(-0.75, 0.75, kit.count(3, 6)) * w:
        end = foot + side * x + up * (height - r)
        if kind == "slats":
            kit.beam("back", foot + side * x, end, width * 0.07, t * 0.5)
        else:
            kit.rod("back", foot + side * x, end, r * 0.6)


def knob(kit: Kit, at: Sequence[float], length: float, upright: bool) -> None:
    """A bar handle whose back touches the point ``at`` of a front."""
    r = 0.07 * length + 0.008
    d = np.array([0, length / 2, 0]) if upright else np.array([length / 2, 0, 0])
    centre = np.array([at[0], at[1], at[2] + r])
    kit.rod("handle", centre - d, centre + d, r)
