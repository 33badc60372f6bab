"""Records -> MLflow. The only module that imports mlflow; it runs in the parent process, never in a cell.

One experiment for each task; in it one parent run for each invocation and, below it, one run for each cell. Metrics go in
batches (a call for each point costs fifty times as much). A file in the cell's folder remembers where the record went, so
that it is delivered once.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from adlbench.benchmark.errors import AdlbenchError
from adlbench.benchmark.records import Record, Summary, clear_unfinished, find_records, write_json

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

EXPERIMENT_PREFIX = "adlbench/"
DELIVERED = "mlflow.json"
BATCH = 900  # metrics in one log_batch call, which takes 1000 entities; the parameters go with the last
MAX_TAG = 5000
ROW_TAG = "adlbench.row"  # what a leaderboard needs of a run, in one value: 30 tags and metrics each cost a look-up
ROW_AXES = (
    "task", "protocol", "dataset", "instance", "method", "fidelity", "seed", "hardware", "fingerprint",
    "status", "precision", "trivial", "cell_key", "throughput_unit", "git_commit",
)  # fmt: skip
ROW_COSTS = ("throughput", "train_seconds", "peak_memory_mb", "peak_device_memory_mb", "num_parameters")
AWAY_SECONDS = 20.0  # after a failure: no record waits for a server that does not answer


def default_uri(results_dir: Path) -> str:
    """``$MLFLOW_TRACKING_URI``, else a sqlite file in the results folder.

    Credentials in the address of a server move to the variables where MLflow looks for them too: it prints addresses.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(results_dir / 'mlflow.db').resolve()}"
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https") and parts.username:
        os.environ.setdefault("MLFLOW_TRACKING_USERNAME", unquote(parts.username))
        os.environ.setdefault("MLFLOW_TRACKING_PASSWORD", unquote(parts.password or ""))
        uri = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return uri


def ui_command(results_dir: Path) -> str:
    uri = default_uri(results_dir)
    return redacted(uri) if uri.startswith("http") else f"mlflow ui --backend-store-uri {redacted(uri)}"


def redacted(text: str) -> str:
    """``text`` without the credentials of MLflow, which may stand in an address or in an error's message."""
    for name in ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        if secret := os.environ.get(name):
            text = text.replace(secret, "***")
    if password := urlsplit(os.environ.get("MLFLOW_TRACKING_URI", "")).password:
        text = text.replace(password, "***").replace(unquote(password), "***")
    return re.sub(r"(://[^/\s:@]*):[^/\s@]+@", r"\1:***@", text)


