"""SemanticKITTI (Behley et al. 2019): scans of a rotating laser on a car, 19 classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adlbench.benchmark.api import DataError, DataSchema, Dataset, Modality, data_root
from adlbench.datasets.files import FileSplit
from adlbench.datasets.formats.semantickitti import CLASSES, TRAIN, VALIDATION, read_scan
from adlbench.datasets.points import draw, y_up


@dataclass
class SemanticKITTI(Dataset):
    """Items are single scans: ``num_points`` of the labelled returns, in metres from the sensor, y up.

    Sequence 08 is scored, as the labels of 11 to 21 are not public. Returns that are not scored are left out, which shows a
    method less than the benchmark does.
    """

    folder: str = "semantickitti"
    num_points: int = 32768
    train: tuple[str, ...] = TRAIN
    test: tuple[str, ...] = VALIDATION
    every: int = 1  # take every so many scans of a sequence

    def missing(self) -> str | None:
        absent = [split for split in ("train", "test") if not self._scans(split)]
        if not absent:
            return None
        wanted = ", ".join(self.train if absent == ["train"] else self.test)
        return f"put velodyne/*.bin and labels/*.label of the sequences ({wanted}) into {self._root}/<sequence>/"

    def schema(self, instance: str = "all") -> DataSchema:
        return DataSchema(
            modality=Modality.POINTS,
            fields=("points", "remission", "point_label"),
            num_train=len(self._scans("train")),
            num_test=len(self._scans("test")),
            parts=CLASSES,
            num_points=self.num_points,
        )

    def load(self, instance: str, split: str) -> FileSplit:
        missing = self.missing()
        if missing:
            raise DataError(missing)
        scans = self._scans(split)
        files = [path for scan in scans for path in (scan, self._labels(scan))]
        return FileSplit(len(scans), lambda index: self._item(scans[index]), files, self._root, f"{self.num_points}")

    def sources(self) -> tuple[Path, ...]:
        scans = (scan for split in ("train", "test") for scan in self._scans(split))
        return tuple(path for scan in scans for path in (scan, self._labels(scan)))

    @property
    def _root(self) -> Path:
        return data_root() / self.folder / "dataset" / "sequences"

    def _labels(self, scan: Path) -> Path:
        return scan.parent.parent / "labels" / f"{scan.stem}.label"

    def _scans(self, split: str) -> list[Path]:
        sequences = self.train if split == "train" else self.test
        return [
            scan for name in sequences for scan in sorted((self._root / name / "velodyne").glob("*.bin"))[:: self.every]
        ]

    def _item(self, path: Path) -> dict[str, np.ndarray]:
        scan = read_scan(path, self._labels(path))
        scored = np.flatnonzero(scan.labels >= 0)
        if not len(scored):
            raise DataError(f"{self._labels(path)} has no point that is scored; leave this scan out")
        rows = scored[draw(len(scored), self.num_points, f"{path.parts[-3]}/{path.stem}")]
        return {
            "points": np.ascontiguousarray(y_up(scan.points[rows])),
            "remission": scan.remission[rows],
            "point_label": scan.labels[rows],
        }
