"""CIFAR's python batches: pickled dicts of ``data`` (uint8 [N, 3072], channel by channel) and ``labels``.

A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.

A pickle is a program. Here it is read as data: a small machine knows the instructions that build dicts, lists, tuples,
numbers, strings and one kind of object, numpy's array, which it describes and never constructs. It calls nothing, so
whatever else a file asks for ends in an error.
"""

from __future__ import annotations

import io
import math
import pickletools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adlbench.benchmark.api import DataError

MAX_BYTES = 1 << 30  # of one batch; the largest published one has 155 MB
NUM_BYTES = 3072  # of one image, 3 x 32 x 32
LATIN = ("_codecs", "encode")  # how Python 3 wrote bytes for Python 2
RECONSTRUCT = frozenset((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core"))
FROM_BUFFER = frozenset((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core"))
ALLOWED = RECONSTRUCT | FROM_BUFFER | {("numpy", "ndarray"), ("numpy", "dtype"), LATIN}
VALUES = frozenset(
    {"BININT", "BININT1", "BININT2", "INT", "LONG1", "BINFLOAT"}
    | {"SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"}
    | {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"}
)
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
IGNORED = frozenset({"PROTO", "FRAME"})


def read_cifar_batch(path: Path, labels: str = "labels") -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, 3, 32, 32] and labels int64 [N]. ``labels`` is ``fine_labels`` for CIFAR-100.

    Raises DataError when the file is damaged, is another pickle, or asks for anything but plain data.
    """
    content = read_cifar_pickle(path)
    data, label = content.get("data"), content.get(labels)
    if not isinstance(data, np.ndarray) or not isinstance(label, list):
        raise DataError(f"{path} has no 'data' and {labels!r}; it is not a CIFAR batch: fetch it again")
    if data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != NUM_BYTES:
        raise DataError(f"{path}: data is {data.dtype} {data.shape}, not uint8 [N, {NUM_BYTES}]; fetch it again")
    if len(label) != len(data):
        raise DataError(f"{path} holds {len(data)} images and {len(label)} labels; fetch it again")
    wrong = [place for place, value in enumerate(label) if type(value) is not int or not 0 <= value < 1000]
    if wrong:
        raise DataError(f"{path}: label {wrong[0]} of {len(label)} is not the number of a class; fetch it again")
    return data.reshape(-1, 3, 32, 32), np.array(label, dtype=np.int64)


def read_cifar_names(path: Path, key: str = "label_names") -> tuple[str, ...]:
    """The names of the classes in ``batches.meta``."""
    names = read_cifar_pickle(path).get(key)
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path} has no list {key!r} of names; fetch it again")
    return tuple(names)


def read_cifar_pickle(path: Path) -> dict[str, Any]:
    """The dict that the pickle describes: keys and short byte strings as text, arrays as numpy arrays."""
    if not path.is_file():
        raise DataError(f"{path} does not exist; put the batch there")
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path} has {path.stat().st_size:,} bytes; no CIFAR batch is that large")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of odd escapes in damaged strings
            value = _run(path.read_bytes(), path)
        if not isinstance(value, dict):
            raise ValueError(f"it holds a {type(value).__name__}, not a dict")
        return {_text(key): _plain(item, path) for key, item in value.items()}
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise DataError(
            f"{path} is damaged or no CIFAR batch ({type(error).__name__}: {str(error)[:120]}); fetch it again"
        ) from None


@dataclass
class _Name:
    """A global that the pickle mentions; one of ALLOWED."""

    module: str
    name: str


@dataclass
class _Object:
    """What a call would have made, with the state that it was given."""

    function: tuple[str, str]
    arguments: tuple[Any, ...]
    state: Any = None


_MARK = object()


def _run(content: bytes, path: Path) -> Any:
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    for opcode, argument, position in _instructions(content):
        name = opcode.name
        if name in VALUES:
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in ("SHORT_BINSTRING", "BINSTRING", "STRING"):
            stack.append(argument.encode("latin-1"))  # a string of Python 2 is bytes
        elif name == "MARK":
            stack.append(_MARK)
        elif name in ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE"):
            stack.append({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}[name]())
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            stack[-int(name[-1]) :] = [tuple(_top(stack, int(name[-1])))]
        elif name in ("TUPLE", "LIST", "DICT"):
            items = _since_mark(stack)
            stack.append(tuple(items) if name == "TUPLE" else items if name == "LIST" else _pairs({}, items))
        elif name == "APPEND":
            item = stack.pop()
            _typed(stack[-1], list).append(item)
        elif name == "APPENDS":
            items = _since_mark(stack)
            _typed(stack[-1], list).extend(items)
        elif name == "SETITEM":
            items = _top(stack, 2)
            del stack[-2:]
            _pairs(_typed(stack[-1], dict), items)
        elif name == "SETITEMS":
            items = _since_mark(stack)
            _pairs(_typed(stack[-1], dict), items)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            module, attribute = argument.split(" ", 1) if name == "GLOBAL" else _top(stack, 2)
            if name == "STACK_GLOBAL":
                del stack[-2:]
            module, attribute = _typed(module, str), _typed(attribute, str)
            if (module, attribute) not in ALLOWED:
                raise DataError(
                    f"{path} asks for {module[:60]}.{attribute[:60]} at byte {position:,}, which no CIFAR batch "
                    "needs; nothing of it was run. Do not trust this file"
                )
            stack.append(_Name(module, attribute))
        elif name == "REDUCE":
            function, arguments = _typed(stack[-2], _Name), _typed(stack[-1], tuple)
            called = (function.module, function.name)
            text = called == LATIN and _typed(arguments[0], str).encode("latin-1")  # Python 3's bytes for Python 2
            stack[-2:] = [text if called == LATIN else _Object(called, arguments)]
        elif name == "BUILD":
            state = stack.pop()
            _typed(stack[-1], _Object).state = state
        elif name == "STOP":
            return stack.pop()
        elif name not in IGNORED:
            raise DataError(f"{path} has the instruction {name} at byte {position:,}, which no CIFAR batch needs")
    raise ValueError("the end is missing")


def _instructions(content: bytes) -> Iterator[tuple[pickletools.OpcodeInfo, Any, int]]:
    for opcode, argument, position in pickletools.genops(io.BytesIO(content)):
        yield opcode, argument, position or 0


def _top(stack: list[Any], count: int) -> list[Any]:
    if len(stack) < count:
        raise ValueError("an instruction finds too few values")
    return stack[-count:]


def _since_mark(stack: list[Any]) -> list[Any]:
    place = next((i for i in range(len(stack) - 1, -1, -1) if stack[i] is _MARK), None)
    if place is None:
        raise ValueError("a mark is missing")
    items = stack[place + 1 :]
    del stack[place:]
    return items


def _pairs(target: dict[Any, Any], items: list[Any]) -> dict[Any, Any]:
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, (str, bytes)):  # hashing a nest of tuples can take for ever
            raise ValueError(f"a key is a {type(key).__name__}")
        target[key] = value
    return target


def _typed(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(f"a {type(value).__name__} stands where a {kind.__name__.strip('_')} should")
    return value


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _plain(value: Any, path: Path) -> Any:
    """Arrays made from their descriptions, lists of strings as text; one level deep, as the batches are."""
    if isinstance(value, _Object):
        return _array(value, path)
    if isinstance(value, list):
        return [_text(item) if isinstance(item, bytes) else item for item in value]
    return _text(value) if isinstance(value, bytes) else value


def _array(value: _Object, path: Path) -> np.ndarray:
    if value.function in RECONSTRUCT:  # state: version, shape, dtype, column order, bytes
        _, shape, dtype, fortran, raw = value.state
    elif value.function in FROM_BUFFER:
        raw, dtype, shape, order = value.arguments
        fortran = order == "F"
    else:
        raise ValueError("an object is no array")
    if not isinstance(raw, (bytes, bytearray)):
        raise ValueError("the content of an array is not bytes")
    kind = _text(_typed(dtype, _Object).arguments[0])
    if kind not in ("u1", "|u1", "uint8"):
        raise ValueError(f"an array is of {kind[:20]!r}, not of bytes")
    shape = tuple(_typed(length, int) for length in _typed(shape, tuple))
    if any(length < 0 for length in shape) or math.prod(shape) != len(raw):
        raise DataError(f"{path}: an array of shape {str(shape)[:60]} has {len(raw):,} bytes; fetch it again")
    return np.frombuffer(bytes(raw), dtype=np.uint8).reshape(shape, order="F" if fortran else "C")