class Tracker:
    """Delivers records to one MLflow store under one invocation."""

    def __init__(self, results_dir: Path, title: str, invocation: str):
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # seven take four minutes
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")  # it reports every table that it creates
        warnings.filterwarnings("ignore", module="mlflow")
        from mlflow import MlflowClient

        logging.getLogger("alembic").setLevel(logging.ERROR)

        results_dir.mkdir(parents=True, exist_ok=True)
        self.uri = default_uri(results_dir)
        self._results_dir, self._title, self._invocation = results_dir, title, invocation
        _create_store(self.uri)
        self._client: MlflowClient = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        self._experiments: dict[str, str] = {}
        self._parents: dict[str, str] = {}
        self._away_until = 0.0

    def has(self, folder: Path, record: Record | Summary) -> bool:
        """Whether this record was delivered whole to this store, as the marker in its folder says."""
        return record.status == "interrupted" or _marker(folder) == {**self._stamp(record), "whole": True}

    def _stamp(self, record: Record | Summary) -> dict[str, Any]:
        return {
            "uri": redacted(self.uri),
            "cell_key": record.cell_key,
            "started": record.started,
            "status": record.status,
        }

    def deliver(self, folder: Path, record: Record) -> str | None:
        """Export one record; returns the run's id, or None when this record was delivered before.

        The marker says that a delivery began before it begins, and that it is whole when it is. So after a delivery that
        was cut off, and only then, the store is asked what became of it: a whole run is kept, half a run deleted.
        """
        if record.status == "interrupted":  # it goes on, and its end is what counts
            return None
        marker, stamp = folder / DELIVERED, self._stamp(record)
        earlier = _marker(folder)
        if earlier == {**stamp, "whole": True}:
            return None
        clear_unfinished(folder)  # of a runner that was killed while it wrote the marker
        if earlier == {**stamp, "whole": False} and self._kept_whole(record):
            write_json(marker, {**stamp, "whole": True})
            return None
        if time.monotonic() < self._away_until:
            raise AdlbenchError("it did not answer a moment ago")
        write_json(marker, {**stamp, "whole": False})
        try:
            run_id = self._export(folder, record)
        except Exception:
            self._away_until = time.monotonic() + AWAY_SECONDS
            raise
        write_json(marker, {**stamp, "whole": True})
        return run_id

    def _export(self, folder: Path, record: Record) -> str:
        from mlflow.entities import Param, RunTag
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        experiment = self._experiment(record.task)
        tags = {**_tags(record), "mlflow.parentRunId": self._parent(record.task), "invocation": self._invocation}
        tags["adlbench.delivered"] = "partial"
        run = self._client.create_run(experiment, start_time=_milliseconds(record), tags=tags, run_name=record.name)
        run_id = run.info.run_id
        self._log_dataset(run_id, record)
        # The client's own log_artifact asks the store for the run first, with all its tags.
        artifacts = get_artifact_repository(run.info.artifact_uri, tracking_uri=self.uri)
        for name in ("record.json", "log.txt", "curve.json"):
            if (folder / name).exists():
                artifacts.log_artifact(str(folder / name))
        if (folder / "images").is_dir():
            artifacts.log_artifacts(str(folder / "images"), "images")
        params = [Param(key, str(value)[:MAX_TAG]) for key, value in _params(record).items()]
        *others, last = _batches(_metrics(folder, record))
        for batch in others:
            self._client.log_batch(run_id, metrics=batch)
        self._client.log_batch(run_id, metrics=last, params=params, tags=[RunTag("adlbench.delivered", "whole")])
        status = "FINISHED" if record.status == "done" else "FAILED"
        self._client.set_terminated(run_id, status, end_time=_milliseconds(record) + int(1000 * record.wall_seconds))
        return str(run_id)

    def _kept_whole(self, record: Record) -> bool:
        whole = False
        wanted = f"tags.cell_key = '{record.cell_key}' AND tags.started = '{record.started}'"
        for run in self._client.search_runs([self._experiment(record.task)], wanted):
            if run.data.tags.get("adlbench.delivered") == "whole" and run.info.status != "RUNNING" and not whole:
                whole = True
            else:
                self._client.delete_run(run.info.run_id)
        return whole

    def close(self, status: str = "FINISHED") -> None:
        for run_id in self._parents.values():
            self._client.set_terminated(run_id, status)

    def _experiment(self, task: str) -> str:
        if task not in self._experiments:
            name = EXPERIMENT_PREFIX + task
            found = self._client.get_experiment_by_name(name)
            location = None
            if self.uri.startswith("sqlite"):  # else it would depend on the working directory
                location = (self._results_dir / "mlartifacts" / task).resolve().as_uri()
            self._experiments[task] = found.experiment_id if found else self._create_experiment(name, location)
        return self._experiments[task]

    def _create_experiment(self, name: str, location: str | None) -> str:
        from mlflow.exceptions import MlflowException

        try:
            return self._client.create_experiment(name, location)
        except (
            MlflowException
        ):  # another runner was faster (seen as RESOURCE_ALREADY_EXISTS and as a broken constraint)
            found = self._client.get_experiment_by_name(name)
            if found is None:
                raise
            return found.experiment_id

    def _parent(self, task: str) -> str:
        if task not in self._parents:
            tags = {"kind": "invocation", "invocation": self._invocation}
            run = self._client.create_run(
                self._experiment(task), tags=tags, run_name=f"{self._title} {self._invocation}"
            )
            self._parents[task] = run.info.run_id
        return self._parents[task]

    def _log_dataset(self, run_id: str, record: Record) -> None:
        from mlflow.data.code_dataset_source import CodeDatasetSource
        from mlflow.data.meta_dataset import MetaDataset
        from mlflow.entities import DatasetInput

        name = record.dataset if record.instance == "all" else f"{record.dataset}.{record.instance}"
        source = CodeDatasetSource({"adlbench.dataset": record.dataset, "adlbench.instance": record.instance})
        dataset = MetaDataset(  # type: ignore[abstract]
            source, name=name, digest=record.data_fingerprint[:36] or "unknown"
        )
        self._client.log_inputs(run_id, [DatasetInput(dataset._to_mlflow_entity())])


def sync(results_dir: Path, title: str = "sync", invocation: str = "sync") -> int:
    """Deliver every record below ``results_dir`` that has not been; returns how many were."""
    delivered = 0
    try:
        tracker = Tracker(results_dir, title, invocation)
        for folder, record in find_records(results_dir):
            delivered += tracker.deliver(folder, record) is not None
        tracker.close()
    except Exception as error:
        raise AdlbenchError(
            f"{delivered} records were delivered to {redacted(default_uri(results_dir))}, then it failed "
            f"({redacted(str(error)).splitlines()[0]}); run the same command again when it is back"
        ) from error
    return delivered


def _create_store(uri: str) -> None:
    """A sqlite store appears under its name when it is whole.

    MLflow makes its tables in fifty migrations; a process that is killed among them leaves a file that no later one can
    open ("duplicate column name").
    """
    path = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not path.exists():
        from mlflow import MlflowClient

        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            whole = f"sqlite:///{temporary}"
            MlflowClient(tracking_uri=whole, registry_uri=whole).search_experiments(max_results=1)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def _marker(folder: Path) -> dict[str, Any]:
    try:
        marker = json.loads((folder / DELIVERED).read_text())
    except (OSError, ValueError):
        return {}
    marker.pop("run_id", None)  # of version 0.1.0, which wrote the marker at the end
    return {"whole": True, **marker}


