"""What ``adlbench data prepare`` and ``verify`` do with one dataset."""

from __future__ import annotations

from dataclasses import dataclass, field

from adlbench.benchmark.api import ArraySplit, DataError, Dataset, Split, data_root, file_sha256
from adlbench.benchmark.cell import check_split
from adlbench.benchmark.prepare.download import Progress, download
from adlbench.benchmark.prepare.manifest import Manifest
from adlbench.benchmark.prepare.unpack import unpack
from adlbench.benchmark.specs import DatasetSpec

CHECKED_AT_ONCE = 64  # items of a split that is decoded on demand


@dataclass
class Verified:
    instances: dict[str, dict[str, object]] = field(default_factory=dict)  # name -> train, test, fingerprint
    notes: list[str] = field(default_factory=list)


def prepare(
    spec: DatasetSpec, dataset: Dataset, progress: Progress = lambda *args: None, renew: bool = False
) -> list[str]:
    """Download what is missing, convert, and note the sha256 of every source file. Returns remarks.

    Safe to call again: source files are then compared with the notes, and DataError names those that have changed,
    unless ``renew`` says that they were changed on purpose.
    """
    if dataset.missing() is not None:
        for item in spec.downloads:
            target = data_root() / item.path
            if item.unpack and item.gives and (data_root() / item.gives).exists():
                continue
            if not item.unpack and target.exists():  # the user's own copy; whether it is the published one is a remark
                continue
            download(item.url, target, item.sha256, item.size, progress)
            if item.unpack:
                unpack(target, data_root() / item.unpack)
    missing = dataset.missing()
    if missing is not None:
        raise DataError(f"{missing}. {spec.how_to_get}".rstrip(". "))
    dataset.prepare()
    manifest, sources = Manifest(spec.name), dataset.sources()
    if renew:
        manifest.notes = {}
    elif manifest.notes:
        _raise_if_damaged(spec, manifest, dataset)
    if sources:
        manifest.write(sources)
    return remarks(spec)


def remarks(spec: DatasetSpec) -> list[str]:
    """Which files are there, but are not those that were published."""
    return [
        f"{item.path} is not, byte for byte, the file that was published (another sha256)"
        for item in spec.downloads
        if not item.unpack and (data_root() / item.path).is_file()
        if file_sha256(data_root() / item.path) != item.sha256
    ]


def verify(spec: DatasetSpec, dataset: Dataset) -> Verified:
    """Compare every source file with its note, load both splits and compare them with the schema. Raises DataError."""
    manifest = Manifest(spec.name)
    result = Verified(notes=remarks(spec))
    if manifest.notes:
        _raise_if_damaged(spec, manifest, dataset)
    elif dataset.sources():
        result.notes.append(f"no sha256 is noted yet: `adlbench data prepare {spec.name}` notes those of today")
    for instance in dataset.instances():
        result.instances[instance] = _verify_instance(dataset, instance, manifest)
    return result


def _raise_if_damaged(spec: DatasetSpec, manifest: Manifest, dataset: Dataset) -> None:
    problems = manifest.damaged(dataset.sources())
    if problems:
        more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
        raise DataError(
            f"{'; '.join(problems[:5])}{more}. Restore the files, or, if they were changed on purpose, "
            f"`adlbench data prepare {spec.name} --renew`"
        )


def _verify_instance(dataset: Dataset, instance: str, manifest: Manifest) -> dict[str, object]:
    schema = dataset.schema(instance)
    splits: dict[str, Split] = {split: dataset.load(instance, split) for split in ("train", "test")}
    for name, items in splits.items():
        check_split(items, f"{instance}, {name} split")
        promised = schema.num_train if name == "train" else schema.num_test
        if len(items) != promised:
            raise DataError(f"{instance}: the {name} split has {len(items)} items and its schema says {promised}")
        absent = set(schema.fields) - set(items.batch([0]))
        if absent:
            raise DataError(f"{instance}: the {name} split lacks {', '.join(sorted(absent))}, which its schema names")
        if not isinstance(items, ArraySplit):
            for start in range(0, len(items), CHECKED_AT_ONCE):  # every file must decode
                items.batch(range(start, min(start + CHECKED_AT_ONCE, len(items))))
    return {
        "train": len(splits["train"]),
        "test": len(splits["test"]),
        "fingerprint": dataset.fingerprint(instance, splits, manifest.digest),
    }
