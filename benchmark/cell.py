"""Runs one cell: setup, train, evaluate, measure, record. Read it from top to bottom; nothing here knows a method by name."""

from __future__ import annotations

import datetime
import io
import math
import signal
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from adlbench.benchmark import environment, inputs, sources
from adlbench.benchmark.analysis.run import analyse
from adlbench.benchmark.api import (
    AbsentSplit,
    AdlbenchError,
    ArraySplit,
    Budget,
    DataError,
    Method,
    Predictor,
    Split,
    TrainingData,
)
from adlbench.benchmark.clock import Clock, synchronize
from adlbench.benchmark.config import build_dataset, build_evaluator, build_method
from adlbench.benchmark.context import CellContext, derive_seed
from adlbench.benchmark.exhibits import write_exhibits
from adlbench.benchmark.monitor import Monitor
from adlbench.benchmark.parallel import Ranks
from adlbench.benchmark.plan import CellSpec
from adlbench.benchmark.prepare.manifest import Manifest
from adlbench.benchmark.records import (
    EVALUATED,
    Latency,
    Record,
    clear_unfinished,
    read_record,
    write_arrays,
    write_atomic,
    write_json,
    write_record,
)
from adlbench.benchmark.tasks.base import Evaluation, EvaluationContext, EvaluationData, Evaluator

CHUNK_SECONDS = 0.5  # of work between two looks at the clock and the loss
Progress = Callable[[dict[str, Any]], None]


class Diverged(Exception):
    """A value that the method reported is not finite."""


class Interrupted(BaseException):
    """The process was asked to end. Training stops at the end of the chunk, with a checkpoint."""


@dataclass
class TrainingLog:
    """What training leaves, apart from the method's state. Plain values, so that it goes into the checkpoint."""

    curve: list[dict[str, float]] = field(default_factory=list)
    windows: list[list[float]] = field(default_factory=list)  # steps, samples, seconds, seconds of data wait
    step_flops: float | None = None
    train_seconds: float = 0.0
    train_cpu_seconds: float = 0.0
    num_resumes: int = 0
    origin: str = ""  # code and data that the training began with: it goes on only with the same


def run_cell(
    spec: CellSpec,
    folder: Path,
    progress: Progress = lambda event: None,
    start: float | None = None,
    last_words: Callable[[Record], None] = lambda record: None,
) -> Record:
    """Run ``spec`` and write its record into ``folder``; continues from a checkpoint that lies there.

    Whatever happens inside becomes the record's status; only Interrupted passes through, after the record is written.
    ``start`` (of ``time.perf_counter``) is when the cell's process began. A record that the disk does not take goes to
    ``last_words``, as a failure.
    """
    clock = Clock(start)
    record = empty_record(spec)
    log = TrainingLog()
    interruption: Interrupted | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        clear_unfinished(folder)
        write_json_text(folder / "cell.json", spec.to_json())
        ranks = Ranks()
        with ranks.started(lambda rank: follow(spec, folder, rank), spec.devices, folder, spec.device):
            _run(spec, folder, record, clock, log, progress, ranks)
        record.status = "done"
    except Diverged as error:
        record.status, record.reason = "diverged", str(error)
    except Interrupted as error:
        record.status, record.reason, interruption = "interrupted", "asked to end; the same command continues it", error
    except (MemoryError, torch.OutOfMemoryError) as error:
        record.status, record.reason = "out_of_memory", str(error).splitlines()[0] if str(error) else "out of memory"
    except AdlbenchError as error:
        record.status, record.reason = "failed", str(error)
    except Exception as error:
        traceback.print_exc()
        record.status, record.reason = "failed", f"{type(error).__name__}: {error}"
    record.steps = record.steps or (int(log.curve[-1]["step"]) if log.curve else 0)
    record.train_cpu_seconds, record.num_resumes = log.train_cpu_seconds, log.num_resumes
    record.train_step_flops = log.step_flops
    record.throughput = throughput(log.windows)
    record.cpu_seconds += time.process_time()
    record.peak_memory_mb, record.peak_device_memory_mb = environment.peak_memory(torch.device(spec.device))
    try:
        with clock.account("log"):
            write_json(folder / "curve.json", log.curve)
            write_json(folder / "windows.json", log.windows)
        record.accounts, record.wall_seconds = clock.read(), clock.wall
        write_record(folder, record)
    except OSError as error:
        told = f" (it was {record.status}: {record.reason})" if record.status != "done" else ""
        record.status, record.reason = "failed", f"its results cannot be written: {error}{told}"
        record.accounts, record.wall_seconds = clock.read(), clock.wall
        last_words(record)
    if interruption is not None:
        raise interruption
    return record