def search_cells(uri: str) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, float]]]:
    """Tags (with ``start_time``) and metrics of every cell's run on a server, by run id; for stores without read access."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    tags: dict[str, dict[str, Any]] = {}
    metrics: dict[str, dict[str, float]] = {}
    for experiment in client.search_experiments(filter_string=f"name LIKE '{EXPERIMENT_PREFIX}%'"):
        token = None
        while True:
            page = client.search_runs(
                [experiment.experiment_id], "tags.kind = 'cell'", max_results=1000, page_token=token
            )
            for run in page:
                about = {"start_time": run.info.start_time, "experiment_id": run.info.experiment_id}
                tags[run.info.run_id] = {**run.data.tags, **about}
                metrics[run.info.run_id] = {k: v for k, v in run.data.metrics.items() if not k.startswith("train/")}
            token = page.token
            if not token:
                break
    return tags, metrics


def _tags(record: Record) -> dict[str, str]:
    task = record.specification["task"]
    tags = {
        "kind": "cell",
        "task": record.task,
        "task_kind": record.kind,
        "protocol": record.protocol,
        "dataset": record.dataset,
        "instance": record.instance,
        "method": record.method,
        "trivial": str(record.trivial).lower(),
        "fidelity": record.fidelity,
        "seed": str(record.seed),
        "cell_key": record.cell_key,
        "started": record.started,
        "status": record.status,
        "reason": record.reason[:MAX_TAG],
        "device": record.specification["device"],
        "precision": record.specification["precision"],
        "hardware": record.hardware,
        "fingerprint": record.data_fingerprint,
        "git_commit": str(record.code.get("commit")),
        "throughput_unit": record.throughput_unit,
        "metric_specs": json.dumps(task["metrics"]),
        "references": json.dumps(task["references"]),
        "absent": json.dumps(record.absent),
    }
    tags = {key: value[:MAX_TAG] for key, value in tags.items()}
    row = row_tag(tags, _values(record), record.absent)
    return {**tags, ROW_TAG: row} if len(row) <= MAX_TAG else tags


def row_tag(tags: dict[str, str], values: dict[str, float], absent: dict[str, str]) -> str:
    """The value of ROW_TAG: the axes in their order, the metrics that a leaderboard shows, and why others are absent."""
    specs = json.loads(tags["metric_specs"])
    shown = [*specs, *ROW_COSTS, *(name for name in values if name.startswith("latency_p50_ms/"))]
    metrics = {name: values[name] for name in shown if math.isfinite(values.get(name, math.nan))}
    return json.dumps([[tags[axis] for axis in ROW_AXES], metrics, absent], separators=(",", ":"))


def _params(record: Record) -> dict[str, Any]:
    """What identifies the cell and its hyperparameters; the whole configuration is in the artifact record.json."""
    parameters = {f"method.{key}": value for key, value in list(record.specification["parameters"].items())[:12]}
    budget = {f"budget.{key}": value for key, value in record.specification["budget"].items() if value is not None}
    return {"method": record.method, "seed": record.seed, **budget, **parameters}


def _values(record: Record) -> dict[str, float]:
    values: dict[str, float | None] = dict(record.metrics)
    values |= {
        "throughput": record.throughput,
        "train_seconds": record.total_train_seconds,
        "train_cpu_seconds": record.train_cpu_seconds,
        "wall_seconds": record.wall_seconds,
        "peak_memory_mb": record.peak_memory_mb,
        "peak_device_memory_mb": record.peak_device_memory_mb,
        "num_parameters": record.num_parameters,
        "train_step_flops": record.train_step_flops,
        "inference_flops": record.inference_flops,
        "energy_joules": record.energy_joules,
        "steps": record.steps,
    }
    values |= {f"seconds/{name}": seconds for name, seconds in record.accounts.items()}
    for latency in record.latency:
        values[f"latency_p50_ms/batch{latency.batch_size}"] = latency.p50_ms
        values[f"latency_p95_ms/batch{latency.batch_size}"] = latency.p95_ms
        values[f"inference_throughput/batch{latency.batch_size}"] = latency.samples_per_second
    return {key: float(value) for key, value in values.items() if value is not None}


def _metrics(folder: Path, record: Record) -> Iterable[Metric]:
    from mlflow.entities import Metric

    stamp = _milliseconds(record)
    for key, value in _values(record).items():
        yield Metric(key, value, stamp, record.steps)
    curve = folder / "curve.json"
    for point in json.loads(curve.read_text()) if curve.exists() else []:
        at = stamp + int(1000 * point["seconds"])
        for key, value in point.items():
            if key not in ("step", "seconds"):
                yield Metric(f"train/{key}", float(value), at, int(point["step"]))


def _batches(metrics: Iterable[Metric]) -> Iterable[list[Metric]]:
    batch: list[Metric] = []
    for metric in metrics:
        batch.append(metric)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _milliseconds(record: Record) -> int:
    import datetime

    return int(datetime.datetime.fromisoformat(record.started).timestamp() * 1000)
