"""Generated heads seen from four views, neutral or with expressions."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from adlbench.benchmark.api import ArraySplit, DataError, DataSchema, Dataset, Modality
from adlbench.datasets.generated import head, tabletop
from adlbench.datasets.generated.cache import Arrays, cached


@dataclass(frozen=True)
class Heads(Dataset):
    """Instances are subjects. Items are views: four cameras for every expression, on white.

    The test views have other cameras and, where there is more than one expression, other expressions.
    """

    subjects: int = 1
    train_expressions: int = 1  # the first is neutral
    test_expressions: int = 0  # 0: the neutral one
    image_size: int = 64  # pixels, square
    seed: int = 0

    def instances(self) -> tuple[str, ...]:
        return tuple(f"subject_{number}" for number in range(self.subjects))

    def prepare(self) -> None:
        for instance in self.instances():
            self._arrays(instance)

    def schema(self, instance: str = "subject_0") -> DataSchema:
        if instance not in self.instances():
            raise DataError(f"there is no instance {instance!r}; choose from {', '.join(self.instances())}")
        if self.train_expressions < 1 or self.image_size < 1:
            raise DataError("a head needs at least 1 training expression and 1 pixel")
        return DataSchema(
            modality=Modality.POSED_IMAGES,
            fields=("image", "intrinsics", "world_to_camera", "depth", "expression"),
            num_train=self.train_expressions * len(head.TRAIN_CAMERAS),
            num_test=max(1, self.test_expressions) * len(head.TEST_CAMERAS),
            channels=3,
            image_size=(self.image_size, self.image_size),
            background=(1.0, 1.0, 1.0),
            near=head.NEAR,
            far=head.FAR,
            scene_center=head.CENTRE,
            scene_radius=head.RADIUS,
        )

    def load(self, instance: str, split: str) -> ArraySplit:
        fields = self.schema(instance).fields
        arrays = self._arrays(instance)
        return ArraySplit(**{name: arrays[f"{split}_{name}"] for name in fields})

    def _arrays(self, instance: str) -> Arrays:
        number = self.instances().index(instance)
        parameters = {**asdict(self), "subject": number}
        del parameters["subjects"]  # how many there are does not change one

        def make() -> Arrays:
            subject = 1000 * self.seed + number
            train = head.expressions(subject, self.train_expressions, "train")
            test = head.expressions(subject, self.test_expressions, "test") if self.test_expressions else train[:1]
            splits = {
                "train": head.photograph(subject, train, head.TRAIN_CAMERAS, self.image_size),
                "test": head.photograph(subject, test, head.TEST_CAMERAS, self.image_size),
            }
            return {f"{split}_{name}": value for split, fields in splits.items() for name, value in fields.items()}

        return cached("head", 1000 * tabletop.VERSION + head.VERSION, parameters, make)
