"""Four more classes of furniture, of the same parts as the first ten: bathtub, coat rack, desk, vase."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from adlbench.datasets.generated.furniture_kit import (
    EMBED,
    Kit,
    about_y,
    ellipse,
    knob,
    legs,
    outline,
    pedestal,
    pulled_in,
    rounded,
)


def bathtub(kit: Kit) -> None:
    w, d, h = kit.between(1.3, 1.9), kit.between(0.65, 0.95), kit.between(0.4, 0.65)
    t, foot = kit.between(0.04, 0.09), kit.between(0.05, 0.2) if kit.flip(0.5) else 0.0
    bottom = foot + kit.between(0.06, 0.12)
    kind = kit.one_of("box", "oval", "oval", "sides")
    if kind == "box":
        kit.box("body", (-w / 2, foot, -d / 2), (w / 2, bottom, d / 2))
        for s in (-1, 1):
            x, z = s * (w / 2 - t / 2), s * (d / 2 - t / 2)
            kit.box("body", (x - t / 2, foot, -d / 2), (x + t / 2, foot + h, d / 2))
            kit.box("body", (-w / 2, foot, z - t / 2), (w / 2, foot + h, z + t / 2))
    else:  # a ring of upright staves on an oval floor, with straight sides or without
        floor = ellipse(w, d) if kind == "oval" else rounded(w, d, 0.48 * d, steps=6)
        kit.slab("body", floor, foot, bottom)
        flare = kit.between(1.0, 1.12)
        for a, b in zip(floor, np.roll(floor, -1, 0)):
            middle, side = (a + b) / 2, b - a
            length = float(np.linalg.norm(side))
            inward = 1 - t / 2 / np.linalg.norm(middle)
            x, z = middle * inward
            kit.box(
                "body",
                (x - length * flare * 0.55, foot, z - t / 2),
                (x + length * flare * 0.55, foot + h, z + t / 2),
                about_y(-float(np.arctan2(side[1], side[0]))),
            )
    if foot:
        if kit.flip():
            legs(kit, w / 2 * 0.7, d / 2 * 0.6, foot, thickness=kit.between(0.05, 0.09))
        else:
            kit.box("base", (-w * 0.32, 0, -d * 0.3), (w * 0.32, foot + EMBED, d * 0.3))
    if kit.flip(0.7):  # the tap
        r, x = kit.between(0.012, 0.02), (w / 2 - t / 2) * (1 if kit.flip() else -1)
        top, reach = foot + h + kit.between(0.1, 0.25), -np.sign(x) * kit.between(0.12, 0.2)
        kit.tube("handle", np.array([(x, foot + h - 0.02, 0), (x, top, 0), (x + reach, top, 0)]), r)


def coat_rack(kit: Kit) -> None:
    h, r = kit.between(1.4, 1.9), kit.between(0.018, 0.035)
    spread = kit.between(0.18, 0.34)
    if kit.flip(0.75):
        pedestal(kit, h * 0.6, spread)
        kit.rod("pole", (0, h * 0.5, 0), (0, h, 0), r)
    else:
        join = h * kit.between(0.2, 0.45)
        for a in np.arange(3) * 2 * np.pi / 3 + kit.between(0, 2):
            kit.rod("leg", (spread * np.cos(a), r, spread * np.sin(a)), (0, join, 0), r * 0.7, r)
        kit.rod("pole", (0, join - 2 * r, 0), (0, h, 0), r)
    if kit.flip(0.4):
        kit.turned("pole", [(0, h - 0.02), (r * 1.8, h), (r * 1.4, h + 2 * r), (0, h + 3 * r)])
    for level in range(kit.count(1, 2)):
        y, number = h * (0.95 - 0.22 * level) - 0.02, kit.count(3, 6)
        reach, rise, kink = kit.between(0.1, 0.26), kit.between(0.04, 0.16), kit.flip(0.6)
        for a in np.arange(number) * 2 * np.pi / number + kit.between(0, 1):
            out = np.array([np.cos(a), 0.0, np.sin(a)])
            up = np.array([0.0, rise, 0.0])
            path = [np.array([0.0, y, 0.0]), np.array([0.0, y, 0.0]) + reach * out]
            path = [*path, path[1] + up] if kink else [path[0], path[1] + up]
            kit.tube("handle", np.array(path), r * kit.between(0.4, 0.6))


def desk(kit: Kit) -> None:
    w, d, h, t = kit.between(0.9, 1.8), kit.between(0.5, 0.85), kit.between(0.66, 0.8), kit.between(0.02, 0.06)
    top = outline(kit, w, d)
    kit.slab("top", top, h, h + t)
    kind = kit.one_of("one", "one", "both", "none")
    chest, side = kit.between(0.28, 0.42), 1 if kit.flip() else -1
    proud = kit.between(0.012, 0.03)
    for s in {"one": (side,), "both": (-1, 1), "none": ()}[kind]:
        low = kit.between(0.0, 0.3) * h
        x0, x1, z = s * (w * 0.44 - chest / 2) - chest / 2, s * (w * 0.44 - chest / 2) + chest / 2, d * 0.38
        kit.box("panel", (x0, low, -z), (x1, h + EMBED, z))
        rows = kit.count(1, 4)
        for j in range(rows):
            y0, y1 = low + j * (h - low) / rows, low + (j + 1) * (h - low) / rows
            kit.box("door", (x0 + 0.01, y0 + 0.01, z - EMBED), (x1 - 0.01, y1 - 0.01, z + proud))
            knob(kit, ((x0 + x1) / 2, (y0 + y1) / 2, z + proud - EMBED), chest * kit.between(0.25, 0.45), False)
    panels, tp = kit.flip(0.4), kit.between(0.025, 0.06)
    wide, deep = pulled_in((w * 0.42, d * 0.36), top, 0.01)
    for s in (-1, 1):
        x = s * wide
        if panels:
            kit.box("leg", (x - tp / 2, 0, -deep), (x + tp / 2, h + EMBED, deep))
        else:
            for e in (-1, 1):
                kit.beam("leg", (x, 0, e * deep), (x, h + EMBED, e * deep), tp, tp)
            kit.rod("stretcher", (x, h * 0.3, -deep), (x, h * 0.3, deep), tp * 0.3)
    if kit.flip(0.6):
        kit.box("apron", (-wide, h * kit.between(0.3, 0.8), -deep), (wide, h + EMBED, -deep + 0.02))
    if kit.flip(0.4):  # shelves on top
        rise, deep = kit.between(0.2, 0.5), d * kit.between(0.2, 0.35)
        back = -d * 0.36
        kit.box("board", (-w * 0.36, h + t + rise, back), (w * 0.36, h + t + rise + 0.025, back + deep))
        for s in (-1, 1):
            kit.box(
                "panel",
                (s * w * 0.34 - 0.012, h + EMBED, back),
                (s * w * 0.34 + 0.012, h + t + rise + 0.01, back + deep),
            )


def vase(kit: Kit) -> None:
    h = kit.between(0.5, 1.3)
    heights = np.array([0.0, kit.between(0.12, 0.3), kit.between(0.35, 0.6), kit.between(0.68, 0.9), 1.0]) * h
    radii = np.array(
        [kit.between(*span) for span in ((0.1, 0.3), (0.16, 0.42), (0.16, 0.45), (0.08, 0.3), (0.1, 0.36))]
    )
    t = kit.between(0.015, 0.035)
    y = np.linspace(0, 1, 15) * h  # a smooth line through the five
    smooth = np.interp(y, heights, radii)
    for _ in range(2):
        smooth[1:-1] = (smooth[:-2] + 2 * smooth[1:-1] + smooth[2:]) / 4
    outer = list(zip(smooth.tolist(), y.tolist()))
    inner = [(radius - t, height) for radius, height in reversed(outer[1:])]
    kit.turned("body", [(0, 0), *outer, *inner, (0, outer[1][1])])
    if kit.flip(0.35):
        kit.turned("base", [(0, -t), (radii[0] * 1.2, -t), (radii[0] * 1.2, t), (0, t)])
    number = kit.pick(0, 0, 1, 2)
    for i in range(number):
        low, high = h * kit.between(0.35, 0.55), h * kit.between(0.72, 0.92)
        start, end = (float(np.interp(at, y, smooth)) - t / 2 for at in (low, high))
        far = max(start, end) + kit.between(0.06, 0.2)
        path = np.array([(start, low, 0), (far, low, 0), (far, high, 0), (end, high, 0)])
        kit.tube("handle", path @ about_y(i * np.pi).T, kit.between(0.012, 0.025))


MORE_BUILDERS: dict[str, Callable[[Kit], None]] = {
    "bathtub": bathtub, "coat_rack": coat_rack, "desk": desk, "vase": vase,
}  # fmt: skip
