"""From YAML files and command-line overrides to frozen, typed dataclasses. The only module that imports hydra.

Hydra composes each node (a task, a dataset, a method, ...) with its defaults list; pydantic checks it against the
dataclasses below and against the fields of the class that its ``_target_`` names. Every problem is collected and reported
at once, with the file, the key and the nearest valid name. ``_target_`` resolves only to classes of this package and of
registered plug-ins, and only to the kind of class that the node is about.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import re
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ConfigDict, TypeAdapter, ValidationError, create_model
from pydantic_core import ErrorDetails

from adlbench.benchmark.api import AdlbenchError, Budget, Dataset, Method
from adlbench.benchmark.plugins import config_folders, installed_packages
from adlbench.benchmark.specs import (
    SPECS,
    BudgetSpec,
    DatasetSpec,
    MethodSpec,
    MetricSpec,
    PresetChange,
    PresetCondition,
    Request,
    SuiteEntry,
    SuiteSpec,
    TaskSpec,
)
from adlbench.benchmark.tasks.base import Evaluator
from adlbench.benchmark.tasks.protocols import PROTOCOLS, evaluator_class

REFERENCE_KEYS = ("method", "dataset", "instance", "source", "note", "protocol")
GROUPS = ("task", "dataset", "method", "suite", "fidelity", "executor")


class ConfigError(AdlbenchError):
    """One or more mistakes in the configuration; ``problems`` has one line for each."""

    def __init__(self, problems: Sequence[str]):
        self.problems = tuple(problems)
        super().__init__("\n".join(problems))


class BrokenTarget(ConfigError):
    """The configuration is right, but the module that it names raises when it is imported."""


# ------------------------------------------------------------------------------------------------------------- messages
def nearest(name: str, valid: Iterable[str]) -> str:
    """``; did you mean 'x'?`` when a valid name is near, else the list of valid names."""
    options = sorted(set(valid))
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; valid: {', '.join(options)}" if options else ""


def _explain(error: ErrorDetails, where: str, valid: Mapping[str, Iterable[str]]) -> str:
    location = [str(part) for part in error["loc"]]
    key = ".".join(location)
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{where}: unknown key {key!r}{nearest(location[-1], valid.get('.'.join(location[:-1]), ()))}"
    if error["type"] in ("missing", "missing_argument"):
        return f"{where}: key {key!r} is missing; add it"
    return f"{where}: {key}: {error['msg'].removeprefix('Input should be ')} expected, got {error['input']!r}"


def _field_names(spec: type, prefix: str = "") -> dict[str, list[str]]:
    """Dotted path -> the keys that are valid there, for nested dataclasses one level down by field name."""
    names = {prefix: [f.name for f in dataclasses.fields(spec)]}
    hints = typing.get_type_hints(spec)
    for f in dataclasses.fields(spec):
        for part in (hints[f.name], *typing.get_args(hints[f.name])):
            if dataclasses.is_dataclass(part):
                names |= _field_names(typing.cast(type, part), f"{prefix}.{f.name}".lstrip("."))
    return names


Spec = TypeVar("Spec")


def _validated(spec: type[Spec], data: Mapping[str, Any], where: str, problems: list[str]) -> Spec | None:
    try:
        return TypeAdapter(spec).validate_python(dict(data))
    except ValidationError as error:
        names = _field_names(spec)
        for details in error.errors():
            location = [str(part) for part in details["loc"][:-1] if not str(part).isdigit()]
            dotted = ".".join(str(part) for part in details["loc"][:-1])
            known = names.get(".".join(location)) or names.get(".".join(location[:1])) or _nested_names(spec, location)
            problems.append(_explain(details, where, {dotted: known}))
        return None


def _nested_names(spec: type, location: Sequence[str]) -> list[str]:
    """Keys of the dataclass inside ``presets.0.when`` or ``metrics.psnr``, whose path holds a free name or an index."""
    inner = {
        "when": PresetCondition,
        "set": PresetChange,
        "budget": BudgetSpec,
        "metrics": MetricSpec,
        "cells": SuiteEntry,
    }
    for part in reversed(location):
        if part in inner:
            return [f.name for f in dataclasses.fields(inner[part])]
    return [f.name for f in dataclasses.fields(spec)]


# -------------------------------------------------------------------------------------------------------------- catalog
_allowed = {"adlbench"}  # packages whose classes may be named by a `_target_`
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")  # of a node, a package: nothing that leads out of its folder
TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)


def allow(packages: Iterable[str]) -> None:
    """Let ``_target_`` name classes of these packages: what the command line calls plug-ins, and nothing from a file."""
    _allowed.update(packages)


def allowed() -> tuple[str, ...]:
    return tuple(sorted(_allowed))


class Catalog:
    """The YAML files of this package and of its plug-ins, by group and name."""

    def __init__(self, plugins: Sequence[str] = (), folders: Sequence[Path] = ()):
        self.packages = ("adlbench", *installed_packages(), *plugins)
        self.folders = [Path(str(files("adlbench"))) / "configs", *folders]
        for package in self.packages[1:]:
            found = config_folders(package) if re.fullmatch(r"[A-Za-z_]\w*", package) else None
            if found is None:
                raise ConfigError([f"plug-in {package!r} cannot be imported; install it or mend plugins="])
            self.folders += found
        self._specs: dict[tuple[str, str], Any] = {}
        allow(self.packages)

    def names(self, group: str) -> list[str]:
        return sorted({path.stem for folder in self.folders for path in (folder / group).glob("*.yaml")})

    def path(self, group: str, name: str) -> Path:
        for folder in self.folders:
            if NAME.fullmatch(name) and (folder / group / f"{name}.yaml").is_file():
                return folder / group / f"{name}.yaml"
        raise ConfigError([f"{group}={name}: there is no such {group}{nearest(name, self.names(group))}"])

    def spec(self, group: str, name: str, changes: Mapping[str, Any] | None = None) -> Any:
        """The validated dataclass of one node. Raises ConfigError with every problem that it has."""
        key = (group, name)
        if key not in self._specs or changes:
            path = self.path(group, name)
            node = self._compose(group, name, path)
            for dotted, value in (changes or {}).items():
                node = OmegaConf.to_container(OmegaConf.merge(node, OmegaConf.from_dotlist([]), _nest(dotted, value)))  # type: ignore[assignment]
            spec = self._validate(group, name, node, _display(path))
            if changes:
                return spec
            self._specs[key] = spec
        return self._specs[key]

    def _compose(self, group: str, name: str, path: Path) -> dict[str, Any]:
        where = _display(path)
        self._check_file(group, name, ())
        GlobalHydra.instance().clear()
        try:
            others = [f"file://{folder}" for folder in self.folders if folder not in path.parents]
            root = next(folder for folder in self.folders if folder in path.parents)
            with initialize_config_dir(str(root), version_base="1.3"):
                overrides = [f"hydra.searchpath=[{','.join(others)}]"] if others else []
                config = compose(config_name=f"{group}/{name}", overrides=overrides)
            node = OmegaConf.to_container(config[group], resolve=True)
        except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
            first = getattr(error, "problem", None) or str(error).strip().splitlines()[0]
            raise ConfigError([f"{where}: {first}; mend the defaults list or the interpolation"]) from error
        return typing.cast(dict[str, Any], node)

    def _check_file(self, group: str, name: str, seen: tuple[str, ...]) -> None:
        """Syntax, emptiness and cycles, which Hydra reports without a file or a line."""
        path = self.path(group, name)
        where = _display(path)
        if name in seen:
            chain = " -> ".join([*seen, name])
            raise ConfigError([f"{where}: the defaults lists form a cycle ({chain}); remove one of the links"])
        try:
            node = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            text = path.read_text(encoding="utf-8").splitlines()[line - 1 : line]
            tab = " (a tab; YAML indents with spaces)" if any("\t" in t for t in text) else ""
            raise ConfigError([f"{where}:{line}: not valid YAML: {error.problem}{tab}; mend that line"]) from error
        except UnicodeDecodeError as error:
            raise ConfigError([f"{where}: not UTF-8 text ({error.reason}); save it as UTF-8"]) from error
        if node is None:
            raise ConfigError([f"{where}: the file is empty; a {group} needs at least {_required(SPECS[group])}"])
        if not isinstance(node, dict):
            raise ConfigError([f"{where}: a mapping of keys to values expected, got a {type(node).__name__}"])
        for value in _strings(node):
            if ":" in value.partition("${")[2]:  # ${oc.env:SECRET}, also with parts of the name interpolated
                raise ConfigError(
                    [f"{where}: {value!r}: resolvers are not allowed; write the value, or refer to a key"]
                )
        if "hydra" in node:
            raise ConfigError([f"{where}: unknown key 'hydra'; remove it"])
        for parent in node.get("defaults") or []:
            if not isinstance(parent, str) or not NAME.fullmatch(parent.removeprefix("_")):
                raise ConfigError([f"{where}: defaults: {parent!r} is not the name of a {group}; give names alone"])
            if parent != "_self_":
                if parent not in self.names(group):
                    near = nearest(parent, self.names(group))
                    raise ConfigError([f"{where}: defaults: there is no {group} {parent!r}{near}"])
                self._check_file(group, parent, (*seen, name))

    def _validate(self, group: str, name: str, node: dict[str, Any], where: str) -> Any:
        problems: list[str] = []
        node = dict(node)
        target = node.pop("_target_", None)
        if group in ("method", "dataset"):
            if "target" in node:
                problems.append(f"{where}: unknown key 'target'; did you mean '_target_'?")
            node["target"] = target or ""
        elif target is not None:
            problems.append(f"{where}: key '_target_' is for methods and datasets; a {group} is data only, remove it")
        spec = _validated(SPECS[group], {"name": name, **node}, where, problems)
        if group in ("method", "dataset"):
            base = Method if group == "method" else Dataset
            cls = self._target(target, base, where, problems)
            if cls is not None:
                layers = [("parameters", node.get("parameters") or {})]
                for index, preset in enumerate(node.get("presets") or ()):
                    if isinstance(preset, dict) and isinstance(preset.get("set"), dict):
                        layers.append((f"presets.{index}.set.parameters", preset["set"].get("parameters") or {}))
                for key, parameters in layers:
                    check_parameters(cls, parameters, f"{where}: {key}", problems)
        if isinstance(spec, MethodSpec):
            problems += self._check_presets(spec, where)
        if isinstance(spec, TaskSpec):
            problems += self._check_task(spec, where)
        if isinstance(spec, SuiteSpec):
            problems += self._check_suite(spec, where)
        if problems:
            raise ConfigError(problems)
        return spec

    def _target(self, target: Any, base: type, where: str, problems: list[str]) -> type | None:
        if not target:
            problems.append(f"{where}: key '_target_' is missing; give the import path of a {base.__name__} class")
            return None
        if not isinstance(target, str) or not TARGET.fullmatch(target):
            problems.append(f"{where}: _target_ {target!r} is not the import path of a class, like package.module.Name")
            return None
        if target.partition(".")[0] not in self.packages:
            problems.append(
                f"{where}: _target_ {target!r} is outside the allowed packages ({', '.join(self.packages)}); "
                f"register a plug-in (entry point adlbench.{base.__name__.lower()}s, or plugins=PACKAGE)"
            )
            return None
        module_name, _, class_name = target.rpartition(".")
        try:
            module = importlib.import_module(module_name)
        except Exception as error:
            problem = (
                f"{where}: _target_ {target!r} cannot be imported ({type(error).__name__}: {error}); "
                f"mend the path or install what it needs"
            )
            if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
                problems.append(problem)  # there is no such module: a mistake in the YAML file
                return None
            raise BrokenTarget([*problems, problem]) from error
        cls = getattr(module, class_name, None)
        if not _is_own(cls, base):
            classes = [
                n for n, v in vars(module).items() if isinstance(v, type) and issubclass(v, base) and v is not base
            ]
            problems.append(
                f"{where}: _target_ {target!r} is not a {base.__name__} class{nearest(class_name, classes)}"
            )
            return None
        return cls

    def _check_presets(self, spec: MethodSpec, where: str) -> list[str]:
        problems = []
        for index, preset in enumerate(spec.presets):
            for group in ("dataset", "task", "fidelity"):
                name = getattr(preset.when, group)
                if name is not None and name not in self.names(group):
                    problems.append(
                        f"{where}: presets.{index}.when.{group}: there is no {group} {name!r}{nearest(name, self.names(group))}"
                    )
        return problems

    def _check_task(self, spec: TaskSpec, where: str) -> list[str]:
        problems = []
        for group, names in (("dataset", spec.datasets), ("method", spec.methods)):
            for name in names:
                if name not in self.names(group):
                    problems.append(
                        f"{where}: {group}s: there is no {group} {name!r}{nearest(name, self.names(group))}"
                    )
        for name in spec.inference_batch_sizes:
            if name not in self.names("fidelity"):
                near = nearest(name, self.names("fidelity"))
                problems.append(f"{where}: inference_batch_sizes: there is no fidelity {name!r}{near}")
        if not spec.metrics:
            problems.append(f"{where}: metrics is empty; name at least one")
        if spec.protocol not in PROTOCOLS:
            return [
                *problems,
                f"{where}: protocol: there is no protocol {spec.protocol!r}{nearest(spec.protocol, PROTOCOLS)}",
            ]
        evaluator = evaluator_class(spec.protocol)
        if evaluator.kind != spec.kind:
            problems.append(
                f"{where}: kind {spec.kind.value!r} does not go with protocol {spec.protocol!r}, which is for {evaluator.kind.value!r}"
            )
        for name in spec.metrics:
            if name not in evaluator.metrics:
                problems.append(
                    f"{where}: metrics: protocol {spec.protocol!r} has no metric {name!r}{nearest(name, evaluator.metrics)}"
                )
        check_parameters(evaluator, spec.options, f"{where}: options", problems)
        for index, reference in enumerate(spec.references):
            place = f"{where}: references.{index}"
            for key, valid in (("method", spec.methods), ("dataset", spec.datasets)):
                if (name := str(reference.get(key))) not in valid:
                    problems.append(f"{place}.{key}: {name!r} is not in this task{nearest(name, valid)}")
            for key in reference:
                if key not in {*REFERENCE_KEYS, *spec.metrics}:
                    problems.append(f"{place}: unknown key {key!r}{nearest(key, [*REFERENCE_KEYS, *spec.metrics])}")
            if "source" not in reference:
                problems.append(
                    f"{where}: references.{index}: key 'source' is missing; say where the number is printed"
                )
        return problems

    def _check_suite(self, spec: SuiteSpec, where: str) -> list[str]:
        problems = []
        for index, entry in enumerate(spec.cells):
            for group, names in (
                ("task", (entry.task,)),
                ("dataset", entry.datasets or ()),
                ("method", entry.methods or ()),
            ):
                for name in names:
                    if name not in self.names(group):
                        problems.append(
                            f"{where}: cells.{index}: there is no {group} {name!r}{nearest(name, self.names(group))}"
                        )
        if spec.fidelity is not None and spec.fidelity not in self.names("fidelity"):
            problems.append(
                f"{where}: fidelity: there is no fidelity {spec.fidelity!r}{nearest(spec.fidelity, self.names('fidelity'))}"
            )
        return problems


def _strings(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, Mapping):
        yield from (text for pair in node.items() for part in pair for text in _strings(part))
    elif isinstance(node, (list, tuple)):
        yield from (text for part in node for text in _strings(part))


def _display(path: Path) -> str:
    """``configs/method/cnn.yaml``: from the folder that holds the groups on."""
    return "/".join(path.parts[-3:])


def _required(spec: type) -> str:
    absent = (dataclasses.MISSING,)
    names = [
        f.name
        for f in dataclasses.fields(spec)
        if f.default in absent and f.default_factory in absent and f.name != "name"
    ]
    return ", ".join("_target_" if name == "target" else name for name in names) or "a description"


def _nest(dotted: str, value: Any) -> dict[str, Any]:
    for part in reversed(dotted.split(".")):
        value = {part: value}
    return typing.cast(dict[str, Any], value)


@cache
def _parameter_model(cls: type) -> Any:
    hints = typing.get_type_hints(cls)
    fields: dict[str, Any] = {f.name: (hints[f.name] | None, None) for f in dataclasses.fields(cls) if f.init}
    return create_model(
        f"{cls.__name__}Parameters", __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=True), **fields
    )


def check_parameters(cls: type, parameters: Mapping[str, Any], where: str, problems: list[str]) -> dict[str, Any]:
    """``parameters`` converted to the types of the dataclass ``cls``; what does not fit is added to ``problems``."""
    if not dataclasses.is_dataclass(cls):
        problems.append(f"{where}: {cls.__name__} is not a dataclass; decorate it with @dataclass(eq=False)")
        return {}
    if not isinstance(parameters, Mapping):
        problems.append(f"{where}: a mapping expected, got {parameters!r}")
        return {}
    model = _parameter_model(cls)
    try:
        checked = model.model_validate(dict(parameters))
    except ValidationError as error:
        for details in error.errors():
            problems.append(_explain(details, where, {"": list(model.model_fields)}))
        return {}
    return {name: getattr(checked, name) for name in parameters}


# ------------------------------------------------------------------------------------------------------------ instances
def _is_own(cls: object, base: type) -> bool:
    """A class of the wanted kind that is defined in an allowed package, not one that was only imported there."""
    return (
        isinstance(cls, type)
        and issubclass(cls, base)
        and cls is not base
        and cls.__module__.partition(".")[0] in allowed()
    )


def _class(target: str, base: type) -> type:
    """The class ``target``. A cell that is read from a folder is trusted no more than a YAML file."""
    module, _, name = target.rpartition(".")
    cls = None
    if TARGET.fullmatch(target) and target.partition(".")[0] in allowed():
        cls = getattr(importlib.import_module(module), name, None)
    if not _is_own(cls, base):
        raise ConfigError(
            [f"_target_ {target!r} is not a {base.__name__} class of the allowed packages ({', '.join(allowed())})"]
        )
    return typing.cast(type, cls)


def _build(cls: type, parameters: Mapping[str, Any], where: str) -> Any:
    problems: list[str] = []
    checked = check_parameters(cls, parameters, where, problems)
    if problems:
        raise ConfigError(problems)
    return cls(**checked)


def build_dataset(spec: DatasetSpec) -> Dataset:
    return typing.cast(Dataset, _build(_class(spec.target, Dataset), spec.parameters, f"dataset {spec.name}"))


def build_method(spec: MethodSpec, parameters: Mapping[str, Any]) -> Method:
    return typing.cast(Method, _build(_class(spec.target, Method), parameters, f"method {spec.name}"))


def build_evaluator(spec: TaskSpec) -> Evaluator:
    return typing.cast(Evaluator, _build(evaluator_class(spec.protocol), spec.options, f"task {spec.name}"))


@dataclass(frozen=True)
class ResolvedMethod:
    """A method's parameters and budget for one cell, after the presets that apply."""

    parameters: dict[str, Any]
    budget: Budget
    precision: str | None
    applied_presets: tuple[str, ...]