def _run(
    spec: CellSpec,
    folder: Path,
    record: Record,
    clock: Clock,
    log: TrainingLog,
    progress: Progress,
    ranks: Ranks,
) -> None:
    with clock.account("setup"):
        environment.reset_peak_memory(torch.device(spec.device))
        record.environment, record.code = (
            environment.describe(torch.device(spec.device)),
            {
                **environment.code_version(),
                "sources": spec.code,
            },
        )
        record.hardware = environment.hardware_class(torch.device(spec.device), spec.devices)
        progress({"phase": "setup"})
        with inputs.watching() as read:
            evaluator, data = build_evaluator(spec.task), load_data(spec)
        inputs.note(folder, read, spec.data_code)
        record.data_fingerprint = data.fingerprint
        context = make_context(spec, folder, clock, ranks)
        method, checkpoint = set_up(spec, data, context, clock, log, folder, ranks)
        if checkpoint is not None:
            log.num_resumes += 1
        synchronize(context.device)
    energy = environment.EnergyMeter(context.device)
    evaluation_context = make_evaluation_context(spec, context, progress)

    def score() -> float | None:
        quiet = replace(evaluation_context, progress=lambda share: None)
        with energy.paused():
            return evaluate(evaluator, method.predictor(), data, quiet, spec).values.get(spec.task.primary)

    monitor = Monitor(spec.fidelity.evaluations, score, clock, context.device)
    train(spec, method, context, clock, log, folder, progress, monitor, ranks)
    record.energy_joules = energy.joules()
    record.steps, record.samples = context.step, context.samples
    record.num_parameters = method.num_parameters()  # their number may have changed
    if not (checkpoint is not None and checkpoint["trained"]):
        with clock.account("checkpoint"):
            write_checkpoint(folder, method, context, log, clock, trained=True)

    progress({"phase": "evaluate", "progress": 0.0})
    with clock.account("evaluate"):
        predictor = method.predictor()
        evaluation = evaluate(evaluator, predictor, data, evaluation_context, spec)
        synchronize(context.device)
    clock.move("evaluate", "adapt", float(evaluation.notes.get("adapt_seconds", 0.0)))
    record.metrics, record.absent, record.notes = evaluation.values, evaluation.absent, evaluation.notes
    if spec.fidelity.evaluations and log.curve and spec.task.primary in evaluation.values:
        log.curve[-1][EVALUATED + spec.task.primary] = evaluation.values[spec.task.primary]
    with clock.account("measure"):
        progress({"phase": "measure"})
        record.latency, record.inference_flops = measure_inference(evaluator, predictor, data, evaluation_context, spec)
    if spec.fidelity.analysis:
        with clock.account("analyse"):
            evaluation.exhibits |= analyse(predictor, data, evaluation_context)
    with clock.account("log"):
        write_exhibits(folder, evaluation.exhibits)
        write_arrays(folder / "items.npz", evaluation.items)
        write_arrays(folder / "predictions.npz", evaluation.predictions)
        write_images(folder / "images", {**context.images, **evaluation.images})


def follow(spec: CellSpec, folder: Path, ranks: Ranks) -> None:
    """What the further ranks of a cell on several devices do: the same steps, each on its share of the batches."""
    clock = Clock()
    context = make_context(spec, folder, clock, ranks)
    method, _ = set_up(spec, load_data(spec), context, clock, TrainingLog(), folder, ranks)
    for steps, context.progress in ranks.orders():
        ranks.agree(_run_steps(method, context, steps))


