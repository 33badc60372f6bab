"""Pictures of generated rooms with three sentences about each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adlbench.benchmark.api import ArraySplit, DataError, DataSchema, Modality
from adlbench.datasets.detection.room_objects import RoomObjects
from adlbench.datasets.generated.rooms import FURNITURE, KINDS
from adlbench.datasets.generated.rooms_sets import layout_set

LENGTH = 120  # bytes of a sentence, at most
NUMBERS = ("no", "a", "two", "three", "four", "five", "six")


@dataclass
class RoomCaptions(RoomObjects):
    """What is there, what is largest, and what is left of what: every sentence is true of its picture."""

    def schema(self, instance: str = "all") -> DataSchema:
        schema = super().schema(instance)
        return DataSchema(
            modality=Modality.IMAGE,
            fields=("image", "captions"),
            num_train=schema.num_train,
            num_test=schema.num_test,
            channels=3,
            image_size=schema.image_size,
        )

    def load(self, instance: str, split: str) -> ArraySplit:
        items = super().load(instance, split).fields
        count = len(items["image"]) // self.views
        kinds = layout_set(split, count, 1, self.seed)["label"]
        captions = np.zeros((len(items["image"]), 3, LENGTH), dtype=np.uint8)
        for row, (boxes, label) in enumerate(zip(items["boxes"].numpy(), items["box_label"].numpy())):
            for place, text in enumerate(sentences(list(KINDS)[kinds[row // self.views]], boxes, label)):
                content = text.encode()
                if len(content) > LENGTH:
                    raise DataError(f"the sentence {text!r} is longer than {LENGTH} bytes; lower `most`")
                captions[row, place, : len(content)] = np.frombuffer(content, dtype=np.uint8)
        return ArraySplit(image=items["image"], captions=captions)


def sentences(kind: str, boxes: np.ndarray, label: np.ndarray) -> tuple[str, str, str]:
    """About one picture, given its boxes [M, 4], the largest first, and their labels [M]."""
    names = [FURNITURE[i].replace("_", " ") for i in label if i >= 0]
    room = kind.replace("_", " ")
    if not names:
        return f"an empty corner of a {room}", f"a {room} without furniture in sight", f"walls of a {room}"
    counts = {name: names.count(name) for name in dict.fromkeys(names)}
    listed = [_several(name, number) for name, number in list(counts.items())[:4]]
    there = listed[0] if len(listed) == 1 else f"{', '.join(listed[:-1])} and {listed[-1]}"
    centre = (boxes[: len(names), 0] + boxes[: len(names), 2]) / 2
    left, right = names[int(centre.argmin())], names[int(centre.argmax())]
    beside = f"a {left} is left of a {right}" if left != right else f"there is a {left} in the {room}"
    return f"a {room} with {there}", f"the largest thing in this {room} is a {names[0]}", beside


def _several(name: str, number: int) -> str:
    plural = "shelves" if name == "shelf" else f"{name}es" if name.endswith("ch") else f"{name}s"
    return f"a {name}" if number == 1 else f"{NUMBERS[min(number, len(NUMBERS) - 1)]} {plural}"