def resolve_method(spec: MethodSpec, changed: Mapping[str, Any], **axes: str) -> ResolvedMethod:
    """Apply the presets in order; what the command line ``changed`` (dotted keys) wins over them."""
    parameters, budget, precision, applied = dict(spec.parameters), spec.budget, spec.precision, []
    for index, preset in enumerate(spec.presets):
        if preset.when.matches(**axes):
            parameters |= preset.set.parameters
            budget = preset.set.budget or budget
            precision = preset.set.precision or precision
            condition = {key: value for key, value in dataclasses.asdict(preset.when).items() if value is not None}
            applied.append(f"{index}: {', '.join(f'{key}={value}' for key, value in condition.items())}")
    for key, value in changed.items():
        head, _, rest = key.partition(".")
        if head == "parameters":
            parameters[rest] = value
    limits = {key.partition(".")[2]: value for key, value in changed.items() if key.startswith("budget.")}
    resolved_budget = Budget(**limits) if limits else Budget(**dataclasses.asdict(budget))
    return ResolvedMethod(parameters, resolved_budget, precision, tuple(applied))


# ------------------------------------------------------------------------------------------------------------ overrides
def parse_request(arguments: Sequence[str]) -> Request:
    """Hydra's override grammar (``method=vit,cnn seed=range(0,3) method.parameters.lr=1e-3``) -> a Request."""
    problems: list[str] = []
    values: dict[str, Any] = {"nodes": {}}
    fields = {f.name: f for f in dataclasses.fields(Request) if f.name != "nodes"}
    lists = {name for name, f in fields.items() if str(f.type).startswith("tuple")}
    parser = OverridesParser.create()
    for argument in arguments:
        if "=" not in argument:
            problems.append(f"{argument!r}: not of the form key=value{nearest(argument, fields)}")
            continue
        try:
            override = parser.parse_override(argument)
            sweep = list(override.sweep_iterator()) if override.is_sweep_override() else None
            value = override.value() if sweep is None else None
        except HydraException as error:
            problems.append(f"{argument!r}: {str(error).splitlines()[0]}; quote values with special characters")
            continue
        key = override.key_or_group
        head = key.partition(".")[0]
        if "." in key and head in (*GROUPS, "budget"):
            if sweep is not None:
                problems.append(
                    f"{argument!r}: a single value expected; sweeps are over task, dataset, instance, method and seed"
                )
            else:
                values["nodes"]["method." + key if head == "budget" else key] = value
        elif key not in fields:
            problems.append(f"unknown key {key!r}{nearest(key, fields)}")
        elif key in lists:
            entries = sweep if sweep is not None else (value if isinstance(value, list) else [value])
            values[key] = tuple(entry if key == "seed" else str(entry) for entry in entries)
        elif sweep is not None:
            problems.append(f"{argument!r}: {key} takes one value")
        else:
            values[key] = value
    request = _validated(Request, values, "command line", problems)
    if problems or request is None:
        raise ConfigError(problems)
    return request