# ---------------------------------------------------------------------------------------------------------------- parts
def set_up(
    spec: CellSpec,
    data: EvaluationData,
    context: CellContext,
    clock: Clock,
    log: TrainingLog,
    folder: Path,
    ranks: Ranks,
) -> tuple[Method, dict[str, Any] | None]:
    """The method, ready to go on, and the checkpoint that it goes on from."""
    method = build_method(spec.method, spec.parameters)
    configure_torch(spec, context)
    method.setup(TrainingData(data.schema, data.train, data.fingerprint), context)
    log.origin = f"code {sources.digest(spec.code)}, data {data.fingerprint[:12]}"
    checkpoint = usable_checkpoint(folder, log.origin)
    if checkpoint is not None:
        restore(checkpoint, method, context, log, clock)
    ranks.attach(method, context.device)
    return method, checkpoint


def empty_record(spec: CellSpec) -> Record:
    import json

    return Record(
        cell_key=spec.key,
        name=spec.name,
        status="failed",
        task=spec.task.name,
        kind=spec.task.kind.value,
        protocol=spec.task.protocol,
        dataset=spec.dataset.name,
        instance=spec.instance,
        method=spec.method.name,
        fidelity=spec.fidelity.name,
        seed=spec.seed,
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
        trivial=spec.method.trivial,
        primary=spec.task.primary,
        specification={
            key: value for key, value in json.loads(spec.to_json()).items() if key not in ("code", "data_code")
        },
        applied_presets=list(spec.applied_presets),
        throughput_unit=spec.task.throughput_unit,
    )


def load_data(spec: CellSpec) -> EvaluationData:
    """Both splits, checked: not empty, and finite where they lie in memory. Raises DataError."""
    dataset = build_dataset(spec.dataset)
    missing = dataset.missing()
    if missing is not None:
        raise DataError(f"dataset {spec.dataset.name}: {missing}")
    name = f"dataset {spec.dataset.name}" + ("" if spec.instance == "all" else f", instance {spec.instance}")
    splits = {split: dataset.load(spec.instance, split) for split in ("train", "test")}
    for split, items in splits.items():
        check_split(items, f"{name}, {split} split")
    fingerprint = dataset.fingerprint(spec.instance, splits, Manifest(spec.dataset.name).digest)
    return EvaluationData(dataset.schema(spec.instance), splits["train"], splits["test"], fingerprint)


def check_split(items: Split, name: str) -> None:
    if len(items) == 0:
        raise DataError(f"{name}: there is no item in it; check the dataset's folder and parameters")
    if isinstance(items, ArraySplit):
        for field_name, value in items.fields.items():
            if value.is_floating_point() and not torch.isfinite(value).all():
                bad = (
                    int((~torch.isfinite(value)).flatten(1).any(1).sum())
                    if value.ndim > 1
                    else int((~torch.isfinite(value)).sum())
                )
                raise DataError(f"{name}: {bad} items hold NaN or infinity in {field_name!r}; remove or repair them")


def make_context(spec: CellSpec, folder: Path, clock: Clock, ranks: Ranks | None = None) -> CellContext:
    ranks = ranks or Ranks()
    work = folder / "work" / (f"rank{ranks.rank}" if ranks.rank else "")
    work.mkdir(parents=True, exist_ok=True)
    return CellContext(
        device=ranks.device(spec.device),
        precision=spec.precision,
        budget=spec.budget,
        work_folder=work,
        seed_parts=(spec.suite_seed, spec.dataset.name, spec.instance, spec.seed),
        clock=clock,
        ranks=ranks,
    )


def configure_torch(spec: CellSpec, context: CellContext) -> None:
    """The global generators start at a seed of their own; on an accelerator the deterministic mode is a recorded switch."""
    seed = context.seed("global")
    torch.default_generator.manual_seed(
        seed
    )  # torch.manual_seed keeps a traceback for accelerators that are not there: 8 ms
    np.random.seed(seed % 2**32)  # noqa: NPY002 - for libraries that still draw from the global state
    if context.device.type == "cuda":
        torch.cuda.manual_seed_all(seed)
        torch.use_deterministic_algorithms(spec.deterministic, warn_only=True)
        torch.backends.cudnn.deterministic = spec.deterministic
        torch.backends.cudnn.benchmark = not spec.deterministic


