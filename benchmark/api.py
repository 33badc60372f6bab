"""The contract between the engine, the methods and the datasets.

Everything a method or a dataset may know of the engine is in this file; everything the engine may ask of them is too.
Authors write ``from adlbench import Method, Context, ...``.

A batch is a mapping from a field's name to a tensor with a leading batch dimension. The names mean the same everywhere:

==================  =============================  =====================================================================
field               one item                       meaning
==================  =============================  =====================================================================
``image``           uint8 [C, H, W]                an image; in posed images [H, W, 3], composited on ``schema.background``
``label``           int64 []                       index into ``schema.classes``
``target_image``    uint8 [C, H, W]                what ``image`` is to be translated to
``mask``            uint8 [H, W]                   class of each pixel, index into ``schema.classes``; 255 is unlabelled
``instance``        int32 [H, W]                   object of each pixel, counted from 1 within the image; 0 is none
``boxes``           float32 [M, 4]                 left, top, right, bottom in pixels of ``image``; 0 where there is none
``box_label``       int64 [M]                      index into ``schema.classes``; -1 where there is no box
``box_crowd``       bool [M]                       a group in one box: neither to be found nor wrong when found (COCO)
``box_mask``        bool [M, H, W]                 the pixels of the object in the box
``attributes``      bool [A]                       which of ``schema.attributes`` the item has
``tokens``          int64 [T + 1]                  indices into ``schema.vocabulary``; the last is the next item's first
``captions``        uint8 [K, B]                   K sentences about ``image``, UTF-8, filled up with 0
``points``          float32 [P, 3]                 a point cloud
``normals``         float32 [P, 3]                 unit normals of ``points``
``point_label``     int64 [P]                      index into ``schema.parts``
``point_instance``  int64 [P]                      object of each point, counted from 0 within the scene
``intrinsics``      float32 [3, 3]                 pixel units, pixel centres at +0.5
``world_to_camera`` float32 [4, 4]                 OpenCV: x right, y down, z forward
``depth``           float32 [H, W]                 z-depth of the first surface, 0 where there is none
``appearance``      int64 []                       which light a view was taken under: the same number, the same light
``expression``      float32 [E]                    what moves a face, each in [0, 1]; 0 is neutral
``occupancy``       bool [R, R, R]                 voxels of [-1, 1]^3, indexed x, y, z, whose centres lie inside
``sdf_grid``        float32 [R, R, R]              signed distance at the centres of the same voxels, negative inside
``ternary``         uint8 [R, R, R]                the same voxels as one view tells them: 0 free, 1 surface, 2 unknown
``coords``          float32 [D]                    a position in [-1, 1]^D (D = 2: x right, y down; pixel centres)
``value``           float32 [C]                    the signal at ``coords``, in [0, 1]
``sdf_points``      float32 [S, 3]                 positions around a shape, shape inside the unit sphere
``sdf``             float32 [S]                    signed distance at ``sdf_points``, negative inside
``surface_points``  float32 [Q, 3]                 uniform samples of the surface
``surface_normals`` float32 [Q, 3]                 outward unit normals there
``colours``         float32 [P, 3]                 of ``points``, in [0, 1]
``remission``       float32 [P]                    of ``points``: how much of a laser's light came back, in [0, 1]
``time``            float32 []                     when a view of a moving scene was taken, in [0, 1]
``vertices``        float32 [V, 3]                 of a mesh; in a batch filled up to the largest with zeros
``faces``           int64 [F, 3]                   indices of ``vertices``; filled up with -1
``furniture``       float32 [M, 7]                 centre, size (metres, y up), angle about y (radians); filled up with zeros
``furniture_label`` int64 [M]                      index into ``schema.classes``; filled up with -1
==================  =============================  =====================================================================
"""

from __future__ import annotations

import hashlib
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from adlbench.benchmark.errors import AdlbenchError, DataError  # noqa: F401 - part of the contract

Batch = Mapping[str, Tensor]


class TaskKind(StrEnum):
    CLASSIFICATION = "classification"
    SEGMENTATION = "segmentation"
    NOVEL_VIEW_SYNTHESIS = "novel_view_synthesis"
    GENERATION = "generation"
    RECONSTRUCTION = "reconstruction"


class Modality(StrEnum):
    IMAGE = "image"
    POINTS = "points"
    POSED_IMAGES = "posed_images"  # one scene: the items are its views
    FIELD = "field"  # one signal: the items are its samples
    TEXT = "text"  # one text: the items are its windows, in order
    VOXELS = "voxels"
    SHAPE = "shape"  # items are shapes, each with samples of its signed distance
    MESH = "mesh"
    SCENE_COLLECTION = (
        "scene_collection"  # items are scenes: the fields of posed images with a dimension of views, [V, ...]
    )
    LAYOUT = "layout"  # items are furnished rooms


