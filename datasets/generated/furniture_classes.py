"""How each class of furniture is put together: a builder draws its proportions and options and adds the parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from adlbench.datasets.generated.furniture_kit import (
    EMBED,
    Kit,
    about_x,
    about_y,
    backrest,
    ellipse,
    knob,
    legs,
    outline,
    pedestal,
    pulled_in,
    rounded,
)
from adlbench.datasets.generated.primitives import Array, Box, Lathe, Prism

PARTS = (
    "seat", "back", "arm", "leg", "stretcher", "base", "pole", "top", "apron", "panel", "board",
    "door", "handle", "body", "shade", "mattress", "headboard", "pillow",
)  # fmt: skip


def chair(kit: Kit) -> None:
    w, d, h = kit.between(0.38, 0.62), kit.between(0.38, 0.6), kit.between(0.32, 0.55)
    t = kit.between(0.025, 0.1)
    seat = outline(kit, w, d)
    kit.slab("seat", seat, h, h + t)
    back_h, lean = kit.between(0.25, 0.7), kit.between(0.0, 0.35)
    backrest(kit, w * kit.between(0.7, 0.98), -d / 2 + 0.035, seat, low=h + t, height=back_h, lean=lean)
    kind = kit.one_of("legs", "legs", "legs", "pedestal", "sled", "cantilever")
    if kind == "legs":
        legs(kit, w / 2 * 0.9, d / 2 * 0.9, h, within=seat)
    elif kind == "pedestal":
        pedestal(kit, h, min(w, d) / 2)
    else:
        r = kit.between(0.012, 0.022)
        x, z = pulled_in((w / 2 * 0.85, d / 2 * 0.85), seat, r)
        for s in (-1, 1):
            ends = [(s * x, h, z), (s * x, r, z), (s * x, r, -z)]
            kit.tube("leg", np.array([*ends, (s * x, h, -z)] if kind == "sled" else ends), r)
        if kind == "cantilever":
            kit.rod("leg", (-x, r, -z), (x, r, -z), r)
    if kit.flip(0.4):
        rise, ta, x = kit.between(0.14, 0.26), kit.between(0.025, 0.06), w / 2 + kit.between(-0.02, 0.03)
        hold = pulled_in((w / 2 - ta * 0.8, d * 0.25), seat, 0.01)
        for s in (-1, 1):
            kit.box(
                "arm", (s * x - ta / 2, h + t + rise, -d / 2), (s * x + ta / 2, h + t + rise + ta * 0.7, d / 2 * 0.8)
            )
            kit.rod("arm", (s * hold[0], h + EMBED, hold[1]), (s * x, h + t + rise + EMBED, d * 0.25), ta * 0.4)


def stool(kit: Kit) -> None:
    w = kit.between(0.26, 0.5)
    d = w * kit.between(0.75, 1.1)
    h, t = w * kit.between(0.95, 2.4), kit.between(0.03, 0.12)
    seat = outline(kit, w, d) if kit.flip(0.7) else ellipse(w, w)
    kit.slab("seat", seat, h, h + t)
    ring, r, y = w * kit.between(0.4, 0.55), kit.between(0.008, 0.014), h * kit.between(0.2, 0.4)
    spokes = []
    if kit.flip(0.3):
        pedestal(kit, h, w * kit.between(0.4, 0.55))
        spokes = [(ring * np.cos(a), ring * np.sin(a)) for a in np.arange(3) * 2 * np.pi / 3]
    else:
        top, foot = legs(kit, w / 2 * 0.9, d / 2 * 0.9, h, number=kit.pick(3, 4, 4, 5), within=seat)[0]
        ring = float(np.linalg.norm((foot + (top - foot) * y / h)[[0, 2]]))
    if kit.flip(0.25):  # a foot ring
        for x, z in spokes:
            kit.rod("stretcher", (0, y, 0), (x, y, z), r)
        square = [(ring - r, y - r), (ring + r, y - r), (ring + r, y + r), (ring - r, y + r)]
        kit.turned("stretcher", square)


def table(kit: Kit) -> None:
    w = kit.between(0.7, 1.8)
    d, h = w * kit.between(0.5, 1.0), kit.between(0.35, 0.95)
    h = min(h, w * 0.8)
    t = kit.between(0.02, 0.08)
    top = outline(kit, w, d)
    kit.slab("top", top, h, h + t)
    kind = kit.one_of("legs", "legs", "legs", "pedestal", "trestle", "panels")
    if kind == "legs":
        wide, deep = w / 2 * kit.between(0.7, 0.92), d / 2 * kit.between(0.7, 0.92)
        legs(kit, wide, deep, h, number=kit.pick(3, 4, 4, 4, 6), within=top)
        if kit.flip(0.4):
            a, b, drop = w / 2 * 0.62, d / 2 * 0.62, kit.between(0.06, 0.16)
            for s in (-1, 1):
                kit.box("apron", (-a, h - drop, s * b - 0.012), (a, h + EMBED, s * b + 0.012))
                kit.box("apron", (s * a - 0.012, h - drop, -b), (s * a + 0.012, h + EMBED, b))
    elif kind == "pedestal":
        pedestal(kit, h, d / 2 * kit.between(0.55, 0.85))
    else:
        x, z, tp = w / 2 * kit.between(0.65, 0.9), d / 2 * kit.between(0.6, 0.9), kit.between(0.03, 0.07)
        for s in (-1, 1):
            if kind == "panels":
                kit.box("leg", (s * x - tp / 2, 0, -z), (s * x + tp / 2, h + EMBED, z))
            else:
                for e in (-1, 1):
                    kit.beam("leg", (s * x, 0, e * z), (s * x, h + EMBED, e * z * 0.15), tp, tp)
        y = h * kit.between(0.25, 0.6)
        reach = 0.0 if kind == "panels" else z * (1 - 0.85 * y / h)
        for e in (-1, 1) if reach else (0,):
            kit.box("stretcher", (-x, y - tp / 2, e * reach - tp / 3), (x, y + tp / 2, e * reach + tp / 3))


def bench(kit: Kit) -> None:
    w = kit.between(1.0, 2.0)
    d, h, t = w * kit.between(0.18, 0.34), kit.between(0.32, 0.55), kit.between(0.03, 0.08)
    seat = outline(kit, w, d)
    if kit.flip(0.5):  # planks
        seat = np.array([[w, -d], [w, d], [-w, d], [-w, -d]]) / 2
        number, gap = kit.count(2, 5), kit.between(0.1, 0.25)
        pitch = d / number
        for i in range(number):
            z = -d / 2 + (i + 0.5) * pitch
            kit.box("seat", (-w / 2, h, z - pitch * (1 - gap) / 2), (w / 2, h + t, z + pitch * (1 - gap) / 2))
        for s in (-1, 1):
            kit.box("leg", (s * w * 0.38 - 0.03, h - 0.05, -d * 0.48), (s * w * 0.38 + 0.03, h + EMBED, d * 0.48))
    else:
        kit.slab("seat", seat, h, h + t)
    if kit.flip(0.5):
        legs(kit, w / 2 * kit.between(0.7, 0.88), d / 2 * 0.9, h, number=kit.pick(4, 4, 6, 8), within=seat)
    else:
        x, tp, z = w / 2 * kit.between(0.6, 0.92), kit.between(0.03, 0.1), d / 2 * kit.between(0.7, 0.95)
        for s in (-1, 1):
            kit.box("leg", (s * x - tp / 2, 0, -z), (s * x + tp / 2, h + EMBED, z))
        if kit.flip():
            kit.box("stretcher", (-x, h * 0.3, -tp / 3), (x, h * 0.3 + tp, tp / 3))
    if kit.flip(0.45):
        back_h, lean = kit.between(0.25, 0.55), kit.between(0.0, 0.3)
        backrest(kit, w * kit.between(0.8, 0.97), -d / 2 + 0.03, seat, low=h + t, height=back_h, lean=lean)
    if kit.flip(0.25):
        rise = kit.between(0.15, 0.25)
        for s in (-1, 1):
            kit.box(
                "arm",
                (s * w * 0.47 - 0.03, h + t + rise, -d * 0.45),
                (s * w * 0.47 + 0.03, h + t + rise + 0.04, d * 0.45),
            )
            for e in (-0.38, 0.38):
                x, z = pulled_in((s * w * 0.47, e * d), seat, 0.01)
                kit.rod("arm", (x, h + EMBED, z), (s * w * 0.47, h + t + rise + EMBED, e * d), 0.02)


def sofa(kit: Kit) -> None:
    w, d = kit.between(1.0, 2.4), kit.between(0.65, 1.0)
    foot, h = kit.between(0.03, 0.2), kit.between(0.18, 0.35)
    arm_w, arm_h = kit.between(0.08, 0.28), kit.between(0.12, 0.3)
    back_t, back_h = kit.between(0.12, 0.3), kit.between(0.28, 0.6)
    top, front = foot + h, d / 2
    kit.box("seat", (-w / 2, foot, -d / 2), (w / 2, top, front))
    lean = kit.between(0.0, 0.3)
    rotation = about_x(-lean)
    centre = np.array([0, top - 0.04 + back_h / 2, -d / 2 + back_t / 2 + 0.02])
    back_w = w - (0 if kit.flip() else 2 * arm_w)
    if kit.flip():
        kit.add("back", Box(np.array([back_w / 2, back_h / 2, back_t / 2])), centre, rotation)
    else:  # rounded edges: a prism along x
        section = rounded(back_h, back_t, back_t * kit.between(0.15, 0.45))
        lay = np.array([[0, 1.0, 0], [1, 0, 0], [0, 0, -1]])  # prism x -> y, y -> x, z -> -z
        kit.add("back", Prism(section, back_w / 2), centre, rotation @ lay)
    number = kit.count(1, 3)
    inner = w - 2 * arm_w + 0.01
    if kit.flip(0.75):  # cushions
        tc, pitch = kit.between(0.08, 0.16), inner / number
        depth = d - back_t - 0.02
        for i in range(number):
            x = -inner / 2 + (i + 0.5) * pitch
            cushion = rounded(pitch - 0.02, depth, 0.2 * min(pitch, depth))
            kit.slab("seat", cushion, top - 0.03, top + tc, (x, front - depth / 2 + kit.between(0.0, 0.03)))
    sides = {"both": (-1, 1), "left": (-1,), "none": ()}[kit.one_of("both", "both", "both", "left", "none")]
    rolled = kit.flip(0.4)
    for s in sides:
        x = s * (w / 2 - arm_w / 2)
        kit.box(
            "arm",
            (x - arm_w / 2 - EMBED, foot - EMBED, -d / 2 - EMBED),
            (x + arm_w / 2 + EMBED, top + arm_h, front + EMBED),
        )
        if rolled:
            kit.rod("arm", (x, top + arm_h, -d / 2 - EMBED), (x, top + arm_h, front + 2 * EMBED), arm_w * 0.62)
    if kit.flip(0.3):  # chaise longue
        long, wide = kit.between(0.4, 0.8), kit.between(0.35, 0.5) * w
        s = 1 if kit.flip() else -1
        x = s * (w / 2 - wide / 2 - EMBED)
        kit.box("seat", (x - wide / 2, foot + EMBED, front - 0.1), (x + wide / 2, top + EMBED, front + long))
    if kit.flip(0.8):
        r = kit.between(0.02, 0.045)
        for x in np.linspace(-w / 2 + 0.08, w / 2 - 0.08, kit.pick(2, 2, 3)):
            for z in (-d / 2 + 0.08, front - 0.08):
                kit.rod("leg", (float(x), 0, z), (float(x), foot + EMBED, z), r * 0.7, r)


def bed(kit: Kit) -> None:
    w, d = kit.between(0.85, 2.0), kit.between(1.8, 2.2)
    foot, frame, soft = kit.between(0.05, 0.35), kit.between(0.08, 0.25), kit.between(0.12, 0.3)
    kit.box("base", (-w / 2, foot, -d / 2), (w / 2, foot + frame, d / 2))
    inset = kit.between(0.0, 0.06) + 0.01
    y = foot + frame
    mattress = rounded(w - 2 * inset, d - 2 * inset, kit.between(0.03, 0.15))
    kit.slab("mattress", mattress, y - 0.02, y + soft)
    t, rise = kit.between(0.04, 0.12), soft + kit.between(0.15, 0.8)
    style = kit.one_of("panel", "panel", "arched", "posts", "none")
    wide = w + kit.between(0.0, 0.2)
    for end, high in ((-1, rise), (1, soft * kit.between(0.3, 1.1) + 0.08)):
        if style == "none" or (end == 1 and kit.flip(0.6)):
            continue
        z = end * (d / 2 + t / 2 - EMBED)
        if style == "arched":
            a = np.linspace(0, np.pi, 11)
            bow = high * kit.between(0.2, 0.6)
            arch = np.stack([wide / 2 * np.cos(a), y + high - bow + bow * np.sin(a)], 1)
            kit.plate("headboard", np.concatenate([[[-wide / 2, 0], [wide / 2, 0]], arch]), t, (0, 0, z))
        elif style == "panel":
            kit.box("headboard", (-wide / 2, kit.between(0, foot), z - t / 2), (wide / 2, y + high, z + t / 2))
        else:
            z = end * (d / 2 + 0.3 * t - 2 * EMBED)
            for x in np.linspace(-w / 2, w / 2, kit.count(5, 9)):
                kit.rod("headboard", (float(x), foot, z), (float(x), y + high, z), t * 0.3)
            kit.rod("headboard", (-w / 2, y + high, z), (w / 2, y + high, z), t * 0.45)
    if kit.flip(0.8):
        number, pd = (2 if w > 1.3 else 1), kit.between(0.3, 0.5)
        pitch = (w - 2 * inset) / number
        for i in range(number):
            x = -w / 2 + inset + (i + 0.5) * pitch
            pillow = rounded(pitch * kit.between(0.65, 0.9), pd, 0.25 * pd)
            kit.slab(
                "pillow",
                pillow,
                y + soft - 0.02,
                y + soft + kit.between(0.06, 0.14),
                (x, -d / 2 + inset + pd / 2 + 0.05),
            )
    if kit.flip(0.8):
        r, tall = kit.between(0.03, 0.06), kit.flip(0.2)
        high = y + rise + kit.between(0.3, 0.9) if tall else foot + EMBED
        for sx in (-1, 1):
            for sz in (-1, 1):
                kit.rod("leg", (sx * (w / 2 - r), 0, sz * (d / 2 - r)), (sx * (w / 2 - r), high, sz * (d / 2 - r)), r)


def cabinet(kit: Kit) -> None:
    w, h = kit.between(0.4, 1.6), kit.between(0.5, 1.9)
    d = kit.between(0.3, 0.6)
    foot = kit.between(0.05, 0.25) if kit.flip(0.6) else 0.0
    kit.box("panel", (-w / 2, foot, -d / 2), (w / 2, foot + h, d / 2))
    if kit.flip(0.5):
        over = kit.between(0.01, 0.05)
        kit.box("top", (-w / 2 - over, foot + h - EMBED, -d / 2 - over), (w / 2 + over, foot + h + 0.03, d / 2 + over))
    columns, rows = kit.count(1, 3) if w > 0.8 else kit.count(1, 2), kit.count(1, 4)
    drawers = kit.flip()
    cw, ch, gap = w / columns, h / rows, kit.between(0.01, 0.03)
    proud = kit.between(0.015, 0.04)
    for i in range(columns):
        for j in range(rows if drawers else min(rows, 2)):
            high = ch if drawers else h / min(rows, 2)
            x0, y0 = -w / 2 + i * cw, foot + j * high
            kit.box("door", (x0 + gap, y0 + gap, d / 2 - EMBED), (x0 + cw - gap, y0 + high - gap, d / 2 + proud))
            size = kit.between(0.3, 0.5) * min(cw, high)
            side = 0.5 if drawers else (0.85 if i % 2 == 0 else 0.15)
            knob(kit, (x0 + side * cw, y0 + high / 2, d / 2 + proud - EMBED), size, not drawers)
    if foot:
        if kit.flip(0.6):
            legs(kit, w / 2 * 0.95, d / 2 * 0.95, foot, thickness=kit.between(0.03, 0.06))
        else:
            kit.box("base", (-w / 2 * 0.9, 0, -d / 2 * 0.9), (w / 2 * 0.9, foot + EMBED, d / 2 * 0.9))


def shelf(kit: Kit) -> None:
    w, h, d = kit.between(0.5, 1.6), kit.between(0.7, 2.1), kit.between(0.22, 0.5)
    t, number = kit.between(0.018, 0.05), kit.count(3, 6)
    low = kit.between(0.0, 0.15)
    levels = np.linspace(low, h - t, number)
    if number > 3 and kit.flip():
        levels[1:-1] += kit.rng.uniform(-0.25, 0.25, number - 2) * (h / number)
    style = kit.one_of("panels", "panels", "posts", "ladder")
    for y in levels:
        deep = d * (1 - 0.45 * y / h) if style == "ladder" else d
        kit.box("board", (-w / 2 + t / 2, y, -d / 2), (w / 2 - t / 2, y + t, -d / 2 + deep))
    for s in (-1, 1):
        x = s * (w / 2 - t / 2)
        if style == "panels":
            kit.box("panel", (x - t / 2, 0, -d / 2 - EMBED), (x + t / 2, h + EMBED, d / 2 + EMBED))
        else:
            r = t * kit.between(0.5, 0.9)
            front = -d / 2 + d * 0.55 if style == "ladder" else d / 2
            kit.beam("leg", (x, 0, -d / 2), (x, h + 2 * EMBED, -d / 2), 2 * r, 2 * r)
            kit.beam("leg", (x, 0, d / 2), (x, h + 2 * EMBED, front), 2 * r, 2 * r)
    if kit.flip(0.5):
        kit.box("panel", (-w / 2 + t / 2, max(low, 0.01), -d / 2 - 0.008), (w / 2 - t / 2, h - EMBED, -d / 2 + 0.008))
    if kit.flip(0.4) and style != "ladder":
        for i in range(number - 1):
            x = kit.between(-0.3, 0.3) * w
            kit.box(
                "board",
                (x - t / 2, levels[i] + EMBED, -d / 2 + EMBED),
                (x + t / 2, levels[i + 1] + EMBED, d / 2 - EMBED),
            )


def shade(kit: Kit, at: Sequence[float], radius: float, height: float, tilt: Array | None = None) -> None:
    """A thin hollow shade or a globe that hangs from ``at``, the end of the pole."""
    t, top, h = 0.05 * radius + 0.004, radius * kit.between(0.3, 0.95), height / 2
    tilt = np.eye(3) if tilt is None else tilt
    at = np.asarray(at) - tilt @ np.array([0, h - t, 0])
    if kit.flip(0.65):  # open cone or drum
        ring = [(radius - t, -h), (radius, -h), (top, h), (top - t, h)]
        kit.add("shade", Lathe(np.array(ring)), at, tilt)
        kit.add(
            "shade",
            Lathe(np.array([(0, -t), (top, -t), (top, t), (0, t)])),
            at + tilt @ np.array([0, h - t, 0]),
            tilt,
        )
    elif kit.flip():  # bell, closed above
        a = np.linspace(0, np.pi / 2, 6)
        outer = [(radius * np.cos(b), -h + height * np.sin(b)) for b in a[:-1]] + [(0.0, h)]
        inner = [((radius - t) * np.cos(b), -h + (height - t) * np.sin(b)) for b in a[:-1]] + [(0.0, h - t)]
        kit.add("shade", Lathe(np.array(outer + inner[::-1])), at, tilt)
    else:  # globe
        a = np.linspace(-np.pi / 2, np.pi / 2, 13)
        globe = [(max(radius * 0.9 * np.cos(b), 0.0), h * np.sin(b)) for b in a]
        globe[0], globe[-1] = (0.0, -h), (0.0, h)
        kit.add("shade", Lathe(np.array(globe)), at, tilt)


def lamp(kit: Kit) -> None:
    h, r = kit.between(0.4, 1.6), kit.between(0.01, 0.03)
    sr, sh = kit.between(0.12, 0.3), kit.between(0.14, 0.36)
    foot = kit.between(0.08, 0.2) * (0.6 + 0.5 * h)
    t = kit.between(0.02, 0.05)
    base = kit.one_of("disc", "dome", "slab", "tripod", "vase")
    start = t / 2
    if base == "disc":
        kit.turned("base", [(0, 0), (foot, 0), (foot, t), (0, t)])
    elif base == "dome":
        a = np.linspace(0, np.pi / 2, 7)
        kit.turned("base", [(0, 0), *[(foot * np.cos(b), 2 * t * np.sin(b)) for b in a[:-1]], (0, 2 * t)])
    elif base == "slab":
        kit.slab("base", rounded(2 * foot, 2 * foot * kit.between(0.7, 1.0), foot * 0.2), 0, t)
    elif base == "vase":
        tall = min(h * 0.6, 0.5)
        profile = [
            (foot * 0.5, 0),
            (foot * 0.9, tall * 0.25),
            (foot, tall * 0.5),
            (foot * 0.6, tall * 0.8),
            (foot * 0.3, tall),
        ]
        kit.turned("base", [(0, 0), *profile, (0, tall)])
        start = tall * 0.9
    else:
        join = h * kit.between(0.3, 0.7)
        for a in np.arange(3) * 2 * np.pi / 3 + kit.between(0, 2):
            kit.rod("base", (foot * 1.5 * np.cos(a), r, foot * 1.5 * np.sin(a)), (0, join, 0), r * 0.8, r)
        start = join - 2 * r
    kind = kit.one_of("straight", "straight", "arc", "jointed")
    if kind == "straight" or base == "tripod":
        kit.rod("pole", (0, start, 0), (0, h, 0), r)
        shade(kit, (0, h, 0), sr, sh)
        return
    reach, yaw = kit.between(0.2, 0.5) * h, kit.between(0, 2 * np.pi)
    if kind == "arc":
        a = np.linspace(np.pi, kit.between(0.1, 0.6) * np.pi, 10)
        bow = np.stack([reach / 2 * (1 + np.cos(a)), h - reach / 2 + reach / 2 * np.sin(a), 0 * a], 1)
        path = np.concatenate([[[0, min(start, h * 0.3), 0]], bow])
    else:
        path = np.array([[0, start, 0], [-reach * 0.4, h * 0.55, 0], [reach * 0.7, h * 0.95, 0]])
    path = path @ about_y(yaw).T
    kit.tube("pole", path, r)
    swing = about_y(yaw) @ np.array([[np.cos(0.5), -np.sin(0.5), 0], [np.sin(0.5), np.cos(0.5), 0], [0, 0, 1.0]])
    shade(kit, path[-1], sr * 0.8, sh * 0.8, swing)


def mug(kit: Kit) -> None:
    r, h = 0.4, kit.between(0.5, 1.3)
    t = r * kit.between(0.08, 0.2)
    low, middle = r * kit.between(0.6, 1.1), r * kit.between(0.85, 1.15)
    outer = [(low, 0.0), (middle, h * 0.45), (r, h)]
    inner = [(r - t, h), (middle - t, h * 0.45), (low - t, t)]
    kit.turned("body", [(0, 0), *outer, *inner, (0, t)])
    th = kit.between(0.03, 0.07)
    reach, low_y, high_y = kit.between(0.15, 0.4), h * kit.between(0.12, 0.3), h * kit.between(0.65, 0.9)
    count = 2 if kit.flip(0.2) else 1

    def wall(y: float) -> float:
        return float(np.interp(y, [0, h * 0.45, h], [low, middle, r])) - t * 0.5

    for i in range(count):
        if kit.flip(0.6):
            a = np.linspace(-np.pi / 2, np.pi / 2, 15)
            x = np.interp(a, [-np.pi / 2, np.pi / 2], [wall(low_y), wall(high_y)]) + reach * np.cos(a)
            path = np.stack([x, (low_y + high_y) / 2 + (high_y - low_y) / 2 * np.sin(a), 0 * a], 1)
        else:
            far = max(wall(low_y), wall(high_y)) + reach
            path = np.array([[wall(low_y), low_y, 0], [far, low_y, 0], [far, high_y, 0], [wall(high_y), high_y, 0]])
        kit.tube("handle", path @ about_y(i * np.pi).T, th)


BUILDERS: dict[str, Callable[[Kit], None]] = {
    "bed": bed, "bench": bench, "cabinet": cabinet, "chair": chair, "lamp": lamp,
    "mug": mug, "shelf": shelf, "sofa": sofa, "stool": stool, "table": table,
}  # fmt: skip