def make_evaluation_context(spec: CellSpec, context: CellContext, progress: Progress) -> EvaluationContext:
    return EvaluationContext(
        device=context.device,
        seed=derive_seed(spec.suite_seed, spec.dataset.name, spec.instance, spec.seed, "evaluation"),
        max_items=spec.fidelity.max_items,
        progress=lambda share: progress({"phase": "evaluate", "progress": share}),
    )


def train(
    spec: CellSpec,
    method: Method,
    context: CellContext,
    clock: Clock,
    log: TrainingLog,
    folder: Path,
    progress: Progress,
    monitor: Monitor,
    ranks: Ranks | None = None,
) -> None:
    """Steps until the budget ends, in chunks of about half a second.

    The device is synchronised and the values are read at chunk ends only. The first step is a chunk of its own and
    counts as compilation: whatever is lazily built or tuned is built there.
    """
    stop, ranks = StopFlag(), ranks or Ranks()
    chunk, last_checkpoint = 1, time.perf_counter()
    monitor.done = int(context.progress * monitor.count)
    while not _spent(context, log.train_seconds):
        first = context.step == 0
        steps = _limited(1 if first else chunk, context)
        samples, waited = context.samples, clock.read()["data"]
        cpu, begin = time.process_time(), time.perf_counter()
        ranks.order(steps, context.progress)
        with clock.account("compile" if first else "train"):
            if first:
                values, flops = _first_step(method, context)
                log.step_flops = flops * ranks.size
            else:
                values = _run_steps(method, context, steps)
            synchronize(context.device)
        seconds = time.perf_counter() - begin
        log.train_seconds += seconds
        log.train_cpu_seconds += time.process_time() - cpu
        if not first:
            log.windows.append([steps, context.samples - samples, seconds, clock.read()["data"] - waited])
            chunk = max(1, min(2 * steps + 1, round(steps * CHUNK_SECONDS / max(seconds, 1e-6))))
        context.progress = _progress(context, log.train_seconds)
        with clock.account("log"):
            point = ranks.agree(values)
            log.curve.append({"step": context.step, "seconds": round(log.train_seconds, 4), **point})
            progress(
                {
                    "phase": "train",
                    "progress": context.progress,
                    "step": context.step,
                    "values": point,
                    "samples_per_second": (context.samples - samples) / seconds,
                }
            )
            broken = [name for name, value in point.items() if not math.isfinite(value)]
            if broken:
                raise Diverged(
                    f"{', '.join(broken)} not finite at step {context.step}; the last good state is in checkpoint.pt"
                )
        if not stop.requested and (value := monitor(context.progress, log.train_seconds)) is not None:
            log.curve[-1][EVALUATED + spec.task.primary] = value
        stopping = stop.requested  # looked at once: what comes later is for the end of the next chunk
        if time.perf_counter() - last_checkpoint > spec.fidelity.checkpoint_seconds or stopping:
            with clock.account("checkpoint"):
                write_checkpoint(folder, method, context, log, clock, trained=False)
            last_checkpoint = time.perf_counter()
        if stopping:
            raise Interrupted
    ranks.order(0, 1.0)
    context.progress = 1.0


def _run_steps(method: Method, context: CellContext, steps: int) -> Mapping[str, Tensor]:
    total = context.budget.steps
    values: Mapping[str, Tensor] = {}
    for _ in range(steps):
        values = method.step()
        context.step += 1
        if total is not None:
            context.progress = max(context.progress, context.step / total)
    return values


def _first_step(method: Method, context: CellContext) -> tuple[Mapping[str, Tensor], float]:
    with FlopCounterMode(display=False) as counter:
        values = _run_steps(method, context, 1)
    return values, float(counter.get_total_flops())


def _spent(context: CellContext, seconds: float) -> bool:
    budget = context.budget
    return (
        (budget.steps is not None and context.step >= budget.steps)
        or (budget.seconds is not None and seconds >= budget.seconds)
        or (budget.samples is not None and context.samples >= budget.samples)
    )


