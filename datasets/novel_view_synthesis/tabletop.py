"""The generated tabletop as a dataset: posed pictures with exact depth. What is on the table: datasets/generated."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from adlbench.benchmark.api import ArraySplit, DataError, DataSchema, Dataset, Modality
from adlbench.datasets.generated import tabletop, tabletop_variants
from adlbench.datasets.generated.cache import Arrays, cached


@dataclass(frozen=True)
class Tabletop(Dataset):
    """One ray-traced scene. Items are views on white; ``depth`` is the ground truth of both splits."""

    seed: int = 0  # of layout, colours, textures, lamp and cameras
    image_size: int = 64  # pixels, square
    num_train: int = 60
    num_test: int = 12

    def prepare(self) -> None:
        self._arrays()

    def schema(self, instance: str = "all") -> DataSchema:
        if self.num_train < 2 or self.num_test < 1 or self.image_size < 1:
            raise DataError(
                f"tabletop with {self.num_train} training and {self.num_test} test views of {self.image_size} pixels "
                "cannot be made; it needs at least 2 training views, 1 test view and 1 pixel"
            )
        return DataSchema(
            modality=Modality.POSED_IMAGES,
            fields=("image", "intrinsics", "world_to_camera", "depth"),
            num_train=self.num_train,
            num_test=self.num_test,
            channels=3,
            image_size=(self.image_size, self.image_size),
            background=(1.0, 1.0, 1.0),
            near=tabletop.NEAR,
            far=tabletop.FAR,
            scene_center=tabletop.CENTRE,
            scene_radius=tabletop.RADIUS,
        )

    def load(self, instance: str, split: str) -> ArraySplit:
        arrays = self._arrays()
        fields = self.schema(instance).fields
        return ArraySplit(**{name: arrays[f"{split}_{name}"] for name in fields})

    def _arrays(self) -> Arrays:
        self.schema()
        return cached("tabletop", tabletop.VERSION, asdict(self), self._generate)

    def _generate(self) -> Arrays:
        train, test = tabletop.generate(self.seed, self.image_size, self.num_train, self.num_test)
        splits = {"train": vars(train), "test": vars(test)}
        return {f"{split}_{name}": value for split, views in splits.items() for name, value in views.items()}


@dataclass(frozen=True)
class TabletopLit(Tabletop):
    """Every view under one of ``lights`` lights; ``appearance`` says which. Test views use the lights of training views."""

    lights: int = 6

    def schema(self, instance: str = "all") -> DataSchema:
        schema = super().schema(instance)
        return replace(schema, fields=(*schema.fields, "appearance"))

    def _arrays(self) -> Arrays:
        def make() -> Arrays:
            return _named(tabletop_variants.lit(self.seed, self.image_size, self.num_train, self.num_test, self.lights))

        return cached("tabletop-lit", VARIANT_VERSION, asdict(self), make)


@dataclass(frozen=True)
class TabletopMoving(Tabletop):
    """Every view at another ``time`` in [0, 1], in which four of the objects move."""

    def schema(self, instance: str = "all") -> DataSchema:
        schema = super().schema(instance)
        return replace(schema, fields=(*schema.fields, "time"))

    def _arrays(self) -> Arrays:
        def make() -> Arrays:
            return _named(tabletop_variants.moving(self.seed, self.image_size, self.num_train, self.num_test))

        return cached("tabletop-moving", VARIANT_VERSION, asdict(self), make)


VARIANT_VERSION = 1000 * tabletop.VERSION + tabletop_variants.VERSION


def _named(splits: tuple[tabletop_variants.Fields, tabletop_variants.Fields]) -> Arrays:
    return {
        f"{split}_{name}": value for split, fields in zip(("train", "test"), splits) for name, value in fields.items()
    }
