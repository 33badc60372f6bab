"""Pictures of classifications, for people: the confusion matrix, and items with what they were taken for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Picture = NDArray[np.uint8]  # [H, W, 3]

RIGHT, WRONG = (0, 110, 60), (190, 30, 30)
CAPTION = 14  # pixels above each item


def enlarge(picture: Picture, side: int) -> Picture:
    """At least ``side`` pixels, by whole factors so that pixels stay squares; larger pictures are scaled down."""
    height, width = picture.shape[:2]
    factor = side // max(height, width)
    if factor >= 1:
        return picture.repeat(factor, 0).repeat(factor, 1)
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))


def labelled_items(
    pictures: Sequence[Picture], truth: Sequence[str], predicted: Sequence[str], columns: int = 6, side: int = 96
) -> Picture:
    """A grid of items. Above each stands its class, or in red "true > predicted"."""
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * side, rows * (side + CAPTION)), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (picture, true, guess) in enumerate(zip(pictures, truth, predicted, strict=True)):
        x, y = index % columns * side, index // columns * (side + CAPTION)
        caption = true if true == guess else f"{true} > {guess}"
        while draw.textlength(caption) > side - 4:  # keep both ends of what is too long
            caption = f"{caption[:-3]}…" if not caption.endswith("…") else f"{caption[:-2]}…"
        draw.text((x + 2, y + 1), caption, fill=RIGHT if true == guess else WRONG)
        shown = enlarge(picture, side - 2)
        sheet.paste(Image.fromarray(shown), (x + (side - shown.shape[1]) // 2, y + CAPTION))
    return np.asarray(sheet)


def confusion_picture(counts: NDArray[np.int64], classes: Sequence[str]) -> Picture:
    """Rows are true classes, columns predicted ones; a cell is as dark as its share of its row, and tells the count."""
    number = len(classes)
    cell = 28 if number <= 20 else max(4, 560 // number)
    names = cell >= 10
    probe = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    margin = 8 + int(max(probe.textlength(name) for name in classes)) if names else 4
    sheet = Image.new("RGB", (margin + number * cell, margin + number * cell), "white")
    draw = ImageDraw.Draw(sheet)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    for row in range(number):
        for column in range(number):
            colour = (0, 90, 160) if row == column else (200, 40, 40)
            fade = share[row, column] ** 0.5  # so that rare confusions can be seen
            fill = tuple(round(255 - fade * (255 - c)) for c in colour)
            x, y = margin + column * cell, margin + row * cell
            draw.rectangle((x, y, x + cell - 2, y + cell - 2), fill=fill)
            if cell >= 28 and counts[row, column]:
                ink = "white" if fade > 0.6 else "black"
                draw.text((x + cell / 2, y + cell / 2), str(counts[row, column]), fill=ink, anchor="mm")
    if names:
        for index, name in enumerate(classes):
            middle = margin + (index + 0.5) * cell
            draw.text((margin - 4, middle), name, fill="black", anchor="rm")
            label = Image.new("RGB", (margin, CAPTION), "white")
            ImageDraw.Draw(label).text((2, 1), name, fill="black")
            sheet.paste(label.rotate(90, expand=True), (int(middle) - CAPTION // 2, 0))
    return np.asarray(sheet)