def _progress(context: CellContext, seconds: float) -> float:
    budget: Budget = context.budget
    shares = [
        used / limit
        for used, limit in ((context.step, budget.steps), (seconds, budget.seconds), (context.samples, budget.samples))
        if limit
    ]
    return min(1.0, max(shares))


def _limited(steps: int, context: CellContext) -> int:
    """No chunk goes past the end of a budget in steps or, by the samples of past steps, in samples."""
    if context.budget.steps is not None:
        steps = min(steps, context.budget.steps - context.step)
    if context.budget.samples is not None and context.samples:
        left = (context.budget.samples - context.samples) * context.step / context.samples
        steps = min(steps, math.ceil(left))
    return max(1, steps)


class StopFlag:
    """TERM and INT ask the cell to end; it does so between two chunks, after a checkpoint."""

    def __init__(self) -> None:
        self.requested = False
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._request)
        except ValueError:  # not the main thread: whoever runs us there ends us there
            pass

    def _request(self, number: int, frame: object) -> None:
        self.requested = True


def throughput(windows: list[list[float]]) -> float | None:
    """Samples per second over the windows after warm-up (the first second of steps, when there is more than that)."""
    steady = windows
    total = 0.0
    for index, window in enumerate(windows):
        if total >= 1.0:
            steady = windows[index:]
            break
        total += window[2]
    samples, seconds = sum(w[1] for w in steady), sum(w[2] for w in steady)
    return samples / seconds if seconds > 0 and samples > 0 else None


def evaluate(
    evaluator: Evaluator, predictor: Predictor, data: EvaluationData, context: EvaluationContext, spec: CellSpec
) -> Evaluation:
    lacking = [protocol.__name__ for protocol in evaluator.offers if not isinstance(predictor, protocol)]
    if lacking:
        raise AdlbenchError(
            f"method {spec.method.name}: its predictor lacks {', '.join(lacking)}, which protocol {spec.task.protocol} calls"
        )
    result = evaluator.evaluate(predictor, data, context)
    for name in spec.task.metrics:
        if name not in result.values and name not in result.absent:
            result.absent[name] = "the evaluator gave no value"
        elif name in result.values and not math.isfinite(result.values[name]):
            result.absent[name] = f"the value is {result.values.pop(name)}"
    return result


def measure_inference(
    evaluator: Evaluator, predictor: Predictor, data: EvaluationData, context: EvaluationContext, spec: CellSpec
) -> tuple[list[Latency], float | None]:
    """p50 and p95 of single calls at each stated batch size, and the FLOPs of one call at the first of them."""
    latencies, flops = [], None
    with torch.no_grad():
        fidelity = spec.fidelity
        for batch_size in spec.task.inference_batch_sizes.get(fidelity.name, fidelity.inference_batch_sizes):
            call, samples = evaluator.inference(predictor, data, context, batch_size)
            if flops is None:
                fast_path = torch.backends.mha.get_fastpath_enabled()
                torch.backends.mha.set_fastpath_enabled(False)  # the fused path is invisible to the counter
                try:
                    with FlopCounterMode(display=False) as counter:
                        call()
                finally:
                    torch.backends.mha.set_fastpath_enabled(fast_path)
                flops = float(counter.get_total_flops())
            call()
            times, budget = [], time.perf_counter() + 10 * CHUNK_SECONDS
            for _ in range(spec.fidelity.latency_repeats):
                synchronize(context.device)
                begin = time.perf_counter()
                call()
                synchronize(context.device)
                times.append(time.perf_counter() - begin)
                if time.perf_counter() > budget:
                    break
            p50, p95 = np.percentile(times, [50, 95]) * 1e3
            latencies.append(Latency(batch_size, samples, float(p50), float(p95), samples / (float(p50) / 1e3)))
    return latencies, flops


