"""ShapeNetCore, versions 1 and 2 (Chang et al. 2015), with whichever of the published splits lies beside it."""

from __future__ import annotations

from dataclasses import dataclass

from adlbench.benchmark.api import DataError
from adlbench.datasets.formats.shapenet import Shape, model_path, read_split_csv, read_split_json, read_split_lists
from adlbench.datasets.meshes.mesh_set import Entry, MeshSet

# The thirteen categories of Choy et al. 2016, on which most papers report, first.
CATEGORIES = {
    **{"02691156": "airplane", "02828884": "bench", "02933112": "cabinet", "02958343": "car", "03001627": "chair"},
    **{"03211117": "display", "03636649": "lamp", "03691459": "loudspeaker", "04090263": "rifle", "04256520": "sofa"},
    **{"04379243": "table", "04401088": "telephone", "04530566": "watercraft"},
}


@dataclass
class ShapeNet(MeshSet):
    """``split`` is all.csv (SHREC 2016), "lists" (train.lst and test.lst in each category's folder) or a pair of json files.

    Models of other categories than ``categories``, and those in a list whose file is absent, are left out. A json pair is written
    with a blank between: ``sv2_chairs_train.json sv2_chairs_test.json``.
    """

    folder: str = "ShapeNetCore.v2"
    split: str = "all.csv"
    categories: dict[str, str] | None = None  # synset -> name; none: the thirteen

    def missing(self) -> str | None:
        names = self.split.split()
        absent = [name for name in names if name != "lists" and not (self.root / name).is_file()]
        if absent or not any(path.is_dir() for path in self.root.glob("0*")):
            wanted = ", ".join(absent) or "its categories' folders"
            return f"put ShapeNetCore into {self.root} (02691156/<model>/models/model_normalized.obj, ...); {wanted} absent"
        return None

    def classes(self) -> tuple[str, ...]:
        return tuple((self.categories or CATEGORIES).values())

    def entries(self, split: str) -> list[Entry]:
        missing = self.missing()
        if missing:
            raise DataError(missing)
        synsets = tuple(self.categories or CATEGORIES)
        source = self.root / self.split.split()[0]
        shapes = [(shape, model_path(self.root, shape, source)) for shape in self._listed(split) if shape[0] in synsets]
        found = [(path, synsets.index(shape[0])) for shape, path in sorted(shapes) if path.is_file()]
        if not found:
            raise DataError(
                f"{self.root} has none of the {len(shapes)} models of the {split} split {self.split}; put them there"
            )
        return found

    def _listed(self, split: str) -> list[Shape]:
        if self.split == "lists":
            return read_split_lists(self.root)[split]
        if self.split.endswith(".csv"):
            return read_split_csv(self.root / self.split)[split]
        train, test = (self.root / name for name in self.split.split())
        return read_split_json(train if split == "train" else test)