# ---------------------------------------------------------------------------------------------------------------- data
@dataclass(frozen=True)
class DataSchema:
    """What a method may know of a dataset instance before it sees an item. Fields that do not apply are left out."""

    modality: Modality
    fields: tuple[str, ...]  # of one item, named as in the table above
    num_train: int
    num_test: int
    classes: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    vocabulary: tuple[str, ...] = ()  # of ``tokens``
    channels: int = 0
    image_size: tuple[int, int] = (0, 0)  # (height, width)
    num_points: int = 0
    background: tuple[float, float, float] = (0.0, 0.0, 0.0)  # linear in the stored image's space, [0, 1]
    near: float = 0.0  # along the viewing direction, world units
    far: float = 0.0
    scene_center: tuple[float, float, float] = (0.0, 0.0, 0.0)  # world units
    scene_radius: float = 0.0  # a sphere around ``scene_center`` that holds what is to be reconstructed


class Split(ABC):
    """Random access to the items of one split. Items never change; augmentation is the method's business."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def batch(self, indices: Sequence[int] | np.ndarray) -> dict[str, Tensor]:
        """The items at ``indices``, stacked, on the CPU."""

    def all(self) -> dict[str, Tensor]:
        """Every item, to be read and not written: the memory may be the split's own."""
        return self.batch(np.arange(len(self)))

    def feed(self, digest: hashlib._Hash, name: str, file_digest: Callable[[Path], str]) -> None:
        """Feed ``digest`` with all that the items depend on. A split that decodes files on demand feeds their digests."""
        for field, value in sorted(self.all().items()):
            digest.update(f"{name}/{field} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(np.ascontiguousarray(value.numpy()).data)


class ArraySplit(Split):
    """A split that lies in memory or in mapped files: every field a tensor (or array) with the items along its first
    dimension, taken without a copy. Of ``np.load``'s modes use "c" for files: a write to memory mapped "r" ends the process.
    """

    def __init__(self, **fields: Tensor | np.ndarray):
        with warnings.catch_warnings():  # items are read only, as read-only arrays are
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            self.fields = {name: torch.as_tensor(value) for name, value in fields.items()}
        lengths = {name: len(value) for name, value in self.fields.items()}
        if len(set(lengths.values())) != 1:
            raise DataError(f"the fields of a split differ in length: {lengths}; give every field one entry per item")
        self._length = next(iter(lengths.values()))

    def __len__(self) -> int:
        return self._length

    def batch(self, indices: Sequence[int] | np.ndarray) -> dict[str, Tensor]:
        index = torch.as_tensor(np.asarray(indices, dtype=np.int64))
        return {name: value[index] for name, value in self.fields.items()}

    def all(self) -> dict[str, Tensor]:
        return dict(self.fields)


class AbsentSplit(Split):
    """Stands for the training items when a method is restored for evaluation only: it has a length and no items."""

    def __init__(self, length: int):
        self._length = length

    def __len__(self) -> int:
        return self._length

    def batch(self, indices: Sequence[int] | np.ndarray) -> dict[str, Tensor]:
        raise DataError(
            "training items were read while a method was restored without data; "
            "read them in step(), or in setup() under `if data.present`"
        )


@dataclass(frozen=True)
class TrainingData:
    """All that a method is given: the schema and the training items. Test items only ever reach its predictor."""

    schema: DataSchema
    train: Split
    fingerprint: str = ""  # sha256 of the prepared arrays

    @property
    def present(self) -> bool:
        return not isinstance(self.train, AbsentSplit)


class Dataset(ABC):
    """One dataset. A subclass is a dataclass whose fields are the ``parameters`` of its YAML.

    ``load`` returns arrays ready for training; conversion and download belong in ``prepare``, which is never timed.
    """

    def instances(self) -> tuple[str, ...]:
        """What is trained on separately: the scenes, the photographs, the classes; by default the whole set is one."""
        return ("all",)

    def missing(self) -> str | None:
        """One line that says which files to put where (relative to the data root), or None when everything is there."""
        return None

    def prepare(self) -> None:  # noqa: B027 - most datasets need nothing
        """Download, verify and convert. Safe to call again; raises DataError with the remedy."""

    @abstractmethod
    def schema(self, instance: str = "all") -> DataSchema: ...

    @abstractmethod
    def load(self, instance: str, split: str) -> Split:
        """The items of ``split`` ("train" or "test"). Official splits, never re-drawn."""

    def sources(self) -> tuple[Path, ...]:
        """The files below the data root that ``load`` reads. Their sha256 are noted by ``adlbench data prepare``."""
        return ()

    def fingerprint(
        self,
        instance: str = "all",
        splits: Mapping[str, Split] | None = None,
        file_digest: Callable[[Path], str] | None = None,
    ) -> str:
        """sha256 over names, types, shapes and bytes of both splits, which are loaded unless they are given."""
        digest = hashlib.sha256()
        for split in ("train", "test"):
            items = splits[split] if splits is not None else self.load(instance, split)
            items.feed(digest, split, file_digest or file_sha256)
        return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """Raises DataError when the file cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); put it there again") from None


def data_root() -> Path:
    """``$ADLBENCH_DATA``, else a folder in the user's cache. Datasets look for their published layout below it."""
    return Path(os.environ.get("ADLBENCH_DATA") or data_cache())


def data_cache() -> Path:
    """Where generated and converted data is kept; always writable, unlike a shared ``$ADLBENCH_DATA``."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "adlbench"


@dataclass(frozen=True)
class Cameras:
    """N pinhole cameras of one image size. OpenCV axes (x right, y down, z forward), pixel centres at +0.5."""

    world_to_camera: Tensor  # [N, 4, 4], world units
    intrinsics: Tensor  # [N, 3, 3], pixels
    width: int
    height: int

    def __len__(self) -> int:
        return len(self.world_to_camera)

    def __getitem__(self, index: slice) -> Cameras:
        return Cameras(self.world_to_camera[index], self.intrinsics[index], self.width, self.height)

    def to(self, device: torch.device | str) -> Cameras:
        return Cameras(self.world_to_camera.to(device), self.intrinsics.to(device), self.width, self.height)


@dataclass(frozen=True)
class Rendering:
    """What a predictor renders for N cameras."""

    rgb: Tensor  # [N, H, W, 3] in [0, 1], composited on schema.background
    depth: Tensor  # [N, H, W] expected z-depth, world units
    opacity: Tensor  # [N, H, W] in [0, 1]
    extras: Mapping[str, Tensor] | None = None  # e.g. depth_variance [N, H, W]


# ---------------------------------------------------------------------------------------------------------- predictors
# A predictor is a frozen view of a method: EMA weights, eval mode. It offers one or more of these, and evaluation calls
# nothing else. Tensors arrive on and leave from the context's device. Everything but `adapt` is called under no_grad, and
# every call is a function of its arguments: the same call twice gives the same numbers.
@runtime_checkable
class PredictsLogits(Protocol):
    def logits(self, inputs: Batch) -> Tensor:
        """Unnormalised log-probabilities: [B, K] for an item's class, [B, P, K] for a label per point."""


@runtime_checkable
class Renders(Protocol):
    def render(self, cameras: Cameras) -> Rendering: ...


@runtime_checkable
class Samples(Protocol):
    def sample(self, n: int, seed: int) -> Tensor:
        """``n`` new images [n, C, H, W] in [0, 1]."""


@runtime_checkable
class ScoresLikelihood(Protocol):
    def log_likelihood(self, inputs: Batch) -> Tensor:
        """[B] nats; for a bound, the bound. ``inputs["image"]`` is what the protocol says (e.g. binarised to 0/255)."""


@runtime_checkable
class Reconstructs(Protocol):
    def reconstruct(self, inputs: Batch) -> Tensor:
        """The inputs as they come back through the model's code: for images [B, C, H, W] in [0, 1]."""


@runtime_checkable
class Queries(Protocol):
    def query(self, points: Tensor) -> Tensor:
        """The field's value at ``points`` [M, D]: [M, C], e.g. colours in [0, 1] or a signed distance [M, 1]."""


@runtime_checkable
class Adapts(Protocol):
    def adapt(self, observation: Batch) -> Predictor:
        """A predictor for one test item, of which the protocol shows ``observation`` (no batch dimension). May train."""


Predictor = PredictsLogits | Renders | Samples | ScoresLikelihood | Reconstructs | Queries | Adapts


# ------------------------------------------------------------------------------------------------------------- methods
@dataclass(frozen=True)
class Budget:
    """When training ends: at the first of the limits that are set. Exactly reproducible only when ``steps`` decides."""

    steps: int | None = None
    seconds: float | None = None  # of training, without setup, evaluation and checkpoints
    samples: int | None = None  # in the task's throughput unit


class Context(ABC):
    """What the engine gives a method for one cell."""

    device: torch.device
    precision: str  # "fp32" or "bf16"
    budget: Budget
    work_folder: Path
    step: int  # native iterations done so far; the engine counts
    progress: float  # in [0, 1], for schedules: the share of the budget that is used

    @abstractmethod
    def seed(self, name: str) -> int:
        """A seed that depends on suite seed, dataset, instance, seed index and ``name``, and not on the method."""

    @abstractmethod
    def generator(self, name: str) -> torch.Generator:
        """The generator of that name on ``device``, seeded by ``seed(name)``; its state is saved with the checkpoint."""

    @abstractmethod
    def loader(
        self,
        split: Split,
        batch_size: int,
        *,
        name: str = "train",
        shuffle: bool = True,
        transform: Callable[[dict[str, Tensor], torch.Generator], dict[str, Tensor]] | None = None,
    ) -> Iterator[dict[str, Tensor]]:
        """Endless batches on ``device``: epoch after epoch, last incomplete batch dropped unless it is the only one.

        The order follows from ``seed("data")`` and the position is saved with the checkpoint, so that a resumed run sees
        what an uninterrupted one does. ``transform(batch, generator)`` augments on the CPU with a generator that depends
        on the seed and the position only. Time spent waiting here is reported as data time; items are counted as samples.
        """

    @abstractmethod
    def count(self, samples: int) -> None:
        """Say how many samples of the task's throughput unit a step used, when they did not come through ``loader``."""

    def share(self, items: Tensor) -> Tensor:
        """The part of ``items`` [N, ...] that this process works on; all of them, unless the cell has several devices.

        For what a step draws by itself; ``loader`` gives shares already. All devices draw the same numbers.
        """
        return items

    def total(self, values: Tensor) -> Tensor:
        """The sum of ``values`` over the cell's devices, the same on each; for statistics that decide what a step does."""
        return values

    @abstractmethod
    def autocast(self) -> AbstractContextManager[Any]:
        """Mixed precision as the configuration asks for it; does nothing at fp32."""

    @abstractmethod
    def log_image(self, name: str, image: Tensor) -> None:
        """Keep a picture [3, H, W] or [1, H, W] in [0, 1] with the record."""


class Method(ABC):
    """One way of solving tasks. A subclass is a ``@dataclass(eq=False)`` whose fields are the ``parameters`` of its YAML.

    The method pulls its data and owns its step; the engine never sees a batch, a loss or an optimizer.
    """

    serves: ClassVar[frozenset[TaskKind]]
    consumes: ClassVar[frozenset[Modality]]
    synchronises: ClassVar[str] = ""  # why a step must read values back from the device, where it must
    # Several devices may each do ``step`` on a share of its batch: the loss is a mean over items, and nothing changes
    # parameters but gradients and what ``Context.total`` gives.
    shares_batches: ClassVar[bool] = False

    def skip(self, schema: DataSchema) -> str | None:
        """Why this method cannot serve such data, or None. Called before anything runs."""
        return None

    @abstractmethod
    def setup(self, data: TrainingData, context: Context) -> None:
        """Build networks and optimizers from ``data.schema``. Reported as setup time. Reads items only `if data.present`."""

    @abstractmethod
    def step(self) -> Mapping[str, Tensor]:
        """One iteration as the paper counts them. Timed. Returns 0-d tensors, which the engine reads only at log points.

        Must not synchronise with the device: no ``.item()``, no ``if tensor``. A method in closed form fits in one step.
        """

    @abstractmethod
    def predictor(self) -> Predictor:
        """A frozen view of the present state. Training may go on afterwards."""

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on exactly, in tensors and plain values only.

        By default: every attribute that has a ``state_dict`` (networks, optimizers, schedulers) and every tensor.
        Generators and loaders made by the context are saved by the engine.
        """
        state: dict[str, Any] = {}
        for name, value in vars(self).items():
            if isinstance(value, (nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler)):
                state[name] = value.state_dict()
            elif isinstance(value, Tensor):
                state[name] = value
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned, after ``setup`` with the same schema (perhaps without items)."""
        for name, value in state.items():
            if isinstance(value, Tensor):
                setattr(self, name, value)
            else:
                getattr(self, name).load_state_dict(value)

    def num_parameters(self) -> int:
        """Trained numbers, frozen copies (EMA) not counted."""
        modules = [value for value in vars(self).values() if isinstance(value, nn.Module)]
        unique = {id(p): p.numel() for module in modules for p in module.parameters() if p.requires_grad}
        return sum(unique.values())