# ----------------------------------------------------------------------------------------------------------- checkpoint
def write_checkpoint(
    folder: Path, method: Method, context: CellContext, log: TrainingLog, clock: Clock, *, trained: bool
) -> None:
    state = {
        "method": method.state_dict(),
        "context": context.state_dict(),
        "random": torch.get_rng_state(),
        "log": asdict(log),
        "accounts": clock.read(),
        "cpu_seconds": time.process_time(),
        "trained": trained,
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomic(folder / "checkpoint.pt", buffer.getvalue())


def read_checkpoint(folder: Path, device: str = "cpu") -> dict[str, Any] | None:
    path = folder / "checkpoint.pt"
    if not path.exists():
        return None
    return torch.load(path, map_location=device, weights_only=True)  # type: ignore[no-any-return]


def usable_checkpoint(folder: Path, origin: str) -> dict[str, Any] | None:
    """The checkpoint to go on from; None, with a line in the log, where it is damaged or of another code or data."""
    try:
        checkpoint = read_checkpoint(folder)
    except Exception as error:  # torn by a full disk, or not written by us: torch.load says so in many ways
        print(f"checkpoint.pt cannot be read ({type(error).__name__}), training starts anew")
        return None
    if checkpoint is not None and checkpoint["log"].get("origin", origin) != origin:
        print(f"checkpoint.pt is of {checkpoint['log']['origin']}, this cell of {origin}: training starts anew")
        return None
    return checkpoint


def restore(checkpoint: dict[str, Any], method: Method, context: CellContext, log: TrainingLog, clock: Clock) -> None:
    method.load_state_dict(checkpoint["method"])
    context.load_state_dict(checkpoint["context"])
    torch.set_rng_state(checkpoint["random"])
    for name, value in checkpoint["log"].items():
        setattr(log, name, value)
    clock.add(checkpoint["accounts"])
    context.progress = _progress(context, log.train_seconds)


# ----------------------------------------------------------------------------------------------------------- evaluation
@dataclass(frozen=True)
class Reevaluation:
    recorded: dict[str, float]
    recomputed: dict[str, float]

    @property
    def differing(self) -> dict[str, tuple[float | None, float | None]]:
        names = self.recorded.keys() | self.recomputed.keys()
        pairs = {name: (self.recorded.get(name), self.recomputed.get(name)) for name in sorted(names)}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def reevaluate(folder: Path, progress: Progress = lambda event: None) -> Reevaluation:
    """Recompute the metrics of a finished cell from its checkpoint; the method is restored without training items."""
    record = read_record(folder)
    if record.status != "done":
        raise AdlbenchError(
            f"{folder}: the cell is {record.status} ({record.reason}); only a finished one can be evaluated"
        )
    spec = CellSpec.from_json((folder / "cell.json").read_text())
    try:
        checkpoint = read_checkpoint(folder)
    except Exception as error:  # torn, or not tensors and plain values: torch.load says so in many ways
        raise AdlbenchError(
            f"{folder / 'checkpoint.pt'}: cannot be read ({type(error).__name__}); run again"
        ) from error
    if checkpoint is None:
        raise AdlbenchError(f"{folder}: there is no checkpoint.pt; run the cell again")
    data = load_data(spec)
    if data.fingerprint != record.data_fingerprint:
        raise AdlbenchError(
            f"dataset {spec.dataset.name}: its bytes changed since the record was made (fingerprint "
            f"{data.fingerprint[:12]} now, {record.data_fingerprint[:12]} then); run the cell again"
        )
    context = make_context(spec, folder, Clock())
    configure_torch(spec, context)
    method = build_method(spec.method, spec.parameters)
    method.setup(TrainingData(data.schema, AbsentSplit(len(data.train)), data.fingerprint), context)
    method.load_state_dict(checkpoint["method"])
    result = evaluate(
        build_evaluator(spec.task), method.predictor(), data, make_evaluation_context(spec, context, progress), spec
    )
    return Reevaluation(record.metrics, result.values)


def write_images(folder: Path, images: Mapping[str, np.ndarray]) -> None:
    from PIL import Image

    if images:
        folder.mkdir(exist_ok=True)
    for name, pixels in images.items():
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "png")
        safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in name).strip(".")
        write_atomic(folder / f"{safe}.png", buffer.getvalue())


def write_json_text(path: Path, text: str) -> None:
    write_atomic(path, text.encode())
