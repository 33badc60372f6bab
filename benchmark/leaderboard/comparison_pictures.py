"""The test items in which two methods differ most, side by side: truth, mine, other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from adlbench.benchmark.api import Split
from adlbench.benchmark.config import build_dataset
from adlbench.benchmark.leaderboard.comparison import Duel
from adlbench.benchmark.plan import CellSpec
from adlbench.benchmark.records import read_arrays
from adlbench.benchmark.tasks.class_pictures import enlarge
from adlbench.benchmark.tasks.point_pictures import draw_points, palette
from adlbench.benchmark.tasks.view_pictures import Picture

SIDE = 160
CAPTION = 16
GAP = 4


def draw_duel(duel: Duel, count: int = 6) -> Picture | None:
    """``count`` rows uint8 [H, W, 3], the item with the greatest difference first; None where nothing can be drawn.

    Reads both cells' stored predictions and the test split of their dataset, which must be here.
    """
    if duel.folders is None or not duel.widest:
        return None
    stored = [folder / "predictions.npz" for folder in duel.folders]
    if not all(path.exists() for path in stored):
        return None
    mine, other = (read_arrays(path) for path in stored)
    cell = CellSpec.from_json((duel.folders[0] / "cell.json").read_text(encoding="utf-8"))
    dataset = build_dataset(cell.dataset)
    if dataset.missing() is not None:
        return None
    test, schema = dataset.load(cell.instance, "test"), dataset.schema(cell.instance)
    rows = []
    for index in duel.widest[:count]:
        panels = _panels(test, index, (mine, other), schema.classes, len(schema.parts))
        if panels is None:
            return None
        rows.append(_row(panels, [f"item {index}: truth", duel.mine, duel.other]))
    return np.concatenate(rows)


def _panels(
    test: Split, index: int, predictions: Sequence[dict[str, np.ndarray]], classes: Sequence[str], num_parts: int
) -> list[tuple[Picture, str]] | None:
    """Truth and both predictions, each with a word for its caption."""
    item = {name: value[0].numpy() for name, value in test.batch([index]).items()}
    if all("image" in each for each in predictions) and "image" in item:
        return [(_rgb(picture), "") for picture in (item["image"], *(each["image"][index] for each in predictions))]
    if all("point_label" in each for each in predictions):
        colours = palette(num_parts)
        labels = [item["point_label"], *(each["point_label"][index] for each in predictions)]
        return [(draw_points(item["points"], colours[label], SIDE), "") for label in labels]
    if all("label" in each for each in predictions):
        names = [classes[int(label)] for label in (item["label"], *(each["label"][index] for each in predictions))]
        if "image" in item:
            picture = _rgb(item["image"])
        else:
            picture = draw_points(item["points"], np.tile(palette(1), (len(item["points"]), 1)), SIDE)
        return [(picture, name) for name in names]
    return None


def _rgb(image: np.ndarray) -> Picture:
    """uint8 [H, W, 3] from that, or from [C, H, W]."""
    if image.shape[-1] != 3 or image.shape[0] in (1, 3):
        image = image.transpose(1, 2, 0)
    return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))


def _row(panels: Sequence[tuple[Picture, str]], titles: Sequence[str]) -> Picture:
    drawn = [(enlarge(picture, SIDE), f"{title} {word}".rstrip()) for (picture, word), title in zip(panels, titles)]
    height = max(picture.shape[0] for picture, _ in drawn)
    sheet = Image.new(
        "RGB", (sum(picture.shape[1] + GAP for picture, _ in drawn) - GAP, height + CAPTION + GAP), "white"
    )
    draw, x = ImageDraw.Draw(sheet), 0
    for picture, caption in drawn:
        sheet.paste(Image.fromarray(picture), (x, CAPTION))
        draw.text((x + 2, 2), caption, fill="black")
        x += picture.shape[1] + GAP
    return np.asarray(sheet)


def write_pictures(duels: Sequence[Duel], folder: Path, count: int = 6) -> list[Path]:
    """A PNG for each duel that can be drawn, and ``duels.json`` beside them. Returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for duel in duels:
        picture = draw_duel(duel, count)
        if picture is not None:
            name = f"{duel.task}-{duel.dataset}-{duel.instance}-{duel.fidelity}-{duel.mine}-{duel.other}.png"
            written.append(folder / name)
            Image.fromarray(picture).save(written[-1])
    report = folder / "duels.json"
    report.write_text(json.dumps([duel.to_dict() for duel in duels], indent=1) + "\n", encoding="utf-8")
    return [*written, report]
